// RUN: moa-opt %s -p 'moa-lift{machine=avx512},moa-to-vector' | filecheck %s

// One row of products, whose other factor is read once: each statement has lanes of its
// own. Products of a row and of sixteen rows of %b are summed with their common index in
// the lanes; the sixteen sums are then mixed two at a time, and are one vector.

// CHECK-LABEL: func.func @weighed(
// CHECK:         %[[A:.*]] = moa.rav row %a
// CHECK:         %[[B:.*]] = moa.rav row %b
// CHECK:         %[[C:.*]] = moa.rav row %c
// CHECK:         scf.parallel
// CHECK:           %[[ONE:[0-9]+]], %[[TWO:[0-9]+]], {{.*}} = scf.for
// CHECK:             %[[ROW:.*]] = vector.load %[[A]][%{{.*}}] : memref<?xf32>, vector<16xf32>
// CHECK:             %[[FIRST:.*]] = vector.load %[[B]][%{{.*}}] : memref<?xf32>, vector<16xf32>
// CHECK:             vector.fma %[[ROW]], %[[FIRST]]
// CHECK:             %[[SECOND:.*]] = vector.load %[[B]][%{{.*}}] : memref<?xf32>, vector<16xf32>
// CHECK:             vector.fma %[[ROW]], %[[SECOND]]
// CHECK:           vector.shuffle %[[ONE]], %[[TWO]] [0, 16, 1, 17, 4, 20,

// Then the columns of %c are in the lanes, and a sum is broadcast.

// CHECK:             %[[SUM:.*]] = memref.load %{{.*}} : memref<64xf32>
// CHECK:             %[[ALL:.*]] = vector.broadcast %[[SUM]] : f32 to vector<16xf32>
// CHECK:             %[[COLUMNS:.*]] = vector.load %[[C]][%{{.*}}] : memref<?xf32>, vector<16xf32>
// CHECK:             vector.fma %[[ALL]], %[[COLUMNS]]
func.func @weighed(%a: tensor<1x32xf32>, %b: tensor<64x32xf32>, %c: tensor<64x32xf32>) -> tensor<1x32xf32> {
  %zero = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<1x32xf32>
  %d = moa.extent %a, 1 : tensor<1x32xf32>
  %m = moa.extent %b, 0 : tensor<64x32xf32>
  %l = moa.extent %c, 1 : tensor<64x32xf32>
  %r = moa.comprehension [%i < %n] -> tensor<1x32xf32> {
    %sum = moa.fold add [%p = %zero to %m] -> tensor<32xf32> {
      %s = moa.fold add [%q = %zero to %d] -> f32 {
        %x = moa.at %a[%i, %q] : tensor<1x32xf32>
        %y = moa.at %b[%p, %q] : tensor<64x32xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      %w = arith.mulf %s, %s : f32
      %t = moa.comprehension [%j < %l] -> tensor<32xf32> {
        %u = moa.at %c[%p, %j] : tensor<64x32xf32>
        %v = arith.mulf %w, %u : f32
        moa.yield %v : f32
      }
      moa.yield %t : tensor<32xf32>
    }
    moa.yield %sum : tensor<32xf32>
  }
  func.return %r : tensor<1x32xf32>
}
