// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (t ρ̂ A) = γ'(γ(i; t); ρA) ψ A, by groups of axes of equal totals
// t ρ̂ (u ρ̂ A) = t ρ̂ A

// Axes that are merged from one are an address in it.
// CHECK-LABEL: func.func @psi_of_reshape_that_splits(
// CHECK-SAME:    %[[A:.*]]: tensor<12xf64>)
func.func @psi_of_reshape_that_splits(%a: tensor<12xf64>) -> tensor<3x4xf64> {
  %t = moa.constant dense<[3, 4]> : tensor<2xindex>
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<12xf64> -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK-DAG:   %[[THREE:.*]] = moa.fixed_extent 3
// CHECK-DAG:   %[[FOUR:.*]] = moa.fixed_extent 4
// CHECK:       moa.comprehension [%[[I:.*]] < %[[THREE]], %[[J:.*]] < %[[FOUR]]] -> tensor<3x4xf64>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[START]], %[[J]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]

// An axis that is split is divided; the one that stays is not part of it.
// CHECK-LABEL: func.func @psi_of_reshape_that_merges(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4x5xf64>)
func.func @psi_of_reshape_that_merges(%a: tensor<3x4x5xf64>) -> tensor<12x5xf64> {
  %t = moa.constant dense<[12, 5]> : tensor<2xindex>
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<3x4x5xf64> -> tensor<12x5xf64>
  func.return %b : tensor<12x5xf64>
}
// CHECK:       %[[FOUR:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<12x5xf64>
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.remui %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.divui %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[ROW]], %[[COLUMN]], %[[J]]]

// Groups: <2 3> from 6, and 20 from <4 5>.
// CHECK-LABEL: func.func @psi_of_reshape_that_splits_and_merges(
// CHECK-SAME:    %[[A:.*]]: tensor<6x4x5xf64>)
func.func @psi_of_reshape_that_splits_and_merges(%a: tensor<6x4x5xf64>) -> tensor<2x3x20xf64> {
  %t = moa.constant dense<[2, 3, 20]> : tensor<3xindex>
  %b = moa.reshape %t, %a : tensor<3xindex>, tensor<6x4x5xf64> -> tensor<2x3x20xf64>
  func.return %b : tensor<2x3x20xf64>
}
// CHECK-DAG:   %[[FIVE:.*]] = moa.extent %[[A]], 2
// CHECK-DAG:   %[[THREE:.*]] = moa.fixed_extent 3
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %[[THREE]], %[[K:.*]] < %{{.*}}] ->
// CHECK-DAG:     %[[COLUMN:.*]] = arith.remui %[[K]], %[[FIVE]] : index
// CHECK-DAG:     %[[ROW:.*]] = arith.divui %[[K]], %[[FIVE]] : index
// CHECK-DAG:     %[[START:.*]] = arith.muli %[[I]], %[[THREE]] : index
// CHECK-DAG:     %[[PLANE:.*]] = arith.addi %[[START]], %[[J]] : index
// CHECK:         moa.at %[[A]][%[[PLANE]], %[[ROW]], %[[COLUMN]]]

// No extents match: one group, whose address is divided.
// CHECK-LABEL: func.func @psi_of_reshape_that_regroups(
// CHECK-SAME:    %[[A:.*]]: tensor<4x6xf64>)
func.func @psi_of_reshape_that_regroups(%a: tensor<4x6xf64>) -> tensor<3x8xf64> {
  %t = moa.constant dense<[3, 8]> : tensor<2xindex>
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<3x8xf64>
  func.return %b : tensor<3x8xf64>
}
// CHECK-DAG:   %[[SIX:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[EIGHT:.*]] = moa.fixed_extent 8
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %[[EIGHT]]] -> tensor<3x8xf64>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[I]], %[[EIGHT]] : index
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[START]], %[[J]] : index
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.remui %[[ADDRESS]], %[[SIX]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.divui %[[ADDRESS]], %[[SIX]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[ROW]], %[[COLUMN]]]

