// RUN: moa-opt %s -p moa-check-dnf --split-input-file --verify-diagnostics | filecheck %s

// Any array between arguments and results is named.

func.func @algebra_left(%a: tensor<3x4xf64>) -> tensor<4x3xf64> {
  %t = moa.transpose %a : tensor<3x4xf64> -> tensor<4x3xf64>
  func.return %t : tensor<4x3xf64>
}
// CHECK: @algebra_left is not in denotational normal form: expected no intermediate array, got 1: moa.transpose of tensor<4x3xf64>

// -----

func.func @comprehension_used_by_another(%a: tensor<3xf64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3xf64>
  %e = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %a[%i] : tensor<3xf64>
    %y = math.exp %x : f64
    moa.yield %y : f64
  }
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %e[%i] : tensor<3xf64>
    moa.yield %x : f64
  }
  func.return %b : tensor<3xf64>
}
// CHECK: @comprehension_used_by_another is not in denotational normal form: expected no intermediate array, got 1: moa.comprehension of tensor<3xf64>

// -----

// Not even a result may be read.
func.func @result_used_by_another(%a: tensor<3xf64>) -> (tensor<3xf64>, tensor<3xf64>) {
  %n = moa.extent %a, 0 : tensor<3xf64>
  %e = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %a[%i] : tensor<3xf64>
    %y = math.exp %x : f64
    moa.yield %y : f64
  }
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %e[%i] : tensor<3xf64>
    moa.yield %x : f64
  }
  func.return %e, %b : tensor<3xf64>, tensor<3xf64>
}
// CHECK: @result_used_by_another is not in denotational normal form: expected no intermediate array, got 1: moa.comprehension of tensor<3xf64>

// -----

func.func @nested_comprehension(%a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %b = moa.comprehension [%i < %n] -> tensor<3x4xf64> {
    %row = moa.comprehension [%j < %m] -> tensor<4xf64> {
      %x = moa.at %a[%i, %j] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    moa.yield %row : tensor<4xf64>
  }
  func.return %b : tensor<3x4xf64>
}
// CHECK: @nested_comprehension is not in denotational normal form: expected no intermediate array, got 1: moa.comprehension of tensor<4xf64>

// -----

// Nor need anything read it.
func.func @unused_nested_comprehension(%a: tensor<3xf64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3xf64>
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %unused = moa.comprehension [%j < %n] -> tensor<3xf64> {
      %y = moa.at %a[%j] : tensor<3xf64>
      moa.yield %y : f64
    }
    %x = moa.at %a[%i] : tensor<3xf64>
    moa.yield %x : f64
  }
  func.return %b : tensor<3xf64>
}
// CHECK: @unused_nested_comprehension is not in denotational normal form: expected no intermediate array, got 1: moa.comprehension of tensor<3xf64>

// -----

func.func @fold_of_arrays(%a: tensor<3x4xf64>) -> tensor<4xf64> {
  %n = moa.extent %a, 0 : tensor<3x4xf64>
  %m = moa.extent %a, 1 : tensor<3x4xf64>
  %zero = arith.constant 0 : index
  %s = moa.fold add [%k = %zero to %n] -> tensor<4xf64> {
    %row = moa.comprehension [%j < %m] -> tensor<4xf64> {
      %x = moa.at %a[%k, %j] : tensor<3x4xf64>
      moa.yield %x : f64
    }
    moa.yield %row : tensor<4xf64>
  }
  func.return %s : tensor<4xf64>
}
// CHECK: @fold_of_arrays is not in denotational normal form: expected no intermediate array, got 2: moa.fold of tensor<4xf64>, moa.comprehension of tensor<4xf64>

// -----

func.func @memory(%a: tensor<3xf64>) -> tensor<3xf64> {
  %n = moa.extent %a, 0 : tensor<3xf64>
  %scratch = memref.alloc() : memref<3xf64>
  %b = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %x = moa.at %a[%i] : tensor<3xf64>
    moa.yield %x : f64
  }
  func.return %b : tensor<3xf64>
}
// CHECK: @memory is not in denotational normal form: expected no intermediate array, got 1: memref.alloc of memref<3xf64>
