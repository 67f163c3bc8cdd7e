// RUN: moa-opt %s -p 'moa-split-cascades{places=4 threads=64},moa-verify' | filecheck %s
// RUN: moa-opt %s -p 'moa-split-cascades{places=4}' | filecheck %s --check-prefix=NONE
// RUN: not moa-opt %s -p 'moa-split-cascades{threads=-1}' 2>&1 | filecheck %s --check-prefix=NEGATIVE

// NEGATIVE: moa-split-cascades: threads is at least 0, got -1

// Two sums along columns: elements that lie side by side are those of j, so the parts
// are the outer axis, and the last one of the states.

// CHECK-LABEL: func.func @columns
// CHECK:       %[[PARTS:.*]] = moa.fixed_extent 16
// CHECK:       moa.comprehension [%[[S:.*]] < %[[PARTS]], %[[J:.*]] < %{{.*}}] order [1, 0] -> tensor<16x16xf64>, tensor<16x16xf64>
// CHECK:         moa.at %{{.*}}[%{{.*}}, %[[J]]] : tensor<2048x16xf64>
// CHECK:       {moa.parts}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<16xf64>
// CHECK:         } group add part {
// CHECK:         } group max part {
// NONE-LABEL:  func.func @columns
// NONE-NOT:    moa.parts

func.func @columns(%x: tensor<2048x16xf64>) -> tensor<16xf64> {
  %n = moa.extent %x, 0 : tensor<2048x16xf64>
  %m = moa.extent %x, 1 : tensor<2048x16xf64>
  %c0 = arith.constant 0 : index
  %y = moa.comprehension [%j < %m] -> tensor<16xf64> {
    %s = moa.fold add [%p = %c0 to %n] -> f64 {
      %a = moa.at %x[%p, %j] : tensor<2048x16xf64>
      moa.yield %a : f64
    }
    %t = moa.fold max [%p = %c0 to %n] -> f64 {
      %a = moa.at %x[%p, %j] : tensor<2048x16xf64>
      moa.yield %a : f64
    }
    %r = arith.divf %s, %t : f64
    moa.yield %r : f64
  }
  func.return %y : tensor<16xf64>
}

// One sum is computed from the other: nothing is split. Nor is a product of matrices.

// CHECK-LABEL: func.func @dependent
// CHECK-NOT:   moa.parts
func.func @dependent(%x: tensor<1x65536xf64>) -> tensor<1xf64> {
  %n = moa.extent %x, 0 : tensor<1x65536xf64>
  %m = moa.extent %x, 1 : tensor<1x65536xf64>
  %c0 = arith.constant 0 : index
  %y = moa.comprehension [%i < %n] -> tensor<1xf64> {
    %s = moa.fold add [%p = %c0 to %m] -> f64 {
      %a = moa.at %x[%i, %p] : tensor<1x65536xf64>
      moa.yield %a : f64
    }
    %t = moa.fold add [%p = %c0 to %m] -> f64 {
      %a = moa.at %x[%i, %p] : tensor<1x65536xf64>
      %b = arith.subf %a, %s : f64
      moa.yield %b : f64
    }
    moa.yield %t : f64
  }
  func.return %y : tensor<1xf64>
}

// CHECK-LABEL: func.func @product
// CHECK-NOT:   moa.parts
func.func @product(%x: tensor<4x65536xf64>, %z: tensor<65536x4xf64>) -> tensor<4x4xf64> {
  %n = moa.extent %x, 0 : tensor<4x65536xf64>
  %m = moa.extent %x, 1 : tensor<4x65536xf64>
  %k = moa.extent %z, 1 : tensor<65536x4xf64>
  %c0 = arith.constant 0 : index
  %y = moa.comprehension [%i < %n, %j < %k] -> tensor<4x4xf64> {
    %s = moa.fold add [%p = %c0 to %m] -> f64 {
      %a = moa.at %x[%i, %p] : tensor<4x65536xf64>
      %b = moa.at %z[%p, %j] : tensor<65536x4xf64>
      %c = arith.mulf %a, %b : f64
      moa.yield %c : f64
    }
    moa.yield %s : f64
  }
  func.return %y : tensor<4x4xf64>
}
