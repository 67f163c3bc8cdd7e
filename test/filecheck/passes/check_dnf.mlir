// RUN: moa-opt %s -p moa-check-dnf | filecheck %s

// A normal form passes as it is: arguments, constants and results are the only arrays.

// CHECK-LABEL: func.func @normal_form(
func.func @normal_form(%a: tensor<3x2xf64>) -> (tensor<3xf64>, tensor<2xf64>) {
  %c = moa.constant dense<[1.0, 2.0]> : tensor<2xf64>
  %n = moa.extent %a, 0 : tensor<3x2xf64>
  %m = moa.extent %a, 1 : tensor<3x2xf64>
  %zero = arith.constant 0 : index
  %s = moa.comprehension [%i < %n] -> tensor<3xf64> {
    %sum = moa.fold add [%k = %zero to %m] -> f64 {
      %x = moa.at %a[%i, %k] : tensor<3x2xf64>
      moa.yield %x : f64
    }
    moa.yield %sum : f64
  }
  %d = moa.comprehension [%j < %m] -> tensor<2xf64> {
    %x = moa.at %c[%j] : tensor<2xf64>
    moa.yield %x : f64
  }
  // CHECK: func.return
  func.return %s, %d : tensor<3xf64>, tensor<2xf64>
}
