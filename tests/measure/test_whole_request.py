"""A run from the image file to the answer: what is timed, what is held, and of how many samples each figure is."""

from __future__ import annotations

import dataclasses
import gc
import json
import time
import weakref
from collections.abc import Iterator
from math import fsum
from pathlib import Path
from typing import Any

import pytest
from sessions import ended, prepared

from layerprof.data.batching import Batch
from layerprof.demo import tasks
from layerprof.errors import RequestError, RunFailedError
from layerprof.measure import answering, bare_walk, conduct, prefetch_pass
from layerprof.measure.session import Session
from layerprof.records import Run
from layerprof.runs import batch_files
from layerprof.settings import build


def session(folder: Path, **changes: Any) -> Session:
    """Prepare a run of the bundled model."""
    asked: dict[str, Any] = {"samples": 5, "dataset": "coco", "max_new_tokens": 2, "trace": False, "energy": "off"}
    return prepared(build(model="demo", output=str(folder), **asked | changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Measure five samples in twos, two of them instrumented."""
    made = session(tmp_path_factory.mktemp("run") / "r", batch_size=2, instrumented=2)
    return ended(made, conduct.conduct(made))


def test_all_are_answered_and_a_part_is_instrumented(run: Run) -> None:
    """Rates and times are of five samples in three batches; spans, FLOPs and bytes of the first batch's two."""
    assert (run.samples, run.instrumented) == (5, 2)
    assert run.totals.latency_s.per_batch.n == 3
    assert run.totals.flops is not None
    assert run.totals.flops_per_sample == run.totals.flops / 2
    block = next(row for row in run.layers if row.kind == "decoder_layer" and row.phase == "prefill")
    assert block.calls == 1
    assert run.ledger.flops.residual == 0


def test_the_request_closes(run: Run) -> None:
    """Its parts and its residual are the wall time; generate() is what the latencies say."""
    column = run.ledger.request_s
    assert column is not None
    assert column.total is not None
    parts = [column.read, column.process, column.copy, column.generate, column.residual]
    assert fsum(part for part in parts if isinstance(part, float)) == pytest.approx(column.total)
    times = batch_files.load_batches(Path(run.settings["output"]))
    assert column.generate == pytest.approx(fsum(time.latency_s for time in times))
    assert run.totals.latency_s.ttft is not None
    assert run.totals.latency_s.ttft_request is not None
    assert run.totals.latency_s.ttft_request.median > run.totals.latency_s.ttft.median
    assert run.totals.samples_per_s == pytest.approx(5 / column.total)


def test_more_to_be_instrumented_than_there_are_is_all(tmp_path: Path) -> None:
    """`all` and a larger number are the same."""
    for asked in ("all", 99):
        assert list(session(tmp_path / str(asked), instrumented=asked).asked.part) == [0, 1, 2, 3, 4]


def test_up_to_64_are_instrumented_by_default(tmp_path: Path) -> None:
    """Whole batches that hold so many: 22 of three rows."""
    assert len(session(tmp_path / "r", samples=100, batch_size=3).asked.part) == 22


def test_nothing_keeps_a_batch_that_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a batch is answered, no tensor of an earlier one is left."""
    made = session(tmp_path / "r")
    real, held = answering.answer, dict[int, weakref.ref[Any]]()

    def answer(asked: Session, batch: Batch, **options: Any) -> Any:
        gc.collect()
        assert [number for number, pixels in held.items() if number != batch.index and pixels() is not None] == []
        held[batch.index] = weakref.ref(batch.tensors["pixel_values"])
        return real(asked, batch, **options)

    monkeypatch.setattr(answering, "answer", answer)
    bare_walk.bare_and_latency(made)
    assert len(held) == 5


def test_work_of_one_signature_is_counted_as_often_as_it_comes(tmp_path: Path) -> None:
    """Captions have one prompt, and two tokens are written: nine batches, each with the work of one."""
    made = session(tmp_path / "r", fixed_tokens=True, samples=9)
    found = ended(made, conduct.conduct(made))
    alone = session(tmp_path / "one", fixed_tokens=True, samples=1)
    one = ended(alone, conduct.conduct(alone))
    assert found.passes["flops_batches"] == {"walked": 5, "of": 9}
    assert one.totals.flops is not None
    assert found.totals.flops == 9 * one.totals.flops
    assert [row.calls for row in found.layers] == [9 * row.calls for row in one.layers]
    assert [row.bytes for row in found.layers] == [9 * (row.bytes or 0) for row in one.layers]


def test_batches_made_ahead_are_the_same_answered_faster_or_not(tmp_path: Path) -> None:
    """The pass says how long both walks took; it is a walk of its own."""
    made = session(tmp_path / "r", prefetch=2, samples=6)
    found = ended(made, conduct.conduct(made)).passes["prefetch"]
    assert (found["ahead"], found["batches"]) == (2, 6)
    assert found["ratio"] == pytest.approx(found["overlapped_s"] / found["alone_s"])
    assert found["ratio_ci95"][0] <= found["ratio_ci95"][1]


class TestBadPicture:
    """Six samples in a folder, whose fourth picture is cut off: nothing tells before it is opened."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Write the samples."""
        (place := tmp_path / "samples").mkdir()
        lines = []
        for number in range(6):
            row = tasks.sample("textvqa", number).row()
            row.pop("image").save(place / f"{number}.png")
            lines.append(json.dumps({"file_name": f"{number}.png", "id": number, **row}))
        (place / "metadata.jsonl").write_text("\n".join(lines))
        (place / "3.png").write_bytes((place / "3.png").read_bytes()[:300])
        return place

    def test_it_ends_the_run_with_what_was_finished_saved(self, folder: Path, tmp_path: Path) -> None:
        """Three answers are kept; the message names the sample, the remedy and where they are."""
        made = session(tmp_path / "r", dataset="textvqa", source=str(folder), samples="all")
        failure = conduct.conduct(made)
        assert isinstance(failure, RunFailedError)
        assert "3.png" in failure.problem
        assert "--skip-bad" in failure.remedy
        assert f"3 samples) is saved in {tmp_path / 'r'}" in failure.remedy
        run = ended(made, failure)
        assert (run.status, run.samples, run.instrumented) == ("failed", 3, 3)
        assert run.ledger.span_s.total
        assert len(run.dataset["ids"]) == 3

    def test_it_is_left_out_where_that_is_asked(self, folder: Path, tmp_path: Path) -> None:
        """Named, counted, and in no figure; every pass walks the same five."""
        made = session(
            tmp_path / "r", dataset="textvqa", source=str(folder), samples="all", skip_bad=True, batch_size=2
        )
        run = ended(made, conduct.conduct(made))
        assert (run.status, run.samples, run.instrumented) == ("done", 5, 5)
        assert list(run.dataset["bad"]) == ["3"]
        assert run.dataset["ids"] == ["0", "1", "2", "4", "5"]
        assert [told for told in run.warnings if "1 sample was left out" in told and "3.png" in told]
        assert run.totals.flops
        assert run.totals.latency_s.per_batch.n == 3

    def test_it_is_told_where_the_run_is_interrupted_later(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C at the fifth answer: four are kept, nothing of the fifth, and the warnings name what was left out."""
        made = session(tmp_path / "r", dataset="textvqa", source=str(folder), samples="all", skip_bad=True)
        made.asked = dataclasses.replace(made.asked, instrumented=1)
        real = answering.answer

        def answer(asked: Session, batch: Batch, **options: Any) -> Any:
            if batch.ids == ("5",):
                raise KeyboardInterrupt
            return real(asked, batch, **options)

        monkeypatch.setattr(answering, "answer", answer)
        run = ended(made, conduct.conduct(made))
        assert (run.status, run.samples, run.instrumented) == ("interrupted", 4, 1)
        assert run.dataset["ids"] == ["0", "1", "2", "4"]
        assert [told for told in run.warnings if "1 sample was left out" in told and "3.png" in told]


class TestAhead:
    """A thread that makes batches while others are answered."""

    def test_it_gives_them_in_their_order(self) -> None:
        """However far ahead it is."""
        with prefetch_pass.Ahead(iter(numbers(9)), 3) as made:
            assert list(made) == numbers(9)

    def test_no_more_are_made_than_asked_for(self) -> None:
        """While the n-th is answered, two more are there, and nobody has begun another."""
        begun: list[int] = []

        def made() -> Iterator[Any]:
            for number in range(9):
                begun.append(number)
                yield number

        with prefetch_pass.Ahead(made(), 2) as batches:
            for number, _ in enumerate(batches):
                while len(begun) < min(number + 3, 9):
                    time.sleep(0.001)
                time.sleep(0.02)
                assert begun == list(range(min(number + 3, 9)))

    def test_it_raises_where_they_are_taken(self) -> None:
        """What was made before the failure is given first."""

        def failing() -> Iterator[Any]:
            yield from numbers(2)
            raise RequestError("Sample 3 cannot be read.", "Repair it.")

        taken: list[Any] = []
        with pytest.raises(RequestError, match="Sample 3"), prefetch_pass.Ahead(failing(), 1) as made:
            taken.extend(made)
        assert taken == numbers(2)

    def test_its_thread_ends_with_the_block(self) -> None:
        """Also where nobody takes what it made."""
        ahead = prefetch_pass.Ahead(iter(numbers(100)), 1)
        with ahead as made:
            assert next(made) == numbers(1)[0]
        assert not ahead._thread.is_alive()


def numbers(count: int) -> list[Any]:
    """Stand for batches."""
    return list(range(count))
