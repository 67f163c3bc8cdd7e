"""Sums of products over tiles: by matrix instructions, or by fused multiply-adds.

A sum of products over an axis, for rows and columns, of a factor that depends on the
rows and one that depends on the columns is a product of matrices. Its factors are read
from tiles in shared memory; or the first one is computed, and then its values are where
the instruction wants them: an accumulator's columns are the next product's terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects import arith, llvm, math, memref, vector
from xdsl.dialects.builtin import (
    BFloat16Type,
    Float16Type,
    MemRefType,
    StringAttr,
    VectorType,
    f32,
    f64,
    i32,
    i64,
)
from xdsl.ir import Attribute, SSAValue

from moa_dialect.lowering.emitter import NotLifted, neutral
from moa_dialect.lowering.gpu_ops import (
    AlignedLoadOp,
    ConvertToBf16x2Op,
    ConvertToF16x2Op,
    FromElementsOp,
    LdMatrixOp,
    MmaOp,
    static_position,
)
from moa_dialect.lowering.group_tiles import Tile
from moa_dialect.lowering.groups import (
    Fragments,
    GroupCode,
    Pending,
    Values,
    vector_bytes,
)
from moa_dialect.passes.products import PANEL_BYTES, SWIZZLE_BYTES, Product
from moa_dialect.passes.terms import Folded, Term

STEP = 4
"""How many terms of a sum are read at a time for fused multiply-adds."""


UNROLL = 2
"""How many times that much before the next branch."""


def _nothing(product: Product) -> None:
    """Nothing has to be done."""


@dataclass
class Products:
    """Emits products of matrices.

    Attributes:
        code: the emitter.
        tier: the instructions for products of matrices (see `Grid`).
        tiles: the tiles of factors.
        index: the index of the pass.
        block: how many of its indices are taken at a time.
        offset: where in the tiles of a chunk they begin.
        spill: puts the values of a term that is computed into a tile.
        before: is told before a product reads its tiles.
        after: is told after a product has read its tiles.
        tall: how many terms instructions of 16 rows add up for f64; 0 without those.
    """

    code: GroupCode
    tier: str
    tiles: dict[Term, Tile]
    spill: Callable[[Product], Tile]
    index: str
    block: int
    offset: int = 0
    before: Callable[[Product], None] = _nothing
    after: Callable[[Product], None] = _nothing
    tall: int = 0

    def emit(self, product: Product, first: Term | None) -> Values | Pending:
        """Emit a product, added to the values of a term if there is one."""
        code = self.code
        every = code.every(product.fold)
        if product.is_narrow and self.tier == "wgmma":
            # What is added to may be computed in the background meanwhile.
            factors = self._fragments(product)
            sums = list(self.start(product, first).values()) if first else []
            return self._of_group(product, every, sums, factors)
        return self.rounded(product, self.added(product, self.start(product, first)))

    def start(self, product: Product, first: Term | None) -> Values:
        """What a product is added to: the values of a term, or nothing."""
        code, type_ = self.code, product.sum_type
        every = code.every(product.fold)
        if first is not None:
            values = {place: code.value(first, *place) for place in every}
            return {place: self._wide(value) for place, value in values.items()}
        unit = 0.0 if product.has_matrices(self.tier) else -0.0
        return dict.fromkeys(every, code.constant(unit, type_))

    def rounded(self, product: Product, values: Values) -> Values:
        """Sums in the type of the product's fold."""
        if product.sum_type == (type_ := product.fold.type):
            return values
        return {
            place: self.code.emit(arith.TruncFOp(value, type_))
            for place, value in values.items()
        }

    def added(self, product: Product, start: Values) -> Values:
        """The values with a product added, at once, in the type that it is added in."""
        self.before(product)
        found = self._added(product, start)
        self.after(product)
        return found

    def _added(self, product: Product, start: Values) -> Values:
        if not product.has_matrices(self.tier):
            return self._multiply_add(product, start)
        if not isinstance(self.code.layout, Fragments):
            raise NotLifted("square or lanes: products by matrix instructions")
        if product.is_narrow:
            return self._narrow(product, start)
        if product.is_tf32:
            return self._rounded(product, start)
        return self._double(product, start)

    def _size(self, product: Product) -> int:
        """How many terms the sum has, with zeros to fill it up."""
        if product.axis == self.index:
            return self.block
        tile = self.tiles[product.right]
        return tile.sizes[tile.axes.index(product.axis)]

    def _indices(self, tile: Tile, places: dict[str, SSAValue]) -> list[SSAValue]:
        """The indices of an element in the memory of a tile."""
        if self.offset and tile.is_loaded and self.index in places:
            shifted = self.code.add(places[self.index], self.offset)
            places = places | {self.index: shifted}
        return tile.indices(self.code, places)

    # 16x8x16, f16 and bf16.

    def _narrow(self, product: Product, start: Values) -> Values:
        code = self.code
        values = dict(start)
        blocks = (1 + max(column for _, column in start)) // 2
        right = self.tiles[product.right]
        for step in range(self._size(product) // 16):
            left = [
                self._left_fragment(product, step, pair)
                for pair in range(len(code.rows) // 2)
            ]
            for first in range(0, blocks, 2):
                count = min(2, blocks - first)
                columns = self._right_fragments(product, right, step, first, count)
                for block, column in enumerate(columns, first):
                    for pair, row in enumerate(left):
                        places = [
                            (2 * pair + high, 2 * block + odd)
                            for high in (0, 1)
                            for odd in (0, 1)
                        ]
                        sums = [values[place] for place in places]
                        op = MmaOp(row, column, sums, product.element)
                        found = code.emit(op)
                        for number, place in enumerate(places):
                            values[place] = self._member(found, number, f32)
        return values

    def _member(self, value: SSAValue, number: int, type_: Attribute) -> SSAValue:
        op = llvm.ExtractValueOp(static_position(number), value, type_)
        return self.code.emit(op)

    def _left_fragment(
        self, product: Product, step: int, pair: int
    ) -> tuple[SSAValue, ...]:
        """16 rows and 16 terms of the left factor, as the instruction takes them."""
        code = self.code
        tile = self.tiles.get(product.left)
        if tile is None:
            return tuple(
                self._packed(product, 2 * pair + high, 2 * (2 * step + late))
                for late in (0, 1)
                for high in (0, 1)
            )
        lane = code.lane
        first = code.mul(code.warp, 8 * len(code.rows))
        if tile.axes[1] == product.axis:
            row, term = code.rem(lane, 16), code.mul(code.div(lane, 16), 8)
        else:
            row = code.mul(code.rem(code.div(lane, 8), 2), 8)
            term = code.add(code.rem(lane, 8), code.mul(code.div(lane, 16), 8))
        places = {
            product.axis: code.add(term, 16 * step),
            code.row_axis: code.add(code.add(row, first), 16 * pair),
        }
        is_turned = tile.axes[1] != product.axis
        return tuple(self._matrices(tile, places, 4, is_turned))

    def _right_fragments(
        self, product: Product, tile: Tile, step: int, block: int, count: int
    ) -> list[list[SSAValue]]:
        """16 terms of 8 columns of the right factor, for one or two blocks of them."""
        code, lane = self.code, self.code.lane
        if tile.axes[1] == product.axis:
            column = code.add(code.rem(lane, 8), code.mul(code.div(lane, 16), 8))
            term = code.mul(code.rem(code.div(lane, 8), 2), 8)
        else:
            column = code.mul(code.div(lane, 16), 8)
            term = code.rem(lane, 16)
        if count == 1:
            column = (
                code.rem(lane, 8) if tile.axes[1] == product.axis else code.number(0)
            )
        places = {
            product.axis: code.add(term, 16 * step),
            product.columns: code.add(column, 8 * block),
        }
        is_turned = tile.axes[1] != product.axis
        found = self._matrices(tile, places, 2 * count, is_turned)
        return [found[2 * k : 2 * k + 2] for k in range(count)]

    def _matrices(
        self, tile: Tile, places: dict[str, SSAValue], count: int, is_turned: bool
    ) -> list[SSAValue]:
        code = self.code
        op = LdMatrixOp(tile.memory, self._indices(tile, places), count, is_turned)
        found = code.emit(op)
        pair = VectorType(tile.element, [2])
        pairs = [
            code.emit(
                vector.ExtractOp.create(
                    operands=[found],
                    result_types=[pair],
                    properties={"static_position": static_position(number)},
                )
            )
            for number in range(count)
        ]
        return [self._operand(value) for value in pairs]

    def _operand(self, pair: SSAValue) -> SSAValue:
        """A pair of narrow floats as the instruction takes it: bf16 as an i32."""
        assert isinstance(pair.type, VectorType)
        if isinstance(pair.type.element_type, Float16Type):
            return pair
        return self.code.emit(llvm.BitcastOp(pair, i32))

    def _packed(self, product: Product, row: int, column: int) -> SSAValue:
        """Two values of a computed factor that lie next to each other."""
        code, term = self.code, product.left
        key = ("packed", code.key(term, row, column))
        return code.once(key, lambda: self._pack(product, row, column))

    def _pack(self, product: Product, row: int, column: int) -> SSAValue:
        code, term = self.code, product.left
        mask = code.columns[product.axis].valid
        values: list[SSAValue] = []
        is_rounded = term.computes("arith.truncf") and term.args[0].type == f32
        wide = term.args[0] if is_rounded else term
        for number in (column, column + 1):
            value = code.value(wide, row, number)
            if mask is not None:
                # As in a sum of the same values, so that it is one choice.
                zero = code.constant(-0.0, value.type)
                value = code.select(mask(row, number), value, zero)
            values.append(value)
        if is_rounded:
            is_bf16 = isinstance(product.element, BFloat16Type)
            convert = ConvertToBf16x2Op if is_bf16 else ConvertToF16x2Op
            return self._operand(
                code.emit(convert(values[1], values[0], product.element))
            )
        return self._operand(code.emit(FromElementsOp(values)))

    # 64xNx16 of four warps, f16 and bf16.

    def fragments(self, product: Product) -> int:
        """How many words a computed first factor takes."""
        return 4 * (self._size(product) // 16)

    def prepare(self, product: Product) -> None:
        """Compute the elements of a first factor, before they are rounded."""
        code, term = self.code, product.left
        is_rounded = term.computes("arith.truncf") and term.args[0].type == f32
        wide = term.args[0] if is_rounded else term
        for place in code.every(wide):
            code.value(wide, *place)

    def words(self, product: Product) -> list[SSAValue]:
        """A computed first factor as words, in pairs of elements."""
        found = [word for step in self._fragments(product) for word in step]
        if isinstance(product.element, Float16Type):
            return list(map(self._as_word, found))
        return found

    def later(
        self, product: Product, start: Values, words: Sequence[SSAValue]
    ) -> Pending:
        """Begin a product whose first factor was computed before, as words."""
        every = list(start)
        steps = range(0, len(words), 4)
        factors = [tuple(words[step : step + 4]) for step in steps]
        return self._of_group(product, every, list(start.values()), factors)

    def _fragments(self, product: Product) -> list[tuple[SSAValue, ...]]:
        """The first factor in registers, if it is computed."""
        if product.left in self.tiles:
            return []
        steps = self._size(product) // 16
        return [self._left_fragment(product, step, 0) for step in range(steps)]

    def _of_group(
        self,
        product: Product,
        every: Sequence[tuple[int, int]],
        start: Sequence[SSAValue],
        factors: Sequence[tuple[SSAValue, ...]],
    ) -> Pending:
        """A product by an instruction of four warps, which have 64 rows.

        Args:
            product: the product.
            every: the rows and columns of a thread.
            start: for each of them what the product is added to; or nothing.
            factors: the fragments of the first factor, if it is computed.
        """
        code = self.code
        places = sorted(every, key=lambda place: (place[1] // 2, place))
        count = len(places)
        values = dict(zip(every, start, strict=False))
        sums = [values[place] for place in places if start]
        right = self.tiles[product.right]
        left = self.tiles.get(product.left)
        steps = self._size(product) // 16
        self.before(product)
        code.assembly("wgmma.fence.sync.aligned;")
        type_ = llvm.LLVMStructType.from_type_list([f32] * count)
        results = ", ".join(f"${number}" for number in range(count))
        tied = [str(number) for number in range(count)]
        name = "bf16" if isinstance(product.element, BFloat16Type) else "f16"
        b_turned = int(right.axes[1] != product.axis)
        head = (
            f"wgmma.mma_async.sync.aligned.m64n{2 * count}k16.f32.{name}.{name} "
            f"{{{results}}}"
        )
        for step in range(steps):
            keeps = int(bool(start) or step > 0)
            b = self._descriptor(right, product, step)
            if left is None:
                a = ", ".join(f"${count + k}" for k in range(4))
                text = f"{head}, {{{a}}}, ${count + 4}, {keeps}, 1, 1, {b_turned};"
                operands = [*factors[step], b]
                kinds = ["r"] * 4
                if factors[step][0].type != i32:
                    operands = [*map(self._as_word, factors[step]), b]
            else:
                a_turned = int(left.axes[1] != product.axis)
                row = code.mul(code.div(code.warp, 4), 64)
                operands = [self._descriptor(left, product, step, row), b]
                turned = f"{a_turned}, {b_turned}"
                text = f"{head}, ${count}, ${count + 1}, {keeps}, 1, 1, {turned};"
                kinds = ["l"]
            # An instruction that does not add to them does not read them.
            inputs = [*kinds, "l", *(tied if keeps else [])]
            constraints = ",".join(["=f"] * count + inputs)
            found = code.assembly(text, constraints, [*operands, *sums], type_)
            assert found is not None
            sums = [self._member(found, number, f32) for number in range(count)]
        code.assembly("wgmma.commit_group.sync.aligned;")

        def finish(later: int) -> Values:
            constraints = ",".join(["=f"] * count + tied + ["~{memory}"])
            text = f"wgmma.wait_group.sync.aligned {later};"
            found = code.assembly(text, constraints, sums, type_)
            assert found is not None
            values = {
                place: self._member(found, number, f32)
                for number, place in enumerate(places)
            }
            self.after(product)
            return self.rounded(product, values)

        pending = Pending(finish)
        code.in_flight.append(pending)
        return pending

    def _as_word(self, pair: SSAValue) -> SSAValue:
        return self.code.emit(llvm.BitcastOp(pair, i32))

    def _descriptor(
        self, tile: Tile, product: Product, step: int, row: SSAValue | None = None
    ) -> SSAValue:
        """Where 16 terms of a factor lie, as the instruction reads it.

        The fields of the "matrix descriptor" of the PTX ISA: the address, the offset
        from one panel to the next where these are beside each other in rows or columns,
        the offset from eight rows to the next eight, and the 128-byte swizzle.
        """
        code = self.code
        assert isinstance(tile.memory.type, MemRefType)
        rows = tile.memory.type.get_shape()[-2]
        panel_bytes = rows * PANEL_BYTES
        places = {product.axis: 16 * step, product.columns: 0}
        if self.index in places:
            places[self.index] += self.offset
        across, along = (places.get(axis, 0) for axis in tile.axes)
        panel, rest = divmod(along, tile.panel)
        offset = panel * panel_bytes + rest * PANEL_BYTES // tile.panel
        offset += across * PANEL_BYTES
        fields = (panel_bytes >> 4) << 16 | (SWIZZLE_BYTES >> 4) << 32 | 1 << 62
        key = ("descriptor", tile.memory, tile.stage, row)
        base = code.once(key, lambda: self._base(tile, fields, row))
        if not offset:
            return base
        number = code.constant(offset >> 4, i64)
        return code.emit(arith.AddiOp(base, number))

    def _base(self, tile: Tile, fields: int, row: SSAValue | None) -> SSAValue:
        code = self.code
        pointer = memref.ExtractAlignedPointerAsIndexOp.get(tile.memory)
        address = code.emit(pointer)
        if tile.stages > 1:
            assert tile.stage is not None
            address = code.add(address, code.mul(tile.stage, tile.stage_bytes))
        if row is not None:
            address = code.add(address, code.mul(row, PANEL_BYTES))
        word = code.emit(arith.IndexCastOp(address, i64))
        word = code.emit(arith.AndIOp(word, code.constant(0x3FFFF, i64)))
        word = code.emit(arith.ShRUIOp(word, code.constant(4, i64)))
        return code.emit(arith.OrIOp(word, code.constant(fields, i64)))

    # 8x8x4, or 16x8x4, 16x8x8 and 16x8x16, f64.

    def _double(self, product: Product, start: Values) -> Values:
        values, rows = dict(start), len(self.code.rows)
        blocks = (1 + max(column for _, column in start)) // 2
        is_tall = self.tall and rows % 2 == 0
        most = self.tall // 4 if is_tall else 1
        first, count = 0, self._size(product) // 4
        while first < count:
            while most > count - first:
                most //= 2
            steps = range(first, first + most)
            for pair in range(0, rows, 2 if is_tall else 1):
                pairs = (pair, pair + 1) if is_tall else (pair,)
                left = [
                    self._left_double(product, step, row)
                    for step in steps
                    for row in pairs
                ]
                for block in range(blocks):
                    right = [self._right_double(product, step, block) for step in steps]
                    places = [(row, 2 * block + odd) for row in pairs for odd in (0, 1)]
                    sums = [values[place] for place in places]
                    found = self._double_sums(left, right, sums)
                    for number, place in enumerate(places):
                        values[place] = self._member(found, number, f64)
            first += most
        return values

    def _double_sums(
        self,
        left: Sequence[SSAValue],
        right: Sequence[SSAValue],
        sums: Sequence[SSAValue],
    ) -> SSAValue:
        """Sums with a product of fragments added, by one instruction."""
        if len(sums) == 2:
            return self.code.emit(MmaOp(left, right, sums, f64))
        count, each = len(sums), len(left)

        def names(first: int, number: int) -> str:
            return "{" + ", ".join(f"${first + k}" for k in range(number)) + "}"

        text = (
            f"mma.sync.aligned.m16n8k{4 * len(right)}.row.col.f64.f64.f64.f64 "
            f"{names(0, count)}, {names(count, each)}, "
            f"{names(count + each, len(right))}, {names(0, count)};"
        )
        tied = [str(number) for number in range(count)]
        kinds = ["=d"] * count + ["d"] * (each + len(right)) + tied
        type_ = llvm.LLVMStructType.from_type_list([f64] * count)
        # It is said to have effects so that it stays where all threads come by.
        operands = [*left, *right, *sums]
        found = self.code.assembly(text, ",".join(kinds), operands, type_)
        assert found is not None
        return found

    def _double_term(self, product: Product, step: int) -> SSAValue:
        """Which of four terms a lane has.

        The terms of a sum have no order: those of a computed factor are taken as they
        are spread over the lanes.
        """
        code = self.code
        turn = code.rem(code.lane, 4)
        if product.left in self.tiles:
            return code.add(turn, 4 * step)
        return code.add(code.mul(turn, 2), 8 * (step // 2) + step % 2)

    def _left_double(self, product: Product, step: int, row: int) -> SSAValue:
        code = self.code
        left = self.tiles.get(product.left)
        if left is None:
            return self._masked(product, row, 2 * (step // 2) + step % 2)
        at = code.add(code.div(code.lane, 4), code.mul(code.warp, 8 * len(code.rows)))
        places = {
            product.axis: self._double_term(product, step),
            code.row_axis: code.add(at, 8 * row),
        }
        return self._element(left, places)

    def _right_double(self, product: Product, step: int, block: int) -> SSAValue:
        code, right = self.code, self.tiles[product.right]
        places = {
            product.axis: self._double_term(product, step),
            product.columns: code.add(code.div(code.lane, 4), 8 * block),
        }
        key = ("element", right.term, product.left in self.tiles, step, block)
        return code.once(key, lambda: self._element(right, places))

    # 16x8x8, f32 rounded to tf32.

    def _rounded(self, product: Product, start: Values) -> Values:
        code = self.code
        values = dict(start)
        blocks = (1 + max(column for _, column in start)) // 2
        left, right = self.tiles.get(product.left), self.tiles[product.right]
        turn, group = code.rem(code.lane, 4), code.div(code.lane, 4)
        first = code.mul(code.warp, 8 * len(code.rows))
        # A lane has two terms of each eight: t and t + 4 of a tile. The terms of a sum
        # have no order: of a computed factor those are taken that the lane has.
        spread, apart = (2, 1) if left is None else (1, 4)
        for step in range(self._size(product) // 8):
            terms = [
                code.add(code.mul(turn, spread), 8 * step + apart * late)
                for late in (0, 1)
            ]
            columns: list[list[SSAValue]] = []
            for block in range(blocks):
                at = code.add(group, 8 * block)
                places = [{product.axis: t, product.columns: at} for t in terms]
                columns.append([self._tf32(self._element(right, p)) for p in places])
            for pair in range(len(code.rows) // 2):
                row: list[SSAValue] = []
                for late, high in ((0, 0), (0, 1), (1, 0), (1, 1)):
                    number = 2 * pair + high
                    if left is None:
                        factor = self._masked(product, number, 2 * step + late)
                    else:
                        at = code.add(code.add(group, first), 8 * number)
                        place = {product.axis: terms[late], code.row_axis: at}
                        factor = self._element(left, place)
                    row.append(self._tf32(factor))
                for block, column in enumerate(columns):
                    cells = [
                        (2 * pair + high, 2 * block + odd)
                        for high in (0, 1)
                        for odd in (0, 1)
                    ]
                    sums = [values[cell] for cell in cells]
                    found = code.emit(MmaOp(row, column, sums, f32))
                    for number, cell in enumerate(cells):
                        values[cell] = self._member(found, number, f32)
        return values

    def _tf32(self, value: SSAValue) -> SSAValue:
        """A number rounded to tf32, as the word that the instruction takes."""
        text = "cvt.rna.tf32.f32 $0, $1;"
        return self.code.emit(
            llvm.InlineAsmOp(text, "=r,f", [value], [i32], asm_dialect=0)
        )

    def _masked(self, product: Product, row: int, column: int) -> SSAValue:
        """A value of a computed factor, 0 where the column does not count."""
        code = self.code
        value = code.value(product.left, row, column)
        mask = code.columns[product.axis].valid
        if mask is None:
            return value
        return code.select(mask(row, column), value, code.constant(0.0, value.type))

    def _element(self, tile: Tile, places: dict[str, SSAValue]) -> SSAValue:
        code = self.code
        load = memref.LoadOp.get(tile.memory, self._indices(tile, places))
        return code.emit(load)

    # Fused multiply-adds.

    def _multiply_add(self, product: Product, start: Values) -> Values:
        code = self.code
        left = self.tiles.get(product.left)
        if left is None:
            left = self.spill(product)
        right = self.tiles[product.right]
        every = list(start)
        columns = 1 + max(column for _, column in start)
        rows = [code.layout.row(code, row) for row in range(len(code.rows))]

        def several(term: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            for number in range(0, steps, STEP):
                carried = list(step(code.add(term, number), carried))
            return carried

        def step(term: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            factors = [
                self._run(left, product.axis, term, code.row_axis, row, 1)
                for row in rows
            ]
            others: list[list[SSAValue]] = []
            side = code.layout.vector
            for column in range(0, columns, side):
                at = code.layout.column(code, column)
                found = self._run(right, product.axis, term, product.columns, at, side)
                others += [found[k::side] for k in range(side)]
            sums = dict(zip(every, carried, strict=True))
            for number in range(STEP):
                for row, column in every:
                    sums[row, column] = code.emit(
                        math.FmaOp(
                            factors[row][number],
                            others[column][number],
                            sums[row, column],
                        )
                    )
            return [sums[place] for place in every]

        size = self._size(product)
        steps = STEP if size % (UNROLL * STEP) else UNROLL * STEP
        found = code.loop(
            code.number(0), code.number(size), steps, list(start.values()), several
        )
        return dict(zip(every, found, strict=True))

    def _run(
        self,
        tile: Tile,
        axis: str,
        term: SSAValue,
        across: str,
        place: SSAValue,
        count: int,
    ) -> list[SSAValue]:
        """Some terms of a factor at `count` places, term by term, as f32 or f64."""
        code = self.code
        if tile.axes[1] == axis:
            runs = [
                self._vector(tile, {axis: term, across: code.add(place, k)}, STEP)
                for k in range(count)
            ]
            return [runs[k][number] for number in range(STEP) for k in range(count)]
        found: list[SSAValue] = []
        for number in range(STEP):
            places = {axis: code.add(term, number), across: place}
            found += self._vector(tile, places, count)
        return found

    def _vector(
        self, tile: Tile, places: dict[str, SSAValue], count: int
    ) -> list[SSAValue]:
        code = self.code
        indices = self._indices(tile, places)
        if count == 1:
            return [self._wide(code.emit(memref.LoadOp.get(tile.memory, indices)))]
        type_ = VectorType(tile.element, [count])
        load = AlignedLoadOp(tile.memory, indices, type_, min(vector_bytes(type_), 16))
        values = code.emit(load)
        return [self._wide(code.extracted(values, number)) for number in range(count)]

    def _wide(self, value: SSAValue) -> SSAValue:
        if isinstance(value.type, BFloat16Type | Float16Type):
            return self.code.emit(arith.ExtFOp(value, f32))
        return value

    # Folds that are no products of matrices.

    def loop(self, fold: Term, start: Values | None) -> Values:
        """A fold as a loop, an accumulator for each row and column."""
        code, kind = self.code, fold.kind
        if not isinstance(kind, Folded) or not isinstance(fold.function, StringAttr):
            raise NotLifted("a fold over a chunk that is no product of matrices")
        function = fold.function.data
        axis, body = code.terms.open(fold)
        for bound in fold.args[:2]:
            if len(code.every(bound)) > 1:
                raise NotLifted("a fold whose bounds differ within a group")
        lower, upper = (code.value(bound) for bound in fold.args[:2])
        every = code.every(fold)
        if start is None:
            unit = neutral(function, fold.type)
            if str(unit) == "-0.0":
                is_some = code.compare("slt", lower, upper)
                zeros = [code.constant(value, fold.type) for value in (unit, 0.0)]
                first = code.select(is_some, zeros[0], zeros[1])
            else:
                first = code.constant(unit, fold.type)
            start = dict.fromkeys(every, first)

        def step(index: SSAValue, carried: list[SSAValue]) -> Sequence[SSAValue]:
            with code.bound(axis, index):
                return [
                    code.apply(function, before, code.value(body, row, column))
                    for before, (row, column) in zip(carried, every, strict=True)
                ]

        found = code.loop(lower, upper, 1, [start[place] for place in every], step)
        return dict(zip(every, found, strict=True))
