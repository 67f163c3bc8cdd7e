// RUN: moa-opt %s -p moa-to-dnf,moa-share,moa-sink,moa-to-onf --split-input-file | filecheck %s

// Comprehensions become loops with start, stop and stride; elements flat addresses.

// Results are memory that the caller gives.
// CHECK-LABEL: func.func @results_are_arguments(
// CHECK-SAME:    %[[A:.*]]: memref<3x4xf64>, %[[E:.*]]: memref<3x4xf64> {moa.result}, %[[S:.*]]: memref<4xf64> {moa.result})
func.func @results_are_arguments(%a: tensor<3x4xf64>) -> (tensor<3x4xf64>, tensor<4xf64>) {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %s = moa.reduce add %a : tensor<3x4xf64> -> tensor<4xf64>
  func.return %e, %s : tensor<3x4xf64>, tensor<4xf64>
}
// CHECK-DAG:   %[[E_FLAT:.*]] = moa.rav row %[[E]]
// CHECK-DAG:   %[[S_FLAT:.*]] = moa.rav row %[[S]]
// CHECK:       moa.store %{{.*}}, %[[E_FLAT]][
// CHECK:       moa.store %{{.*}}, %[[S_FLAT]][
// CHECK:       func.return
// CHECK-NOT:   moa.buffer

// -----

// The element at <i j> is at i * m + j * 1.
// CHECK-LABEL: func.func @addresses(
// CHECK-SAME:    %[[A:.*]]: memref<?x?xf64>, %[[B:.*]]: memref<?x?xf64> {moa.result})
func.func @addresses(%a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  %b = moa.transpose %a : tensor<?x?xf64> -> tensor<?x?xf64>
  func.return %b : tensor<?x?xf64>
}
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[FROM:.*]] = moa.rav row %[[A]]
// CHECK-DAG:   %[[STRIDE:.*]] = moa.extent %[[B]], 1
// CHECK-DAG:   %[[TO:.*]] = moa.rav row %[[B]]
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       moa.loop [%[[I:.*]] = %[[ZERO]] to %[[M]] by 1]
// CHECK-NEXT:    moa.loop [%[[J:.*]] = %[[ZERO]] to %[[N]] by 1]
// CHECK-NEXT:      %[[X:.*]] = moa.load %[[FROM]][%[[ZERO]], %[[J]] * %[[M]], %[[I]] * %[[ONE]]]
// CHECK-NEXT:      moa.store %[[X]], %[[TO]][%[[ZERO]], %[[I]] * %[[STRIDE]], %[[J]] * %[[ONE]]]

// What is not known before the call is for the caller to ask: the results' extents.
// CHECK-LABEL: func.func @addresses.extents(
// CHECK-SAME:    %[[A:.*]]: memref<?x?xf64>) -> (index, index)
// CHECK-DAG:   %[[N:.*]] = moa.extent %[[A]], 0
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK:       func.return %[[M]], %[[N]] : index, index

// -----

// Constant indices are where the address starts.
// CHECK-LABEL: func.func @start(
// CHECK-SAME:    %[[A:.*]]: memref<3x4xf64>,
func.func @start(%a: tensor<3x4xf64>) -> tensor<4xf64> {
  %i = moa.constant dense<2> : tensor<1xindex>
  %b = moa.psi %i, %a : tensor<1xindex>, tensor<3x4xf64> -> tensor<4xf64>
  func.return %b : tensor<4xf64>
}
// CHECK-DAG:   %[[FROM:.*]] = moa.rav row %[[A]]
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[TWO:.*]] = arith.constant 2 : index
// CHECK:       %[[ROW:.*]] = arith.muli %[[TWO]], %[[M]] : index
// CHECK-NEXT:  %[[START:.*]] = arith.addi %{{.*}}, %[[ROW]] : index
// CHECK:       moa.loop [%[[J:.*]] = %{{.*}} to %[[M]] by 1]
// CHECK-NEXT:    moa.load %[[FROM]][%[[START]], %[[J]] * %{{.*}}]

// -----

// A fold of scalars stays a value.
// CHECK-LABEL: func.func @fold_of_scalars(
func.func @fold_of_scalars(%a: tensor<?xf64>) -> tensor<f64> {
  %s = moa.reduce add %a : tensor<?xf64> -> tensor<f64>
  func.return %s : tensor<f64>
}
// CHECK-NOT:   moa.loop
// CHECK:       %[[SUM:.*]] = moa.fold add [%[[K:.*]] = %{{.*}} to %{{.*}}] -> f64
// CHECK-NEXT:    moa.load %{{.*}}[%{{.*}}, %[[K]] * %{{.*}}]
// CHECK:       moa.store %[[SUM]], %{{.*}}[%{{.*}}] : memref<?xf64>

// -----

