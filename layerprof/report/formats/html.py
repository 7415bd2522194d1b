"""The run as one HTML page that needs nothing else: plots, tables and data inside, no request to anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import IO, Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from layerprof.records import Run
from layerprof.report import units
from layerprof.report.payload import flat_settings, payload


def render(run: Run, out: IO[str]) -> None:
    """Write the page. Everything from models and datasets is escaped; its policy forbids any request."""
    here = files("layerprof.report")
    template = _environment().from_string(here.joinpath("run.html").read_text(encoding="utf-8"))
    data = payload(run)
    page = template.stream(
        run=data,
        tables=[(name, flat_settings(values)) for name, values in _tables(run)],
        files=run.files,
        percent=units.percent,
        data=embedded(data),
        style=Markup(here.joinpath("page.css").read_text(encoding="utf-8")),
        scripts=[Markup(text) for text in (plotly_js(), here.joinpath("charts.js").read_text(encoding="utf-8"))],
    )
    page.dump(out)  # type: ignore[arg-type]  # jinja2 types its text streams as binary


def _tables(run: Run) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what is listed as it was stored: settings, where it ran, and what measured the energy."""
    named = [(name, getattr(run, name)) for name in ("settings", "environment", "model", "dataset")]
    energy = run.passes.get("energy")
    return [*named, ("energy", energy)] if isinstance(energy, Mapping) else named


def embedded(data: Any) -> Markup:
    """Return data as JSON that can stand inside a script element: no `<` can end it, whatever the data holds."""
    text = orjson.dumps(data).decode()
    for sign, code in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, code)
    return Markup(text)


def plotly_js() -> str:
    """Return the plotting library's script as plotly's package carries it."""
    return files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
