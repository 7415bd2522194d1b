"""What layerprof reads of other packages' insides: every name of theirs that begins with an underscore, and no other.

Such names may go with any release. Each function says what it reads, why no public name does, and what happens where
it is gone: something else in its place, or one clear message, never a traceback while anything is imported.
tests/machine/test_internals.py asks each for what we need of it, so that an upgrade which takes one away is noticed
there. Importing this loads neither torch nor transformers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from layerprof.errors import RunFailedError

if TYPE_CHECKING:
    from torch import Tensor, nn

TESTED = "Install the versions that layerprof is tested with (constraints.txt)."

# --- operators of torch -----------------------------------------------------------------------------------------

Answer = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
"""(operator, arguments, keyword arguments) -> what the operator is to give."""


def answering(answer: Answer, *, higher_order: bool = False) -> AbstractContextManager[Any]:
    """Return a context, to be entered as often as one likes, in which `answer` answers every operator that torch runs.

    What `answer` itself calls is not answered, unless it enters the context anew. `higher_order` says that it knows
    operators that take functions (flex attention), too; else torch refuses those.

    Reads `torch._dynamo` and `torch.utils._python_dispatch.TorchDispatchMode`, which torch documents as the way to see
    operators, and has under no other name. Raises RunFailedError where it is gone.
    """
    try:
        with warnings.catch_warnings():  # torch adds filters of its own
            # Imported when a mode first sees an operator, which takes a second that would be in somebody's span.
            import torch._dynamo  # noqa: F401 - only to have it

        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError as error:
        raise RunFailedError("This torch does not let its operators be seen, which counting needs.", TESTED) from error

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's metaclass hook has no types
        supports_higher_order_operators = higher_order
        ours = True

        @classmethod
        def ignore_compile_internals(cls) -> bool:
            """Let compiled code run compiled inside the context: else torch would not run it so ever after."""
            return True

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            return answer(func, args, kwargs or {})

    mode: AbstractContextManager[Any] = Mode()  # type: ignore[no-untyped-call]  # untyped there
    return mode


def wrapping(kind: type[Any], like: Tensor) -> Any:
    """Return a tensor of a class that wraps others: of the shape, strides and dtype of `like`, without memory.

    Calls `Tensor._make_wrapper_subclass`, which torch's notes on extending it name, and no public function.
    """
    return like._make_wrapper_subclass(kind, like.shape, strides=like.stride(), dtype=like.dtype)


def innermost_mode() -> Any:
    """Return the dispatch mode that was entered last on this thread; None without one.

    Reads `torch.utils._python_dispatch._get_current_dispatch_mode`: only the innermost mode can be left, and torch does
    not say which it is elsewhere. Where it is gone, None, and no mode is left early.
    """
    try:
        from torch.utils._python_dispatch import _get_current_dispatch_mode
    except ImportError:
        return None
    return _get_current_dispatch_mode()


@contextmanager
def modes_aside() -> Iterator[None]:
    """Open a context in which no mode of torch sees what runs, neither of operators nor of functions.

    Reads `torch.utils._python_dispatch._disable_current_modes`; nothing public puts modes aside. Where it is gone,
    modes of operators see what runs.
    """
    from torch.utils import _python_dispatch

    operators = getattr(_python_dispatch, "_disable_current_modes", nullcontext)
    with unseen(), operators() if innermost_mode() is not None else nullcontext():
        yield


@dataclass(frozen=True, slots=True)
class Schema:
    """What an operator says of itself: its name (`aten::mm`) and its arguments' names.

    `aliases` is whether its output may share an operand's memory, `written` the arguments that it writes into,
    `composite` whether torch makes it of other operators.
    """

    name: str
    arguments: tuple[str, ...]
    aliases: bool
    written: tuple[str, ...]
    composite: bool

    @property
    def view(self) -> bool:
        """Whether it only looks at an operand's memory."""
        return self.aliases and not self.written


@cache
def schema(operator: Any) -> Schema | None:
    """Return an operator's schema; None for those that take functions, which have none.

    Reads `OpOverload._schema`: that an operator is a view, or writes, stands nowhere else. Raises RunFailedError where
    it is gone.
    """
    if not hasattr(operator, "overloadpacket"):
        return None
    told = getattr(operator, "_schema", None)
    if told is None:
        raise RunFailedError("This torch's operators do not tell their schema, which counting needs.", TESTED)
    aliases = {argument.name: argument.alias_info for argument in told.arguments if argument.alias_info is not None}
    names = tuple(argument.name for argument in told.arguments)
    written = tuple(name for name, alias in aliases.items() if alias.is_write)
    try:
        composite = bool(operator.has_kernel_for_dispatch_key("CompositeImplicitAutograd"))
    except RuntimeError:  # those that ask for a size have no kernels that torch knows of
        composite = False
    return Schema(told.name, names, bool(aliases), written, composite)


