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

// With four rows, four rows of %b are read at a time, and each vector of them once for
// all rows. More of them is asked for, in the order in which it lies in memory. The
// sixteen sums are four of each row.

// CHECK-LABEL: func.func @rows(
// CHECK:         %[[FOUR:.*]] = arith.constant 4 : index
// CHECK:         %[[SIXTEEN:.*]] = arith.constant 16 : index
// CHECK:         scf.parallel
// CHECK:           scf.for %{{.*}} = %{{.*}} to %{{.*}} step %[[FOUR]]
// CHECK-COUNT-4:       memref.prefetch
// CHECK:             %[[ROW:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK-NEXT:        %[[FIRST:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK-NEXT:        vector.fma %[[ROW]], %[[FIRST]]
// CHECK:             %[[SECOND:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK-NEXT:        vector.fma %[[ROW]], %[[SECOND]]
// CHECK:             %[[THIRD:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK:             %[[FOURTH:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK:             %[[NEXT:.*]] = vector.load %{{.*}} : memref<?xf32>, vector<16xf32>
// CHECK-NEXT:        vector.fma %[[NEXT]], %[[FIRST]]
// CHECK-NEXT:        vector.fma %[[NEXT]], %[[SECOND]]
// CHECK-NEXT:        vector.fma %[[NEXT]], %[[THIRD]]
// CHECK-NEXT:        vector.fma %[[NEXT]], %[[FOURTH]]
// CHECK:           %[[PART:.*]] = vector.shuffle %[[SUMS:.*]], %[[SUMS]] [0, 1, 2, 3]
// CHECK-NEXT:      vector.store %[[PART]], %{{.*}} : memref<4x64xf32>, vector<4xf32>
// CHECK:           %[[OTHER:.*]] = vector.shuffle %[[SUMS]], %[[SUMS]] [4, 5, 6, 7]

// Of sixteen rows of %c all columns are summed, half of them at a time, then of the next.

// CHECK:           vector.store %{{.*}}, %[[TILE:.*]][%{{.*}}] : memref<4x128xf32>, vector<16xf32>
// CHECK:           scf.for %[[LOWER:.*]] = %{{.*}} to %{{.*}} step %[[SIXTEEN]]
// CHECK:             %[[UPPER:.*]] = arith.addi %[[LOWER]], %[[SIXTEEN]]
// CHECK:             %[[END:.*]] = arith.minsi %[[UPPER]], %{{.*}}
// CHECK:             scf.for %{{.*}} = %{{.*}} to %{{.*}} step
// CHECK:               scf.for %{{.*}} = %{{.*}} to %{{.*}} step %[[FOUR]]
// CHECK:                 vector.load %[[TILE]][%{{.*}}] : memref<4x128xf32>, vector<16xf32>
// CHECK:                 scf.for %{{.*}} = %[[LOWER]] to %[[END]] step
func.func @rows(%a: tensor<4x32xf32>, %b: tensor<64x32xf32>, %c: tensor<64x128xf32>) -> tensor<4x128xf32> {
  %zero = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<4x32xf32>
  %d = moa.extent %a, 1 : tensor<4x32xf32>
  %m = moa.extent %b, 0 : tensor<64x32xf32>
  %l = moa.extent %c, 1 : tensor<64x128xf32>
  %r = moa.comprehension [%i < %n] -> tensor<4x128xf32> {
    %sum = moa.fold add [%p = %zero to %m] -> tensor<128xf32> {
      %s = moa.fold add [%q = %zero to %d] -> f32 {
        %x = moa.at %a[%i, %q] : tensor<4x32xf32>
        %y = moa.at %b[%p, %q] : tensor<64x32xf32>
        %z = arith.mulf %x, %y : f32
        moa.yield %z : f32
      }
      %w = arith.mulf %s, %s : f32
      %t = moa.comprehension [%j < %l] -> tensor<128xf32> {
        %u = moa.at %c[%p, %j] : tensor<64x128xf32>
        %v = arith.mulf %w, %u : f32
        moa.yield %v : f32
      }
      moa.yield %t : tensor<128xf32>
    }
    moa.yield %sum : tensor<128xf32>
  }
  func.return %r : tensor<4x128xf32>
}
