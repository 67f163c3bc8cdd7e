// A derivation that does not give the function, or is not the one of the replay.

func.func @f(%a: tensor<2x3xf64>, %b: tensor<3x2xf64>) -> tensor<2x2xf64> {
  %t = moa.transpose %b : tensor<3x2xf64> -> tensor<2x3xf64>
  %s = moa.pointwise sub %a, %t : tensor<2x3xf64>, tensor<2x3xf64> -> tensor<2x3xf64>
  %c = moa.inner add mul %s, %b : tensor<2x3xf64>, tensor<3x2xf64> -> tensor<2x2xf64>
  func.return %c : tensor<2x2xf64>
}

// RUN: moa-opt %s -p 'moa-to-dnf{certify=true}' -o %t.mlir
// RUN: moa-opt %t.mlir -p moa-verify | filecheck %s --check-prefix VALID
// VALID: func.func @f(

// Verification was asked for: to have nothing to verify is an error.
// RUN: not moa-opt %s -p moa-verify 2>&1 | filecheck %s --check-prefix NONE
// NONE: moa-opt: @f: expected a derivation (moa-to-dnf{certify=true} makes one), got none

// RUN: moa-opt %s -p moa-verify --verify-diagnostics | filecheck %s --check-prefix DIAGNOSTICS
// DIAGNOSTICS: @f: expected a derivation

// The function

// RUN: sed 's/moa.at %%a\[%%i, %%p\]/moa.at %%a[%%p, %%i]/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix INDEX
// INDEX: moa-opt: @f: the function is not what its derivation gives: operand 1 of %{{.*}} = moa.at %{{.*}} : tensor<2x3xf64>: expected %i

// RUN: sed -E 's/arith.subf (%%[0-9]+), (%%[0-9]+)/arith.subf \2, \1/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OPERAND
// OPERAND: moa-opt: @f: the function is not what its derivation gives: operand 0 of %{{.*}} = arith.subf %{{.*}} : f64: expected what moa.at gives

// RUN: sed 's/arith.subf/arith.addf/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OPERATION
// OPERATION: moa-opt: @f: the function is not what its derivation gives: expected arith.subf, got %{{.*}} = arith.addf %{{.*}} : f64

// RUN: sed 's/moa.fold add/moa.fold max/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix COMBINE
// COMBINE: moa-opt: @f: the function is not what its derivation gives: function of %{{.*}} = moa.fold max {{.*}}: expected "add"

// RUN: sed -E 's/(%%p = %%[0-9]+ to) %%[0-9]+/\1 %%2/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix BOUND
// BOUND: moa-opt: @f: the function is not what its derivation gives: operand 1 of %{{.*}} = moa.fold add {{.*}}: expected what moa.extent gives

// RUN: sed 's/arith.mulf \(%%[0-9]*\), \(%%[0-9]*\) : f64/arith.mulf \1, \2 fastmath<reassoc> : f64/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix FLAG
// FLAG: moa-opt: @f: the function is not what its derivation gives: fastmath of %{{.*}} = arith.mulf {{.*}}: expected #arith.fastmath<none>

// Steps

// RUN: sed 's/rule = "psi-transpose"/rule = "psi-magic"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix UNKNOWN-RULE
// UNKNOWN-RULE: moa-opt: @f: step 3 of moa-to-dnf: unknown rule psi-magic

// RUN: sed 's/rule = "psi-transpose"/rule = "psi-reverse"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OTHER-RULE
// OTHER-RULE: moa-opt: @f: step 3 of moa-to-dnf: expected rule psi-transpose for <i p> psi tran b, got psi-reverse

// RUN: sed 's/result = "<p i> psi b"/result = "<i p> psi b"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix RESULT
// RESULT: moa-opt: @f: step 3 of moa-to-dnf (psi-transpose): expected result <p i> psi b, got <i p> psi b

// RUN: sed 's/redex = "<i p> psi tran b"/redex = "<i p> psi b"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix REDEX
// REDEX: moa-opt: @f: step 3 of moa-to-dnf (psi-transpose): expected redex <i p> psi tran b, got <i p> psi b

// RUN: sed 's/result = "<p i> psi b"/result = "<p i> psi b", where = "x = 1"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix WHERE
// WHERE: moa-opt: @f: step 3 of moa-to-dnf (psi-transpose): expected where nothing, got x = 1

// RUN: sed 's/steps = \[{[^}]*}[^}]*}, /steps = [/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix FIRST-MISSING
// FIRST-MISSING: moa-opt: @f: step 1 of moa-to-dnf is missing: expected psi-inner: <i j> psi O = <i j> psi ((a - tran b) +.* b) = + fold_{p<3} (<i p> psi (a - tran b) * <p j> psi b)

// RUN: sed 's/, {rule = "psi-transpose"[^}]*}//' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix LAST-MISSING
// LAST-MISSING: moa-opt: @f: step 3 of moa-to-dnf is missing: expected psi-transpose: <i p> psi tran b = <p i> psi b

// RUN: sed 's/\(, {rule = "psi-pointwise"[^}]*}\)/\1\1/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix TWICE
// TWICE: moa-opt: @f: step 3 of moa-to-dnf is one too many: psi-pointwise: <i p> psi (a - tran b) = <i p> psi a - <i p> psi tran b

