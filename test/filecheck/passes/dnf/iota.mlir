// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// <k> ψ ιn = k
// (i ++ <a>) ψ ιv = i[a]

// CHECK-LABEL: func.func @psi_of_iota(
func.func @psi_of_iota() -> tensor<5xindex> {
  %n = moa.constant dense<5> : tensor<index>
  %k = moa.iota %n : tensor<index> -> tensor<5xindex>
  func.return %k : tensor<5xindex>
}
// CHECK-NEXT:  %[[N:.*]] = moa.fixed_extent 5
// CHECK-NEXT:  moa.comprehension [%[[K:.*]] < %[[N]]] -> tensor<5xindex>
// CHECK-NEXT:    moa.yield %[[K]] : index

// The entry of an index of two axes is one of the two.
// CHECK-LABEL: func.func @psi_of_iota_of_a_vector(
func.func @psi_of_iota_of_a_vector() -> tensor<2x3x2xindex> {
  %v = moa.constant dense<[2, 3]> : tensor<2xindex>
  %k = moa.iota %v : tensor<2xindex> -> tensor<2x3x2xindex>
  func.return %k : tensor<2x3x2xindex>
}
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}, %[[A:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[FIRST:.*]] = arith.cmpi eq, %[[A]], %[[ZERO]] : index
// CHECK-NEXT:    %[[X:.*]] = arith.select %[[FIRST]], %[[I]], %[[J]] : index
// CHECK-NEXT:    moa.yield %[[X]] : index

// With a constant <a> it is chosen here; what is in bounds then is not checked.
// CHECK-LABEL: func.func @psi_of_iota_at_a_known_entry(
func.func @psi_of_iota_at_a_known_entry(%a: tensor<2x3xf64>) -> tensor<2x3xf64> {
  %v = moa.shape %a : tensor<2x3xf64> -> tensor<2xindex>
  %k = moa.iota %v : tensor<2xindex> -> tensor<2x3x2xindex>
  %b = moa.psi %k, %a : tensor<2x3x2xindex>, tensor<2x3xf64> -> tensor<2x3xf64>
  func.return %b : tensor<2x3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %a[%[[I]], %[[J]]]

// An extent that is an element of an array is read, and checked, at the entry.
// CHECK-LABEL: func.func @psi_of_iota_of_data(
// CHECK-SAME:    %[[N:.*]]: tensor<index>)
func.func @psi_of_iota_of_data(%n: tensor<index>) -> tensor<?xindex> {
  %k = moa.iota %n : tensor<index> -> tensor<?xindex>
  func.return %k : tensor<?xindex>
}
// CHECK-NEXT:  %[[EXTENT:.*]] = moa.at %[[N]][] : tensor<index>
// CHECK-NEXT:  %[[ZERO:.*]] = moa.fixed_extent 0
// CHECK-NEXT:  moa.require %[[EXTENT]] ge %[[ZERO]], "iota: an extent must not be negative: expected at least {expected}, got {given} (the value of n)"
// CHECK-NEXT:  moa.comprehension [%[[K:.*]] < %[[EXTENT]]] -> tensor<?xindex>
// CHECK-NEXT:    moa.yield %[[K]] : index
