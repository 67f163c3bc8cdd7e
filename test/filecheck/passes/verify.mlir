// RUN: moa-opt %s -p 'moa-to-dnf{certify=true}' | moa-opt -p moa-verify | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf{certify=true}' --print-op-generic | moa-opt -p moa-verify | filecheck %s
// RUN: moa-opt %s -p 'moa-to-dnf{certify=true},moa-share,moa-sink' | moa-opt -p 'moa-verify{prove=true}' | filecheck %s --check-prefix=FUSED
// RUN: moa-opt %s -p 'moa-to-dnf{certify=true},moa-share,moa-sink,moa-to-onf{layout=column},moa-split-loops{pieces=4},moa-fold-addresses' | moa-opt -p moa-verify | filecheck %s --check-prefix=ONF
// RUN: moa-opt %s -p 'moa-to-dnf{certify=true},moa-to-onf,moa-to-scf' | filecheck %s --check-prefix=TARGET
// RUN: moa-opt %s -p moa-to-dnf | filecheck %s --check-prefix=TARGET

// A function with a derivation says what it was, and what was applied to it and why.

func.func private @maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

// The definition is the function, and those it names, before the passes.
// CHECK-LABEL: func.func @cells(
// CHECK-SAME:    moa.derivation = {definition = ["builtin.module {", "  func.func @cells(
// CHECK-SAME:    moa.transpose
// CHECK-SAME:    "  func.func private @maximum(
// CHECK-SAME:    passes = [{pass = "moa-to-dnf", steps = [
// CHECK-SAME:    {rule = "psi-omega", redex = "<i> psi O = <i> psi ((max red) omega<1> tran a)", result = "max red <i> psi tran a"}
// CHECK-SAME:    {rule = "psi-reduce", redex = "max red <i> psi tran a", result = "max fold_{p<n} (<p> psi (<i> psi tran a))"}
// CHECK-SAME:    {rule = "psi-cell", redex = "<p> psi (<i> psi tran a)", result = "<i p> psi tran a"}
// CHECK-SAME:    {rule = "psi-transpose", redex = "<i p> psi tran a", result = "<p i> psi a"}
// CHECK-SAME:    "psi-reduce" = ["psi-reduce/rank1/in-bounds"]

// Each pass that changes the function is one entry more, with its options.
// FUSED-LABEL: func.func @cells(
// FUSED-SAME:    {pass = "moa-share"}, {pass = "moa-sink"}]}
// ONF-LABEL:   func.func @cells(
// ONF-SAME:      {pass = "moa-to-onf{layout=\22column\22}"}, {pass = "moa-split-loops{pieces=4}"}, {pass = "moa-fold-addresses"}]}
// ONF-LABEL:   func.func @cells.extents(

// From the target on, and unless it is asked for, there is none.
// TARGET-NOT:  moa.derivation
func.func @cells(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %t = moa.transpose %a : tensor<?x?xf64> -> tensor<?x?xf64>
  %m = moa.omega @maximum <1> (%t) : (tensor<?x?xf64>) -> tensor<?xf64>
  func.return %m : tensor<?xf64>
}
