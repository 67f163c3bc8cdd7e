// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink | filecheck %s

// Output axes move inside what does not depend on them; each fold still combines the
// same values in the same order.

// (A +•× B) +•× C: the axis of C moves inside the outer fold, which then folds rows, so
// that an element of A +•× B is computed once for a row of C, not for each of its elements.
// CHECK-LABEL: func.func @product_of_three_matrices(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>, %[[B:.*]]: tensor<?x?xf64>, %[[C:.*]]: tensor<?x?xf64>)
func.func @product_of_three_matrices(%a: tensor<?x?xf64>, %b: tensor<?x?xf64>, %c: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %ab = moa.inner add mul %a, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %abc = moa.inner add mul %ab, %c : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %abc : tensor<?x?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[C]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]]] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[ROW:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:      %[[AB:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:        moa.at %[[A]][%[[I]], %[[K]]]
// CHECK-NEXT:        moa.at %[[B]][%[[K]], %[[P]]]
// CHECK:           %[[TERMS:.*]] = moa.comprehension [%[[J:.*]] < %[[M]]] -> tensor<?xf64>
// CHECK-NEXT:        %[[X:.*]] = moa.at %[[C]][%[[P]], %[[J]]]
// CHECK-NEXT:        arith.mulf %[[AB]], %[[X]] : f64
// CHECK:           moa.yield %[[TERMS]] : tensor<?xf64>
// CHECK:         moa.yield %[[ROW]] : tensor<?xf64>

// A +•× (B +•× C): now the axis of A is the one to sink. The loops are nested the other
// way round, and the order says so.
// CHECK-LABEL: func.func @product_of_three_matrices_from_the_right(
// CHECK-SAME:    %[[A:.*]]: tensor<?x?xf64>, %[[B:.*]]: tensor<?x?xf64>, %[[C:.*]]: tensor<?x?xf64>)
func.func @product_of_three_matrices_from_the_right(%a: tensor<?x?xf64>, %b: tensor<?x?xf64>, %c: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %bc = moa.inner add mul %b, %c : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %abc = moa.inner add mul %a, %bc : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %abc : tensor<?x?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[C]], 1
// CHECK:       moa.comprehension [%[[J:.*]] < %[[M]]] order [1, 0] -> tensor<?x?xf64>
// CHECK-NEXT:    moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:      %[[BC:.*]] = moa.fold add
// CHECK:           moa.comprehension [%[[I:.*]] < %[[N]]] -> tensor<?xf64>
// CHECK-NEXT:        %[[X:.*]] = moa.at %[[A]][%[[I]], %[[P]]]
// CHECK-NEXT:        arith.mulf %[[X]], %[[BC]] : f64

// In a plain product no fold's body holds anything costly: nothing is to be gained.
// CHECK-LABEL: func.func @product_of_two_matrices(
func.func @product_of_two_matrices(%a: tensor<?x?xf64>, %b: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %c = moa.inner add mul %a, %b : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %c : tensor<?x?xf64>
}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}, %{{.*}} < %{{.*}}] -> tensor<?x?xf64>
// CHECK-NEXT:    moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> f64

func.func private @row_sum(%row: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce add %row : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}

// (E +•× V) ÷Ω<1 0> (+ red Ω<1> E), E = exp W: the weights' sum is computed once for a
// row, and what follows the sunk fold reads its elements.
// CHECK-LABEL: func.func @weighted_mean(
// CHECK-SAME:    %[[W:.*]]: tensor<?x?xf64>, %[[V:.*]]: tensor<?x?xf64>)
func.func @weighted_mean(%w: tensor<?x?xf64>, %v: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %e = moa.map exp %w : tensor<?x?xf64> -> tensor<?x?xf64>
  %n = moa.inner add mul %e, %v : tensor<?x?xf64>, tensor<?x?xf64> -> tensor<?x?xf64>
  %d = moa.omega @row_sum <1> (%e) : (tensor<?x?xf64>) -> tensor<?xf64>
  %o = moa.omega div <1, 0> (%n, %d) : (tensor<?x?xf64>, tensor<?xf64>) -> tensor<?x?xf64>
  func.return %o : tensor<?x?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[W]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[V]], 1
// CHECK:       moa.comprehension [%[[I:.*]] < %[[N]]] -> tensor<?x?xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> f64
// CHECK:         %[[TOTAL:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %{{.*}}] -> tensor<?xf64>
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[W]][%[[I]], %[[P]]]
// CHECK-NEXT:      %[[E:.*]] = math.exp %[[X]] : f64
// CHECK-NEXT:      moa.comprehension [%[[J:.*]] < %[[M]]] -> tensor<?xf64>
// CHECK-NEXT:        %[[Y:.*]] = moa.at %[[V]][%[[P]], %[[J]]]
// CHECK-NEXT:        arith.mulf %[[E]], %[[Y]] : f64
// CHECK:         %[[MEAN:.*]] = moa.comprehension [%[[L:.*]] < %[[M]]] -> tensor<?xf64>
// CHECK-NEXT:      %[[Z:.*]] = moa.at %[[TOTAL]][%[[L]]]
// CHECK-NEXT:      arith.divf %[[Z]], %[[SUM]] : f64
// CHECK:         moa.yield %[[MEAN]] : tensor<?xf64>

// A ÷Ω<1 1> (+ red A): the sum of a column does not depend on the row, so the columns
// come first, and the order puts them second in the result.
// CHECK-LABEL: func.func @normalised_columns(
// CHECK-SAME:    %[[A:.*]]: tensor<40x30xf64>)
func.func @normalised_columns(%a: tensor<40x30xf64>) -> tensor<40x30xf64> {
  %s = moa.reduce add %a : tensor<40x30xf64> -> tensor<30xf64>
  %b = moa.omega div <1, 1> (%a, %s) : (tensor<40x30xf64>, tensor<30xf64>) -> tensor<40x30xf64>
  func.return %b : tensor<40x30xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       moa.comprehension [%[[J:.*]] < %[[M]]] order [1, 0] -> tensor<40x30xf64>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%[[P:.*]] = %{{.*}} to %[[N]]] -> f64
