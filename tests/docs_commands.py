"""What the pages of the documentation hold: fenced blocks, commands, code spans and links, and what commands take."""

from __future__ import annotations

import ast
import configparser
import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import docs_servers as servers
import pytest
import small_models
import traces_synthetic as synthetic
import typer
from pydantic import BaseModel
from sample_sweep import sample_sweep

from layerprof import cli, records, settings
from layerprof.commands import sweep
from layerprof.models import find, names
from layerprof.sweep import experiment, experiment_file
from layerprof.trace.file import write_chrome

ROOT = Path(__file__).parents[1]
PAGES = tuple(
    path.relative_to(ROOT).as_posix()
    for pattern in ("README.md", "docs/*.md", "experiments/*/README.md", "traces/README.md")
    for path in sorted(ROOT.glob(pattern))
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
FIELD = re.compile(r"\b(totals|ledger|layers\[\])((?:\.[a-z_0-9]+)+)")
REPLACED = {
    "docs/latency.md": ('"cuda:0"', '"cpu"'),  # there is no GPU here
    "docs/reading.md": ('"traces/..."', '"traces/RUN"'),  # the dots stand for the name of a run
}
"""What is put in place of a few words of a program."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the page and the line of its fence, the language (empty where none is named), the text in it."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Where it stands, without its line: the page and its first line, which move less."""
        return f"{self.page}: {self.text.splitlines()[0]}"


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page in the words that a shell makes of it, variables that are set for it apart."""

    page: str
    words: tuple[str, ...]
    variables: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join(self.words)


def text(page: str) -> str:
    """Return a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def code() -> str:
    """Return the package's own source."""
    files = [file for top in ("layerprof", "hooks") for file in sorted((ROOT / top).rglob("*.py"))]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def blocks(language: str | None = None) -> list[Block]:
    """Return the fenced blocks of all pages, or those of one language."""
    return [block for page in PAGES for block in _blocks(page) if language in (None, block.language)]


def _blocks(page: str) -> Iterator[Block]:
    language: str | None = None
    start, inside = 0, list[str]()
    for number, line in enumerate(text(page).splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            inside.append(line)
        elif language is None:
            language, start, inside = line.strip().removeprefix("```"), number, []
        else:
            yield Block(page, start, language, "\n".join(inside) + "\n")
            language = None
    assert language is None, f"{page}:{start}: the block never ends"


def is_script(block: Block) -> bool:
    """Tell a whole shell script from a list of commands."""
    return block.text.startswith("#!")


def commands(block: Block) -> list[Command]:
    """Return a block's commands: comments gone, lines that end in a backslash joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [_command(block.page, words) for line in lines if (words := shlex.split(line, comments=True))]


def _command(page: str, words: list[str]) -> Command:
    variables = []
    while re.match(r"[A-Z][A-Z0-9_]*=", words[0]):
        name, _, value = words.pop(0).partition("=")
        variables.append((name, value))
    return Command(page, tuple(words), tuple(variables))


def outside_blocks(page: str) -> str:
    """Return a page's prose and tables."""
    found, inside = [], False
    for line in text(page).splitlines():
        inside ^= line.lstrip().startswith("```")
        if not inside:
            found.append(line)
    return "\n".join(found)


def spans(page: str) -> list[str]:
    """Return the code spans of a page, line breaks as spaces."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside_blocks(page).replace("```", ""))]


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and most others make them."""
    titles = re.findall(r"^#+ (.+)$", outside_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


# --- what commands take -----------------------------------------------------------------------------------------


def subcommands() -> Mapping[str, Any]:
    """Return the commands of `layerprof` by name."""
    found: Mapping[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    return found


def parsed(words: tuple[str, ...]) -> dict[str, Any]:
    """Return what `layerprof ...` would be called with; nothing is called. Raises where the command line would."""
    name, arguments = words[1], list(words[2:])
    assert name in subcommands(), f"layerprof has no command {name}"
    parameters: dict[str, Any] = subcommands()[name].make_context(name, arguments).params
    return parameters


def options() -> set[str]:
    """Return the options of all commands."""
    parameters = [parameter for command in subcommands().values() for parameter in command.params]
    return {"--version", "--help"} | {
        option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)
    }


def script_options(script: Path) -> set[str]:
    """Return the options that a Python script gives to its argument parser, without running it."""
    calls = [node for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return {
        argument.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument"
        for argument in call.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def make_targets() -> set[str]:
    """Return what `make` can be asked for."""
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


# --- what a run holds -------------------------------------------------------------------------------------------

RECORDS: dict[str, type[BaseModel]] = {
    "totals": records.Totals,
    "ledger": records.Ledger,
    "layers[]": records.LayerRow,
}


def has_field(root: str, path: str) -> bool:
    """Tell whether `totals.wer.mer` and the like are fields of a run; below a mapping any name is one."""
    kinds: list[Any] = [RECORDS[root]]
    for name in path.strip(".").split("."):
        found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not found:
            return any(kind is dict or getattr(kind, "__origin__", None) is dict for kind in kinds)
        fields = [kind.model_fields[name].annotation for kind in found if name in kind.model_fields]
        if not fields:
            return False
        kinds = [part for field in fields for part in (field, *get_args(field))]
    return True


# --- commands that cannot run here ------------------------------------------------------------------------------


def _make(command: Command) -> None:
    assert set(command.words[1:]) <= make_targets()


def _pip(command: Command) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (extra,) = re.findall(r"^\.\[(\w+)\]$", command.words[-1])
    assert command.words[1:-1] == ("install",)
    assert extra in setup["options.extras_require"]


def _source(command: Command) -> None:
    assert command.words[1:] == (".venv/bin/activate",)
    assert "BIN := .venv/bin\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


def _head(command: Command) -> None:
    assert subprocess.run(command.words, capture_output=True, text=True, check=True).stdout.count("\n") == 1


def _python(command: Command) -> None:
    if command.words[1] == "-m":
        servers.sglang(command.words)
        return
    script = ROOT / command.words[1]
    given = {word for word in command.words if word.startswith("--")}
    assert script.is_file()
    assert given <= script_options(script)


def _sh(command: Command) -> None:
    words = [word for word in command.words if word != "--dry-run"]
    subprocess.run([words[0], ROOT / words[1], "--dry-run", *words[2:]], check=True, capture_output=True)


def _ray(command: Command) -> None:
    assert command.words[1] in ("start", "stop")  # their options: test_ray_takes_what_the_pages_give_it


OTHERS: dict[str, Callable[[Command], None]] = {
    "make": _make,
    "pip": _pip,
    "python": _python,
    "vllm": lambda command: servers.vllm(command.words),
    "curl": lambda command: servers.curl(command.words),
    "ray": _ray,
    "sh": _sh,
    ".": _source,
    "head": _head,
}
"""How commands of other programs are held to what there is, or run."""


def hold(command: Command) -> None:
    """Check what can be checked of a command that cannot run here: names, values, files, the model's configuration."""
    asked = parsed(command.words)
    if command.words[1] == "profile":
        built = settings.build(
            **{name: value for name, value in asked.items() if name in settings.Settings.model_fields}
        )
        if built.weights == "random":
            assert find.parameter_count(find.find(names.resolve(built.model, "random"), "random")) == 3_754_622_976
        return
    named = {name: asked[name] for name in ("model", "weights", "samples")}
    request = sweep.request(
        asked["experiment"],
        asked["output"],
        asked["engine"],
        asked["only"],
        asked["set_"],
        asked["ray_address"],
        **named,
    )
    assert experiment.cells(experiment_file.load(request.experiment), request.overrides, request.only)


# --- a place where the commands can run -------------------------------------------------------------------------


def call(words: tuple[str, ...] | list[str]) -> tuple[int, str]:
    """Call `layerprof ...` in this process; return the exit code and what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", list(words))
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), printed.getvalue()
    raise AssertionError(f"{words} did not exit")


@contextlib.contextmanager
def furnished(folder: Path) -> Iterator[Path]:
    """Stand in a folder that holds a run, sweeps, traces, samples and models under the names that the pages use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _furnish(folder)
        yield folder


def _furnish(folder: Path) -> None:
    """Put into a folder what the pages take for granted, under the names that they use."""
    (folder / "experiments").symlink_to(ROOT / "experiments")
    code, printed = call(
        ["layerprof", "profile", "--model", "demo", "--samples", "2", "--output", str(folder / "traces/RUN")]
    )
    assert code == 0, printed
    (folder / "RUN").symlink_to("traces/RUN")
    sample_sweep(folder / "SWEEP_A")
    sample_sweep(folder / "SWEEP_B", slower=1.5)
    for name in ("trace.json", "trace.json.gz"):
        write_chrome(synthetic.recorded_with_record_function().events, folder / name)
    for name in ("capture", "replay"):
        (folder / f"{name}.json.gz").symlink_to(ROOT / f"tests/trace/h200/graph-{name}.json.gz")
    small_models.config_folder(folder / "folder-with-config-json")
    small_models.checkpoint_folder(folder / "my-checkpoint")
    (row,) = blocks("json")
    _samples(folder / "samples", [json.loads(row.text)])
    _samples(folder / "my-samples", [{"file_name": f"{n}.png", "answer": ["a red half", "a flag"]} for n in range(2)])
    for name in ("my_hooks.py", "my_formats.py"):
        module = next(block for block in blocks("python") if block.text.startswith(f"# {name}\n"))
        (folder / name).write_text(module.text)


def _samples(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        small_models.picture().save(folder / row["file_name"])
