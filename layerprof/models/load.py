"""Loads what `source.resolve` found: weights and processor, with every failure turned into a message."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layerprof.errors import RequestError
from layerprof.machine import packages, placement, spread
from layerprof.models import adapter, family, provenance, quantization, quantized, random_weights
from layerprof.models.published import Published
from layerprof.models.quantization import StoragePlan
from layerprof.models.subject import Subject

if TYPE_CHECKING:
    from layerprof.models.source import ModelSource


@quantized.quiet()
def load_model(source: ModelSource) -> Subject:
    """Return the model in eval mode on its device, with its processor.

    Raises RequestError when the files turn out not to fit the configuration, or to need a package that is not there.
    """
    processor = _processor(source)
    _pad_on_the_left(processor)
    config = copy.deepcopy(source.found.config)
    try:
        model = _random(source, config) if source.weights == "random" else _pretrained(source, config)
        stored = _stored(source, model)
        if source.found.adapter is not None:
            random = source.weights == "random"
            model = adapter.put_on(model, source.found.adapter, source.device, random=random)
    except RequestError:
        raise
    except Exception as error:  # missing packages, shapes that do not fit, unreadable files: each has its own class
        raise _failed(source, error) from error
    model.eval()
    told = provenance.of_source(source, model) | {"quantization": stored}
    return Subject(model, processor, told, source.optimization, source.attention)


def wrap(model: Any, processor: Any, *, name: str = "own model", optimization: str = "eager") -> Subject:
    """Return a subject of a model and processor that the caller has loaded, in eval mode and with left padding.

    Raises RequestError for a model that is spread over several devices.
    """
    spread.check(model)
    model.eval()
    _pad_on_the_left(processor)
    subject = Subject(model, processor, {}, optimization)
    facts = provenance.facts(model)
    subject.provenance.update(facts, name=name, kind="own", dtype=placement.dtype_name(subject.dtype))
    return subject


def _stored(source: ModelSource, model: Any) -> dict[str, Any] | None:
    """Return how the weights of a loaded model are stored; None where they are ordinary numbers, as was asked.

    Raises RequestError where another format was asked for, or the checkpoint has one, and no layer has it.
    """
    if source.quantized is None:
        return None
    found = quantized.facts(model, source.quantized)
    if not found["layers"]:
        raise RequestError(
            f"No layer of {source.name} is stored as {found['format']} after loading: all are ordinary numbers.",
            "Leave --quantization out, or check that the versions of transformers and "
            f"{found['package']} go together (`pip install 'layerprof[quantization]'`).",
        )
    if found["package"] == "bitsandbytes":
        quantized.speak_once()
        quantized.keep_layout(model)
    if isinstance(source.quantized, Published) and source.quantized.unpacked:
        quantized.unpack(model)
        found["run_as"] = source.dtype
    return found


def _random(source: ModelSource, config: Any) -> Any:
    if getattr(config, "quantization_config", None) is not None:
        del config.quantization_config  # the checkpoint's, of which no weight is read
    return random_weights.build(
        family.auto_class(config),
        config,
        dtype=placement.torch_dtype(source.dtype),
        device=source.device,
        attention=source.attention.told,
        seed=source.seed,
        plan=source.quantized if isinstance(source.quantized, StoragePlan) else None,
    )


def _pretrained(source: ModelSource, config: Any) -> Any:
    found = source.found
    dtype = placement.torch_dtype(source.dtype)
    stored: dict[str, Any] = {}
    if isinstance(source.quantized, StoragePlan):
        stored["quantization_config"] = quantization.configuration(source.quantized, dtype)
    if source.quantized is not None:
        stored["device_map"] = {"": source.device}  # packed weights are laid out for the device that they are put on
    with _no_bars(), _no_bars_of_others(source):
        model, info = family.auto_class(config).from_pretrained(
            found.location,
            config=config,
            revision=found.revision,
            local_files_only=found.cached,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation=source.attention.told,
            output_loading_info=True,
            **stored,
        )
    absent = sorted(info["missing_keys"])
    if absent:
        shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise RequestError(
            f"The checkpoint {found.name} lacks {len(absent)} of the model's tensors ({shown}).",
            "Copy the whole checkpoint, or use --weights random.",
        )
    return model if source.quantized is not None else model.to(source.device)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Silence transformers' bar of loaded tensors; the hub client's bar of downloads stays."""
    import transformers.utils.logging

    logging: Any = transformers.utils.logging  # untyped there

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _no_bars_of_others(source: ModelSource) -> contextlib.AbstractContextManager[Any]:
    """Silence the bars of compressed-tensors, which cannot be turned off."""
    unpacked = isinstance(source.quantized, Published) and source.quantized.unpacked
    return contextlib.redirect_stderr(io.StringIO()) if unpacked else contextlib.nullcontext()


def _failed(source: ModelSource, error: Exception) -> RequestError:
    if refused := packages.behind(error):
        return refused
    cause = " ".join(str(error).split())[:300]
    if isinstance(error, ImportError):
        remedy = "Install the package that the message names."
    elif "attn_implementation" in cause or "attention" in cause.lower():
        remedy = "Use --attention eager."
    else:
        remedy = "Check that its files belong together and are whole, or use --weights random."
    return RequestError(f"The model {source.name} cannot be loaded ({type(error).__name__}: {cause}).", remedy)


def _processor(source: ModelSource) -> Any:
    """Return the processor; for a model without images, its tokenizer."""
    from transformers import AutoProcessor, AutoTokenizer

    found = source.found
    reads_images = family.reads_images(found.config)
    loader = AutoProcessor if reads_images else AutoTokenizer
    own = found.processor == found.location
    revision = found.revision if own else None
    try:
        return loader.from_pretrained(
            found.processor,
            revision=revision,
            local_files_only=found.cached or not own,
            trust_remote_code=False,  # left open, transformers would ask on the terminal whether to run it
        )
    except Exception as error:
        cause = " ".join(str(error).split())[:300]
        kind = "processor" if reads_images else "tokenizer"
        raise RequestError(
            f"The {kind} of {source.name} cannot be loaded ({type(error).__name__}: {cause}).",
            "Check that the tokenizer and processor files are whole, and that torchvision fits torch.",
        ) from error


def _pad_on_the_left(processor: Any) -> None:
    """Pad on the left, in place: padded on the right, all but the longest row would continue from the padding."""
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
