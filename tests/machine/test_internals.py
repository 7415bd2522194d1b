"""What is read of other packages' insides is there and tells what we need: an upgrade that takes it away fails here."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
import typer
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.overrides import TorchFunctionMode

from layerprof.errors import RunFailedError
from layerprof.machine import internals


def small_config() -> Any:
    """Configure a decoder of one tiny layer."""
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.Qwen2Config(vocab_size=16, num_key_value_heads=1, **sizes)


# --- operators --------------------------------------------------------------------------------------------------


class Wrapper(torch.Tensor):
    """Wraps nothing, and answers views only."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), _kwargs: Any = None) -> Any:  # type: ignore[override]  # as torch calls it
        """Say in a tensor which operator came."""
        return torch.tensor(list(func.name().encode()))


def test_a_wrapper_has_a_shape_and_no_memory() -> None:
    """Shape, strides and dtype of another tensor, and operators come to its class; its storage has no address."""
    made = internals.wrapping(Wrapper, torch.empty(3, 5, dtype=torch.float16).t())
    assert (type(made), made.shape, made.stride(), made.dtype) == (Wrapper, (5, 3), (1, 5), torch.float16)
    assert bytes((made + 1).tolist()) == b"aten::add.Tensor"
    with pytest.raises(RuntimeError):
        made.untyped_storage().data_ptr()


class Twice:
    """Answers every addition with twice its result and all else as it is; `seen` are the operators' names."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[str] = []
        self.context = internals.answering(self.answer, **options)

    def answer(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operator."""
        told = internals.schema(operator)
        self.seen.append(told.name if told else operator.name())
        result = operator(*args, **kwargs)
        return 2 * result if self.seen[-1] == "aten::add" else result


def test_an_answer_takes_the_place_of_an_operator() -> None:
    """Inside the context, as often as it is entered, and not inside the answer itself nor afterwards."""
    twice, one = Twice(), torch.ones(2)
    for _ in range(2):
        with twice.context:
            assert (one + one).tolist() == [4.0, 4.0]
    assert (one + one).tolist() == [2.0, 2.0]
    assert [name for name in twice.seen if name == "aten::add"] == ["aten::add"] * 2
    assert "aten::mul" not in twice.seen


def test_the_innermost_mode_is_told() -> None:
    """The one that was entered last on this thread; without any, None."""
    assert internals.innermost_mode() is None
    with Twice().context as outer:
        with Twice().context as inner:
            assert internals.innermost_mode() is inner
        assert internals.innermost_mode() is outer


def test_what_is_asked_unseen_is_told_to_no_mode() -> None:
    """Neither to the mode that is open nor anywhere else; without the context the mode sees it."""
    asked: list[object] = []

    class Listens(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            asked.append(func)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2)
    with Listens():
        with internals.unseen():
            assert tuple(x.shape) == (2,)
        assert asked == []
        assert tuple(x.shape) == (2,)
        assert len(asked) == 1
    assert internals.unseen() is internals.unseen()


def test_replicas_and_compiled_calls_have_the_names_that_we_know() -> None:
    """A replica takes the attributes of its module along; a compiled module has another call than its own."""
    module = torch.nn.Linear(2, 2)
    object.__setattr__(module, "mark", 1)
    assert getattr(module, internals.REPLICATE)().mark == 1
    assert getattr(module, internals.COMPILED_CALL) is None
    module.compile(backend="eager")
    assert callable(getattr(module, internals.COMPILED_CALL))


def test_operators_that_take_functions_are_seen_where_asked_for() -> None:
    """Flex attention has no schema, and gives its name; without the asking torch refuses it."""
    # Positions that flex attention takes as they are: a multiple of its block.
    q = torch.zeros(1, 1, 128, 16)
    asked = Twice(higher_order=True)
    with torch.no_grad(), asked.context:
        flex_attention(q, q, q)
    assert "flex_attention" in asked.seen
    with torch.no_grad(), Twice().context, pytest.raises(NotImplementedError):
        flex_attention(q, q, q)


@pytest.mark.parametrize(
    ("operator", "name", "arguments", "view", "written"),
    [
        (torch.ops.aten.mm.default, "aten::mm", ("self", "mat2"), False, ()),
        (torch.ops.aten.view.default, "aten::view", ("self", "size"), True, ()),
        (torch.ops.aten.relu_.default, "aten::relu_", ("self",), False, ("self",)),
    ],
)
def test_a_schema_tells_names_and_views(
    operator: Any, name: str, arguments: tuple[str, ...], view: bool, written: tuple[str, ...]
) -> None:
    """A product makes new memory, a view looks at its operand's, and what ends in an underscore writes into it."""
    told = internals.schema(operator)
    assert told is not None
    assert (told.name, told.arguments, told.view, told.written) == (name, arguments, view, written)


def test_an_operator_without_its_schema_is_told() -> None:
    """One message with its remedy, not an AttributeError."""

    class Bare:
        overloadpacket = None

    with pytest.raises(RunFailedError, match="schema"):
        internals.schema(Bare())


