"""Samples -> batches of tensors on the model's device, one at a time, each made when its turn comes."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from layerprof.data import features, reach, sizes
from layerprof.data.chat import chat, image_mark
from layerprof.data.fed import fed, tokens_by_row
from layerprof.data.order import Order, Taken
from layerprof.data.prompt_budget import fit
from layerprof.errors import RequestError
from layerprof.models.source import check_cells
from layerprof.readings import Made, Questions
from layerprof.settings import ImageSize

if TYPE_CHECKING:
    from collections.abc import Hashable

    from layerprof.data.spec import Dataset, Example, Shown
    from layerprof.models.subject import Subject


@dataclass(frozen=True)
class Batch(Questions):
    """Rows that are answered together. `tensors` is the processor's whole output, on the model's device.

    `made` says how long it took to make.
    """

    tensors: dict[str, Any] = field(default_factory=dict, repr=False)
    made: Made | None = None

    def questions(self) -> Questions:
        """Return what is kept of the batch when it is over."""
        return Questions(**{one.name: getattr(self, one.name) for one in fields(Questions)})


class Batches:
    """The samples of a run as batches; each walk makes them anew, so that no more than one is held.

    All texts are fitted and checked when this is made; pictures are opened when their batch's turn comes.
    `max_input_len` is a budget on the tokens of a user's text (hint, question, options, instruction; not the image, not
    the chat template): the hint, then the question are cut from their ends; None cuts nothing. A model without a
    processor for images is asked without them. `min_pixels` and `max_pixels` bound pictures of `native` size.

    Raises NotEnoughTokensError when the budget would cut options or instruction, RequestError for an image size that
    the model does not take, and for samples that it cannot be asked about (`reach`).
    """

    def __init__(
        self,
        subject: Subject,
        dataset: Dataset,
        *,
        batch_size: int = 1,
        image_size: ImageSize = 224,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_input_len: int | None = 200,
        skip_bad: bool = False,
    ) -> None:
        if batch_size < 1:
            raise RequestError(f"--batch-size is {batch_size}.", "Give --batch-size 1 or more.")
        check_cells(image_size, subject.cell_px)
        self.subject, self.dataset, self.batch_size = subject, dataset, batch_size
        self._sizing = sizes.sizing_of(subject, image_size, min_pixels, max_pixels)
        self._order = Order(
            dataset,
            pictured=subject.takes_images,
            skip_bad=skip_bad,
            unfit=lambda shown: sizes.unfit(subject, shown, self._sizing),
        )
        self._keys: dict[int, str] = {}
        self.change: Callable[[Batch], Batch] | None = None
        self._fitted = fit(subject.tokenizer, dataset.name, dataset.examples, max_input_len)
        self._mark = image_mark(subject, lambda text: features.image_tokens_in(subject, text))
        reach.check(subject, dataset.examples, self._mark, self._sizing, batch_size > 1)

    @property
    def samples(self) -> int:
        """How many samples there are, less those that were found to be bad."""
        return len(self._order)

    @property
    def bad(self) -> dict[str, str]:
        """Why the samples that were left out so far cannot be read, by id."""
        return self._order.bad

    def __len__(self) -> int:
        return (self.samples + self.batch_size - 1) // self.batch_size

    def walk(self) -> Iterator[Batch]:
        """Make the batches in their order; the last one may be shorter.

        Raises RequestError naming a sample whose picture cannot be read, unless bad ones are skipped; then the
        following samples take their place.
        """
        return self.some(range(len(self)))

    def some(self, numbers: Iterable[int]) -> Iterator[Batch]:
        """Make these batches of the walk, by their number, in the order given; others are not made for it."""
        for index in numbers:
            batch = self._make(index, index * self.batch_size, self.batch_size)
            if batch is None:  # samples were left out, and there is no such batch any more
                return
            yield self.change(batch) if self.change else batch
            del batch  # nor is it held while the next one is made

    def then(self, change: Callable[[Batch], Batch]) -> Batches:
        """Return the same batches, each changed after it is made."""
        other = copy.copy(self)
        other.change = change
        return other

    def of(self, places: Sequence[int]) -> Iterator[Batch]:
        """Make a batch of each of these samples alone, by their place in the order of the walk."""
        for index, place in enumerate(places):
            if batch := self._make(index, place, 1):
                yield batch

    def _make(self, index: int, start: int, rows: int) -> Batch | None:
        """Make a batch of the samples that stand there in the order of the walk; None where there is none."""
        subject = self.subject
        begin = time.perf_counter()
        taken = self._order.take(start, start + rows)
        if not taken:
            return None
        read = time.perf_counter()
        examples = [self.dataset.examples[place] for place, _ in taken]
        fitted = [self._fitted[place] for place, _ in taken]
        shown = [one for _, one in taken]
        texts = [
            chat(subject, row.text, len(one.images), len(one.frames) > 0, self._mark)
            for row, one in zip(fitted, shown, strict=True)
        ]
        made = features.features(subject, texts, shown, self._sizing)
        processed = time.perf_counter()
        tensors, copy_s = _copied(made, subject)
        copied = time.perf_counter()
        mask = made["attention_mask"]
        prompt_tokens = tuple(mask.sum(1).tolist())
        return Batch(
            index=index,
            ids=tuple(example.id for example in examples),
            references=tuple(example.references for example in examples),
            choices=tuple(example.choices for example in examples),
            prompts=tuple(row.text for row in fitted),
            prompt_tokens=prompt_tokens,
            pad_tokens=tuple((mask == 0).sum(1).tolist()),
            image_tokens=tuple(tokens_by_row(subject, made) or [0] * len(examples)),
            question_cut=tuple(row.cut for row in fitted),
            fed=fed(subject, made, shown),
            keys=tuple(self._key(one) for one in taken),
            shape=_shape(made, prompt_tokens),
            tensors=tensors,
            made=Made(read - begin, processed - read, copy_s, copied - begin),
        )

    def _key(self, taken: Taken) -> str:
        place, shown = taken
        if place not in self._keys:
            self._keys[place] = key(self.dataset.examples[place], shown)
        return self._keys[place]


def batches(
    subject: Subject,
    dataset: Dataset,
    *,
    batch_size: int = 1,
    image_size: ImageSize = 224,
    max_input_len: int | None = 200,
) -> Iterator[Batch]:
    """Make the samples into batches in their order, one at a time. Raises as `Batches` and its `walk` do."""
    made = Batches(subject, dataset, batch_size=batch_size, image_size=image_size, max_input_len=max_input_len)
    return made.walk()


def key(example: Example, shown: Shown) -> str:
    """Return what tells a sample: a hash of its question, options, hint and references, and of its pictures' pixels."""
    digest = hashlib.blake2b(digest_size=12)
    for part in (example.question, *example.choices, example.hint, *example.references):
        digest.update(part.encode("utf-8", "replace") + b"\0")
    for picture in shown.images:
        digest.update(f"{picture.size}".encode() + picture.tobytes())
    for frame in shown.frames:
        digest.update(f"frame {frame.size}".encode() + frame.tobytes())
    return digest.hexdigest()


