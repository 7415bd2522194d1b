"""For anyone's own model and loop: `with LayerProfiler(model) as prof: model.generate(**inputs)`, then `prof.run`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from layerprof import registry
from layerprof.errors import RequestError, described
from layerprof.layers import weights
from layerprof.layers.attention import joined
from layerprof.machine import spread
from layerprof.machine.internals import unseen
from layerprof.machine.placement import dtype_name
from layerprof.measure import own_remarks, unwatched
from layerprof.measure.drafts import Drafts
from layerprof.measure.fingerprint import Stamp
from layerprof.measure.outer_calls import Calls, Entrance
from layerprof.measure.repeat import Repeats
from layerprof.measure.signature import outline
from layerprof.measure.watch import Watch
from layerprof.models.prompt import prompt_of
from layerprof.readings import NOT_WATCHED, SpanReading, Uncounted, WorkReading
from layerprof.records import Phase, Run

if TYPE_CHECKING:
    from torch import nn

    from layerprof.books.own_calls import OwnCalls


Flops = Literal["once", "together", "rerun", "off"]
MODES: tuple[Flops, ...] = ("once", "together", "rerun", "off")


class LayerProfiler:
    """Measures spans, FLOPs and bytes per layer and phase of whatever is called inside the `with` block.

    A *batch* is one outermost call of `model.generate()`, `model.generate_batch()` or `model()`; one that raises is in
    no figure. Nothing of yours changes by it: what the model gives, keeps and raises is what it would without.

    FLOPs come from the operators that your own calls run. To watch them takes time, which spans hold, so with
    `flops="once"` (the default) a pass through the model is watched the first times that it is given its shapes, and
    taken to do the same again after that (which is checked, docs/models.md). `"together"` watches every pass;
    `"rerun"` none, and makes the same calls again after the block, on copies, unless that would change what the model
    keeps; `"off"` leaves FLOPs out.

    `layers` is a selector as on the command line. `run` holds the finished `Run` once the block has ended, also when
    it ended with an exception (then `run.status` is "failed"). Raises RequestError for what is no model, no selector
    and no mode, here; nothing after that.
    """

    def __init__(self, model: nn.Module, layers: str = "all", *, flops: Flops = "once") -> None:
        from layerprof.layers.attention import AttentionModules
        from layerprof.layers.find import find_layers
        from layerprof.layers.selector import parse_selector, select

        if flops not in MODES:
            raise RequestError(f"flops={flops!r} is unknown.", "Choose 'once', 'together', 'rerun' or 'off'.")
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
        with unseen():
            self.found = find_layers(model)
            self.selected = select(self.found, selector, model)
            spread.check(model)
            self.device = _device(model)
            self._attention = AttentionModules(model)
        self.layers = tuple(dict.fromkeys((*self.found, *self.selected)))
        self.selector = layers
        self.flops = flops
        self._run: Run | None = None
        self._why_none = ""
        self._active = False
        self._calls = Calls(model, self)
        with warnings.catch_warnings():  # scipy adds a filter of its own, which is not to appear inside the block
            from layerprof.books import own_calls  # noqa: F401 - only to have it

    @property
    def rows(self) -> int:
        """Rows of all outermost calls together; 0 before the first."""
        return self._calls.rows

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
        self._calls = Calls(self.model, self)
        self._repeats = Repeats() if self.flops == "rerun" else None
        self._why_unwatched = unwatched.compiled(self.model) if self.flops in ("once", "together") else ""
        watched = self.flops in ("once", "together") and not self._why_unwatched
        self._shapes = registry.load(registry.SHAPES)(self.model, self.layers) if watched else None
        self._watch = self._watching(self._shapes) if self._shapes else None
        note = self._watch.note if self._watch else None
        self._latency = registry.load(registry.LATENCY)(self.model, self.layers, device=self.device, note=note)
        with ExitStack() as stack, unseen():
            for part in filter(None, (self._latency, self._shapes, self._calls)):
                stack.enter_context(part)
            self._stack = stack.pop_all()
        self._active, self._run, self._why_none = True, None, ""
        self._stamp = Stamp(self.model)
        self._taken_down, self._untimed, self._later = "", list[str](), 0
        self._drafts, self._graphs, self._attended = Drafts(), 0, self._attention.now()
        return self

    def _watching(self, hook: registry.ShapeHook) -> Watch:
        name = type(self.model).__name__
        return Watch(hook, self.layers, name, always=self.flops == "together", blind=unwatched.tracing)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        self._interrupt: KeyboardInterrupt | None = None
        try:
            with unseen():
                self._stack.close()
            self._run = self._read(error)
        except Exception as trouble:  # the block's outcome is the user's
            self._why_none = f"reading what was measured failed ({described(trouble)})"
        if self._interrupt is not None:
            raise self._interrupt

    def _read(self, error: BaseException | None) -> Run | None:
        from layerprof.books import own_calls

        spans: SpanReading = self._latency.reading()
        if not spans.windows_s:
            self._why_none = self._nothing(error)
            return None
        if self._watch:
            spans = replace(spans, disturbed=frozenset(self._watch.disturbed))
        work, reason = self._work(error)
        return own_calls.run(
            self._called(),
            spans,
            work,
            why_no_work=reason,
            failed=error is not None,
            warnings=tuple(own_remarks.remarks(self._facts(error))),
            counting=self._counting(),
        )

    def _nothing(self, error: BaseException | None) -> str:
        if error is not None:
            return f"the block ended with {type(error).__name__} before a call was finished"
        if self._calls.failed:
            return f"every call in the block failed ({self._calls.failed[0]})"
        if self._untimed:
            return f"no call in the block was measured: {self._untimed[0]}"
        return (
            "no call of the model was seen inside the `with LayerProfiler(model)` block; call the very model that you "
            "passed, by model.generate(...) or model(...), through the `forward` that it has when the block begins"
        )

    def _facts(self, error: BaseException | None) -> own_remarks.Facts:
        watch, shapes = self._watch, self._shapes
        return own_remarks.Facts(
            error=error,
            failed=tuple(self._calls.failed),
            overlapped=self._calls.overlapped,
            troubles=tuple(self._calls.troubles),
            untimed=tuple(self._untimed),
            later=self._later,
            graphs=self._graphs,
            steps=watch.facts if watch else None,
            differed=watch.differed if watch else False,
            blind=watch.why if watch else "",
            slowdown=watch.slowdown() if watch else None,
            spent_s=shapes.spent_s if shapes else 0.0,
            failure=shapes.failure if shapes else None,
        )

    def _counting(self) -> dict[str, Any] | None:
        if self._watch is None or self._shapes is None:
            return None
        facts = self._watch.facts
        told = {"steps": facts.steps, "watched": facts.watched, "known": facts.known, "missed": facts.missed}
        return told | {"slowdown": self._watch.slowdown(), "least_seconds": self._shapes.spent_s}

    def _called(self) -> OwnCalls:
        from layerprof.books.own_calls import OwnCalls

        with unseen():
            dtype, stored = _dtype(self.model), weights.read(self.model, self.layers)
        model = {"name": type(self.model).__name__, "parameters": stored.parameters}
        return OwnCalls(
            model=model | ({"attention": ran} if (ran := joined(self._attended)) else {}),
            layers=self.layers,
            selected=self.selected,
            selector=self.selector,
            device=self.device,
            dtype=dtype,
            rows=self.rows,
            accepted_per_step=self._drafts.per_step,
            weights=stored,
        )

    # --- what is told of calls ----------------------------------------------------------------------------------

    @contextmanager
    def call(self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
        """Stand around an outermost call; one that is taken down instead of made has no time and no work of its own."""
        self._taken_down = unwatched.tracing()
        if self._taken_down:
            self._untimed.append(self._taken_down)
            yield
            return
        if self._repeats is not None:
            self._repeats.note(self.model, entrance, args, kwargs)
        for tower, ran in self._attention.now().items():
            self._attended[tower] |= ran
        self._latency.refresh()
        if self._shapes is not None:
            self._shapes.refresh()
        number, prompt = self._calls.answered, prompt_of(self.model, entrance, args, kwargs)
        self._drafts.begin(self.model, entrance, kwargs, prompt)
        try:
            # The window is the innermost, so that little of ours is in it.
            with self._watched(entrance, args, kwargs, prompt), self._latency.batch(number, prompt):
                yield
        except BaseException:
            if self._repeats is not None:
                self._repeats.forget()
            raise

    def _watched(
        self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any], prompt: int | None
    ) -> AbstractContextManager[None]:
        if self._watch is None:
            return nullcontext()
        generates = entrance == "generate"
        why_not = unwatched.compiles_itself(self.model, kwargs) if generates else ""
        return self._watch.call(
            self._calls.answered,
            args,
            kwargs,
            around=generates,
            prompt=prompt,
            why_not=why_not,
            state=self._stamp.now(),
        )

    @contextmanager
    def step(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[None]:
        """Stand around a pass through the model."""
        if self._taken_down:
            yield
            return
        self._graphs += unwatched.capturing()
        with self._drafts.step(args, kwargs, self._step), ExitStack() as stack:
            if self._watch is not None:
                stack.enter_context(self._watch.step(args, kwargs, self._step))
            yield

    def _step(self) -> int:
        return self._latency.tracker.step

    def answered(self, entrance: Entrance, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> bool:
        """Note the outline of an answer, and what drafts gave to it."""
        if self._repeats is not None and self._repeats.calls and not self._taken_down:
            self._repeats.calls[-1].answer = outline(output)
        if not self._taken_down:
            self._later += unwatched.later(output)
            self._drafts.answered(kwargs, output, self._step())
        return not self._taken_down

    def _lost(self) -> WorkReading:
        """Return a reading that says how often something went wrong beside a call, of which nothing is known then.

        Or that a call gave something that works later, or that parts of the model were compiled inside the block: what
        they fused was not seen.
        """
        times = len(self._calls.troubles) + self._later + bool(unwatched.compiled(self.model))
        key = (type(self.model).__name__, Phase.PREFILL, NOT_WATCHED)
        return WorkReading(uncounted={key: Uncounted(times, None)}) if times else WorkReading()

    def _work(self, error: BaseException | None) -> tuple[WorkReading | None, str]:
        if self._watch is not None:
            return self._watch.reading() + self._lost(), ""
        if self.flops == "off":
            return None, "flops='off' was given"
        return self._repeated(self._repeats, error) if self._repeats is not None else (None, self._why_unwatched)

    def _repeated(self, repeats: Repeats, error: BaseException | None) -> tuple[WorkReading | None, str]:
        reasons = {
            "the block ended with an exception, and its calls are not repeated": error is not None,
            "calls from several threads overlapped, which a repeat cannot": self._calls.overlapped,
            "a call gave something that works after it, which a repeat would not set to work": self._later,
        }
        if why := next((reason for reason, holds in reasons.items() if holds), ""):
            return None, why
        try:
            work, why = repeats.reading(self.model, self.layers)
        except KeyboardInterrupt as stop:  # raised again once what was measured is safe
            self._interrupt = stop
            return None, "the repeat was interrupted"
        return work, f"{why}; LayerProfiler(model) counts in the calls themselves" if why else ""


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
