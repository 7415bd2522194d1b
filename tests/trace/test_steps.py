"""Steps of servers: what their annotations say, and what ran in each. Formats are those of the servers' sources."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from attributions import selves
from scenario import OUTSIDE, Scenario

from layerprof.trace.attribute import attribute
from layerprof.trace.step_names import captured_size, is_servers, parse, size_in_file

SAID = {
    # annotation: label, phase, requests, context requests and tokens, generation requests and tokens
    "execute_8192_context_9(sq8155sk8430sqsq7475785sqsk7671310)_generation_37(sq37sk34489sqsq37sqsk34489)": (
        ("execute", "mixed", 46, 9, 8155, 37, 37)
    ),
    "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk32785sqsq32sqsk32785)": (
        ("execute", "decode", 32, 0, 0, 32, 32)
    ),
    "execute_context_2(6144)_generation_3(3)": ("execute", "mixed", 5, 2, 6144, 3, 3),
    "execute_context_2(6144)_generation_0(0)": ("execute", "prefill", 2, 2, 6144, 0, 0),
    "execute_context_0(0)_generation_4(20)": ("execute", "decode", 4, 0, 0, 4, 20),
    "execute_context_1_generation_2": ("execute", "mixed", 3, 1, None, 2, None),
    "execute_context_0(0)_generation_0(0)": ("execute", None, 0, 0, 0, 0, 0),
    "step[DECODE bs=32]": ("step", "decode", 32, 0, 0, 32, 32),
    "step[EXTEND bs=15 toks=15360]": ("step", "prefill", 15, 15, 15360, 0, 0),
    "step[MIXED bs=9]": ("step", "mixed", 9, None, None, None, None),
    "step[MIXED bs=9 c=1 g=8 c_sq=700 c_sk=700 g_sq=8 g_sk=90 forward_id=3]": ("step", "mixed", 9, 1, 700, 8, 8),
    "step[TARGET_VERIFY bs=4]": ("step", "decode", 4, 0, 0, 4, None),
    "step[IDLE bs=0]": ("step", None, 0, None, None, None, None),
    "prefill[bs=2 tok=14721 ctx=[7803, 6918]]": ("prefill", "prefill", 2, 2, 14721, 0, 0),
    "decode[bs=117/128 tok=117 d=117]": ("decode", "decode", 117, 0, 0, 117, 117),
}


class TestSaid:
    """What an annotation says."""

    @pytest.mark.parametrize(("name", "due"), SAID.items())
    def test_phase_requests_and_tokens(self, name: str, due: tuple[object, ...]) -> None:
        """Of vLLM with and without details, SGLang and ATOM."""
        step = parse(name)
        assert step is not None
        assert is_servers(name)
        assert (step.label, *astuple(step)[1:]) == due

    @pytest.mark.parametrize("name", ["execute_model", "step", "steps[3]", "decode", "prefill[", "forward", "execute_"])
    def test_other_annotations_are_no_steps(self, name: str) -> None:
        """Whatever they begin with."""
        assert not is_servers(name)

    @pytest.mark.parametrize(
        ("name", "size"),
        [("capture_32_FULL", 32), ("capture_8_draft_PIECEWISE", 8), ("capture_graph_bs_64", 64), ("capture", None)],
    )
    def test_a_capture_says_its_size(self, name: str, size: int | None) -> None:
        """In rows."""
        assert captured_size(name) == size

    @pytest.mark.parametrize(
        ("name", "size"),
        [("DecodeCudaGraphRunner_bs_32_rank0.json.gz", 32), ("bs_8_rank0.json.gz", 8), ("jobs_4.json", None)],
    )
    def test_a_file_may_say_it_too(self, name: str, size: int | None) -> None:
        """As SGLang names one for each batch size."""
        assert size_in_file(name) == size


class TestRan:
    """What ran in a step."""

    def test_steps_that_say_the_same_add_up(self) -> None:
        """Two of four requests, one of three: how many, what ran, how long they took to launch."""
        s = Scenario()
        for number, requests in enumerate((4, 4, 3)):
            at = 100.0 * number
            s.add("user_annotation", f"step[DECODE bs={requests}]", at, 60)
            s.kernel(at + 5, at + 200, 7, OUTSIDE)
        assert [(s.requests, s.count, s.work_ns, s.host_ns) for s in attribute(s.events).steps] == [
            (4, 2, 14_000, 120_000),
            (3, 1, 7_000, 60_000),
        ]

    def test_of_two_steps_within_each_other_the_outer_counts(self) -> None:
        """SGLang's forward inside its scheduler's: one step, though both have rows."""
        s = Scenario()
        s.add("user_annotation", "execute_context_0(0)_generation_2(2)", 0, 100)
        s.add("user_annotation", "step[DECODE bs=2]", 10, 50)
        s.kernel(20, 200, 5, ("step", "decode"))
        s.kernel(70, 210, 3, ("execute", "decode"))
        result = attribute(s.events)
        assert [(step.name, step.work_ns) for step in result.steps] == [("execute_context_0_generation_2", 8_000)]
        assert selves(result) == s.self_us

    def test_a_range_has_the_phase_of_its_step(self) -> None:
        """A module that says none itself, in steps of two phases and outside of them."""
        s = Scenario()
        for number, (name, phase) in enumerate(
            [("step[DECODE bs=2]", "decode"), ("step[EXTEND bs=2 toks=9]", "prefill"), ("other", None)]
        ):
            at = 100.0 * number
            s.add("user_annotation", name, at, 60)
            s.add("python_function", "nn.Module: MLP_0", at + 5, 20)
            s.kernel(at + 10, at + 500, 1 + number, ("MLP_0", phase))
        assert selves(attribute(s.events)) == s.self_us

    def test_what_another_thread_launches_meanwhile_is_not_in_the_step(self) -> None:
        """An annotation is of its thread."""
        s = Scenario()
        s.add("user_annotation", "step[DECODE bs=2]", 0, 60)
        s.kernel(10, 200, 5, OUTSIDE, tid=2)
        assert [step.work_ns for step in attribute(s.events).steps] == [0]
