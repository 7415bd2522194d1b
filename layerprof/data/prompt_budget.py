"""Cuts prompts to a token budget: the hint first, then the question, from their ends; nothing else, ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from layerprof.data import datasets
from layerprof.errors import RequestError

if TYPE_CHECKING:
    from layerprof.data.spec import Example, Prompt


class NotEnoughTokensError(RequestError):
    """A token budget that would have to cut answer options or the instruction."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A user's text within the budget, and how many of its tokens were cut."""

    text: str
    cut: int


def fit(tokenizer: Any, dataset: str, examples: Sequence[Example], budget: int | None) -> tuple[Fitted, ...]:
    """Return each sample's text within `budget` tokens; None leaves all as they are.

    Raises NotEnoughTokensError naming the first sample for which the budget is too small, its need, and the smallest
    budget that works for all of them. A sample needs its options, its instruction and the first word of its question.
    """

    def count(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    prompts = [datasets.prompt(dataset, example) for example in examples]
    if budget is None:
        return tuple(Fitted(prompt.text(), 0) for prompt in prompts)
    full = [count(prompt.text()) for prompt in prompts]
    tight = [index for index, tokens in enumerate(full) if tokens > budget]
    needs = {index: count(_least(prompts[index]).text()) for index in tight}
    short = [index for index in tight if needs[index] > budget]
    if short:
        raise _not_enough(dataset, examples[short[0]], needs[short[0]], max(needs.values()), budget)
    return tuple(
        _cut(prompt, tokens, budget, count) if index in needs else Fitted(prompt.text(), 0)
        for index, (prompt, tokens) in enumerate(zip(prompts, full, strict=True))
    )


def _least(prompt: Prompt) -> Prompt:
    return dataclasses.replace(prompt, hint="", question=" ".join(prompt.question.split()[:1]))


def _cut(prompt: Prompt, full: int, budget: int, count: Callable[[str], int]) -> Fitted:
    """Cut the hint as little as needed; where that is not enough, drop it and cut the question."""
    bare = dataclasses.replace(prompt, hint="")
    if prompt.hint and count(bare.text()) <= budget:
        kept = _longest(prompt.hint, lambda hint: dataclasses.replace(prompt, hint=hint), budget, count)
    else:
        kept = _longest(bare.question, lambda question: dataclasses.replace(bare, question=question), budget, count)
    text = kept.text()
    return Fitted(text, full - count(text))


def _longest(text: str, build: Callable[[str], Prompt], budget: int, count: Callable[[str], int]) -> Prompt:
    """Return the prompt with the longest beginning of `text` that stays within the budget.

    Tokens of a text are nearly those of its beginnings, so bisection comes close, and the loop takes what it is off by.
    """
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if count(build(text[:middle].rstrip()).text()) <= budget:
            low = middle
        else:
            high = middle - 1
    while low > 0 and count(build(text[:low].rstrip()).text()) > budget:
        low -= 1
    return build(text[:low].rstrip())


def _not_enough(dataset: str, example: Example, need: int, smallest: int, budget: int) -> NotEnoughTokensError:
    return NotEnoughTokensError(
        f"Not enough tokens: sample {example.id} of {dataset} needs {need} for what is never cut (answer options, "
        f"instruction, a first word), and --max-input-len is {budget}.",
        f"Give --max-input-len {smallest} or more; that is the smallest that works for these samples.",
    )
