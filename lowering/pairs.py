"""Sums of products of bf16, two indices at a time.

An instruction of some processors adds the products of two pairs of bf16 to an f32 in
every lane (x86's `vdpbf16ps`). For it the factor in the lanes lies in pairs along the
summed index in a tile, as an i32 of two bf16, the even index in the lower half; the
other factor is read as such a pair and broadcast. Where there is no second index, the
factor in the lanes has -0 in its place and the other one 0: their product is -0, which
leaves every sum as it is.

The products are exact, and each addition rounds to nearest. The instruction takes
subnormal numbers for 0: a product below the smallest normal f32 may be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from xdsl.dialects import arith, memref, vector
from xdsl.dialects.builtin import (
    IntegerAttr,
    UnregisteredOp,
    VectorType,
    bf16,
    i1,
    i16,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.hints import isa

from moa_dialect.lowering.emitter import FULL
from moa_dialect.lowering.shuffles import shuffled
from moa_dialect.passes.terms import ChunkFold, Folded, Held, InPairs, Term

if TYPE_CHECKING:
    from moa_dialect.lowering.vector_code import Buffer, VectorCode

DOT = "x86vector.avx512.dot"
"""The operation for the instruction; upstream's name."""

LANES = (4, 8, 16)
"""How many lanes the instruction comes with."""

_SIGN = -0x80000000
"""-0 in the upper half, and 0 in the lower."""

_EQUAL: dict[str, Attribute] = {"predicate": IntegerAttr(0, i64)}


def factors_of(body: Term) -> tuple[Term, Term] | None:
    """The factors of a product of pairs, the one in the lanes first; None if none."""
    if not body.computes("arith.mulf"):
        return None
    lanes, other = body.args
    if isinstance(lanes.kind, InPairs) and isinstance(other.kind, InPairs):
        return lanes, other
    return None


