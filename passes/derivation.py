"""Derivations: what was applied to a function, kept in its text and checked from it.

A function with the attribute `moa.derivation` says where it comes from:

    moa.derivation = {
      definition = [<the function, and those it refers to, as lines of text>],
      passes = [{pass = "moa-to-dnf", steps = [...], proofs = {...}}, ...]
    }

`begin` puts it there, with the function as it is. From then on each pass that changes
the function adds what it did by `record`. `check` replays the passes from the
definition, compares what they record now with what the text says, and in the end the
function they give with the function in the text. So a pass that is not recorded, or a
change by hand, is found as a difference.

A pass takes part by a call of `record` at its end and its name in `REPLAYED`. What it
records besides its name are attributes of its own choice; unless it brings its own
check, they must be equal to those of the replay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from io import StringIO
from typing import Any, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    ModuleOp,
    StringAttr,
    UnregisteredOp,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.printer import Printer
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from moa_dialect.errors import MoaError
from moa_dialect.passes.infer_shapes import functions_of

DERIVATION = "moa.derivation"
"""The attribute of a function that says how it was derived."""

Entry: TypeAlias = Mapping[str, Attribute]
"""What a derivation says of one pass: `pass`, its name and options, and more."""

Check: TypeAlias = Callable[[str, Entry, Entry], None]
"""Compares what the text says of a pass with what the replay of the pass says.

