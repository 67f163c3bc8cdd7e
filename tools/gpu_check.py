"""Kernels on a GPU against PyTorch in float64: correctness, and times.

Two steps, since a machine with a GPU may have nothing but PyTorch:

    python -m moa_dialect.tools.gpu_check DIR --export     # compiles, needs no GPU
    python gpu_check.py DIR                                # runs, needs PyTorch alone

The first writes for each case its PTX and its plan, for fixed shapes, in which
arguments stand for their addresses. The second, for which this file is enough, runs the
plans.
"""
# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PLACE = 40
"""Addresses in an exported plan are `(1 + number of the argument) << PLACE`."""

TOLERANCES = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""The largest difference allowed, relative to the largest magnitude of the result."""

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}

FLUSHED_BYTES = 1 << 28
"""What is written between two samples: several times the largest cache."""

MAP_TYPES = {"float16": 6, "float32": 7, "float64": 8, "bfloat16": 9}
"""CUtensorMapDataType."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A program for given arguments.

    Attributes:
        name: its name; those of measured cases begin with `fast`, or with `try` if
            they are experiments: schedules that are not chosen so far.
        program: the program, of the module moa.
        shapes: the arguments' shapes.
        dtype: their dtype.
        reference: what PyTorch does, of its module and the arguments.
        operations: how many multiplications and additions it takes, 0 if memory sets
            the pace.
        bytes: how many bytes it has to read and write, 0 if arithmetic sets the pace.
        checked: how many indices of the first axis are compared.
        schedule: how it runs, `auto` for what moa chooses.
        options: more options of the compilation, such as the tier.
        limit: the largest relative difference, if it is not the dtype's.
    """

    name: str
    program: Callable[[Any], Callable[..., Any]]
    shapes: Sequence[Shape]
    dtype: str
    reference: Callable[..., Any]
    operations: float = 0.0
    bytes: float = 0.0
    checked: int | None = None
    schedule: str = "auto"
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    limit: float = 0.0

    @property
    def tolerance(self) -> float:
        """The largest difference relative to the largest magnitude of the result."""
        return self.limit or TOLERANCES[self.dtype]


def _attention(**options: Any) -> Callable[[Any], Callable[..., Any]]:
    return lambda moa: lambda q, k, v: moa.attention(q, k, v, **options)


def _sdpa(torch: Any, q: Any, k: Any, v: Any, **options: Any) -> Any:
    attention = torch.nn.functional.scaled_dot_product_attention
    if q.shape[0] != k.shape[0]:
        options["enable_gqa"] = True
    return attention(q[None], k[None], v[None], **options)[0]


def _causal(torch: Any, q: Any, k: Any, v: Any) -> Any:
    return _sdpa(torch, q, k, v, is_causal=True)


def _product(moa: Any) -> Callable[..., Any]:
    def product(a: Any, b: Any) -> Any:
        return moa.inner("add", "mul", a, b)

    return product


def _fast_attention(
    heads: int,
    queries: int,
    depth: int,
    dtype: str,
    keys: int = 0,
    of_keys: int = 0,
    is_causal: bool = False,
) -> Case:
    """Attention, of a name such as `fast_causal_bfloat16_64x4096x128`."""
    keys, of_keys = keys or queries, of_keys or heads
    kind = "causal" if is_causal else "attention"
    size = f"{heads}x{queries}x{depth}"
    if keys != queries:
        size += f"_{of_keys}x{keys}"
    operations = 4.0 * heads * queries * keys * depth * (0.5 if is_causal else 1)
    moved = 2.0 * of_keys * keys * depth * BYTES[dtype]
    is_decode = queries <= 16
    return Case(
        f"fast_{kind}_{dtype}_{size}",
        _attention(is_causal=is_causal),
        [(heads, queries, depth)] + [(of_keys, keys, depth)] * 2,
        dtype,
        _causal if is_causal else _sdpa,
        0 if is_decode else operations,
        moved if is_decode else 0,
        None if heads != of_keys else 2,
    )


def _tried(case: Case, tag: str, schedule: str) -> Case:
    """An experiment: a case with another schedule, to be measured beside it."""
    name = case.name.replace("fast_", f"try_{tag}_", 1)
    return replace(case, name=name, schedule=schedule)


def _experiments() -> list[Case]:
    """Schedules beside those that are chosen.

    The copy engine in other forms, the longest rows of many heads first, and decoding
    with more bytes under way; small ones of them first, to be compared only.
    """
    found: list[Case] = [
        Case(
            f"try_small_{name}",
            program,
            shapes,
            "bfloat16",
            reference,
            schedule=schedule,
        )
        for name, program, shapes, reference, schedule in (
            (
                "product",
                _wide_product,
                [(200, 96), (96, 152)],
                _times,
                "j=grid,block:64;i=grid,warps:4,regs:2;p=chunk:32,stages:3,wgmma,tma",
            ),
            (
                "attention",
                _attention(),
                [(4, 130, 64)] * 3,
                _sdpa,
                "j=grid,warps:8,regs:2;p=chunk:64,stages:2,wgmma,tma",
            ),
            (
                "causal",
                _attention(is_causal=True),
                [(4, 300, 128)] * 3,
                _causal,
                "j=grid,span:3,warps:4,regs:2;p=chunk:64,stages:2,wgmma,tma",
            ),
            (
                "split",
                _attention(),
                [(8, 1, 128), (2, 700, 128), (2, 700, 128)],
                _sdpa,
                "i_g=grid,warps:1,regs:2;p=chunk:32,stages:3,split:4,mma,tma",
            ),
        )
    ]
    rows = "j=grid,{0}warps:{1},regs:2;p=chunk:{2},{3}stages:{4},wgmma,tma{5}"
    forms = {
        "plain": ("", 8, 128, "", 2, ""),
        "ahead": ("", 8, 64, "", 3, ",ahead"),
        "behind": ("", 8, 128, "", 2, ",behind"),
        "turns": ("", 8, 128, "", 2, ",behind,turns"),
        "both": ("", 8, 96, "", 2, ",ahead,behind"),
        "three": ("", 12, 128, "", 2, ",behind"),
        "groups": ("groups:2,", 4, 128, "", 2, ",behind"),
    }
    for depth in (64, 128):
        for is_causal in (False, True):
            case = _fast_attention(64, 4096, depth, "bfloat16", is_causal=is_causal)
            for tag, form in forms.items():
                if depth == 64 or tag not in ("three", "groups"):
                    found.append(_tried(case, tag, rows.format(*form)))
            for span in (1, 8, 64) if is_causal else ():
                form = (f"span:{span},", *forms["behind"][1:])
                found.append(_tried(case, f"span{span}", rows.format(*form)))
    found += _of_clusters()
    for keys in (8192, 131072):
        case = _fast_attention(32, 1, 128, "bfloat16", keys, 8)
        for tag, (chunk, stages, split, tail) in {
            "tma64x3": (64, 3, 32, "mma,tma"),
            "tma64x6": (64, 6, 16, "mma,tma"),
            "tma32x4": (32, 4, 48, "mma,tma"),
            "more": (64, 2, 48, "mma"),
            "short": (32, 2, 64, "mma"),
        }.items():
            text = (
                f"i_g=grid,warps:1,regs:2;"
                f"p=chunk:{chunk},stages:{stages},split:{split},{tail}"
            )
            found.append(_tried(case, tag, text))
    product = Case(
        "fast_matmul_bfloat16_4096",
        _wide_product,
        [(4096, 4096)] * 2,
        "bfloat16",
        _times,
        2.0 * 4096**3,
    )
    found.append(_tried(product, "auto", "auto"))
    for tag, text in {
        "tma128x128": "j=grid,block:128;i=grid,warps:8,regs:2;p=chunk:64,stages:4,",
        "tma128x256": "j=grid,block:256;i=grid,warps:8,regs:2;p=chunk:64,stages:4,",
    }.items():
        found.append(_tried(product, tag, f"{text}wgmma,tma"))
    return found


def _of_clusters() -> list[Case]:
    """Groups that share what they load, beside the same without.

    Small ones first, with rows and columns that do not fill the last cluster.
    """
    found = [
        replace(
            case,
            name=f"try_cluster_small_{name}",
            schedule=schedule,
            operations=0,
        )
        for name, case, schedule in (
            (
                "product",
                Case("", _wide_product, [(200, 96), (96, 152)], "bfloat16", _times),
                "j=grid,block:64,cluster:2;i=grid,warps:4,regs:2,cluster:2;"
                "p=chunk:32,stages:3,wgmma,tma",
            ),
            (
                "attention",
                _fast_attention(4, 330, 64, "bfloat16"),
                "j=grid,warps:8,regs:2,cluster:2;p=chunk:64,stages:2,wgmma,tma,behind",
            ),
            (
                "causal",
                _fast_attention(4, 300, 128, "bfloat16", is_causal=True),
                "j=grid,span:3,warps:4,regs:2,cluster:4;p=chunk:64,stages:2,wgmma,tma",
            ),
        )
    ]
    rows = "j=grid,{0}warps:{1},regs:2{2};p=chunk:128,stages:2,wgmma,tma,behind"
    for depth in (64, 128):
        for is_causal in (False, True):
            case = _fast_attention(64, 4096, depth, "bfloat16", is_causal=is_causal)
            many = depth == 64 and not is_causal
            form = "span:16," if is_causal else "", 12 if many else 8
            for count in (1, 2, 4):
                tail = f",cluster:{count}" if count > 1 else ""
                text = rows.format(*form, tail)
                found.append(_tried(case, f"cluster{count}", text))
    product = _fast_product(4096)
    for tag, (width, *tails) in {
        "cluster1": (256, "", ""),
        "cluster_rows": (256, "", ",cluster:2"),
        "cluster_columns": (256, ",cluster:2", ""),
        "cluster_both": (128, ",cluster:2", ",cluster:2"),
    }.items():
        text = (
            f"j=grid,block:{width}{tails[0]};i=grid,warps:8,regs:2{tails[1]};"
            "p=chunk:64,stages:4,wgmma,tma"
        )
        found.append(_tried(product, tag, text))
    for keys in (8192, 131072):
        case = _fast_attention(32, 1, 128, "bfloat16", keys, 8)
        for tag, form in {
            "cluster_parts": "split:4,cluster:8,mma,tma",
            "cluster_only": "cluster:8,mma,tma",
            "cluster_none": "split:32,mma,tma",
        }.items():
            text = f"i_g=grid,warps:1,regs:2;p=chunk:64,stages:3,{form}"
            found.append(_tried(case, tag, text))
    for count in (1, 8):
        tail = f",cluster:{count}" if count > 1 else ""
        case = Case(
            "fast_softmax_float32_16x131072",
            lambda moa: moa.library.softmax,
            [(16, 131072)],
            "float32",
            _softmax,
            0,
            2.0 * 4 * 16 * 131072,
        )
        text = f"p=chunk:4096,threads:1024{tail}"
        found.append(_tried(case, f"cluster_rows{count}", text))
    return found


def _logsumexp(torch: Any, x: Any) -> Any:
    return torch.logsumexp(x, -1)


def _softmax(torch: Any, x: Any) -> Any:
    return torch.softmax(x, -1)


def _fast_product(size: int, dtype: str = "bfloat16", rows: int = 0) -> Case:
    """A product of matrices; with few rows memory sets the pace."""
    name = f"fast_matmul_{dtype}"
    if dtype == "bfloat16":
        name += f"_{rows}x{size}" if rows else f"_{size}"
    return Case(
        name,
        _wide_product if dtype == "bfloat16" else _product,
        [(rows or size, size), (size, size)],
        dtype,
        _times,
        0 if rows else 2.0 * size**3,
        float(BYTES[dtype]) * size * size if rows else 0,
    )


def _of_folds() -> list[Case]:
    """Folds of whole arrays, along columns, and over rows that are long or few."""
    size = 1 << 26
    found = [
        Case(
            "fast_total",
            lambda moa: lambda x: moa.reduce("add", x * x),
            [(size,)],
            "float32",
            lambda torch, x: (x * x).sum(),
            bytes=4.0 * size,
        ),
        Case(
            "fast_normalized",
            lambda moa: lambda x: x / moa.sqrt(moa.reduce("add", x * x)),
            [(size,)],
            "float32",
            lambda torch, x: x / (x * x).sum().sqrt(),
            bytes=12.0 * size,
        ),
        Case(
            "fast_columns",
            lambda moa: lambda x: moa.reduce("add", x * x),
            [(16384, 4096)],
            "float32",
            lambda torch, x: (x * x).sum(0),
            bytes=4.0 * size,
        ),
        Case(
            "fast_column",
            lambda moa: lambda x: moa.reduce("add", x),
            [(1 << 23, 8)],
            "float32",
            lambda torch, x: x.sum(0),
            bytes=4.0 * size,
        ),
        Case(
            "fast_variance",
            lambda moa: (
                lambda x: moa.reduce("add", (x - moa.reduce("add", x) / size) ** 2.0)
            ),
            [(size,)],
            "float32",
            lambda torch, x: x.var(correction=0) * size,
            bytes=4.0 * size,
        ),
        Case(
            "fast_transposed",
            lambda moa: lambda x: moa.transpose(x),
            [(8192, 8192)],
            "float32",
            lambda torch, x: x.mT.contiguous(),
            bytes=8.0 * size,
        ),
        Case(
            "fast_elements",
            lambda moa: lambda x: x * x + x,
            [(16384, 4096)],
            "bfloat16",
            lambda torch, x: x * x + x,
            bytes=4.0 * size,
        ),
    ]
    for rows, columns in (
        (1, 100000),
        (3, 5000),
        (64, 100000),
        (300, 20000),
        (20000, 100),
        (1 << 20, 8),
    ):
        case = Case(
            f"fast_softmax_{rows}x{columns}",
            lambda moa: moa.library.softmax,
            [(rows, columns)],
            "float32",
            _softmax,
            bytes=8.0 * rows * columns,
        )
        found.append(case)
    return found


def _times(torch: Any, a: Any, b: Any) -> Any:
    return a @ b


def _wide_product(moa: Any) -> Callable[..., Any]:
    """A product of half precision that is summed in f32."""

    def product(a: Any, b: Any) -> Any:
        wide = (moa.cast(x, "f32") for x in (a, b))
        return moa.cast(moa.inner("add", "mul", *wide), "bf16")

    return product


def _capped(torch: Any, q: Any, k: Any, v: Any) -> Any:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return torch.softmax(20 * torch.tanh(scores / 20), -1) @ v


def _tiers() -> list[Case]:
    """What products of matrices are made of, for each type that has such products.

    In each tier attention in full, under a causal mask, of capped scores, with heads
    that share keys, with values wider than keys, and a product of matrices; then tf32,
    and results that depend on no batch.
    """
    types = {
        "portable": ("float16", "bfloat16", "float32", "float64"),
        "mma": ("float16", "bfloat16", "float64"),
        "wgmma": ("float16", "bfloat16"),
    }
    square, odd = [(2, 130, 64)] * 3, [(2, 200, 128)] * 3
    programs: dict[str, tuple[Any, Sequence[Shape], Any]] = {
        "attention": (_attention(), odd, _sdpa),
        "causal": (_attention(is_causal=True), odd, _causal),
        "softcap": (_attention(softcap=20.0), square, _capped),
        "grouped": (_attention(), [(8, 3, 128), *[(2, 500, 128)] * 2], _sdpa),
        "wide": (_attention(), [(2, 90, 40), (2, 150, 40), (2, 150, 96)], _sdpa),
        "product": (_product, [(200, 96), (96, 152)], _times),
    }
    found = [
        Case(
            f"tier_{tier}_{name}_{dtype}",
            program,
            shapes,
            dtype,
            reference,
            options={"tier": tier},
        )
        for tier, dtypes in types.items()
        for dtype in dtypes
        for name, (program, shapes, reference) in programs.items()
    ]
    for name in ("attention", "causal", "product"):
        program, shapes, reference = programs[name]
        found += [
            Case(
                f"tier_tf32_{name}",
                program,
                shapes,
                "float32",
                reference,
                options={"tf32": True},
                limit=4e-3,
            ),
            *(
                Case(
                    f"deterministic_{name}_{dtype}",
                    program,
                    shapes,
                    dtype,
                    reference,
                    options={"deterministic": True},
                )
                for dtype in ("bfloat16", "float32")
            ),
        ]
    rows = [(3, 5000)]
    long = [(2, 70, 64), (2, 90, 64), (2, 90, 384)]
    found += [
        Case("long_values", _attention(), long, "bfloat16", _sdpa),
        Case("long_keys", _attention(), [(2, 70, 512)] * 3, "bfloat16", _sdpa),
        Case(
            "long_rows",
            lambda moa: moa.library.softmax,
            rows,
            "float32",
            _softmax,
        ),
    ]
    return found


def _fast_rows(
    name: str, program: Callable[[Any], Any], reference: Any, times: int
) -> Case:
    shape = (8192, 4096)
    moved = 4.0 * times * shape[0] * shape[1]
    return Case(
        f"fast_{name}", program, [shape], "float32", reference, bytes=moved, checked=64
    )


CASES: list[Case] = [
    Case(
        "add",
        lambda moa: lambda a, b: a + b,
        [(1000, 70)] * 2,
        "float32",
        lambda torch, a, b: a + b,
    ),
    Case(
        "softmax",
        lambda moa: moa.library.softmax,
        [(300, 1000)],
        "float32",
        _softmax,
    ),
    Case(
        "layernorm",
        lambda moa: lambda x: moa.library.layernorm(x),
        [(300, 1000)],
        "float32",
        lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
    ),
    Case(
        "total",
        lambda moa: lambda x: x - moa.reduce("add", moa.ravel(x)),
        [(30, 20)],
        "float64",
        lambda torch, x: x - x.sum(),
    ),
    *(
        Case(
            f"matmul_{dtype}",
            _product,
            [(200, 96), (96, 150)],
            dtype,
            _times,
        )
        for dtype in ("float32", "float64")
    ),
    *(
        Case(f"attention_{dtype}", _attention(), [(4, 130, 64)] * 3, dtype, _sdpa)
        for dtype in TOLERANCES
    ),
    *(
        Case(
            f"causal_{dtype}",
            _attention(is_causal=True),
            [(4, 130, 64)] * 3,
            dtype,
            _causal,
        )
        for dtype in ("float32", "bfloat16", "float64")
    ),
    Case(
        "window",
        _attention(is_causal=True, window=50),
        [(4, 300, 64)] * 3,
        "bfloat16",
        lambda torch, q, k, v: _sdpa(
            torch,
            q,
            k,
            v,
            attn_mask=torch.ones(300, 300, dtype=torch.bool, device=q.device)
            .tril()
            .triu(-49),
        ),
    ),
    Case(
        "wide",
        _attention(),
        [(2, 200, 96), (2, 150, 96), (2, 150, 256)],
        "bfloat16",
        _sdpa,
    ),
    Case(
        "grouped",
        _attention(),
        [(8, 3, 128), (2, 700, 128), (2, 700, 128)],
        "bfloat16",
        _sdpa,
    ),
    *_tiers(),
    *(
        _fast_attention(64, 4096, depth, "bfloat16", is_causal=is_causal)
        for depth in (64, 128)
        for is_causal in (False, True)
    ),
    _fast_attention(32, 8192, 128, "bfloat16"),
    _fast_attention(16, 16384, 128, "bfloat16"),
    _fast_attention(32, 2048, 64, "float32"),
    _fast_attention(2, 8192, 64, "float64"),
    *(
        _fast_attention(32, 1, 128, dtype, keys, 8)
        for dtype, keys in (
            ("bfloat16", 8192),
            ("bfloat16", 131072),
            ("float32", 8192),
        )
    ),
    *(_fast_attention(4, rows, 128, "bfloat16", 131072) for rows in (8, 16)),
    *(_fast_product(4096, dtype) for dtype in ("bfloat16", "float32", "float64")),
    *(_fast_product(size) for size in (1024, 2048, 8192)),
    _fast_product(4096, rows=16),
    _fast_rows(
        "softmax",
        lambda moa: moa.library.softmax,
        _softmax,
        2,
    ),
    _fast_rows(
        "layernorm",
        lambda moa: lambda x: moa.library.layernorm(x),
        lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]),
        2,
    ),
    _fast_rows(
        "logsumexp",
        lambda moa: moa.library.logsumexp,
        _logsumexp,
        1,
    ),
    *_of_folds(),
    *_experiments(),
]


# On any machine: compile.


def export(
    folder: Path, cases: Sequence[Case], chip: str, features: str = ""
) -> list[dict[str, Any]]:
    """Compile cases and write them to a folder; gives what `cases.json` has."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_exported(folder, case, chip, features) for case in cases]
    (folder / "cases.json").write_text(json.dumps(entries, indent=1))
    return entries


