// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// i ψ (v ⌿ A) = (<p> ++ (1 ▽ i)) ψ A, p the position of the i0-th one in v

// The ones of a constant mask are positions that are known.
// CHECK-LABEL: func.func @psi_of_compress(
// CHECK-SAME:    %[[A:.*]]: tensor<4x5xf64>)
func.func @psi_of_compress(%a: tensor<4x5xf64>) -> tensor<2x5xf64> {
  %v = moa.constant dense<[true, false, false, true]> : tensor<4xi1>
  %r = moa.compress %v, %a : tensor<4xi1>, tensor<4x5xf64> -> tensor<2x5xf64>
  func.return %r : tensor<2x5xf64>
}
// CHECK-DAG:   %[[TWO:.*]] = moa.fixed_extent 2
// CHECK-DAG:   %[[ONES:.*]] = moa.constant dense<[0, 3]> : tensor<2xindex>
// CHECK:       moa.comprehension [%[[I:.*]] < %[[TWO]], %[[J:.*]] < %{{.*}}] -> tensor<2x5xf64>
// CHECK-NEXT:    %[[P:.*]] = moa.at %[[ONES]][%[[I]]] : tensor<2xindex>
// CHECK-NEXT:    moa.at %[[A]][%[[P]], %[[J]]]

// Of data they are searched: the one with as many ones before it as the index says.
// CHECK-LABEL: func.func @psi_of_compress_by_data(
// CHECK-SAME:    %[[V:.*]]: tensor<?xi1>, %[[A:.*]]: tensor<?xf64>)
func.func @psi_of_compress_by_data(%v: tensor<?xi1>, %a: tensor<?xf64>) -> tensor<?xf64> {
  %r = moa.compress %v, %a : tensor<?xi1>, tensor<?xf64> -> tensor<?xf64>
  func.return %r : tensor<?xf64>
}
// CHECK-DAG:   %[[LENGTH:.*]] = moa.extent %[[V]], 0
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK:       moa.require %[[LENGTH]] eq %[[N]], "compress: the mask must be as long as axis 0: expected {expected} (axis 0 of a), got {given} (axis 0 of v)"
// CHECK:       %[[COUNT:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:    moa.at %[[V]][%[[K]]]
// CHECK:       moa.comprehension [%[[I:.*]] < %[[COUNT]]] -> tensor<?xf64>
// CHECK-NEXT:    %[[POSITION:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> index
// CHECK-NEXT:      %[[HOLDS:.*]] = moa.at %[[V]][%[[P]]]
// CHECK-NEXT:      %[[BEFORE:.*]] = moa.fold add [%[[Q:.*]] = %{{.*}} to %[[P]]] -> index
// CHECK-NEXT:        moa.at %[[V]][%[[Q]]]
// CHECK:           %[[ENOUGH:.*]] = arith.cmpi eq, %[[BEFORE]], %[[I]] : index
// CHECK-NEXT:      %[[BOTH:.*]] = arith.andi %[[HOLDS]], %[[ENOUGH]] : i1
// CHECK-NEXT:      arith.select %[[BOTH]], %[[P]], %{{.*}} : index
// CHECK:         moa.at %[[A]][%[[POSITION]]]
