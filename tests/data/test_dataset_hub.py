"""Samples of the hub: streamed at a commit that is recorded, and what is told when it cannot be reached."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi
from image_folders import png

from layerprof.data import datasets
from layerprof.errors import RequestError


def test_no_network_is_told_with_the_ways_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is swapped for something else: the error names the bundled samples and a folder."""

    def no_route(*_args: object, **_asked: object) -> None:
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(HfApi, "dataset_info", no_route)
    with pytest.raises(RequestError) as caught:
        datasets.load("textvqa", source="hub", count=1)
    assert "lmms-lab/textvqa" in caught.value.problem
    assert "--source bundled" in caught.value.remedy
    assert "--source FOLDER" in caught.value.remedy


def fake_hub(monkeypatch: pytest.MonkeyPatch, rows: int, fail_at: int | None = None) -> dict[str, Any]:
    """Replace the hub by a stream of `rows` rows, with an image feature; returns what was asked of it and drawn."""
    import datasets as hub

    asked: dict[str, Any] = {"drawn": 0}

    def draw() -> Any:
        for number in range(rows):
            if number == fail_at:
                raise ConnectionError("reset by peer")
            asked["drawn"] += 1
            yield {"image": {"bytes": png(), "path": None}, "question": f"q{number}", "answers": ["yes"]}

    features = hub.Features(
        {"image": hub.Image(), "question": hub.Value("string"), "answers": hub.List(hub.Value("string"))}
    )

    def load_dataset(*args: Any, **kwargs: Any) -> Any:
        asked.update(args=args, **kwargs)
        return hub.IterableDataset.from_generator(draw, features=features)

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    monkeypatch.setattr(HfApi, "dataset_info", lambda *_args, revision, **_: SimpleNamespace(sha=revision or "f" * 40))
    return asked


def test_hub_rows_are_streamed_at_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the rows in use are drawn, at the commit that is recorded."""
    asked = fake_hub(monkeypatch, 1000)
    loaded = datasets.load("textvqa", source="hub", count=3)
    assert (loaded.source, loaded.revision) == ("hub:lmms-lab/textvqa", "f" * 40)
    assert (asked["split"], asked["streaming"], asked["revision"]) == ("validation", True, "f" * 40)
    assert [example.question for example in loaded.examples] == ["q0", "q1", "q2"]
    assert asked["drawn"] < 10


def test_a_revision_can_be_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """hub@REVISION asks for that commit."""
    asked = fake_hub(monkeypatch, 5)
    assert datasets.load("textvqa", source="hub@abc123", count=1).revision == "abc123"
    assert asked["revision"] == "abc123"


def test_a_connection_that_breaks_half_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the stream ends like no network, not in a traceback."""
    fake_hub(monkeypatch, 10, fail_at=2)
    with pytest.raises(RequestError, match="reset by peer"):
        datasets.load("textvqa", source="hub", count=5)
