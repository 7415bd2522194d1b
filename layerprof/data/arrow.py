"""Columns of Arrow tables: which hold texts, and which cells are empty, told without reading what is in them."""

from __future__ import annotations

from typing import Any


def is_text(kind: Any) -> bool:
    """Tell a column of texts, or of lists of texts: paths of images stand in such a one."""
    from pyarrow import types

    if is_list(kind):
        return is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def empty(column: Any) -> list[bool]:
    """Tell for each cell of an array of images whether it is empty.

    That is null, no bytes, or for `{"bytes", "path"}` neither of the two. Only validity and offsets are read, so
    a mapped file's pixels stay on disk.
    """
    from pyarrow import compute, types

    if types.is_struct(column.type):
        parts = [empty(compute.struct_field(column, name)) for name in _parts(column.type)]
        lost = column.is_null().to_pylist()
        return [gone or all(part[row] for part in parts) for row, gone in enumerate(lost)] if parts else lost
    lost = column.is_null()
    if is_text(column.type) or types.is_binary(column.type) or types.is_large_binary(column.type):
        lost = compute.or_kleene(lost, compute.equal(compute.binary_length(column), 0))
    return [bool(one) for one in lost.to_pylist()]


def is_list(kind: Any) -> bool:
    """Tell a column of lists."""
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def lengths(column: Any) -> list[int | None]:
    """Return how long the list in each cell of an array is; None for a null. Only offsets are read."""
    from pyarrow import compute

    found: list[int | None] = compute.list_value_length(column).to_pylist()
    return found


def undecoded(feature: Any) -> Any:
    """Return a feature of `datasets` that gives the bytes of its images or videos as they are; None for any other."""
    import datasets

    if isinstance(feature, (datasets.Image, datasets.Video)):
        return type(feature)(decode=False)
    if isinstance(feature, datasets.List) and (inner := undecoded(feature.feature)) is not None:
        return datasets.List(inner)
    return None


def _parts(kind: Any) -> list[str]:
    return [name for name in ("bytes", "path") if kind.get_field_index(name) >= 0]
