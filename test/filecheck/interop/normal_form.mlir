// REQUIRES: mlir-opt
// RUN: moa-opt %s --print-op-generic | %mlir_opt --allow-unregistered-dialect --mlir-print-op-generic > %t.there.mlir
// RUN: moa-opt %t.there.mlir --print-op-generic | %mlir_opt --allow-unregistered-dialect --mlir-print-op-generic > %t.again.mlir
// RUN: diff %t.there.mlir %t.again.mlir
// RUN: moa-opt %t.there.mlir | filecheck %s

// The normal forms go through upstream MLIR and come back without loss.

// CHECK-LABEL: func.func @denotational(
func.func @denotational(%a: tensor<?x4xf64>, %p: tensor<1xindex>) -> (tensor<?x4xf64>, tensor<3xf64>) {
  // CHECK: moa.extent %{{.*}}, 0
  %n = moa.extent %a, 0 : tensor<?x4xf64>
  %m = moa.extent %a, 1 : tensor<?x4xf64>
  // CHECK: moa.fixed_extent 3
  %three = moa.fixed_extent 3
  %zero = arith.constant 0 : index
  // CHECK: moa.require %{{.*}} ge %{{.*}}, "the rows \22of A\22"
  moa.require %n ge %three, "the rows \22of A\22"
  // CHECK: moa.comprehension [%[[J:.*]] < %{{.*}}] order [1, 0] -> tensor<?x4xf64>
  %b = moa.comprehension [%j < %m] order [1, 0] -> tensor<?x4xf64> {
    // CHECK: moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] where affine_set<(d0, d1) : ({{.*}} >= 0)>(%[[K]], %[[J]]) -> f64
    %s = moa.fold add [%k = %zero to %n] where affine_set<(d0, d1) : (d1 - d0 >= 0)>(%k, %j) -> f64 {
      // CHECK: moa.at %{{.*}}[%[[K]], %[[J]]]
      %x = moa.at %a[%k, %j] : tensor<?x4xf64>
      moa.yield %x : f64
    }
    // CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<?xf64>
    %column = moa.comprehension [%i < %n] -> tensor<?xf64> {
      %x = moa.at %a[%i, %j] : tensor<?x4xf64>
      %y = arith.divf %x, %s : f64
      moa.yield %y : f64
    }
    moa.yield %column : tensor<?xf64>
  }
  %c = moa.comprehension [%i < %three] -> tensor<3xf64> {
    %entry = moa.at %p[%zero] : tensor<1xindex>
    // CHECK: moa.in_bounds %{{.*}} in %{{.*}}, "out of range"
    %row = moa.in_bounds %entry in %n, "out of range"
    %x = moa.at %a[%row, %i] : tensor<?x4xf64>
    moa.yield %x : f64
  }
  func.return %b, %c : tensor<?x4xf64>, tensor<3xf64>
}

// CHECK-LABEL: func.func @operational(
// CHECK-SAME:    memref<?x4xf64, strided<[1, ?]>> {moa.result}, %{{.*}}: memref<3xi64> {moa.status})
func.func @operational(%a: memref<?x4xf64, strided<[1, ?]>> {moa.result}, %status: memref<3xi64> {moa.status}) {
  %n = moa.extent %a, 0 : memref<?x4xf64, strided<[1, ?]>>
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  // CHECK: moa.rav column %{{.*}} : memref<?x4xf64, strided<[1, ?]>> -> memref<?xf64>
  %flat = moa.rav column %a : memref<?x4xf64, strided<[1, ?]>> -> memref<?xf64>
  // CHECK: moa.loop [%[[I:.*]] = %[[N:.*]] to %{{.*}} by -2]
  moa.loop [%i = %n to %zero by -2] {
    // CHECK: moa.buffer accumulator [%[[N]]] : memref<?xf64>
    %row = moa.buffer accumulator [%n] : memref<?xf64>
    // CHECK: %[[X:.*]] = moa.load %{{.*}}[%{{.*}}, %[[I]] * %{{.*}}] : memref<?xf64>
    %x = moa.load %flat[%zero, %i * %one] : memref<?xf64>
    // CHECK: moa.store %[[X]], %{{.*}}[%{{.*}}, %[[I]] * %[[N]], %[[I]] * %{{.*}}] : memref<?xf64>
    moa.store %x, %row[%zero, %i * %n, %i * %one] : memref<?xf64>
    moa.yield
  }
  func.return
}
