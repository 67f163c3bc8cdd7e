// Whatever is wrong, moa-opt says it in a message on stderr, not in a traceback.

// RUN: not moa-opt %t.mlir 2>&1 | filecheck %s --check-prefix MISSING
// MISSING-NOT: Traceback
// MISSING: moa-opt: {{.*}}errors.mlir.tmp.mlir: No such file or directory
// MISSING-NOT: {{.}}

// RUN: not moa-opt %S/.. 2>&1 | filecheck %s --check-prefix FOLDER
// FOLDER-NOT: Traceback
// FOLDER: moa-opt: {{.*}}: Is a directory
// FOLDER-NOT: {{.}}

// RUN: echo "func.func @f() { moa.require }" | not moa-opt 2>&1 | filecheck %s --check-prefix SYNTAX
// SYNTAX-NOT: Traceback
// SYNTAX: moa-opt: stdin:1:30: operand expected
// SYNTAX-NEXT: func.func @f() { moa.require }
// SYNTAX-NEXT: ^
// SYNTAX-NOT: {{.}}

// RUN: not moa-opt %s 2>&1 | filecheck %s --check-prefix VERIFIER
// VERIFIER-NOT: Traceback
// VERIFIER: moa-opt: %c = moa.pointwise(%a, %b): add: extents of axis 0 must be equal: expected 3 (axis 0 of a), got 4 (axis 0 of b)
// VERIFIER-NOT: {{.}}

// Where an operation is in the program that it came from is said first.
// RUN: echo 'func.func @f(%%a: tensor<3xf32>) { moa.reduce add %%a : tensor<3xf32> -> tensor<4xf32> loc("a"("model.py":7:5 to :9)) func.return }' | sed 's/moa.reduce/%%0 = moa.reduce/' | not moa-opt 2>&1 | filecheck %s --check-prefix LOCATED
// LOCATED-NOT: Traceback
// LOCATED: moa-opt: model.py:7:5: %0 = moa.reduce(%a): {{.*}}
// LOCATED-NOT: {{.}}

// RUN: echo "func.func @f() { %%0 = arith.addi %%k, %%k : index scf.for %%k = %%0 to %%0 step %%0 { } func.return }" | not moa-opt 2>&1 | filecheck %s --check-prefix DOMINANCE
// DOMINANCE-NOT: Traceback
// DOMINANCE: moa-opt: arith.addi uses %k where it is not defined
// DOMINANCE-NOT: {{.}}

// RUN: not moa-opt %s -p moa-too-dnf 2>&1 | filecheck %s --check-prefix PASS
// PASS-NOT: Traceback
// PASS: moa-opt: unknown pass moa-too-dnf: expected {{.*}}moa-infer-shapes, moa-to-dnf{{.*}}
// PASS-NOT: {{.}}

// RUN: not moa-opt %s -p 'moa-to-dnf{speed=3}' 2>&1 | filecheck %s --check-prefix OPTION
// OPTION-NOT: Traceback
// OPTION: moa-opt: pass moa-to-dnf: Provided arguments ["speed"] not found in expected arguments {{.*}}
// OPTION-NOT: {{.}}

// RUN: not moa-opt %s -p 'moa-to-dnf{limit=high}' 2>&1 | filecheck %s --check-prefix TYPE
// TYPE-NOT: Traceback
// TYPE: moa-opt: pass moa-to-dnf: Incompatible types: given ('high',), expected <class 'int'>
// TYPE-NOT: {{.}}

// RUN: not moa-opt %s -p 'moa-to-dnf{' 2>&1 | filecheck %s --check-prefix PIPELINE
// PIPELINE-NOT: Traceback
// PIPELINE: moa-opt: pass-pipeline:1:12: Expected argument name here
// PIPELINE-NOT: {{.}}

// RUN: not moa-opt %s -t 'moa{latin=true}' 2>&1 | filecheck %s --check-prefix TARGET
// TARGET-NOT: Traceback
// TARGET: moa-opt: target moa: Provided arguments ["latin"] not found in expected arguments ["ascii"]
// TARGET-NOT: {{.}}

// RUN: echo "scf.for" | not moa-opt -t nothing 2>&1 | filecheck %s --check-prefix USAGE
// USAGE-NOT: Traceback
// USAGE: usage: moa-opt [options] [input_file]
// USAGE-NEXT: moa-opt: error: argument -t/--target: invalid choice: 'nothing'

// A stage the notation does not cover is an error of the target.

// RUN: echo "func.func @f(%%i: index) { moa.loop [%%j = %%i to %%i by 1] { moa.yield } func.return }" | not moa-opt -t moa 2>&1 | filecheck %s --check-prefix STAGE
// STAGE-NOT: Traceback
// STAGE: moa-opt: notation covers the stages moa, dnf and fused, @f contains moa.loop
// STAGE-NOT: {{.}}

// Elements that arrays of the algebra do not have are found before code is made of them.

// RUN: echo "func.func @f(%%x: tensor<?xcomplex<f64>>) -> tensor<?xcomplex<f64>> { func.return %%x : tensor<?xcomplex<f64>> }" | not moa-opt -p moa-cpu 2>&1 | filecheck %s --check-prefix ELEMENTS
// ELEMENTS: moa-opt: a result has unsupported elements: complex<f64>
// ELEMENTS-NOT: {{.}}

// RUN: echo "func.func @f(%%x: tensor<?x4294967296x4294967296xf64>) -> tensor<?x4294967296x4294967296xf64> { func.return %%x : tensor<?x4294967296x4294967296xf64> }" | not moa-opt -p moa-cpu 2>&1 | filecheck %s --check-prefix HUGE
// HUGE: moa-opt: function @f: expected fewer than 2^63 elements, got tensor<?x4294967296x4294967296xf64> as argument 0
// HUGE-NOT: {{.}}

// RUN: echo "func.func @f(%%x: tensor<3xf64>) -> tensor<3xf64> { func.return %%x : tensor<3xf64> }" | not moa-opt -p moa-to-onf 2>&1 | filecheck %s --check-prefix ARGUMENT
// ARGUMENT: moa-opt: expected an array made by a comprehension or a fold, got argument 0
// ARGUMENT-NOT: {{.}}

// RUN: echo "%%y = moa.reduce" | not moa-opt 2>&1 | filecheck %s --check-prefix NAME
// NAME: moa-opt: stdin:2:1: identifier expected: scalar operation or @function

// Names that are not ASCII are escaped where MLIR prints them, and are names still.

// RUN: echo 'func.func private @"\C3\A9"()' | moa-opt --print-op-generic | moa-opt -p moa-raise-linalg | filecheck %s --check-prefix UNICODE
// UNICODE: func.func private @"\C3\A9"()

// RUN: echo "// nothing" | not moa-opt 2>&1 | filecheck %s --check-prefix NOTHING
// NOTHING: moa-opt: stdin:2:1: expected a module, got no operation

// Diagnostics can still be asked for: then they are output, and the exit status is 0.

// RUN: moa-opt %s --verify-diagnostics | filecheck %s --check-prefix DIAGNOSTICS
// DIAGNOSTICS: add: extents of axis 0 must be equal: expected 3 (axis 0 of a), got 4 (axis 0 of b)
// DIAGNOSTICS: Operation does not verify: add: extents of axis 0 must be equal

func.func @extents(%a: tensor<3xf64>, %b: tensor<4xf64>) -> tensor<3xf64> {
  %c = moa.pointwise add %a, %b : tensor<3xf64>, tensor<4xf64> -> tensor<3xf64>
  func.return %c : tensor<3xf64>
}
