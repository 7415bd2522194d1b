"""Who a cell is: everything that its figures depend on, so that the same cell is measured once."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerprof.machine import environment
from layerprof.settings import INSTRUMENTED
from layerprof.sweep.cells import Identity, canonical

if TYPE_CHECKING:
    from layerprof.data.spec import Dataset
    from layerprof.measure.check import Checked
    from layerprof.models.source import ModelSource
    from layerprof.settings import Settings

WHOLE_FILE_BYTES = 64 * 10**6
"""Files up to this size are hashed whole; of larger ones, size and time of change stand for the content."""
PACKAGES = (*environment.PACKAGES, "tokenizers", "qwen-vl-utils", "pillow")


def identity_of(checked: Checked, data: Dataset, besides: dict[str, Any]) -> Identity:
    """Return who a cell is; `besides` are its choices that are no setting of a run.

    Every setting is part of it, those that add figures (`prefetch`, `memory`) and `skip_bad`, without which a cell may
    have failed, included. How many samples are `instrumented` is resolved: as a number, `all` and by default it may be
    the same.
    """
    asked, source = checked.settings, checked.source
    choices = asked.model_dump(mode="json", exclude={"output"}) | {
        "model": source.name if asked.model.strip().lower() == "auto" else asked.model,
        "device": source.device,
        "dtype": source.dtype,
        "attention": str(source.attention),
        "source": checked.samples_from,
        "max_new_tokens": asked.max_new_tokens or data.max_new_tokens,
        "instrumented": _instrumented(asked, len(data.examples)),
    }
    return Identity(
        choices=choices | besides,
        model=_model(source),
        data=_data(data),
        device=environment.device_name(source.device),
        versions=_versions(source),
    )


def _instrumented(asked: Settings, samples: int) -> int:
    """Return how many samples the instruments will walk, however that was asked for: those of whole batches."""
    wanted = INSTRUMENTED if asked.instrumented is None else asked.instrumented
    whole = samples if wanted == "all" else -(-wanted // asked.batch_size) * asked.batch_size
    return min(whole, samples)


def _model(source: ModelSource) -> dict[str, Any]:
    found = source.found
    place = Path(found.location)
    content = _content(place) if found.kind in ("demo", "folder", "architecture") else None
    return {
        "name": source.name,
        "kind": found.kind,
        "revision": found.revision,
        "weights": source.weights,
        "parameters": source.parameters,
        "content": content,
        **({"adapter": _content(Path(found.adapter.folder))} if found.adapter else {}),
    }


def _data(data: Dataset) -> dict[str, Any]:
    asked = [[example.question, example.choices, example.hint, example.references] for example in data.examples]
    folder = Path(data.source)
    own = data.source not in ("bundled", "bundled@mixed", "hub") and folder.exists()
    return {
        "name": data.name,
        "source": data.source,
        "revision": data.revision,
        "prompt_id": data.prompt_id,
        "ids": [example.id for example in data.examples],
        "texts": hashlib.sha256(canonical(asked).encode()).hexdigest()[:16],
        "content": _content(folder) if own else None,
    }


def _content(place: Path) -> str:
    """Return a hash of a file, or of the files in a folder.

    Hashed are their names, and their content or, when large, size and time.
    """
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file.relative_to(place)}\0{stat.st_size}\0".encode())
            small = stat.st_size <= WHOLE_FILE_BYTES
            digest.update(file.read_bytes() if small else str(stat.st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def _versions(source: ModelSource) -> dict[str, Any]:
    """Return the versions of the packages that a run goes through, and the driver's."""
    also = [source.quantized.package] if source.quantized else []
    also += ["peft"] if source.found.adapter else []
    found: dict[str, Any] = {name: environment.package_version(name) for name in (*PACKAGES, *also)}
    driver = None if source.device == "cpu" else environment.gpu_state(source.device).get("driver")
    return found | {"python": platform.python_version(), "driver": driver}
