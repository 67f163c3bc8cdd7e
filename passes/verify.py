"""moa-verify: derivations are replayed, the conditions of cascades are proved."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import VerifyException

from moa_dialect.ops.normal_form import CascadeOp
from moa_dialect.passes import derivation
from moa_dialect.passes.infer_shapes import functions_of


def prove(function: FuncOp) -> None:
    """Prove what the derivation of a function cites, by the solver.

    Raises:
        VerifyException: if a law was applied at a rank without proof, or a proof fails.
    """
    from moa_dialect import proofs

    name = function.sym_name.data
    for applied in derivation.unproved_of(function):
        law, _, rank = applied.rpartition("/rank")
        if proofs.rule_of(law) not in proofs.rules():
            raise VerifyException(
                f"@{name}: {law} was applied: expected a law with proofs, got none"
            )
        raise VerifyException(
            f"@{name}: {law} was applied at rank {rank}: expected a rank up to "
            f"{proofs.LARGEST_RANK}, beyond there are no proofs"
        )
    known = proofs.by_identifier()
    for identifier in dict.fromkeys(derivation.proofs_of(function)):
        answer = proofs.prove(known[identifier])
        if answer.outcome is not proofs.Outcome.PROVED:
            found = f": {answer.counterexample}" if answer.counterexample else ""
            raise VerifyException(
                f"@{name}: the proof {identifier} fails: expected proved, "
                f"got {answer.outcome}{found}"
            )


@dataclass(frozen=True)
class VerifyPass(ModulePass):
    """Replays the derivation of each function, from the text alone, and compares.

    Before that it proves of each cascade that its accumulators may move. Fails, with
    numbers, if a condition does not hold, if one is not proved, or if a certificate
    (`moa-fuse-reductions{certify=true}` makes them) says otherwise.

    Fails if a function has no derivation (`moa-to-dnf{certify=true}` makes them), if
    its definition does not parse, if a step, rule or proof is not the one of the
    replay, or if the function is not what the passes give. `prove` also has the solver
    prove every obligation that is cited. In a module without any derivation, but with
    cascades, only these are checked.
    """

    name = "moa-verify"

    prove: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        functions = functions_of(op)
        if has_cascades := any(isinstance(inner, CascadeOp) for inner in op.walk()):
            from moa_dialect.passes.verify_cascades import check_cascades

            for function in functions:
                check_cascades(function)
        if has_cascades and not any(map(derivation.is_recorded, functions)):
            return
        made: dict[str, tuple[str, FuncOp]] = {}
        for function in functions:
            if derivation.is_recorded(function):
                for name, companion in derivation.check(function).items():
                    made[name] = function.sym_name.data, companion
        for function in functions:
            name = function.sym_name.data
            if derivation.is_recorded(function):
                if self.prove:
                    prove(function)
            elif name in made:
                derivation.compare(made.pop(name)[1], function)
            else:
                derivation.derivation_of(function)  # raises
        for name, (maker, _) in made.items():
            raise VerifyException(f"@{maker}: its derivation gives @{name}, got none")
