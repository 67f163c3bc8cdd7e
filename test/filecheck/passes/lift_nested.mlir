// RUN: moa-opt %s -p 'moa-lift{machine=avx512}' --split-input-file | filecheck %s

// A comprehension of comprehensions that fold for each element is one over all axes.
// CHECK-LABEL: func.func @nested(
// CHECK-SAME:    %[[A:.*]]: tensor<2x40x30xf32>, %[[B:.*]]: tensor<2x30x16xf32>)
// CHECK:         moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<2x40x16xf32>
// CHECK-NEXT:      moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> tensor<16xf32>
// CHECK-NEXT:        moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<16xf32>
// CHECK-NEXT:          moa.at %[[A]][%[[I]], %[[J]], %[[P]]]
func.func @nested(%a: tensor<2x40x30xf32>, %b: tensor<2x30x16xf32>) -> tensor<2x40x16xf32> {
  %0 = arith.constant 0 : index
  %h = moa.extent %a, 0 : tensor<2x40x30xf32>
  %n = moa.extent %a, 1 : tensor<2x40x30xf32>
  %m = moa.extent %a, 2 : tensor<2x40x30xf32>
  %d = moa.extent %b, 2 : tensor<2x30x16xf32>
  %r = moa.comprehension [%i < %h] -> tensor<2x40x16xf32> {
    %cell = moa.comprehension [%j < %n] -> tensor<40x16xf32> {
      %s = moa.fold add [%p = %0 to %m] -> tensor<16xf32> {
        %row = moa.comprehension [%k < %d] -> tensor<16xf32> {
          %x = moa.at %a[%i, %j, %p] : tensor<2x40x30xf32>
          %y = moa.at %b[%i, %p, %k] : tensor<2x30x16xf32>
          %z = arith.mulf %x, %y : f32
          moa.yield %z : f32
        }
        moa.yield %row : tensor<16xf32>
      }
      moa.yield %s : tensor<16xf32>
    }
    moa.yield %cell : tensor<40x16xf32>
  }
  func.return %r : tensor<2x40x16xf32>
}

// -----

// What all cells share stays outside of them: a sum for each i.
// CHECK-LABEL: func.func @shared(
// CHECK:         moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<8x40xf32>
// CHECK-NEXT:      moa.fold add
// CHECK:           moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<40xf32>
func.func @shared(%a: tensor<8x40xf32>) -> tensor<8x40xf32> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<8x40xf32>
  %m = moa.extent %a, 1 : tensor<8x40xf32>
  %r = moa.comprehension [%i < %n] -> tensor<8x40xf32> {
    %s = moa.fold add [%p = %0 to %m] -> f32 {
      %x = moa.at %a[%i, %p] : tensor<8x40xf32>
      moa.yield %x : f32
    }
    %cell = moa.comprehension [%j < %m] -> tensor<40xf32> {
      %x = moa.at %a[%i, %j] : tensor<8x40xf32>
      %y = arith.divf %x, %s : f32
      moa.yield %y : f32
    }
    moa.yield %cell : tensor<40xf32>
  }
  func.return %r : tensor<8x40xf32>
}