// RUN: sed 's/\(, {rule = "psi-transpose"[^}]*}\)/\1\1/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix LAST-TWICE
// LAST-TWICE: moa-opt: @f: step 4 of moa-to-dnf is one too many: psi-transpose: <i p> psi tran b = <p i> psi b

// Proofs

// RUN: sed 's:psi-transpose/rank2/1-0-in-bounds:psi-transpose/rank2/obvious:' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix UNKNOWN-PROOF
// UNKNOWN-PROOF: moa-opt: @f: unknown proof psi-transpose/rank2/obvious, cited for psi-transpose

// RUN: sed 's:psi-transpose/rank2/1-0-in-bounds:psi-reverse/rank2/in-bounds:' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OTHER-PROOF
// OTHER-PROOF: moa-opt: @f: the proof psi-reverse/rank2/in-bounds, cited for psi-transpose, is not about it: it belongs to psi-reverse at rank 2

// RUN: sed 's:psi-transpose/rank2/1-0-in-bounds:psi-transpose/rank3/1-0-2-in-bounds:' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OTHER-RANK
// OTHER-RANK: moa-opt: @f: the proof psi-transpose/rank3/1-0-2-in-bounds, cited for psi-transpose, is not about it: it belongs to psi-transpose at rank 3

// RUN: sed 's:"psi-transpose/rank2/1-0-in-bounds", ::' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-PROOF
// NO-PROOF: moa-opt: @f: a proof of psi-transpose is not cited: expected psi-transpose/rank2/1-0-in-bounds

// RUN: sed 's:"psi-pointwise" = \[\]:"psi-map" = []:' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NOT-APPLIED
// NOT-APPLIED: moa-opt: @f: proofs are cited for psi-map, which is not applied

// The definition

// RUN: sed 's/= moa.pointwise sub/= moa.pointwise less/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix SYNTAX
// SYNTAX: moa-opt: @f: the definition does not parse: {{.+}}

// RUN: sed 's/= moa.inner add mul %%s, %%b :/= moa.inner add mul %%b, %%s :/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix INVALID
// INVALID: moa-opt: @f: the definition does not parse: {{.+}}

// RUN: sed 's/"  func.func @f(/"  func.func @g(/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OTHER
// OTHER: moa-opt: @f: the definition does not define @f

// Another program has other steps, or another normal form.
// RUN: sed 's/= moa.inner add mul/= moa.inner max mul/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix PROGRAM
// PROGRAM: moa-opt: @f: step 1 of moa-to-dnf (psi-inner): expected redex {{.*}}max.*{{.*}}, got {{.*}}+.*

// Passes

// RUN: moa-opt %t.mlir -p moa-to-onf | sed 's/, {pass = "moa-to-onf"}//' | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix UNRECORDED
// UNRECORDED: moa-opt: @f: the function is not what its derivation gives: arg_attrs of func.func @f: expected nothing

// RUN: sed 's/pass = "moa-to-dnf"/pass = "moa-to-scf"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix PASS
// PASS: moa-opt: @f: unknown pass 'moa-to-scf': expected one of moa-to-dnf, moa-share, moa-restrict-domains, moa-fuse-reductions, moa-sink, moa-enclose-folds, moa-split-cascades, moa-to-onf, moa-split-loops, moa-fold-addresses

// RUN: sed 's/pass = "moa-to-dnf"/pass = "moa-to-dnf{speed=3}"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix OPTION
// OPTION: moa-opt: @f: unknown pass 'moa-to-dnf{speed=3}'

// RUN: sed 's/pass = "moa-to-dnf"/pass = "moa-to-dnf{limit=1}"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix REPLAY
// REPLAY: moa-opt: @f: moa-to-dnf{limit=1} cannot be replayed: the normal form of @f is too large

// RUN: moa-opt %t.mlir -p moa-share | sed 's/{pass = "moa-share"}/{pass = "moa-share", note = "x"}/' | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NOTE
// NOTE: moa-opt: @f: note of moa-share: expected nothing, got "x"

// What is malformed

// RUN: sed 's/moa.derivation = {definition = \[.*\]}/moa.derivation = "x"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-DICTIONARY
// NO-DICTIONARY: moa-opt: @f: malformed derivation: moa.derivation: expected a dictionary, got "x"

// RUN: sed 's/"builtin.module {", /1, /' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-LINES
// NO-LINES: moa-opt: @f: malformed derivation: definition: expected an array of strings, got [1 : i64

// RUN: sed 's/pass = "moa-to-dnf", //' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-NAME
// NO-NAME: moa-opt: @f: malformed derivation: pass: expected a string, got nothing

// RUN: sed 's/passes = \[/passes = [1, /' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-ENTRY
// NO-ENTRY: moa-opt: @f: malformed derivation: passes: expected dictionaries, got 1 : i64

// RUN: sed 's/passes = \[/steps = [/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-PASSES
// NO-PASSES: moa-opt: @f: malformed derivation: passes: expected an array, got nothing

// RUN: sed 's/steps = \[/moves = [/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-STEPS
// NO-STEPS: moa-opt: @f: malformed derivation: steps: expected an array, got nothing

// RUN: sed 's/{rule = "psi-inner"/{law = "psi-inner"/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-RULE
// NO-RULE: moa-opt: @f: malformed derivation: steps: expected rule, redex and result, got {law = "psi-inner"

// RUN: sed 's/proofs = {/arguments = {/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix NO-PROOFS
// NO-PROOFS: moa-opt: @f: malformed derivation: proofs: expected a dictionary, got nothing
