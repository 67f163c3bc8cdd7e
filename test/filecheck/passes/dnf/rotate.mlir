// RUN: moa-opt %s -p moa-to-dnf,moa-share | filecheck %s

// i ψ (kθA) = (<(i0 + k) mod s0> ++ (1 ▽ i)) ψ A

// The count is reduced once; an element takes a comparison, not a division. The divisor is
// at least 1, also for an empty axis.
// CHECK-LABEL: func.func @psi_of_rotate(
// CHECK-SAME:    %[[K:.*]]: tensor<index>, %[[A:.*]]: tensor<?x3xf64>)
func.func @psi_of_rotate(%k: tensor<index>, %a: tensor<?x3xf64>) -> tensor<?x3xf64> {
  %b = moa.rotate %k, %a : tensor<index>, tensor<?x3xf64> -> tensor<?x3xf64>
  func.return %b : tensor<?x3xf64>
}
// CHECK:       %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       %[[EMPTY:.*]] = arith.cmpi slt, %[[N]], %[[ONE:.*]] : index
// CHECK:       %[[SIZE:.*]] = arith.select %[[EMPTY]], %[[ONE]], %[[N]] : index
// CHECK:       arith.remui %{{.*}}, %[[SIZE]] : index
// CHECK:       %[[BACK:.*]] = arith.remui %{{.*}}, %[[SIZE]] : index
// CHECK:       %[[COMPLEMENT:.*]] = arith.subi %[[N]], %[[BACK]] : index
// CHECK:       %[[SHIFT:.*]] = arith.select %{{.*}}, %[[COMPLEMENT]], %{{.*}} : index
// CHECK:       %[[WRAP:.*]] = arith.subi %[[N]], %[[SHIFT]] : index
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]], %[[J:.*]] < %{{.*}}] -> tensor<?x3xf64>
// CHECK-DAG:     %[[AHEAD:.*]] = arith.addi %[[I]], %[[SHIFT]] : index
// CHECK-DAG:     %[[AROUND:.*]] = arith.subi %[[I]], %[[WRAP]] : index
// CHECK-DAG:     %[[INSIDE:.*]] = arith.cmpi slt, %[[I]], %[[WRAP]] : index
// CHECK:         %[[MOVED:.*]] = arith.select %[[INSIDE]], %[[AHEAD]], %[[AROUND]] : index
// CHECK-NEXT:    moa.at %[[A]][%[[MOVED]], %[[J]]]