// CHECK-NEXT:      moa.at %[[A]][%[[P]], %[[J]]]
// CHECK:         %[[COLUMN:.*]] = moa.comprehension [%[[I:.*]] < %[[N]]] -> tensor<40xf64>
// CHECK-NEXT:      %[[X:.*]] = moa.at %[[A]][%[[I]], %[[J]]]
// CHECK-NEXT:      arith.divf %[[X]], %[[SUM]] : f64
// CHECK:         moa.yield %[[COLUMN]] : tensor<40xf64>

// A cycle of three axes tells the order from its inverse: loop axis 0 is result axis 2.
// CHECK-LABEL: func.func @normalised_by_the_last_axis(
// CHECK-SAME:    %[[A:.*]]: tensor<20x30x40xf64>, %[[B:.*]]: tensor<40x50xf64>)
func.func @normalised_by_the_last_axis(%a: tensor<20x30x40xf64>, %b: tensor<40x50xf64>) -> tensor<20x30x40xf64> {
  %s = moa.omega @row_sum <1> (%b) : (tensor<40x50xf64>) -> tensor<40xf64>
  %c = moa.omega div <1, 1> (%a, %s) : (tensor<20x30x40xf64>, tensor<40xf64>) -> tensor<20x30x40xf64>
  func.return %c : tensor<20x30x40xf64>
}
// CHECK:       moa.comprehension [%[[K:.*]] < %{{.*}}] order [2, 0, 1] -> tensor<20x30x40xf64>
// CHECK-NEXT:    moa.fold add
// CHECK-NEXT:      moa.at %[[B]][%[[K]], %{{.*}}]
// CHECK:         moa.comprehension [%[[I:.*]] < %{{.*}}, %[[J:.*]] < %{{.*}}] -> tensor<20x30xf64>
// CHECK-NEXT:      moa.at %[[A]][%[[I]], %[[J]], %[[K]]]

// A value that costs nothing may be evaluated again: the axes stay together.
// CHECK-LABEL: func.func @cheap_values_stay(
func.func @cheap_values_stay(%a: tensor<40x30xf64>, %v: tensor<40xf64>) -> tensor<40x30xf64> {
  %d = moa.pointwise add %v, %v : tensor<40xf64>, tensor<40xf64> -> tensor<40xf64>
  %b = moa.omega add <1, 0> (%a, %d) : (tensor<40x30xf64>, tensor<40xf64>) -> tensor<40x30xf64>
  func.return %b : tensor<40x30xf64>
}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}, %{{.*}} < %{{.*}}] -> tensor<40x30xf64>

// Accumulators over all of a result could only lie in the result, and not where they are
// of another type: then nothing is sunk.
// CHECK-LABEL: func.func @accumulators_without_a_place(
func.func @accumulators_without_a_place(%w: tensor<?xf64>, %v: tensor<?x?xf64>) -> tensor<?xi32> {
  %e = moa.map exp %w : tensor<?xf64> -> tensor<?xf64>
  %s = moa.inner add mul %e, %v : tensor<?xf64>, tensor<?x?xf64> -> tensor<?xf64>
  %t = moa.cast %s : tensor<?xf64> -> tensor<?xi32>
  func.return %t : tensor<?xi32>
}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<?xi32>
// CHECK-NEXT:    %[[SUM:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> f64
// CHECK:         arith.fptosi %[[SUM]] : f64 to i32

// Nor are two axes at a time: scratch memory is for a row.
// CHECK-LABEL: func.func @planes_of_accumulators_without_a_place(
func.func @planes_of_accumulators_without_a_place(%w: tensor<?x?xf64>, %v: tensor<?x?x?xf64>) -> tensor<?x?x?xi32> {
  %e = moa.map exp %w : tensor<?x?xf64> -> tensor<?x?xf64>
  %s = moa.inner add mul %e, %v : tensor<?x?xf64>, tensor<?x?x?xf64> -> tensor<?x?x?xf64>
  %t = moa.cast %s : tensor<?x?x?xf64> -> tensor<?x?x?xi32>
  func.return %t : tensor<?x?x?xi32>
}
// CHECK-NOT:   moa.fold {{.*}} -> tensor
// CHECK:       %[[SUM:.*]] = moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> f64
// CHECK:       arith.fptosi %[[SUM]] : f64 to i32

// In the result itself two axes may accumulate.
// CHECK-LABEL: func.func @planes_of_accumulators_in_the_result(
func.func @planes_of_accumulators_in_the_result(%w: tensor<?x?xf64>, %v: tensor<?x?x?xf64>) -> tensor<?x?x?xf64> {
  %e = moa.map exp %w : tensor<?x?xf64> -> tensor<?x?xf64>
  %s = moa.inner add mul %e, %v : tensor<?x?xf64>, tensor<?x?x?xf64> -> tensor<?x?x?xf64>
  func.return %s : tensor<?x?x?xf64>
}
// CHECK:       moa.comprehension [%{{.*}} < %{{.*}}] -> tensor<?x?x?xf64>
// CHECK-NEXT:    moa.fold add [%{{.*}} = %{{.*}} to %{{.*}}] -> tensor<?x?xf64>
// CHECK:           math.exp
// CHECK-NEXT:      moa.comprehension [%{{.*}} < %{{.*}}, %{{.*}} < %{{.*}}] -> tensor<?x?xf64>
