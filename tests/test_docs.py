"""The documentation holds: its commands run, and its programs and files work."""

from __future__ import annotations

import configparser
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docs_commands as docs
import pytest
import small_models
from docs_commands import ROOT, Block, Command
from layerprof.hooks.base import LayerHook

import layerprof
from layerprof import registry
from layerprof.commands import view
from layerprof.data import batching, datasets
from layerprof.models.load import load_model
from layerprof.models.source import resolve
from layerprof.models.subject import Subject
from layerprof.sweep import experiment_file

NOT_RUN = {
    "layerprof profile --model Qwen/Qwen2.5-VL-3B-Instruct --dataset textvqa --layers all --batch-size 4": (
        "needs the hub"
    ),
    "layerprof profile --model qwen2.5-vl-3b --weights random --source bundled": "3.75 billion parameters",
    "layerprof profile --model qwen2.5-vl-3b --weights random": "3.75 billion parameters",
    "layerprof profile --model qwen2.5-vl-3b --weights random --source bundled --samples 2 --max-new-tokens 4": (
        "3.75 billion parameters"
    ),
    "layerprof sweep experiments/reference.toml --engine ray --ray-address FIRST:6379 --output sweep": (
        "needs a cluster"
    ),
    "layerprof profile --model demo --energy replay --energy-budget 300": "needs an energy counter",
}
"""Commands that cannot run here, and why; they are held to the code by `docs_commands.hold`."""
APPENDED = {
    "profile": (("--samples", "2"), ("--no-trace",), ("--energy", "off")),
    "sweep": (("--only", "batch_size=1"), ("--only", "dataset=textvqa"), ("--samples", "1")),
}
"""What makes commands small, where they do not say otherwise themselves."""
EXITS = {"layerprof compare SWEEP_A SWEEP_B --fail-above 5": 1}
"""SWEEP_B is slower by half, so this one ends as the page says; all others end with 0."""
NEEDS = {
    "layerprof sweep experiments/reference.toml --model demo --resume": "*-reference",
    "layerprof report traces/...-reference -o sweep.html": "*-reference",
}
"""What an earlier command of the block has to have left in traces/."""
REPLACED = {
    "docs/latency.md": ('"cuda:0"', '"cpu"'),  # there is no GPU here
    "docs/reading.md": ('"traces/..."', '"traces/RUN"'),  # the dots stand for the name of a run
}
"""What is put in place of a few words of a program."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in a folder that holds a run, sweeps, traces, samples and models under the names that the pages use."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        docs.furnish(folder)
        yield folder


@pytest.fixture(scope="module")
def subject() -> Subject:
    """Load the bundled model."""
    return load_model(resolve("demo", device="cpu", dtype="fp32"))


def _shell(script: bool) -> list[Block]:
    return [block for block in docs.blocks("sh") if docs.is_script(block) == script]


# --- commands ---------------------------------------------------------------------------------------------------


def _run(command: Command, patch: pytest.MonkeyPatch) -> None:
    """Run a command, and look at the file that it names, where it names one."""
    if needed := NEEDS.get(str(command)):
        (found,) = Path("traces").glob(needed)
        command = Command(
            command.page, tuple(word.replace("traces/...-reference", str(found)) for word in command.words)
        )
    expected = EXITS.get(str(command), 0)
    more = () if "--dry-run" in command.words else APPENDED.get(command.words[1], ())
    estimated = ("--energy", "off") if "--assume-watts" in command.words else ()  # which needs the energy pass
    added = [word for pair in more if pair[0] not in command.words and pair != estimated for word in pair]
    for name, value in command.variables:
        assert name == "PYTHONPATH", f"{name} means nothing to a command that is called in this process"
        patch.syspath_prepend(Path(value).resolve())
    code, printed = docs.call([*command.words, *added])
    assert code == expected, f"{command}: {printed}"
    assert printed.strip()
    if "-o" in command.words:
        assert Path(command.words[command.words.index("-o") + 1]).stat().st_size > 100
    if command.words[-2:] == ("--json", "-"):
        assert json.loads(printed)


def _view(command: Command, patch: pytest.MonkeyPatch) -> None:
    """Let `layerprof view` do everything but wait: TensorBoard's own parser judges what it would be started with."""
    from tensorboard import program
    from tensorboard.plugins.core.core_plugin import CorePluginLoader

    started: list[list[str]] = []

    def start(arguments: list[str], check: bool) -> SimpleNamespace:
        started.append(arguments)
        return SimpleNamespace(returncode=0)

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    patch.setattr(view, "subprocess", SimpleNamespace(run=start))
    assert docs.call([*command.words, "--port", str(port)])[0] == 0
    ((python, *arguments),) = started
    assert (python, arguments[:2]) == (sys.executable, ["-m", "tensorboard.main"])
    board = program.TensorBoard(plugins=[CorePluginLoader()])
    board.configure(argv=["tensorboard", *arguments[2:]])
    assert board.flags.port == port
    assert list(Path(board.flags.logdir).glob("events.out.tfevents.*"))


