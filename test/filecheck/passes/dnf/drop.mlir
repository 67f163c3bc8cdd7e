// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ▽ A) = i' ψ A with i'_j = i_j + max(v_j, 0)

// CHECK-LABEL: func.func @psi_of_drop(
// CHECK-SAME:    %[[A:.*]]: tensor<?x6x7xf64>)
func.func @psi_of_drop(%a: tensor<?x6x7xf64>) -> tensor<?x3x7xf64> {
  %v = moa.constant dense<[2, -3]> : tensor<2xindex>
  %b = moa.drop %v, %a : tensor<2xindex>, tensor<?x6x7xf64> -> tensor<?x3x7xf64>
  func.return %b : tensor<?x3x7xf64>
}
// CHECK:       %[[COUNT:.*]] = moa.fixed_extent 2
// CHECK:       %[[S0:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[COUNT]] le %[[S0]], "drop: the count for axis 0 must not exceed the extent"
// CHECK-NOT:   moa.require
// CHECK:       %[[TWO:.*]] = arith.constant 2 : index
// CHECK:       %[[REST:.*]] = arith.subi %[[S0]], %[[TWO]] : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[REST]], %[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] -> tensor<?x3x7xf64>
// CHECK-NEXT:    %[[MOVED:.*]] = arith.addi %[[I]], %[[TWO]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[MOVED]], %[[J]], %[[K]]]
