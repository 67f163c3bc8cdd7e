// RUN: moa-opt %s -p moa-raise-linalg | filecheck %s
// RUN: moa-opt %s -p 'moa-raise-linalg{strict=true},moa-to-dnf,moa-check-dnf' | filecheck %s --check-prefix=DNF

// Joined axes are taken apart, split ones put together; what joins and splits the same
// axes again leaves nothing of it in the normal form.

// CHECK-LABEL: func.func @collapse
// CHECK: moa.comprehension [%[[G:.*]] < %{{.*}}, %[[I:.*]] < %{{.*}}] -> tensor<6x4xf32>
// CHECK-NEXT: %[[B:.*]] = arith.divui %[[G]], %[[THREE:.*]] : index
// CHECK-NEXT: %[[H:.*]] = arith.remui %[[G]], %[[THREE]] : index
// CHECK-NEXT: moa.at %{{.*}}[%[[B]], %[[H]], %[[I]]]
// DNF-LABEL: func.func @collapse
func.func @collapse(%a: tensor<2x3x4xf32>) -> tensor<6x4xf32> {
  %r = tensor.collapse_shape %a [[0, 1], [2]] : tensor<2x3x4xf32> into tensor<6x4xf32>
  return %r : tensor<6x4xf32>
}

// CHECK-LABEL: func.func @expand
// CHECK: %[[T:.*]] = arith.muli %[[I:.*]], %{{.*}} : index
// CHECK-NEXT: %[[G:.*]] = arith.addi %[[T]], %[[J:.*]] : index
// CHECK-NEXT: moa.at %{{.*}}[%[[G]], %{{.*}}] : tensor<6x4xf32>
// DNF-LABEL: func.func @expand
func.func @expand(%a: tensor<6x4xf32>) -> tensor<2x3x4xf32> {
  %r = tensor.expand_shape %a [[0, 1], [2]] output_shape [2, 3, 4] : tensor<6x4xf32> into tensor<2x3x4xf32>
  return %r : tensor<2x3x4xf32>
}

// DNF-LABEL: func.func @there_and_back
// DNF-NOT: arith.
// DNF: moa.at %{{.*}}[%{{.*}}, %{{.*}}, %{{.*}}] : tensor<2x6x4xf32>
// DNF-NOT: arith.
// DNF: return
func.func @there_and_back(%a: tensor<2x6x4xf32>) -> tensor<2x6x4xf32> {
  %c = tensor.collapse_shape %a [[0, 1], [2]] : tensor<2x6x4xf32> into tensor<12x4xf32>
  %e = tensor.expand_shape %c [[0, 1, 2], [3]] output_shape [2, 3, 2, 4] : tensor<12x4xf32> into tensor<2x3x2x4xf32>
  %r = tensor.collapse_shape %e [[0], [1, 2], [3]] : tensor<2x3x2x4xf32> into tensor<2x6x4xf32>
  return %r : tensor<2x6x4xf32>
}

// CHECK-LABEL: func.func @slice
// CHECK: %[[T:.*]] = arith.muli %[[I:.*]], %{{.*}} : index
// CHECK-NEXT: %[[K:.*]] = arith.addi %[[T]], %{{.*}} : index
// CHECK-NEXT: moa.at %{{.*}}[%{{.*}}, %[[K]]] : tensor<4x9xf32>
// DNF-LABEL: func.func @slice
func.func @slice(%a: tensor<4x9xf32>) -> tensor<3xf32> {
  %r = tensor.extract_slice %a[2, 1] [1, 3] [1, 2] : tensor<4x9xf32> to tensor<3xf32>
  return %r : tensor<3xf32>
}

// An offset that is data is checked where it is used.

// CHECK-LABEL: func.func @slice_at
// CHECK: moa.in_bounds %{{.*}} in %{{.*}}, "psi: index entry 0 out of range of axis 0"
// DNF-LABEL: func.func @slice_at
func.func @slice_at(%a: tensor<9xf32>, %n: tensor<i64>) -> tensor<3xf32> {
  %x = tensor.extract %n[] : tensor<i64>
  %o = arith.index_cast %x : i64 to index
  %r = tensor.extract_slice %a[%o] [3] [1] : tensor<9xf32> to tensor<3xf32>
  return %r : tensor<3xf32>
}

