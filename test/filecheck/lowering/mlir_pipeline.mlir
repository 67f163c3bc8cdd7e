// RUN: moa-opt %s -p 'mlir-pipeline{pipeline="canonicalize,cse"}' | filecheck %s
// RUN: moa-opt %s -p 'mlir-pipeline{pipeline="builtin.module(func.func(canonicalize,cse))"}' | filecheck %s

// Passes of upstream MLIR, run in process.

// CHECK-LABEL: func.func @upstream_passes(
// CHECK-SAME:    %[[X:.*]]: index)
func.func @upstream_passes(%x: index) -> index {
  %zero = arith.constant 0 : index
  %y = arith.addi %x, %zero : index
  func.return %y : index
}
// CHECK-NEXT:  func.return %[[X]] : index

// What upstream does not know passes through and comes back as it was.
// CHECK-LABEL: func.func @the_dialect_passes_through(
// CHECK-SAME:    %[[A:.*]]: tensor<3x?xf64>)
func.func @the_dialect_passes_through(%a: tensor<3x?xf64>) -> tensor<?xf64> {
  %n = moa.extent %a, 0 : tensor<3x?xf64>
  %m = moa.extent %a, 1 : tensor<3x?xf64>
  %zero = arith.constant 0 : index
  %b = moa.comprehension [%i < %m] -> tensor<?xf64> {
    %sum = moa.fold add [%k = %zero to %n] -> f64 {
      %x = moa.at %a[%k, %i] : tensor<3x?xf64>
      moa.yield %x : f64
    }
    moa.yield %sum : f64
  }
  func.return %b : tensor<?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[M]]] -> tensor<?xf64>
// CHECK-NEXT:    moa.fold add [%[[K:.*]] = %{{.*}} to %[[N]]] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[K]], %[[I]]]
