// RUN: moa-opt %s -p 'moa-fuse-reductions{emit=merge}' --split-input-file --verify-diagnostics | filecheck %s
// RUN: not moa-opt %s -p 'moa-fuse-reductions{emit=merge}' --split-input-file 2>&1 | filecheck %s --check-prefix=STATUS

// STATUS: @diagonal: the folded index goes along two axes of a

func.func @diagonal(%a: tensor<?x?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %s, %t = moa.cascade [%0 to %n] -> f64, f64 data {
  ^bb0(%p: index):
    %x = moa.at %a[%p, %p] : tensor<?x?xf64>
    moa.yield %x : f64
  } group add, max part {
  ^bb0(%p: index, %x: f64):
    moa.yield %x, %x : f64, f64
  }
  %r = moa.comprehension [] -> tensor<f64> {
    moa.yield %s : f64
  }
  func.return %r : tensor<f64>
}
// CHECK: moa-fuse-reductions: @diagonal: the folded index goes along two axes of a

// -----

// Parts of a do not have what is read of t.
func.func @table(%a: tensor<?xf64>, %t: tensor<?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %2 = arith.constant 2 : index
  %n = moa.extent %a, 0 : tensor<?xf64>
  %s, %m = moa.cascade [%0 to %n] -> f64, f64 data {
  ^bb0(%p: index):
    %x = moa.at %a[%p] : tensor<?xf64>
    %half = arith.divui %p, %2 : index
    %y = moa.at %t[%half] : tensor<?xf64>
    %z = arith.addf %x, %y : f64
    moa.yield %z : f64
  } group add, max part {
  ^bb0(%p: index, %z: f64):
    moa.yield %z, %z : f64, f64
  }
  %r = moa.comprehension [] -> tensor<f64> {
    moa.yield %s : f64
  }
  func.return %r : tensor<f64>
}
// CHECK: moa-fuse-reductions: @table: an array is read at a place that is computed from the folded index

// -----

func.func @nested(%a: tensor<?x?xf64>) -> tensor<f64> {
  %0 = arith.constant 0 : index
  %n = moa.extent %a, 0 : tensor<?x?xf64>
  %m = moa.extent %a, 1 : tensor<?x?xf64>
  %r = moa.comprehension [] -> tensor<f64> {
    %f = moa.fold add [%i = %0 to %n] -> f64 {
      %s, %t = moa.cascade [%0 to %m] -> f64, f64 data {
      ^bb0(%p: index):
        %x = moa.at %a[%i, %p] : tensor<?x?xf64>
        moa.yield %x : f64
      } group add, max part {
      ^bb0(%p: index, %x: f64):
        moa.yield %x, %x : f64, f64
      }
      %q = arith.divf %s, %t : f64
      moa.yield %q : f64
    }
    moa.yield %f : f64
  }
  func.return %r : tensor<f64>
}
// CHECK: moa-fuse-reductions: @nested: expected a cascade at the top or in one comprehension there, got one inside moa.fold

// -----

func.func @pivot_from_array(%a: tensor<?x4xf64>) -> tensor<4xf64> {
  %0 = arith.constant 0 : index
  %low = arith.constant 0.0 : f64
  %n = moa.extent %a, 0 : tensor<?x4xf64>
  %e = moa.extent %a, 1 : tensor<?x4xf64>
  %m, %s, %r = moa.cascade [%0 to %n] -> tensor<4xf64>, f64, f64 data {
  ^bb0(%p: index):
    moa.yield
  } group max part {
  ^bb0(%p: index):
    %row = moa.comprehension [%l < %e] -> tensor<4xf64> {
      %x = moa.at %a[%p, %l] : tensor<?x4xf64>
      moa.yield %x : f64
    }
    moa.yield %row : tensor<4xf64>
  } group add pivot %low {
  ^bb0(%count: index, %m: tensor<4xf64>, %r: f64, %s: f64):
    %f = moa.at %m[%0] : tensor<4xf64>
    moa.yield %f : f64
  } part {
  ^bb0(%p: index, %r: f64):
    %x = moa.at %a[%p, %0] : tensor<?x4xf64>
    %d = arith.subf %x, %r : f64
    %y = math.exp %d : f64
    moa.yield %y : f64
  } move {
  ^bb0(%count: index, %old: f64, %new: f64, %s: f64):
    %d = arith.subf %old, %new : f64
    %y = math.exp %d : f64
    %t = arith.mulf %y, %s : f64
    moa.yield %t : f64
  }
  func.return %m : tensor<4xf64>
}
// CHECK: moa-fuse-reductions: @pivot_from_array: a pivot depends on an accumulator that is an array

// -----

func.func @pivot_array(%a: tensor<?x4xf64>) -> tensor<4xf64> {
  %0 = arith.constant 0 : index
  %low = arith.constant -1.0e300 : f64
  %n = moa.extent %a, 0 : tensor<?x4xf64>
  %e = moa.extent %a, 1 : tensor<?x4xf64>
  %start = moa.comprehension [%l < %e] -> tensor<4xf64> {
    moa.yield %low : f64
  }
  %m, %s, %r = moa.cascade [%0 to %n] -> tensor<4xf64>, tensor<4xf64>, tensor<4xf64> data {
  ^bb0(%p: index):
    moa.yield
  } group max part {
  ^bb0(%p: index):
    %row = moa.comprehension [%l < %e] -> tensor<4xf64> {
      %x = moa.at %a[%p, %l] : tensor<?x4xf64>
      moa.yield %x : f64
    }
    moa.yield %row : tensor<4xf64>
  } group add pivot %start {
  ^bb0(%count: index, %m: tensor<4xf64>, %r: tensor<4xf64>, %s: tensor<4xf64>):
    %f = moa.comprehension [%l < %e] -> tensor<4xf64> {
      %x = moa.at %m[%l] : tensor<4xf64>
      %y = arith.maximumf %x, %low : f64
      moa.yield %y : f64
    }
    moa.yield %f : tensor<4xf64>
  } part {
  ^bb0(%p: index, %r: tensor<4xf64>):
    %row = moa.comprehension [%l < %e] -> tensor<4xf64> {
      %x = moa.at %a[%p, %l] : tensor<?x4xf64>
      %q = moa.at %r[%l] : tensor<4xf64>
      %d = arith.subf %x, %q : f64
      %y = math.exp %d : f64
      moa.yield %y : f64
    }
    moa.yield %row : tensor<4xf64>
  } move {
  ^bb0(%count: index, %old: tensor<4xf64>, %new: tensor<4xf64>, %s: tensor<4xf64>):
    %row = moa.comprehension [%l < %e] -> tensor<4xf64> {
      %x = moa.at %old[%l] : tensor<4xf64>
      %q = moa.at %new[%l] : tensor<4xf64>
      %d = arith.subf %x, %q : f64
      %y = math.exp %d : f64
      %z = moa.at %s[%l] : tensor<4xf64>
      %t = arith.mulf %y, %z : f64
      moa.yield %t : f64
    }
    moa.yield %row : tensor<4xf64>
  }
  func.return %s : tensor<4xf64>
}
// CHECK: moa-fuse-reductions: @pivot_array: a pivot is an array
