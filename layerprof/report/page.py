"""What HTML pages are made of: one file that needs nothing else, and makes no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import IO, Any

import orjson
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup


def write(out: IO[str], template: str, data: Any, scripts: Sequence[str], **named: Any) -> None:
    """Write the page of a template: `data` for its scripts, which come after the plotting library, and named values.

    Everything from models and datasets is escaped; the templates' policy forbids any request.
    """
    here = files("layerprof.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(here.joinpath(template).read_text(encoding="utf-8")).stream(
        **named,
        data=embedded(data),
        style=Markup(here.joinpath("page.css").read_text(encoding="utf-8")),
        scripts=[
            Markup(text)
            for text in (plotly_js(), *(here.joinpath(name).read_text(encoding="utf-8") for name in scripts))
        ],
    )
    page.dump(out)  # type: ignore[arg-type]  # jinja2 types its text streams as binary


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
