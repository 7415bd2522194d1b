"""Runs of samples as they come: work by closed form and by hand, rows and books with batches that hold no image."""

from __future__ import annotations

import dataclasses
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import closed_form
import pictured_families
import pytest
from closed_form import Grid
from fake_card import FakeCard, profiled, session_on
from pictured_samples import ALL, TAKEN, TWO, of
from small_models import CONFIG, checkpoint_folder, picture, samples, subject

import layerprof
from layerprof import demo
from layerprof.data import batching
from layerprof.data.spec import Dataset
from layerprof.records import Quality, Run, Sample

NEW_TOKENS = 3
KINDS = 4
"""The first samples are one image, two, a video and none."""


def profile(place: Path, **asked: Any) -> Run:
    """Profile the bundled model on mixed samples."""
    settings: dict[str, Any] = {
        "model": "demo",
        "source": "bundled@mixed",
        "image_size": "native",
        "samples": KINDS,
        "max_new_tokens": NEW_TOKENS,
        "fixed_tokens": True,
        "dtype": "fp32",
        "device": "cpu",
        "energy": "off",
        "trace": False,
        "output": str(place),
    }
    return layerprof.profile(**settings | asked)


@pytest.fixture(scope="module", params=[1, 2, 4])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Four samples of four kinds, one, two and four a batch; trace, memory and replay of the pairs."""
    more = {"trace": True, "memory": True} if request.param == 2 else {}
    return profile(tmp_path_factory.mktemp("mixed") / "run", batch_size=request.param, **more)


def answered(run: Run) -> list[Sample]:
    """Return the samples of a run."""
    lines = (Path(run.settings["output"]) / "samples.jsonl").read_text().splitlines()
    return [Sample.model_validate(json.loads(line)) for line in lines]


def matrix_work(run: Run) -> float:
    """Return a run's FLOPs less those of rotary tables, which some versions of transformers multiply as matrices."""
    assert run.totals.flops is not None
    return run.totals.flops - sum(work for name, work in run.ledger.flops.rest.items() if name.endswith("rotary"))


