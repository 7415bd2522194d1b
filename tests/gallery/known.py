"""What is known to fail today: exhibit and modes -> why; no modes are all of them. One that passes fails the tests."""

from __future__ import annotations

Known = dict[tuple[str, str], str]
"""(exhibit, mode, `*` for every one) -> why."""


def _of(why: str, *exhibits: str, modes: str = "*") -> Known:
    return {(exhibit, mode): why for exhibit in exhibits for mode in modes.split()}


CHANGED = "a repeat runs the model as it is after the block"

HARM: Known = {
    **_of("a class's new `forward` is not run inside the block", "forward_of_the_class_replaced"),
    **_of("parameters are counted in sight of a function mode", "function_mode_around", modes="off default together"),
}
"""Exhibits that a profiled block changes."""

COUNTS: Known = {
    **_of("what a call does beside its steps is counted twice", "entered_through_generate", modes="default together"),
    **_of(
        "a value that changes one call between two that are watched goes unseen",
        "a_value_changes_one_call",
        modes="default",
    ),
    **_of(CHANGED, "adapter_switched_on_inside_the_block", "child_replaced_inside_the_block", modes="rerun"),
    **_of("a call that cannot be repeated is left out of the sum", "looks_like_a_tensor", modes="rerun"),
}
"""Exhibits whose FLOPs are not those of the hand count."""
