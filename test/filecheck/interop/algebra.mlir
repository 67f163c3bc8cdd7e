// REQUIRES: mlir-opt
// RUN: moa-opt %s --print-op-generic | %mlir_opt --allow-unregistered-dialect --mlir-print-op-generic > %t.there.mlir
// RUN: moa-opt %t.there.mlir --print-op-generic | %mlir_opt --allow-unregistered-dialect --mlir-print-op-generic > %t.again.mlir
// RUN: diff %t.there.mlir %t.again.mlir
// RUN: moa-opt %t.there.mlir | filecheck %s
// RUN: moa-opt %s --print-op-generic --print-no-properties | %mlir_opt --irdl-file=%S/../../../moa_dialect/moa.irdl.mlir | moa-opt | filecheck %s

// The algebra goes through upstream MLIR and comes back without loss: it has no regions,
// and no attributes but builtin ones. So it does where upstream knows it by its definition.

// CHECK-LABEL: func.func @structure(
func.func @structure(%a: tensor<3x?x5xf32>, %p: tensor<2xi64>, %q: tensor<4x2xindex>, %i: index) -> (tensor<?x5x3xf32>, tensor<5xf32>, tensor<4x5xf32>, tensor<?x5xf32>, tensor<index>, tensor<index>, tensor<3x4x2xindex>) {
  // CHECK: moa.transpose %{{.*}} [2, 0, 1] : tensor<3x?x5xf32> -> tensor<?x5x3xf32>
  %t = moa.transpose %a [2, 0, 1] : tensor<3x?x5xf32> -> tensor<?x5x3xf32>
  // CHECK: moa.transpose %{{[^ ]*}} : tensor<3x?x5xf32> -> tensor<5x?x3xf32>
  %u = moa.transpose %a : tensor<3x?x5xf32> -> tensor<5x?x3xf32>
  // CHECK: moa.psi %{{.*}}, %{{.*}} : tensor<2xi64>, tensor<3x?x5xf32> -> tensor<5xf32>
  %row = moa.psi %p, %a : tensor<2xi64>, tensor<3x?x5xf32> -> tensor<5xf32>
  %rows = moa.psi %q, %a : tensor<4x2xindex>, tensor<3x?x5xf32> -> tensor<4x5xf32>
  // CHECK: moa.cell %{{.*}}[%{{.*}}] : tensor<3x?x5xf32> -> tensor<?x5xf32>
  %plane = moa.cell %a[%i] : tensor<3x?x5xf32> -> tensor<?x5xf32>
  // CHECK: moa.dim
  %rank = moa.dim %a : tensor<3x?x5xf32> -> tensor<index>
  // CHECK: moa.total
  %total = moa.total %a : tensor<3x?x5xf32> -> tensor<index>
  // CHECK: moa.constant dense<[3, 4]> : tensor<2xindex>
  %v = moa.constant dense<[3, 4]> : tensor<2xindex>
  // CHECK: moa.iota %{{.*}} : tensor<2xindex> -> tensor<3x4x2xindex>
  %k = moa.iota %v : tensor<2xindex> -> tensor<3x4x2xindex>
  // CHECK: moa.shape %{{.*}} : tensor<3x?x5xf32> -> tensor<3xindex>
  %s = moa.shape %a : tensor<3x?x5xf32> -> tensor<3xindex>
  func.return %t, %row, %rows, %plane, %rank, %total, %k : tensor<?x5x3xf32>, tensor<5xf32>, tensor<4x5xf32>, tensor<?x5xf32>, tensor<index>, tensor<index>, tensor<3x4x2xindex>
}

