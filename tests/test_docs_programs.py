"""Programs and files of the documentation work as they stand there, and so does every other block."""

from __future__ import annotations

import configparser
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import docs_commands as docs
import pytest
import small_models
import torch
from attributions import holding, stacked
from docs_commands import ROOT, Block
from layerprof.hooks.base import LayerHook
from rich.console import Console
from shown import shown
from whole_request import request_run

import layerprof
from layerprof import registry
from layerprof.books import memory
from layerprof.data import batching, datasets
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.models.subject import Subject
from layerprof.report.attribution.terminal import render
from layerprof.report.attribution.view import View
from layerprof.report.formats import find
from layerprof.report.sweep import overview
from layerprof.sweep import experiment, experiment_file


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in a folder that holds a run, sweeps, traces, samples and models under the names that the pages use."""
    with docs.furnished(tmp_path_factory.mktemp("docs")) as folder:
        yield folder


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Load the bundled model."""
    return load_model(resolve("demo", device="cpu", dtype="fp32"))


def _namespace(subject: Subject) -> dict[str, Any]:
    """Return what programs take for granted: a model with its processor, and inputs of a few rows."""
    asked = datasets.load("textvqa", count=3)
    short = {"max_new_tokens": 3}
    batches = [batch.tensors | short for batch in batching.batches(subject, asked, batch_size=2)]
    return {"model": subject.model, "processor": subject.processor, "batches": batches, "inputs": batches[0]}


def _program(start: str, page: str) -> Block:
    (block,) = [block for block in docs.blocks("python") if block.page == page and start in block.text]
    return block


def _execute(block: Block, namespace: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block.text.replace(*docs.REPLACED.get(block.page, ("", ""))), block.name, "exec"), namespace)
    return namespace


def _profiled(made: dict[str, Any]) -> None:
    """Check the rows' spans, and that FLOPs balance."""
    run = made["prof"].run
    assert run.layers[0].span_s is not None
    assert run.ledger.flops.residual == 0


def _answered(made: dict[str, Any]) -> None:
    """Check that four questions were asked at a time."""
    assert made["batch"].rows == 4


def _loaded(made: dict[str, Any]) -> None:
    """Check that a stored run is read again, and that its phases' sums are all of its work."""
    assert set(made["by_phase"]) == {"vision", "prefill", "decode"}
    assert sum(phase.flops for phase in made["by_phase"].values()) == made["run"].ledger.flops.total


def _spans(made: dict[str, Any]) -> None:
    """Check that self times and gaps are the windows: on one clock, the residual is rounding."""
    reading = made["reading"]
    spent = sum(span.self_s for span in reading.spans) + sum(reading.gaps_s.values())
    assert len(reading.windows_s) == 2
    assert spent == pytest.approx(sum(reading.windows_s), rel=1e-3)


def _attributed(made: dict[str, Any]) -> None:
    """Check a trace that somebody else recorded: 30 us launched in `encode`, 90 in `decode`, 60 in neither."""
    result = made["result"]
    assert {row.name: row.self_ns for row in result.rows} == {"encode": 30_000, "decode": 90_000}
    assert result.buckets_ns["outside layers"] == 60_000


def _captured(made: dict[str, Any]) -> None:
    """Check a replay beside its capture: three replays of six layers, each kernel matched by its order."""
    result = made["result"]
    (graph,) = result.graphs
    assert (graph.replays, graph.by, graph.matched_ns, result.stacks) == (3, "order", graph.ns, ())
    assert {row.naming for row in result.rows} == {"captured"}


def _copied(made: dict[str, Any]) -> None:
    """Check that what was saved can be given to --source."""
    copy = datasets.load("textvqa", source="textvqa-300", count=2)
    assert [example.references for example in copy.examples] == [("yes",), ("yes",)]


def _counts(made: dict[str, Any]) -> None:
    """Check that it is one of our hooks; that `--hook` runs it is tested with the commands."""
    assert issubclass(made["CallCounter"], LayerHook)


def _rows_of_latex(made: dict[str, Any]) -> None:
    """Check that it writes a row for each layer of a run, and for each cell of a sweep, measured or not."""
    run, sweep = layerprof.load_run("RUN"), overview.load("SWEEP_A")
    for method, result, rows in (("render", run, run.layers), ("render_sweep", sweep, sweep.record.cells)):
        out = io.StringIO()
        getattr(made["Latex"](), method)(result, out)
        head, *body = out.getvalue().splitlines()
        assert head.endswith(r"\hline")
        assert [line.endswith(r" \\") for line in body] == [True] * len(rows)


PROGRAMS: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
    ("README.md", "LayerProfiler"): _profiled,
    ("docs/models.md", "LayerProfiler"): _profiled,
    ("docs/models.md", "wrap"): _answered,
    ("docs/reading.md", "load_run"): _loaded,
    ("docs/latency.md", "LatencyHook"): _spans,
    ("docs/traces.md", "encode"): _attributed,
    ("docs/traces.md", "captures="): _captured,
    ("docs/datasets.md", "load_dataset"): _copied,
    ("docs/hooks.md", "CallCounter"): _counts,
    ("docs/formats.md", "Latex"): _rows_of_latex,
}
"""What each program must have done, by its page and a word of it."""
NEEDS_A_GPU = {("docs/traces.md", "CUDAGraph")}
"""Programs that a GPU alone can run, by the same."""


