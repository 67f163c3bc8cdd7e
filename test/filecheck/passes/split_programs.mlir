// RUN: moa-opt %s -p moa-raise-linalg,moa-split-programs | filecheck %s
// RUN: moa-opt %s -p moa-raise-linalg,moa-split-programs,moa-to-dnf,moa-share | filecheck %s --check-prefix=DNF

// ((AB)C)D: a product is crossed once, the result of that is stored.

// CHECK-LABEL: func.func private @chain.0
// CHECK-SAME: -> tensor<4x6xf32>
// CHECK-LABEL: func.func private @chain.1
// CHECK-SAME: tensor<4x6xf32>
// CHECK-LABEL: func.func @chain(
// CHECK-SAME: attributes {moa.program}
// CHECK: %[[T:.*]] = func.call @chain.0(%{{.*}}, %{{.*}}, %{{.*}})
// CHECK: %[[R:.*]] = func.call @chain.1(%{{.*}}, %[[T]])
// CHECK: func.return %[[R]]
// DNF: func.func private @chain.0
// DNF: moa.fold add
// DNF: func.func @chain(
// DNF-NEXT: func.call @chain.0
func.func @chain(%a: tensor<4x5xf32>, %b: tensor<5x7xf32>, %c: tensor<7x6xf32>, %d: tensor<6x3xf32>,
                 %x: tensor<4x7xf32>, %y: tensor<4x6xf32>, %z: tensor<4x3xf32>) -> tensor<4x3xf32> {
  %zero = arith.constant 0.0 : f32
  %e0 = tensor.empty() : tensor<4x7xf32>
  %f0 = linalg.fill ins(%zero : f32) outs(%e0 : tensor<4x7xf32>) -> tensor<4x7xf32>
  %ab = linalg.matmul ins(%a, %b : tensor<4x5xf32>, tensor<5x7xf32>) outs(%f0 : tensor<4x7xf32>) -> tensor<4x7xf32>
  %e1 = tensor.empty() : tensor<4x6xf32>
  %f1 = linalg.fill ins(%zero : f32) outs(%e1 : tensor<4x6xf32>) -> tensor<4x6xf32>
  %abc = linalg.matmul ins(%ab, %c : tensor<4x7xf32>, tensor<7x6xf32>) outs(%f1 : tensor<4x6xf32>) -> tensor<4x6xf32>
  %e2 = tensor.empty() : tensor<4x3xf32>
  %f2 = linalg.fill ins(%zero : f32) outs(%e2 : tensor<4x3xf32>) -> tensor<4x3xf32>
  %r = linalg.matmul ins(%abc, %d : tensor<4x6xf32>, tensor<6x3xf32>) outs(%f2 : tensor<4x3xf32>) -> tensor<4x3xf32>
  return %r : tensor<4x3xf32>
}

// A program that is one kernel stays as it is.

// CHECK-LABEL: func.func @one(
// CHECK-NOT: moa.program
// CHECK-NOT: func.call
func.func @one(%a: tensor<4xf32>) -> tensor<4xf32> {
  %e = tensor.empty() : tensor<4xf32>
  %r = linalg.map { math.exp } ins(%a : tensor<4xf32>) outs(%e : tensor<4xf32>)
  return %r : tensor<4xf32>
}