// A fold of arrays runs from the last index down, over accumulators in the result itself.
// CHECK-LABEL: func.func @fold_of_arrays(
// CHECK-SAME:    %[[A:.*]]: memref<3x4xf64>, %[[B:.*]]: memref<4x5xf64>, %[[C:.*]]: memref<3x5xf64> {moa.result})
func.func @fold_of_arrays(%a: tensor<3x4xf64>, %b: tensor<4x5xf64>) -> tensor<3x5xf64> {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %c = moa.inner max mul %e, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  func.return %c : tensor<3x5xf64>
}
// CHECK-DAG:   %[[K:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[M:.*]] = moa.extent %[[B]], 1
// CHECK-DAG:   %[[ROWS:.*]] = moa.rav row %[[C]]
// CHECK-DAG:   %[[ZERO:.*]] = arith.constant 0 : index
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK-NOT:   moa.buffer
// CHECK:       moa.loop [%[[I:.*]] = %[[ZERO]] to
// CHECK-DAG:     %[[LAST:.*]] = arith.subi %[[K]], %[[ONE]] : index
// CHECK-DAG:     %[[STOP:.*]] = arith.subi %[[ZERO]], %[[ONE]] : index
// CHECK-DAG:     %[[IDENTITY:.*]] = arith.constant 0xfff0000000000000 : f64
// CHECK:         moa.loop [%[[J:.*]] = %[[ZERO]] to %[[M]] by 1]
// CHECK-NEXT:      moa.store %[[IDENTITY]], %[[ROWS]][%[[ZERO]], %[[I]] * %{{.*}}, %[[J]] * %[[ONE]]]
// CHECK:         moa.loop [%[[P:.*]] = %[[LAST]] to %[[STOP]] by -1]
// CHECK:           math.exp
// CHECK-NEXT:      moa.loop [%[[J:.*]] = %[[ZERO]] to %[[M]] by 1]
// CHECK:             %[[TERM:.*]] = arith.mulf
// CHECK-NEXT:        %[[SO_FAR:.*]] = moa.load %[[ROWS]][%[[ZERO]], %[[I]] * %{{.*}}, %[[J]] * %[[ONE]]]
// CHECK-NEXT:        %[[LARGER:.*]] = arith.maximumf %[[TERM]], %[[SO_FAR]] : f64
// CHECK-NEXT:        moa.store %[[LARGER]], %[[ROWS]][%[[ZERO]], %[[I]] * %{{.*}}, %[[J]] * %[[ONE]]]

// -----

// Without identity element the last array is where it starts.
// CHECK-LABEL: func.func @fold_of_arrays_without_identity(
// CHECK-SAME:    %[[A:.*]]: memref<3x4xf64>, %[[B:.*]]: memref<4x5xf64>, %[[C:.*]]: memref<3x5xf64> {moa.result})
func.func @fold_of_arrays_without_identity(%a: tensor<3x4xf64>, %b: tensor<4x5xf64>) -> tensor<3x5xf64> {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %c = moa.inner sub mul %e, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  func.return %c : tensor<3x5xf64>
}
// CHECK-DAG:   %[[K:.*]] = moa.extent %[[A]], 1
// CHECK-DAG:   %[[ROWS:.*]] = moa.rav row %[[C]]
// CHECK-DAG:   %[[ONE:.*]] = arith.constant 1 : index
// CHECK:       %[[LAST:.*]] = arith.subi %[[K]], %[[ONE]] : index
// CHECK:       moa.load %{{.*}}[%{{.*}}, %{{.*}} * %{{.*}}, %[[LAST]] * %[[ONE]]]
// CHECK:       math.exp
// CHECK-NEXT:  moa.loop
// CHECK:         %[[FIRST:.*]] = arith.mulf
// CHECK-NEXT:    moa.store %[[FIRST]], %[[ROWS]][
// CHECK:       %[[NEXT:.*]] = arith.subi %[[LAST]], %[[ONE]] : index
// CHECK-NEXT:  moa.loop [%{{.*}} = %[[NEXT]] to %{{.*}} by -1]
// CHECK:         %[[TERM:.*]] = arith.mulf
// CHECK-NEXT:    %[[SO_FAR:.*]] = moa.load %[[ROWS]][
// CHECK-NEXT:    arith.subf %[[TERM]], %[[SO_FAR]] : f64

// -----

