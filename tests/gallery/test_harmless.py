"""The observer harms nobody: every exhibit does, keeps and raises with a profiler what it does without one."""

from __future__ import annotations

import pytest

from gallery.exhibit import EXHIBITS
from gallery.hall import NAMES, marked
from gallery.known import HARM
from gallery.run import MODES, differences, plain, watched


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_does_the_same_each_time(name: str) -> None:
    """Without a profiler: what is compared has no chance in it, or the property would mean nothing."""
    first, second = (outcome.facts for outcome in plain(name))
    assert (second["error"] != "NoneType None") == EXHIBITS[name]().raises
    once = {"warnings", "surroundings.threads"}  # torch warns of some things once, and its compiler keeps a thread
    assert {path: pair for path, pair in differences(first, second).items() if path not in once} == {}


@pytest.mark.parametrize(("name", "mode"), marked(HARM, *MODES))
def test_a_profiled_block_changes_nothing(name: str, mode: str) -> None:
    """Outputs, errors, arguments, state, attributes, hooks, modes, generators, switches, warnings; nothing printed."""
    exhibit = EXHIBITS[name]()
    if mode == "rerun" and not exhibit.again:
        pytest.skip("a repeat of these calls cannot be harmless")
    outcome = watched(name, mode)
    assert differences(plain(name)[1].facts, outcome.facts) == {}
    assert exhibit.prints or outcome.printed == ""


def test_every_exhibit_says_what_is_awkward() -> None:
    """A docstring tells why it is here; calls or a drive, a hand count or the reason why there is none."""
    for name, make in EXHIBITS.items():
        exhibit = make()
        assert bool(exhibit.calls) != bool(exhibit.drive), name
        assert (exhibit.flops is None) == bool(exhibit.no_count), name


def test_known_failures_are_of_exhibits() -> None:
    """An entry under a name that is gone would hide nothing and tell nothing."""
    assert {name for name, _ in HARM} <= set(NAMES)
    assert {mode for _, mode in HARM} <= {*MODES, "*"}
