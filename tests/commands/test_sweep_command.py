"""`layerprof sweep` reads what it is asked for as an experiment file would."""

from __future__ import annotations

from typing import Any

import pytest
from paths import ROOT

from layerprof.commands import sweep
from layerprof.errors import RequestError

EXPERIMENT = ROOT / "experiments" / "batch_size.toml"


def _asked(**named: Any) -> dict[str, Any]:
    return sweep.request(EXPERIMENT, None, "local", None, None, None, **named).overrides


@pytest.mark.parametrize(("text", "value"), [("8", 8), ("all", "all")])
def test_samples_are_a_number_or_all(text: str, value: int | str) -> None:
    """As a number, so that --only and the file's own number mean the same."""
    assert _asked(samples=text, model=None) == {"samples": value}


@pytest.mark.parametrize("text", ["0", "-1", "some", "2.5"])
def test_samples_that_are_none_are_refused(text: str) -> None:
    """Before anything is loaded, with the way to write them."""
    with pytest.raises(RequestError) as caught:
        _asked(samples=text)
    assert "--samples" in caught.value.remedy


def test_a_model_named_by_digits_stays_a_name() -> None:
    """Only counts are read as numbers."""
    assert _asked(model="7") == {"model": "7"}


def test_a_tower_each_may_be_set_for_all_cells() -> None:
    """The sign and the comma inside the value are the value's."""
    asked = sweep.request(EXPERIMENT, None, "local", None, ["attention=vision=sdpa,language=eager"], None)
    assert asked.overrides == {"attention": "vision=sdpa,language=eager"}
    with pytest.raises(RequestError, match="Did you mean 'vision'"):
        sweep.request(EXPERIMENT, None, "local", None, ["attention=visoin=sdpa"], None)
