"""Random programs of linalg on tensors, the same for the same seed.

Values are small multiples of 1/4, so that sums and products of floats are exact in any
order, and results of different ways to compute them are equal bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np

DTYPES = {
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
}
COMBINERS = {
    "f": ("arith.addf", "arith.maximumf", "arith.minimumf"),
    "i": ("arith.addi", "arith.muli", "arith.maxsi", "arith.minsi"),
}
IDENTITIES = {
    ("arith.addf", "f32"): "0.0",
    ("arith.addf", "f64"): "0.0",
    ("arith.maximumf", "f32"): "0xFF800000",
    ("arith.maximumf", "f64"): "0xFFF0000000000000",
    ("arith.minimumf", "f32"): "0x7F800000",
    ("arith.minimumf", "f64"): "0x7FF0000000000000",
    ("arith.addi", "i32"): "0",
    ("arith.addi", "i64"): "0",
    ("arith.muli", "i32"): "1",
    ("arith.muli", "i64"): "1",
    ("arith.maxsi", "i32"): "-2147483648",
    ("arith.maxsi", "i64"): "-9223372036854775808",
    ("arith.minsi", "i32"): "2147483647",
    ("arith.minsi", "i64"): "9223372036854775807",
}


@dataclass(frozen=True)
class Value:
    """An array of a program: its name, shape and element type."""

    name: str
    shape: tuple[int, ...]
    element: str

    @property
    def type(self) -> str:
        """Its type, as MLIR writes it."""
        return tensor(self.shape, self.element)


def tensor(shape: tuple[int, ...], element: str) -> str:
    """A tensor type."""
    return f"tensor<{''.join(f'{n}x' for n in shape)}{element}>"


@dataclass
class Program:
    """A function as it is being written.

    Attributes:
        name: the function's name.
        rng: the source of chance.
        lines: the operations so far.
        arguments: the arrays it takes.
        values: the arrays that operations may use.
    """

    name: str
    rng: Random
    lines: list[str] = field(default_factory=list)
    arguments: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    count: int = 0

    def fresh(self) -> str:
        """A name that nothing has."""
        self.count += 1
        return f"%v{self.count}"

    def argument(self, shape: tuple[int, ...], element: str) -> Value:
        """A new argument."""
        value = Value(f"%a{len(self.arguments)}", shape, element)
        self.arguments.append(value)
        self.values.append(value)
        return value

    def text(self, result: Value) -> str:
        """The function that returns one of the arrays."""
        given = ", ".join(f"{a.name}: {a.type}" for a in self.arguments)
        body = "\n".join(f"  {line}" for line in self.lines)
        return (
            f"func.func @{self.name}({given}) -> {result.type} {{\n{body}\n"
            f"  return {result.name} : {result.type}\n}}\n"
        )

    def data(self) -> list[np.ndarray]:
        """Arrays to call it with."""
        rng = np.random.default_rng(self.rng.randrange(1 << 30))
        arrays: list[np.ndarray] = []
        for argument in self.arguments:
            numbers = rng.integers(-6, 7, argument.shape)
            dtype = DTYPES[argument.element]
            is_float = argument.element.startswith("f")
            scaled = numbers / 4 if is_float else numbers
            arrays.append(np.asarray(scaled, dtype))
        return arrays


def _map(dims: int, results: list[str]) -> str:
    names = ", ".join(f"d{k}" for k in range(dims))
    return f"affine_map<({names}) -> ({', '.join(results)})>"


def _index(
    rng: Random, dims: int, extents: list[int], allowed: list[int]
) -> tuple[str, int]:
    """An index expression, and an extent of an axis it is within."""
    kind = rng.random()
    d = rng.choice(allowed)
    if kind < 0.72:
        return f"d{d}", extents[d]
    if kind < 0.80:
        return "0", rng.choice([1, 1, 2])
    if kind < 0.88:
        other = rng.choice(allowed)
        last = max(extents[d] - 1, 0) + max(extents[other] - 1, 0)
        return f"d{d} + d{other}", last + 1 + rng.randrange(2)
    if kind < 0.94:
        factor, offset = rng.randrange(1, 3), rng.randrange(0, 3)
        return (
            f"d{d} * {factor} + {offset}",
            factor * max(extents[d] - 1, 0) + offset + 1,
        )
    if rng.random() < 0.5:
        return f"d{d} floordiv 2", max(extents[d] - 1, 0) // 2 + 1
    return f"d{d} mod 2", 2


class Body:
    """The body of one operation, as it is being written."""

    def __init__(self, program: Program, dims: int, element: str):
        self.program, self.dims, self.element = program, dims, element
        self.lines: list[str] = []

    def emit(self, text: str) -> str:
        """An operation; the name of its result."""
        name = self.program.fresh()
        self.lines.append(f"{name} = {text}")
        return name

    def converted(self, name: str, source: str) -> str:
        """A scalar as the element type of the body."""
        target = self.element
        if source == target:
            return name
        match source[0], target[0]:
            case "f", "f":
                operation = "arith.extf" if target == "f64" else "arith.truncf"
            case "i", "i":
                operation = "arith.extsi" if target == "i64" else "arith.trunci"
            case "f", "i":
                operation = "arith.fptosi"
            case _:
                operation = "arith.sitofp"
        return self.emit(f"{operation} {name} : {source} to {target}")

    def constant(self) -> str:
        """A constant of the element type."""
        number = self.program.rng.randrange(-3, 4)
        literal = f"{number / 2:.2f}" if self.element.startswith("f") else f"{number}"
        return self.emit(f"arith.constant {literal} : {self.element}")

    def index(self) -> str:
        """One of the indices as a number."""
        rng = self.program.rng
        index = self.emit(f"linalg.index {rng.randrange(self.dims)} : index")
        if self.element.startswith("i"):
            return self.emit(f"arith.index_cast {index} : index to {self.element}")
        number = self.emit(f"arith.index_cast {index} : index to i32")
        return self.emit(f"arith.sitofp {number} : i32 to {self.element}")

    def step(self, pool: list[str]) -> str:
        """A scalar computed from some that there are."""
        rng, t = self.program.rng, self.element
        a, b = rng.choice(pool), rng.choice(pool)
        is_float = t.startswith("f")
        kind = rng.randrange(10)
        if kind == 0:
            return self.constant()
        if kind == 1 and self.dims:
            return self.index()
        if kind in (2, 3):
            predicates = (
                ("ogt", "ole", "oeq", "une", "ult")
                if is_float
                else ("sgt", "sle", "eq", "ne", "slt", "ult")
            )
            compare = "arith.cmpf" if is_float else "arith.cmpi"
            holds = self.emit(f"{compare} {rng.choice(predicates)}, {a}, {b} : {t}")
            if rng.random() < 0.3:
                other = self.emit(f"{compare} {rng.choice(predicates)}, {b}, {a} : {t}")
                joined = rng.choice(("arith.andi", "arith.ori", "arith.xori"))
                holds = self.emit(f"{joined} {holds}, {other} : i1")
            c, d = rng.choice(pool), rng.choice(pool)
            return self.emit(f"arith.select {holds}, {c}, {d} : {t}")
        if kind == 4 and is_float:
            unary = rng.choice(
                (
                    "arith.negf",
                    "math.absf",
                    "math.floor",
                    "math.ceil",
                    "math.trunc",
                    "math.roundeven",
                    "math.round",
                )
            )
            return self.emit(f"{unary} {a} : {t}")
        if kind == 4:
            operation = rng.choice(
                ("arith.floordivsi", "arith.divsi", "arith.remsi", "arith.ceildivsi")
            )
            by = rng.choice((1, 2, 3, 5, -2))
            number = self.emit(f"arith.constant {by} : {t}")
            return self.emit(f"{operation} {a}, {number} : {t}")
        names = (
            ("addf", "subf", "mulf", "maximumf", "minimumf", "addf")
            if is_float
            else ("addi", "subi", "muli", "maxsi", "minsi", "andi", "ori", "xori")
        )
        return self.emit(f"arith.{rng.choice(names)} {a}, {b} : {t}")


def _input(
    program: Program, expressions: list[tuple[str, int]], element: str | None = None
) -> Value:
    """An array that an operation may read at these indices."""
    rng = program.rng
    shape = tuple(extent for _, extent in expressions)
    found = [
        value
        for value in program.values
        if len(value.shape) == len(shape)
        and all(
            given >= wanted if text.startswith("0") or " " in text else given == wanted
            for given, (text, wanted) in zip(value.shape, expressions, strict=True)
        )
        and (element is None or value.element == element)
    ]
    if found and rng.random() < 0.7:
        return rng.choice(found)
    return program.argument(shape, element or rng.choice(list(DTYPES)))


def generic(program: Program) -> None:
    """A linalg.generic, elementwise or a reduction, with one or two results."""
    rng = program.rng
    anchor = rng.choice(program.values) if program.values else None
    dims = rng.randrange(1, 5)
    extents = [rng.choice((1, 2, 3, 3, 4, 5)) for _ in range(dims)]
    inputs: list[Value] = []
    maps: list[str] = []
    if anchor is not None and len(anchor.shape) <= dims and 0 not in anchor.shape:
        places = rng.sample(range(dims), len(anchor.shape))
        for place, extent in zip(places, anchor.shape, strict=True):
            extents[place] = extent
        inputs.append(anchor)
        maps.append(_map(dims, [f"d{p}" for p in places]))
    # Every dimension has to be a plain one of some operand.
    seen = {d for d in range(dims) if any(f"d{d}" in m.split("->")[1] for m in maps)}
    missing = [d for d in range(dims) if d not in seen]
    if missing:
        rng.shuffle(missing)
        inputs.append(_input(program, [(f"d{d}", extents[d]) for d in missing]))
        maps.append(_map(dims, [f"d{d}" for d in missing]))
    for _ in range(rng.randrange(0, 3)):
        allowed = list(range(dims))
        rank = rng.randrange(0, 4)
        chosen = [_index(rng, dims, extents, allowed) for _ in range(rank)]
        inputs.append(_input(program, chosen))
        maps.append(_map(dims, [text for text, _ in chosen]))
    reduced = {d for d in range(dims) if rng.random() < 0.4}
    kept = [d for d in range(dims) if d not in reduced]
    results = 1 if rng.random() < 0.75 else 2
    outputs: list[Value] = []
    starts: list[Value] = []
    types = [rng.choice(list(DTYPES)) for _ in range(results)]
    lines: list[str] = []
    yields: list[str] = []
    output_maps: list[str] = []
    combiners: list[str] = []
    for element in types:
        order = kept[:]
        rng.shuffle(order)
        entries = [(f"d{d}", extents[d]) for d in order]
        if reduced and rng.random() < 0.25:
            entries.insert(rng.randrange(len(entries) + 1), ("0", 1))
        shape = tuple(extent for _, extent in entries)
        output_maps.append(_map(dims, [text for text, _ in entries]))
        combiner = rng.choice(COMBINERS[element[0]])
        combiners.append(combiner)
        if reduced:
            if rng.random() < 0.6:
                number = program.fresh()
                identity = IDENTITIES[combiner, element]
                if rng.random() < 0.3:
                    identity = "1.5" if element.startswith("f") else "2"
                program.lines.append(
                    f"{number} = arith.constant {identity} : {element}"
                )
                empty, start = program.fresh(), program.fresh()
                type_ = tensor(shape, element)
                program.lines.append(f"{empty} = tensor.empty() : {type_}")
                program.lines.append(
                    f"{start} = linalg.fill ins({number} : {element}) "
                    f"outs({empty} : {type_}) -> {type_}"
                )
                starts.append(Value(start, shape, element))
            else:
                starts.append(
                    next(
                        (
                            v
                            for v in program.values
                            if v.shape == shape and v.element == element
                        ),
                        None,
                    )
                    or program.argument(shape, element)
                )
        else:
            empty = program.fresh()
            type_ = tensor(shape, element)
            program.lines.append(f"{empty} = tensor.empty() : {type_}")
            starts.append(Value(empty, shape, element))
        outputs.append(Value(program.fresh(), shape, element))
    arguments = [f"%i{k}_{program.fresh()[1:]}" for k in range(len(inputs))]
    accumulators = [f"%o{k}_{program.fresh()[1:]}" for k in range(results)]
    for number, element in enumerate(types):
        body = Body(program, dims, element)
        pool = [
            body.converted(name, value.element)
            for name, value in zip(arguments, inputs, strict=True)
        ]
        for _ in range(rng.randrange(0, 4)):
            pool.append(body.step(pool))
        value = pool[-1]
        if reduced:
            pair = [value, accumulators[number]]
            rng.shuffle(pair)
            value = body.emit(f"{combiners[number]} {pair[0]}, {pair[1]} : {element}")
            if rng.random() < 0.15:
                value = body.emit(
                    f"{combiners[number]} {value}, {rng.choice(pool)} : {element}"
                )
        lines += body.lines
        yields.append(value)
    iterators = ", ".join(
        '"reduction"' if d in reduced else '"parallel"' for d in range(dims)
    )
    block = ", ".join(
        f"{name}: {value.element}"
        for name, value in zip(
            (*arguments, *accumulators), (*inputs, *starts), strict=True
        )
    )
    ins = (
        f"ins({', '.join(v.name for v in inputs)} : "
        f"{', '.join(v.type for v in inputs)})"
    )
    outs = (
        f"outs({', '.join(v.name for v in starts)} : "
        f"{', '.join(v.type for v in starts)})"
    )
    group = program.fresh()
    types_text = ", ".join(v.type for v in outputs)
    shown = f"({types_text})" if results > 1 else types_text
    text = (
        f"{group}{':2' if results > 1 else ''} = linalg.generic {{indexing_maps = "
        f"[{', '.join((*maps, *output_maps))}], iterator_types = [{iterators}]}} "
        f"{ins} {outs} {{\n  ^bb0({block}):\n"
        + "".join(f"    {line}\n" for line in lines)
        + f"    linalg.yield {', '.join(yields)} : {', '.join(types)}\n  }} -> {shown}"
    )
    program.lines.append(text)
    for number, value in enumerate(outputs):
        name = f"{group}#{number}" if results > 1 else group
        program.values.append(Value(name, value.shape, value.element))


def moved(program: Program) -> None:
    """An operation of tensor that moves elements."""
    rng = program.rng
    source = rng.choice(program.values)
    name, rank = program.fresh(), len(source.shape)
    kind = rng.choice(
        ("collapse", "expand", "slice", "pad", "insert", "transpose", "concat")
    )
    shape = list(source.shape)
    if kind == "collapse" and rank > 1:
        at = rng.randrange(rank - 1)
        groups = [[k] for k in range(rank)]
        groups[at : at + 2] = [[at, at + 1]]
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
        result = Value(name, tuple(shape), source.element)
        line = (
            f"{name} = tensor.collapse_shape {source.name} {groups} : "
            f"{source.type} into {result.type}"
        )
    elif kind == "expand" and rank:
        at = rng.randrange(rank)
        factors = [n for n in range(1, shape[at] + 1) if shape[at] % n == 0] or [1]
        first = rng.choice(factors)
        groups = [[k + (k > at)] for k in range(rank)]
        groups[at] = [at, at + 1]
        shape[at : at + 1] = [first, shape[at] // first]
        result = Value(name, tuple(shape), source.element)
        line = (
            f"{name} = tensor.expand_shape {source.name} {groups} output_shape "
            f"{shape} : {source.type} into {result.type}"
        )
    elif kind == "slice" and rank:
        offsets = [rng.randrange(n) for n in shape]
        strides = [rng.randrange(1, 3) for _ in shape]
        sizes = [
            rng.randrange(1, (n - 1 - o) // s + 2)
            for n, o, s in zip(shape, offsets, strides, strict=True)
        ]
        result = Value(name, tuple(sizes), source.element)
        line = (
            f"{name} = tensor.extract_slice {source.name}{offsets} {sizes} {strides} "
            f": {source.type} to {result.type}"
        )
    elif kind == "pad" and rank and rank < 4:
        low = [rng.randrange(2) for _ in shape]
        high = [rng.randrange(2) for _ in shape]
        wide = tuple(a + b + n for a, b, n in zip(low, high, shape, strict=True))
        result = Value(name, wide, source.element)
        number = program.fresh()
        literal = "0.75" if source.element.startswith("f") else "7"
        program.lines.append(f"{number} = arith.constant {literal} : {source.element}")
        indices = ", ".join(f"%p{k}: index" for k in range(rank))
        line = (
            f"{name} = tensor.pad {source.name} low{low} high{high} {{\n"
            f"  ^bb0({indices}):\n    tensor.yield {number} : {source.element}\n"
            f"  }} : {source.type} to {result.type}"
        )
    elif kind == "insert" and rank:
        wide = tuple(n + rng.randrange(3) for n in shape)
        target = program.argument(wide, source.element)
        offsets = [rng.randrange(w - n + 1) for w, n in zip(wide, shape, strict=True)]
        result = Value(name, wide, source.element)
        line = (
            f"{name} = tensor.insert_slice {source.name} into {target.name}{offsets} "
            f"{shape} {[1] * rank} : {source.type} into {result.type}"
        )
    elif kind == "concat" and rank:
        along = rng.randrange(rank)
        other_shape = list(shape)
        other_shape[along] = rng.randrange(1, 4)
        other = program.argument(tuple(other_shape), source.element)
        shape[along] += other_shape[along]
        result = Value(name, tuple(shape), source.element)
        line = (
            f"{name} = tensor.concat dim({along}) {source.name}, {other.name} : "
            f"({source.type}, {other.type}) -> {result.type}"
        )
    elif kind == "transpose" and rank > 1:
        order = list(range(rank))
        rng.shuffle(order)
        turned = tuple(shape[k] for k in order)
        result = Value(name, turned, source.element)
        empty = program.fresh()
        program.lines.append(f"{empty} = tensor.empty() : {result.type}")
        line = (
            f"{name} = linalg.transpose ins({source.name} : {source.type}) "
            f"outs({empty} : {result.type}) permutation = {order}"
        )
    else:
        return
    program.lines.append(line)
    program.values.append(result)


def _parallel(rank: int) -> str:
    return ", ".join(['"parallel"'] * rank)


def place(program: Program) -> None:
    """An extreme along an axis and its place, as torch-mlir or StableHLO has them."""
    rng = program.rng
    element = rng.choice(list(DTYPES))
    shape = tuple(rng.choice((1, 2, 3, 5)) for _ in range(rng.randrange(1, 4)))
    source = _input(program, [(f"d{k}", n) for k, n in enumerate(shape)], element)
    axis = rng.randrange(len(shape))
    kept = [k for k in range(len(shape)) if k != axis]
    result = tuple(shape[k] for k in kept)
    is_max, number = rng.random() < 0.5, rng.choice(("i32", "i64"))
    combiner = {
        "f": ("arith.minimumf", "arith.maximumf"),
        "i": ("arith.minsi", "arith.maxsi"),
    }[element[0]][is_max]
    compare = "arith.cmpf" if element[0] == "f" else "arith.cmpi"
    order, prefix = ("gt" if is_max else "lt"), ("o" if element[0] == "f" else "s")
    filled: list[str] = []
    for value, type_ in ((IDENTITIES[combiner, element], element), ("0", number)):
        constant, empty, fill = (program.fresh() for _ in range(3))
        kind = tensor(result, type_)
        program.lines += [
            f"{constant} = arith.constant {value} : {type_}",
            f"{empty} = tensor.empty() : {kind}",
            f"{fill} = linalg.fill ins({constant} : {type_}) outs({empty} : {kind}) "
            f"-> {kind}",
        ]
        filled.append(fill)
    rank = len(shape)
    whole, part = (
        _map(rank, [f"d{k}" for k in places]) for places in (range(rank), kept)
    )
    index = f"%n = linalg.index {axis} : index\n    %k = arith.index_cast %n : index"
    if rng.random() < 0.5:
        body = (
            f"{index} to {number}\n    %v = {combiner} %x, %m : {element}\n"
            f"    %c = {compare} {prefix}{order}, %x, %m : {element}\n"
            f"    %w = arith.select %c, %k, %p : {number}"
        )
        maps, ins, arguments = f"{whole}, {part}, {part}", source.name, "%x: " + element
        types = source.type
    else:
        # Numbers are a second array, and equal elements are told apart by them.
        numbers, empty = program.fresh(), program.fresh()
        kind = tensor(shape, number)
        program.lines += [
            f"{empty} = tensor.empty() : {kind}",
            f"{numbers} = linalg.generic {{indexing_maps = [{whole}], iterator_types = "
            f"[{_parallel(rank)}]}} outs({empty} : {kind}) {{\n"
            f"  ^bb0(%o: {number}):\n    {index} to {number}\n"
            f"    linalg.yield %k : {number}\n  }} -> {kind}",
        ]
        nan = (
            f"    %u = arith.cmpf une, %m, %m : {element}\n"
            if element[0] == "f"
            else "    %u = arith.constant false\n"
        )
        equal = "oeq" if element[0] == "f" else "eq"
        body = (
            f"%c = {compare} {prefix}{order}, %m, %x : {element}\n{nan}"
            f"    %a = arith.ori %c, %u : i1\n"
            f"    %e = {compare} {equal}, %m, %x : {element}\n"
            f"    %l = arith.cmpi slt, %p, %i : {number}\n"
            f"    %b = arith.andi %e, %l : i1\n    %d = arith.ori %a, %b : i1\n"
            f"    %v = arith.select %a, %m, %x : {element}\n"
            f"    %w = arith.select %d, %p, %i : {number}"
        )
        maps, ins = f"{whole}, {whole}, {part}, {part}", f"{source.name}, {numbers}"
        types, arguments = f"{source.type}, {kind}", f"%x: {element}, %i: {number}"
    iterators = ", ".join(
        '"reduction"' if k == axis else '"parallel"' for k in range(rank)
    )
    extreme, where = tensor(result, element), tensor(result, number)
    group = program.fresh()
    program.lines.append(
        f"{group}:2 = linalg.generic {{indexing_maps = [{maps}], iterator_types = "
        f"[{iterators}]}} ins({ins} : {types}) outs({filled[0]}, {filled[1]} : "
        f"{extreme}, {where}) {{\n  ^bb0({arguments}, %m: {element}, %p: {number}):\n"
        f"    {body}\n    linalg.yield %v, %w : {element}, {number}\n"
        f"  }} -> ({extreme}, {where})"
    )
    found = [
        Value(f"{group}#0", result, element),
        Value(f"{group}#1", result, number),
    ]
    rng.shuffle(found)
    program.values += found


def window(program: Program) -> None:
    """Sums of products over a window that moves by steps, or reversed."""
    rng = program.rng
    element = rng.choice(list(DTYPES))
    stride, dilation = rng.randrange(1, 3), rng.randrange(1, 3)
    count, size, channels = (
        rng.randrange(1, 5),
        rng.randrange(1, 4),
        rng.randrange(1, 3),
    )
    length = stride * (count - 1) + dilation * (size - 1) + 1
    place = f"d0 * {stride} + d1 * {dilation}"
    if rng.random() < 0.3:
        place = f"{length - 1} - d0 * {stride} - d1 * {dilation}"
    image = program.argument((channels, length), element)
    weights = program.argument((size, channels), element)
    start = program.argument((count,), element)
    add, mul = ("addf", "mulf") if element[0] == "f" else ("addi", "muli")
    name = program.fresh()
    program.lines.append(
        f"{name} = linalg.generic {{indexing_maps = [{_map(3, ['d2', place])}, "
        f"{_map(3, ['d1', 'd2'])}, {_map(3, ['d0'])}], iterator_types = "
        f'["parallel", "reduction", "reduction"]}} ins({image.name}, {weights.name} : '
        f"{image.type}, {weights.type}) outs({start.name} : {start.type}) {{\n"
        f"  ^bb0(%x: {element}, %w: {element}, %o: {element}):\n"
        f"    %p = arith.{mul} %x, %w : {element}\n"
        f"    %s = arith.{add} %o, %p : {element}\n    linalg.yield %s : {element}\n"
        f"  }} -> {start.type}"
    )
    program.values.append(Value(name, (count,), element))


def picked(program: Program) -> None:
    """Elements at places that data says, kept within the array."""
    rng = program.rng
    table = rng.choice([v for v in program.values if v.shape] or [None])
    if table is None or 0 in table.shape:
        return
    number = rng.choice(("i32", "i64"))
    places = program.argument((rng.randrange(1, 5),), number)
    shape = (*places.shape, *table.shape[1:])
    rank, type_ = len(shape), tensor(shape, table.element)
    empty, name = program.fresh(), program.fresh()
    rest = "".join(f", %j{k}" for k in range(1, rank))
    indices = "".join(f"    %j{k} = linalg.index {k} : index\n" for k in range(1, rank))
    program.lines += [
        f"{empty} = tensor.empty() : {type_}",
        f"{name} = linalg.generic {{indexing_maps = [{_map(rank, ['d0'])}, "
        f"{_map(rank, [f'd{k}' for k in range(rank)])}], iterator_types = "
        f"[{_parallel(rank)}]}} ins({places.name} : {places.type}) "
        f"outs({empty} : {type_}) {{\n  ^bb0(%x: {number}, %o: {table.element}):\n"
        f"    %z = arith.constant 0 : index\n"
        f"    %t = arith.constant {table.shape[0] - 1} : index\n"
        f"    %y = arith.index_cast %x : {number} to index\n"
        f"    %u = arith.maxsi %y, %z : index\n    %v = arith.minsi %u, %t : index\n"
        f"{indices}    %e = tensor.extract {table.name}[%v{rest}] : {table.type}\n"
        f"    linalg.yield %e : {table.element}\n  }} -> {type_}",
    ]
    program.values.append(Value(name, shape, table.element))


def _of_dynamic_arguments(text: str, arguments: list[Value]) -> str:
    """The same function of arrays whose extents are not known, which are cast."""
    head, body = text.split(" {\n", 1)
    casts: list[str] = []
    for argument in arguments:
        dynamic = f"tensor<{'?x' * len(argument.shape)}{argument.element}>"
        if not argument.shape:
            continue
        given = f"%d{argument.name[1:]}"
        head = head.replace(
            f"{argument.name}: {argument.type}", f"{given}: {dynamic}", 1
        )
        casts.append(
            f"  {argument.name} = tensor.cast {given} : {dynamic} to {argument.type}\n"
        )
    return f"{head} {{\n{''.join(casts)}{body}"


def random_program(
    name: str, seed: int, wide: bool = False
) -> tuple[str, list[np.ndarray]]:
    """A function of one to three operations, and arrays to call it with.

    Args:
        name: what it is called.
        seed: the same program for the same seed.
        wide: whether there may be places of extremes, windows, elements at places that
            data says, and arguments of dynamic extents.
    """
    program = Program(name, Random(seed))
    rng = program.rng
    if not wide:
        generic(program)
        for _ in range(rng.randrange(0, 3)):
            (generic if rng.random() < 0.6 else moved)(program)
        return program.text(program.values[-1]), program.data()
    kinds = (generic, moved, place, window, picked)
    rng.choice((generic, place, window))(program)
    for _ in range(rng.randrange(0, 3)):
        rng.choice(kinds)(program)
    text = program.text(program.values[-1])
    if rng.random() < 0.3:
        text = _of_dynamic_arguments(text, program.arguments)
    return text, program.data()
