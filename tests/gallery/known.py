"""What is known to fail today: exhibit and modes -> why; no modes are all of them. One that passes fails the tests."""

from __future__ import annotations

Known = dict[tuple[str, str], str]
"""(exhibit, mode, `*` for every one) -> why."""


def _of(why: str, *exhibits: str, modes: str = "*") -> Known:
    return {(exhibit, mode): why for exhibit in exhibits for mode in modes.split()}


NESTED = "the size of a nested tensor is asked for"
IN_A_COPY = "copies hold a bound `forward` in their attributes"
COMPILES_US = "torch.compile warns of what it finds in our `forward`"
SEEN = "what we ask of tensors is seen by the user's function mode"

HARM: Known = {
    **_of(
        "torch.jit takes the function that lies around a `forward` for a part of the model", "traced_inside_the_block"
    ),
    **_of(NESTED, "encoder_fast_path", modes="default together"),
    **_of(NESTED, "nested_strided", modes="default together"),
    **_of(IN_A_COPY, "deepcopied_in_its_call", "deepcopied_inside_the_block", "pickled_inside_the_block"),
    **_of(IN_A_COPY, "saved_inside_the_block"),
    **_of("a shallow copy runs the model's own forward", "copied_shallowly"),
    **_of(COMPILES_US, "breaks_its_graph", "compiled_child", "compiled_child_ahead_of_time", "compiled_in_place"),
    **_of(COMPILES_US, "compiled_in_training", "compiled_root"),
    **_of(
        SEEN, "function_mode_around", "mode_left_open_by_a_call", "modes_inside_the_block", modes="off default together"
    ),
    **_of(SEEN, "modes_in_a_forward", modes="default together"),
    **_of(
        "a `forward` that cannot be set ends in an AttributeError",
        "forward_as_a_descriptor",
        modes="off default together",
    ),
    **_of("a class's new `forward` is not run inside the block", "forward_of_the_class_replaced"),
    **_of("a bound `forward` that the user puts back is lost", "forward_set_and_taken_back"),
    **_of("the docstring of a `forward` is not shown", "looks_at_its_own_signature"),
}
"""Exhibits that a profiled block changes."""

COUNTS: Known = {
    **_of(NESTED, "nested_strided", "packed_lstm"),
    **_of("calls inside generate() are counted twice", "entered_through_generate", modes="default together"),
    **_of(
        "a `forward` that cannot be set ends in an AttributeError", "forward_as_a_descriptor", modes="default together"
    ),
    **_of("a repeat runs the model as it is after the block", "adapter_switched_on_inside_the_block", modes="rerun"),
    **_of("a repeat runs the model as it is after the block", "child_replaced_inside_the_block", modes="rerun"),
    **_of("a call that cannot be repeated is left out of the sum", "looks_like_a_tensor", modes="rerun"),
}
"""Exhibits whose FLOPs are not those of the hand count."""
