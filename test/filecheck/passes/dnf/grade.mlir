// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ gu v is the j before which k elements come in ascending order
// <k> ψ gd v is the j before which k elements come in descending order

// Of equal elements the earlier one comes first.
// CHECK-LABEL: func.func @psi_of_grade_up(
// CHECK-SAME:    %[[V:.*]]: tensor<?xi64>)
func.func @psi_of_grade_up(%v: tensor<?xi64>) -> tensor<?xindex> {
  %p = moa.grade_up %v : tensor<?xi64> -> tensor<?xindex>
  func.return %p : tensor<?xindex>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[V]], 0
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[K:.*]] < %[[N]]] -> tensor<?xindex>
// CHECK-NEXT:    moa.fold add [%[[J:.*]] = %[[ZERO]] to %[[N]]] -> index
// CHECK-NEXT:      %[[MINE:.*]] = moa.at %[[V]][%[[J]]]
// CHECK-NEXT:      %[[PLACE:.*]] = moa.fold add [%[[L:.*]] = %[[ZERO]] to %[[N]]] -> index
// CHECK-NEXT:        %[[THEIRS:.*]] = moa.at %[[V]][%[[L]]]
// CHECK-NEXT:        %[[LESS:.*]] = arith.cmpi slt, %[[THEIRS]], %[[MINE]] : i64
// CHECK-NEXT:        %[[EQUAL:.*]] = arith.cmpi eq, %[[THEIRS]], %[[MINE]] : i64
// CHECK-NEXT:        %[[EARLIER:.*]] = arith.cmpi slt, %[[L]], %[[J]] : index
// CHECK-NEXT:        %[[TIE:.*]] = arith.andi %[[EQUAL]], %[[EARLIER]] : i1
// CHECK-NEXT:        arith.ori %[[LESS]], %[[TIE]] : i1
// CHECK:           %[[HERE:.*]] = arith.cmpi eq, %[[PLACE]], %[[K]] : index
// CHECK-NEXT:      arith.select %[[HERE]], %[[J]], %[[ZERO]] : index

// CHECK-LABEL: func.func @psi_of_grade_down(
// CHECK-SAME:    %[[V:.*]]: tensor<?xi64>)
func.func @psi_of_grade_down(%v: tensor<?xi64>) -> tensor<?xindex> {
  %p = moa.grade_down %v : tensor<?xi64> -> tensor<?xindex>
  func.return %p : tensor<?xindex>
}
// CHECK:           %[[MINE:.*]] = moa.at %[[V]]
// CHECK:             %[[THEIRS:.*]] = moa.at %[[V]]
// CHECK-NEXT:        arith.cmpi sgt, %[[THEIRS]], %[[MINE]] : i64

// NaN has a place, too: above every number.
// CHECK-LABEL: func.func @psi_of_grade_up_of_floats(
// CHECK-SAME:    %[[V:.*]]: tensor<?xf64>)
func.func @psi_of_grade_up_of_floats(%v: tensor<?xf64>) -> tensor<?xindex> {
  %p = moa.grade_up %v : tensor<?xf64> -> tensor<?xindex>
  func.return %p : tensor<?xindex>
}
// CHECK:           %[[MINE:.*]] = moa.at %[[V]]
// CHECK:             %[[THEIRS:.*]] = moa.at %[[V]]
// CHECK-DAG:         arith.cmpf une, %[[THEIRS]], %[[THEIRS]] : f64
// CHECK-DAG:         arith.cmpf une, %[[MINE]], %[[MINE]] : f64
