"""For anyone's own model and loop: `with LayerProfiler(model) as prof: model.generate(**inputs)`, then `prof.run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from layerprof import registry
from layerprof.errors import RequestError
from layerprof.machine.placement import dtype_name
from layerprof.measure.outer_calls import Calls, replay
from layerprof.readings import SpanReading, WorkReading
from layerprof.records import Run

if TYPE_CHECKING:
    from torch import nn

    from layerprof.books.own_calls import OwnCalls


class LayerProfiler:
    """Measures spans, FLOPs and bytes per layer and phase of whatever is called inside the `with` block.

    A *batch* is one outermost call of `model.generate()` or `model()`. Spans are taken in your own calls. FLOPs need an
    instrument that would slow those down, so with `flops="rerun"` (the default) the same calls are repeated once,
    with the same random state, after the block ends; `flops="together"` counts during your calls and says that the
    spans suffer; `flops="off"` leaves FLOPs out.

    `layers` is a selector as on the command line. `run` holds the finished `Run` once the block has ended, also when
    it ended with an exception (then `run.status` is "failed").
    """

    def __init__(
        self, model: nn.Module, layers: str = "all", *, flops: Literal["rerun", "together", "off"] = "rerun"
    ) -> None:
        from layerprof.layers.find import find_layers
        from layerprof.layers.selector import parse_selector, select

        if flops not in ("rerun", "together", "off"):
            raise RequestError(f"flops={flops!r} is unknown.", "Choose 'rerun', 'together' or 'off'.")
        if not callable(getattr(model, "named_modules", None)) or isinstance(model, type):
            raise RequestError(
                f"LayerProfiler was given {model!r:.60}, which is no model.", "Pass a loaded torch.nn.Module."
            )
        if not isinstance(layers, str):
            raise RequestError(
                f"layers={layers!r:.60} is no selector.", "Write it as on the command line: layers='vision,lm_head'."
            )
        selector = parse_selector(layers)
        self.model = model
        self.found = find_layers(model)
        self.selected = select(self.found, selector, model)
        self.layers = self.found + tuple(layer for layer in self.selected if layer not in self.found)
        self.selector = layers
        self.flops = flops
        self.device = _device(model)
        self.dtype = _dtype(model)
        self._run: Run | None = None
        self._why_none = ""
        self._active = False
        self._calls = Calls(model, self._around)

    @property
    def rows(self) -> int:
        """Rows of all outermost calls together; 0 before the first."""
        return self._calls.rows

    def _warnings(self, error: BaseException | None) -> tuple[str, ...]:
        """Return what a reader of the run must know."""
        together = "FLOPs were counted during the same calls: the spans hold the counting, too."
        ended = f"The block ended with {type(error).__name__}: {error}"
        mixed = "Calls from several threads overlapped: the spans of one hold work of the others."
        told = {together: self.flops == "together", mixed: self._calls.overlapped, ended: error}
        return tuple(text for text, applies in told.items() if applies)

    @property
    def run(self) -> Run:
        """The finished run. Raises RequestError inside the block, and when nothing was called in it."""
        if self._run is None and self._why_none:
            raise RequestError(f"There is no run: {self._why_none}.", "Correct that, then enter the block again.")
        if self._run is None:
            raise RequestError("There is no run yet.", "Read `prof.run` after the `with` block has ended.")
        return self._run

    def __enter__(self) -> Self:
        if self._active:
            raise RequestError(
                "This LayerProfiler is measuring already.",
                "Enter it once at a time, or make another for the inner block.",
            )
        self._latency = registry.load(registry.LATENCY)(self.model, self.layers, device=self.device)
        self._shapes = registry.load(registry.SHAPES)(self.model, self.layers) if self.flops == "together" else None
        self._calls = Calls(self.model, self._around, keep=self.flops == "rerun")
        with ExitStack() as stack:
            for part in filter(None, (self._latency, self._shapes, self._calls)):
                stack.enter_context(part)
            self._stack = stack.pop_all()
        self._active, self._run, self._why_none = True, None, ""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        self._stack.close()
        spans: SpanReading = self._latency.reading()
        if not spans.windows_s:
            if error is None:
                raise RequestError(
                    "Nothing was called inside the `with LayerProfiler(model)` block.",
                    "Call the very model that you passed: model.generate(...) or model(...).",
                )
            self._why_none = f"the block ended with {type(error).__name__} before a call was finished"
            return
        from layerprof.books import own_calls

        work, reason = self._work(error)
        self._run = own_calls.run(
            self._called(),
            spans,
            work,
            why_no_work=reason,
            failed=error is not None,
            warnings=self._warnings(error),
        )

    def _called(self) -> OwnCalls:
        from layerprof.books.own_calls import OwnCalls

        return OwnCalls(
            model={"name": type(self.model).__name__, "parameters": sum(p.numel() for p in self.model.parameters())},
            layers=self.layers,
            selected=self.selected,
            selector=self.selector,
            device=self.device,
            dtype=self.dtype,
            rows=self.rows,
        )

    @contextmanager
    def _around(self, index: int) -> Iterator[None]:
        with self._latency.batch(index):
            if self._shapes is None:
                yield
            else:
                with self._shapes.batch(index):
                    yield

    def _work(self, error: BaseException | None) -> tuple[WorkReading | None, str]:
        if self._shapes is not None:
            return self._shapes.reading(), ""
        if self.flops == "off":
            return None, "flops='off' was given"
        reason = "the block ended with an exception" if error else self._calls.why_not_again()
        if reason:
            return None, f"{reason}; LayerProfiler(model, flops='together') counts during the calls"
        hook = registry.load(registry.SHAPES)(self.model, self.layers)
        try:
            with hook:
                replay(self.model, self._calls.recorded, hook.batch)
        except Exception as failure:  # the user's figures are taken; a repeat that fails must not lose them
            return None, f"repeating the calls failed: {type(failure).__name__}: {failure}"
        return hook.reading(), ""


def _dtype(model: nn.Module) -> str:
    """Return the weights' dtype by our name for it (`fp16`), or torch's where we have none."""
    return dtype_name(next((p.dtype for p in model.parameters()), "none"))


def _device(model: nn.Module) -> str:
    first = next(model.parameters(), None)
    if first is None or first.device.type == "cpu":
        return "cpu"
    if first.device.type == "cuda":
        return str(first.device)
    raise RequestError(
        f"The model is on '{first.device.type}', where layerprof cannot time layers.",
        "Move it to a CUDA device or to the CPU, or give meta models to `layerprof estimate`.",
    )