def test_a_composite_operator_says_so() -> None:
    """The count takes apart what torch has no kernel of its own for: matmul, but not mm."""
    aten = torch.ops.aten
    whole, part = (internals.schema(operator) for operator in (aten.matmul.default, aten.mm.default))
    assert whole is not None
    assert part is not None
    assert (whole.composite, part.composite) == (True, False)


def test_modes_put_aside_see_nothing() -> None:
    """Neither those of operators nor those of functions; both see what comes after, also behind an error."""
    twice, one, functions = Twice(), torch.ones(2), []

    class Functions(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            functions.append(func)
            return func(*args, **(kwargs or {}))

    with twice.context, Functions():
        with pytest.raises(RuntimeError), internals.modes_aside():
            (one + one).sum() @ one
        assert (twice.seen, functions) == ([], [])
        assert (one + one).sum().item() == 8.0
    assert "aten::add" in twice.seen
    assert len(functions) == 3


# --- tensors ----------------------------------------------------------------------------------------------------


def test_tensors_that_share_memory_have_one_key() -> None:
    """Transposed, sliced and detached views are their weight's; equal values elsewhere are not, nor empty ones."""
    weight = nn.Parameter(torch.zeros(4, 4))
    views = [weight, weight.T, weight[1:], weight.detach(), weight.view(-1)]
    assert len({internals.storage_key(view) for view in views}) == 1
    others = [weight.clone(), torch.zeros(4, 4), torch.empty(0), torch.empty(0)]
    assert len({internals.storage_key(tensor) for tensor in (weight, *others)}) == 5


def test_a_key_does_without_the_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is gone, the address of the data tells storages with bytes apart."""

    class Public:
        def __init__(self, storage: Any) -> None:
            self.data_ptr = storage.data_ptr

    tensor, other = torch.zeros(4), torch.zeros(4)
    real = torch.Tensor.untyped_storage
    monkeypatch.setattr(torch.Tensor, "untyped_storage", lambda self: Public(real(self)))
    assert internals.storage_key(tensor) == internals.storage_key(tensor[2:]) == tensor.data_ptr()
    assert internals.storage_key(tensor) != internals.storage_key(other)


def test_writing_in_place_is_counted() -> None:
    """Each write counts, through views too; in inference mode nothing does."""
    tensor = torch.zeros(4)
    before = internals.times_written(tensor)
    assert before is not None
    tensor.add_(1)
    tensor[:2].zero_()
    assert internals.times_written(tensor) == before + 2
    with torch.inference_mode():
        assert internals.times_written(torch.zeros(4)) is None


def test_without_torch_function_nobody_sees_a_read() -> None:
    """Neither a mode nor a subclass is told of a shape that is asked for."""
    from torch.overrides import TorchFunctionMode

    seen: list[Any] = []

    class Mode(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        with internals.no_torch_function():
            assert torch.ones(3).shape == (3,)
        assert seen == []
        assert torch.ones(3).shape == (3,)
    assert seen


def test_reads_are_seen_where_that_cannot_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the switch, reading goes on."""
    monkeypatch.delattr(torch._C, "DisableTorchFunction")
    with internals.no_torch_function():
        assert torch.ones(3).shape == (3,)


def test_sparse_tensors_tell_what_they_store() -> None:
    """Explicit zeros and repeated indices are stored values; blocks are stored whole, and have no own indices."""
    repeated = torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [2, 2, 0]]), torch.tensor([1.0, 2.0, 0.0]), (2, 4))
    assert internals.stored_values(repeated) == 3
    assert internals.stored_indices(repeated).tolist() == [[0, 0, 1], [2, 2, 0]]
    rows = torch.tensor([[0.0, 1, 0, 0], [2, 0, 0, 3]]).to_sparse_csr()
    assert internals.stored_values(rows) == 3
    assert internals.stored_indices(rows).tolist() == [[0, 1, 1], [1, 0, 3]]
    blocks = torch.eye(4).to_sparse_bsr((2, 2))
    assert internals.stored_values(blocks) == 8
    with pytest.raises(TypeError):
        internals.stored_indices(blocks)


def test_nested_tensors_tell_their_components_sizes() -> None:
    """Of strided layout, which has no shape."""
    assert internals.component_sizes(torch.nested.nested_tensor([torch.ones(3, 8), torch.ones(5, 8)])) == (
        (3, 8),
        (5, 8),
    )


# --- profiler and streams ---------------------------------------------------------------------------------------


def test_the_cheap_range_is_there_and_is_recorded(tmp_path: Path) -> None:
    """It is not the public class, and a trace has it as an operator."""
    cheap = internals.range_class()
    assert cheap is not torch.profiler.record_function
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler, cheap("a range of ours"):
        torch.ones(2).add_(1)
    profiler.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["cat"] for e in events if e.get("name") == "a range of ours"] == ["cpu_op"]