# --- tensors of torch -------------------------------------------------------------------------------------------


def storage_key(tensor: Tensor) -> int:
    """Return what is equal for tensors that share their memory and for no others that live.

    Reads `UntypedStorage._cdata`, the address of the storage itself. The public `data_ptr()`, which takes its place
    where it is gone, is 0 for every storage without bytes. Raises what torch raises for a tensor without storage.
    """
    storage = tensor.untyped_storage()
    found = getattr(storage, "_cdata", None)
    return int(storage.data_ptr() if found is None else found)


def times_written(tensor: Tensor) -> int | None:
    """Return how often a tensor was written in place; None for one made in inference mode, which does not count.

    Reads `Tensor._version`, which autograd checks and nobody publishes. None where it is gone.
    """
    return None if tensor.is_inference() else getattr(tensor, "_version", None)


def no_torch_function() -> AbstractContextManager[Any]:
    """Return a context in which reading a tensor is told to no function mode and to no subclass of the caller's.

    Reads `torch._C.DisableTorchFunction`, which torch documents for subclasses and has under no other name. Where it is
    gone, what layerprof reads of a tensor is seen by them, as all else is.
    """
    import torch

    disable = getattr(torch._C, "DisableTorchFunction", nullcontext)
    context: AbstractContextManager[Any] = disable()
    return context


_NOTHING: AbstractContextManager[Any] = nullcontext()


def unseen() -> AbstractContextManager[Any]:
    """Return `no_torch_function()` where the user has entered a function mode; else a context that does nothing.

    Reads `torch._C._len_torch_function_stack`: a count costs less than the context. Where it is gone, the context.
    """
    import torch

    depth = getattr(torch._C, "_len_torch_function_stack", None)
    return _NOTHING if depth is not None and not depth() else no_torch_function()


def component_sizes(tensor: Tensor) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of the components of a nested tensor of strided layout.

    Reads `Tensor._nested_tensor_size`: the public way, which takes its place where it is gone, makes a tensor of each.
    """
    told = getattr(tensor, "_nested_tensor_size", None)
    if told is None:
        return tuple(tuple(part.shape) for part in tensor.unbind())
    return tuple(tuple(size) for size in told().tolist())


def stored_values(tensor: Tensor) -> int:
    """Return how many values a sparse tensor stores: all elements of stored blocks, and of dense dimensions.

    Reads `Tensor._values` of the coordinate layout: the public `values()`, which takes its place where it
    is gone, refuses one whose indices may repeat.
    """
    import torch

    inner = getattr(tensor, "_values", None)
    if tensor.layout is not torch.sparse_coo or inner is None:
        return tensor.values().numel()
    return int(inner().numel())


def stored_indices(tensor: Tensor) -> Tensor:
    """Return the indices (2, stored values) of a sparse matrix. Raises TypeError for one of blocks.

    Reads `Tensor._indices` of the coordinate layout, as `stored_values` does; other layouts are rewritten to it.
    """
    import torch

    if tensor.layout in (torch.sparse_bsr, torch.sparse_bsc):
        raise TypeError("A block has no place of its own.")
    coordinates = tensor if tensor.layout is torch.sparse_coo else tensor.to_sparse()
    inner = getattr(coordinates, "_indices", None)
    indices: Tensor = coordinates.indices() if inner is None else inner()
    return indices


# --- modules of torch -------------------------------------------------------------------------------------------

REPLICATE = "_replicate_for_data_parallel"
"""The method by which DataParallel copies a module to another GPU: instance attributes go along, so that what we put
there must be left out; no public name lets that be said. Where it is gone, replicas are made in a way unknown to us."""

COMPILED_CALL = "_compiled_call_impl"
"""What a module's call goes through after `module.compile()`: the attribute around which such a call is seen."""


# --- torch's profiler and CUDA streams --------------------------------------------------------------------------


def range_class() -> Any:
    """Return the class of cheap ranges for the profiler (about 1 µs, exported as `cpu_op`).

    Reads `torch._C._profiler._RecordFunctionFast`; the public `record_function`, which takes its place where it is
    gone, costs several times as much.
    """
    import torch

    fast = getattr(getattr(torch._C, "_profiler", None), "_RecordFunctionFast", None)
    return fast or torch.profiler.record_function


def stream_number() -> Callable[[int], int] | None:
    """Return what gives the number of a device's current CUDA stream; None where it is gone, or torch has no CUDA.

    Reads `torch._C._cuda_getCurrentRawStream`: the public `current_stream(device).cuda_stream` makes an object first,
    and this is asked at every boundary of every layer.
    """
    import torch

    return getattr(torch._C, "_cuda_getCurrentRawStream", None)


