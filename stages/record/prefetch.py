# mypy: disable-error-code="no-untyped-def"
"""Fetching memory into the cache ahead of its use, from numba."""

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LINE = 64
"""Bytes of a cache line."""
FLAGS = (1, 3, 1)
"""Of llvm.prefetch: the memory will be written to, belongs into the innermost cache, and is no program."""


@intrinsic
def prefetch(typingctx, array, index):  # noqa: ARG001
    """Start to fetch the row array[index] of a contiguous array; index: a tuple of numbers, one fewer than there are dimensions.

    Nothing waits for it, and nothing is checked.
    """

    def generate(context, builder, signature, args):
        kind, number = signature.args[0], ir.IntType(32)
        view = context.make_array(kind)(context, builder, args[0])
        place = [*cgutils.unpack_tuple(builder, args[1]), context.get_constant(types.intp, 0)]
        byte = ir.IntType(8).as_pointer()
        row = builder.bitcast(cgutils.get_item_pointer(context, builder, kind, view, place), byte)
        name, flags = "llvm.prefetch.p0", [ir.Constant(number, flag) for flag in FLAGS]
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, *[number] * len(FLAGS)]), name
        )
        size = builder.mul(cgutils.unpack_tuple(builder, view.shape)[-1], view.itemsize)
        steps = [context.get_constant(types.intp, step) for step in (0, LINE)]
        with cgutils.for_range_slice(builder, steps[0], size, steps[1]) as (offset, _):
            builder.call(function, [builder.gep(row, [offset]), *flags])
        return context.get_dummy_value()

    return types.void(array, index), generate
