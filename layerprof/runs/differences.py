"""What is different about two runs besides their figures, and what their comparison cannot say."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from layerprof.attention import TOWERS, ours
from layerprof.books import not_counted
from layerprof.records import Run
from layerprof.runs import batch_files
from layerprof.runs.sides import Paired, Side
from layerprof.settings import Settings

Differences = dict[str, tuple[Any, Any]]

NOT_SETTINGS = ("output", "hooks", "convention")
NOT_THE_MODELS = ("transformers", "torch")
NOT_THE_DATASETS = ("ids", "name", "source", "asked")
WITHOUT_PATHS = 4
"""Format since which the hash of a configuration holds no path."""
PASSING = ("gpu.temperature_c", "gpu.clock_sm_mhz", "gpu.clock_memory_mhz")
"""Facts of the environment that are different every time and are no change."""


def settings(a: Run, b: Run) -> Differences:
    """Return what differs of the settings, and under `model.` and `dataset.` of what these turned out to be.

    A setting that an older run does not know, and that the other run does not use, is no difference.
    """
    newer = {name for name in a.settings.keys() ^ b.settings.keys() if _unused(name, (a.settings | b.settings)[name])}
    if ("attention" in a.settings) != ("attention" in b.settings):
        newer.add("attention")  # what ran is told below
    told = {*NOT_THE_MODELS, *a.settings, *b.settings} | ({"name"} if "model" in a.settings else set())
    told.discard("quantization")  # a format that was asked for, and all that came of it
    if (a.format < WITHOUT_PATHS) != (b.format < WITHOUT_PATHS):
        told.add("config_sha256")
    return {
        **_differing(a.settings, b.settings, {*NOT_SETTINGS, *newer}),
        **_differing(_told(a.model, b.model), _told(b.model, a.model), told, "model."),
        **_differing(a.dataset, b.dataset, NOT_THE_DATASETS, "dataset."),
    }


def _unused(name: str, value: Any) -> bool:
    """Tell whether a setting is as it is where nobody asks for it."""
    known = Settings.model_fields.get(name)
    return not value or (known is not None and value == known.default)


def _told(model: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's facts with its attention by tower, and how its weights are stored in one phrase."""
    stored = model.get("quantization")
    told = _by_tower(model, other)
    if isinstance(stored, Mapping):
        told["quantization"] = (
            f"{stored.get('format')} by {stored.get('package')} {stored.get('package_version')} "
            f"({stored.get('scheme')}), {stored.get('layers')} layers, {stored.get('left')} left as they are"
        )
    return told


def _by_tower(model: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's facts with its attention by tower; an older run tells one, of the whole model."""
    ran, beside = model.get("attention"), other.get("attention")
    towers = beside if isinstance(beside, Mapping) else TOWERS
    return {**model, "attention": dict.fromkeys(towers, ours(ran))} if isinstance(ran, str) else {**model}


def environment(a: Run, b: Run) -> Differences:
    """Return what differs of the machine and the software, without what passes."""
    return _differing(a.environment, b.environment, PASSING)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], leave_out: Collection[str], prefix: str = "") -> Differences:
    first, second = dict(_flat(a)), dict(_flat(b))
    names = [name for name in {**first, **second} if name not in leave_out and _comparable(name, first, second)]
    return {prefix + n: (first.get(n), second.get(n)) for n in names if first.get(n) != second.get(n)}


def _comparable(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Tell whether both sides say it where one may be older than the saying: the rules of answers' rates."""
    return not name.startswith("normalisation.") or (name in first and name in second)


def _flat(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# --- notes ------------------------------------------------------------------------------------------------------


def notes(a: Side, b: Side, paired: Paired) -> Iterator[str]:
    """Yield what a reader of the comparison must know."""
    for name, side in (("first", a), ("second", b)):
        if side.run.status != "done":
            yield f"The {name} run is {side.run.status}: its figures are of what was finished."
        if missing := not_counted.warning(side.run.ledger.flops):
            yield f"The {name} run: {missing}"
        if not side.samples:
            yield f"The {name} run has no samples.jsonl, so nothing is paired."
        elif not side.batches:
            yield f"The {name} run has no {batch_files.BATCHES_FILE}, so latency is not paired."
    if a.samples and b.samples:
        yield from _pairing(a, b, paired)
    yield from _instrumented(a, b)
    if not (a.run.settings.get("fixed_tokens") and b.run.settings.get("fixed_tokens")):
        yield from _lengths(a, b, paired)


def _pairing(a: Side, b: Side, paired: Paired) -> Iterator[str]:
    """Yield how samples are told to be the same, and which are."""
    matched = paired.match
    if not matched.by_key:
        old = [name for name, side in (("first", a), ("second", b)) if not all(one.key for one in side.samples)]
        whose = f"The {old[0]} run is" if len(old) == 1 else "The runs are"
        yield f"{whose} from before samples had keys, so samples are paired by their ids, whatever they hold."
    if matched.renamed:
        ids = "1 id stands" if matched.renamed == 1 else f"{matched.renamed} ids stand"
        yield f"{ids} in both runs for different samples: the question, the picture or the references changed."
    if not paired.shared:
        yield "The runs answered different samples, so nothing is paired: intervals are of each side's own samples."
    elif not matched.same:
        counts = f"{len(a.samples)} and {len(b.samples)}"
        yield f"The runs share {paired.shared} of {counts} samples; pairs are of these."
        if a.batches and b.batches and not paired.all.bundles:
            yield "The samples that the runs share are not in whole batches of their own, so latency is not paired."


def _lengths(a: Side, b: Side, paired: Paired) -> Iterator[str]:
    """Yield that answers to the same samples have another length, with end marks where all samples are the same."""
    x, y = a.run.totals.output_tokens, b.run.totals.output_tokens
    of = ""
    if a.samples and b.samples and not paired.match.same:
        x, y = (sum(len(pair[side].answer_tokens) for pair in paired.samples()) for side in (0, 1))
        of = " for the samples that they share"
    if x != y:
        yield f"The runs wrote {x} and {y} tokens{of}; compare runs with --fixed-tokens for the same work."


def _instrumented(a: Side, b: Side) -> Iterator[str]:
    """Yield of how many samples work, energy and layers are, where that is a part."""
    for name, side in (("first", a), ("second", b)):
        if side.run.walked < side.run.samples:
            part = f"{side.run.walked} of its {side.run.samples} samples"
            yield f"FLOPs, energy and layers of the {name} run are of the first {part}."
