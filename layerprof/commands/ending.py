"""How a command ends: in an exit code, and with one message where something was wrong."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from layerprof.commands.printing import complain
from layerprof.errors import LayerprofError
from layerprof.machine import streams
from layerprof.machine.internals import usage_error

UsageError = usage_error()


class StoppedError(Exception):
    """Ctrl-C inside a command, under a name that typer does not catch: it would end without a word."""


class Commands(TyperGroup):
    """The group of all commands, which lets an interrupt through."""

    def invoke(self, ctx: Any) -> Any:
        """Carry out the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise StoppedError from stop


class JsonMayStandAlone(TyperCommand):
    """A command whose `--json` takes a file or, with none after it, standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line."""
        given = zip(args, [*args[1:], "--"], strict=False)
        told = ["--json=-" if word == "--json" and _option(after) else word for word, after in given]
        return super().parse_args(ctx, told)


def was_given(context: typer.Context, name: str) -> bool:
    """Tell whether a parameter stood on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def run(app: typer.Typer) -> int:
    """Carry out the command line and return its exit code; errors become one message on standard error.

    Neither a reader of standard output that goes away, nor a full disk under it, ends a measurement.
    """
    with streams.lasting() as out, streams.stopped_like_an_interrupt():
        status = _status(app)
        out.flush()
        if out.trouble is not None and not isinstance(out.trouble, BrokenPipeError):
            complain(
                f"layerprof: standard output could not be written: {out.trouble.strerror}.\n"
                "What was measured is saved (--output, else below traces/); show it again with `layerprof report RUN`."
            )
            status = status or 1
    return status


def _status(app: typer.Typer) -> int:
    try:
        status = app(standalone_mode=False)
    except LayerprofError as error:
        complain(f"layerprof: {error.problem}\n{error.remedy}")
        return error.exit_code
    except (KeyboardInterrupt, StoppedError):
        complain("layerprof: interrupted.")
        return 130
    except UsageError as error:  # a wrong option is a wrong request; anything else is a fault of ours
        told = error.format_message()
        stop = "" if told.endswith((".", "?")) else "."
        complain(f"layerprof: {told}{stop}\nSee `{error.ctx.command_path if error.ctx else 'layerprof'} --help`.")
        return int(error.exit_code)
    return status if isinstance(status, int) else 0
