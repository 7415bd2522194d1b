"""The estimate from a processor's design power, where nothing can be measured."""

from __future__ import annotations

import pytest

from layerprof.energy import tdp


def test_the_estimate_prints_its_formula_and_inputs() -> None:
    """EPYC 7763: 280 W for 128 threads (AMD); 64 thread-seconds take 140 J."""
    found, reason = tdp.estimate("AMD EPYC 7763 64-Core Processor", process_cpu_s=64, wall_s=10, samples=7)
    assert reason is None
    assert found is not None
    assert (found.joules, found.per_sample) == (140.0, 20.0)
    assert "tdp_w" in found.formula
    assert found.inputs["tdp_w"] == 280.0
    assert "amd.com" in found.inputs["tdp_source"]


def test_an_unknown_processor_gets_no_estimate_but_a_remedy() -> None:
    """No default wattage is made up; the user may assume one."""
    found, reason = tdp.estimate("Imaginary 9000", 64, 10, 7)
    assert found is None
    assert "--assume-watts" in str(reason)
    assumed, _ = tdp.estimate("Imaginary 9000", 64, 10, 5, assume_watts=30)
    assert assumed is not None
    assert (assumed.joules, assumed.per_sample) == (300.0, 60.0)


@pytest.mark.parametrize(
    ("name", "watts"),
    [
        ("Intel(R) Xeon(R) Platinum 8480+", 350.0),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 120.0),
        ("AMD Ryzen 5 5600X 6-Core Processor", 65.0),
        ("AMD EPYC 7742X 64-Core Processor", None),
        ("Intel(R) Xeon(R) Gold 6230N CPU", None),
        ("AMD EPYC", None),
        ("", None),
    ],
)
def test_processors_are_known_by_their_whole_model_number(name: str, watts: float | None) -> None:
    """A near name is another processor."""
    found = tdp.find_tdp(name)
    assert (found.watts if found else None) == watts
