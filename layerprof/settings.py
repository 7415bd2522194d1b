"""What a user may ask of one run, checked before anything heavy is loaded."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from layerprof import attention
from layerprof.errors import RequestError, did_you_mean

Weights = Literal["pretrained", "random"]
Dtype = Literal["auto", "fp16", "bf16", "fp32"]
Optimization = Literal["eager", "sdpa", "flash", "compile", "graph"]
EnergyMode = Literal["auto", "replay", "attributed", "off"]
EnergySensor = Literal["auto", "nvml", "rapl", "zeus", "amdsmi"]
Quantization = Literal["none", "int8", "int4", "nf4", "fp8"]
ImageSize = int | Literal["native"]
"""Pixels a side, or `native`: the size that the processor's own rule gives a picture, its shape kept."""

DATASETS = ("textvqa", "scienceqa", "coco")
"""What is known of each stands in `data.datasets.SPECS`, how its bundled rows are drawn in `demo.tasks`."""
SEEDS = (0, 2**63 - 1)
INSTRUMENTED = 64
"""Samples that instruments walk where nothing else is asked."""
AT_LEAST_ONE = (
    "samples",
    "instrumented",
    "batch_size",
    "min_pixels",
    "max_pixels",
    "max_input_len",
    "max_new_tokens",
    "trace_batches",
)

WITH: dict[str, dict[str, Any]] = {
    "min_pixels": {"image_size": "native"},
    "max_pixels": {"image_size": "native"},
    "quantization_skip": {"quantization": "int8"},
}
"""What a setting has no meaning without, as far as one value of another is concerned: to check it alone."""


class Settings(BaseModel):
    """The settings of one run; field names are the command line's option names with underscores.

    `samples` are answered, `instrumented` of them walked by the instruments (None: all up to `INSTRUMENTED`). A picture
    that cannot be read ends the run, or with `skip_bad` is left out. `prefetch` batches are made ahead in a walk of its
    own, to show what that saves. `memory` adds the pass of memory by layer.

    `quantization` stores the weights in another format as they are loaded, but for the layers that
    `quantization_skip`, a selector (or `none`), takes. `attention` names the implementation for both towers (`sdpa`) or
    for each (`vision=sdpa,language=flash`); `auto` leaves it to `optimization`. `min_pixels` and `max_pixels` bound
    what a picture of `native` size may have. `energy_sensor` says whose counter is read.

    `samples`, `max_new_tokens` and `source` may be None: then the dataset or the model decides (32 samples; 16 tokens
    for textvqa and scienceqa, 64 for coco; bundled images for a demo model, the hub for any other). `energy_budget`
    None is two minutes of replay.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "auto"
    weights: Weights = "pretrained"
    dataset: str = "textvqa"
    source: str | None = None
    samples: int | Literal["all"] = 32
    instrumented: int | Literal["all"] | None = None
    skip_bad: bool = False
    prefetch: int = 0
    layers: str = "all"
    device: str = "auto"
    dtype: Dtype = "auto"
    quantization: Quantization = "none"
    quantization_skip: str | None = None
    attention: str = "auto"
    optimization: Optimization = "eager"
    batch_size: int = 1
    image_size: ImageSize = 224
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_input_len: int = 200
    max_new_tokens: int | None = None
    fixed_tokens: bool = False
    energy: EnergyMode = "auto"
    energy_sensor: EnergySensor = "auto"
    energy_budget: float | None = None
    assume_watts: float | None = None
    memory: bool = False
    trace: bool = True
    trace_batches: int = 2
    cross_check: bool = False
    hooks: tuple[str, ...] = ()
    output: str | None = None
    seed: int = 0


def build(**values: Any) -> Settings:
    """Return checked settings.

    Raises RequestError with the nearest allowed value, or the allowed range, for anything that no run could satisfy.
    """
    values = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in values.items()}
    if hasattr(values.get("model"), "named_modules"):
        raise RequestError(
            f"model is a {type(values['model']).__name__} in memory, not the name of one.",
            "Measure it in your own loop: with layerprof.LayerProfiler(model) as prof: model.generate(**inputs).",
        )
    for name, value in values.items():
        if name in Settings.model_fields:
            _check_choice(name, value)
            _check_not_empty(name, value)
            if name in AT_LEAST_ONE and value is not None:
                _check_at_least_one(name, value)
    values |= _normal(values)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise _readable(error) from None
    if settings.dataset not in DATASETS:
        raise unknown_choice("dataset", settings.dataset, DATASETS)
    if not SEEDS[0] <= settings.seed <= SEEDS[1]:
        raise RequestError(f"--seed is {settings.seed}; it must be between 0 and 2^63 - 1.", "Give --seed 0, 1, 2, ...")
    if doubled := [name for name in settings.hooks if settings.hooks.count(name) > 1]:
        raise RequestError(f"--hook {doubled[0]} is given twice.", "Name each hook once.")
    _check_above_zero("--energy-budget", settings.energy_budget, "seconds that replay may take, such as 300")
    _check_above_zero("--assume-watts", settings.assume_watts, "watts, such as 65")
    _check_together(settings)
    if settings.prefetch < 0:
        raise RequestError(f"--prefetch is {settings.prefetch}.", "Give --prefetch 1 or more, or leave it out.")
    source = settings.source or "bundled"
    named = source in ("bundled", "bundled@mixed", "hub") or source.startswith("hub@")
    if not named and not Path(source).expanduser().exists():
        raise RequestError(
            f"--source {settings.source} is neither 'bundled', 'hub' nor a folder.",
            "Give --source bundled, bundled@mixed, hub, or a folder with your own samples (docs/datasets.md).",
        )
    return settings


def unknown_choice(option: str, value: object, allowed: tuple[str, ...]) -> RequestError:
    """Return the error for a value outside a closed list, naming the nearest allowed one."""
    return RequestError(
        f"Unknown {option.replace('_', ' ')} '{value}'.",
        f"{did_you_mean(value, allowed, cutoff=0.5)}Choose one of: {', '.join(allowed)}.",
    )


def _check_choice(name: str, value: object) -> None:
    allowed = get_args(Settings.model_fields[name].annotation)
    if allowed and all(isinstance(item, str) for item in allowed) and value not in allowed:
        raise unknown_choice(name, value, allowed)


def _check_not_empty(name: str, value: object) -> None:
    """Refuse empty text: from a script it is a variable that was never set, and no default is meant by it."""
    if isinstance(value, str) and not value.strip() and name != "layers":  # which its parser tells better
        option = "--" + name.replace("_", "-")
        raise RequestError(f"{option} is empty.", f"Give {option} a value, or leave it out for its default.")


def _check_at_least_one(name: str, value: object) -> None:
    if isinstance(value, int) and value < 1:
        option = "--" + name.replace("_", "-")
        raise RequestError(f"{option} is {value}; it must be at least 1.", f"Give {option} 1 or more.")


def _normal(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that may be written in several ways, each in one."""
    given = {name: value for name, value in values.items() if value is not None}
    found: dict[str, Any] = {name: _counted(name, given[name]) for name in ("samples", "instrumented") if name in given}
    if "image_size" in given:
        found["image_size"] = _sized(given["image_size"])
    if isinstance(given.get("attention"), str):
        found["attention"] = str(attention.parse(given["attention"]))
    if str(given.get("quantization_skip", "")).strip().lower() == "none":
        found["quantization_skip"] = None
    return found


