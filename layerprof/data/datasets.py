"""name -> samples: image, question, choices, references; bundled, from the hub, or from a folder.

What is known of each dataset stands in one table, `SPECS`: where it lies, which columns it has, how a row becomes an
`Example`, how it is asked (the prompts of lmms-eval, word for word, by `prompt_id`) and how it is scored. Nothing is
swapped for something else: what cannot be loaded is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from layerprof.data.bundled import open_bundled
from layerprof.data.folder import open_folder
from layerprof.data.hub import open_hub
from layerprof.data.rows import Opened, as_list, as_text, match_columns
from layerprof.data.spec import Dataset, Example, Prompt, Spec
from layerprof.errors import RequestError, did_you_mean

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
REPAIR = (
    "Repair or remove these rows (row 0 is the first), or give --skip-bad to leave them out; images may be files next "
    "to the table or bytes inside it."
)
IMAGE = ("image", "images", "file_name", "image_path", "path", "img")
VIDEO = ("video", "frames")
PICTURED = ("image", "video")
"""Fields that hold pictures."""


def _textvqa(row: Mapping[str, Any], name: str) -> Example | str:
    answers = tuple(as_text(answer) for answer in as_list(row["answers"]))
    if not any(answer.strip() for answer in answers):
        return "empty references"
    return Example(name, (), as_text(row["question"]), references=answers)


def _scienceqa(row: Mapping[str, Any], name: str) -> Example | str:
    choices = tuple(as_text(choice) for choice in as_list(row["choices"]))
    right = option_index(row["answer"], choices)
    if right is None:
        return "no answer among the choices"
    hint = as_text(row.get("hint"))
    return Example(name, (), as_text(row["question"]), choices, hint, (LETTERS[right],))


def _coco(row: Mapping[str, Any], name: str) -> Example | str:
    captions = tuple(as_text(caption) for caption in as_list(row["answer"]))
    if not any(caption.strip() for caption in captions):
        return "empty references"
    return Example(name, (), as_text(row.get("question")), references=captions)


def option_index(answer: Any, choices: Sequence[str]) -> int | None:
    """Return the index that a reference names: an index, a letter or a choice's text; None when it names no choice."""
    text = as_text(answer).strip()
    if text in choices and not text.isdecimal():
        return choices.index(text)
    if text.endswith(".0"):  # an integer column with gaps comes out of CSV as floats
        text = text[:-2]
    if text.isdecimal():
        index = int(text)
    elif len(text) == 1 and text.upper() in LETTERS:
        index = LETTERS.index(text.upper())
    else:
        return None
    return index if index < min(len(choices), len(LETTERS)) else None


def _ask_textvqa(example: Example) -> Prompt:
    return Prompt("", example.question.capitalize(), "\nAnswer the question using a single word or phrase.")


def _ask_scienceqa(example: Example) -> Prompt:
    options = "\n".join(f"{LETTERS[index]}. {choice}" for index, choice in enumerate(example.choices))
    instruction = "Answer with the option's letter from the given choices directly."
    return Prompt(example.hint, example.question, f"\n{options}\n{instruction}")


def _ask_coco(_example: Example) -> Prompt:
    return Prompt("", "", "Provide a one-sentence caption for the provided image.")


_KNOWN = (
    Spec(
        name="textvqa",
        hub_id="lmms-lab/textvqa",
        config=None,
        split="validation",  # the test split's answers are empty strings
        columns={"image": IMAGE, "question": ("question",), "answers": ("answers", "answer")},
        optional={"video": VIDEO, "id": ("question_id", "image_id", "id")},
        to_example=_textvqa,
        prompt=_ask_textvqa,
        prompt_id="lmms-eval/textvqa_val",
        metric="vqa_accuracy",
        max_new_tokens=16,
    ),
    Spec(
        name="scienceqa",
        hub_id="lmms-lab/ScienceQA",
        config="ScienceQA-IMG",
        split="test",
        columns={"image": IMAGE, "question": ("question",), "choices": ("choices", "options"), "answer": ("answer",)},
        optional={"video": VIDEO, "hint": ("hint",), "id": ("question_id", "id", "image_id")},
        to_example=_scienceqa,
        prompt=_ask_scienceqa,
        prompt_id="lmms-eval/scienceqa_img",
        metric="exact_match",
        max_new_tokens=16,
        pictureless=True,
    ),
    Spec(
        name="coco",
        hub_id="lmms-lab/COCO-Caption2017",
        config=None,
        split="val",  # not `validation`; the test split has no captions
        columns={"image": IMAGE, "answer": ("answer", "answers", "captions", "caption")},
        optional={"video": VIDEO, "question": ("question",), "id": ("question_id", "id", "image_id", "file_name")},
        to_example=_coco,
        prompt=_ask_coco,
        prompt_id="lmms-eval/coco2017_cap_val",
        metric=None,
        max_new_tokens=64,
    ),
)
SPECS: dict[str, Spec] = {known.name: known for known in _KNOWN}
"""One entry for each of `settings.DATASETS`."""


def spec(name: str) -> Spec:
    """Return the table's entry. Raises RequestError for an unknown name, with the nearest and the list."""
    if name in SPECS:
        return SPECS[name]
    guess = did_you_mean(name.lower(), SPECS, cutoff=0.5)
    raise RequestError(f"Unknown dataset '{name}'.", f"{guess}Choose one of: {', '.join(SPECS)}.")


