"""How results of a machine with a GPU are judged: each figure against what it had to be."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from sample_run import sample_run

from layerprof.records import EnergyClosure, NotRecorded, Phase, Quality, Run, Sample
from layerprof.runs import store


@pytest.fixture(scope="module")
def report() -> Any:
    """Import the script."""
    spec = importlib.util.spec_from_file_location("gpu_report", ROOT / "experiments" / "gpu_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["gpu_report"] = module
    spec.loader.exec_module(module)
    return module


def run_with(**changes: Any) -> Run:
    """Return the sample run as a GPU's, with these totals, ledger columns, passes or settings changed."""
    run = sample_run()
    totals = run.totals.model_copy(update=changes.pop("totals", {}))
    ledger = run.ledger.model_copy(update=changes.pop("ledger", {}))
    return sample_run(**({"totals": totals, "ledger": ledger, "passes": {"spans_dropped": 0}} | changes))


def judged(
    report: Any, folder: Path, run: Run, name: str = "batch1", **files: Any
) -> dict[str, tuple[str, bool | None]]:
    """Return what is measured and whether it holds, by figure."""
    store.save(run, folder / name)
    for file, content in files.items():
        (folder / name / f"{file}.json").write_text(json.dumps(content))
    return {check.what: (check.measured, check.holds) for check in report.checks(folder)}