Takes the function's name, the entry of the text and that of the replay; raises a
VerifyException if they differ.
"""


# Recording


def with_callees(function: FuncOp) -> list[FuncOp]:
    """A function and those it refers to, directly or through others."""
    from moa_dialect.passes.to_dnf import callees

    found = {function: None}
    pending = [function]
    while pending:
        for callee in callees(pending.pop()):
            if callee not in found:
                found[callee] = None
                pending.append(callee)
    return list(found)


def is_recorded(function: FuncOp) -> bool:
    """Whether what passes do with a function is to be recorded."""
    return DERIVATION in function.attributes


def begin(function: FuncOp) -> None:
    """Start the derivation of a function with what it is now, unless it has one."""
    if is_recorded(function):
        return
    module = ModuleOp([_plain(each) for each in with_callees(function)])
    stream = StringIO()
    Printer(stream).print_op(module)
    lines = stream.getvalue().split("\n")
    function.attributes[DERIVATION] = DictionaryAttr(
        {
            "definition": ArrayAttr(map(StringAttr, lines)),
            "passes": ArrayAttr([]),
        }
    )


def _plain(function: FuncOp) -> FuncOp:
    """A copy of a function without its derivation."""
    copy = function.clone()
    copy.attributes.pop(DERIVATION, None)
    return copy


def record(
    function: FuncOp, pass_: ModulePass, said: Mapping[str, Attribute] | None = None
) -> None:
    """Add a pass to the derivation of a function, if it has one.

    Args:
        function: the function, after the pass.
        pass_: the pass, with those of its options that decide what it does.
        said: what else the derivation should say of it.
    """
    derivation = function.attributes.get(DERIVATION)
    if not isinstance(derivation, DictionaryAttr):
        return
    passes = derivation.data.get("passes")
    known = passes.data if isa(passes, ArrayAttr) else ()
    entry = DictionaryAttr({"pass": StringAttr(_spec(pass_)), **(said or {})})
    function.attributes[DERIVATION] = DictionaryAttr(
        {**derivation.data, "passes": ArrayAttr([*known, entry])}
    )


def _spec(pass_: ModulePass) -> str:
    """The name of a pass and those of its options that are not as by default."""
    options = {
        each.name: (getattr(pass_, each.name),)
        for each in fields(pass_)
        if each.init
        and each.name != "name"
        and (each.default is MISSING or getattr(pass_, each.name) != each.default)
    }
    return str(ArgSpec(pass_.name, options))


# Reading


def _fail(function: str, message: str) -> VerifyException:
    return VerifyException(f"@{function}: {message}")


def _texts(function: str, what: str, attribute: Attribute | None) -> list[str]:
    """The entries of an array of strings."""
    if isa(attribute, ArrayAttr):
        entries = list(attribute.data)
        texts = [each.data for each in entries if isinstance(each, StringAttr)]
        if len(texts) == len(entries):
            return texts
    raise _malformed(function, what, "an array of strings", attribute)


def _malformed(
    function: str, what: str, expected: str, given: Attribute | None
) -> VerifyException:
    got = "nothing" if given is None else _abridged(str(given))
    return _fail(
        function, f"malformed derivation: {what}: expected {expected}, got {got}"
    )


def _abridged(text: str, most: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}..."


def derivation_of(function: FuncOp) -> tuple[str, list[Entry]]:
    """The definition of a function and what was applied to it.

    Raises:
        VerifyException: if it has no derivation, or a malformed one.
    """
    name = function.sym_name.data
    derivation = function.attributes.get(DERIVATION)
    if derivation is None:
        raise _fail(
            name,
            "expected a derivation (moa-to-dnf{certify=true} makes one), got none",
        )
    if not isinstance(derivation, DictionaryAttr):
        raise _malformed(name, DERIVATION, "a dictionary", derivation)
    lines = _texts(name, "definition", derivation.data.get("definition"))
    passes = derivation.data.get("passes")
    if not isa(passes, ArrayAttr):
        raise _malformed(name, "passes", "an array", passes)
    entries: list[Entry] = []
    for entry in passes.data:
        if not isinstance(entry, DictionaryAttr):
            raise _malformed(name, "passes", "dictionaries", entry)
        entries.append(entry.data)
    return "\n".join(lines), entries


def definition_of(function: str, text: str) -> ModuleOp:
    """The module of a definition, read from its text.

    Raises:
        VerifyException: if it does not parse, is not valid or lacks the function.
    """
    from moa_dialect.parsing import ModuleParser
    from moa_dialect.universe import register_dialects

    context = Context(allow_unregistered=True)
    register_dialects(context)
    try:
        module = ModuleParser(context, text).parse_module()
        module.verify()
    except Exception as error:  # whatever text is there, parsers raise many kinds
        reason = _abridged(str(error).strip().split("\n")[-1].strip(" ^-"))
        raise _fail(function, f"the definition does not parse: {reason}") from error
    if function not in {each.sym_name.data for each in functions_of(module)}:
        raise _fail(function, f"the definition does not define @{function}")
    return module


def _subject(module: ModuleOp, function: str) -> FuncOp:
    return next(f for f in functions_of(module) if f.sym_name.data == function)


# Checking


def check_equal(function: str, given: Entry, replayed: Entry) -> None:
    """Require that all a derivation says of a pass is what the replay says.

    Raises:
        VerifyException: with the first entry that differs.
    """
    pass_ = _name(function, given)
    for key in sorted({*given, *replayed}):
        if given.get(key) != replayed.get(key):
            expected, got = (
                "nothing" if each is None else _abridged(str(each))
                for each in (replayed.get(key), given.get(key))
            )
            raise _fail(function, f"{key} of {pass_}: expected {expected}, got {got}")


def check_reduction(function: str, given: Entry, replayed: Entry) -> None:
    """Require that the steps and proofs of moa-to-dnf are those of the replay.

    Raises:
        VerifyException: with the first step or proof that does not fit.
    """
    _check_steps(function, _steps(function, given), _steps(function, replayed))
    _check_proofs(function, _proofs(function, given), _proofs(function, replayed))
    check_equal(function, given, replayed)


_Step: TypeAlias = Mapping[str, str]


def _steps(function: str, entry: Entry) -> list[_Step]:
    steps = entry.get("steps")
    if not isa(steps, ArrayAttr):
        raise _malformed(function, "steps", "an array", steps)
    found: list[_Step] = []
    for step in steps.data:
        texts: dict[str, str] = {}
        if isinstance(step, DictionaryAttr):
            texts = {k: v.data for k, v in step.data.items() if isa(v, StringAttr)}
        if not {"rule", "redex", "result"} <= set(texts):
            raise _malformed(function, "steps", "rule, redex and result", step)
        found.append(texts)
    return found


def _told(step: _Step) -> str:
    return f"{step['rule']}: {step['redex']} = {step['result']}"


def _check_steps(
    function: str, given: Sequence[_Step], replayed: Sequence[_Step]
) -> None:
    from moa_dialect.passes.laws import LAWS

    known = {law.name for law in LAWS.values()}
    for number, (step, expected) in enumerate(
        zip(given, replayed, strict=False), start=1
    ):
        where = f"step {number} of moa-to-dnf"
        rule = step["rule"]
        if rule not in known:
            raise _fail(function, f"{where}: unknown rule {rule}")
        if step == expected:
            continue
        rest, others = given[number - 1 :], replayed[number - 1 :]
        if list(rest) == list(others[1:]):
            raise _fail(function, f"{where} is missing: expected {_told(expected)}")
        if list(rest[1:]) == list(others):
            raise _fail(function, f"{where} is one too many: {_told(step)}")
        if rule != expected["rule"]:
            raise _fail(
                function,
                f"{where}: expected rule {expected['rule']} for "
                f"{expected['redex']}, got {rule}",
            )
        for key in ("redex", "result", "where"):
            if step.get(key) != expected.get(key):
                raise _fail(
                    function,
                    f"{where} ({rule}): expected {key} "
                    f"{expected.get(key, 'nothing')}, got {step.get(key, 'nothing')}",
                )
    if len(given) < len(replayed):
        expected = replayed[len(given)]
        where = f"step {len(given) + 1} of moa-to-dnf"
        raise _fail(function, f"{where} is missing: expected {_told(expected)}")
    if len(given) > len(replayed):
        where = f"step {len(replayed) + 1} of moa-to-dnf"
        raise _fail(function, f"{where} is one too many: {_told(given[len(replayed)])}")


def _proofs(function: str, entry: Entry) -> dict[str, list[str]]:
    cited = entry.get("proofs")
    if not isinstance(cited, DictionaryAttr):
        raise _malformed(function, "proofs", "a dictionary", cited)
    return {
        rule: _texts(function, f"proofs of {rule}", identifiers)
        for rule, identifiers in cited.data.items()
    }


def _check_proofs(
    function: str, given: Mapping[str, list[str]], needed: Mapping[str, list[str]]
) -> None:
    from moa_dialect import proofs

    known = proofs.by_identifier()
    for rule, identifiers in given.items():
        if rule not in needed:
            raise _fail(function, f"proofs are cited for {rule}, which is not applied")
        for identifier in identifiers:
            if identifier not in known:
                raise _fail(function, f"unknown proof {identifier}, cited for {rule}")
            if identifier not in needed[rule]:
                obligation = known[identifier]
                raise _fail(
                    function,
                    f"the proof {identifier}, cited for {rule}, is not about it: it "
                    f"belongs to {proofs.cited_as(obligation.rule)} at rank "
                    f"{obligation.rank}",
                )
    for rule, identifiers in needed.items():
        for identifier in identifiers:
            if identifier not in given.get(rule, ()):
                raise _fail(
                    function, f"a proof of {rule} is not cited: expected {identifier}"
                )


REPLAYED: dict[str, Check] = {
    "moa-to-dnf": check_reduction,
    "moa-share": check_equal,
    "moa-restrict-domains": check_equal,
    "moa-fuse-reductions": check_equal,
    "moa-sink": check_equal,
    "moa-enclose-folds": check_equal,
    "moa-split-cascades": check_equal,
    "moa-to-onf": check_equal,
    "moa-split-loops": check_equal,
    "moa-fold-addresses": check_equal,
}
"""The passes that derivations may name, and how what they say of each is checked."""


def _name(function: str, entry: Entry) -> str:
    pass_ = entry.get("pass")
    if not isinstance(pass_, StringAttr):
        raise _malformed(function, "pass", "a string", pass_)
    return pass_.data


def _pass(function: str, spec: str) -> tuple[ModulePass, Check]:
    """The pass an entry names, and the check of what it says."""
    from moa_dialect.universe import MOA_UNIVERSE

    try:
        (parsed,) = parse_pipeline(spec)
        check = REPLAYED[parsed.name]
        pass_ = MOA_UNIVERSE.all_passes[parsed.name]().from_spec(parsed)
    except Exception as error:  # no pass, several, or options that it does not have
        raise _fail(
            function,
            f"unknown pass {spec!r}: expected one of {', '.join(REPLAYED)}",
        ) from error
    assert isinstance(pass_, ModulePass)
    return pass_, check


def check(function: FuncOp) -> dict[str, FuncOp]:
    """Replay the derivation of a function and compare.

    Returns:
        The functions that its passes made besides, by name, as they should be.

    Raises:
        VerifyException: if the derivation is missing or does not give the function.
    """
    name = function.sym_name.data
    text, entries = derivation_of(function)
    module = definition_of(name, text)
    defined = {each.sym_name.data for each in functions_of(module)}
    subject = _subject(module, name)
    # What nothing refers to must not disappear.
    visibility, subject.sym_visibility = subject.sym_visibility, None
    subject.attributes[DERIVATION] = DictionaryAttr({"passes": ArrayAttr([])})
    for number, entry in enumerate(entries):
        spec = _name(name, entry)
        pass_, check_entry = _pass(name, spec)
        try:
            pass_.apply(Context(), module)
        except MoaError as error:
            raise _fail(name, f"{spec} cannot be replayed: {error}") from error
        passes = subject.attributes[DERIVATION]
        assert isinstance(passes, DictionaryAttr)
        replayed = passes.data["passes"]
        assert isa(replayed, ArrayAttr)
        if len(replayed.data) != number + 1:
            raise _fail(name, f"{spec} does not apply to the function at this point")
        last = replayed.data[-1]
        assert isinstance(last, DictionaryAttr)
        check_entry(name, entry, last.data)
    subject.sym_visibility = visibility
    compare(subject, function)
    return {
        each.sym_name.data: each
        for each in functions_of(module)
        if each.sym_name.data not in defined
    }


def proofs_of(function: FuncOp) -> list[str]:
    """The identifiers of all proofs that the derivation of a function cites."""
    name = function.sym_name.data
    _, entries = derivation_of(function)
    return [
        identifier
        for entry in entries
        if "proofs" in entry
        for identifiers in _proofs(name, entry).values()
        for identifier in identifiers
    ]


def unproved_of(function: FuncOp) -> list[str]:
    """The rules, each with its rank, that were applied where there is no proof."""
    name = function.sym_name.data
    _, entries = derivation_of(function)
    return [
        rule
        for entry in entries
        if "unproved" in entry
        for rule in _texts(name, "unproved", entry["unproved"])
    ]


def certificate(function: FuncOp) -> dict[str, Any]:
    """What the derivation of a function says, for `json.dumps`.

    `Compiled.certificate` has the same entries and says what they are.

    Raises:
        VerifyException: if it has no derivation, or a malformed one.
    """
    from moa_dialect import proofs
    from moa_dialect.passes.laws import LAWS
    from moa_dialect.passes.verify_cascades import unproved_conditions

    definition, entries = derivation_of(function)
    name = function.sym_name.data
    laws = {law.name: inspect.getdoc(law) for law in LAWS.values()}
    passes: list[dict[str, Any]] = []
    rules: dict[str, dict[str, Any]] = {}
    for entry in entries:
        said = {key: _plain_value(attribute) for key, attribute in entry.items()}
        cited = said.pop("proofs", {})
        said.pop("unproved", None)
        passes.append(said)
        if "steps" not in entry:
            continue
        for step in _steps(name, entry):
            rule = step["rule"]
            known = rules.setdefault(
                rule, {"law": laws.get(rule), "steps": 0, "proofs": cited.get(rule, [])}
            )
            known["steps"] += 1
            why = proofs.WITHOUT_INDEX_REWRITING.get(proofs.rule_of(rule))
            if why is not None:
                known["why"] = why
    cascades = [each for said in passes for each in said.pop("cascades", ())]
    known_proofs = proofs.by_identifier()
    identifiers = dict.fromkeys(proofs_of(function))
    return {
        "function": name,
        "definition": definition,
        "passes": passes,
        "rules": rules,
        "proofs": {
            each: {
                "rule": proofs.cited_as(known_proofs[each].rule),
                "rank": known_proofs[each].rank,
                "statement": known_proofs[each].statement,
            }
            for each in identifiers
        },
        "cascades": cascades,
        "unproved": [*unproved_of(function), *unproved_conditions(cascades)],
    }


def _plain_value(attribute: Attribute) -> Any:
    """An attribute as strings, lists and dictionaries."""
    match attribute:
        case StringAttr():
            return attribute.data
        case ArrayAttr():
            return [_plain_value(each) for each in attribute.data]
        case DictionaryAttr():
            return {key: _plain_value(each) for key, each in attribute.data.items()}
        case _:
            return str(attribute)


# Comparing


def compare(expected: FuncOp, given: FuncOp) -> None:
    """Require that two functions are equal up to names and the order of attributes.

    Raises:
        VerifyException: with the first operation that differs.
    """
    difference = _Comparison().operations(expected, given)
    if difference is not None:
        raise _fail(
            given.sym_name.data,
            f"the function is not what its derivation gives: {difference}",
        )


class _Comparison:
    """What is equal so far: values and blocks of one function to the other's."""

    def __init__(self) -> None:
        self._values: dict[SSAValue, SSAValue] = {}
        self._blocks: dict[Block, Block] = {}

    def operations(self, expected: Operation, given: Operation) -> str | None:
        """How two operations differ; None if they do not."""
        line = _line(given)
        if _kind(expected) != _kind(given):
            return f"expected {_kind(expected)}, got {line}"
        if len(expected.operands) != len(given.operands):
            counts = f"{len(expected.operands)} operands, got {len(given.operands)}"
            return f"expected {counts} in {line}"
        for number, pair in enumerate(
            zip(expected.operands, given.operands, strict=True)
        ):
            if self._values.get(pair[0]) is not pair[1]:
                wanted = self._values.get(pair[0])
                name = "another value" if wanted is None else _value(wanted)
                return f"operand {number} of {line}: expected {name}"
        for left, right in (
            (expected.properties, given.properties),
            (expected.attributes, given.attributes),
        ):
            for key in sorted({*left, *right} - {DERIVATION}):
                if left.get(key) != right.get(key):
                    wanted = left.get(key)
                    text = "nothing" if wanted is None else _abridged(str(wanted))
                    return f"{key} of {line}: expected {text}"
        types = [[r.type for r in op.results] for op in (expected, given)]
        if types[0] != types[1]:
            listed = ", ".join(map(str, types[0]))
            return f"results of {line}: expected {listed}"
        if [self._blocks.get(b) for b in expected.successors] != [*given.successors]:
            return f"expected another successor in {line}"
        self._values.update(zip(expected.results, given.results, strict=True))
        if len(expected.regions) != len(given.regions):
            return f"expected {len(expected.regions)} regions in {line}"
        for pair in zip(expected.regions, given.regions, strict=True):
            if (difference := self._regions(*pair, line)) is not None:
                return difference
        return None

    def _regions(self, expected: Region, given: Region, line: str) -> str | None:
        blocks = [list(expected.blocks), list(given.blocks)]
        if len(blocks[0]) != len(blocks[1]):
            return f"expected {len(blocks[0])} blocks in {line}"
        pairs = list(zip(*blocks, strict=True))
        for left, right in pairs:
            if [a.type for a in left.args] != [a.type for a in right.args]:
                return f"expected other block arguments in {line}"
            self._blocks[left] = right
            self._values.update(zip(left.args, right.args, strict=True))
        for left, right in pairs:
            ours, theirs = list(left.ops), list(right.ops)
            for a, b in zip(ours, theirs, strict=False):
                if (difference := self.operations(a, b)) is not None:
                    return difference
            if len(ours) != len(theirs):
                return f"expected {len(ours)} operations in {line}, got {len(theirs)}"
        return None


def _kind(op: Operation) -> str:
    return op.op_name.data if isinstance(op, UnregisteredOp) else op.name


def _value(value: SSAValue) -> str:
    stream = StringIO()
    Printer(stream).print_ssa_value(value)
    text = stream.getvalue()
    if value.name_hint is None and isinstance(value.owner, Operation):
        return f"what {value.owner.name} gives"
    return text


def _line(op: Operation) -> str:
    """The first line of an operation's text, without its derivation."""
    if isinstance(op, FuncOp):
        return f"func.func @{op.sym_name.data}"
    return _abridged(str(op).split("\n")[0])
