// RUN: moa-opt %s -p moa-raise-linalg | filecheck %s
// RUN: moa-opt %s -p 'moa-raise-linalg{strict=true},moa-to-dnf,moa-check-dnf' | filecheck %s --check-prefix=DNF

// DNF: func.func @elementwise

// Every result axis is a dimension of the iteration space, operands are read where
// their maps say.

// CHECK-LABEL: func.func @elementwise
// CHECK-SAME: (%[[A:.*]]: tensor<4x5xf32>, %[[B:.*]]: tensor<5xf32>)
// CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<5x4xf32>
// CHECK-NEXT: %[[X:.*]] = moa.at %[[A]][%[[J]], %[[I]]]
// CHECK-NEXT: %[[Y:.*]] = moa.at %[[B]][%[[I]]]
// CHECK-NEXT: %[[Z:.*]] = arith.addf %[[X]], %[[Y]] : f32
// CHECK-NEXT: moa.yield %[[Z]]
func.func @elementwise(%a: tensor<4x5xf32>, %b: tensor<5xf32>) -> tensor<5x4xf32> {
  %e = tensor.empty() : tensor<5x4xf32>
  %r = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (j, i)>, affine_map<(i, j) -> (i)>,
                     affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%a, %b : tensor<4x5xf32>, tensor<5xf32>) outs(%e : tensor<5x4xf32>) {
  ^bb0(%x: f32, %y: f32, %out: f32):
    %z = arith.addf %x, %y : f32
    linalg.yield %z : f32
  } -> tensor<5x4xf32>
  return %r : tensor<5x4xf32>
}

// An operand that has extent 1 where the map says 0 is broadcast.

// CHECK-LABEL: func.func @broadcasting_map
// CHECK: %[[ZERO:.*]] = arith.constant 0 : index
// CHECK: moa.at %{{.*}}[%[[I:.*]], %[[ZERO]]] : tensor<4x1xf32>
func.func @broadcasting_map(%a: tensor<4x5xf32>, %b: tensor<4x1xf32>) -> tensor<4x5xf32> {
  %e = tensor.empty() : tensor<4x5xf32>
  %r = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, 0)>,
                     affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%a, %b : tensor<4x5xf32>, tensor<4x1xf32>) outs(%e : tensor<4x5xf32>) {
  ^bb0(%x: f32, %y: f32, %out: f32):
    %z = arith.subf %x, %y : f32
    linalg.yield %z : f32
  } -> tensor<4x5xf32>
  return %r : tensor<4x5xf32>
}

// A dimension the result has not is folded, from the identity element: a right fold.

// CHECK-LABEL: func.func @sum
// CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<4xf32>
// CHECK: %[[S:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> f32
// CHECK-NEXT: moa.at %{{.*}}[%[[I]], %[[P]]]
// CHECK: moa.yield %[[S]]
func.func @sum(%a: tensor<4x5xf32>) -> tensor<4xf32> {
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %r = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%a : tensor<4x5xf32>) outs(%f : tensor<4xf32>) {
  ^bb0(%x: f32, %out: f32):
    %z = arith.addf %out, %x : f32
    linalg.yield %z : f32
  } -> tensor<4xf32>
  return %r : tensor<4xf32>
}

// What the result was before, if that is another number, is combined with the fold.