// What reads each element of the accumulators once, to write the same element of the
// result, finds them in the result.
// CHECK-LABEL: func.func @epilogue_in_place(
// CHECK-SAME:    memref<3x5xf64> {moa.result})
func.func @epilogue_in_place(%a: tensor<3x4xf64>, %b: tensor<4x5xf64>) -> tensor<3x5xf64> {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %c = moa.inner add mul %e, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  %d = moa.map neg %c : tensor<3x5xf64> -> tensor<3x5xf64>
  func.return %d : tensor<3x5xf64>
}
// CHECK-NOT:   moa.buffer
// CHECK:       moa.loop [%{{.*}} = %{{.*}} to %{{.*}} by -1]
// CHECK:       moa.loop [%[[J:.*]] = %{{.*}} to %{{.*}} by 1]
// CHECK:       moa.loop [%[[L:.*]] = %{{.*}} to %{{.*}} by 1]
// CHECK-NEXT:    %[[SUM:.*]] = moa.load %[[ROWS:.*]][%{{.*}}, %[[I:.*]] * %{{.*}}, %[[L]] * %{{.*}}]
// CHECK-NEXT:    %[[NEGATED:.*]] = arith.negf %[[SUM]] : f64
// CHECK-NEXT:    moa.store %[[NEGATED]], %[[ROWS]][%{{.*}}, %[[I]] * %{{.*}}, %[[L]] * %{{.*}}]

// -----

// A result of another element type cannot hold them: they get a row of their own.
// CHECK-LABEL: func.func @epilogue_of_another_type(
// CHECK-SAME:    %[[B:[^:]*]]: memref<4x5xf64>, %{{.*}}: memref<3x5xi32> {moa.result})
func.func @epilogue_of_another_type(%a: tensor<3x4xf64>, %b: tensor<4x5xf64>) -> tensor<3x5xi32> {
  %e = moa.map exp %a : tensor<3x4xf64> -> tensor<3x4xf64>
  %c = moa.inner add mul %e, %b : tensor<3x4xf64>, tensor<4x5xf64> -> tensor<3x5xf64>
  %d = moa.cast %c : tensor<3x5xf64> -> tensor<3x5xi32>
  func.return %d : tensor<3x5xi32>
}
// CHECK:       %[[M:.*]] = moa.extent %[[B]], 1
// CHECK:       moa.loop
// CHECK-NEXT:    %[[ROW:.*]] = moa.buffer accumulator [%[[M]]] : memref<?xf64>
// CHECK:         %[[SUM:.*]] = moa.load %[[ROW]][%{{.*}}, %{{.*}} * %{{.*}}]
// CHECK-NEXT:    arith.addf %{{.*}}, %[[SUM]] : f64
// CHECK:         arith.fptosi %{{.*}} : f64 to i32

// -----

// The elements of a constant lie in a global of the module.
// CHECK:       "memref.global"() <{sym_name = "[[TABLE:.*]]", type = memref<2x2xf64>, initial_value = dense<{{.*}}> : tensor<2x2xf64>, sym_visibility = "private", constant}>
// CHECK-LABEL: func.func @constants(
func.func @constants(%i: tensor<1xindex>) -> tensor<2xf64> {
  %c = moa.constant dense<[[1.0, 2.0], [3.0, 4.0]]> : tensor<2x2xf64>
  %b = moa.psi %i, %c : tensor<1xindex>, tensor<2x2xf64> -> tensor<2xf64>
  func.return %b : tensor<2xf64>
}
// CHECK:       %[[MEMORY:.*]] = memref.get_global @[[TABLE]] : memref<2x2xf64>
// CHECK:       %[[FLAT:.*]] = moa.rav row %[[MEMORY]]
// CHECK:       %[[I:.*]] = moa.in_bounds
// CHECK:       moa.load %[[FLAT]][%{{.*}}, %[[I]] * %{{.*}}, %{{.*}} * %{{.*}}]

// -----

// A function that checks something has a last argument to report it.
// CHECK-LABEL: func.func @checks(
// CHECK-SAME:    %{{.*}}: memref<?xf64> {moa.result}, %{{.*}}: memref<3xi64> {moa.status})
func.func @checks(%a: tensor<?xf64>, %b: tensor<?xf64>) -> tensor<?xf64> {
  %c = moa.pointwise add %a, %b : tensor<?xf64>, tensor<?xf64> -> tensor<?xf64>
  func.return %c : tensor<?xf64>
}
// CHECK:       moa.require

// -----

// Truth values take a byte in memory.
// CHECK-LABEL: func.func @truth_values(
// CHECK-SAME:    %{{.*}}: memref<3xi8>, %{{.*}}: memref<3xi8> {moa.result})
func.func @truth_values(%a: tensor<3xi1>) -> tensor<3xi1> {
  %b = moa.map not %a : tensor<3xi1> -> tensor<3xi1>
  func.return %b : tensor<3xi1>
}
// CHECK:       %[[BYTE:.*]] = moa.load %{{.*}} : memref<?xi8>
// CHECK-NEXT:  %[[TRUTH:.*]] = arith.trunci %[[BYTE]] : i8 to i1
// CHECK:       arith.extui %{{.*}} : i1 to i8

// -----

// Functions of scalars stay as they are.
// CHECK-LABEL: func.func @scalars(
// CHECK-SAME:    %{{.*}}: f64) -> f64
func.func @scalars(%x: f64) -> f64 {
  func.return %x : f64
}
