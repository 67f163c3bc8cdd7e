// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// What the algebra requires of extents is required at the entry, unless types settle it.

// CHECK-LABEL: func.func @dynamic_extents_are_guarded(
// CHECK-SAME:    %[[A:.*]]: tensor<2x?xf64>, %[[B:.*]]: tensor<?x5xf64>)
func.func @dynamic_extents_are_guarded(%a: tensor<2x?xf64>, %b: tensor<?x5xf64>) -> tensor<2x5xf64> {
  %c = moa.inner add mul %a, %b : tensor<2x?xf64>, tensor<?x5xf64> -> tensor<2x5xf64>
  func.return %c : tensor<2x5xf64>
}
// CHECK-DAG:   %[[GIVEN:.*]] = moa.extent %[[B]], 0
// CHECK-DAG:   %[[EXPECTED:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.require %[[GIVEN]] eq %[[EXPECTED]], "inner: the last extent of the left operand must equal the first of the right: expected {expected} (axis 1 of a), got {given} (axis 0 of b)"
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension

// CHECK-LABEL: func.func @static_extents_are_not_guarded(
func.func @static_extents_are_not_guarded(%a: tensor<2x3xf64>, %b: tensor<3x5xf64>) -> tensor<2x5xf64> {
  %c = moa.inner add mul %a, %b : tensor<2x3xf64>, tensor<3x5xf64> -> tensor<2x5xf64>
  func.return %c : tensor<2x5xf64>
}
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension

// An extent is not compared with itself, by whatever way it comes.
// CHECK-LABEL: func.func @equal_extents_are_not_guarded(
func.func @equal_extents_are_not_guarded(%a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %t = moa.transpose %a : tensor<?x?xf64> -> tensor<?x?xf64>
  %c = moa.inner add mul %a, %t : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension

// What is required already is not required again, nor what follows from it.
// CHECK-LABEL: func.func @guards_are_not_repeated(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>, %[[B:.*]]: tensor<?xf64>, %[[C:.*]]: tensor<?xf64>)
func.func @guards_are_not_repeated(%a: tensor<?xf64>, %b: tensor<?xf64>, %c: tensor<?xf64>) -> tensor<?xf64> {
  %ab = moa.pointwise add %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %bc = moa.pointwise mul %b, %c : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %ca = moa.pointwise sub %c, %a : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %d = moa.pointwise add %ab, %bc : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  %e = moa.pointwise add %d, %ca : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %e : tensor<?xf64>
}
// CHECK-DAG:   %[[NA:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[NB:.*]] = moa.extent %[[B]], 0
// CHECK:       moa.require %[[NB]] eq %[[NA]], "add: extents of axis 0 must be equal: expected {expected} (axis 0 of a), got {given} (axis 0 of b)"
// CHECK:       %[[NC:.*]] = moa.extent %[[C]], 0
// CHECK-NEXT:  moa.require %[[NC]] eq %[[NA]], "mul: extents of axis 0 must be equal: expected {expected} (axis 0 of b), got {given} (axis 0 of c)"
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension [%{{.*}} < %[[NA]]]

// Extents that a result type states are required, too.
// CHECK-LABEL: func.func @stated_extents_are_guarded(
// CHECK-SAME:    %[[A:.*]]: tensor<?xf64>)
func.func @stated_extents_are_guarded(%a: tensor<?xf64>) -> tensor<3xf64> {
  %b = moa.map exp %a : tensor<?xf64> -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[THREE:.*]] = moa.fixed_extent 3
// CHECK:       moa.require %[[N]] eq %[[THREE]], "moa.map: the result type states the extent of axis 0: expected {expected}, got {given} (axis 0 of a)"

// Also what is never used is part of the program's meaning.
// CHECK-LABEL: func.func @unused_operations_are_guarded(
func.func @unused_operations_are_guarded(%a: tensor<?xf64>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %unused = moa.pointwise add %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %a : tensor<?xf64>
}
// CHECK:       moa.require
// CHECK:       moa.comprehension
// CHECK-NOT:   arith.addf