def grids(rows: list[Sample]) -> list[Grid]:
    """Return the patches of all images and videos: a frame pair is one step of time."""
    return [((fed.frames or 2) // 2, fed.height // 14, fed.width // 14) for row in rows for fed in row.fed]


def due(run: Run) -> list[closed_form.Answer]:
    """Work out each batch by formula."""
    config = json.loads((demo.MODEL_FOLDER / "config.json").read_text())
    batches: dict[int, list[Sample]] = {}
    for sample in answered(run):
        batches.setdefault(sample.batch, []).append(sample)
    return [
        closed_form.qwen2_5_vl(
            config, grids(rows), len(rows), rows[0].prompt_tokens + rows[0].pad_tokens, new_tokens=NEW_TOKENS
        )
        for rows in batches.values()
    ]


def test_the_work_is_that_of_the_formulas(run: Run) -> None:
    """Each image attends within itself, in windows or whole; prompts are padded to the longest of their batch."""
    formulas = due(run)
    assert matrix_work(run) == sum(one.total for one in formulas)
    flops = {(row.name.split(".", 2)[-1], row.phase.value): row.flops for row in run.layers}
    for block in range(4):
        assert flops[f"blocks.{block}", "vision"] == sum(one.vision_blocks[block] for one in formulas)
    for layer in range(6):
        assert flops[f"layers.{layer}", "prefill"] == sum(one.prefill_layers[layer] for one in formulas)
        assert flops[f"layers.{layer}", "decode"] == sum(sum(one.decode_layers) for one in formulas)
    assert run.ledger.flops.residual == 0
    assert not run.totals.flops_at_least


def test_tokens_and_what_was_fed(run: Run) -> None:
    """Two of the four hold images, one a video, one nothing; an image token is 28 x 28 px, of a pair of frames each."""
    rows = answered(run)
    assert [(len(row.fed), any(fed.frames for fed in row.fed)) for row in rows] == [
        (1, False),
        (2, False),
        (1, True),
        (0, False),
    ]
    for row in rows:
        cells = [(fed.width // 28) * (fed.height // 28) * (fed.frames or 2) // 2 for fed in row.fed]
        assert [fed.tokens for fed in row.fed] == cells
        assert row.image_tokens == sum(cells)
    assert run.totals.image_tokens == sum(row.image_tokens for row in rows)
    fed = run.totals.fed
    assert fed is not None
    assert (fed.images, fed.videos, fed.without) == (3, 1, 1)


def test_calls_are_those_of_batches_that_hold_pictures(run: Run) -> None:
    """The tower runs once for a batch's images and once for its videos, and not at all for a text."""
    batches: dict[int, list[Sample]] = {}
    for sample in answered(run):
        batches.setdefault(sample.batch, []).append(sample)
    kinds = sum(len({bool(fed.frames) for row in rows for fed in row.fed}) for rows in batches.values())
    assert {row.calls for row in run.layers if row.tower == "vision" and row.kind == "block"} <= {kinds}
    prefill = [row for row in run.layers if row.phase == "prefill" and row.name.endswith("layers.0")]
    assert [row.calls for row in prefill] == [len(batches)]


def test_the_books_close(run: Run) -> None:
    """Spans add up to the total, and the request to its parts."""
    span, request = run.ledger.span_s, run.ledger.request_s
    assert span is not None
    assert request is not None
    assert abs(span.residual or 0) < 1e-6
    parts = run.totals.request_s
    assert parts is not None
    assert all(part.median > 0 for part in (parts.read, parts.process, parts.generate))


def test_a_run_without_any_picture_has_no_work_of_vision(tmp_path: Path) -> None:
    """All texts: rows of the vision tower have no calls, the books close, and reports are made."""
    lines = [{"question": f"q{row}?", "answers": ["yes"], "images": []} for row in range(3)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    run = profile(tmp_path / "run", source=str(tmp_path), samples=3, batch_size=2, trace=True, memory=True)
    assert all(row.calls == 0 and not row.flops for row in run.layers if row.tower == "vision")
    config = json.loads((demo.MODEL_FOLDER / "config.json").read_text())
    rows = answered(run)
    lengths = {sample.batch: sample.prompt_tokens + sample.pad_tokens for sample in rows}
    counts = [2, 1]
    formulas = [
        closed_form.qwen2_5_vl(config, [], count, length, NEW_TOKENS)
        for count, length in zip(counts, lengths.values(), strict=True)
    ]
    assert matrix_work(run) == sum(one.total for one in formulas)
    assert run.ledger.flops.residual == 0
    assert (run.totals.image_tokens, run.totals.fed.without if run.totals.fed else None) == (0, 3)
    assert layerprof.load_run(run.settings["output"]).totals.flops == run.totals.flops


def test_layers_of_a_mixed_run_are_replayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every layer that was called has its joules, from inputs of batches that called it; the account closes."""
    asked: dict[str, Any] = {"source": "bundled@mixed", "image_size": "native", "samples": KINDS}
    session = session_on(FakeCard(), monkeypatch, tmp_path / "run", energy="replay", energy_budget=400.0, **asked)
    run = profiled(session)
    assert {row.energy_quality for row in run.layers} == {Quality.REPLAYED}
    assert all(row.energy_j is not None and row.energy_j > 0 for row in run.layers)
    assert any(row.tower == "vision" for row in run.layers)


# --- by hand --------------------------------------------------------------------------------------------------------


def test_a_mixed_batch_by_hand(tmp_path: Path) -> None:
    """Images of 8 x 12 and 10 x 4 patches and a video of 2 x 8 x 6, windows of 8 x 8 patches, width 32, MLP 48.

    96 + 40 + 96 patches. The windowed block attends within 64 + 32, 32 + 8, and 2 x 48; the other within the images,
    each frame pair for itself. The patch embedding is 1,176 x 32, the merger 128 x 128 and 128 x 48 a token.
    """
    tiny = subject(checkpoint_folder(tmp_path / "model"))
    film = next(one for one in ALL if one.frames and not one.pictures)
    none = next(one for one in ALL if not one.frames and not one.pictures)
    (batch,) = batching.batches(tiny, of(TWO, film, none), batch_size=3, image_size="native")
    assert sorted(batch.tensors["image_grid_thw"].tolist()) == [[1, 8, 12], [1, 10, 4]]
    assert batch.tensors["video_grid_thw"].tolist() == [[2, 8, 6]]
    with layerprof.LayerProfiler(tiny.model) as profiler:
        tiny.model.generate(**batch.tensors, max_new_tokens=1, min_new_tokens=1, do_sample=False)
    flops = {row.name.rpartition("visual.")[2]: row.flops for row in profiler.run.layers if row.phase == "vision"}
    patches = 96 + 40 + 96
    linear = 2 * patches * (4 * 32 * 32 + 3 * 32 * 48)
    assert flops["patch_embed"] == 2 * patches * 1176 * 32
    assert flops["blocks.0"] == linear + 4 * 32 * (64**2 + 32**2 + 32**2 + 8**2 + 2 * 48**2)
    assert flops["blocks.1"] == linear + 4 * 32 * (96**2 + 40**2 + 2 * 48**2)
    assert flops["merger"] == 2 * (patches // 4) * (128 * 128 + 128 * 48)
    text, length = CONFIG["text_config"], batch.length
    prefill = {row.name.rpartition("layers.")[2]: row.flops for row in profiler.run.layers if row.phase == "prefill"}
    # q and o of 48 x 48, k and v of 48 x 24, the gated MLP of 48 x 64; scores and values of 4 heads of 12.
    each = 2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 64
    assert prefill["0"] == 2 * 3 * length * each + 2 * 2 * 3 * 4 * length * length * 12
    assert text["num_attention_heads"] == 4
    assert profiler.run.ledger.flops.residual == 0


@pytest.mark.parametrize("name", TAKEN)
def test_books_of_other_families_close_on_mixed_batches(name: str) -> None:
    """Native sizes, two images, none, and a video where it is taken: each operator is counted once, in its layer."""
    asked, taken = pictured_families.build(name), TAKEN[name]
    (batch,) = batching.batches(asked, of(*taken), batch_size=len(taken), image_size="native")
    with layerprof.LayerProfiler(asked.model) as profiler:
        asked.model.generate(**batch.tensors, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    ledger = profiler.run.ledger.flops
    assert ledger.residual == 0
    assert not profiler.run.totals.flops_at_least
    assert any(row.tower == "vision" and row.calls for row in profiler.run.layers)


@pytest.mark.parametrize("name", TAKEN)
def test_other_families_run_texts_alone(name: str) -> None:
    """The vision tower has no calls, and the books close."""
    asked = pictured_families.build(name)
    (batch,) = batching.batches(asked, _texts(2), batch_size=2, image_size="native")
    with layerprof.LayerProfiler(asked.model) as profiler:
        asked.model.generate(**batch.tensors, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert profiler.run.ledger.flops.residual == 0
    assert not any(row.calls for row in profiler.run.layers if row.tower == "vision")


def _texts(count: int) -> Dataset:
    data = samples([f"q{number}?" for number in range(count)])
    return dataclasses.replace(data, examples=tuple(dataclasses.replace(one, pictures=()) for one in data.examples))


def test_several_images_are_read_and_processed_in_their_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a clock that opening moves by 5 s a picture: five pictures of three samples are 25 s of reading."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow(width: int, height: int) -> Any:
        clock[0] += 5
        return picture(width, height)

    slow_one = partial(slow, 56, 56)
    data = of(
        dataclasses.replace(TWO, pictures=(slow_one, slow_one)),
        dataclasses.replace(ALL[1], pictures=()),
        dataclasses.replace(ALL[2], frames=(slow_one,) * 3),
    )
    (batch,) = batching.batches(subject(checkpoint_folder(tmp_path / "model")), data, batch_size=3, image_size="native")
    assert batch.made is not None
    assert batch.made.read_s == 25
