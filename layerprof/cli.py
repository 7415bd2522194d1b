"""The command line: which commands there are, what they take, and their help. Loads no torch for `--help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from layerprof.commands import ending

app = typer.Typer(
    cls=ending.Commands,
    name="layerprof",
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

Quantization = Annotated[
    str, typer.Option(help="none, or int8, int4, nf4, fp8: the format that weights are stored in as they are loaded.")
]
QuantizationSkip = Annotated[
    str | None, typer.Option(metavar="SELECTOR", help="Layers that --quantization leaves as they are.")
]


@app.command()
def profile(
    model: Model = "auto",
    weights: Weights = "pretrained",
    dataset: Annotated[str, typer.Option(help="textvqa, scienceqa or coco.")] = "textvqa",
    source: Annotated[
        str | None,
        typer.Option(help="bundled, bundled@mixed, hub, or a folder of samples. Default: bundled for demo, else hub."),
    ] = None,
    samples: Annotated[str, typer.Option(metavar="N|all", help="How many samples to answer.")] = "32",
    instrumented: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="How many of them the instruments walk, in whole batches. Default: all, up to 64."
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave samples out whose picture cannot be read, and say which.")
    ] = False,
    prefetch: Annotated[
        int, typer.Option(help="Make so many batches ahead in one more walk, to show what that saves.")
    ] = 0,
    layers: Annotated[
        str,
        typer.Option(help="all, vision, language, language[0:4], language[*].mlp, or a glob on names; commas join."),
    ] = "all",
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Quantization = "none",
    quantization_skip: QuantizationSkip = None,
    attention: Annotated[
        str, typer.Option(help="eager, sdpa or flash, for both towers or each: vision=sdpa,language=flash.")
    ] = "auto",
    optimization: Annotated[str, typer.Option(help="eager, sdpa, flash, compile or graph.")] = "eager",
    batch_size: Annotated[int, typer.Option(help="Rows per generate().")] = 1,
    image_size: Annotated[
        str,
        typer.Option(
            metavar="N|native",
            help="Pixels a side; Qwen-VL: a multiple of its cell (28 or 32), a token each. native: as pictures come.",
        ),
    ] = "224",
    min_pixels: Annotated[
        int | None, typer.Option(help="With --image-size native: the fewest pixels of a picture.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(help="With --image-size native: the most pixels of a picture.")
    ] = None,
    max_input_len: Annotated[
        int, typer.Option(help="Budget of the question's tokens; never cuts image or options.")
    ] = 200,
    max_new_tokens: Annotated[int | None, typer.Option(help="Default: 16; coco 64.")] = None,
    fixed_tokens: Annotated[
        bool, typer.Option(help="Always write max-new-tokens tokens, so that runs compare.")
    ] = False,
    energy: Annotated[str, typer.Option(help="auto, replay, attributed or off.")] = "auto",
    energy_sensor: Annotated[
        str, typer.Option(help="auto, nvml, rapl, amdsmi, or zeus: whose energy counter is read.")
    ] = "auto",
    energy_budget: Annotated[
        float | None, typer.Option(help="Seconds that --energy replay may take. Default: 120.")
    ] = None,
    assume_watts: Annotated[
        float | None, typer.Option(help="Power to assume for an estimate, where there is no sensor.")
    ] = None,
    memory: Annotated[bool, typer.Option(help="One more pass: what each layer holds in memory.")] = False,
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
) -> int:
    """Profile every layer of a model on a dataset: FLOPs, latency and energy, with books that balance."""
    chosen = dict(locals())
    from layerprof.commands.profile import carry_out

    return carry_out(hooks=chosen.pop("hook"), quiet=chosen.pop("quiet"), **chosen)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="A run's folder, or its run.json; or a sweep's folder.")],
    format: Annotated[
        str,
        typer.Option("--format", help="terminal, markdown, csv, json, html, or your own as package.module:Class."),
    ] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its suffix picks the format.")
    ] = None,
) -> None:
    """Show a finished run or sweep again, in any format."""
    from layerprof.commands.report import show

    show(path, format, output)


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
    samples: Annotated[
        str | None, typer.Option(metavar="N|all", help="In place of the file's number of samples.")
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE for any other base setting.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds after which a cell is stopped.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Default: the cluster that runs here, else a new one.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Plain lines, no bars, no tables.")] = False,
) -> int:
    """Measure every cell of an experiment, each in a process that may fail, and go on where it was stopped."""
    from layerprof.commands.sweep import carry_out, request, show_plan

    named = {"model": model, "weights": weights, "samples": samples}
    asked = request(experiment, output, engine, only, set_, ray_address, **named)
    if dry_run:
        show_plan(asked)
        return 0
    return carry_out(asked, resume=resume, retry=retry, timeout_s=timeout, quiet=quiet)


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
) -> int:
    """Tell what changed between two runs or sweeps, end to end and layer by layer, with paired intervals."""
    from layerprof.commands.compare import show

    return show(before, after, fail_above, format, output)


@app.command()
def layers(
    model: Model = "auto",
    layers: Annotated[str, typer.Option(help="Show only what this selector takes.")] = "all",
) -> None:
    """List the layers of a model with the names and selectors that --layers takes."""
    from layerprof.commands.layers import show

    show(model, layers)


@app.command()
def estimate(
    context: typer.Context,
    model: Model = "auto",
    batch_size: Annotated[int, typer.Option(help="Rows.")] = 1,
    image_size: Annotated[str, typer.Option(metavar="INTEGER", help="Pixels a side.")] = "224",
    text_tokens: Annotated[int, typer.Option(help="Prompt tokens besides the image's.")] = 100,
    new_tokens: Annotated[int, typer.Option(help="Tokens to write.")] = 16,
    dtype: Annotated[str, typer.Option(help="fp16, bf16 or fp32.")] = "fp16",
    gpu: Annotated[
        str | None, typer.Option(help="H200, H100, A100, L4, RTX4090, ...: adds time and energy bounds.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--from", metavar="RUN", help="What if: bounds on what a change saves of a measured run's time."),
    ] = None,
    layers: Annotated[str, typer.Option(help="With --from: the layers that change.")] = "all",
    quantization: Quantization = "none",
    quantization_skip: QuantizationSkip = None,
    speedup: Annotated[
        float | None, typer.Option(help="With --from: how many times as fast they are. Default: they cost nothing.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", help="Write JSON to a file, or - for standard output.")] = None,
) -> None:
    """Predict FLOPs, bytes, memory and roofline bounds per layer of a model that is never loaded."""
    from layerprof.commands import estimate

    given = [name for name in context.params if ending.was_given(context, name)]
    if run is not None:
        asked = estimate.Asked(layers, quantization, quantization_skip, speedup)
        estimate.show_what_if(run, json, given, asked)
        return
    estimate.show(
        model,
        json,
        given,
        batch_size=batch_size,
        image_size=image_size,
        text_tokens=text_tokens,
        new_tokens=new_tokens,
        dtype=dtype,
        gpu=gpu,
        quantization=quantization,
        quantization_skip=quantization_skip,
    )


@app.command(cls=ending.JsonMayStandAlone)
def attribute(
    traces: Annotated[
        list[Path],
        typer.Argument(metavar="TRACE...", help="Chrome traces (.json, .json.gz) of torch.profiler; several add up."),
    ],
    capture: Annotated[
        list[Path] | None,
        typer.Option(help="Trace in which CUDA graphs were captured, or a folder of them; may be repeated."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Ranges or operators by name, or pattern with *; commas join. Default: all.")
    ] = None,
    infer: Annotated[
        bool, typer.Option(help="Find layers by a sequence of kernels that repeats, where nothing else tells them.")
    ] = True,
    depth: Annotated[int | None, typer.Option(help="Levels of the tree. Default: all.")] = None,
    top: Annotated[int | None, typer.Option(help="Lines of the tree, the heaviest; 0 shows all. Default: 20.")] = None,
    sort: Annotated[str, typer.Option(help="order (of first calls), time, own, each, calls or name.")] = "order",
    only: Annotated[
        str | None, typer.Option(help="Rows with this in their names, or by a pattern with *; with all inside them.")
    ] = None,
    phase: Annotated[str | None, typer.Option(help="vision, prefill, decode or mixed.")] = None,
    format: Annotated[str, typer.Option("--format", help="terminal, markdown, csv or json.")] = "terminal",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; its suffix picks the format.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Write JSON to a file; without one, or for -, to standard output.")
    ] = None,
) -> None:
    """Tell which layer launched each kernel of a trace, also of one that somebody else recorded."""
    from layerprof.commands.attribute import Naming, show
    from layerprof.report.attribution.view import LINES, View

    view = View(depth, LINES if top is None else top, sort, only, phase)
    show(traces, Naming(layers, capture or [], infer), view, format, output, json)


@app.command()
def view(
    path: Annotated[Path, typer.Argument(help="A run's folder, or a folder of runs.")],
    port: Annotated[int, typer.Option(help="TensorBoard's port.")] = 6006,
) -> int:
    """Open a run in TensorBoard: scalars per layer, the summary, and the profiler's trace."""
    from layerprof.commands.view import serve

    return serve(path, port)


@app.command()
def doctor(
    json: Annotated[
        str | None, typer.Option("--json", help="Write JSON to a file beside what is shown, or - for JSON alone.")
    ] = None,
) -> None:
    """Tell what this machine can measure, and how well."""
    from layerprof.commands.doctor import show

    show(json)


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Take the options that belong to no command."""
    from layerprof.commands import printing

    if version:
        from layerprof import __version__

        printing.say(f"layerprof {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        printing.complain(context.get_help())
        raise typer.Exit(2)


def main() -> None:
    """Run the command line; errors become one message and their exit code."""
    sys.exit(ending.run(app))


if __name__ == "__main__":
    main()