def sums(
    code: VectorCode,
    fold: Term,
    every: Sequence[tuple[int, int]],
    start: Sequence[SSAValue],
    lower: SSAValue,
    upper: SSAValue,
) -> list[SSAValue]:
    """A sum of products of pairs as a loop, an accumulator for each copy and vector."""
    kind, body_ = fold.kind, fold.args[-1]
    assert isinstance(kind, Folded | ChunkFold)
    factors = factors_of(body_)
    assert factors is not None
    lanes, other = factors
    is_masked = code.mask is not None and isinstance(kind, ChunkFold)

    def step(
        is_last: bool,
    ) -> Callable[[SSAValue, list[SSAValue]], Sequence[SSAValue]]:
        def body(count: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            first = code.mul(count, 2)
            if isinstance(kind, ChunkFold):
                assert code.start is not None
                first = code.add(code.start, first)
            with code.bound(kind.index, first, count):
                if not is_last:
                    code.ask_ahead(body_, kind.index)
                after: list[SSAValue] = []
                masks = _masks(code, kind.index, first) if is_masked else []
                for before, (copy, number) in zip(carried, every, strict=True):
                    left = _in_lanes(code, lanes, copy, number)
                    right = _everywhere(code, other, copy, is_last)
                    if masks:
                        # What a lane has no index for does not count, whatever it is.
                        mask = masks[number]
                        left = code.once(
                            ("masked", code.key(lanes, copy, number)),
                            lambda left=left, mask=mask: _only(code, left, mask),
                        )
                        right = code.make(arith.AndIOp, (right, mask), right.type)
                    after.append(dot(code, before, left, right))
                return after

        return body

    is_full = len(every) >= FULL
    length = code.sub(upper, lower) if lower is not code.number(0) else upper
    pairs = code.div(code.add(length, 1), 2)
    if isinstance(other.args[0].kind, Held):
        # Both are in tiles, which end with 0.
        return code.loop(code.number(0), pairs, 1, start, step(False), is_full)
    whole = code.div(length, 2)
    found = code.loop(code.number(0), whole, 1, start, step(False), is_full)
    return code.loop(whole, pairs, 1, found, step(True))


def dot(code: VectorCode, to: SSAValue, left: SSAValue, right: SSAValue) -> SSAValue:
    """Sums with the products of pairs more, which are bf16 or i32 of two of them."""
    halves = VectorType(bf16, [2 * code.lanes.lanes])
    operands = [to]
    for value in (left, right):
        is_whole = value.type != halves
        operands.append(
            code.emit(vector.BitcastOp(value, halves)) if is_whole else value
        )
    op = UnregisteredOp.with_name(DOT)
    return code.emit(op.create(operands=operands, result_types=[to.type]))


def _in_lanes(code: VectorCode, factor: Term, copy: int, number: int) -> SSAValue:
    """The pairs of the factor that is in the lanes."""
    value = factor.args[0]
    assert isinstance(value.kind, Held)
    buffer = code.buffers[value.kind.name]

    def load() -> SSAValue:
        indices = code.buffer_indices(buffer, value, copy)
        lane = code.number(number * code.lanes.lanes)
        type_ = code.vector_type(i32)
        return code.emit(vector.LoadOp(buffer.memory, [*indices, lane], type_))

    return code.once(("pairs", code.key(factor, copy, number)), load)


def _everywhere(code: VectorCode, factor: Term, copy: int, is_last: bool) -> SSAValue:
    """The pair of the other factor in all lanes; its second is 0 if it `is_last`."""
    value = factor.args[0]

    def load() -> SSAValue:
        if isinstance(value.kind, Held):
            buffer = code.buffers[value.kind.name]
            indices = code.buffer_indices(buffer, value, copy)
            return code.broadcast(code.emit(memref.LoadOp.get(buffer.memory, indices)))
        if is_last:
            return code.broadcast(_bits(code, code.value(value, copy)))
        array = value.args[0].kind
        assert isinstance(array, SSAValue)
        memory, _ = code.place(array)
        return pair_at(code, memory, [code.address(value, copy)])

    return code.once(("pair", code.key(factor, copy, 0)), load)


def pair_at(
    code: VectorCode, memory: SSAValue, indices: Sequence[SSAValue]
) -> SSAValue:
    """Two elements that lie next to each other, as a pair in all lanes."""
    pair = code.emit(vector.LoadOp(memory, indices, VectorType(bf16, [2])))
    whole = code.emit(vector.BitcastOp(pair, VectorType(i32, [1])))
    return code.broadcast(code.emit(vector.ExtractOp(whole, [0], i32)))


def _only(code: VectorCode, pairs: SSAValue, mask: SSAValue) -> SSAValue:
    """Pairs with -0 in the place of halves that are not in a mask."""
    type_ = pairs.type
    kept = code.make(arith.AndIOp, (pairs, mask), type_)
    every = code.constant(-1, i32, True)
    others = code.make(arith.XOrIOp, (mask, every), type_)
    signs = code.constant(_SIGN | _SIGN >> 16 & 0xFFFF, i32, True)
    zeros = code.make(arith.AndIOp, (others, signs), type_)
    return code.make(arith.OrIOp, (kept, zeros), type_)


def _masks(code: VectorCode, index: str, first: SSAValue) -> list[SSAValue]:
    """For each vector all bits of the halves whose index the lanes have."""
    count = code.local[index]
    assert code.mask is not None
    found: list[SSAValue] = []
    nothing = code.constant(0, i32, True)
    halves = [code.constant(bits, i32, True) for bits in (0xFFFF, -0x10000)]
    for number in range(code.lanes.vectors):
        parts: list[SSAValue] = []
        for k, half in enumerate(halves):
            place = code.add(code.mul(count, 2), k)
            with code.scope(), code.bound(index, code.add(first, k), place):
                mask = code.mask(0, number)
            parts.append(code.make(arith.SelectOp, (mask, half, nothing), nothing.type))
        found.append(code.make(arith.OrIOp, parts, nothing.type))
    return found


# One element, and two.


def _bits(code: VectorCode, value: SSAValue) -> SSAValue:
    """A bf16 in the lower half of an i32, alone or in each lane."""
    if isa(value.type, VectorType):
        half = code.emit(vector.BitcastOp(value, code.vector_type(i16)))
        return code.make(arith.ExtUIOp, (half,), code.vector_type(i32))
    half = code.emit(arith.BitcastOp(value, i16))
    return code.emit(arith.ExtUIOp(half, i32))


def packed(
    code: VectorCode, low: SSAValue, high: SSAValue | None, in_lanes: bool = True
) -> SSAValue:
    """Pairs of two bf16, alone or in each lane.

    Nothing in the place of the second is -0 for a factor `in_lanes`, 0 for the other.
    """
    if high is None:
        bits = _bits(code, low)
        if not in_lanes:
            return bits
        sign = code.constant(_SIGN, i32, isa(bits.type, VectorType))
        return code.make(arith.OrIOp, (bits, sign), bits.type)
    type_ = low.type
    if not isa(type_, VectorType):
        bits = [_bits(code, low), _bits(code, high)]
        sixteen = code.constant(16, i32, False)
        bits[1] = code.emit(arith.ShLIOp(bits[1], sixteen))
        return code.emit(arith.OrIOp(bits[0], bits[1]))
    count = type_.get_shape()[0]
    mask = [k // 2 + (k % 2) * count for k in range(2 * count)]
    mixed = shuffled(code, low, high, mask)
    return code.emit(vector.BitcastOp(mixed, VectorType(i32, [count])))


def packed_each(
    code: VectorCode, low: SSAValue, high: SSAValue | None
) -> list[SSAValue]:
    """Pairs of two bf16 in each lane, of one vector or of two that lie in one."""
    type_, lanes = low.type, code.lanes.lanes
    assert isa(type_, VectorType)
    (count,) = type_.get_shape()
    if count == lanes:
        return [packed(code, low, high)]
    if high is None:
        halves = [range(k, k + lanes) for k in range(0, count, lanes)]
        parts = [shuffled(code, low, low, half) for half in halves]
        return [packed(code, part, None) for part in parts]
    found: list[SSAValue] = []
    for first in range(0, count, lanes):
        mask = [first + k // 2 + (k % 2) * count for k in range(2 * lanes)]
        mixed = shuffled(code, low, high, mask)
        found.append(code.emit(vector.BitcastOp(mixed, VectorType(i32, [lanes]))))
    return found


def _half(code: VectorCode, index: SSAValue, type_: VectorType) -> SSAValue:
    """By how many bits the element of an index is shifted in its pair."""
    odd = code.make(arith.RemUIOp, (index, code.number(2)), index.type)
    bits = code.mul(odd, 16)
    return code.emit(vector.BroadcastOp(code.emit(arith.IndexCastOp(bits, i32)), type_))


def read_one(
    code: VectorCode, buffer: Buffer, term: Term, copy: int, number: int
) -> SSAValue:
    """One element of a tile that lies in pairs, for each lane."""
    indices = code.buffer_indices(buffer, term, copy)
    place = buffer.axes.index(buffer.pairs)
    type_ = code.vector_type(i32)
    shift = _half(code, indices[place], type_)
    indices[place] = code.div(indices[place], 2)
    lane = code.number(number * code.lanes.lanes)
    pair = code.emit(vector.LoadOp(buffer.memory, [*indices, lane], type_))
    shifted = code.make(arith.ShRUIOp, (pair, shift), type_)
    half = code.make(arith.TruncIOp, (shifted,), code.vector_type(i16))
    return code.emit(vector.BitcastOp(half, code.vector_type(bf16)))


def store(code: VectorCode, buffer: Buffer, value: Term) -> None:
    """Put elements of a statement into a tile that lies in pairs, for all copies.

    Indices come in ascending order: what is stored for an even one has -0 after it.
    """
    place = buffer.axes.index(buffer.pairs)
    by_two = code.register == buffer.pairs and code.copies % 2 == 0
    type_ = code.vector_type(i32)
    for copy in range(0, code.copies, 2 if by_two else 1):
        indices = [code.local_index(axis, copy) for axis in buffer.axes]
        index = indices[place]
        indices[place] = code.div(index, 2)
        for number in range(code.lanes.vectors):
            at = [*indices, code.number(number * code.lanes.lanes)]
            low = code.vector(value, copy, number)
            if by_two:
                pair = packed(code, low, code.vector(value, copy + 1, number))
            else:
                shift = _half(code, index, type_)
                bits = code.make(arith.ShLIOp, (_bits(code, low), shift), type_)
                before = code.emit(vector.LoadOp(buffer.memory, at, type_))
                zero = code.constant(0, i32, True)
                is_even = code.make(
                    arith.CmpiOp, (shift, zero), code.vector_type(i1), _EQUAL
                )
                low_half = code.constant(0xFFFF, i32, True)
                sign = code.constant(_SIGN, i32, True)
                kept = code.make(arith.AndIOp, (before, low_half), type_)
                kept = code.make(arith.SelectOp, (is_even, sign, kept), type_)
                pair = code.make(arith.OrIOp, (kept, bits), type_)
            code.builder.insert(vector.StoreOp(pair, buffer.memory, at))
