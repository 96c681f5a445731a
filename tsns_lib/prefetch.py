"""Asking the memory for a value before it is needed, from compiled code."""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, overload


def prefetch(array: Any, index: Any) -> None:
    """Ask for ``array[index]`` ahead of its use.

    Changes nothing but time: in the interpreter there is nothing to do, and compiled code gets the processor's
    instruction for it, for which numba has no name.

    Parameters
    ----------
    array : ndarray
        One-dimensional and contiguous.
    index : uint64
        May lie anywhere: a prefetch never fails.
    """


@overload(prefetch)
def _compiled(array: Any, index: Any) -> Any:
    def ask(array: Any, index: Any) -> None:
        _instruction(array, index)  # type: ignore[call-arg]

    return ask


@intrinsic
def _instruction(typing_context: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cells = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address, number = builder.gep(cells, [arguments[1]]), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        # to be read (0), kept in every cache (3), data (1)
        flags = [number(0), number(3), number(1)]
        builder.call(builder.module.declare_intrinsic("llvm.prefetch", [address.type], kind), [address, *flags])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate
