// RUN: moa-opt %s -p moa-to-dnf | filecheck %s

// (i ++ c) ψ (f Ω<r> A) = c ψ (f (i ψ A))
// (i ++ j ++ k ++ c) ψ (A f Ω<a b> B) = c ψ (((i ++ k) ψ A) f ((j ++ k) ψ B))

// A cell function is inlined for the index of the frame, and disappears.
// CHECK-NOT:   func.func private
func.func private @row_maximum(%row: tensor<?xf64>) -> tensor<f64> {
  %m = moa.reduce max %row : tensor<?xf64> -> tensor<f64>
  func.return %m : tensor<f64>
}

// CHECK-LABEL: func.func @psi_of_omega(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_omega(%a: tensor<3x4xf64>) -> tensor<3xf64> {
  %m = moa.omega @row_maximum <1> (%a) : (tensor<3x4xf64>) -> tensor<3xf64>
  func.return %m : tensor<3xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}] -> tensor<3xf64>
// CHECK-NEXT:    moa.fold max [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[K]]]

// A -Ω<1 0> v: rows and scalars, over a frame that both have.
// CHECK-LABEL: func.func @psi_of_omega_of_rows_and_scalars(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>, %[[V:.*]]: tensor<3xf64>)
func.func @psi_of_omega_of_rows_and_scalars(%a: tensor<3x4xf64>, %v: tensor<3xf64>) -> tensor<3x4xf64> {
  %b = moa.omega sub <1, 0> (%a, %v) : (tensor<3x4xf64>, tensor<3xf64>) -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[V]][%[[I]]]
// CHECK-NEXT:    arith.subf %[[X]], %[[Y]] : f64

// v -Ω<0 1> A: likewise with the scalars on the left.
// CHECK-LABEL: func.func @psi_of_omega_of_scalars_and_rows(
// CHECK-SAME:    %[[V:.*]]: tensor<3xf64>, %[[A:.*]]: tensor<3x4xf64>)
func.func @psi_of_omega_of_scalars_and_rows(%v: tensor<3xf64>, %a: tensor<3x4xf64>) -> tensor<3x4xf64> {
  %b = moa.omega sub <0, 1> (%v, %a) : (tensor<3xf64>, tensor<3x4xf64>) -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    %[[X:.*]] = moa.at %[[V]][%[[I]]]
// CHECK-NEXT:    %[[Y:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:    arith.subf %[[X]], %[[Y]] : f64

// A -Ω<1 1> v: one vector for every row; the frame of v is empty.
// CHECK-LABEL: func.func @psi_of_omega_of_rows_and_a_vector(
// CHECK-SAME:    %[[A:.*]]: tensor<3x4xf64>, %[[V:.*]]: tensor<4xf64>)
func.func @psi_of_omega_of_rows_and_a_vector(%a: tensor<3x4xf64>, %v: tensor<4xf64>) -> tensor<3x4xf64> {
  %b = moa.omega sub <1, 1> (%a, %v) : (tensor<3x4xf64>, tensor<4xf64>) -> tensor<3x4xf64>
  func.return %b : tensor<3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:    moa.at %[[V]][%[[J]]]

// A scalar operation is applied pointwise to the cells, here planes.
// CHECK-LABEL: func.func @psi_of_omega_of_planes(
// CHECK-SAME:    %[[A:.*]]: tensor<2x3x4xf64>, %[[B:.*]]: tensor<3x4xf64>)
func.func @psi_of_omega_of_planes(%a: tensor<2x3x4xf64>, %b: tensor<3x4xf64>) -> tensor<2x3x4xf64> {
  %c = moa.omega sub <2, 2> (%a, %b) : (tensor<2x3x4xf64>, tensor<3x4xf64>) -> tensor<2x3x4xf64>
  func.return %c : tensor<2x3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[C0:.*]] < %{{.*}}, %[[C1:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[C0]], %[[C1]]]
// CHECK-NEXT:    moa.at %[[B]][%[[C0]], %[[C1]]]

// The frames agree at their last axes: the excess of the left one comes first.
// CHECK-LABEL: func.func @psi_of_omega_with_an_excess_frame_left(
// CHECK-SAME:    %[[A:.*]]: tensor<2x3x4xf64>, %[[V:.*]]: tensor<3xf64>)
func.func @psi_of_omega_with_an_excess_frame_left(%a: tensor<2x3x4xf64>, %v: tensor<3xf64>) -> tensor<2x3x4xf64> {
  %b = moa.omega sub <1, 0> (%a, %v) : (tensor<2x3x4xf64>, tensor<3xf64>) -> tensor<2x3x4xf64>
  func.return %b : tensor<2x3x4xf64>
}
// CHECK:       moa.comprehension [%[[I:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}, %[[C:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[A]][%[[I]], %[[K]], %[[C]]]
// CHECK-NEXT:    moa.at %[[V]][%[[K]]]

// Likewise that of the right one; the left one is indexed by the shared axis alone.
// CHECK-LABEL: func.func @psi_of_omega_with_an_excess_frame_right(
// CHECK-SAME:    %[[V:.*]]: tensor<3xf64>, %[[A:.*]]: tensor<2x3x4xf64>)
func.func @psi_of_omega_with_an_excess_frame_right(%v: tensor<3xf64>, %a: tensor<2x3x4xf64>) -> tensor<2x3x4xf64> {
  %b = moa.omega sub <0, 1> (%v, %a) : (tensor<3xf64>, tensor<2x3x4xf64>) -> tensor<2x3x4xf64>
  func.return %b : tensor<2x3x4xf64>
}
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}, %[[C:.*]] < %{{.*}}] ->
// CHECK-NEXT:    moa.at %[[V]][%[[K]]]
// CHECK-NEXT:    moa.at %[[A]][%[[J]], %[[K]], %[[C]]]

func.func private @dot(%x: tensor<?xf64>, %y: tensor<?xf64>) -> tensor<f64> {
  %s = moa.inner add mul %x, %y : tensor<?xf64>, tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}

// q (+•×)Ω<1 1> K: the product of a vector with every row; the frame of q is empty.
// CHECK-LABEL: func.func @psi_of_omega_of_a_vector_and_rows(
// CHECK-SAME:    %[[Q:.*]]: tensor<4xf64>, %[[K:.*]]: tensor<?x4xf64>)
func.func @psi_of_omega_of_a_vector_and_rows(%q: tensor<4xf64>, %k: tensor<?x4xf64>) -> tensor<?xf64> {
  %s = moa.omega @dot <1, 1> (%q, %k) : (tensor<4xf64>, tensor<?x4xf64>) -> tensor<?xf64>
  func.return %s : tensor<?xf64>
}
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:    moa.fold add [%[[C:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[Q]][%[[C]]]
// CHECK-NEXT:      moa.at %[[K]][%[[J]], %[[C]]]

// Cells with an excess frame on the right.
// CHECK-LABEL: func.func @psi_of_omega_of_cells_with_an_excess_frame_right(
// CHECK-SAME:    %[[A:.*]]: tensor<2x4xf64>, %[[B:.*]]: tensor<3x2x4xf64>)
func.func @psi_of_omega_of_cells_with_an_excess_frame_right(%a: tensor<2x4xf64>, %b: tensor<3x2x4xf64>) -> tensor<3x2xf64> {
  %s = moa.omega @dot <1, 1> (%a, %b) : (tensor<2x4xf64>, tensor<3x2x4xf64>) -> tensor<3x2xf64>
  func.return %s : tensor<3x2xf64>
}
// CHECK:       moa.comprehension [%[[J:.*]] < %{{.*}}, %[[K:.*]] < %{{.*}}] -> tensor<3x2xf64>
// CHECK-NEXT:    moa.fold add [%[[C:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[K]], %[[C]]]
// CHECK-NEXT:      moa.at %[[B]][%[[J]], %[[K]], %[[C]]]

// What the cell function requires of its cells is required of the arrays.
// CHECK-LABEL: func.func @psi_of_omega_of_dynamic_cells(
// CHECK-SAME:    %[[A:.*]]: tensor<3x?xf64>, %[[B:.*]]: tensor<3x?xf64>)
func.func @psi_of_omega_of_dynamic_cells(%a: tensor<3x?xf64>, %b: tensor<3x?xf64>) -> tensor<3xf64> {
  %s = moa.omega @dot <1, 1> (%a, %b) : (tensor<3x?xf64>, tensor<3x?xf64>) -> tensor<3xf64>
  func.return %s : tensor<3xf64>
}
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[B]], 1
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.require %[[M]] eq %[[N]], "inner: the last extent of the left operand must equal the first of the right: expected {expected} (axis 1 of a), got {given} (axis 1 of b)"
// CHECK:       moa.comprehension
// CHECK-NOT:   func.func private
