"""On a CUDA device: the request's parts, of which the copy is timed on the device."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerprof
from layerprof.records import Run

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Twelve samples of the bundled model in batches of two, four of them instrumented."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return layerprof.profile(
        model="demo",
        source="bundled",
        samples=12,
        instrumented=4,
        batch_size=2,
        image_size=448,
        device="cuda",
        energy="off",
        trace=False,
        prefetch=2,
        output=str(tmp_path_factory.mktemp("runs") / "run"),
    )


def test_the_copy_takes_time_on_the_device(run: Run) -> None:
    """Two pictures of 448 px are 2 x 1,024 patches of 1,176 numbers, above 4 MB: no bus takes longer than 0.1 s."""
    assert run.totals.request_s is not None
    copy = run.totals.request_s.copy
    assert 0 < copy.median < 0.1


def test_the_books_of_the_request_close(run: Run) -> None:
    """Making and answering hold next to nothing that is no part: below a twentieth."""
    column = run.ledger.request_s
    assert column is not None
    assert column.total
    assert column.residual is not None
    assert abs(column.residual) < 0.05 * column.total


def test_the_part_is_what_the_layers_are_of(run: Run) -> None:
    """Twelve answered, four walked; batches made ahead are timed over those four."""
    assert (run.samples, run.instrumented) == (12, 4)
    assert run.passes["prefetch"]["batches"] == 2
    assert Path(run.settings["output"], "batches.csv").read_text().count("\n") == 1 + 6
