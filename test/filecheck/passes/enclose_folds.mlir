// RUN: moa-opt %s -p 'moa-enclose-folds' | filecheck %s
// RUN: moa-opt %s -p 'moa-enclose-folds' | moa-opt | filecheck %s
// RUN: moa-opt %s -p 'moa-enclose-folds,moa-split-cascades{places=4 threads=64}' | filecheck %s --check-prefix=SPLIT

// The sum is the element of an array; its root is computed where it is used.

// CHECK-LABEL: func.func @normalized
// CHECK:       %[[SUM:.*]] = moa.comprehension [] -> tensor<f64> {
// CHECK-NEXT:    %[[FOLD:.*]] = moa.fold add
// CHECK:         moa.yield %[[FOLD]]
// CHECK-NOT:   math.sqrt
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<65536xf64> {
// CHECK-NEXT:    %[[S:.*]] = moa.at %[[SUM]][]
// CHECK-NEXT:    %[[ROOT:.*]] = math.sqrt %[[S]]
// CHECK:         arith.divf %{{.*}}, %[[ROOT]]

// Then it has 16 parts: four for each place.
// SPLIT-LABEL: func.func @normalized
// SPLIT:       %[[PARTS:.*]] = moa.fixed_extent 16
// SPLIT:       %[[STATES:.*]] = moa.comprehension [%{{.*}} < %[[PARTS]]] -> tensor<16xf64>
// SPLIT:       moa.cascade
// SPLIT:       {moa.parts}
// SPLIT:       moa.comprehension [] -> tensor<f64>
// SPLIT:       moa.at %[[STATES]]

func.func @normalized(%x: tensor<65536xf64>) -> tensor<65536xf64> {
  %n = moa.extent %x, 0 : tensor<65536xf64>
  %c0 = arith.constant 0 : index
  %s = moa.fold add [%p = %c0 to %n] -> f64 {
    %a = moa.at %x[%p] : tensor<65536xf64>
    %b = arith.mulf %a, %a : f64
    moa.yield %b : f64
  }
  %r = math.sqrt %s : f64
  %y = moa.comprehension [%i < %n] -> tensor<65536xf64> {
    %a = moa.at %x[%i] : tensor<65536xf64>
    %b = arith.divf %a, %r : f64
    moa.yield %b : f64
  }
  func.return %y : tensor<65536xf64>
}

// A comprehension without axes that uses the fold alone takes it inside.

// CHECK-LABEL: func.func @total
// CHECK-NOT:   moa.fold
// CHECK:       moa.comprehension [] -> tensor<f64> {
// CHECK:         moa.fold add
// CHECK:         math.sqrt
// CHECK-NOT:   moa.comprehension
// CHECK:       func.return

func.func @total(%x: tensor<65536xf64>) -> tensor<f64> {
  %n = moa.extent %x, 0 : tensor<65536xf64>
  %c0 = arith.constant 0 : index
  %s = moa.fold add [%p = %c0 to %n] -> f64 {
    %a = moa.at %x[%p] : tensor<65536xf64>
    moa.yield %a : f64
  }
  %r = math.sqrt %s : f64
  %y = moa.comprehension [] -> tensor<f64> {
    moa.yield %r : f64
  }
  func.return %y : tensor<f64>
}

// A short one stays.

// CHECK-LABEL: func.func @short
// CHECK:       moa.fold add
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<8xf64>
// CHECK-NOT:   moa.fold

func.func @short(%x: tensor<8xf64>) -> tensor<8xf64> {
  %n = moa.extent %x, 0 : tensor<8xf64>
  %c0 = arith.constant 0 : index
  %s = moa.fold add [%p = %c0 to %n] -> f64 {
    %a = moa.at %x[%p] : tensor<8xf64>
    moa.yield %a : f64
  }
  %y = moa.comprehension [%i < %n] -> tensor<8xf64> {
    %a = moa.at %x[%i] : tensor<8xf64>
    %b = arith.addf %a, %s : f64
    moa.yield %b : f64
  }
  func.return %y : tensor<8xf64>
}

// A fold of arrays, and the one array that is computed from it, are one comprehension.

// CHECK-LABEL: func.func @gradient
// CHECK:       %[[Y:.*]] = moa.comprehension [] -> tensor<32xf32> {
// CHECK-NEXT:    %[[SUMS:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> tensor<32xf32>
// CHECK:           moa.at %[[SUMS]][%{{.*}}]
// CHECK-NEXT:      math.exp
// CHECK:         moa.yield %{{.*}} : tensor<32xf32>
// CHECK:       func.return %[[Y]]

func.func @gradient(%x: tensor<256x32xf32>, %r: tensor<256xf32>) -> tensor<32xf32> {
  %d = moa.extent %x, 1 : tensor<256x32xf32>
  %n = moa.extent %x, 0 : tensor<256x32xf32>
  %c0 = arith.constant 0 : index
  %s = moa.fold add [%p = %c0 to %n] -> tensor<32xf32> {
    %a = moa.at %r[%p] : tensor<256xf32>
    %row = moa.comprehension [%j < %d] -> tensor<32xf32> {
      %b = moa.at %x[%p, %j] : tensor<256x32xf32>
      %c = arith.mulf %a, %b : f32
      moa.yield %c : f32
    }
    moa.yield %row : tensor<32xf32>
  }
  %y = moa.comprehension [%i < %d] -> tensor<32xf32> {
    %a = moa.at %s[%i] : tensor<32xf32>
    %b = math.exp %a : f32
    moa.yield %b : f32
  }
  func.return %y : tensor<32xf32>
}

// If more arrays are, it is a comprehension by itself, whose array they read.

// CHECK-LABEL: func.func @two
// CHECK:       %[[SUMS:.*]] = moa.comprehension [] -> tensor<32xf32> {
// CHECK-NEXT:    moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> tensor<32xf32>
// CHECK:       moa.at %[[SUMS]]
// CHECK-NOT:   moa.fold
// CHECK:       func.return %[[SUMS]]

func.func @two(%x: tensor<256x32xf32>) -> (tensor<32xf32>, tensor<32xf32>) {
  %d = moa.extent %x, 1 : tensor<256x32xf32>
  %n = moa.extent %x, 0 : tensor<256x32xf32>
  %c0 = arith.constant 0 : index
  %s = moa.fold add [%p = %c0 to %n] -> tensor<32xf32> {
    %row = moa.comprehension [%j < %d] -> tensor<32xf32> {
      %b = moa.at %x[%p, %j] : tensor<256x32xf32>
      moa.yield %b : f32
    }
    moa.yield %row : tensor<32xf32>
  }
  %y = moa.comprehension [%i < %d] -> tensor<32xf32> {
    %a = moa.at %s[%i] : tensor<32xf32>
    %b = math.exp %a : f32
    moa.yield %b : f32
  }
  func.return %s, %y : tensor<32xf32>, tensor<32xf32>
}
