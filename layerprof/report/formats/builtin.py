"""The formats that come with layerprof, of runs and of sweeps. Each loads what it needs when it is asked to render."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from layerprof.records import Run
    from layerprof.report.sweep.overview import SweepData


class Terminal:
    """Tables and bars as a terminal shows them; in a file or a pipe in ASCII."""

    def render(self, run: Run, out: Console | IO[str]) -> None:
        """Print the run."""
        from layerprof.report.formats import terminal

        terminal.render(run, out)

    def render_sweep(self, sweep: SweepData, out: Console | IO[str]) -> None:
        """Print the sweep."""
        from layerprof.report.sweep import terminal

        terminal.render(sweep, out)


class Markdown:
    """For notes, issues and READMEs."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the run."""
        from layerprof.report.formats import markdown

        markdown.render(run, out)

    def render_sweep(self, sweep: SweepData, out: IO[str]) -> None:
        """Write the sweep."""
        from layerprof.report.sweep import markdown

        markdown.render(sweep, out)


class Csv:
    """One line for each layer and phase of a run, one for each cell of a sweep; SI units."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the layer table, as `layers.csv` holds it."""
        from layerprof.runs import layer_table

        out.write(layer_table.csv_text(run))

    def render_sweep(self, sweep: SweepData, out: IO[str]) -> None:
        """Write the cells."""
        from layerprof.report.sweep import csv_json

        csv_json.render_csv(sweep, out)


class Json:
    """Everything, for other programs."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the text of `run.json`."""
        from layerprof.runs import store

        out.write(store.dump(run).decode())

    def render_sweep(self, sweep: SweepData, out: IO[str]) -> None:
        """Write the tables with their cells."""
        from layerprof.report.sweep import csv_json

        csv_json.render_json(sweep, out)


class Html:
    """One page that needs nothing else and asks for nothing."""

    def render(self, run: Run, out: IO[str]) -> None:
        """Write the run's page."""
        from layerprof.report.formats import html

        html.render(run, out)

    def render_sweep(self, sweep: SweepData, out: IO[str]) -> None:
        """Write the sweep's page."""
        from layerprof.report.sweep import html

        html.render(sweep, out)
