"""The examination in a terminal: what can be measured, then what was found, each refusal with its remedy."""

from __future__ import annotations

from itertools import groupby

from rich.console import Console
from rich.table import Table

from layerprof.doctor.findings import Examination, State
from layerprof.report.look import Look

SIGNS: dict[State, tuple[str, str]] = {
    "yes": ("yes", "green"),
    "partly": ("partly", "yellow"),
    "no": ("no", "red"),
    "unknown": ("unknown", "magenta"),
    "info": ("", "bright_black"),
}


def render(result: Examination, console: Console) -> None:
    """Print the answers and the findings by group."""
    look = Look.of(console)
    console.print(look.text("What can be measured here", "bold"))
    table = _table()
    for answer in result.answers:
        sign, style = SIGNS[answer.state]
        table.add_row(look.text(answer.quantity), look.text(sign, style), look.text(answer.how))
    console.print(table)
    for group, findings in groupby(result.findings, key=lambda f: f.group):
        console.print()
        console.print(look.text(group.capitalize(), "bold"))
        table = _table()
        for finding in findings:
            sign, style = SIGNS[finding.state]
            table.add_row(look.text(finding.name), look.text(sign, style), look.text(finding.detail))
            if finding.remedy:
                table.add_row("", "", look.text(f"remedy: {finding.remedy}", "cyan"))
        console.print(table)


def _table() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=20, no_wrap=True)
    table.add_column(min_width=7, no_wrap=True)
    table.add_column(overflow="fold")
    return table
