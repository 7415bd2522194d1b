"""One exhibit, run with a profiler or without: everything that a caller can see of it afterwards."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from gallery.exhibit import Exhibit
from gallery.frozen import Facts, freeze
from gallery.surroundings import leave_modes_left_behind, surroundings
from layerprof import LayerProfiler

MODES: dict[str, dict[str, Any]] = {
    "off": {"flops": "off"},
    "default": {},
    "together": {"flops": "together"},
    "rerun": {"flops": "rerun"},
}


@dataclass(frozen=True)
class Outcome:
    """What a run showed: `facts` path by path, the profiler that watched it, and whether the block raised."""

    facts: Facts
    profiler: LayerProfiler | None
    raised: bool


def run(exhibit: Exhibit, mode: str | None) -> Outcome:
    """Run an exhibit on a fresh model, under a profiler of a mode of MODES, or under none."""
    _seed()
    model = exhibit.model()
    before = _identities(model)
    kept = [*_objects(model).values()]  # an id is of use as long as its object lives
    profiler, answer, error, around = None, None, None, None
    _seed()
    try:
        with exhibit.surroundings() as around, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            standing = surroundings()
            try:
                if mode is None:
                    answer = exhibit.run(model, plain=True)
                else:
                    profiler = LayerProfiler(model, **MODES[mode])
                    with profiler:
                        answer = exhibit.run(model, plain=False)
            except (Exception, KeyboardInterrupt, GeneratorExit) as caught:
                error = caught.with_traceback(None)
            outside = surroundings()
    finally:
        leave_modes_left_behind()
    facts = freeze(answer=answer, error=error, around=around, model=model, state=_state(model))
    facts |= {f"surroundings.{name}": value for name, value in outside.items() if value != standing[name]}
    facts["warnings"] = str(sorted({f"{entry.category.__name__}: {entry.message}" for entry in told}))
    facts["replaced objects"] = str(sorted(_replaced(before, _identities(model))))
    del kept
    return Outcome(facts, profiler, error is not None)


def differences(plain: Mapping[str, str], profiled: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the paths at which two runs differ, and what each has there."""
    paths = [*plain, *(path for path in profiled if path not in plain)]
    pairs = {path: (plain.get(path, "nothing"), profiled.get(path, "nothing")) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _state(model: nn.Module) -> Any:
    """Return `state_dict()`, which hooks and methods of a model's own may make to be anything."""
    with torch.no_grad():
        return dict(model.state_dict())


def _objects(model: nn.Module) -> dict[str, Any]:
    """Return every attribute of every module, and what its dicts of parts hold."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            found[f"{path}:{name}"] = value
            if name in ("_parameters", "_buffers", "_modules"):
                found |= {f"{path}:{name}.{key}": part for key, part in value.items()}
    return found


def _identities(model: nn.Module) -> dict[str, int]:
    return {path: id(value) for path, value in _objects(model).items()}


def _replaced(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """Return the attributes that are another object than before, new, or gone."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