// Axes of extent 1 come and go.
// CHECK-LABEL: func.func @psi_of_reshape_with_ones(
// CHECK-SAME:    %[[A:.*]]: tensor<4x1x6xf64>)
func.func @psi_of_reshape_with_ones(%a: tensor<4x1x6xf64>) -> tensor<1x4x6xf64> {
  %t = moa.constant dense<[1, 4, 6]> : tensor<3xindex>
  %b = moa.reshape %t, %a : tensor<3xindex>, tensor<4x1x6xf64> -> tensor<1x4x6xf64>
  func.return %b : tensor<1x4x6xf64>
}
// CHECK:       %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}, %[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] -> tensor<1x4x6xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[J]], %[[ZERO]], %[[K]]]

// Only the first and the last shape count.
// CHECK-LABEL: func.func @psi_of_reshape_of_reshape(
// CHECK-SAME:    %[[A:.*]]: tensor<4x6xf64>)
func.func @psi_of_reshape_of_reshape(%a: tensor<4x6xf64>) -> tensor<4x6xf64> {
  %u = moa.constant dense<[3, 8]> : tensor<2xindex>
  %t = moa.constant dense<[4, 6]> : tensor<2xindex>
  %b = moa.reshape %u, %a : tensor<2xindex>, tensor<4x6xf64> -> tensor<3x8xf64>
  %c = moa.reshape %t, %b : tensor<2xindex>, tensor<3x8xf64> -> tensor<4x6xf64>
  func.return %c : tensor<4x6xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<4x6xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// (ρA) ρ̂ (rav A) = A, for all extents.
// CHECK-LABEL: func.func @psi_of_reshape_of_ravel(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>)
func.func @psi_of_reshape_of_ravel(%a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %t = moa.shape %a : tensor<?x?xf64> -> tensor<2xindex>
  %r = moa.ravel %a : tensor<?x?xf64> -> tensor<?xf64>
  %c = moa.reshape %t, %r : tensor<2xindex>, tensor<?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK-NOT:   moa.require
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<?x?xf64>
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]

// A shape from data is read, and checked, at the entry: a product that is no integer of
// 64 bits counts as the largest.
// CHECK-LABEL: func.func @psi_of_reshape_by_data(
// CHECK-SAME:    %[[T:.*]]: tensor<2xindex>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_reshape_by_data(%t: tensor<2xindex>, %a: tensor<?xf64>) -> tensor<?x?xf64> {
  %c = moa.reshape %t, %a : tensor<2xindex>, tensor<?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK:       %[[ROWS:.*]] = moa.at %[[T]][
// CHECK:       moa.require %[[ROWS]] ge %{{.*}}, "reshape: an extent must not be negative: expected at least {expected}, got {given} (element 0 of t)"
// CHECK:       %[[COLUMNS:.*]] = moa.at %[[T]][
// CHECK:       moa.require %[[COLUMNS]] ge %{{.*}}, "reshape: an extent must not be negative: expected at least {expected}, got {given} (element 1 of t)"
// CHECK:       %[[TOTAL:.*]] = arith.muli %[[ROWS]], %[[COLUMNS]] : index
// CHECK:       %[[MOST:.*]] = arith.select %{{.*}}, %[[TOTAL]], %{{.*}} : index
// CHECK-NEXT:  %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-NEXT:  moa.require %[[MOST]] eq %[[N]], "reshape: the number of elements must stay: expected {expected} (axis 0 of a), got {given} (element 0 of t * element 1 of t)"
// CHECK:       moa.comprehension [%[[I:.*]] < %[[ROWS]], %[[J:.*]] < %[[COLUMNS]]] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[I]], %[[COLUMNS]] : index
// CHECK-NEXT:    %[[K:.*]] = arith.addi %[[START]], %[[J]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[K]]]
