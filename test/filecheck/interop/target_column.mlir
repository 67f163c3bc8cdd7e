// REQUIRES: mlir-opt
// RUN: moa-opt %s -p 'moa-to-dnf,moa-share,moa-sink,moa-to-onf{layout=column},moa-to-scf' --print-op-generic | %mlir_opt --verify-each | filecheck %s

// Upstream verifies the views of the column-major layout, too.

// CHECK-LABEL: func.func @outer(
// CHECK-SAME:    memref<?x3xf64, strided<[1, ?]>> {moa.result})
// CHECK:         memref.reinterpret_cast %{{.*}} : memref<?x3xf64, strided<[1, ?]>> to memref<?xf64>
func.func @outer(%a: tensor<?xf64>, %b: tensor<3xf64>) -> tensor<?x3xf64> {
  %c = moa.outer mul %a, %b : tensor<?xf64>, tensor<3xf64> -> tensor<?x3xf64>
  func.return %c : tensor<?x3xf64>
}
