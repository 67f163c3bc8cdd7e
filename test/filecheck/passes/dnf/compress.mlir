// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ⌿ A) = (<p> ++ (1 ▽ i)) ψ A, p the position of the i0-th one in v

// Of a constant mask the positions are known.
// CHECK-LABEL: func.func @psi_of_compress(
// CHECK-SAME:    %[[A:.*]]: tensor<4x6xf64>)
func.func @psi_of_compress(%a: tensor<4x6xf64>) -> tensor<2x6xf64> {
  %v = moa.constant dense<[false, true, false, true]> : tensor<4xi1>
  %b = moa.compress %v, %a : tensor<4xi1>, tensor<4x6xf64> -> tensor<2x6xf64>
  func.return %b : tensor<2x6xf64>
}
// CHECK-DAG:   %[[POSITIONS:.*]] = moa.constant dense<[1, 3]> : tensor<2xindex>
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<2x6xf64>
// CHECK-NEXT:    %[[P:.*]] = moa.at %[[POSITIONS]][%[[I]]]
// CHECK-NEXT:    moa.at %[[A]][%[[P]], %[[J]]]

// The extent is how many there are, the position the one before which there are i0.
// CHECK-LABEL: func.func @psi_of_compress_by_data(
// CHECK-SAME:    %[[V:.*]]: tensor<4xi1>, %[[A:.*]]: tensor<4xf64>)
func.func @psi_of_compress_by_data(%v: tensor<4xi1>, %a: tensor<4xf64>) -> tensor<?xf64> {
  %b = moa.compress %v, %a : tensor<4xi1>, tensor<4xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}
// CHECK:       %[[COUNT:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:    moa.at %[[V]][%[[K]]]
// CHECK:       moa.comprehension [%[[I:.*]] < %[[COUNT]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[P:.*]] = moa.fold add [%[[Q:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:      %[[HOLDS:.*]] = moa.at %[[V]][%[[Q]]]
// CHECK-NEXT:      %[[BEFORE:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %[[Q]]] -> index
// CHECK:           %[[ENOUGH:.*]] = arith.cmpi eq, %[[BEFORE]], %[[I]] : index
// CHECK-NEXT:      %[[IS_IT:.*]] = arith.andi %[[HOLDS]], %[[ENOUGH]] : i1
// CHECK-NEXT:      arith.select %[[IS_IT]], %[[Q]], %{{.*}} : index
// CHECK:         moa.at %[[A]][%[[P]]]
