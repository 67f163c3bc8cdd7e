// RUN: moa-run %s --entry attention_of_three | filecheck %s
// RUN: moa-run %s --entry attention_of_three --interpret | filecheck %s

// The worked example of Mullin and Hains, Attention at the Theoretical Minimum (2026),
// section 5.2: three queries, keys and values of width 4. Its numbers are of four decimals
// each, and so is the agreement.

func.func private @row_maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

func.func private @row_sum(%row: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}

func.func @attention_of_three() -> (tensor<3x3xf64>, tensor<3x4xf64>) {
  %q = moa.constant dense<[[-0.1984, 0.2698, 0.3414, -0.0372], [0.2547, -1.0674, 0.3460, -2.5242], [0.6822, -0.6265, 0.0252, 0.3978]]> : tensor<3x4xf64>
  %k = moa.constant dense<[[-1.1567, 0.6885, -0.1884, 0.4743], [0.2246, 1.7564, 0.5235, -2.3014], [-1.5899, 0.3730, -0.8257, -1.2069]]> : tensor<3x4xf64>
  %v = moa.constant dense<[[1.0739, 0.4006, -0.9671, 0.4870], [0.5589, -0.7209, -0.7650, 0.2689], [0.8237, 0.3763, 0.8320, 0.0014]]> : tensor<3x4xf64>
  %s = moa.constant dense<0.5> : tensor<f64>
  %kt = moa.transpose %k : tensor<3x4xf64> -> tensor<4x3xf64>
  %products = moa.inner add mul %q, %kt : tensor<3x4xf64>, tensor<4x3xf64> -> tensor<3x3xf64>
  %x = moa.pointwise mul %s, %products : tensor<f64>, tensor<3x3xf64> -> tensor<3x3xf64>
  %m = moa.omega @row_maximum <1> (%x) : (tensor<3x3xf64>) -> tensor<3xf64>
  %z = moa.omega sub <1, 0> (%x, %m) : (tensor<3x3xf64>, tensor<3xf64>) -> tensor<3x3xf64>
  %n = moa.map exp %z : tensor<3x3xf64> -> tensor<3x3xf64>
  %d = moa.omega @row_sum <1> (%n) : (tensor<3x3xf64>) -> tensor<3xf64>
  %y = moa.omega div <1, 0> (%n, %d) : (tensor<3x3xf64>, tensor<3xf64>) -> tensor<3x3xf64>
  %o = moa.inner add mul %y, %v : tensor<3x3xf64>, tensor<3x4xf64> -> tensor<3x4xf64>
  func.return %y, %o : tensor<3x3xf64>, tensor<3x4xf64>
}

// The weights, table 1 of the paper: .3202 .3834 .2964 / .0288 .7300 .2412 / .4270 .2844 .2887
// CHECK:      <3 3> f64
// CHECK-NEXT: 0.32018{{[0-9]*}} 0.38339{{[0-9]*}} 0.29642
// CHECK-NEXT: 0.02881{{[0-9]*}} 0.73001{{[0-9]*}} 0.24117
// CHECK-NEXT: 0.42696{{[0-9]*}} 0.28435{{[0-9]*}} 0.28868

// The output, table 2: .8023 -.0366 -.3563 .2595 / .6376 -.4240 -.3857 .2107 / .8552 .0747
// -.3903 .2848; the inputs as printed give .2594 for the last entry of its first row.
// CHECK:      <3 4> f64
// CHECK-NEXT: 0.80228{{[0-9]*}} -0.03658{{[0-9]*}} -0.35632{{[0-9]*}} 0.25943
// CHECK-NEXT: 0.6376{{[0-9]*}} -0.42397{{[0-9]*}} -0.38566{{[0-9]*}} 0.21066
// CHECK-NEXT: 0.85522{{[0-9]*}} 0.07468{{[0-9]*}} -0.39025{{[0-9]*}} 0.28479
