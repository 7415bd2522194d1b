"""Greedy answers with their times: nothing sampled, nothing penalised, nothing left to a checkpoint's own settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from layerprof.readings import Generated

if TYPE_CHECKING:
    import torch

    from layerprof.data.batching import Batch
    from layerprof.models.subject import Subject


STATIC_CACHE = ("compile", "graph")
"""Optimisations whose decoder keeps its cache where it is."""


def greedy_config(
    subject: Subject, max_new_tokens: int, min_new_tokens: int | None = None, *, own_cache: bool = True
) -> Any:
    """Return a generation config that decodes greedily whatever the checkpoint's own one says.

    Published configs sample, penalise repetition (over padding too, so answers would depend on the batch) and stop at
    several ids; all of that is set here, since what is left open is filled from them. `own_cache=False` says that
    `generate` is handed the cache to use.
    """
    return _config(
        do_sample=False,
        num_beams=1,
        num_return_sequences=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        eos_token_id=list(subject.eos_ids) or None,
        pad_token_id=subject.pad_id,
        **_started_with(subject.model),
        use_cache=True,
        cache_implementation="static" if own_cache and subject.optimization in STATIC_CACHE else None,
        # On a GPU, generate() compiles the whole forward by itself where the cache is static: hooks would vanish into
        # one CUDA graph. Layers are compiled one by one (`compile_layers`).
        disable_compile=True,
        return_dict_in_generate=False,
    )


def _started_with(model: Any) -> dict[str, int]:
    """Return the ids that a checkpoint's answers begin with: an encoder-decoder cannot write without."""
    found: dict[str, int] = {}
    for name in ("decoder_start_token_id", "bos_token_id", "forced_bos_token_id"):
        for owner in (getattr(model, "generation_config", None), model.config, model.config.get_text_config()):
            value = getattr(owner, name, None)
            if isinstance(value, int):
                found.setdefault(name, value)
    return found


def generate(
    subject: Subject,
    batch: Batch,
    *,
    max_new_tokens: int,
    fixed: bool = False,
    recorder: Recorder | None = None,
    cache: Any = None,
) -> Generated:
    """Answer a batch. With `fixed`, every row writes exactly `max_new_tokens` (end marks are held back).

    The whole processor output is passed on. State that a former call left on the model (`rope_deltas`) is forgotten
    before and after, also when the user interrupts. Times are read after the device has finished. Keys and values go
    into `cache`, an empty one, where it is given.
    """
    import torch
    from transformers import LogitsProcessorList

    recorder = recorder or Recorder()
    least = max_new_tokens if fixed else None
    config = greedy_config(subject, max_new_tokens, least, own_cache=cache is None)
    held = {} if cache is None else {"past_key_values": cache}
    forget(subject.model)
    try:
        with torch.no_grad(), _own_config(subject.model):
            recorder.start(subject.device)
            output = subject.model.generate(
                **batch.tensors, **held, generation_config=config, logits_processor=LogitsProcessorList([recorder])
            )
        times = recorder.seconds()
    finally:
        forget(subject.model)
    # By the steps that were made: what stands before the answer is the prompt, a part of it (BLIP), or the one token
    # that an encoder-decoder is started with.
    written = output[:, output.shape[1] - len(times) :]
    return _cut_at_end(subject, written.tolist(), times, recorder.bad_logits)


def forget(model: Any) -> None:
    """Drop the positions that Qwen models keep from one call to the next."""
    for owner in (model, getattr(model, "model", model)):
        if getattr(owner, "rope_deltas", None) is not None:
            owner.rope_deltas = None


def _config(**values: Any) -> Any:
    import transformers

    kind: Any = transformers.GenerationConfig  # untyped there
    return kind(**values)


@contextmanager
def _own_config(model: Any) -> Iterator[None]:
    """Put an empty generation config on the model: values left unset would be filled from the checkpoint's."""
    kept = model.generation_config
    model.generation_config = _config()
    try:
        yield
    finally:
        model.generation_config = kept


def _cut_at_end(subject: Subject, rows: list[list[int]], times: list[float], bad: bool | None) -> Generated:
    ends = set(subject.eos_ids)
    answers, counts, truncated = [], [], []
    for row in rows:
        end = next((place for place, token in enumerate(row) if token in ends), None)
        answers.append(tuple(row[:end]))
        counts.append(len(row) if end is None else end + 1)
        truncated.append(end is None)
    texts = subject.tokenizer.batch_decode([list(answer) for answer in answers], skip_special_tokens=True)
    return Generated(
        answers=tuple(text.strip() for text in texts),
        answer_tokens=tuple(answers),
        new_tokens=tuple(counts),
        truncated=tuple(truncated),
        first_token_s=times[0] if times else None,
        step_times_s=tuple(times[1:]),
        bad_logits=bad,
    )


class Recorder:
    """Marks the moment at which each token's logits are there; handed to `generate` as a logits processor.

    On a GPU a mark is a CUDA event, read after one synchronisation at the end, so nothing waits; on a CPU it is the
    clock. With `probe`, logits are also checked for NaN and infinity, at the cost of one reduction a step.
    """

    def __init__(self, *, probe: bool = False) -> None:
        self.probe = probe
        self._marks: list[Any] = []
        self._bad: Any = None
        self._last: Any = None
        self._device = "cpu"

    def start(self, device: str) -> None:
        """Begin a batch; the next marks are relative to this moment."""
        self._device = device
        self._marks, self._bad, self._last = [], None, None
        self._mark()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mark a step; `scores` (rows, vocabulary) pass through as they are."""
        self._mark()
        self._last = scores
        if self.probe:
            bad = _bad(scores)
            self._bad = bad if self._bad is None else self._bad | bad
        return scores

    def _mark(self) -> None:
        if self._device == "cpu":
            self._marks.append(time.perf_counter())
            return
        import torch

        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # untyped there
        event.record(torch.cuda.current_stream(self._device))
        self._marks.append(event)

    def ended_badly(self) -> bool:
        """Tell whether the last logits are NaN or infinite: what went wrong before is in the cache that they come of.

        To be asked when no clock runs: it looks at logits, and waits for them.
        """
        last, self._last = self._last, None
        return last is not None and bool(_bad(last))

    def seconds(self) -> list[float]:
        """Return the time to the first token and of each further one, in seconds."""
        pairs = zip(self._marks, self._marks[1:], strict=False)
        if self._device == "cpu":
            return [after - before for before, after in pairs]
        import torch

        torch.cuda.synchronize(self._device)
        return [before.elapsed_time(after) / 1000 for before, after in pairs]

    @property
    def bad_logits(self) -> bool | None:
        """Whether any logits were NaN or infinite; None without `probe`."""
        return None if self._bad is None else bool(self._bad)


def _bad(scores: torch.Tensor) -> torch.Tensor:
    """Tell on the device: the maximum is NaN if any is, and finite under the -inf that holds end marks back."""
    return ~scores.amax(-1).isfinite().all()