def _copied(made: Any, subject: Subject) -> tuple[dict[str, Any], float]:
    """Return the tensors on the model's device, and the seconds that took: on a GPU those of its own clock."""
    if subject.device == "cpu":
        begin = time.perf_counter()
        return dict(made.to(subject.device, subject.dtype)), time.perf_counter() - begin
    import torch

    stream = torch.cuda.current_stream(subject.device)
    ends: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]  # untyped there
    ends[0].record(stream)
    tensors = dict(made.to(subject.device, subject.dtype))
    ends[1].record(stream)
    ends[1].synchronize()
    return tensors, ends[0].elapsed_time(ends[1]) / 1000


def _shape(made: Any, prompt_tokens: tuple[int, ...]) -> Hashable:
    """Return what the work of answering depends on, but for the answer: all but the values of pixels and tokens.

    That is shapes, and whole numbers: padding, grids and sizes of images, where in a prompt an image stands (in some
    models its tokens see each other). Some processors give a list of tensors for a name, one for each image.
    """
    tensors = [(name, value) for name in sorted(made) for value in _tensors_in(made[name])]
    shapes = tuple((name, tuple(value.shape)) for name, value in tensors)
    whole = hashlib.blake2b(digest_size=12)
    for name, value in tensors:
        if not value.is_floating_point() and not name.endswith("input_ids") and not name.startswith("pixel_values"):
            whole.update(name.encode() + value.contiguous().numpy().tobytes())
    return shapes, prompt_tokens, whole.digest()


def _tensors_in(value: Any) -> Iterator[Any]:
    if hasattr(value, "shape"):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors_in(part)