@pytest.mark.parametrize("block", _shell(script=False), ids=lambda block: block.name)
def test_commands_do_what_their_page_says(block: Block, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command of a block runs, in order; those that cannot run here are held to the code instead."""
    for command in docs.commands(block):
        if command.words[0] != "layerprof":
            assert command.words[0] in docs.OTHERS, f"{command} is neither run nor checked"
            docs.OTHERS[command.words[0]](command)
        elif str(command) in NOT_RUN:
            docs.hold(command)
        elif command.words[1] == "view":
            _view(command, monkeypatch)
        else:
            _run(command, monkeypatch)


def test_exceptions_are_of_commands_that_are_there() -> None:
    """A command that was changed or dropped leaves no exception behind."""
    there = {str(command) for block in docs.blocks("sh") for command in docs.commands(block)}
    assert not {*NOT_RUN, *EXITS, *NEEDS} - there
    assert not {page for page, (old, _) in REPLACED.items() if old not in docs.text(page)}
    used = {command.split()[0] for command in there}
    assert not docs.OTHERS.keys() - used


@pytest.mark.parametrize("block", _shell(script=True), ids=lambda block: block.name)
def test_scripts_run_on_a_cluster_that_only_notes_what_it_is_told(
    block: Block, workplace: Path, tmp_path: Path
) -> None:
    """The Slurm script goes from line to line, and what it hands to layerprof and to Ray is what these take."""
    programs, log = tmp_path / "bin", tmp_path / "log.jsonl"
    programs.mkdir()
    note = f"import json, sys\nwith open({str(log)!r}, 'a') as file: file.write(json.dumps(sys.argv) + '\\n')\n"
    for name in ("srun", "layerprof", "sleep", "scontrol"):
        answer = "print('node1')\nprint('node2')\n" if name == "scontrol" else ""
        (programs / name).write_text(f"#!{sys.executable}\n{note}{answer}")
        (programs / name).chmod(0o755)
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_NODELIST": "node[1-4]"}
    script = block.text + "wait\n"
    subprocess.run(["bash", "-euc", script], env=environment, check=True, timeout=60, cwd=workplace)
    told = [json.loads(line) for line in log.read_text().splitlines()]
    by_program = {name: [line for line in told if Path(line[0]).name == name] for name in ("srun", "layerprof")}
    (asked,) = by_program["layerprof"]
    command = Command(block.page, ("layerprof", *asked[1:]))
    assert docs.parsed(command.words)["ray_address"] == "node1:6379"
    docs.hold(command)
    head, others = sorted((line[line.index("ray") :] for line in by_program["srun"]), key=lambda w: "--head" not in w)
    assert head[head.index("--node-ip-address") + 1] == "node1"
    assert others[others.index("--address") + 1] == "node1:6379"
    for words in (head, others):
        _ray_accepts(words)


def _ray_accepts(words: list[str] | tuple[str, ...]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "amdsmi", None)  # where it is installed without an AMD driver, ray's import fails
        scripts = pytest.importorskip("ray.scripts.scripts", reason="ray is not installed: pip install '.[ray]'")
    taken: dict[str, Any] = getattr(scripts, words[1]).make_context(words[1], list(words[2:])).params
    return taken


def test_ray_takes_what_the_pages_give_it() -> None:
    """Ray's own command line accepts the options, and each node offers one place to measure."""
    told = [command for block in _shell(script=False) for command in docs.commands(block) if command.words[0] == "ray"]
    taken = [_ray_accepts(command.words) for command in told]
    starts = [options for options in taken if "resources" in options]
    assert [json.loads(options["resources"]) for options in starts] == [{"measure": 1}] * 2
    assert [(options["head"], options["address"]) for options in starts] == [(True, None), (False, "FIRST:6379")]


# --- programs and files -----------------------------------------------------------------------------------------


def _namespace(subject: Subject) -> dict[str, Any]:
    """Return what programs take for granted: a model with its processor, and inputs of a few rows."""
    asked = datasets.load("textvqa", count=3)
    short = {"max_new_tokens": 3}
    batches = [batch.tensors | short for batch in batching.batches(subject, asked, batch_size=2)]
    return {"model": subject.model, "processor": subject.processor, "batches": batches, "inputs": batches[0]}


def _program(start: str, page: str) -> Block:
    (block,) = [block for block in docs.blocks("python") if block.page == page and start in block.text]
    return block


def _execute(block: Block, namespace: dict[str, Any]) -> dict[str, Any]:
    exec(compile(block.text.replace(*REPLACED.get(block.page, ("", ""))), block.name, "exec"), namespace)
    return namespace


def _profiled(made: dict[str, Any]) -> None:
    """Check the rows' spans, and that FLOPs balance."""
    run = made["prof"].run
    assert run.layers[0].span_s is not None
    assert run.ledger.flops.residual == 0


def _answered(made: dict[str, Any]) -> None:
    """Check that four questions were asked at a time."""
    assert len(made["batch"].examples) == 4


def _loaded(made: dict[str, Any]) -> None:
    """Check that a stored run is read again, and that its phases' sums are all of its work."""
    assert set(made["by_phase"]) == {"vision", "prefill", "decode"}
    assert sum(phase.flops for phase in made["by_phase"].values()) == made["run"].ledger.flops.total


def _spans(made: dict[str, Any]) -> None:
    """Check that self times and gaps are the windows: on one clock, the residual is rounding."""
    reading = made["reading"]
    spent = sum(span.self_s for span in reading.spans) + sum(reading.gaps_s.values())
    assert len(reading.windows_s) == 2
    assert spent == pytest.approx(sum(reading.windows_s), rel=1e-3)


def _attributed(made: dict[str, Any]) -> None:
    """Check a trace that somebody else recorded: 30 us launched in `encode`, 90 in `decode`, 60 in neither."""
    result = made["result"]
    assert {row.name: row.self_ns for row in result.rows} == {"encode": 30_000, "decode": 90_000}
    assert result.buckets_ns["outside layers"] == 60_000


def _copied(made: dict[str, Any]) -> None:
    """Check that what was saved can be given to --source."""
    copy = datasets.load("textvqa", source="textvqa-300", count=2)
    assert [example.references for example in copy.examples] == [("yes",), ("yes",)]


def _counts(made: dict[str, Any]) -> None:
    """Check that it is one of our hooks; that `--hook` runs it is tested with the commands."""
    assert issubclass(made["CallCounter"], LayerHook)


PROGRAMS: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
    ("README.md", "LayerProfiler"): _profiled,
    ("docs/models.md", "LayerProfiler"): _profiled,
    ("docs/models.md", "wrap"): _answered,
    ("docs/reading.md", "load_run"): _loaded,
    ("docs/latency.md", "LatencyHook"): _spans,
    ("docs/traces.md", "attribute("): _attributed,
    ("docs/datasets.md", "load_dataset"): _copied,
    ("docs/hooks.md", "CallCounter"): _counts,
}
"""What each program must have done, by its page and a word of it."""