// CHECK-LABEL: func.func @addresses_and_blocks(
func.func @addresses_and_blocks(%a: tensor<3x?xf32>, %b: tensor<2x?xf32>, %p: tensor<2xi64>, %k: tensor<index>) -> (tensor<2x?xf32>, tensor<index>, tensor<2xindex>, tensor<i64>) {
  // CHECK: moa.product %{{.*}} : tensor<2xi64> -> tensor<i64>
  %t = moa.product %p : tensor<2xi64> -> tensor<i64>
  // CHECK: moa.gamma column %{{.*}}, %{{.*}} : tensor<2xi64>, tensor<2xi64> -> tensor<index>
  %g = moa.gamma column %p, %p : tensor<2xi64>, tensor<2xi64> -> tensor<index>
  // CHECK: moa.gamma_inverse row %{{.*}}, %{{.*}} : tensor<index>, tensor<2xi64> -> tensor<2xindex>
  %i = moa.gamma_inverse row %k, %p : tensor<index>, tensor<2xi64> -> tensor<2xindex>
  // CHECK: moa.recycle %{{.*}}, %{{.*}} : tensor<2xi64>, tensor<3x?xf32> -> tensor<?x?xf32>
  %r = moa.recycle %p, %a : tensor<2xi64>, tensor<3x?xf32> -> tensor<?x?xf32>
  // CHECK: moa.insert %{{.*}}, %{{.*}}, %{{.*}} : tensor<index>, tensor<2x?xf32>, tensor<3x?xf32> -> tensor<3x?xf32>
  %c = moa.insert %k, %b, %a : tensor<index>, tensor<2x?xf32>, tensor<3x?xf32> -> tensor<3x?xf32>
  // CHECK: moa.pad %{{.*}}, %{{.*}}, %{{.*}} : tensor<2xi64>, tensor<2xi64>, tensor<?x?xf32> -> tensor<?x?xf32>
  %d = moa.pad %p, %p, %r : tensor<2xi64>, tensor<2xi64>, tensor<?x?xf32> -> tensor<?x?xf32>
  func.return %b, %g, %i, %t : tensor<2x?xf32>, tensor<index>, tensor<2xindex>, tensor<i64>
}

// CHECK-LABEL: func.func private @cell(
func.func private @cell(%row: tensor<?xf64>) -> tensor<f64> {
  // CHECK: moa.reduce max
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

func.func private @scalar(%x: f64, %y: f64) -> f64 {
  %z = arith.subf %x, %y : f64
  func.return %z : f64
}

// CHECK-LABEL: func.func @computation(
func.func @computation(%a: tensor<?x4xf64>, %b: tensor<4x?xf64>, %c: tensor<i1>) -> tensor<?x?xf32> {
  // CHECK: moa.omega @cell <1> (%{{.*}}) : (tensor<?x4xf64>) -> tensor<?xf64>
  %m = moa.omega @cell <1> (%a) : (tensor<?x4xf64>) -> tensor<?xf64>
  // CHECK: moa.omega sub <1, 0> (%{{.*}}, %{{.*}}) : (tensor<?x4xf64>, tensor<?xf64>) -> tensor<?x4xf64>
  %z = moa.omega sub <1, 0> (%a, %m) : (tensor<?x4xf64>, tensor<?xf64>) -> tensor<?x4xf64>
  // CHECK: moa.map exp
  %e = moa.map exp %z : tensor<?x4xf64> -> tensor<?x4xf64>
  // CHECK: moa.inner add @scalar
  %p = moa.inner add @scalar %e, %b : tensor<?x4xf64>, tensor<4x?xf64> -> tensor<?x?xf64>
  // CHECK: moa.outer mul
  %o = moa.outer mul %m, %m : tensor<?xf64>, tensor<?xf64> -> tensor<?x?xf64>
  // CHECK: moa.pointwise @scalar
  %d = moa.pointwise @scalar %p, %o : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  // CHECK: moa.where
  %w = moa.where %c, %p, %d : tensor<i1>, tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  // CHECK: moa.cast
  %f = moa.cast %w : tensor<?x?xf64> -> tensor<?x?xf32>
  func.return %f : tensor<?x?xf32>
}

// Names of extents stay, also where upstream names the arguments itself.
// CHECK-LABEL: func.func @named_extents(%{{.*}}: tensor<?x4xf64> {moa.extents = ["n", "?"]})
func.func @named_extents(%a: tensor<?x4xf64> {moa.extents = ["n", "?"]}) -> tensor<?x4xf64> {
  func.return %a : tensor<?x4xf64>
}