// CHECK-LABEL: func.func @largest_above
// CHECK: %[[F:.*]] = moa.fold max
// CHECK: %[[INIT:.*]] = arith.constant 2.000000e+00 : f32
// CHECK-NEXT: %[[R:.*]] = arith.maximumf %[[INIT]], %[[F]]
// CHECK-NEXT: moa.yield %[[R]]
func.func @largest_above(%a: tensor<4x5xf32>) -> tensor<4xf32> {
  %two = arith.constant 2.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %f = linalg.fill ins(%two : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %r = linalg.reduce { arith.maximumf } ins(%a : tensor<4x5xf32>)
    outs(%f : tensor<4xf32>) dimensions = [1]
  return %r : tensor<4xf32>
}

// Of several results those that nobody uses are dropped: here the place of the maximum.

// CHECK-LABEL: func.func @maximum_and_place
// CHECK-NOT: i64
// CHECK: moa.fold max
// CHECK-NOT: i64
// CHECK: return
func.func @maximum_and_place(%a: tensor<4x5xf32>) -> tensor<4xf32> {
  %zero = arith.constant 0 : i64
  %lowest = arith.constant 0xFF800000 : f32
  %e = tensor.empty() : tensor<4xf32>
  %k = tensor.empty() : tensor<4xi64>
  %f = linalg.fill ins(%lowest : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %g = linalg.fill ins(%zero : i64) outs(%k : tensor<4xi64>) -> tensor<4xi64>
  %r:2 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>,
                     affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%a : tensor<4x5xf32>) outs(%f, %g : tensor<4xf32>, tensor<4xi64>) {
  ^bb0(%x: f32, %out: f32, %place: i64):
    %j = linalg.index 1 : index
    %n = arith.index_cast %j : index to i64
    %m = arith.maximumf %x, %out : f32
    %c = arith.cmpf ogt, %x, %out : f32
    %p = arith.select %c, %n, %place : i64
    linalg.yield %m, %p : f32, i64
  } -> (tensor<4xf32>, tensor<4xi64>)
  return %r#0 : tensor<4xf32>
}

// Where the place is used, it is the first index of an element that is the maximum.

// CHECK-LABEL: func.func @place
// CHECK: %[[MAX:.*]] = moa.fold max
// CHECK: %[[FIRST:.*]] = moa.fold min
// CHECK: arith.cmpi eq, %{{.*}}, %[[MAX]]
// CHECK: arith.cmpi slt, %[[FIRST]]
func.func @place(%a: tensor<5xi32>, %most: tensor<i32>, %at: tensor<index>) -> tensor<index> {
  %r:2 = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>, affine_map<(i) -> ()>],
    iterator_types = ["reduction"]
  } ins(%a : tensor<5xi32>) outs(%most, %at : tensor<i32>, tensor<index>) {
  ^bb0(%x: i32, %out: i32, %place: index):
    %i = linalg.index 0 : index
    %m = arith.maxsi %x, %out : i32
    %c = arith.cmpi sgt, %x, %out : i32
    %p = arith.select %c, %i, %place : index
    linalg.yield %m, %p : i32, index
  } -> (tensor<i32>, tensor<index>)
  return %r#1 : tensor<index>
}

// A difference is a sum of negated elements; a choice by comparison is a maximum.

// CHECK-LABEL: func.func @other_combinations
// CHECK: moa.fold add
// CHECK: arith.negf
// CHECK: moa.fold min
func.func @other_combinations(%a: tensor<5xf32>, %b: tensor<f32>) -> (tensor<f32>, tensor<f32>) {
  %d = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>],
    iterator_types = ["reduction"]
  } ins(%a : tensor<5xf32>) outs(%b : tensor<f32>) {
  ^bb0(%x: f32, %out: f32):
    %z = arith.subf %out, %x : f32
    linalg.yield %z : f32
  } -> tensor<f32>
  %m = linalg.generic {
    indexing_maps = [affine_map<(i) -> (i)>, affine_map<(i) -> ()>],
    iterator_types = ["reduction"]
  } ins(%a : tensor<5xf32>) outs(%b : tensor<f32>) {
  ^bb0(%x: f32, %out: f32):
    %c = arith.cmpf olt, %x, %out : f32
    %z = arith.select %c, %x, %out : f32
    linalg.yield %z : f32
  } -> tensor<f32>
  return %d, %m : tensor<f32>, tensor<f32>
}

// Named operations have maps and a body like any other.

// CHECK-LABEL: func.func @products
// CHECK: moa.fold add
// CHECK: moa.fold add
// CHECK: moa.fold add
// CHECK: moa.fold add
// CHECK: return
func.func @products(%a: tensor<2x4x5xf32>, %b: tensor<2x5x3xf32>, %v: tensor<5xf32>,
                    %m: tensor<4x5xf32>, %p: tensor<2x4x3xf32>, %q: tensor<4xf32>,
                    %s: tensor<f32>) -> (tensor<2x4x3xf32>, tensor<4xf32>, tensor<f32>, tensor<2x4x3xf32>) {
  %x = linalg.batch_matmul ins(%a, %b : tensor<2x4x5xf32>, tensor<2x5x3xf32>)
    outs(%p : tensor<2x4x3xf32>) -> tensor<2x4x3xf32>
  %y = linalg.matvec ins(%m, %v : tensor<4x5xf32>, tensor<5xf32>)
    outs(%q : tensor<4xf32>) -> tensor<4xf32>
  %z = linalg.dot ins(%v, %v : tensor<5xf32>, tensor<5xf32>)
    outs(%s : tensor<f32>) -> tensor<f32>
  %c = linalg.contract
    indexing_maps = [affine_map<(b, i, j, k) -> (b, i, k)>, affine_map<(b, i, j, k) -> (b, k, j)>,
                     affine_map<(b, i, j, k) -> (b, i, j)>]
    ins(%a, %b : tensor<2x4x5xf32>, tensor<2x5x3xf32>) outs(%p : tensor<2x4x3xf32>) -> tensor<2x4x3xf32>
  return %x, %y, %z, %c : tensor<2x4x3xf32>, tensor<4xf32>, tensor<f32>, tensor<2x4x3xf32>
}

