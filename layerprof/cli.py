"""The command line: the only place that prints and exits. Loads no torch for `--help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from layerprof.errors import LayerprofError

if TYPE_CHECKING:
    from rich.console import Console


class _StoppedError(Exception):
    """Ctrl-C inside a command, under a name that typer does not catch: it would end without a word."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise _StoppedError from stop


app = typer.Typer(
    cls=_Commands,
    name="layerprof",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Where do the FLOPs, milliseconds and joules of a vision-language model go, layer by layer?",
)

Model = Annotated[
    str,
    typer.Option(help="auto, demo, qwen2.5-vl-3b, a hub id, or a folder. auto: the 3B on a GPU with room, else demo."),
]
Weights = Annotated[str, typer.Option(help="pretrained, or random (no download; the figures per layer are as real).")]
Device = Annotated[str, typer.Option(help="auto, cuda, cuda:N or cpu.")]
Dtype = Annotated[str, typer.Option(help="auto (fp16 on a GPU, fp32 on a CPU), fp16, bf16 or fp32.")]


@app.command()
def profile(
    model: Model = "auto",
    weights: Weights = "pretrained",
    dataset: Annotated[str, typer.Option(help="textvqa, scienceqa or coco.")] = "textvqa",
    source: Annotated[
        str | None,
        typer.Option(help="bundled, hub, or a folder with your own samples. Default: bundled for demo, else hub."),
    ] = None,
    samples: Annotated[int, typer.Option(help="How many samples to answer.")] = 32,
    layers: Annotated[
        str,
        typer.Option(help="all, vision, language, language[0:4], language[*].mlp, or a glob on names; commas join."),
    ] = "all",
    device: Device = "auto",
    dtype: Dtype = "auto",
    optimization: Annotated[str, typer.Option(help="eager, sdpa, flash or compile.")] = "eager",
    batch_size: Annotated[int, typer.Option(help="Rows per generate().")] = 1,
    image_size: Annotated[int, typer.Option(help="Pixels a side, a multiple of 28: (s/28)^2 image tokens.")] = 224,
    max_input_len: Annotated[
        int, typer.Option(help="Budget of the question's tokens; never cuts image or options.")
    ] = 200,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default: 16; coco 64.")] = None,
    fixed_tokens: Annotated[
        bool, typer.Option(help="Always write max-new-tokens tokens, so that runs compare.")
    ] = False,
    energy: Annotated[str, typer.Option(help="auto, replay, attributed or off.")] = "auto",
    energy_budget: Annotated[
        float | None, typer.Option(help="Seconds that --energy replay may take. Default: 120.")
    ] = None,
    assume_watts: Annotated[
        float | None, typer.Option(help="Power to assume for an estimate, where there is no sensor.")
    ] = None,
    trace: Annotated[bool, typer.Option(help="Record a profiler trace of a few batches.")] = True,
    trace_batches: Annotated[int, typer.Option(help="How many batches the trace covers.")] = 2,
    cross_check: Annotated[bool, typer.Option(help="Print our FLOPs beside fvcore, ptflops and torch.")] = False,
    hook: Annotated[
        list[str] | None, typer.Option(help="A further instrument, a name or package.module:Class; may be repeated.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Folder of the run. Default: traces/<time>-<model>-<dataset>.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of random weights and intervals.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Plain lines, no bars, no tables.")] = False,
) -> None:
    """Profile every layer of a model on a dataset: FLOPs, latency and energy, with books that balance."""
    from layerprof import settings
    from layerprof.measure import conduct

    chosen = {name: value for name, value in locals().items() if name in settings.Settings.model_fields}
    console = _console(quiet)
    run = conduct.profile(settings.build(**chosen, hooks=tuple(hook or ())), progress=_progress(console, quiet))
    _render_run(run, console, quiet)
    if run.status == "interrupted":
        raise typer.Exit(130)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run's folder, or its run.json; or a sweep's folder.")],
    format: Annotated[str, typer.Option("--format", help="terminal, markdown, csv, json or html.")] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its suffix picks the format.")
    ] = None,
) -> None:
    """Show a finished run or sweep again, in any format."""
    from layerprof.report import write
    from layerprof.runs import store
    from layerprof.sweep import folder

    output = _file(output)
    chosen = format if output is None or format != "terminal" else None
    if folder.is_sweep(path):
        from layerprof.report.sweep import view as sweep_view
        from layerprof.report.sweep import write as sweep_reports

        written = sweep_reports.write(sweep_view.load(path), chosen, output, _console(False))
    else:
        written = write.write(store.load(path), chosen, output, _console(False))
    if written is not None:
        _say(f"Wrote {written}")


