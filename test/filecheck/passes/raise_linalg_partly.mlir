// RUN: moa-opt %s -p moa-raise-linalg | filecheck %s
// RUN: not moa-opt %s -p 'moa-raise-linalg{strict=true}' 2>&1 | filecheck %s --check-prefix=STRICT

// What cannot be raised stays as it is; what is around it is raised.

// STRICT: moa-opt: cannot raise {{.*}}raise_linalg_partly.mlir:{{[0-9]+}}:8: linalg.generic: a reduction by other than an associative operation

// CHECK-LABEL: func.func @around
// CHECK: %[[A:.*]] = moa.comprehension
// CHECK: arith.negf
// CHECK: %[[B:.*]] = "linalg.generic"(%[[A]]
// CHECK-SAME: iterator_types
// CHECK-NOT: moa.location
// CHECK: %[[C:.*]] = moa.comprehension
// CHECK-NEXT: moa.at %[[B]]
// CHECK: return %[[C]]
func.func @around(%a: tensor<5xf32>, %i: tensor<f32>) -> tensor<f32> {
  %e = tensor.empty() : tensor<5xf32>
  %n = linalg.map { arith.negf } ins(%a : tensor<5xf32>) outs(%e : tensor<5xf32>)
  // A recurrence: its steps cannot be reordered.
  %h = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>],
    iterator_types = ["reduction"]
  } ins(%n : tensor<5xf32>) outs(%i : tensor<f32>) {
  ^bb0(%x: f32, %out: f32):
    %d = arith.mulf %out, %x : f32
    %z = arith.addf %d, %x : f32
    linalg.yield %z : f32
  } -> tensor<f32>
  %s = tensor.empty() : tensor<f32>
  %r = linalg.map { math.exp } ins(%h : tensor<f32>) outs(%s : tensor<f32>)
  return %r : tensor<f32>
}