# --- modules ----------------------------------------------------------------------------------------------------


def parts(module: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """Return the modules inside a module with their names, one that has two names twice.

    Reads `Module._modules`, since `named_children()` leaves out second names. Where it is gone, so does this.
    """
    held = getattr(module, "_modules", None)
    return tuple((name, part) for name, part in (held.items() if held else module.named_children()) if part is not None)


# --- torch.compile ----------------------------------------------------------------------------------------------

INNER = "_orig_mod"
"""The name of the module inside the one that `torch.compile(module)` gives; it stands in the names of its weights."""


def uncompiled(module: nn.Module) -> nn.Module:
    """Return the module inside what `torch.compile(module)` gave; any other as it is.

    Reads `OptimizedModule._orig_mod`. Where it is gone, a compiled model shows its wrapper's class name.
    """
    try:
        inner: nn.Module = getattr(module, INNER, module)
    except Exception:  # a `__getattr__` of somebody's own may raise what it likes
        return module
    return inner


def compiled_itself(module: nn.Module) -> bool:
    """Tell whether `module.compile()` was called.

    Reads `Module._compiled_call_impl`, since torch says it nowhere. Where it is gone, the answer is no, and a `forward`
    that is laid over a module inside makes torch compile the region anew.
    """
    return getattr(module, COMPILED_CALL, None) is not None


def compiled_function(function: object) -> bool:
    """Tell whether a function is what `torch.compile(function)` gave.

    Reads `_torchdynamo_orig_callable`, as for `compiled_itself`.
    """
    return hasattr(function, "_torchdynamo_orig_callable")


def recompile_limits(each: int, together: int) -> AbstractContextManager[Any]:
    """Return a context in which torch compiles a function up to `each` times, and all of one code `together` times.

    Patches `torch._dynamo.config`: `torch.compile` takes the first limit from torch 2.12 on, the second nowhere. Raises
    RunFailedError where it is gone: beyond the limits layers would run eager and be called compiled.
    """
    import torch

    try:
        patched: AbstractContextManager[Any] = torch._dynamo.config.patch(
            recompile_limit=each, accumulated_recompile_limit=together
        )
    except (AttributeError, KeyError) as error:
        raise RunFailedError("This torch's limits on compiling cannot be raised.", TESTED) from error
    return patched


def forget_graphs() -> None:
    """Count compiled graphs from 0 again. Reads what `graphs_compiled` does."""
    _graph_counters().clear()


def graphs_compiled() -> int:
    """Return how many graphs torch has compiled since `forget_graphs`.

    Reads `torch._dynamo.utils.counters`; its public way out is a log. Raises RunFailedError where it is gone: nothing
    else tells that a function was really compiled.
    """
    return int(_graph_counters()["stats"]["unique_graphs"])


def _graph_counters() -> Any:
    try:
        from torch._dynamo.utils import counters
    except ImportError as error:
        raise RunFailedError("This torch does not tell what it has compiled.", TESTED) from error
    return counters


# --- transformers -----------------------------------------------------------------------------------------------


def maker(model_class: type) -> Callable[..., Any] | None:
    """Return what makes a model of this class from a configuration, a dtype and an attention; None where it is gone.

    Reads `PreTrainedModel._from_config`: the public `from_config` stands on the auto classes only, which choose a class
    of their own and know none of some architectures.
    """
    return getattr(model_class, "_from_config", None)


def keeps_its_shapes(model_class: type) -> bool:
    """Tell whether a model decodes with a static cache and nothing that waits for what stands in its tensors.

    Reads `PreTrainedModel._can_compile_fullgraph`, by which transformers decides whether `generate` may compile such a
    step; it publishes nothing of the kind. Where it is gone, the answer is yes, and a capture that fails tells.
    """
    return bool(getattr(model_class, "_can_compile_fullgraph", True))


def attention_of(config: Any) -> str | None:
    """Return the attention implementation that a configuration says its model runs; None where it does not.

    Reads `_attn_implementation`: transformers publishes how it is set (`set_attn_implementation`), not what it is.
    """
    return getattr(config, "_attn_implementation", None)


# --- typer ------------------------------------------------------------------------------------------------------


def usage_error() -> type[Any]:
    """Return the class of what typer raises for a wrong option: it has `format_message()`, `ctx` and `exit_code`.

    Reads `typer._click.exceptions`: newer typers carry click's code, and give the class no name of their own; older
    ones raise the class of the package click.
    """
    try:
        from typer._click.exceptions import UsageError
    except ImportError:
        from click.exceptions import UsageError  # type: ignore[assignment]  # the same class, of another package
    return UsageError