def _exported(folder: Path, case: Case, chip: str, features: str) -> dict[str, Any]:
    import moa_dialect as moa
    from moa_dialect.lowering.engine import compile_for_cuda
    from moa_dialect.options import Options

    name, shapes, dtype = case.name, case.shapes, case.dtype
    specs = [moa.ArraySpec(shape, dtype) for shape in shapes]
    chosen: dict[str, Any] = {"target": "cuda", "chip": chip}
    chosen |= {"schedule": case.schedule, **case.options}
    compiled = moa.jit(case.program(moa), **chosen).lower(*specs)
    options = Options(features=features, **chosen)
    kernel = compile_for_cuda(compiled.module("moa"), options=options)
    outputs: list[dict[str, Any]] = []
    needed = 0

    def new(number: int, shape: Sequence[int]) -> tuple[None, int]:
        memory = kernel.signature.outputs[number]
        outputs.append({"shape": list(shape), "dtype": memory.dtype})
        return None, (1 + len(shapes) + number) << PLACE

    def scratch(size: int) -> tuple[None, int]:
        nonlocal needed
        needed = size
        return None, (1 + len(shapes) + len(outputs)) << PLACE

    pointers = [(1 + number) << PLACE for number in range(len(shapes))]
    frame, _, _ = kernel.planned(pointers, [], new, scratch)
    launches: list[dict[str, Any]] = []
    for launch, (at, _, maps) in zip(kernel.launches, frame.launches, strict=True):
        number, *sizes, shared = frame.plan[at : at + 8]
        places, _ = launch.parameters()
        if number:
            launches.append(
                {
                    "kernel": launch.kernel,
                    "sizes": sizes,
                    "shared": shared,
                    "words": [
                        _placed(frame.plan[at + 8 + place]) if place >= 0 else None
                        for place in places
                    ],
                    "maps": [
                        _described(place, box, frame.plan[first:last])
                        for place, first, last, box in maps
                    ],
                }
            )
    (folder / f"{name}.ptx").write_bytes(kernel.compilation.code)
    inputs = [{"shape": list(shape), "dtype": dtype} for shape in shapes]
    return {
        "name": name,
        "inputs": inputs,
        "outputs": outputs,
        "scratch": needed,
        "launches": launches,
        "schedules": compiled.schedules,
    }


