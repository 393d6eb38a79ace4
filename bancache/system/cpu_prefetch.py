"""Asking memory for a cache line that a loop will need soon, without waiting for it; for loops that numba compiles.

To read a byte of it would do the same, and then stop the loop until the byte is there. This module imports numba.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LINE = 64  # bytes of a cache line; where lines are longer, some are asked for twice
# What LLVM's instruction is told: that nothing will be written there, that it is wanted in every cache, and is data.
_TOLD = 0, 3, 1


def _prefetch(typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(held.data, [arguments[1]]), ir.IntType(8).as_pointer())
        operands = [ir.Constant(ir.IntType(32), operand) for operand in _TOLD]
        kinds = [address.type, *(operand.type for operand in operands)]
        called = ir.FunctionType(ir.VoidType(), kinds)
        ask = builder.module.declare_intrinsic("llvm.prefetch", [address.type], called)
        builder.call(ask, [address, *operands])
        return context.get_dummy_value()

    return types.none(array, types.intp), generate


# prefetch(array, index) asks for the line of array[index], of one dimension; an index outside of it does no harm.
prefetch: Any = intrinsic(_prefetch)
