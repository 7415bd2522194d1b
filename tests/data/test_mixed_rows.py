"""Bundled rows as pictures come: the same each time, of all kinds and shapes, about what their answers say."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import pytest

from layerprof.data import datasets
from layerprof.data.pictures import opened
from layerprof.demo import drawing, mixed, tasks
from layerprof.errors import RequestError
from layerprof.settings import DATASETS, build


def pixels(name: str, count: int) -> str:
    """Hash all pictures of the first rows."""
    digest = hashlib.sha256()
    for example in datasets.load(name, source="bundled@mixed", count=count).examples:
        for one in (*example.pictures, *example.frames):
            picture = opened(one)
            digest.update(f"{picture.size}".encode() + picture.tobytes())
    return digest.hexdigest()[:16]


PINNED = {"textvqa": "75ecfb66fbcb8582", "scienceqa": "689939d4d7464f92", "coco": "ddcbdfcc5596500f"}


def test_pixels_are_pinned() -> None:
    """The same on every machine, whatever the versions of Pillow and numpy."""
    assert {name: pixels(name, 4) for name in DATASETS} == PINNED


@pytest.mark.parametrize("name", DATASETS)
def test_kinds_come_in_turn(name: str) -> None:
    """Of eight, four hold one image (coco: five), two hold two, one a video and one nothing."""
    rows = [mixed.sample(name, index) for index in range(16)]
    kinds = Counter((len(row.images), row.video is not None) for row in rows)
    none = 0 if name == "coco" else 2
    assert kinds == {(1, False): 10 - none, (2, False): 4, (0, True): 2, **({(0, False): none} if none else {})}
    assert [row == mixed.sample(name, index) for index, row in enumerate(rows)] == [True] * 16


def test_sizes_are_within_their_bounds_and_shapes_differ() -> None:
    """168 to 560 px a side of an image, up to 280 of a video, and both wide and high ones."""
    rows = [mixed.sample(name, index) for name in DATASETS for index in range(40)]
    images = [canvas for row in rows for canvas in row.images]
    videos = [row.video for row in rows if row.video]
    sides = [side for canvas in images for side in (canvas.width, canvas.height)]
    assert 168 <= min(sides) < 200
    assert 520 < max(sides) <= 560
    assert all(168 <= side <= 280 for canvas in videos for side in (canvas.width, canvas.height))
    assert {len(canvas.places) for canvas in videos} == {3, 4, 5, 6}
    wide = sum(canvas.width > canvas.height for canvas in images)
    assert 0.3 < wide / len(images) < 0.7


@pytest.mark.parametrize(("width", "height"), [(168, 560), (560, 168), (300, 300)])
def test_a_scene_stands_whole_on_its_canvas(width: int, height: int) -> None:
    """Scaled to the shorter side, nearest pixel by nearest pixel, where it was put; around it is its background."""
    scene = tasks.sample("coco", 3).scene
    room = abs(width - height)
    image = np.asarray(mixed.image(mixed.Canvas(scene, width, height, (room // 2,))))
    assert image.shape == (height, width, 3)
    side = min(width, height)
    along = slice(room // 2, room // 2 + side)
    part = image[:, along] if width > height else image[along]
    whole = drawing.image(scene)
    for y, x in ((0, 0), (side // 2, side // 3), (side - 1, side - 1)):
        assert tuple(part[y, x]) == whole.getpixel((x * 448 // side, y * 448 // side))
    rest = (
        np.concatenate([image[:, : room // 2], image[:, room // 2 + side :]], axis=1) if width > height else image[:0]
    )
    assert (rest == scene.rgb).all()


def test_the_scene_of_a_video_moves_from_end_to_end() -> None:
    """The first frame shows it at the beginning, the last at the end, and no two are alike."""
    canvas = next(row.video for row in (mixed.sample("textvqa", index) for index in range(8)) if row.video)
    frames = [mixed.image(canvas, frame) for frame in range(len(canvas.places))]
    assert canvas.places[0] == 0
    assert canvas.places[-1] == abs(canvas.width - canvas.height)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


@pytest.mark.parametrize("name", ["textvqa", "scienceqa"])
def test_a_question_without_an_image_says_what_it_would_show(name: str) -> None:
    """The word, or the things that are asked for, stand in the text."""
    rows = [(index, mixed.sample(name, index)) for index in range(40)]
    for index, row in rows:
        if row.images or row.video:
            continue
        if name == "textvqa":
            assert row.fields["answers"][0] in row.fields["question"]
        else:
            for thing in tasks.sample(name, index).scene.things:
                assert f"a {thing.color} {thing.shape}" in row.fields["hint"]


def test_references_are_those_of_the_ordinary_rows() -> None:
    """The same questions, so that rates of both can stand beside each other."""
    for name in DATASETS:
        plain, other = (datasets.load(name, source=source, count=8) for source in ("bundled", "bundled@mixed"))
        assert [one.references for one in plain.examples] == [one.references for one in other.examples]
        assert (other.source, other.revision) == ("bundled@mixed", plain.revision)


def test_the_source_is_known_and_no_other_like_it() -> None:
    """From settings on, and from Python."""
    assert build(source="bundled@mixed").source == "bundled@mixed"
    with pytest.raises(RequestError, match="neither") as caught:
        build(source="bundled@other")
    assert "bundled@mixed" in caught.value.remedy
    with pytest.raises(RequestError, match="no bundled samples 'other'") as caught:
        datasets.load("coco", source="bundled@other")
    assert "bundled@mixed" in caught.value.remedy