def _counted(name: str, value: Any) -> Any:
    """Return a number of samples as it may be written, `all` or a number; it is at least 1."""
    text = str(value).strip().lower()
    if text == "all":
        return text
    if isinstance(value, bool) or not text.lstrip("+-").isdecimal():
        raise RequestError(f"--{name} is '{value}', which is no number of samples.", f"Give --{name} 32, or all.")
    _check_at_least_one(name, int(text))
    return int(text)


def _sized(value: Any) -> Any:
    """Return a size of images as it may be written, `native` or pixels a side; at least 1."""
    text = str(value).strip().lower()
    if text == "native":
        return text
    if isinstance(value, bool) or not text.lstrip("+-").isdecimal():
        raise RequestError(f"--image-size is '{value}', which is no size.", "Give --image-size 224, or native.")
    _check_at_least_one("image_size", int(text))
    return int(text)


def square_side(value: Any) -> int:
    """Return the side of a square image as it may be written. Raises RequestError for `native`, which has none."""
    sized = _sized(value)
    if sized == "native":
        raise RequestError(
            "--image-size native leaves the size to the pictures, and an estimate is of none.",
            "Give the side of a square image, such as --image-size 224.",
        )
    return int(sized)


def _check_together(settings: Settings) -> None:
    """Refuse what has no meaning without another setting, or against it."""
    for name in ("min_pixels", "max_pixels"):
        if getattr(settings, name) is not None and settings.image_size != "native":
            option = "--" + name.replace("_", "-")
            raise RequestError(
                f"{option} bounds pictures of native size, and --image-size is {settings.image_size}.",
                f"Give --image-size native with it, or leave {option} out.",
            )
    if settings.min_pixels and settings.max_pixels and settings.min_pixels > settings.max_pixels:
        raise RequestError(
            f"--min-pixels {settings.min_pixels} is above --max-pixels {settings.max_pixels}.", "Swap the two."
        )
    if settings.quantization_skip is not None and settings.quantization == "none":
        raise RequestError(
            "--quantization-skip leaves layers out of a quantization, and none is asked for.",
            "Give --quantization int8, int4, nf4 or fp8 with it.",
        )


def _check_above_zero(option: str, value: float | None, example: str) -> None:
    if value is not None and not 0 < value < math.inf:
        raise RequestError(f"{option} is {value:g}; it must be a number above 0.", f"Give {option} {example}.")


def _readable(error: ValidationError) -> RequestError:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_choice("setting", name, tuple(Settings.model_fields))
    if first["type"] == "tuple_type":
        return RequestError(f"Setting '{name}' is a list.", f'Write {name} = ["..."].')
    return RequestError(
        f"Setting '{name}' cannot be {first['input']!r}: {first['msg'].lower()}.",
        "See `layerprof profile --help` for what each option takes.",
    )
