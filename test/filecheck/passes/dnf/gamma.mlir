// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ γ(I; s) = γ(i ψ I; s)

// An index from data is read, and checked, at the entry.
// CHECK-LABEL: func.func @psi_of_gamma(
// CHECK-SAME:    %[[I:.*]]: tensor<2xindex>, %[[S:.*]]: tensor<2xindex>)
func.func @psi_of_gamma(%i: tensor<2xindex>, %s: tensor<2xindex>) -> tensor<index> {
  %k = moa.gamma row %i, %s : tensor<2xindex>, tensor<2xindex> -> tensor<index>
  func.return %k : tensor<index>
}
// CHECK:       %[[ROW:.*]] = moa.at %[[I]][
// CHECK:       moa.require %[[ROW]] ge %{{.*}}, "gamma: index entry 0 out of range of axis 0: expected at least {expected}, got {given} (element 0 of i)"
// CHECK:       %[[ROWS:.*]] = moa.at %[[S]][
// CHECK-NEXT:  moa.require %[[ROW]] lt %[[ROWS]], "gamma: index entry 0 out of range of axis 0: expected less than {expected} (element 0 of s), got {given} (element 0 of i)"
// CHECK:       %[[COLUMN:.*]] = moa.at %[[I]][
// CHECK:       moa.require %[[COLUMN]] ge %{{.*}}, "gamma: index entry 1 out of range of axis 1: expected at least {expected}, got {given} (element 1 of i)"
// CHECK:       %[[COLUMNS:.*]] = moa.at %[[S]][
// CHECK-NEXT:  moa.require %[[COLUMN]] lt %[[COLUMNS]], "gamma: index entry 1 out of range of axis 1: expected less than {expected} (element 1 of s), got {given} (element 1 of i)"
// CHECK:       moa.comprehension [] -> tensor<index>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[ROW]], %[[COLUMNS]] : index
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[START]], %[[COLUMN]] : index
// CHECK-NEXT:    moa.yield %[[ADDRESS]] : index

// Each index of an array is checked where it is used. By columns the first axis is the
// one of stride 1.
// CHECK-LABEL: func.func @psi_of_gamma_by_columns(
// CHECK-SAME:    %[[I:.*]]: tensor<?x2xindex>)
func.func @psi_of_gamma_by_columns(%i: tensor<?x2xindex>) -> tensor<?xindex> {
  %s = moa.constant dense<[3, 4]> : tensor<2xindex>
  %k = moa.gamma column %i, %s : tensor<?x2xindex>, tensor<2xindex> -> tensor<?xindex>
  func.return %k : tensor<?xindex>
}
// CHECK-DAG:   %[[THREE:.*]] = arith.constant 3 : index
// CHECK-DAG:   %[[FOUR:.*]] = arith.constant 4 : index
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<?xindex>
// CHECK:         %[[ROW:.*]] = moa.in_bounds %{{.*}} in %[[THREE]], "gamma: index entry 0 out of range of axis 0"
// CHECK:         %[[COLUMN:.*]] = moa.in_bounds %{{.*}} in %[[FOUR]], "gamma: index entry 1 out of range of axis 1"
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[COLUMN]], %[[THREE]] : index
// CHECK-NEXT:    %[[ADDRESS:.*]] = arith.addi %[[START]], %[[ROW]] : index
// CHECK-NEXT:    moa.yield %[[ADDRESS]] : index

// γ(ι s; s) is affine in the index, which is known to be in bounds.
// CHECK-LABEL: func.func @psi_of_gamma_of_iota(
func.func @psi_of_gamma_of_iota() -> tensor<3x4xindex> {
  %s = moa.constant dense<[3, 4]> : tensor<2xindex>
  %i = moa.iota %s : tensor<2xindex> -> tensor<3x4x2xindex>
  %k = moa.gamma row %i, %s : tensor<3x4x2xindex>, tensor<2xindex> -> tensor<3x4xindex>
  func.return %k : tensor<3x4xindex>
}
// CHECK:       %[[FOUR:.*]] = arith.constant 4 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<3x4xindex>
// CHECK-NEXT:    %[[START:.*]] = arith.muli %[[I]], %[[FOUR]] : index
// CHECK-NEXT:    arith.addi %[[START]], %[[J]] : index

// γ(<>; <>) = 0
// CHECK-LABEL: func.func @psi_of_gamma_of_nothing(
func.func @psi_of_gamma_of_nothing(%i: tensor<0xindex>) -> tensor<index> {
  %k = moa.gamma row %i, %i : tensor<0xindex>, tensor<0xindex> -> tensor<index>
  func.return %k : tensor<index>
}
// CHECK:       %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:         moa.yield %[[ZERO]] : index