@app.command()
def sweep(
    experiment: Annotated[Path, typer.Argument(help="A TOML file: base settings and axes (docs/sweeps.md).")],
    output: Annotated[Path | None, typer.Option(help="Folder. Default: traces/<time>-<experiment>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on; without --output the newest of this name.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="With --resume: measure failed cells again.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the cells and which are there already.")] = False,
    engine: Annotated[str, typer.Option(help="local, or ray (docs/cluster.md).")] = "local",
    only: Annotated[list[str] | None, typer.Option(help="AXIS=VALUE[,VALUE]: only these. Several narrow down.")] = None,
    model: Annotated[str | None, typer.Option(help="In place of the file's model.")] = None,
    weights: Annotated[str | None, typer.Option(help="In place of the file's weights: pretrained or random.")] = None,
    samples: Annotated[int | None, typer.Option(help="In place of the file's number of samples.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE for any other base setting.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a cell is stopped.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Default: the cluster that runs here, else a new one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Plain lines, no bars, no tables.")] = False,
) -> None:
    """Measure every cell of an experiment, each in a process that may fail, and go on where it was stopped."""
    from layerprof.commands import sweep as sweeping

    request = sweeping.request(
        experiment, output, engine, only, set_, ray_address, model=model, weights=weights, samples=samples
    )
    console = _console(quiet)
    if dry_run:
        sweeping.show_plan(request, console)
    elif sweeping.carry_out(request, resume, retry, timeout, console, _say, quiet):
        raise typer.Exit(1)


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A run's or a sweep's folder.")],
    after: Annotated[Path, typer.Argument(help="The other one.")],
    fail_above: Annotated[
        float | None, typer.Option(help="Exit 1 if anything end to end is worse by more than so many percent.")
    ] = None,
    format: Annotated[str, typer.Option("--format", help="terminal, markdown or json.")] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its suffix picks the format.")
    ] = None,
) -> None:
    """Tell what changed between two runs or sweeps, end to end and layer by layer, with paired intervals."""
    from layerprof.commands import sweep as sweeping

    if sweeping.show_comparison(before, after, fail_above, format, _file(output), _console(False), _say):
        raise typer.Exit(1)


@app.command()
def layers(
    model: Model = "auto",
    layers: Annotated[str, typer.Option(help="Show only what this selector takes.")] = "all",
) -> None:
    """List the layers of a model with the names and selectors that --layers takes."""
    from layerprof.commands import layers as listing

    listing.show(model, layers, _console(False))


@app.command()
def estimate(
    model: Model = "auto",
    batch_size: Annotated[int, typer.Option(help="Rows.")] = 1,
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 224,
    text_tokens: Annotated[int, typer.Option(help="Prompt tokens besides the image's.")] = 100,
    new_tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp16, bf16 or fp32.")] = "fp16",
    gpu: Annotated[
        str | None, typer.Option(help="H200, H100, A100, L4, RTX4090, ...: adds time and energy bounds.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write JSON to a file, or - for standard output.")] = None,
) -> None:
    """Predict FLOPs, bytes, memory and roofline bounds per layer of a model that is never loaded."""
    from layerprof.estimate import estimate as estimates
    from layerprof.report import estimate as view

    result = estimates.estimate(
        model,
        batch_size=batch_size,
        image_size=image_size,
        text_tokens=text_tokens,
        new_tokens=new_tokens,
        dtype=dtype,
        gpu=gpu,
    )
    if json is None:
        view.render(result, _console(False))
    else:
        _emit(result.to_json(), json)


@app.command()
def attribute(
    traces: Annotated[
        list[Path],
        typer.Argument(metavar="TRACE...", help="Chrome traces (.json, .json.gz) of torch.profiler; several add up."),
    ],
    format: Annotated[str, typer.Option("--format", help="terminal, markdown, csv or json.")] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its suffix picks the format.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write JSON to a file, or - for standard output.")] = None,
) -> None:
    """Tell which layer launched each kernel of a trace, also of one that somebody else recorded."""
    from layerprof.report import attribution as view
    from layerprof.trace import attribution
    from layerprof.trace.attribute import attribute as attributed

    result = attribution.merged({str(trace): attributed(trace) for trace in traces})
    if json is not None:
        _emit(view.to_json(result), json)
        return
    output = _file(output)
    chosen = format if output is None or format != "terminal" else None
    written = view.write(result, chosen, output, _console(False))
    if written is not None:
        _say(f"Wrote {written}")


