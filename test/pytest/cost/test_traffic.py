"""The bytes that a cache moves in closed form, against a cache that is simulated."""

# SymPy has no types of its own.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import sympy as sp

import moa_dialect as moa
from moa_dialect.cost import Access, Array, Loop, Nest, regimes, traffic
from moa_dialect.cost.bounds import CAPACITY, compulsory, lower_bound
from moa_dialect.cost.nests import Node, number_of

LINE = 64
KIB = 1 << 10


def simulated(nest: Nest, capacity: int) -> int:
    """The bytes that a fully associative cache moves, replacing the oldest line."""
    values = {s: sp.Integer(n) for s, n in nest.values.items()}
    shapes = {a: [int(number_of(x, nest.values)) for x in a.shape] for a in nest.arrays}
    base: dict[Array, int] = {}
    end = 0
    for array in nest.arrays:
        base[array] = end
        size = math.prod(shapes[array]) * array.element_bytes
        end += -(-size // 4096) * 4096
    lines: OrderedDict[int, bool] = OrderedDict()
    moved = 0

    def touch(address: int, writes: bool) -> None:
        nonlocal moved
        line = address // LINE
        if line in lines:
            lines.move_to_end(line)
            lines[line] = lines[line] or writes
            return
        moved += LINE
        lines[line] = writes
        if len(lines) > capacity // LINE:
            _, is_dirty = lines.popitem(last=False)
            moved += LINE if is_dirty else 0

    code: list[str] = []
    names: dict[Any, Any] = {}

    def emit(nodes: list[Node], indent: str) -> None:
        for node in nodes:
            if isinstance(node, Loop):
                names[node.index] = sp.Symbol(f"i{len(names)}")
                trips = math.ceil(number_of(node.trips, nest.values) - 1e-9)
                code.append(f"{indent}for {names[node.index]} in range({trips}):")
                emit([*node.body], indent + " ")
                code.append(f"{indent} pass")
            elif isinstance(node, Access):
                at: Any = sp.Integer(0)
                for index, extent in zip(node.indices, shapes[node.array], strict=True):
                    at = at * extent + index
                at = sp.expand(at).xreplace({**values, **names})
                size, start = node.array.element_bytes, base[node.array]
                code.append(f"{indent}touch({start} + {size} * ({at}), {node.writes})")

    emit(nest.body, "")
    exec("\n".join(code), {"touch": touch, "Min": min, "Max": max})
    return moved + LINE * sum(lines.values())


Specs = list[tuple[tuple[str | int, ...], str]]


def nest_of(
    program: Callable[..., Any],
    specs: Specs,
    sizes: dict[str, int],
    stage: str = "onf",
    **options: Any,
) -> Nest:
    """The nest of a program for sizes, its extents symbols."""
    static = [
        moa.ArraySpec(
            tuple(sizes.get(e, 0) if isinstance(e, str) else e for e in shape), dtype
        )
        for shape, dtype in specs
    ]
    names = [[e if isinstance(e, str) else None for e in shape] for shape, _ in specs]
    return moa.jit(program, **options).lower(*static).program(names).nest(stage)


def attention(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v)


def causal(q: Any, k: Any, v: Any) -> Any:
    return moa.attention(q, k, v, is_causal=True)


def matmul(a: Any, b: Any) -> Any:
    return moa.inner("add", "mul", a, b)


QKV: Specs = [(("n", 16), "f32")] * 3
ROWS: Specs = [(("n", "d"), "f32")]
ONE: Specs = [((1, 16), "f32"), (("n", 16), "f32"), (("n", 16), "f32")]
MATRICES: Specs = [(("n", "k"), "f32"), (("k", "m"), "f32")]
SIZES = {"n": 48, "k": 64, "m": 80}
LONG = {"n": 6, "d": 2048}

# Capacities are well away from those at which something begins to fit.
CASES = {
    "attention": (attention, QKV, {"n": 64}, (512, 2048, 16384, 65536)),
    "attention, long": (attention, QKV, {"n": 192}, (2048, 16384, 65536)),
    "decode": (attention, ONE, {"n": 512}, (1024, 16384, 262144)),
    "matmul": (matmul, MATRICES, SIZES, (512, 2048, 8192, 16384, 65536)),
    "softmax": (moa.library.softmax, ROWS, LONG, (1024, 4096, 32768, 262144)),
    "layernorm": (moa.library.layernorm, ROWS, LONG, (1024, 4096, 32768, 262144)),
}
POINTS = [(name, c) for name, case in CASES.items() for c in case[3]]


@pytest.mark.parametrize(("name", "capacity"), POINTS)
def test_onf_moves_what_a_simulated_cache_moves(name: str, capacity: int) -> None:
    program, specs, sizes, _ = CASES[name]
    nest = nest_of(program, specs, sizes)
    expected = simulated(nest, capacity)
    assert traffic(nest, capacity, LINE).bytes == pytest.approx(expected, rel=0.05)


def test_a_causal_mask_halves_what_is_moved() -> None:
    whole = nest_of(attention, QKV, {"n": 2048})
    half = nest_of(causal, QKV, {"n": 2048})
    moved = [traffic(nest, 2048, LINE).bytes for nest in (whole, half)]
    assert moved[1] / moved[0] == pytest.approx(0.5, rel=0.05)


def test_passes_apart_move_what_a_simulated_cache_moves() -> None:
    nest = nest_of(attention, QKV, {"n": 64}, fuse=False)
    for capacity in (1024, 2048, 16384):
        expected = simulated(nest, capacity)
        assert traffic(nest, capacity, LINE).bytes == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("stage", ["dnf", "fused"])
def test_other_stages_move_what_a_simulated_cache_moves(stage: str) -> None:
    nest = nest_of(matmul, MATRICES, SIZES, stage)
    for capacity in (512, 8192, 65536):
        expected = simulated(nest, capacity)
        assert traffic(nest, capacity, LINE).bytes == pytest.approx(expected, rel=0.05)


# Attention written by hand in several orders, at sizes for which a simulation of the
# same orders gave these bytes, divided by those that are compulsory.


def _array(name: str, role: Any, *shape: Any) -> Array:
    return Array(name, tuple(map(sp.sympify, shape)), 4, role)


class Orders:
    """Orders of attention with n rows of d columns."""

    def __init__(self, n: int, d: int = 64) -> None:
        self.n, self.d = n, d
        self.q, self.k, self.v = (_array(x, "argument", n, d) for x in "qkv")
        self.o = _array("o", "result", n, d)

    def index(self, name: str) -> Any:
        return sp.Dummy(name, integer=True, nonnegative=True)

    def loop(self, index: Any, trips: int, *body: Node) -> Loop:
        return Loop(index, sp.Integer(trips), list(body))

    def nest(self, body: list[Node], *scratch: Array) -> Nest:
        return Nest(body, [self.q, self.k, self.v, self.o, *scratch], {})

    def score(self, i: Any, j: Any) -> Loop:
        """The elements that a product of a row of q and a row of k reads."""
        p = self.index("p")
        return self.loop(p, self.d, Access(self.q, (i, p)), Access(self.k, (j, p)))

    def add(self, i: Any, j: Any) -> Loop:
        """A row of v added to a row of o."""
        p = self.index("p")
        return self.loop(
            p,
            self.d,
            Access(self.v, (j, p)),
            Access(self.o, (i, p)),
            Access(self.o, (i, p), True),
        )

    def rows(self) -> Nest:
        """A row of scores at a time, which is stored."""
        s = _array("s", "scratch", self.n)
        i, j, a, b, c = (self.index(x) for x in "ijabc")
        first = self.loop(j, self.n, self.score(i, j), Access(s, (j,), True))
        largest = self.loop(a, self.n, Access(s, (a,)))
        powers = self.loop(b, self.n, Access(s, (b,)), Access(s, (b,), True))
        last = self.loop(c, self.n, Access(s, (c,)), self.add(i, c))
        return self.nest([self.loop(i, self.n, first, largest, powers, last)], s)

    def materialised(self) -> Nest:
        """All scores are stored."""
        s = _array("s", "scratch", self.n, self.n)
        i, j, a, b, c, e, f = (self.index(x) for x in "ijabcef")
        first = self.loop(j, self.n, self.score(i, j), Access(s, (i, j), True))
        largest = self.loop(b, self.n, Access(s, (a, b)))
        powers = self.loop(c, self.n, Access(s, (a, c)), Access(s, (a, c), True))
        last = self.loop(f, self.n, Access(s, (e, f)), self.add(e, f))
        return self.nest(
            [
                self.loop(i, self.n, first),
                self.loop(a, self.n, largest, powers),
                self.loop(e, self.n, last),
            ],
            s,
        )

    def lifted(self, block: int) -> Nest:
        """Rows of q in blocks, and each row of k and v used for all of a block."""
        i, j, r, s = (self.index(x) for x in "ijrs")
        body = [
            self.loop(r, block, self.score(block * i + r, j)),
            self.loop(s, block, self.add(block * i + s, j)),
        ]
        return self.nest([self.loop(i, self.n // block, self.loop(j, self.n, *body))])


TABLE = [
    (256, 64, 134, 129, 2.75),
    (256, 256, 6.3, 1.26, 1.25),
    (1024, 64, 533, 530, 8.75),
    (1024, 256, 533, 521, 2.75),
    (1024, 1024, 21.3, 1.26, 1.25),
    (4096, 256, 2129, 2118, 8.75),
    (4096, 1024, 2129, 2082, 2.75),
    (4096, 4096, 81, 1.26, 1.25),
]


@pytest.mark.parametrize(("n", "kib", "materialised", "rows", "lifted"), TABLE)
def test_orders_of_attention_move_what_was_simulated(
    n: int, kib: int, materialised: float, rows: float, lifted: float
) -> None:
    orders = Orders(n)
    least = 4 * 4 * n * 64
    block = min(n, kib * KIB // (2 * 64) // 8)
    for nest, expected in (
        (orders.materialised(), materialised),
        (orders.rows(), rows),
        (orders.lifted(block), lifted),
    ):
        moved = traffic(nest, kib * KIB, LINE).bytes / least
        assert moved == pytest.approx(expected, rel=0.05)


def test_a_block_of_queries_gives_the_formula_of_the_literature() -> None:
    n, d, block = 2048, 64, 128
    moved = traffic(Orders(n, d).lifted(block), 1 << 18, LINE).bytes
    assert moved == 4 * n * d * (3 + 2 * n // block)


@pytest.mark.parametrize("capacity", [1024, 3072, 65536])
def test_simulated_orders_agree(capacity: int) -> None:
    orders = Orders(64, 16)
    for nest in (orders.rows(), orders.materialised(), orders.lifted(16)):
        expected = simulated(nest, capacity)
        assert traffic(nest, capacity, LINE).bytes == pytest.approx(expected, rel=0.05)


def test_formulas_have_symbols() -> None:
    nest = nest_of(matmul, MATRICES, {"n": 512, "k": 512, "m": 512})
    n, k, m = (sp.Symbol(x, integer=True, positive=True) for x in "nkm")
    whole = traffic(nest, 1 << 30, LINE).total
    assert sp.expand(whole - 4 * (n * k + k * m + 2 * n * m)) == 0
    # With room for a row of a and for b once: b anew for each row.
    middle = traffic(nest, 1 << 18, LINE).total
    assert sp.expand(middle - 4 * n * (k * m + k + 2 * m)) == 0


def test_regimes_begin_with_no_cache_and_end_with_what_is_compulsory() -> None:
    nest = nest_of(matmul, MATRICES, {"n": 512, "k": 512, "m": 512})
    found = regimes(nest, LINE)
    moved = [number_of(total, nest.values) for _, _, total in found]
    assert found[0][0] == 0
    assert moved == sorted(moved, reverse=True)
    least = number_of(compulsory(nest), nest.values)
    # A result that is written is fetched first.
    assert moved[-1] == least + 4 * 512 * 512
    for capacity, _, total in found:
        again = traffic(nest, capacity, LINE).total
        assert sp.expand(again - total) == 0


def test_regime_says_whether_anything_is_fetched_twice() -> None:
    nest = nest_of(matmul, MATRICES, SIZES)
    assert traffic(nest, 1 << 20, LINE).regime == "fits"
    assert traffic(nest, 2048, LINE).regime == "capacity-bound"


def test_without_write_allocation_results_are_not_fetched() -> None:
    nest = nest_of(matmul, MATRICES, SIZES)
    moved = traffic(nest, 1 << 20, LINE, write_allocate=False).bytes
    assert moved == number_of(compulsory(nest), nest.values)


def test_the_bound_of_a_contraction_is_that_of_matrix_products() -> None:
    nest = nest_of(matmul, MATRICES, SIZES, "dnf")
    bound = lower_bound(nest)
    n, k, m = (sp.Symbol(x, integer=True, positive=True) for x in "nkm")
    words = 2 * n * m * k / sp.sqrt(CAPACITY / 4) - 2 * CAPACITY / 4
    assert bound.kind == "contraction"
    assert not bound.is_order
    assert sp.simplify(bound.bytes - 4 * words) == 0


def test_the_bound_of_chained_contractions_is_that_of_saha_and_ye() -> None:
    specs: Specs = [(("h", "n", "d"), "f32")] * 3
    nest = nest_of(attention, specs, {"h": 2, "n": 128, "d": 16}, "dnf")
    bound = lower_bound(nest)
    assert bound.kind == "chained contractions"
    assert bound.is_order
    h, n, d = (sp.Symbol(x, integer=True, positive=True) for x in "hnd")
    large = bound.bytes.subs({h: 2, n: 128, d: 16}).subs(CAPACITY, 4096)
    assert large == 4 * 2 * 128**2 * 16**2 // (4096 // 4)
    small = bound.bytes.subs({h: 2, n: 128, d: 16}).subs(CAPACITY, 256)
    assert small == 4 * 2 * 128**2 * 16 // 8


def test_products_without_a_function_between_are_not_chained() -> None:
    def twice(a: Any, b: Any, c: Any) -> Any:
        return moa.inner("add", "mul", moa.inner("add", "mul", a, b), c)

    specs: Specs = [(("n", "k"), "f32"), (("k", "m"), "f32"), (("m", "l"), "f32")]
    nest = nest_of(twice, specs, {"n": 8, "k": 16, "m": 24, "l": 8}, "dnf")
    assert lower_bound(nest).kind == "contraction"


def test_rows_have_no_bound_but_the_compulsory_one() -> None:
    nest = nest_of(moa.library.softmax, ROWS, {"n": 8, "d": 64}, "dnf")
    bound = lower_bound(nest)
    assert bound.kind == "compulsory"
    n, d = (sp.Symbol(x, integer=True, positive=True) for x in "nd")
    assert sp.expand(bound.bytes - 8 * n * d) == 0


@pytest.mark.parametrize("name", ["attention", "matmul", "softmax"])
def test_traffic_is_never_below_the_bounds(name: str) -> None:
    program, specs, sizes, _ = CASES[name]
    nest = nest_of(program, specs, sizes)
    least = number_of(compulsory(nest), nest.values)
    bound = lower_bound(nest_of(program, specs, sizes, "dnf"))
    for capacity in (1024, 4096, 16384, 65536):
        moved = traffic(nest, capacity, LINE).bytes
        assert moved >= least
        if not bound.is_order:
            assert moved >= bound.at(capacity, least, nest)