@pytest.mark.skipif(torch.version.cuda is None, reason="this torch was built without CUDA")
def test_the_number_of_a_stream_is_there() -> None:
    """A torch with CUDA has the call; what it gives is seen on a card (tests/gpu/test_latency_gpu.py)."""
    assert callable(internals.stream_number())


# --- torch.compile ----------------------------------------------------------------------------------------------


def test_a_compiled_module_shows_the_one_inside() -> None:
    """It stands under the name that its weights have; any other module is itself."""
    module = nn.Linear(2, 2)
    compiled: Any = torch.compile(module)
    assert internals.uncompiled(compiled) is module
    assert internals.uncompiled(module) is module
    assert f"{internals.INNER}.weight" in dict(compiled.named_parameters())


def test_parts_are_given_under_every_name_and_an_empty_place_is_none() -> None:
    """One module under two names is two parts; of a scripted module, too."""
    shared = nn.Linear(2, 2)
    holder = nn.Sequential(shared, nn.ReLU(), shared)
    holder.register_module("empty", None)
    assert [name for name, _ in internals.parts(holder)] == ["0", "1", "2"]
    assert internals.parts(holder)[0][1] is internals.parts(holder)[2][1] is shared
    assert [name for name, _ in internals.parts(torch.jit.script(nn.Sequential(shared)))] == ["0"]
    assert internals.parts(shared) == ()


def test_a_module_compiled_in_place_says_so() -> None:
    """After `module.compile()`, and not before."""
    module = nn.Linear(2, 2)
    assert not internals.compiled_itself(module)
    module.compile(backend="eager")
    assert internals.compiled_itself(module)


def test_a_compiled_function_says_so() -> None:
    """What `torch.compile` gives of a function, but not the function."""
    module = nn.Linear(2, 2)
    assert internals.compiled_function(torch.compile(module.forward, backend="eager"))
    assert not internals.compiled_function(module.forward)
    assert not internals.compiled_function(None)


def test_graphs_are_counted_from_when_they_were_forgotten() -> None:
    """One function with one shape is one graph; a second call of it is none."""
    torch.compiler.reset()
    internals.forget_graphs()
    assert internals.graphs_compiled() == 0
    doubled = torch.compile(lambda x: x * 2, backend="eager")
    doubled(torch.ones(2))
    doubled(torch.ones(2))
    assert internals.graphs_compiled() == 1
    internals.forget_graphs()
    assert internals.graphs_compiled() == 0


@pytest.mark.parametrize(("limit", "graphs"), [(2, 2), (5, 5)])
def test_a_function_is_compiled_up_to_the_limit(limit: int, graphs: int) -> None:
    """Each constant makes another graph, until the limit; beyond it the function runs as it is."""
    torch.compiler.reset()
    internals.forget_graphs()

    def times(x: torch.Tensor, text: str) -> torch.Tensor:
        return x * len(text)

    compiled = torch.compile(times, backend="eager")
    with internals.recompile_limits(limit, 100):
        for number in range(1, 8):
            assert compiled(torch.ones(1), "a" * number).item() == number
    assert internals.graphs_compiled() == graphs
    torch.compiler.reset()


def test_limits_that_cannot_be_raised_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers beyond the limits would run eager and be called compiled."""
    monkeypatch.setattr(torch, "_dynamo", SimpleNamespace(config=SimpleNamespace()))
    with pytest.raises(RunFailedError, match="limits"):
        internals.recompile_limits(2, 2)


# --- transformers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_class_makes_a_model_with_dtype_and_attention(attention: str) -> None:
    """As `from_config` of the auto classes does, for classes unknown to them; and the model tells what it runs."""
    make = internals.maker(transformers.Qwen2Model)
    assert make is not None
    model = make(small_config(), dtype=torch.bfloat16, attn_implementation=attention)
    assert type(model) is transformers.Qwen2Model
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert internals.attention_of(model.config) == attention


def test_a_class_says_whether_its_steps_keep_their_shapes() -> None:
    """Dense decoders do; one that has states instead of a cache does not; who does not say is let through."""
    assert internals.keeps_its_shapes(transformers.Qwen2ForCausalLM)
    assert internals.keeps_its_shapes(transformers.Qwen2_5_VLForConditionalGeneration)
    assert not internals.keeps_its_shapes(transformers.RwkvForCausalLM)
    assert internals.keeps_its_shapes(object)


def test_what_is_no_model_has_no_maker_and_no_attention() -> None:
    """A class of another package, an object without a configuration: the answer is None."""
    assert internals.maker(object) is None
    assert internals.attention_of(None) is None


def test_a_wrong_option_is_the_usage_error_of_typer() -> None:
    """What typer raises is of that class, and tells the mistake, the command and the exit code."""
    app = typer.Typer()

    @app.command()
    def command(count: int = 1) -> None: ...

    with pytest.raises(internals.usage_error()) as caught:
        app(["--cuont", "2"], standalone_mode=False)
    assert "--cuont" in caught.value.format_message()
    assert caught.value.ctx is not None
    assert caught.value.exit_code == 2