// CHECK-LABEL: func.func @insert
// CHECK: scf.if %{{.*}} -> (f32)
// CHECK: moa.at %{{.*}} : tensor<2x5xf32>
// CHECK: } else {
// CHECK: moa.at %{{.*}} : tensor<4x5xf32>
// DNF-LABEL: func.func @insert
func.func @insert(%a: tensor<2x5xf32>, %b: tensor<4x5xf32>) -> tensor<4x5xf32> {
  %r = tensor.insert_slice %a into %b[1, 0] [2, 5] [1, 1] : tensor<2x5xf32> into tensor<4x5xf32>
  return %r : tensor<4x5xf32>
}

// CHECK-LABEL: func.func @pad
// CHECK: scf.if
// CHECK: moa.at
// CHECK: } else {
// CHECK-NEXT: arith.constant 7.000000e+00 : f32
// DNF-LABEL: func.func @pad
func.func @pad(%a: tensor<4xf32>) -> tensor<7xf32> {
  %x = arith.constant 7.0 : f32
  %r = tensor.pad %a low[1] high[2] {
  ^bb0(%i: index):
    tensor.yield %x : f32
  } : tensor<4xf32> to tensor<7xf32>
  return %r : tensor<7xf32>
}

// CHECK-LABEL: func.func @concat
// CHECK: arith.cmpi slt
// CHECK-NEXT: scf.if
// DNF-LABEL: func.func @concat
func.func @concat(%a: tensor<2x?xf32>, %b: tensor<2x3xf32>) -> tensor<2x?xf32> {
  %r = tensor.concat dim(1) %a, %b : (tensor<2x?xf32>, tensor<2x3xf32>) -> tensor<2x?xf32>
  return %r : tensor<2x?xf32>
}

// CHECK-LABEL: func.func @generate
// CHECK: moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<?x3xindex>
// CHECK-NEXT: arith.addi %[[I]], %[[J]] : index
// DNF-LABEL: func.func @generate
func.func @generate(%a: tensor<?xf32>) -> tensor<?x3xindex> {
  %zero = arith.constant 0 : index
  %n = tensor.dim %a, %zero : tensor<?xf32>
  %r = tensor.generate %n {
  ^bb0(%i: index, %j: index):
    %s = arith.addi %i, %j : index
    tensor.yield %s : index
  } : tensor<?x3xindex>
  return %r : tensor<?x3xindex>
}

// CHECK-LABEL: func.func @elements
// CHECK: arith.select
// DNF-LABEL: func.func @elements
func.func @elements(%a: tensor<3xf32>) -> (tensor<2xf32>, tensor<4xf32>) {
  %zero = arith.constant 0 : index
  %two = arith.constant 2 : index
  %x = tensor.extract %a[%zero] : tensor<3xf32>
  %y = tensor.extract %a[%two] : tensor<3xf32>
  %r = tensor.from_elements %x, %y : tensor<2xf32>
  %s = tensor.splat %y : tensor<4xf32>
  return %r, %s : tensor<2xf32>, tensor<4xf32>
}

// What a type states about an extent that is not known is required.

// CHECK-LABEL: func.func @cast
// CHECK: moa.require %{{.*}} eq %{{.*}}, "tensor.cast: the type states the extent of axis 0"
// DNF-LABEL: func.func @cast
func.func @cast(%a: tensor<?x4xf32>) -> tensor<3x4xf32> {
  %r = tensor.cast %a : tensor<?x4xf32> to tensor<3x4xf32>
  return %r : tensor<3x4xf32>
}

// Operations of arith and math on tensors, and constants.

// CHECK-LABEL: func.func @on_tensors
// CHECK: moa.constant dense<[1.000000e+00, 2.000000e+00]> : tensor<2xf32>
// CHECK: arith.mulf
// CHECK: math.exp
// DNF-LABEL: func.func @on_tensors
func.func @on_tensors(%a: tensor<2xf32>) -> tensor<2xf32> {
  %c = arith.constant dense<[1.0, 2.0]> : tensor<2xf32>
  %m = arith.mulf %a, %c : tensor<2xf32>
  %r = math.exp %m : tensor<2xf32>
  return %r : tensor<2xf32>
}
