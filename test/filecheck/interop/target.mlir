// REQUIRES: mlir-opt
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-to-scf --print-op-generic | %mlir_opt --verify-each | filecheck %s
// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-to-scf --print-op-generic | %mlir_opt --pass-pipeline='builtin.module(convert-scf-to-cf,expand-strided-metadata,lower-affine,arith-expand,convert-math-to-libm,finalize-memref-to-llvm,convert-arith-to-llvm,convert-func-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)' | filecheck %s --check-prefix=LLVM

// What moa-to-scf makes is made of upstream's dialects: upstream's tools verify it, with
// no dialect unregistered, and lower it.

func.func private @row_sum(%row: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}

// CHECK:     func.func @weighted_mean(
// CHECK-SAME:  memref<?x?xf64> {moa.result}, %{{.*}}: memref<3xi64> {moa.status}) attributes {moa.checks = [
// CHECK:       scf.for
// CHECK:         math.exp
// CHECK:       arith.divf
// CHECK:     func.func @weighted_mean.extents(

// LLVM:      llvm.func @weighted_mean(
// LLVM-NOT:  {{(scf|memref|func|cf|arith)[.]}}
// LLVM:      llvm.call @exp(
// LLVM-NOT:  {{(scf|memref|func|cf|arith)[.]}}
func.func @weighted_mean(%w: tensor<?x?xf64>, %v: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %e = moa.map exp %w : tensor<?x?xf64> -> tensor<?x?xf64>
  %n = moa.inner add mul %e, %v : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %d = moa.omega @row_sum <1> (%e) : (tensor<?x?xf64>) -> tensor<?xf64>
  %o = moa.omega div <1, 0> (%n, %d) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  func.return %o : tensor<?x?xf64>
}

// Globals, strided layouts, checks of data and right folds without identity, too.
// CHECK:     memref.global "private" constant
// CHECK:     func.func @lookup(
func.func @lookup(%p: tensor<1xi32>, %a: tensor<3x?xf64>) -> tensor<?xf64> {
  %c = moa.constant dense<[0.5, 0.25, 0.125]> : tensor<3xf64>
  %x = moa.psi %p, %c : tensor<1xi32>, tensor<3xf64> -> tensor<f64>
  %s = moa.reduce sub %a : tensor<3x?xf64> -> tensor<?xf64>
  %y = moa.pointwise mul %s, %x : tensor<?xf64>, tensor<f64> -> tensor<?xf64>
  func.return %y : tensor<?xf64>
}