@app.command()
def view(
    path: Annotated[Path, typer.Argument(help="A run's folder, or a folder of runs.")],
    port: Annotated[int, typer.Option(help="TensorBoard's port.")] = 6006,
) -> None:
    """Open a run in TensorBoard: scalars per layer, the summary, and the profiler's trace."""
    from layerprof.commands import view as viewing

    raise typer.Exit(viewing.serve(path, port, _say))


@app.command()
def doctor(
    json: Annotated[
        str | None, typer.Option("--json", help="Write JSON to a file beside what is shown, or - for JSON alone.")
    ] = None,
) -> None:
    """Tell what this machine can measure, and how well."""
    from layerprof.doctor import examine
    from layerprof.report import doctor as view

    result = examine.examine()
    if json != "-":  # on a GPU the examination takes half a minute: nobody should have to ask twice
        view.render(result, _console(False))
    if json is not None:
        _emit(examine.to_json(result), json)


@app.callback(invoke_without_command=True)
def common(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Take the options that belong to no command."""
    if version:
        from layerprof import __version__

        _say(f"layerprof {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; errors become one message and their exit code."""
    from layerprof.machine import streams

    with streams.lasting() as out, streams.stopped_like_an_interrupt():
        status = _run()
        out.flush()
        if out.trouble is not None and not isinstance(out.trouble, BrokenPipeError):
            _complain(
                f"layerprof: standard output could not be written: {out.trouble.strerror}.\n"
                "What was measured is saved (--output, else below traces/); show it again with `layerprof report RUN`."
            )
            status = status or 1
    sys.exit(status)


def _run() -> int:
    try:
        status = app(standalone_mode=False)
    except LayerprofError as error:
        _complain(f"layerprof: {error.problem}\n{error.remedy}")
        return error.exit_code
    except (KeyboardInterrupt, _StoppedError):
        _complain("layerprof: interrupted.")
        return 130
    except typer.Exit as stop:
        return stop.exit_code
    except Exception as error:
        return _usage(error)
    return status if isinstance(status, int) else 0


def _usage(error: Exception) -> int:
    """Tell click's usage errors, since a wrong option is a wrong request; anything else is a fault of ours."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]  # its message is the help
        return 2
    if not hasattr(error, "format_message"):
        raise error
    context = getattr(error, "ctx", None)
    told = error.format_message()
    stop = "" if told.endswith((".", "?")) else "."
    _complain(f"layerprof: {told}{stop}\nSee `{context.command_path if context else 'layerprof'} --help`.")
    return 2


def _console(quiet: bool) -> Console:
    from rich.console import Console

    return Console(quiet=False, highlight=False, soft_wrap=quiet)


def _progress(console: Console, quiet: bool) -> Any:
    from layerprof.measure import progress

    return progress.Plain(_say) if quiet or not console.is_terminal else progress.Bars(console)


def _render_run(run: Any, console: Console, quiet: bool) -> None:
    from layerprof.report.formats import terminal

    if quiet:
        terminal.render_plain(run, _say)
    else:
        terminal.render(run, console)
    if "cross_check" in run.passes:
        from layerprof.flops.crosscheck import CrossCheck
        from layerprof.report import crosscheck

        crosscheck.render(CrossCheck.model_validate(run.passes["cross_check"]), console)


def _file(output: Path | None) -> Path | None:
    """Return the file of -o; `-` is standard output, as with --json."""
    return None if output is None or str(output) == "-" else output


def _emit(text: str, target: str) -> None:
    if target == "-":
        sys.stdout.write(text + "\n")
    else:
        from layerprof.report import write

        write.to_file(text + "\n", Path(target).expanduser())
        _say(f"Wrote {target}")


def _say(text: str) -> None:
    sys.stdout.write(_shown(text) + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(_shown(text) + "\n")


def _shown(text: str) -> str:
    """Return text that no terminal obeys: names of files, samples and models come from anywhere."""
    from layerprof.report import units

    return units.printable(text, keep="\n\t")


if __name__ == "__main__":
    main()
