"""On a CUDA device: `LayerProfiler` around a user's own calls, graphs and compiled models; nothing changes by it."""

from __future__ import annotations

from typing import Any

import pytest

from layerprof import LayerProfiler

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

WIDTH, ROWS = 256, 8
FLOPS = 2 * ROWS * WIDTH * WIDTH * 2
"""Of one call: two square matrices."""


@pytest.fixture
def model() -> Any:
    """Return two layers with something between them."""
    torch.manual_seed(0)
    layers = (torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH))
    return torch.nn.Sequential(*layers).half().eval().cuda()


@pytest.fixture
def x() -> Any:
    """Return what it is given."""
    return torch.randn(ROWS, WIDTH, device="cuda", dtype=torch.float16)


@pytest.mark.parametrize("flops", ["once", "together", "rerun", "off"])
def test_answers_and_random_states_are_the_same(model: Any, x: Any, flops: Any) -> None:
    """Bit for bit; FLOPs are those of two matrices a call, and spans are by CUDA events."""
    with torch.no_grad():
        expected = [model(x) for _ in range(6)]
        state = torch.cuda.get_rng_state()
        with LayerProfiler(model, flops=flops) as prof:
            found = [model(x) for _ in range(6)]
    assert all(map(torch.equal, expected, found))
    assert torch.equal(state, torch.cuda.get_rng_state())
    assert prof.run.totals.flops == (None if flops == "off" else 6 * FLOPS)
    assert all(row.span_s is not None and row.span_s.total > 0 for row in prof.run.layers)


def test_a_graph_captured_in_the_block_is_whole(model: Any, x: Any) -> None:
    """Capture and replays work as without; the call that was captured is in no figure, and the run says so."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(side):
        expected = model(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), LayerProfiler(model) as prof:
        with torch.cuda.graph(graph):
            out = model(x)
        graph.replay()
        model(x)
    torch.cuda.synchronize()
    assert torch.equal(out, expected)
    assert prof.run.totals.flops == FLOPS
    assert any("CUDA graph" in warning for warning in prof.run.warnings)


def test_a_compiled_model_stays_compiled(model: Any, x: Any) -> None:
    """Its answer is the compiled one, bit for bit, and FLOPs say why there are none."""
    compiled = torch.compile(model)
    with torch.no_grad():
        expected = compiled(x)
        with LayerProfiler(compiled) as prof:
            found = compiled(x)
    assert torch.equal(expected, found)
    assert prof.run.totals.flops is None
    assert "compiled" in str(prof.run.ledger.flops.reason)
