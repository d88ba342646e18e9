"""Sixteen float32 side by side, as a value that compiled functions can hold.

A small state is a few vectors, and a gate on one of its four lowest qubits mixes lanes within a vector. Loops over
single numbers do not compile to that, so the few operations that are needed are spelled out for LLVM here; it maps them
to whatever the processor has (one AVX-512 register, two AVX registers, four NEON registers).

Must never know what a qubit is.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic, models, overload, register_model

LANES = 16
"""Numbers in one vector."""

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_FLAGS = ("contract", "nsz")


class LanesType(types.Type):  # type: ignore[misc]
    """Numba's type of one vector."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


lanes_type = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


@intrinsic
def load(_context, memory, index):  # type: ignore[no-untyped-def]
    """``memory[index : index + 16]``, unchecked; memory is a float32 array, or its address as an integer.

    An address is one argument of a call where an array is seven.
    """

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(_address(context, builder, signature, arguments), align=4)

    return lanes_type(memory, index), emit


@intrinsic
def store(_context, memory, index, vector):  # type: ignore[no-untyped-def]
    """``memory[index : index + 16] = vector``, unchecked."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _address(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(memory, index, vector), emit


@intrinsic
def get(_context, memory, index):  # type: ignore[no-untyped-def]
    """Element ``index`` of an array's memory, unchecked, whatever its shape: nothing keeps a loop from vectorising."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.load(_element(context, builder, signature, arguments))

    return (types.float32 if isinstance(memory, types.Integer) else memory.dtype)(memory, index), emit


@intrinsic
def put(_context, memory, index, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Set element ``index`` of an array's memory, unchecked; of float32 memory, if given by its address."""

    def emit(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        builder.store(arguments[2], _element(context, builder, signature, arguments))
        return context.get_dummy_value()

    return types.void(memory, index, types.float32 if isinstance(memory, types.Integer) else memory.dtype), emit


@intrinsic
def splat(_context, number):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The same number in every lane."""

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], _INT(0))
        return _shuffle(builder, first, first, [0] * LANES)

    return lanes_type(types.float32), emit


@intrinsic(prefer_literal=True)
def choose(_context, half, where_zero, where_one):  # type: ignore[no-untyped-def]
    """Lanes of ``where_one`` where the lane's number has bit ``half`` (a literal) set, else of ``where_zero``."""
    if not isinstance(half, types.IntegerLiteral):
        raise RequireLiteralValue("half must be a literal")
    bit = half.literal_value

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        mask = [lane + LANES if lane & bit else lane for lane in range(LANES)]
        return _shuffle(builder, arguments[1], arguments[2], mask)

    return lanes_type(half, where_zero, where_one), emit


@intrinsic(prefer_literal=True)
def swap(_context, half, vector):  # type: ignore[no-untyped-def]
    """Lane i gets lane ``i ^ half`` (a literal)."""
    if not isinstance(half, types.IntegerLiteral):
        raise RequireLiteralValue("half must be a literal")
    bit = half.literal_value

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        return _shuffle(builder, arguments[1], arguments[1], [lane ^ bit for lane in range(LANES)])

    return lanes_type(half, vector), emit


@intrinsic
def total(_context, vector):  # type: ignore[no-untyped-def]
    """Sum of the lanes."""

    def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            other = _shuffle(builder, value, value, [(lane + width) % LANES for lane in range(LANES)])
            value = builder.fadd(value, other, flags=_FLAGS)
        return builder.extract_element(value, _INT(0))

    return types.float32(vector), emit


def _binary(name: str) -> Callable[..., Any]:
    @intrinsic
    def apply(_context, left, right):  # type: ignore[no-untyped-def]
        def emit(_target, builder, _signature, arguments):  # type: ignore[no-untyped-def]
            return getattr(builder, name)(*arguments, flags=_FLAGS)

        return lanes_type(left, right), emit

    made: Callable[..., Any] = apply
    return made


_add, _subtract, _multiply = _binary("fadd"), _binary("fsub"), _binary("fmul")


@overload(operator.add)
def _overload_add(left, right):  # type: ignore[no-untyped-def]
    if left is lanes_type and right is lanes_type:
        return lambda left, right: _add(left, right)
    return None


@overload(operator.sub)
def _overload_subtract(left, right):  # type: ignore[no-untyped-def]
    if left is lanes_type and right is lanes_type:
        return lambda left, right: _subtract(left, right)
    return None


@overload(operator.mul)
def _overload_multiply(left, right):  # type: ignore[no-untyped-def]
    if left is lanes_type and right is lanes_type:
        return lambda left, right: _multiply(left, right)
    return None


def _address(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.bitcast(_element(context, builder, signature, arguments), _VECTOR.as_pointer())


def _element(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    memory = signature.args[0]
    if isinstance(memory, types.Integer):
        first = builder.inttoptr(arguments[0], _FLOAT.as_pointer())
    else:
        first = context.make_array(memory)(context, builder, arguments[0]).data
    return cgutils.gep_inbounds(builder, first, arguments[1])


def _shuffle(builder: Any, first: Any, second: Any, lanes: list[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(_INT, LANES), lanes))
