// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (i ++ <a>) ψ γ'(K; s) = γ'(i ψ K; s)[a]

// A divisor is at least 1, whatever the data: nothing is divided by zero.
// CHECK-LABEL: func.func @psi_of_gamma_inverse(
// CHECK-SAME:    %[[K:.*]]: tensor<index>, %[[S:.*]]: tensor<2xindex>)
func.func @psi_of_gamma_inverse(%k: tensor<index>, %s: tensor<2xindex>) -> tensor<2xindex> {
  %i = moa.gamma_inverse row %k, %s : tensor<index>, tensor<2xindex> -> tensor<2xindex>
  func.return %i : tensor<2xindex>
}
// CHECK:       %[[ROWS:.*]] = moa.at %[[S]][
// CHECK:       moa.require %[[ROWS]] ge %{{.*}}, "gamma_inverse: an extent must not be negative"
// CHECK:       %[[COLUMNS:.*]] = moa.at %[[S]][
// CHECK:       moa.require %[[COLUMNS]] ge %{{.*}}, "gamma_inverse: an extent must not be negative"
// CHECK:       %[[ADDRESS:.*]] = moa.at %[[K]][]
// CHECK:       moa.require %[[ADDRESS]] ge %{{.*}}, "gamma_inverse: the address is out of range"
// CHECK-NEXT:  %[[TOTAL:.*]] = arith.muli %[[ROWS]], %[[COLUMNS]] : index
// CHECK-NEXT:  moa.require %[[ADDRESS]] lt %[[TOTAL]], "gamma_inverse: the address is out of range"
// CHECK:       moa.comprehension [%[[A:.*]] < %{{.*}}] -> tensor<2xindex>
// CHECK:         %[[SIZE:.*]] = arith.select %{{.*}}, %{{.*}}, %[[COLUMNS]] : index
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.remui %[[ADDRESS]], %[[SIZE]] : index
// CHECK-NEXT:    %[[ROW:.*]] = arith.divui %[[ADDRESS]], %[[SIZE]] : index
// CHECK:         arith.select %{{.*}}, %[[ROW]], %[[COLUMN]] : index

// By columns the first extent divides. Each address of an array is checked by itself.
// CHECK-LABEL: func.func @psi_of_gamma_inverse_by_columns(
func.func @psi_of_gamma_inverse_by_columns(%k: tensor<?xindex>) -> tensor<?x2xindex> {
  %s = moa.constant dense<[3, 4]> : tensor<2xindex>
  %i = moa.gamma_inverse column %k, %s : tensor<?xindex>, tensor<2xindex> -> tensor<?x2xindex>
  func.return %i : tensor<?x2xindex>
}
// CHECK-DAG:   %[[THREE:.*]] = arith.constant 3 : index
// CHECK-DAG:   %[[TOTAL:.*]] = arith.constant 12 : index
// CHECK:       moa.comprehension
// CHECK:         %[[ADDRESS:.*]] = moa.in_bounds %{{.*}} in %[[TOTAL]], "gamma_inverse: the address is out of range"
// CHECK-NEXT:    %[[ROW:.*]] = arith.remui %[[ADDRESS]], %[[THREE]] : index
// CHECK-NEXT:    %[[COLUMN:.*]] = arith.divui %[[ADDRESS]], %[[THREE]] : index
// CHECK:         arith.select %{{.*}}, %[[ROW]], %[[COLUMN]] : index