def prompt(name: str, example: Example) -> Prompt:
    """Return how the dataset asks about the example, in parts."""
    return spec(name).prompt(example)


def load(
    name: str,
    *,
    source: str | Path = "bundled",
    count: int | Literal["all"] = 32,
    seed: int = 0,
    skip_bad: bool = False,
    pictured: bool = True,
) -> Dataset:
    """Return `count` samples of a dataset: the first that can be scored, or with a seed other than 0 a drawn choice.

    `source` is `bundled` (drawn, no network), `bundled@mixed` (the same with pictures as they come), `hub` or
    `hub@REVISION` (a commit, tag or branch of the hub dataset; streamed, so only the rows in use are downloaded), or a
    folder (docs/datasets.md). Texts are read now, images when they are asked for. Rows without a non-empty reference or
    without an answer among the choices are passed over and counted in `dropped`, and so are those whose image is
    missing, unless the dataset asks without one, too; an empty list of images is none missing. Where there are fewer
    than asked for, all are taken, and `remark` says so. For a model that reads no images samples need not be
    `pictured`: texts alone are taken, of a table without a column of images, too.

    Raises RequestError for an unknown dataset or source, missing columns, no network, where there is no sample at all,
    and for image files that are not there (all of them named, up to ten); with `skip_bad` those are left out.
    """
    chosen = spec(name)
    if count != "all" and count < 1:
        raise RequestError(f"{count} samples were asked for.", "Give --samples 1 or more.")
    opened = _open(chosen, source, count=count, seed=seed)
    found = _collect(chosen, opened, match_columns(chosen, opened, pictured=pictured), count, skip_bad, pictured)
    if found.bad and not skip_bad:
        raise unreadable(opened.label, list(found.bad.values()))
    if not found.examples:
        raise RequestError(
            f"{_fewer(chosen, opened, count, found)}.", "Give a source whose rows have images and references."
        )
    fewer = count != "all" and len(found.examples) < count
    return Dataset(
        name=name,
        source=opened.label,
        revision=opened.revision,
        prompt_id=chosen.prompt_id,
        metric=chosen.metric,
        max_new_tokens=chosen.max_new_tokens,
        examples=tuple(found.examples),
        dropped=dict(found.dropped),
        asked=count,
        remark=f"{_fewer(chosen, opened, count, found)}: all of them are taken." if fewer else None,
        bad=found.bad,
    )


def _open(chosen: Spec, source: str | Path, *, count: int | Literal["all"], seed: int) -> Opened:
    """Return the rows of a source, unread."""
    text = str(source)
    if text == "bundled" or text.startswith("bundled@"):
        return open_bundled(chosen, text.partition("@")[2], count, seed)
    if text == "hub" or text.startswith("hub@"):
        return open_hub(chosen, text.partition("@")[2] or None, count, seed)
    return open_folder(chosen, Path(text).expanduser(), seed)


@dataclass
class _Found:
    """The samples of a source, the rows passed over by reason, and those with images known to be bad, by id."""

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)


def _collect(
    chosen: Spec,
    opened: Opened,
    columns: Mapping[str, str],
    count: int | Literal["all"],
    skip_bad: bool,
    pictured: bool,
) -> _Found:
    """Convert rows until there are `count` samples, bad ones among them unless they are skipped."""
    found = _Found()
    seen: Counter[str] = Counter()
    pictures = {name: columns[name] for name in PICTURED if name in columns and pictured}
    texts = list(dict.fromkeys(column for name, column in columns.items() if name not in PICTURED))
    for row in opened.rows(texts, pictures):
        fields = {name: row.texts.get(column) for name, column in columns.items()}
        name = as_text(fields.get("id")) or str(row.number)
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name}#{seen[name]}"  # one image may have several questions
        missing = pictured and row.images is None and row.trouble is None and not chosen.pictureless
        made = "no image" if missing else chosen.to_example(fields, name)
        if not isinstance(made, Example):
            found.dropped[made] += 1
        elif row.trouble is not None:
            found.bad[name] = f"row {row.number} (id {name}): {row.trouble}"
        else:
            found.examples.append(replace(made, row=row.number, pictures=row.images or (), frames=row.frames))
        if len(found.examples) + (0 if skip_bad else len(found.bad)) == count:
            break
    return found


def unreadable(source: str, rows: Sequence[str]) -> RequestError:
    """Return the error that names the rows whose images cannot be read, the first ten of them."""
    shown = "; ".join(rows[:10]) + (f"; and {len(rows) - 10} more" if len(rows) > 10 else "")
    return RequestError(f"{len(rows)} image{'s' if len(rows) > 1 else ''} of {source} cannot be read: {shown}.", REPAIR)


def _fewer(chosen: Spec, opened: Opened, count: int | Literal["all"], found: _Found) -> str:
    """Say how many there are, and what was passed over."""
    left = {**found.dropped, **({"an image that cannot be read": len(found.bad)} if found.bad else {})}
    why = "".join(f", {number} dropped for {reason}" for reason, number in left.items())
    asked = f"1 sample of {chosen.name} was" if count == 1 else f"{count} samples of {chosen.name} were"
    asked = f"All samples of {chosen.name} were" if count == "all" else asked
    return f"{asked} asked for, but {opened.label} has {len(found.examples)}{why}"
