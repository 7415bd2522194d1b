# Two commands are all the set-up there is: `make demo` and `make test`. Each builds .venv when it is missing.
.DEFAULT_GOAL := help
.PHONY: help demo test lint check gpu peers wheel clean

# The first interpreter that is new enough; override with `make PYTHON=/path/to/python3.12 demo`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
BIN := .venv/bin
READY := .venv/.ready

help: ## Show this help
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(READY): constraints.txt setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "layerprof needs Python 3.11 or newer. Install it, or name it: make PYTHON=/path/to/python3.11 demo"; exit 2; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $(READY)

demo: $(READY) ## Profile the bundled model: layerprof profile --layers all --dataset textvqa
	$(BIN)/layerprof profile --layers all --dataset textvqa

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest

lint: $(READY) ## Style, types, and which way the data flows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## Style, types and tests: what must be clean before a change lands

gpu: $(READY) ## On a CUDA machine: the GPU tests, then the full-size 3B with random fp16 weights
	PYTHON=$(BIN)/python sh experiments/gpu.sh

peers: $(READY) ## Measure layerprof beside other tools and put the tables into docs/peers.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[peers]'
	@# zeus brings amdsmi, whose import fails without AMD's driver, and Ray's with it.
	$(BIN)/python -c 'import amdsmi' >/dev/null 2>&1 || $(BIN)/python -m pip uninstall --quiet --yes amdsmi
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(BIN)/../peers-hta \
		--requirement experiments/peers/hta.txt
	PYTHON=$(BIN)/python sh experiments/peers/all.sh

wheel: $(READY) ## Build sdist and wheel into dist/
	rm -rf build dist
	$(BIN)/python -m build

clean: ## Remove what was built
	rm -rf build dist .venv *.egg-info