@pytest.mark.parametrize(("page", "word"), PROGRAMS)
def test_programs_run(page: str, word: str, workplace: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a page runs as it stands there, and does what the page says."""
    import datasets as hub

    def load_dataset(name: str, split: str, streaming: bool) -> hub.IterableDataset:
        """Stand in for the hub."""
        spec = datasets.SPECS["textvqa"]
        assert (name, split, streaming) == (spec.hub_id, spec.split, True)
        rows = [{"image": small_models.picture(), "question": "is it?", "answers": ["yes"]} for _ in range(3)]
        return hub.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    PROGRAMS[page, word](_execute(_program(word, page), _namespace(subject)))


@pytest.mark.parametrize(("page", "word"), NEEDS_A_GPU)
def test_programs_for_a_gpu_are_programs(page: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is a GPU, they run and leave the files that they name; elsewhere they compile at least."""
    block = _program(word, page)
    compile(block.text, block.name, "exec")
    if torch.cuda.is_available():
        monkeypatch.chdir(tmp_path)
        _execute(block, {})
        assert {path.name for path in tmp_path.iterdir()} == set(re.findall(r'"(\w+\.json\.gz)"', block.text))


def test_the_experiment_file_is_one(workplace: Path) -> None:
    """The sizes and batches without what is skipped, one cell more, each three times; the demo's samples apply."""
    (block,) = docs.blocks("toml")
    (workplace / "reference").symlink_to(ROOT / "experiments" / "reference")
    (workplace / "own.toml").write_text(block.text)
    found = experiment_file.load("own.toml")
    cells = experiment.cells(found)
    once = {(cell.choices["batch_size"], cell.choices.get("image_size")) for cell in cells}
    assert once == {(1, 224), (1, 448), (4, 224), (4, 448), (8, 224), (16, 224), (64, None)}
    assert len(cells) == 3 * len(once)
    assert {cell.demo["samples"] for cell in cells} == {32}
    assert found.tables[0].reference is not None


@pytest.mark.parametrize(
    ("page", "group", "made"),
    [("docs/hooks.md", registry.GROUP, "CallCounter"), ("docs/formats.md", find.GROUP, "Latex")],
)
def test_entry_points_name_the_class_of_their_page(
    page: str, group: str, made: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written into setup.cfg, it is found in the group that layerprof looks into."""
    monkeypatch.syspath_prepend(workplace)
    (block,) = [block for block in docs.blocks("ini") if block.page == page]
    setup = configparser.ConfigParser()
    setup.read_string(block.text)
    name, _, value = setup["options.entry_points"][group].strip().partition(" = ")
    assert EntryPoint(name, value, group).load().__name__ == made


def test_a_row_and_its_folder_are_samples(workplace: Path) -> None:
    """The table's row names a picture of the folder's tree, and both load."""
    (row,) = docs.blocks("json")
    tree = next(block for block in docs.blocks("") if block.page == "docs/datasets.md")
    assert tree.text.split() == ["samples/", "metadata.jsonl", json.loads(row.text)["file_name"]]
    (example,) = datasets.load("textvqa", source="samples", count=1).examples
    assert example.references == ("stop", "STOP")


def test_rows_of_several_pictures_are_samples(tmp_path: Path) -> None:
    """Each row of the page loads, with as many images and frames as it names."""
    (block,) = docs.blocks("jsonl")
    (tmp_path / "clip").mkdir()
    frames = [f"{number:04d}.png" for number in (1, 2, 3)]
    for name in ("front.png", "back.png", *frames, *(f"clip/{name}" for name in frames)):
        small_models.picture().save(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_text(block.text)
    loaded = datasets.load("textvqa", source=tmp_path, count="all")
    assert [(len(one.pictures), len(one.frames)) for one in loaded.examples] == [(2, 0), (0, 0), (0, 3), (1, 3)]


def _labels(printed: str, section: str) -> set[str]:
    """Return what stands first in the lines of a section of the summary."""
    lines = printed.split(f"\n{section}  ", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return {re.split(r" {2,}", line)[0] for line in lines if line.strip() and not line.startswith(" ")}


def test_the_summary_in_the_readme_is_what_is_printed(workplace: Path) -> None:
    """The same headings, and the same lines in those sections whose lines do not hang on the machine's speed."""
    (block,) = [block for block in docs.blocks("") if block.page == "README.md"]
    printed = docs.call(["layerprof", "report", "RUN"])[1]
    headings = re.findall(r"^[A-Z]\w+(?: \w+)*(?=  )", block.text, re.MULTILINE)
    assert {"End to end", "Where it goes", "Hot spots", "Layers", "Ledger", "Files"} <= set(headings)
    for heading in ("End to end", "Ledger"):
        assert _labels(block.text, heading) == _labels(printed, heading)
    lines = [line.partition("  ")[0] for line in printed.splitlines()]
    assert [heading for heading in headings if heading not in lines and heading[0] != "F"] == []


def test_books_balance_as_the_pages_write_it(workplace: Path) -> None:
    """Layers + rest + residual = total, for every quantity that was measured."""
    formula = next(block for block in docs.blocks("") if block.page == "docs/reading.md")
    assert formula.text == "layers + rest + residual = total\n"
    books = layerprof.load_run("RUN").ledger
    for column in (books.flops, books.span_s, books.busy_s):
        assert column.layers is not None
        assert column.residual is not None
        assert column.layers + sum(column.rest.values()) + column.residual == pytest.approx(column.total)


PARTS = "part                     %    ms  a batch           95 %   p95"


def test_the_parts_of_a_request_are_what_is_printed() -> None:
    """Six batches of two rows, on a terminal of 80 columns."""
    (block,) = (block for block in docs.blocks("") if block.text.startswith(PARTS))
    assert block.text.strip() in "\n".join(line.rstrip() for line in shown(request_run(), 80).splitlines())


def test_the_books_of_memory_are_named_as_they_are() -> None:
    """Every line that is no layer's stands in the formula."""
    (block,) = (block for block in docs.blocks("") if block.page == "docs/memory.md")
    named = (memory.WEIGHTS_ELSEWHERE, memory.KV_CACHE, memory.INPUTS, memory.BEFORE, memory.OUTSIDE)
    assert [name for name in named if name not in block.text] == []


TREE = "layer                     time µs     %            own µs  each µs  busy/span %"


def test_the_tree_of_a_trace_is_what_is_printed() -> None:
    """A model of 24 alike layers, one of them slower, on a terminal of 80 columns."""
    (block,) = (block for block in docs.blocks("") if block.text.startswith(TREE))
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None, legacy_windows=False)
    console._environ = {}
    render(holding(stacked(24, slow=(7,))), console, View(depth=3))
    printed = [line.rstrip() for line in out.getvalue().splitlines()]
    assert printed[1 : 1 + len(block.text.splitlines())] == block.text.splitlines()


def test_the_plan_of_the_house_has_the_floors_of_the_contract() -> None:
    """Wings stand in the drawing on the floors that `make lint` holds, and every wing has one."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [sorted(floor.split(" | ")) for floor in contract if floor != "__main__"]
    plan = next(block for block in docs.blocks("") if block.page == "docs/architecture.md")
    drawn = [sorted(re.findall(r"(\w+)(?:/|\.py)", line[:45])) for line in plan.text.splitlines()]
    assert drawn == floors


def test_the_flow_goes_through_wings() -> None:
    """What stands on an arrow of the drawing is a wing of the house, or the hooks."""
    _, flow = (block for block in docs.blocks("") if block.page == "docs/architecture.md")
    wings = {path.parent.name for path in (ROOT / "layerprof").glob("*/__init__.py")}
    named = set(re.findall(r"─([a-z]+)─", flow.text))
    assert {"models", "layers", "books", "runs", "report"} <= named <= wings


PLAIN = {
    "docs/architecture.md:         cli.py                               the tree of commands and options, nothing "
    "else": test_the_plan_of_the_house_has_the_floors_of_the_contract,
    "docs/architecture.md: name ──models──▶ Subject ──layers──▶ Layer, ... ──(hooks, by registry)──▶ readings "
    "──books──▶ Run ──runs──▶ folder ──report──▶ eyes": test_the_flow_goes_through_wings,
    "README.md: layerprof demo on textvqa": test_the_summary_in_the_readme_is_what_is_printed,
    "docs/datasets.md: samples/": test_a_row_and_its_folder_are_samples,
    "docs/latency.md: sum of self times + gaps + residual = sum of windows": _spans,
    "docs/memory.md: layers (their weights, and what their calls had made and not yet freed)": (
        test_the_books_of_memory_are_named_as_they_are
    ),
    "docs/reading.md: " + PARTS: test_the_parts_of_a_request_are_what_is_printed,
    "docs/reading.md: layers + rest + residual = total": test_books_balance_as_the_pages_write_it,
    "docs/traces.md: kernel --correlation--> launch (cuda_runtime or cuda_driver) --time on its thread--> "
    "innermost range open there": _attributed,
    "docs/traces.md: sum of own times + buckets = total, exactly": _attributed,
    "docs/traces.md: " + TREE: test_the_tree_of_a_trace_is_what_is_printed,
}
"""Blocks without a language, and what holds them to the code."""


def test_no_block_is_left_out() -> None:
    """Every fenced block is commands, a program, or a text that something above holds to the code."""
    assert set(docs.blocks("python")) == {_program(word, page) for page, word in (*PROGRAMS, *NEEDS_A_GPU)}
    assert {block.name for block in docs.blocks("")} == PLAIN.keys()
    assert {block.language for block in docs.blocks()} == {"", "sh", "python", "toml", "ini", "json", "jsonl"}