@pytest.mark.parametrize(("page", "word"), PROGRAMS)
def test_programs_run(page: str, word: str, workplace: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of a page runs as it stands there, and does what the page says."""
    import datasets as hub

    def load_dataset(name: str, split: str, streaming: bool) -> hub.IterableDataset:
        """Stand in for the hub."""
        spec = datasets.SPECS["textvqa"]
        assert (name, split, streaming) == (spec.hub_id, spec.split, True)
        rows = [{"image": small_models.picture(), "question": "is it?", "answers": ["yes"]} for _ in range(3)]
        return hub.Dataset.from_list(rows).to_iterable_dataset()

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    PROGRAMS[page, word](_execute(_program(word, page), _namespace(subject)))


def test_the_experiment_file_is_one(workplace: Path) -> None:
    """The sizes and batches without what is skipped, one cell more, each three times; the demo's samples apply."""
    (block,) = docs.blocks("toml")
    (workplace / "reference").symlink_to(ROOT / "experiments" / "reference")
    (workplace / "own.toml").write_text(block.text)
    found = experiment_file.load("own.toml")
    cells = experiment_file.cells(found)
    once = {(cell.choices["batch_size"], cell.choices.get("image_size")) for cell in cells}
    assert once == {(1, 224), (1, 448), (4, 224), (4, 448), (8, 224), (16, 224), (64, None)}
    assert len(cells) == 3 * len(once)
    assert {cell.demo["samples"] for cell in cells} == {32}
    assert found.tables[0].reference is not None


def test_the_entry_point_names_the_hook_of_the_page(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written into setup.cfg, it is found in the group that layerprof looks into."""
    monkeypatch.syspath_prepend(workplace)
    (block,) = docs.blocks("ini")
    setup = configparser.ConfigParser()
    setup.read_string(block.text)
    name, _, value = setup["options.entry_points"][registry.GROUP].strip().partition(" = ")
    assert EntryPoint(name, value, registry.GROUP).load().__name__ == "CallCounter"


def test_a_row_and_its_folder_are_samples(workplace: Path) -> None:
    """The table's row names a picture of the folder's tree, and both load."""
    (row,) = docs.blocks("json")
    tree = next(block for block in docs.blocks("") if block.page == "docs/datasets.md")
    assert tree.text.split() == ["samples/", "metadata.jsonl", json.loads(row.text)["file_name"]]
    (example,) = datasets.load("textvqa", source="samples", count=1).examples
    assert example.references == ("stop", "STOP")


def _labels(printed: str, section: str) -> set[str]:
    """Return what stands first in the lines of a section of the summary."""
    lines = printed.split(f"\n{section}  ", 1)[1].split("\n\n", 1)[0].splitlines()[1:]
    return {re.split(r" {2,}", line)[0] for line in lines if line.strip() and not line.startswith(" ")}


def test_the_summary_in_the_readme_is_what_is_printed(workplace: Path) -> None:
    """The same headings, and the same lines in those sections whose lines do not hang on the machine's speed."""
    (block,) = [block for block in docs.blocks("") if block.page == "README.md"]
    printed = docs.call(["layerprof", "report", "RUN"])[1]
    headings = re.findall(r"^[A-Z]\w+(?: \w+)*(?=  )", block.text, re.MULTILINE)
    assert {"End to end", "Where it goes", "Hot spots", "Layers", "Ledger", "Files"} <= set(headings)
    for heading in ("End to end", "Ledger"):
        assert _labels(block.text, heading) == _labels(printed, heading)
    assert [heading for heading in headings if f"\n{heading}  " not in printed and heading[0] != "F"] == []


def test_books_balance_as_the_pages_write_it(workplace: Path) -> None:
    """Layers + rest + residual = total, for every quantity that was measured."""
    formula = next(block for block in docs.blocks("") if block.page == "docs/reading.md")
    assert formula.text == "layers + rest + residual = total\n"
    books = layerprof.load_run("RUN").ledger
    for column in (books.flops, books.span_s, books.busy_s):
        assert column.layers is not None
        assert column.residual is not None
        assert column.layers + sum(column.rest.values()) + column.residual == pytest.approx(column.total)


PLAIN = {
    "README.md: layerprof demo on textvqa": test_the_summary_in_the_readme_is_what_is_printed,
    "docs/datasets.md: samples/": test_a_row_and_its_folder_are_samples,
    "docs/latency.md: sum of self times + gaps + residual = sum of windows": _spans,
    "docs/reading.md: layers + rest + residual = total": test_books_balance_as_the_pages_write_it,
    "docs/traces.md: kernel --correlation--> launch (cuda_runtime or cuda_driver) --time on its thread--> "
    "innermost range open there": _attributed,
    "docs/traces.md: sum of own times + buckets = total, exactly": _attributed,
}
"""Blocks without a language, and what holds them to the code."""


def test_no_block_is_left_out() -> None:
    """Every fenced block is commands, a program, or a text that something above holds to the code."""
    assert set(docs.blocks("python")) == {_program(word, page) for page, word in PROGRAMS}
    assert {block.name for block in docs.blocks("")} == PLAIN.keys()
    assert {block.language for block in docs.blocks()} == {"", "sh", "python", "toml", "ini", "json"}