// CHECK-LABEL: func.func @elements_and_axes
// CHECK: math.exp
// CHECK: math.tanh
// CHECK: arith.maximumf
// CHECK: moa.at %{{.*}}[%[[J:.*]], %[[I:.*]]] : tensor<4x5xf32>
// CHECK: -> tensor<3x4x5xf32>
// CHECK: return
func.func @elements_and_axes(%a: tensor<4x5xf32>, %e: tensor<4x5xf32>, %t: tensor<5x4xf32>,
                             %w: tensor<3x4x5xf32>)
    -> (tensor<4x5xf32>, tensor<4x5xf32>, tensor<4x5xf32>, tensor<5x4xf32>, tensor<3x4x5xf32>) {
  %x = linalg.map { math.exp } ins(%a : tensor<4x5xf32>) outs(%e : tensor<4x5xf32>)
  %y = linalg.elementwise kind=#linalg.elementwise_kind<tanh>
    ins(%a : tensor<4x5xf32>) outs(%e : tensor<4x5xf32>) -> tensor<4x5xf32>
  %m = linalg.max ins(%a, %a : tensor<4x5xf32>, tensor<4x5xf32>) outs(%e : tensor<4x5xf32>) -> tensor<4x5xf32>
  %r = linalg.transpose ins(%a : tensor<4x5xf32>) outs(%t : tensor<5x4xf32>) permutation = [1, 0]
  %b = linalg.broadcast ins(%a : tensor<4x5xf32>) outs(%w : tensor<3x4x5xf32>) dimensions = [0]
  return %x, %y, %m, %r, %b : tensor<4x5xf32>, tensor<4x5xf32>, tensor<4x5xf32>, tensor<5x4xf32>, tensor<3x4x5xf32>
}

// Affine maps: a convolution reads at the sum of two dimensions.

// CHECK-LABEL: func.func @convolution
// CHECK: moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}]
// CHECK: %[[K:.*]] = arith.addi %{{.*}}, %[[P]] : index
// CHECK: moa.at %{{.*}}[%[[K]]] : tensor<8xf32>
func.func @convolution(%a: tensor<8xf32>, %f: tensor<3xf32>, %o: tensor<6xf32>) -> tensor<6xf32> {
  %r = linalg.conv_1d ins(%a, %f : tensor<8xf32>, tensor<3xf32>) outs(%o : tensor<6xf32>) -> tensor<6xf32>
  return %r : tensor<6xf32>
}

// CHECK-LABEL: func.func @softmax
// CHECK: moa.fold max
// CHECK: moa.fold add
// CHECK: arith.divf
func.func @softmax(%a: tensor<4x5xf32>) -> tensor<4x5xf32> {
  %e = tensor.empty() : tensor<4x5xf32>
  %r = linalg.softmax dimension(1) ins(%a : tensor<4x5xf32>) outs(%e : tensor<4x5xf32>) -> tensor<4x5xf32>
  return %r : tensor<4x5xf32>
}

// Extents that only a call tells: what the operation takes for granted is required.

// CHECK-LABEL: func.func @dynamic
// CHECK-SAME: (%[[A:[a-z0-9]+]]: tensor<?x?xf32>, %[[B:[a-z0-9]+]]: tensor<?x?xf32>
// CHECK-DAG: %[[K:.*]] = moa.extent %[[A]], 1
// CHECK-DAG: %[[L:.*]] = moa.extent %[[B]], 0
// CHECK: moa.require %[[L]] eq %[[K]], "linalg.matmul: operands must have one extent for dimension 2"
func.func @dynamic(%a: tensor<?x?xf32>, %b: tensor<?x?xf32>, %c: tensor<?x?xf32>) -> tensor<?x?xf32> {
  %r = linalg.matmul ins(%a, %b : tensor<?x?xf32>, tensor<?x?xf32>) outs(%c : tensor<?x?xf32>) -> tensor<?x?xf32>
  return %r : tensor<?x?xf32>
}
