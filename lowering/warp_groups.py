"""The matrix products of Hopper's warp groups, emulated.

A product is computed when its group is waited for, from what is in shared memory then.
Until then the registers of its accumulators hold numbers that are NaN and say which
accumulator they stand for; `wgmma.wait_group` puts the values in the place of those
that it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

from moa_dialect.errors import KernelError
from moa_dialect.lowering.copy_engine import Bytes, swizzled
from moa_dialect.lowering.races import Places, Races

Words = npt.NDArray[np.uint32]
Matrix = npt.NDArray[np.float32]

_TAG = np.uint32(0xFFC00000)
_ACCUMULATORS = 1 << 14
"""How many accumulators are told apart by their tags."""


@dataclass(frozen=True)
class Product:
    """What is fixed in a `wgmma.mma_async`: m64, n, k and the forms of its operands.

    Attributes:
        n: columns of the accumulator.
        k: the extent that is summed.
        kind: the element type of A and B.
        a_in_registers: whether A is in registers, else in shared memory.
        a_transposed: whether A lies with m innermost.
        b_transposed: whether B lies with n innermost.
        keeps: whether the accumulator is added to; None if a register says so.
        negative: whether the product is subtracted.
    """

    n: int
    k: int
    kind: str
    a_in_registers: bool
    a_transposed: bool
    b_transposed: bool
    keeps: bool | None
    negative: bool

    @property
    def item_bytes(self) -> int:
        """The size of an element of A and B."""
        return 4 if self.kind == "tf32" else 2


@cache
def _offsets(
    rows: int, k: int, item: int, lbo: int, sbo: int, swizzle: int, transposed: bool
) -> npt.NDArray[np.int64]:
    """Bytes from the start of an operand to its elements, before they are swizzled.

    The canonical layouts of the PTX ISA, section "Shared Memory Matrix Layout".
    """
    r = np.arange(rows, dtype=np.int64)[:, None]
    c = np.arange(k, dtype=np.int64)[None, :]
    if transposed:
        # The innermost axis is that of the rows.
        if swizzle:
            width = swizzle // item
            return r // width * lbo + c // 8 * sbo + c % 8 * swizzle + r % width * item
        width = 16 // item
        return r // width * sbo + c // 8 * lbo + c % 8 * 16 + r % width * item
    if swizzle:
        return r // 8 * sbo + r % 8 * swizzle + c * item
    width = 16 // item
    return r // 8 * sbo + c // width * lbo + r % 8 * 16 + c % width * item


def _numbers(words: npt.NDArray[np.unsignedinteger], kind: str) -> Matrix:
    """Elements as f32."""
    if kind == "bf16":
        return (words.astype(np.uint32) << 16).view(np.float32)
    if kind == "f16":
        return words.view(np.float16).astype(np.float32)
    # The hardware does not read the lower 13 bits.
    return (words & np.uint32(0xFFFFE000)).view(np.float32)


def operand(
    shared: Bytes, descriptor: int, rows: int, product: Product, transposed: bool
) -> Matrix:
    """The matrix (rows x k) that a descriptor of shared memory stands for.

    Raises:
        KernelError: for a base offset, which is not emulated.
    """
    item = product.item_bytes
    elements = shared.view(np.uint32 if item == 4 else np.uint16)
    places = places_of(descriptor, rows, product, transposed)
    return _numbers(elements[places // item], product.kind)


def places_of(descriptor: int, rows: int, product: Product, transposed: bool) -> Places:
    """Where the elements (rows x k) are that a descriptor stands for, in bytes.

    Raises:
        KernelError: for a base offset, which is not emulated.
    """
    start, lbo, sbo = ((descriptor >> shift & 0x3FFF) << 4 for shift in (0, 16, 32))
    if descriptor >> 49 & 7:
        raise KernelError("a matrix descriptor with a base offset")
    swizzle = (0, 128, 64, 32)[descriptor >> 62 & 3]
    item = product.item_bytes
    offsets = _offsets(rows, product.k, item, lbo, sbo, swizzle, transposed)
    return swizzled(start + offsets, swizzle) & 0x3FFFF


def registers_of(matrix: Matrix) -> Matrix:
    """An accumulator (64 x n) as the registers of 128 threads."""
    n = matrix.shape[1]
    parts = matrix.reshape(4, 2, 8, n // 8, 4, 2)
    return parts.transpose(0, 2, 4, 3, 1, 5).reshape(128, n // 2)


def matrix_of(registers: Matrix) -> Matrix:
    """The registers of 128 threads as an accumulator (64 x n)."""
    n = 2 * registers.shape[1]
    parts = registers.reshape(4, 8, 4, n // 8, 2, 2)
    return parts.transpose(0, 4, 1, 3, 2, 5).reshape(64, n)


def fragments_of(registers: Words, kind: str) -> Matrix:
    """Four registers of 128 threads as the matrix A (64 x k)."""
    if kind == "tf32":
        parts = _numbers(registers, kind).reshape(4, 8, 4, 2, 2)
        return parts.transpose(0, 4, 1, 3, 2).reshape(64, 8)
    halves = np.ascontiguousarray(registers).view(np.uint16)
    parts = _numbers(halves, kind).reshape(4, 8, 4, 2, 2, 2)
    return parts.transpose(0, 4, 1, 3, 2, 5).reshape(64, 16)


@dataclass
class _Issued:
    product: Product
    accumulator: int
    keeps: bool
    a: Matrix | None
    a_descriptor: int
    b_descriptor: int
    group: int
    time: int = 0


@dataclass
class WarpGroup:
    """The products of one warp group.

    Attributes:
        shared: the memory of the block.
        eager: whether products are computed at once, for kernels whose waits do not
            name the registers.
        first: the number of its first warp.
        races: what is known of accesses; None if races are not looked for.
    """

    shared: Bytes
    eager: bool
    first: int = 0
    races: Races | None = None
    issued: list[_Issued] = field(default_factory=list[_Issued])
    values: dict[int, Matrix] = field(default_factory=dict[int, Matrix])
    _last: int = 0
    _done: int = 0

    def _access(self, product: Product, descriptors: tuple[int, int]) -> int:
        """Note what a product reads; gives the time of that."""
        races, time = self.races, 0
        if races is None:
            return time
        a, b = descriptors
        actor, warps = races.group(32 * self.first), range(4)
        if not product.a_in_registers:
            places = places_of(a, 64, product, product.a_transposed)
            for warp in warps:  # Each has rows of its own.
                own = places[16 * warp : 16 * warp + 16]
                time = races.access(actor, [self.first + warp], own, False)
        places = places_of(b, product.n, product, product.b_transposed)
        return races.access(actor, [self.first + k for k in warps], places, False)

    def issue(
        self,
        product: Product,
        registers: Words,
        a: Words,
        descriptors: tuple[int, int],
        keeps: bool,
        group: int,
        fenced: bool,
    ) -> Words:
        """Begin a product; gives what the registers hold until it is waited for.

        Args:
            product: what is fixed.
            registers: those of the accumulator (128 x n / 2).
            a: those of A (128 x 4), if it is in registers.
            descriptors: of A and B.
            keeps: whether the accumulator is added to.
            group: the number of the group that it will be part of.
            fenced: whether `wgmma.fence` was executed since the last wait.

        Raises:
            KernelError: if registers come to it, or A, without a fence.
        """
        number = self._accumulator(registers) if keeps else 0
        if (product.a_in_registers or not number) and not fenced:
            raise KernelError("wgmma.mma_async takes registers without wgmma.fence")
        if not number:
            self._last = number = self._last % (_ACCUMULATORS - 1) + 1
            matrix = np.full((64, product.n), np.nan, np.float32)
            if keeps:
                matrix = matrix_of(registers.view(np.float32)).copy()
            self.values[number] = matrix
        fragments = fragments_of(a, product.kind) if product.a_in_registers else None
        time = self._access(product, descriptors)
        self.issued.append(
            _Issued(product, number, keeps, fragments, *descriptors, group, time)
        )
        if self.eager:
            self._compute(self.issued.pop())
            return registers_of(self.values.pop(number)).view(np.uint32)
        columns = np.arange(product.n // 2, dtype=np.uint32)
        tags = _TAG | np.uint32(number << 7) | columns
        return np.broadcast_to(tags, (128, product.n // 2))

    def _accumulator(self, registers: Words) -> int:
        """The number of the accumulator that registers stand for, or 0."""
        first = int(registers[0, 0])
        number = (first & 0x3FFFFF) >> 7
        if first & int(_TAG) != int(_TAG) or number not in self.values:
            return 0
        columns = np.arange(registers.shape[1], dtype=np.uint32)
        expected = _TAG | np.uint32(number << 7) | columns
        return number if bool((registers == expected).all()) else 0

    def _compute(self, issued: _Issued) -> None:
        product = issued.product
        self._done = max(self._done, issued.time)
        a = issued.a
        if a is None:
            a = operand(
                self.shared, issued.a_descriptor, 64, product, product.a_transposed
            )
        b = operand(
            self.shared, issued.b_descriptor, product.n, product, product.b_transposed
        )
        with np.errstate(all="ignore"):
            result = a @ b.T
            if product.negative:
                result = -result
            if issued.keeps:
                result += self.values[issued.accumulator]
        self.values[issued.accumulator] = result

    def wait(self, registers: Words, last: int) -> Words:
        """Compute the groups before `last`; gives the values of registers."""
        while self.issued and self.issued[0].group < last:
            self._compute(self.issued.pop(0))
        if self.races is not None:
            warps = [self.first + warp for warp in range(4)]
            self.races.learn(warps, self.races.group(32 * self.first), self._done)
        under_way = {each.accumulator for each in self.issued}
        found = registers.copy()
        numbers = (registers[0] & np.uint32(0x3FFFFF)) >> np.uint32(7)
        tagged = (registers[0] & _TAG) == _TAG
        for each in np.unique(numbers[tagged]):
            number = int(each)
            if number not in self.values or number in under_way:
                continue
            values = registers_of(self.values[number]).view(np.uint32)
            places = np.nonzero(tagged & (numbers == number))[0]
            columns = registers[0, places] & np.uint32(0x7F)
            found[:, places] = values[:, columns]
            if np.unique(columns).size == values.shape[1]:
                del self.values[number]
        return found
