"""A request, checked: everything that can be told without a model, cheapest first, so that a mistake costs no wait.

One step for whoever asks, a single run or a cell of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from layerprof import registry
from layerprof.books.evidence import OWN_FACTS
from layerprof.energy.instruments import METER, misfit
from layerprof.errors import RequestError
from layerprof.layers.selector import Selector
from layerprof.models.source import ModelSource
from layerprof.settings import Settings


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that can be carried out, every `auto` resolved; nothing is loaded yet.

    `samples_from` is `bundled`, `hub` or a folder. `remark` is on settings without effect.
    """

    settings: Settings
    selector: Selector
    source: ModelSource
    samples_from: str
    remark: str | None


def resolve(settings: Settings) -> ModelSource:
    """Return what the settings' model is. Raises RequestError (see `models.source.resolve`)."""
    from layerprof.models import source

    return source.resolve(
        settings.model,
        weights=settings.weights,
        device=settings.device,
        dtype=settings.dtype,
        optimization=settings.optimization,
        attention=settings.attention,
        seed=settings.seed,
        quantization=settings.quantization,
        leave=_left(settings.quantization_skip),
    )


def _left(selector: str | None) -> Callable[[Any], tuple[str, ...]] | None:
    """Return what picks the modules that `--quantization-skip` takes, by the layers that are found in a model.

    Raises SelectorError for a selector that cannot be read.
    """
    from layerprof.layers.find import find_layers
    from layerprof.layers.selector import parse_selector, select

    if selector is None:
        return None
    parsed = parse_selector(selector)
    return lambda model: tuple(layer.name for layer in select(find_layers(model), parsed, model))


def check(
    settings: Settings,
    *,
    resolved: Callable[[Settings], ModelSource] = resolve,
    note: Callable[[str], None] = lambda _: None,
) -> Checked:
    """Return the request with every choice resolved, and tell `note` what was chosen.

    `resolved` stands in for `resolve`, for callers who ask about one model again and again. Raises RequestError for
    anything that cannot be carried out here.
    """
    from layerprof.layers.selector import parse_selector
    from layerprof.models.source import check_image_size

    selector = parse_selector(settings.layers)
    for name in settings.hooks:
        _check_hook(name)
    source = resolved(settings)
    note(source.why)
    check_image_size(source, settings.image_size)
    remark = check_energy(settings, source.device)
    return Checked(settings, selector, source, samples_from(settings, source), remark)


def _check_hook(name: str) -> None:
    registry.load_own(name)
    if name in OWN_FACTS:
        raise RequestError(
            f"A hook cannot be called '{name}': under that name a run keeps something of its own.",
            "Register it under another name, or give it as package.module:Class.",
        )


def samples_from(settings: Settings, source: ModelSource) -> str:
    """Return where samples come from: what was asked; else a demo model's are bundled, any other's on the hub."""
    return settings.source or ("bundled" if source.is_demo else "hub")


def check_energy(settings: Settings, device: str) -> str | None:
    """Refuse a sensor that is asked for and not there, and a replay without any; return a remark on what has no effect.

    The remark is on settings, None where there are none. Raises RequestError with what was tried.
    """
    named = settings.energy_sensor != "auto"
    if settings.energy == "off":
        given = {"--energy-sensor": named, "--energy-budget": settings.energy_budget is not None}
        idle = " and ".join(option for option, there in given.items() if there)
        return f"{idle} {'has' if sum(given.values()) == 1 else 'have'} no effect with --energy off." if idle else None
    if named and (wrong := misfit(settings.energy_sensor, device)):
        raise RequestError(
            f"--energy-sensor {settings.energy_sensor}: {wrong[0]}.", f"{wrong[1][0].upper()}{wrong[1][1:]}."
        )
    if named or settings.energy == "replay":
        with registry.load(METER)(device, sensor=settings.energy_sensor) as meter:
            if not meter.available:
                unread = f"--energy-sensor {settings.energy_sensor} cannot be read"
                raise RequestError(
                    f"{'--energy replay cannot run' if settings.energy == 'replay' else unread}: {meter.reason}.",
                    f"With {'--energy' if settings.energy == 'replay' else '--energy-sensor'} auto everything else is "
                    "measured; `layerprof doctor` shows what this machine has.",
                )
    if settings.energy != "replay" and settings.energy_budget is not None:
        return f"--energy-budget has no effect with --energy {settings.energy}; replay takes it: --energy replay."
    return None
