"""moa-expand-math: transcendental functions as straight-line arithmetic.

A call of libm for each element keeps loops from being vectorised. Here each function
becomes additions, fused multiply-adds and integer operations on the bits of floats,
without branches or calls, for scalars and for vectors of any shape. Error bounds and
costs are in docs/math.md; the polynomials come from tools/minimax.py.

A comparison is a subtraction of the bits of floats, and its mask the sign of the
difference in all bits. A clamp is `maximumf` or `minimumf` with a constant, which is
one instruction and lets NaN pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from struct import pack, unpack

from xdsl.builder import Builder
from xdsl.context import Context
from xdsl.dialects import arith, llvm, math, vector
from xdsl.dialects.arith import FastMathFlagsAttr
from xdsl.dialects.builtin import (
    BFloat16Type,
    DenseIntOrFPElementsAttr,
    Float16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    ModuleOp,
    VectorType,
    f32,
    f64,
    i32,
)
from xdsl.dialects.utils import FastMathFlag
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.traits import IsolatedFromAbove
from xdsl.utils.hints import isa

from moa_dialect.errors import CompileError
from moa_dialect.lowering import host
from moa_dialect.lowering import math_tables as tables
from moa_dialect.walking import operations

NONPOSITIVE = "moa.nonpositive"
"""The attribute of a `math.exp` or `math.exp2` whose operand is at most 0, or NaN."""

TANH_DELAY = 0.2
"""By how much later than at the half n becomes 1, where 2^n q + (2^n - 1) cancels."""

TARGETS = ("generic", "avx512", "host")
"""What the code may be for; `host` is one of the others."""

Float = Float32Type | Float64Type

_STRICT = FastMathFlagsAttr("none")


def host_target() -> str:
    """The target for this machine: `avx512` if it has AVX-512F and VL."""
    features = host.features().split(",")
    return "avx512" if {"+avx512f", "+avx512vl"} <= set(features) else "generic"


@dataclass(frozen=True)
class Format:
    """A binary format of floats, and the numbers that range reductions take from it.

    Attributes:
        bits: its width.
        mantissa: the number of stored bits of the significand.
        bias: the exponent's bias.
        exp_range: operands of exp between which the result is neither 0 nor infinite.
        exp2_range: the same for exp2.
        expm1_low: expm1 is -1 up to here.
        tanh_high: tanh is 1 from here.
        erf_edge: the operand of erf from which 1 - exp(-p) is used.
        erf_center: what p is in powers of the distance from.
        erf_high: erf is 1 from here.
        ln2, ln2_short, log2_e: constants as two floats each.
        exp, exp2, half_expm1, log, erf, log_erfc: coefficients, lowest first.
    """

    bits: int
    mantissa: int
    bias: int
    exp_range: tuple[float, float]
    exp2_range: tuple[float, float]
    expm1_low: float
    tanh_high: float
    erf_edge: float
    erf_center: float
    erf_high: float
    ln2: tuple[float, float]
    ln2_short: tuple[float, float]
    log2_e: tuple[float, float]
    exp: Sequence[float]
    exp2: Sequence[float]
    half_expm1: Sequence[float]
    log: Sequence[float]
    erf: Sequence[float]
    log_erfc: Sequence[float]

    @property
    def shift(self) -> float:
        """Added to a small number it leaves the nearest integer in the low bits."""
        return 1.5 * 2.0**self.mantissa

    @property
    def sink(self) -> int:
        """2^-sink brings the least results of exp of a nonpositive number about."""
        return 64 if self.bits == 32 else 128

    @property
    def quiet(self) -> int:
        """The bits of a NaN."""
        return self.as_bits(inf) | 1 << (self.mantissa - 1)

    def as_bits(self, value: float) -> int:
        """The bits of a float as an integer."""
        code = ("<f", "<I") if self.bits == 32 else ("<d", "<Q")
        return unpack(code[1], pack(code[0], value))[0]


F32 = Format(
    bits=32,
    mantissa=23,
    bias=127,
    exp_range=(-105.0, 89.0),
    exp2_range=(-151.0, 129.0),
    expm1_low=-18.0,
    tanh_high=9.25,
    erf_edge=0.921875,
    erf_center=1.0,
    erf_high=4.0,
    ln2=(tables.LN2_HIGH_32, tables.LN2_LOW_32),
    ln2_short=(tables.LN2_SHORT_32, tables.LN2_REST_32),
    log2_e=(tables.LOG2_E_HIGH_32, tables.LOG2_E_LOW_32),
    exp=tables.EXP_32,
    exp2=tables.EXP2_32,
    half_expm1=tables.HALF_EXPM1_32,
    log=tables.LOG_32,
    erf=tables.ERF_32,
    log_erfc=tables.LOG_ERFC_32,
)

F64 = Format(
    bits=64,
    mantissa=52,
    bias=1023,
    exp_range=(-746.0, 710.0),
    exp2_range=(-1076.0, 1025.0),
    expm1_low=-38.0,
    tanh_high=19.25,
    erf_edge=1.0,
    erf_center=1.0,
    erf_high=6.0,
    ln2=(tables.LN2_HIGH_64, tables.LN2_LOW_64),
    ln2_short=(tables.LN2_SHORT_64, tables.LN2_REST_64),
    log2_e=(tables.LOG2_E_HIGH_64, tables.LOG2_E_LOW_64),
    exp=tables.EXP_64,
    exp2=tables.EXP2_64,
    half_expm1=tables.HALF_EXPM1_64,
    log=tables.LOG_64,
    erf=tables.ERF_64,
    log_erfc=tables.LOG_ERFC_64,
)


@dataclass
class _Constants:
    """The constants at the start of a function, each once.

    Attributes:
        block: where they are.
        known: them, by their value.
        numbers: them again, by their type and number: a value takes long to make.
        last: the last of them.
    """

    block: Block
    known: dict[Attribute, SSAValue] = field(default_factory=dict[Attribute, SSAValue])
    numbers: dict[Attribute, dict[int | str, SSAValue]] = field(
        default_factory=dict[Attribute, dict[int | str, SSAValue]]
    )
    last: Operation | None = None

    def get(
        self, value: IntegerAttr | FloatAttr | DenseIntOrFPElementsAttr
    ) -> SSAValue:
        """The constant of a value."""
        if value not in self.known:
            place = (
                InsertPoint.at_start(self.block)
                if self.last is None
                else InsertPoint.after(self.last)
            )
            self.last = Builder(place).insert(arith.ConstantOp(value))
            self.known[value] = self.last.results[0]
        return self.known[value]


@dataclass
class _Code:
    """Code for floats of one type, a scalar or a vector; grows at the builder's place.

    Attributes:
        builder: where operations go.
        constants: where constants are.
        like: a vector type, for its shape; None for scalars.
        format: the format of the elements.
        target: `generic` or `avx512`.
        special: whether zeros, negative numbers, infinities and NaN occur in a
            logarithm.
        float_type: the type of values.
        int_type: the type of their bits.
    """

    builder: Builder
    constants: _Constants
    like: VectorType | None
    format: Format
    target: str
    special: bool = True
    float_type: Attribute = field(init=False)
    int_type: Attribute = field(init=False)

    def __post_init__(self) -> None:
        self.float_type = self.typed(f32 if self.format.bits == 32 else f64)
        self.int_type = self.typed(IntegerType(self.format.bits))
        numbers = self.constants.numbers
        self._reals = numbers.setdefault(self.float_type, {})
        self._integers = numbers.setdefault(self.int_type, {})

    def typed(self, element: Attribute) -> Attribute:
        """A type of the shape at hand with other elements."""
        if self.like is None:
            return element
        return VectorType(element, self.like.get_shape())

    def real(self, value: float) -> SSAValue:
        """A constant."""
        key = float(value).hex()  # 0 and -0 are equal
        if key not in self._reals:
            self._reals[key] = self.constants.get(self._real_attribute(value))
        return self._reals[key]

    def _real_attribute(self, value: float) -> FloatAttr | DenseIntOrFPElementsAttr:
        type_ = self.float_type
        if isa(type_, VectorType[Float]):
            return DenseIntOrFPElementsAttr.from_list(type_, [value])
        assert isinstance(type_, Float)
        return FloatAttr(value, type_)

    def integer(self, value: int) -> SSAValue:
        """A constant, modulo two to the power of the width."""
        half = 1 << (self.format.bits - 1)
        value = (value + half) % (2 * half) - half
        if value not in self._integers:
            self._integers[value] = self.constants.get(self._int_attribute(value))
        return self._integers[value]

    def _int_attribute(self, value: int) -> IntegerAttr | DenseIntOrFPElementsAttr:
        type_ = self.int_type
        if isa(type_, VectorType[IntegerType]):
            return DenseIntOrFPElementsAttr.from_list(type_, [value])
        assert isa(type_, IntegerType)
        return IntegerAttr(value, type_)

    def _real(self, value: SSAValue | float) -> SSAValue:
        return value if isinstance(value, SSAValue) else self.real(value)

    def _integer(self, value: SSAValue | int) -> SSAValue:
        return value if isinstance(value, SSAValue) else self.integer(value)

    # Floats.

    def _compute(self, operation: type[Operation], *operands: SSAValue) -> SSAValue:
        """An operation on floats, made without xDSL's look at its definition."""
        op = operation.create(
            operands=operands,
            result_types=[operands[0].type],
            properties={"fastmath": _STRICT},
        )
        return self.builder.insert(op).results[0]

    def add(self, a: SSAValue | float, b: SSAValue | float) -> SSAValue:
        return self._compute(arith.AddfOp, self._real(a), self._real(b))

    def sub(self, a: SSAValue | float, b: SSAValue | float) -> SSAValue:
        return self._compute(arith.SubfOp, self._real(a), self._real(b))

    def mul(self, a: SSAValue | float, b: SSAValue | float) -> SSAValue:
        return self._compute(arith.MulfOp, self._real(a), self._real(b))

    def div(self, a: SSAValue | float, b: SSAValue | float) -> SSAValue:
        return self._compute(arith.DivfOp, self._real(a), self._real(b))

    def fma(
        self, a: SSAValue | float, b: SSAValue | float, c: SSAValue | float
    ) -> SSAValue:
        return self._compute(math.FmaOp, self._real(a), self._real(b), self._real(c))

    def at_least(self, x: SSAValue, bound: float) -> SSAValue:
        return self._compute(arith.MaximumfOp, x, self.real(bound))

    def at_most(self, x: SSAValue, bound: float) -> SSAValue:
        return self._compute(arith.MinimumfOp, x, self.real(bound))

    def magnitude(self, x: SSAValue) -> SSAValue:
        return self._compute(math.AbsFOp, x)

    def with_sign(self, x: SSAValue, sign: SSAValue) -> SSAValue:
        return self._compute(math.CopySignOp, x, sign)

    def round(self, x: SSAValue) -> SSAValue:
        return self._compute(math.RoundEvenOp, x)

    def nested(self, x: SSAValue, coefficients: Sequence[float]) -> SSAValue:
        """The sum of coefficient k times x^k."""
        *rest, last = coefficients
        value: SSAValue | float = last
        for coefficient in reversed(rest):
            value = self.fma(value, x, coefficient)
        return self._real(value)

    def polynomial(self, x: SSAValue, coefficients: Sequence[float]) -> SSAValue:
        """The same as `nested`; a long sum as two of half the latency."""
        if len(coefficients) < 8:
            return self.nested(x, coefficients)
        square = self.mul(x, x)
        even = self.nested(square, coefficients[::2])
        odd = self.nested(square, coefficients[1::2])
        return self.fma(odd, x, even)

    # Bits.

    def bits(self, x: SSAValue) -> SSAValue:
        return self.builder.insert(arith.BitcastOp(x, self.int_type)).result

    def from_bits(self, i: SSAValue) -> SSAValue:
        return self.builder.insert(arith.BitcastOp(i, self.float_type)).result

    def iadd(self, a: SSAValue | int, b: SSAValue | int) -> SSAValue:
        total = arith.AddiOp(self._integer(a), self._integer(b))
        return self.builder.insert(total).result

    def isub(self, a: SSAValue | int, b: SSAValue | int) -> SSAValue:
        difference = arith.SubiOp(self._integer(a), self._integer(b))
        return self.builder.insert(difference).result

    def both(self, a: SSAValue, b: SSAValue | int) -> SSAValue:
        return self.builder.insert(arith.AndIOp(a, self._integer(b))).result

    def either(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.builder.insert(arith.OrIOp(a, b)).result

    def inverted(self, a: SSAValue) -> SSAValue:
        return self.builder.insert(arith.XOrIOp(a, self.integer(-1))).result

    def is_negative(self, i: SSAValue) -> SSAValue:
        """A mask: all bits of an integer are its sign."""
        shift = self.integer(self.format.bits - 1)
        return self.builder.insert(arith.ShRSIOp(i, shift)).result

    def where(self, mask: SSAValue, x: SSAValue | int, y: SSAValue) -> SSAValue:
        """The float x, which may be given as bits, where a mask is set, else y."""
        chosen = self.integer(x) if isinstance(x, int) else self.bits(x)
        kept = self.both(self.bits(y), self.inverted(mask))
        return self.from_bits(self.either(self.both(chosen, mask), kept))

    def to_exponent(self, x: SSAValue) -> SSAValue:
        """The float whose exponent field is what the low bits of another are."""
        shift = self.integer(self.format.mantissa)
        return self.from_bits(
            self.builder.insert(arith.ShLIOp(self.bits(x), shift)).result
        )

    # Scaling by powers of two.

    @property
    def has_scalef(self) -> bool:
        """Whether one instruction multiplies by a power of two, with any outcome."""
        if self.target != "avx512" or self.like is None:
            return False
        shape = self.like.get_shape()
        return len(shape) == 1 and shape[0] * self.format.bits in (128, 256, 512)

    def scalef(self, x: SSAValue, n: SSAValue) -> SSAValue:
        """X times 2^n for an integral float n."""
        assert self.like is not None
        (lanes,) = self.like.get_shape()
        width = lanes * self.format.bits
        mask = self.constants.get(
            IntegerAttr(-1, IntegerType(16 if lanes == 16 else 8))
        )
        arguments = [x, n, x, mask]
        if width == 512:
            # The rounding mode is the current one.
            arguments.append(self.constants.get(IntegerAttr(4, i32)))
        suffix = "ps" if self.format.bits == 32 else "pd"
        name = f"llvm.x86.avx512.mask.scalef.{suffix}.{width}"
        call = llvm.CallIntrinsicOp(name, arguments, [self.float_type])
        return self.builder.insert(call).results[0]

    # Exponentials.

    def _power(
        self,
        x: SSAValue,
        factor: float,
        nonpositive: bool,
        rest: Callable[[SSAValue], SSAValue],
    ) -> SSAValue:
        """2^n times a function of what is left of x, n nearest to factor times x.

        The sum of x · factor and a number that large is an integer n in its low bits.
        The offset to n makes those bits an exponent field. Results go through the
        whole range of exponents, subnormal ones included: they are rounded once, by
        the last multiplication.
        """
        format_ = self.format
        if self.has_scalef:
            offset = 0
        elif nonpositive:
            offset = format_.bias + format_.sink
        else:
            offset = 2 * format_.bias
        shift = format_.shift + offset
        shifted = self.add(x, shift) if factor == 1 else self.fma(x, factor, shift)
        n = self.sub(shifted, shift)
        p = rest(n)
        if self.has_scalef:
            return self.scalef(p, n)
        if nonpositive:
            scaled = self.mul(p, self.to_exponent(shifted))
            return self.mul(scaled, 2.0**-format_.sink)
        # n is the sum of two halves, whose powers are in range both.
        half = self.fma(n, 0.5, format_.shift + format_.bias)
        first = self.to_exponent(half)
        both = self.to_exponent(shifted)
        second = self.from_bits(self.isub(self.bits(both), self.bits(first)))
        return self.mul(self.mul(p, first), second)

    def _remainder(self, x: SSAValue, n: SSAValue, scale: float = 1) -> SSAValue:
        """X - n · ln 2 · scale; the first difference is exact."""
        high, low = self.format.ln2
        return self.fma(n, -low * scale, self.fma(n, -high * scale, x))

    def exp(self, x: SSAValue, nonpositive: bool = False) -> SSAValue:
        """2^n (1 + r + r² p(r)) for x = n ln 2 + r."""
        low, high = self.format.exp_range
        x = self.at_least(x, low)
        if not nonpositive:
            x = self.at_most(x, high)
        return self._power(
            x,
            self.format.log2_e[0],
            nonpositive,
            lambda n: self._exp_near_0(self._remainder(x, n)),
        )

    def _exp_near_0(self, r: SSAValue) -> SSAValue:
        p = self.polynomial(r, self.format.exp)
        return self.fma(self.fma(p, r, 1.0), r, 1.0)

    def _exp2_near_0(self, r: SSAValue) -> SSAValue:
        first, *rest = self.format.exp2
        p = self.polynomial(r, rest)
        return self.fma(self.fma(p, r, first), r, 1.0)

    def exp2(self, x: SSAValue, nonpositive: bool = False) -> SSAValue:
        """2^n (1 + r p(r)) for x = n + r."""
        low, high = self.format.exp2_range
        x = self.at_least(x, low)
        if not nonpositive:
            x = self.at_most(x, high)
        return self._power(
            x, 1, nonpositive, lambda n: self._exp2_near_0(self.sub(x, n))
        )

    def _small_exp(self, x: SSAValue) -> SSAValue:
        """The same as exp, where the result is a normal number."""
        shift = self.format.shift + self.format.bias
        shifted = self.fma(x, self.format.log2_e[0], shift)
        r = self._remainder(x, self.sub(shifted, shift))
        return self.mul(self._exp_near_0(r), self.to_exponent(shifted))

    def _half_expm1(self, r: SSAValue) -> SSAValue:
        """expm1(2 r) / 2 near 0."""
        tail = self.polynomial(r, self.format.half_expm1)
        return self.fma(self.mul(r, r), tail, r)

    def expm1(self, x: SSAValue) -> SSAValue:
        """The sum 2^n q + 2^n - 1 for x = n ln 2 + 2 r and q the same function of 2 r.

        With half the power, since the largest one is infinite.
        """
        y = self.at_least(x, self.format.expm1_low)
        y = self.at_most(y, self.format.exp_range[1])
        shift = self.format.shift + self.format.bias - 1
        shifted = self.fma(y, self.format.log2_e[0], shift)
        n = self.sub(shifted, shift)
        power = self.to_exponent(shifted)
        q = self._half_expm1(self.mul(self._remainder(y, n), 0.5))
        half = self.fma(power, self.add(q, q), self.sub(power, 0.5))
        return self.with_sign(self.add(half, half), x)

    def tanh(self, x: SSAValue) -> SSAValue:
        """H / (1 + h) for h = expm1(2 |x|) / 2, with the sign of x.

        For |x| = n ln 2 / 2 + r, h = 2^n q(r) + (2^n - 1) / 2. What 1 + h loses by
        rounding is made up for: the derivative of h / (1 + h) by what is added to h
        below is -t (1 - t), t being the quotient.
        """
        a = self.at_most(self.magnitude(x), self.format.tanh_high)
        shift = self.format.shift + self.format.bias
        scaled = self.fma(a, 2 * self.format.log2_e[0], -TANH_DELAY)
        shifted = self.add(scaled, shift)
        n = self.sub(shifted, shift)
        power = self.to_exponent(shifted)
        q = self._half_expm1(self._remainder(a, n, 0.5))
        h = self.fma(power, q, self.fma(power, 0.5, -0.5))
        below = self.add(h, 1.0)
        lost = self.sub(self.sub(below, 1.0), h)
        t = self.div(h, below)
        slope = self.sub(t, self.mul(t, t))
        return self.with_sign(self.at_most(self.fma(lost, slope, t), 1.0), x)

    def erf(self, x: SSAValue) -> SSAValue:
        """|x| + |x| p(x²), or 1 - exp(-p(|x|)) beyond the edge; the sign of x."""
        format_ = self.format
        a = self.magnitude(x)
        small = self.fma(a, self.polynomial(self.mul(a, a), format_.erf), a)
        u = self.sub(self.at_most(a, format_.erf_high), format_.erf_center)
        minus = [-coefficient for coefficient in format_.log_erfc]
        large = self.sub(1.0, self._small_exp(self.polynomial(u, minus)))
        below = self.is_negative(
            self.isub(self.bits(a), format_.as_bits(format_.erf_edge))
        )
        return self.with_sign(self.where(below, small, large), x)

    # Logarithms.

    def _decompose(self, x: SSAValue) -> tuple[SSAValue, SSAValue]:
        """E and f with x = 2^e (1 + f), 1 + f between the roots of 1/2 and of 2."""
        format_ = self.format
        mantissa = format_.mantissa
        least = 1 << mantissa  # the bits of the least normal number
        subnormal = self.is_negative(self.isub(self.bits(x), least))
        by = self.iadd(self.both(subnormal, mantissa * least), format_.as_bits(1.0))
        normal = self.mul(x, self.from_bits(by))
        zero = self.iadd(
            self.both(subnormal, -mantissa), format_.as_bits(format_.shift)
        )
        return self._decompose_normal(normal, zero)

    def _decompose_normal(
        self, x: SSAValue, zero: SSAValue | int
    ) -> tuple[SSAValue, SSAValue]:
        """The same for normal numbers, e counted from what the bits of zero mean."""
        format_ = self.format
        mantissa = format_.mantissa
        least = 1 << mantissa
        bits = self.bits(x)
        root = format_.as_bits(0.5**0.5)
        above = self.isub(bits, root)
        fraction = self.iadd(self.both(above, least - 1), root)
        f = self.sub(self.from_bits(fraction), 1.0)
        # The exponent as a float: the low bits of one that is large enough.
        exponent = self.builder.insert(
            arith.ShRSIOp(above, self.integer(mantissa))
        ).result
        e = self.sub(self.from_bits(self.iadd(exponent, zero)), format_.shift)
        return e, f

    def _log1p_tail(self, f: SSAValue, factor: float, more: SSAValue) -> SSAValue:
        """The sum of (log(1 + f) - f) · factor and a small number."""
        square = self.mul(f, f)
        if self.format.bits == 32:
            inner = self.polynomial(f, [factor * c for c in self.format.log])
            return self.fma(square, self.fma(inner, f, -0.5 * factor), more)
        # With s = f / (2 + f), log(1 + f) = 2 s + s R(s²); as fdlibm arranges it.
        s = self.div(f, self.add(f, 2.0))
        z = self.mul(s, s)
        half = self.mul(square, 0.5)
        sum_ = self.fma(z, self.nested(z, self.format.log), half)
        tail = self.fma(s, sum_, self.mul(square, -0.5))
        return self.add(tail, more) if factor == 1 else self.fma(tail, factor, more)

    def _special_log(self, x: SSAValue, result: SSAValue) -> SSAValue:
        """Results for infinity and NaN, for negative numbers and for zeros."""
        if not self.special:
            return result
        bits = self.bits(x)
        result = self.where(self._is_not_finite(bits), x, result)
        result = self.where(self.is_negative(bits), self.format.quiet, result)
        zero = self._is_zero(self._magnitude_bits(x))
        return self.where(zero, self.format.as_bits(-inf), result)

    def _magnitude_bits(self, x: SSAValue) -> SSAValue:
        return self.both(self.bits(x), (1 << (self.format.bits - 1)) - 1)

    def _is_zero(self, i: SSAValue) -> SSAValue:
        """Whether an integer that is not negative is 0."""
        return self.is_negative(self.isub(i, 1))

    def _is_not_finite(self, i: SSAValue) -> SSAValue:
        """Whether the bits of a float that is not negative say infinity or NaN."""
        return self.is_negative(self.isub(self.format.as_bits(inf) - 1, i))

    def _log(self, x: SSAValue, correction: SSAValue | None = None) -> SSAValue:
        """E ln 2 + f + (log(1 + f) - f), the rounding of the first sum made up for."""
        high, low = self.format.ln2_short
        e, f = self._decompose(x)
        tail = self._log1p_tail(f, 1.0, self.mul(e, low))
        if correction is not None:
            tail = self.add(tail, correction)
        sum_ = self.fma(e, high, f)
        lost = self.sub(f, self.fma(e, -high, sum_))
        return self._special_log(x, self.add(sum_, self.add(lost, tail)))

    def log(self, x: SSAValue) -> SSAValue:
        return self._log(x)

    def log1p(self, x: SSAValue) -> SSAValue:
        """log(u) + c / u for 1 + x = u + c exactly, with the sign of x."""
        u = self.add(x, 1.0)
        one = self.sub(u, x)
        c = self.add(self.sub(x, self.sub(u, one)), self.sub(1.0, one))
        return self.with_sign(self._log(u, self.div(c, u)), x)

    def log2(self, x: SSAValue) -> SSAValue:
        """The sum of e and log(1 + f) / ln 2, with what its leading terms lose."""
        high, low = self.format.log2_e
        e, f = self._decompose(x)
        product = self.mul(f, high)
        rest = self.fma(f, low, self.fma(f, high, self.mul(product, -1.0)))
        tail = self._log1p_tail(f, high, rest)
        sum_ = self.add(e, product)
        lost = self.sub(product, self.sub(sum_, e))
        return self._special_log(x, self.add(sum_, self.add(lost, tail)))

    # Powers.

    def power_of_f32(self, x: SSAValue, y: SSAValue) -> SSAValue:
        """2^(y log2 |x|) for values of f32 in f64, to be truncated; as C's pow.

        The precision is that of f32 with some bits to spare. Results that do not fit
        f32 fit f64, so that truncation makes them 0, subnormal or infinite.
        """
        magnitude = self._magnitude_bits(x)
        is_zero = self._is_zero(magnitude)
        is_not_finite = self._is_not_finite(magnitude)
        # log2 |x| with s = f / (2 + f).
        zero = self.format.as_bits(self.format.shift)
        e, f = self._decompose_normal(self.magnitude(x), zero)
        s = self.div(f, self.add(f, 2.0))
        log2 = self.fma(s, self.nested(self.mul(s, s), tables.POWER_LOG2), e)
        log2 = self.where(is_not_finite, self.magnitude(x), log2)
        log2 = self.where(is_zero, self.format.as_bits(-inf), log2)
        # 1 to any power and any number to the power 0 are 1, and -1 unless to NaN.
        one = self.format.as_bits(1.0)
        to_zero = self._is_zero(self._magnitude_bits(y))
        infinite = self.format.as_bits(inf)
        is_number = self.is_negative(self.isub(self._magnitude_bits(y), infinite + 1))
        is_one = self.builder.insert(arith.XOrIOp(magnitude, self.integer(one))).result
        below = self.inverted(self.is_negative(self.bits(x)))
        is_unit = self.both(self._is_zero(is_one), self.either(is_number, below))
        exponent = self.mul(y, log2)
        exponent = self.where(self.either(to_zero, is_unit), 0, exponent)
        exponent = self.at_most(self.at_least(exponent, -160.0), 130.0)
        shift = self.format.shift + self.format.bias
        shifted = self.add(exponent, shift)
        r = self.sub(exponent, self.sub(shifted, shift))
        p = self.nested(r, (1.0, *tables.POWER_EXP2))
        result = self.mul(p, self.to_exponent(shifted))
        # Of negative numbers there are integral powers only.
        steps = self.at_most(self.magnitude(y), 2.0**53)
        is_fraction = self._is_nonzero(self.sub(steps, self.round(steps)))
        half = self.mul(steps, 0.5)
        is_odd = self.both(
            self._is_nonzero(self.sub(half, self.round(half))),
            self.inverted(is_fraction),
        )
        sign = self.both(self.both(self.bits(x), 1 << 63), is_odd)
        result = self.from_bits(self.either(self.bits(result), sign))
        invalid = self.both(
            self.both(self.is_negative(self.bits(x)), is_fraction),
            self.inverted(self.either(is_zero, is_not_finite)),
        )
        return self.where(invalid, self.format.quiet, result)

    def _is_nonzero(self, x: SSAValue) -> SSAValue:
        return self.is_negative(self.isub(0, self._magnitude_bits(x)))


def _nonpositive(op: Operation) -> bool:
    return NONPOSITIVE in op.attributes


def _power(code: _Code, op: Operation) -> SSAValue:
    """Squares and cubes as products, others of f32 by way of f64."""
    x, y = op.operands
    number = _splat(y)
    if number in _PRODUCTS:
        square = code.mul(x, x)
        return square if number == 2.0 else code.mul(square, x)
    wide = replace(code, format=F64)
    operands = (
        code.builder.insert(arith.ExtFOp(value, wide.float_type)).result
        for value in (x, y)
    )
    result = wide.power_of_f32(*operands)
    return code.builder.insert(arith.TruncFOp(result, code.float_type)).result


def _splat(value: SSAValue) -> float | None:
    """The one number that a constant consists of, if the value is one."""
    while isinstance(value.owner, vector.BroadcastOp | arith.ExtFOp):
        value = value.owner.operands[0]
    if not isinstance(value.owner, arith.ConstantOp):
        return None
    constant = value.owner.value
    if isinstance(constant, FloatAttr):
        return constant.value.data
    if isinstance(constant, DenseIntOrFPElementsAttr) and constant.is_splat():
        number = constant.get_values()[0]
        return None if isinstance(number, tuple) else float(number)
    return None


_PRODUCTS = (2.0, 3.0)
"""The exponents of powers that are products."""

_EXPANSIONS: dict[type[Operation], Callable[[_Code, Operation], SSAValue]] = {
    math.ExpOp: lambda code, op: code.exp(op.operands[0], _nonpositive(op)),
    math.Exp2Op: lambda code, op: code.exp2(op.operands[0], _nonpositive(op)),
    math.ExpM1Op: lambda code, op: code.expm1(op.operands[0]),
    math.LogOp: lambda code, op: code.log(op.operands[0]),
    math.Log1pOp: lambda code, op: code.log1p(op.operands[0]),
    math.Log2Op: lambda code, op: code.log2(op.operands[0]),
    math.TanhOp: lambda code, op: code.tanh(op.operands[0]),
    math.ErfOp: lambda code, op: code.erf(op.operands[0]),
    math.PowFOp: _power,
}
"""What is expanded, and how."""


def _block_of_constants(op: Operation) -> Block | None:
    """The first block of the function, or other isolated operation, around one."""
    region = op.parent_region()
    while region is not None:
        parent = region.parent
        if parent is None or parent.has_trait(IsolatedFromAbove):
            return region.blocks.first
        region = parent.parent_region()
    return None


def expand_math(module: ModuleOp, target: str) -> None:
    """Expand the functions of a module in place.

    Args:
        module: at the target stage.
        target: `generic` or `avx512`.
    """
    constants: dict[Block, _Constants] = {}
    for op in operations(module):
        expansion = _EXPANSIONS.get(type(op))
        if expansion is None:
            continue
        type_ = op.results[0].type
        like = type_ if isa(type_, VectorType) else None
        element = type_ if like is None else like.get_element_type()
        if like is not None and any(dim.value.data for dim in like.scalable_dims):
            continue
        block = _block_of_constants(op)
        narrow = isinstance(element, Float16Type | BFloat16Type)
        if block is None or not (narrow or isinstance(element, Float)):
            continue
        if (
            isinstance(op, math.PowFOp)
            and isinstance(element, Float64Type)
            and _splat(op.rhs) not in _PRODUCTS
        ):
            continue  # would need a logarithm of twice the precision
        if block not in constants:
            constants[block] = _Constants(block)
        _expand(op, expansion, constants[block], like, target)


def expand_products(module: ModuleOp) -> None:
    """Make products of squares and cubes that are powers, as moa-expand-math does.

    A library's power takes as long as fifty products.
    """
    for op in list(module.walk()):
        if not isinstance(op, math.PowFOp) or _splat(op.rhs) not in _PRODUCTS:
            continue
        x = op.lhs
        builder = Builder(InsertPoint.before(op))
        product = builder.insert(arith.MulfOp(x, x, op.fastmath))
        if _splat(op.rhs) == 3.0:
            product = builder.insert(arith.MulfOp(product.result, x, op.fastmath))
        Rewriter.replace_op(op, [], [product.result])


def _expand(
    op: Operation,
    expansion: Callable[[_Code, Operation], SSAValue],
    constants: _Constants,
    like: VectorType | None,
    target: str,
) -> None:
    """Replace one operation; narrow floats are extended and truncated around it."""
    type_ = op.results[0].type
    element = type_ if like is None else like.get_element_type()
    builder = Builder(InsertPoint.before(op))
    flags = op.properties.get("fastmath")
    known: set[FastMathFlag] = set()
    if isinstance(flags, FastMathFlagsAttr):
        known.update(flags.data)
    code = _Code(
        builder,
        constants,
        like,
        F64 if isinstance(element, Float64Type) else F32,
        target,
        special=not {FastMathFlag.NO_NANS, FastMathFlag.NO_INFS} <= known,
    )
    narrow = isinstance(element, Float16Type | BFloat16Type)
    if narrow:
        for number, operand in enumerate(op.operands):
            op.operands[number] = builder.insert(
                arith.ExtFOp(operand, code.float_type)
            ).result
    result = expansion(code, op)
    if narrow:
        result = builder.insert(arith.TruncFOp(result, type_)).result
    result.name_hint = op.results[0].name_hint
    Rewriter.replace_op(op, [], [result])


@dataclass(frozen=True)
class ExpandMathPass(ModulePass):
    """Expands exp, exp2, expm1, log, log1p, log2, tanh and erf into arithmetic.

    For scalars and vectors of f64 and f32, and of f16 and bf16 by way of f32. Zeros,
    subnormal numbers, infinities and NaN come out as they should; docs/math.md has the
    bounds of errors. `target=avx512` scales by powers of two with `vscalef`, and `host`
    is what this machine has. An exp or exp2 with the attribute `moa.nonpositive` is
    only right for operands up to 0. Others functions are left alone.
    """

    name = "moa-expand-math"

    target: str = "generic"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Expand all functions of the module.

        Raises:
            CompileError: for an unknown target.
        """
        if self.target not in TARGETS:
            raise CompileError(
                f"unknown target: expected one of {', '.join(TARGETS)}, "
                f"got '{self.target}'"
            )
        expand_math(op, host_target() if self.target == "host" else self.target)