def _described(place: int, box: Any, words: Sequence[int]) -> dict[str, Any]:
    """A tensor map: which parameter it is, and what it is made of."""
    address, extents, strides = box.read(words)
    return {
        "parameter": place,
        "address": _placed(address),
        "extents": list(extents),
        "strides": list(strides),
        "box": list(box.box),
        "dtype": box.dtype,
    }


def _placed(word: int) -> int | list[int]:
    """A word of a plan: a number, or an argument and an offset in bytes."""
    if word < 1 << PLACE:
        return word
    return [(word >> PLACE) - 1, word & ((1 << PLACE) - 1)]


# On the machine with the GPU: run. Nothing but PyTorch from here on.


class Launcher:
    """The launches of one exported case, on tensors."""

    def __init__(
        self,
        driver: ctypes.CDLL,
        code: bytes,
        entry: dict[str, Any],
        tensors: Sequence[Any],
        stream: int,
    ) -> None:
        self._driver = driver
        self._stream = ctypes.c_void_p(stream)
        module = ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), code + b"\0")
        self._launches: list[tuple[Any, ...]] = []
        addresses = [tensor.data_ptr() for tensor in tensors]
        for launch in entry["launches"]:
            function = ctypes.c_void_p()
            name = launch["kernel"].encode()
            self._call("cuModuleGetFunction", ctypes.byref(function), module, name)
            shared = launch["shared"]
            if shared > 48 << 10:
                self._call("cuFuncSetAttribute", function, 8, shared)

            def at(word: Any) -> int:
                whole = isinstance(word, int)
                return word if whole else addresses[word[0]] + word[1]

            found = [0 if word is None else at(word) for word in launch["words"]]
            words = (ctypes.c_int64 * max(len(found), 1))(*found)
            start = ctypes.addressof(words)
            pointers = (ctypes.c_void_p * max(len(found), 1))(
                *(start + 8 * number for number in range(len(found)))
            )
            kept: list[Any] = [words]
            for map_ in launch.get("maps", ()):
                memory, address = self._map(map_, at(map_["address"]))
                pointers[map_["parameter"]] = address
                kept.append(memory)
            if 0 not in launch["sizes"]:
                sizes = map(ctypes.c_uint, (*launch["sizes"], shared))
                self._launches.append((function, *sizes, pointers, kept))

    def _map(self, entry: dict[str, Any], address: int) -> tuple[Any, int]:
        """A tensor map, as moa_dialect.lowering.cuda_driver makes it."""
        memory = (ctypes.c_char * 192)()
        place = -(-ctypes.addressof(memory) // 64) * 64
        rank = len(entry["extents"])
        wide, narrow = ctypes.c_uint64 * rank, ctypes.c_uint32 * rank
        self._call(
            "cuTensorMapEncodeTiled",
            ctypes.c_void_p(place),
            ctypes.c_int(MAP_TYPES[entry["dtype"]]),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            wide(*reversed(entry["extents"])),
            wide(*reversed(entry["strides"])),
            narrow(*reversed(entry["box"])),
            narrow(*(1,) * rank),
            *map(ctypes.c_int, (0, 3, 2, 0)),
        )
        return memory, place

    def _call(self, name: str, *arguments: Any) -> None:
        error = getattr(self._driver, name)(*arguments)
        if error:
            raise RuntimeError(f"{name}: error {error}")

    def __call__(self) -> None:
        """Launch the kernels."""
        for function, *sizes, pointers, _ in self._launches:
            self._call("cuLaunchKernel", function, *sizes, self._stream, pointers, None)


def seconds(
    torch: Any, call: Callable[[], object], count: int, before: Any = None
) -> float:
    """The median time of a call on the device, by CUDA events.

    Args:
        torch: the module.
        call: what is timed.
        count: how often.
        before: memory that is written before each call, so that its arguments are in no
            cache, and the device is busy until the call has been made; or nothing.
    """
    for _ in range(3):
        call()
    found: list[float] = []
    for _ in range(count):
        if before is not None:
            before.zero_()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def check(
    torch: Any, driver: ctypes.CDLL, folder: Path, entry: dict[str, Any], count: int
) -> dict[str, Any]:
    """Run one case: its error relative to PyTorch in float64, and times."""
    case = next(case for case in CASES if case.name == entry["name"])

    def tensors(side: str) -> list[Any]:
        return [
            torch.randn(array["shape"], device="cuda").to(
                getattr(torch, array["dtype"])
            )
            for array in entry[side]
        ]

    torch.manual_seed(0)
    inputs, outputs = tensors("inputs"), tensors("outputs")
    for output in outputs:
        output.fill_(float("nan"))
    memory = torch.empty(max(entry["scratch"], 1), dtype=torch.uint8, device="cuda")
    code = (folder / f"{entry['name']}.ptx").read_bytes()
    stream = torch.cuda.current_stream().cuda_stream
    launch = Launcher(driver, code, entry, [*inputs, *outputs, memory], stream)
    launch()
    torch.cuda.synchronize()
    error = error_of(torch, case, inputs, outputs[0])
    limit = case.tolerance
    before = None
    if case.bytes:  # Nothing of the arguments is in a cache.
        before = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    times = {"moa": seconds(torch, launch, count, before)}
    for name, call in peers(torch, case, inputs).items():
        try:
            times[name] = seconds(torch, call, count, before)
        except RuntimeError:  # It does not do this.
            continue
    return {
        "name": entry["name"],
        "error": error,
        "limit": limit,
        "correct": error <= limit,  # a NaN is not
        "seconds": times,
        "operations": case.operations,
        "bytes": case.bytes,
        "schedules": entry["schedules"],
    }


def error_of(torch: Any, case: Case, inputs: Sequence[Any], found: Any) -> float:
    """How far a result is off PyTorch's in float64, of the largest magnitude.

    NaN if anything is. Of some cases only the first indices are compared.
    """
    part = slice(case.checked)
    wanted = case.reference(torch, *(tensor[part].double() for tensor in inputs))
    compared = (found[part] if found.dim() else found).double()
    return float((compared - wanted).abs().max() / wanted.abs().max())


def peers(
    torch: Any, case: Case, inputs: Sequence[Any]
) -> dict[str, Callable[[], Any]]:
    """What PyTorch has for a case, by name."""
    found: dict[str, Callable[[], Any]] = {
        "torch": lambda: case.reference(torch, *inputs)
    }
    if case.reference in (_sdpa, _causal) and case.dtype in ("bfloat16", "float16"):
        found |= _backends(torch, case.reference, inputs)
    return found


def _backends(
    torch: Any, reference: Callable[..., Any], inputs: Sequence[Any]
) -> dict[str, Callable[[], Any]]:
    """PyTorch's implementations of attention, by name."""
    from torch.nn.attention import (  # pyright: ignore
        SDPBackend,  # pyright: ignore[reportUnknownVariableType]
        sdpa_kernel,  # pyright: ignore[reportUnknownVariableType]
    )

    def of(backend: Any) -> Callable[[], Any]:
        def call() -> Any:
            with sdpa_kernel(backend):
                return reference(torch, *inputs)

        return call

    return {
        "cudnn": of(SDPBackend.CUDNN_ATTENTION),
        "flash": of(SDPBackend.FLASH_ATTENTION),
    }


def ceilings(torch: Any, count: int) -> dict[str, float]:
    """What the device reaches: bytes a second copied and read, operations in bf16."""
    array = torch.randn(1 << 29, device="cuda")
    other, factor = torch.empty_like(array), torch.randn(8192, 8192, device="cuda")
    factor = factor.to(torch.bfloat16)
    copied = seconds(torch, lambda: other.copy_(array), count)
    summed = seconds(torch, array.sum, count)
    product = seconds(torch, lambda: factor @ factor, count)
    return {
        "copied": 2 * array.nbytes / copied,
        "read": array.nbytes / summed,
        "product": 2.0 * 8192**3 / product,
    }


def rate(result: dict[str, Any], time: float) -> str:
    """A time, and operations or bytes in it."""
    text = f"{1e6 * time:.1f} us"
    if result["operations"]:
        text += f" ({result['operations'] / time / 1e12:.1f} TFLOP/s)"
    if result["bytes"]:
        text += f" ({result['bytes'] / time / 1e9:.0f} GB/s)"
    return text


def is_chosen(name: str, only: str) -> bool:
    """Whether a case has a part in its name; experiments must be asked for by `try`."""
    return only in name and name.startswith("try") == only.startswith("try")


def run(folder: Path, only: str, count: int) -> list[dict[str, Any]]:
    """Run the cases of a folder whose names have a part in them; prints each."""
    import torch

    torch.cuda.init()
    torch.zeros(1, device="cuda")  # makes the context
    driver = ctypes.CDLL("libcuda.so.1")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    most = ceilings(torch, count)
    print(
        f"PyTorch copies {most['copied'] / 1e9:.0f} GB/s, reads "
        f"{most['read'] / 1e9:.0f} GB/s, multiplies {most['product'] / 1e12:.0f} "
        "TFLOP/s in bf16",
        flush=True,
    )
    results: list[dict[str, Any]] = []
    for entry in json.loads((folder / "cases.json").read_text()):
        if not is_chosen(entry["name"], only):
            continue
        result = check(torch, driver, folder, entry, count)
        results.append(result)
        verdict = "ok  " if result["correct"] else "FAIL"
        times = result["seconds"].items()
        print(
            f"{verdict} {result['name']} error {result['error']:.1e} of "
            f"{result['limit']:.1e}; "
            + ", ".join(f"{name} {rate(result, time)}" for name, time in times),
            flush=True,
        )
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Export or run; gives the exit status."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the cases")
    parser.add_argument("--export", action="store_true", help="compile, do not run")
    parser.add_argument("--chip", default="sm_90a", help="the chip (default: sm_90a)")
    parser.add_argument("--features", default="", help="LLVM's, such as +ptx83")
    parser.add_argument(
        "--only",
        default="",
        help="cases with this in their name; experiments if it begins with `try`",
    )
    parser.add_argument("--count", type=int, default=20, help="how often to time")
    parser.add_argument("--json", type=Path, help="where to write results")
    options = parser.parse_args(arguments)
    if options.export:
        cases = [case for case in CASES if is_chosen(case.name, options.only)]
        export(options.folder, cases, options.chip, options.features)
        return 0
    results = run(options.folder, options.only, options.count)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0 if all(result["correct"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
