"""TensorBoard's tab `Layers`: books, heat map, decode over steps and roofline of any run, two of them side by side.

Found by TensorBoard through the entry-point group `tensorboard_plugins`. Its page loads nothing from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from layerprof.errors import RequestError
from layerprof.report.log_folder import run_folders
from layerprof.report.page import plotly_js
from layerprof.report.payload import payload
from layerprof.runs.store import load
from layerprof.sweep import folder as sweep_folder

Handler = Callable[[wrappers.Request], wrappers.Response]
App = Callable[[dict[str, Any], Any], Iterable[bytes]]
"""A WSGI application, which is what TensorBoard takes."""

PAGE = {
    "/index.js": ("layerprof.report.plugin", "index.js", "application/javascript"),
    "/charts.js": ("layerprof.report", "charts.js", "application/javascript"),
    "/page.css": ("layerprof.report", "page.css", "text/css"),
}


class LayersPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # tensorboard carries no types
    """Serves the runs below the log folder to the page."""

    plugin_name = "layerprof"

    def __init__(self, context: Any) -> None:
        super().__init__(context)
        self.logdir = Path(context.logdir or ".")

    def get_plugin_apps(self) -> dict[str, App]:
        """Return what answers each address below `data/plugin/layerprof`."""
        static = {route: _static(*source) for route, source in PAGE.items()}
        live: dict[str, Handler] = {"/plotly.js": self.plotly, "/runs": self.runs, "/run": self.run}
        return {route: _app(answer) for route, answer in (static | live).items()}

    def is_active(self) -> bool:
        """Tell whether the log folder holds any run."""
        return bool(run_folders(self.logdir))

    def frontend_metadata(self) -> Any:
        """Return the tab's name and the module that draws it."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Layers")

    @property
    def folders(self) -> Mapping[str, Path]:
        """The runs by the names that TensorBoard gives them: paths below the log folder."""
        return {folder.relative_to(self.logdir).as_posix(): folder for folder in run_folders(self.logdir)}

    def plotly(self, request: wrappers.Request) -> wrappers.Response:
        """Answer with the plotting library."""
        return _respond(request, plotly_js().encode(), "application/javascript")

    def runs(self, request: wrappers.Request) -> wrappers.Response:
        """Answer with the runs' names, and what each is called on the page; cells of a sweep stand in its order."""
        folders = self.folders
        sweeps = {folder.parent.parent for folder in folders.values() if folder.parent.name == sweep_folder.CELLS}
        labels = {path: label for place in sorted(sweeps) for path, label in _cell_labels(place).items()}
        order = {path: nth for nth, path in enumerate(labels)}
        names = sorted(folders, key=lambda name: (folders[name].parent, order.get(folders[name], -1), name))
        found = [{"name": name, "label": labels.get(folders[name], name)} for name in names]
        return _respond(request, orjson.dumps(found), "application/json")

    def run(self, request: wrappers.Request) -> wrappers.Response:
        """Answer with one run as the page needs it; only listed names are read."""
        folder = self.folders.get(request.args.get("name", ""))
        if folder is None:
            return _respond(request, orjson.dumps({"error": "There is no such run."}), "application/json", 404)
        try:
            data = payload(load(folder))
        except RequestError as error:
            return _respond(request, orjson.dumps({"error": str(error)}), "application/json", 500)
        return _respond(request, orjson.dumps(data), "application/json")


def _cell_labels(place: Path) -> dict[Path, str]:
    """Return, in the order of the sweep in `place`, its cells' folders with their table and settings in words."""
    with suppress(RequestError):  # the cells of a sweep that lost its record keep their names
        record = sweep_folder.load(place)
        titles = {table.name: table.title or table.name for table in record.tables}
        return {
            place
            / sweep_folder.CELLS
            / cell.key: f"{titles.get(next(iter(cell.points), ''), record.name)}: {cell.label}"
            for cell in record.cells
        }
    return {}


def _app(answer: Handler) -> App:
    def serve(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return answer(wrappers.Request(environ))(environ, start_response)

    return serve


def _static(package: str, name: str, kind: str) -> Handler:
    return lambda request: _respond(request, files(package).joinpath(name).read_bytes(), kind)


def _respond(request: wrappers.Request, content: bytes, kind: str, code: int = 200) -> wrappers.Response:
    response: wrappers.Response = http_util.Respond(request, content, kind, code=code)
    return response
