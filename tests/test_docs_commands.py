"""Commands of the documentation run as their page says, or are held to the code where they cannot run here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docs_commands as docs
import pytest
from docs_commands import Block, Command

from layerprof.commands import view

NOT_RUN = {
    "layerprof profile --model Qwen/Qwen2.5-VL-3B-Instruct --dataset textvqa --layers all --batch-size 4": (
        "needs the hub"
    ),
    "layerprof profile --model qwen2.5-vl-3b --weights random --source bundled": "3.75 billion parameters",
    "layerprof profile --model qwen2.5-vl-3b --weights random": "3.75 billion parameters",
    "layerprof profile --model qwen2.5-vl-3b --weights random --quantization nf4": (
        "3.75 billion parameters, to be quantized"
    ),
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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stand in a folder that holds a run, sweeps, traces, samples and models under the names that the pages use."""
    with docs.furnished(tmp_path_factory.mktemp("docs")) as folder:
        yield folder


def _shell(script: bool) -> list[Block]:
    return [block for block in docs.blocks("sh") if docs.is_script(block) == script]


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
    assert not {page for page, (old, _) in docs.REPLACED.items() if old not in docs.text(page)}
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


@pytest.mark.parametrize("page", [page for page in docs.PAGES if page.startswith("docs/")])
def test_every_page_has_commands(page: str) -> None:
    """Whatever a page explains, it also says what to type."""
    assert [command for block in _shell(script=False) if block.page == page for command in docs.commands(block)]
