"""Who carries out the cells of a sweep, in a worker process: `layerprof.sweep.worker` imports it by its name."""

from __future__ import annotations

from layerprof.commands.api import BESIDE
from layerprof.sweep.cell_runner import CellRunner

RUNNER = "layerprof.commands.cells:Runner"


class Runner(CellRunner):
    """Real cells, each saved as `layerprof profile` saves its run."""

    beside = BESIDE
