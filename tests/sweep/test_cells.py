"""Who a cell is: the key under which a finished cell is found again, and kept apart from every other."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof.sweep.cells import Cell, Identity, unidentified_key

WHO: dict[str, Any] = {
    "choices": {"batch_size": 4, "layers": "all", "energy": {"budget": None}},
    "model": {"name": "m", "revision": "r1"},
    "data": {"name": "d", "ids": ["a", "b"]},
    "device": "NVIDIA H100",
    "versions": {"torch": "2.12.0", "driver": None},
}


def changed(value: Any) -> list[Any]:
    """Return values that differ from the given one; of a table one with an entry more, and one for each of its own."""
    if isinstance(value, dict):
        return [value | {"one more": 1}, *(value | {name: it} for name in value for it in changed(value[name]))]
    return [value + 1] if isinstance(value, int) else [f"{value}x"]


@pytest.mark.parametrize("name", Identity.model_fields)
def test_whatever_figures_depend_on_makes_another_cell(name: str) -> None:
    """Every field of an identity stands in the key, whole: a change in it is never answered by an older result."""
    who = Identity(**WHO)
    fields = who.model_dump()
    others = [Identity.model_validate(fields | {name: value}) for value in changed(fields[name])]
    assert len({it.key() for it in (who, *others)}) == 1 + len(others)


def test_each_repeat_is_a_cell_of_its_own() -> None:
    """The same request measured three times has three results."""
    assert len({Identity(**WHO).key(repeat) for repeat in range(3)}) == 3
    assert Identity(**WHO).key() == Identity(**WHO).key(0)


def test_an_identity_that_went_through_a_file_has_the_same_key() -> None:
    """Neither the order of entries nor a dump and its reading is a change: else nothing would ever be resumed."""
    who = Identity(**WHO)
    turned = {name: dict(reversed(value.items())) if isinstance(value, dict) else value for name, value in WHO.items()}
    assert Identity.model_validate(turned).key() == who.key()
    assert Identity.model_validate_json(who.model_dump_json()).key() == who.key()


def test_a_key_is_a_short_name_of_a_folder() -> None:
    """16 hexadecimal digits; one that stands for a cell nobody could identify cannot be taken for them."""
    key, unknown = Identity(**WHO).key(), unidentified_key(Cell({"model": "nobody's"}))
    assert len(key) == len(unknown) == 16
    assert int(key, 16) >= 0
    assert unknown[0] == "x"
    assert int(unknown[1:], 16) >= 0


@pytest.mark.parametrize("change", [{"choices": {"a": 2}}, {"demo": {"b": 1}}, {"repeat": 1}])
def test_cells_that_ask_for_the_same_are_the_same(change: dict[str, Any]) -> None:
    """Options, what replaces them for the bundled model, and the repeat make a request; time and place do not."""
    cell = Cell({"a": 1}, {"b": 0}, 0, 10.0)
    same = Cell({"a": 1}, {"b": 0}, 0, 20.0, {"table": ({"a": 1},)})
    asked: dict[str, Any] = {"choices": cell.choices, "demo": cell.demo, "repeat": cell.repeat}
    assert cell.request == same.request
    assert Cell(**asked | change).request != cell.request
    assert unidentified_key(Cell(**asked | change)) != unidentified_key(cell)


def test_a_cell_in_two_tables_is_measured_once_with_the_longer_time() -> None:
    """Joined cells stand at all their points, at each once, and may take as long as the more patient one."""
    one = Cell({"a": 1}, timeout_s=10.0, points={"sizes": ({"a": 1},), "all": ({"a": 1},)})
    other = Cell({"a": 1}, timeout_s=20.0, points={"all": ({"a": 1}, {"b": 2}), "more": ({"c": 3},)})
    for first, second in ((one, other), (other, one)):
        joined = first.joined(second)
        assert joined.timeout_s == 20.0
        points = {table: sorted(map(str, places)) for table, places in joined.points.items()}
        assert points == {"sizes": ["{'a': 1}"], "all": ["{'a': 1}", "{'b': 2}"], "more": ["{'c': 3}"]}
