"""The observer harms nobody: every exhibit does, keeps and raises with a profiler what it does without one."""

from __future__ import annotations

from functools import cache

import pytest

from gallery.exhibit import EXHIBITS
from gallery.hall import NAMES, marked
from gallery.known import HARM
from gallery.run import MODES, Outcome, differences, run


@cache
def _plain(name: str) -> Outcome:
    """Run an exhibit without a profiler. The first run of all is thrown away: torch warns of some things only once."""
    run(EXHIBITS[name](), None)
    return run(EXHIBITS[name](), None)


@pytest.mark.parametrize("name", NAMES)
def test_an_exhibit_does_the_same_each_time(name: str) -> None:
    """Without a profiler: what is compared has no chance in it, or the property would mean nothing."""
    assert differences(_plain(name).facts, run(EXHIBITS[name](), None).facts) == {}


@pytest.mark.parametrize(("name", "mode"), marked(HARM, *MODES))
def test_a_profiled_block_changes_nothing(name: str, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Outputs, errors, arguments, state, attributes, hooks, modes, generators, switches, warnings; nothing printed."""
    exhibit = EXHIBITS[name]()
    if mode == "rerun" and not exhibit.again:
        pytest.skip("a repeat of these calls cannot be harmless")
    plain = _plain(name)
    capfd.readouterr()
    watched = run(exhibit, mode)
    printed = capfd.readouterr()
    assert differences(plain.facts, watched.facts) == {}
    assert exhibit.prints or (printed.out, printed.err) == ("", "")


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
