// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf,moa-to-scf --print-op-generic | filecheck %s

// Nothing of the dialect is left but attributes' names.

// CHECK-NOT:   "moa.{{[a-z_]+}}"(
// CHECK:       sym_name = "everything"
// CHECK-NOT:   "moa.{{[a-z_]+}}"(
func.func private @smaller(%x: f64, %y: f64) -> f64 {
  %m = arith.minimumf %x, %y : f64
  func.return %m : f64
}
func.func @everything(%p: tensor<1xindex>, %a: tensor<?x?xf64>, %b: tensor<?x?xf64>) -> (tensor<?x?xf64>, tensor<?xf64>, tensor<?xindex>) {
  %c = moa.constant dense<[0.5, 0.25]> : tensor<2xf64>
  %e = moa.map exp %a : tensor<?x?xf64> -> tensor<?x?xf64>
  %s = moa.inner sub mul %e, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %x = moa.psi %p, %c : tensor<1xindex>, tensor<2xf64> -> tensor<f64>
  %d = moa.pointwise mul %s, %x : tensor<?x?xf64>, tensor<f64> -> tensor<?x?xf64>
  %r = moa.reduce @smaller %d : tensor<?x?xf64> -> tensor<?xf64>
  %shape = moa.shape %a : tensor<?x?xf64> -> tensor<2xindex>
  %k = moa.psi %p, %shape : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %zero = moa.constant dense<0> : tensor<1xindex>
  %n = moa.psi %zero, %shape : tensor<1xindex>, tensor<2xindex> -> tensor<index>
  %ramp = moa.iota %n : tensor<index> -> tensor<?xindex>
  %shifted = moa.pointwise add %ramp, %k : tensor<?xindex>, tensor<index> -> tensor<?xindex>
  func.return %d, %r, %shifted : tensor<?x?xf64>, tensor<?xf64>, tensor<?xindex>
}
