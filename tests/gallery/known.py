"""What is known to fail today: exhibit and modes -> why; no modes are all of them. One that passes fails the tests."""

from __future__ import annotations

Known = dict[tuple[str, str], str]
"""(exhibit, mode, `*` for every one) -> why."""


def _of(why: str, *exhibits: str, modes: str = "*") -> Known:
    return {(exhibit, mode): why for exhibit in exhibits for mode in modes.split()}


NO_LAYER = "a model none of whose submodules holds parameters is refused"
LAZY = "parameters are counted before they have a shape"
SCRIPTED = "what stands in `forward` breaks parts that are traces, frozen or read back"
NESTED = "the size of a nested tensor is asked for"
IN_A_COPY = "copies hold a bound `forward` in their attributes"
COMPILES_US = "torch.compile warns of what it finds in our `forward`"
SEEN = "what we ask of tensors is seen by the user's function mode"

HARM: Known = {}
"""Exhibits that a profiled block changes."""

COUNTS: Known = {}
"""Exhibits whose FLOPs are not those of the hand count."""