class TestChecks:
    """Each figure against what it had to be, on runs whose figures were chosen by hand."""

    def test_spans(self, report: Any, tmp_path: Path) -> None:
        """Residual 0.1 of 250 ms, no call dropped, +0.8 % for measuring."""
        found = judged(report, tmp_path, run_with())
        assert found["span residual"] == ("<0.1 %", True)
        assert found["calls without a span"] == ("0", True)
        assert found["cost of measuring"] == ("+0.8 % [+0.3, +1.4]", True)

    def test_spans_that_fall_short(self, report: Any, tmp_path: Path) -> None:
        """5 of 250 ms are nowhere, three calls were dropped, hooks cost 2.1 %."""
        span = sample_run().ledger.span_s.model_copy(update={"residual": 0.005})
        run = run_with(
            ledger={"span_s": span},
            totals={"overhead_ratio": 1.021, "overhead_ci95": (1.02, 1.03)},
            passes={"spans_dropped": 3},
        )
        found = judged(report, tmp_path, run)
        assert found["span residual"] == ("2.0 %", False)
        assert found["calls without a span"] == ("3", False)
        assert found["cost of measuring"][1] is False

    def test_books_that_miss_an_operator_do_not_hold(self, report: Any, tmp_path: Path) -> None:
        """A residual of 0 says nothing of what was never counted."""
        run = run_with(uncounted_ops={"own::matmul": 1234})
        found = judged(report, tmp_path, run)
        assert found["operators without a formula"] == ("own::matmul (1,234 calls)", False)
        assert judged(report, tmp_path, run_with(), "batch16")["operators without a formula"] == ("none", True)

    def test_a_cost_without_an_interval_is_not_known(self, report: Any, tmp_path: Path) -> None:
        """Neither held nor missed."""
        found = judged(report, tmp_path, run_with(totals={"overhead_ci95": None}))
        assert found["cost of measuring"][1] is None
        wide = run_with(totals={"overhead_ratio": 0.94, "overhead_ci95": (0.76, 1.06)})
        told, holds = judged(report, tmp_path / "wide", wide)["cost of measuring"]
        assert "[-24.0, +6.0]" in told
        assert holds is None, "what the run does not print as a figure proves nothing"

    def test_kernels(self, report: Any, tmp_path: Path) -> None:
        """All recorded, all with a launch; one block is busier than its span."""
        found = judged(report, tmp_path, run_with())
        assert found["launched, not recorded"] == ("0", True)
        assert found["no launch seen"] == ("0 %", True)
        assert found["busy / span"] == ("0.17 to 0.80 in 8 of 8 rows", True)
        rows = tuple(row.model_copy(update={"busy_share": 1.2}) for row in sample_run().layers)
        assert judged(report, tmp_path / "b", run_with(layers=rows))["busy / span"][1] is False

    def test_kernels_that_are_missing(self, report: Any, tmp_path: Path) -> None:
        """Seven launches lost; 1 of 64.15 ms without a launch; blocks without a figure."""
        busy = sample_run().ledger.busy_s
        rest = busy.rest | {"no launch seen": 0.001}
        lost = NotRecorded(launches=7, of=100, may_be=None)
        rows = tuple(row.model_copy(update={"busy_share": None}) for row in sample_run().layers[:3])
        run = run_with(ledger={"busy_s": busy.model_copy(update={"rest": rest, "not_recorded": lost})}, layers=rows)
        found = judged(report, tmp_path, run)
        assert found["launched, not recorded"] == ("7", False)
        assert found["no launch seen"] == ("1.6 %", False)
        assert found["busy / span"][1] is None

    def test_decode_of_the_full_size_model_by_its_closed_form(self, report: Any, tmp_path: Path) -> None:
        """One row of 100 positions (90 and padding), 3 tokens: 2 x 154,140,672 + 8,192 x (101 + 102) a layer."""
        due = 2 * 154_140_672 + 8_192 * (101 + 102)
        sample = Sample(
            id="a",
            batch=0,
            prompt="?",
            references=(),
            answer="",
            answer_tokens=(),
            truncated=False,
            prompt_tokens=90,
            image_tokens=64,
            pad_tokens=10,
        )
        for flops, holds in ((due, True), (due + 1, False)):
            folder = tmp_path / str(flops)
            rows = tuple(
                row.model_copy(update={"flops": flops}) if row.phase is Phase.DECODE else row
                for row in sample_run().layers
            )
            run = run_with(layers=rows, model={"parameters": 3_754_622_976}, settings={"max_new_tokens": 3})
            store.save(run, folder / "batch1", [sample])
            found = {check.what: check for check in report.checks(folder)}
            assert found["FLOPs of a decoder layer in decode"].holds is holds
            assert found["FLOPs of a decoder layer in decode"].due == f"{due:,}"

    def test_energy(self, report: Any, tmp_path: Path) -> None:
        """1 of 20 J left over, two rounds, a replayed decoder call of 3.6 ms where the model's takes 3.0, or 2.4."""
        closure = EnergyClosure(
            quality=Quality.REPLAYED,
            source="nvml_counter",
            total_j=20.0,
            total_ci95=(19.5, 20.5),
            parts_j=17.0,
            gap_j=2.0,
            residual_j=1.0,
            residual_ci95=(0.4, 1.6),
            tolerance=0.05,
            passed=True,
            rule="",
            rows=16,
            missing=(("norm", Phase.DECODE),),
        )
        rows: list[dict[str, Any]] = [{"name": "model.language_model.layers.0", "phase": "decode", "seconds": 0.0036}]
        replay = {"replay": {"rounds": 2, "gap_w": {"watts": 120.0}, "rows": rows}}
        found = judged(report, tmp_path, run_with(energy_closure=closure), energy=replay)
        assert found["energy residual"] == ("+5.0 % [+2.0, +8.0]", True)
        assert found["rows without joules"] == ("1", False)
        assert found["rounds of replay"] == ("2", True)
        assert found["replayed / in the model, decoder_layer in decode"] == ("1.200", True)
        rows[0]["in_model"] = {"seconds": 0.0024}
        found = judged(report, tmp_path, run_with(energy_closure=closure), energy=replay)
        assert found["replayed / in the model, decoder_layer in decode"] == ("1.500", True)

    def test_the_probe(self, report: Any, tmp_path: Path) -> None:
        """Ours lost nothing; torch's own 1, 2, 3; work takes 4 % longer after a session."""

        def session(ours: bool, lost: int) -> dict[str, Any]:
            return {"ours": ours, "launches": 40, "lost": lost, "orphans": 0}

        sessions = [session(False, 1), session(False, 2), session(False, 3), session(True, 0), session(True, 0)]
        probe = {"probe": {"sessions": sessions, "slowdown": 0.04, "noise": 0.01}}
        (tmp_path / "probe.json").write_text(json.dumps(probe))
        found = {check.what: (check.measured, check.holds) for check in report.checks(tmp_path)}
        assert found["lost, as layerprof records"] == ("0, 0", True)
        assert found["lost, as torch records"] == ("1, 2, 3", True)
        assert found["work after a session"] == ("+4.0 % (noise 1.0 %)", True)

    def test_the_page_sets_each_figure_beside_what_it_had_to_be(self, report: Any, tmp_path: Path) -> None:
        """The device, a line a figure, what falls short, and what was not measured."""
        store.save(run_with(totals={"overhead_ratio": 1.05, "overhead_ci95": (1.04, 1.06)}), tmp_path / "batch1")
        text = report.page(tmp_path)
        assert text.startswith("# What Imaginary GPU had to prove")
        assert "| batch1 | cost of measuring | +5.0 % \\[+4.0, +6.0\\] | ≤ 2 % | NO |" in text
        assert "- batch1: cost of measuring is +5.0 % [+4.0, +6.0], due ≤ 2 %" in text
        assert "- batch1: energy residual (–)" in text.partition("Not measured:")[2]

    def test_a_file_that_was_cut_off_costs_its_own_figures_only(self, report: Any, tmp_path: Path) -> None:
        """A stage that was killed while writing leaves half of one."""
        store.save(run_with(), tmp_path / "batch1")
        (tmp_path / "probe.json").write_text('{"probe": {"sess')
        (tmp_path / "doctor.json").write_text("[1]")
        (tmp_path / "batch16").mkdir()
        (tmp_path / "batch16" / "run.json").write_text('{"format": 2')
        found = list(report.checks(tmp_path))
        assert any(check.source == "batch1" and check.holds for check in found)
        broken = {check.source: check.measured for check in found if check.what == "results"}
        assert broken.keys() == {"doctor", "probe", "teardown", "batch16", "graph", "compiled"}
        assert "cannot be read" in broken["batch16"]
        assert "- batch16: results (cannot be read" in report.page(tmp_path)
        (tmp_path / "batch1" / "run.json").unlink()
        assert report.page(tmp_path).startswith("# What this device had to prove")

    def test_a_run_that_was_cut_short_says_so(self, report: Any, tmp_path: Path) -> None:
        """Its figures may hold; it did not end."""
        assert judged(report, tmp_path, run_with(status="interrupted"))["how it ended"] == ("interrupted", False)

    def test_a_profiler_that_recorded_nothing_proves_nothing(self, report: Any, tmp_path: Path) -> None:
        """No launch, so none lost: that is no success."""
        sessions = [{"ours": ours, "launches": 0, "lost": 0, "orphans": 0} for ours in (False, True)]
        probe = {"probe": {"sessions": sessions, "slowdown": 0.0, "noise": 0.0}}
        (tmp_path / "probe.json").write_text(json.dumps(probe))
        found = [check for check in report.checks(tmp_path) if check.source == "probe"]
        assert [(check.what, check.holds) for check in found] == [("launches recorded", False)]

    def test_operators_of_a_cpu_prove_nothing_of_kernels(self, report: Any, tmp_path: Path) -> None:
        """A CPU launches nothing, and loses nothing."""
        run = run_with(environment={"device": "cpu"})
        assert "launched, not recorded" not in judged(report, tmp_path, run)

    def test_an_empty_folder_proves_nothing(self, report: Any, tmp_path: Path) -> None:
        """Each missing result is named, and nothing is claimed."""
        assert {(check.what, check.holds) for check in report.checks(tmp_path)} == {("results", None)}
        assert "falls short" not in report.page(tmp_path)
        assert "- batch1: results (none)" in report.page(tmp_path)
