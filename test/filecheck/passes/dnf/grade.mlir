// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ gu v is the j before which k elements come in ascending order,
// <k> ψ gd v in descending order; of equal elements the earlier one comes first.

// CHECK-LABEL: func.func @psi_of_grade_up(
// CHECK-SAME:    %[[A:.*]]: tensor<4xi64>)
func.func @psi_of_grade_up(%a: tensor<4xi64>) -> tensor<4xindex> {
  %b = moa.grade_up %a : tensor<4xi64> -> tensor<4xindex>
  func.return %b : tensor<4xindex>
}
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] -> tensor<4xindex>
// CHECK-NEXT:    %[[POSITION:.*]] = moa.fold add [%[[J:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]][%[[J]]]
// CHECK-NEXT:      %[[PLACE:.*]] = moa.fold add [%[[L:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:        %[[Y:.*]] = moa.at %[[A]][%[[L]]]
// CHECK-NEXT:        %[[LESS:.*]] = arith.cmpi slt, %[[Y]], %[[X]] : i64
// CHECK-NEXT:        %[[EQUAL:.*]] = arith.cmpi eq, %[[Y]], %[[X]] : i64
// CHECK-NEXT:        %[[EARLIER:.*]] = arith.cmpi slt, %[[L]], %[[J]] : index
// CHECK-NEXT:        %[[TIE:.*]] = arith.andi %[[EQUAL]], %[[EARLIER]] : i1
// CHECK-NEXT:        arith.ori %[[LESS]], %[[TIE]] : i1
// CHECK:           %[[IS_IT:.*]] = arith.cmpi eq, %[[PLACE]], %[[K]] : index
// CHECK-NEXT:      arith.select %[[IS_IT]], %[[J]], %{{.*}} : index
// CHECK:         moa.yield %[[POSITION]] : index

// CHECK-LABEL: func.func @psi_of_grade_down(
func.func @psi_of_grade_down(%a: tensor<4xi64>) -> tensor<4xindex> {
  %b = moa.grade_down %a : tensor<4xi64> -> tensor<4xindex>
  func.return %b : tensor<4xindex>
}
// CHECK:       arith.cmpi sgt
// CHECK:       arith.cmpi eq
// CHECK:       arith.cmpi slt
