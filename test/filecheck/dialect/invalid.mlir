// RUN: MOA_DIAGNOSTICS

// Every array operation

func.func @element_type(%a: tensor<3xi8>) {
  // CHECK: unsupported element type: i8
  %b = moa.transpose %a : tensor<3xi8> -> tensor<3xi8>
  func.return
}

// -----

func.func @result_type(%a: tensor<3x4xf64>) {
  // CHECK: result type does not follow from the operands: expected tensor<4x3xf64>, got tensor<4x5xf64>
  %b = moa.transpose %a : tensor<3x4xf64> -> tensor<4x5xf64>
  func.return
}

// -----

func.func @result_rank(%a: tensor<3x4xf64>) {
  // CHECK: result type does not follow from the operands: expected tensor<4x3xf64>, got tensor<?xf64>
  %b = moa.transpose %a : tensor<3x4xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @result_element(%a: tensor<3xf64>) {
  // CHECK: result type does not follow from the operands: expected tensor<3xi1>, got tensor<3xf64>
  %b = moa.pointwise lt %a, %a : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

// Structure

func.func @iota_rank(%v: tensor<2x2xindex>) {
  // CHECK: iota expects a scalar or a vector of static length, got tensor<2x2xindex>
  %i = moa.iota %v : tensor<2x2xindex> -> tensor<?x?x2xindex>
  func.return
}

// -----

func.func @iota_length(%v: tensor<?xindex>) {
  // CHECK: iota expects a scalar or a vector of static length, got tensor<?xindex>
  %i = moa.iota %v : tensor<?xindex> -> tensor<?xindex>
  func.return
}

// -----

func.func @iota_integers(%v: tensor<f64>) {
  // CHECK: iota expects integers, got tensor<f64>
  %i = moa.iota %v : tensor<f64> -> tensor<?xindex>
  func.return
}

// -----

func.func @iota_negative() {
  %v = moa.constant dense<[2, -3]> : tensor<2xindex>
  // CHECK: iota: an extent must not be negative: expected at least 0, got -3
  %i = moa.iota %v : tensor<2xindex> -> tensor<2x?x2xindex>
  func.return
}

// -----

func.func @psi_integers(%i: tensor<1xf64>, %a: tensor<3xf64>) {
  // CHECK: psi expects integers, got tensor<1xf64>
  %x = moa.psi %i, %a : tensor<1xf64>, tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_scalar(%i: tensor<index>, %a: tensor<3xf64>) {
  // CHECK: psi expects a vector (or array of vectors) as its index, got the scalar tensor<index>
  %x = moa.psi %i, %a : tensor<index>, tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_length(%i: tensor<?xindex>, %a: tensor<3xf64>) {
  // CHECK: psi needs an index of static length, got tensor<?xindex>
  %x = moa.psi %i, %a : tensor<?xindex>, tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_too_long(%i: tensor<2xindex>, %a: tensor<3xf64>) {
  // CHECK: psi: the index is longer than the rank: expected at most 1 entries, got 2
  %x = moa.psi %i, %a : tensor<2xindex>, tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_at_extent(%a: tensor<3x4xf64>) {
  %i = moa.constant dense<[2, 4]> : tensor<2xindex>
  // CHECK: psi: index entry 1 out of range of axis 1: expected less than 4 (axis 1 of a), got 4
  %x = moa.psi %i, %a : tensor<2xindex>, tensor<3x4xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_negative(%a: tensor<?xf64>) {
  %i = moa.constant dense<-1> : tensor<1xindex>
  // CHECK: psi: index entry 0 out of range of axis 0: expected at least 0, got -1
  %x = moa.psi %i, %a : tensor<1xindex>, tensor<?xf64> -> tensor<f64>
  func.return
}

// -----

func.func @psi_of_empty(%i: tensor<5x1xindex>, %a: tensor<0xf64>) {
  // CHECK: psi: an index into axis 0 needs a non-empty axis: expected at least 1, got 0 (axis 0 of a)
  %x = moa.psi %i, %a : tensor<5x1xindex>, tensor<0xf64> -> tensor<5xf64>
  func.return
}

// -----

func.func @transpose_repeated(%a: tensor<3x4xf64>) {
  // CHECK: transpose expects a permutation of the axes 0 to 1, got [0, 0]
  %b = moa.transpose %a [0, 0] : tensor<3x4xf64> -> tensor<3x4xf64>
  func.return
}

// -----

func.func @transpose_length(%a: tensor<3x4xf64>) {
  // CHECK: transpose expects a permutation of the axes 0 to 1, got [0, 1, 2]
  %b = moa.transpose %a [0, 1, 2] : tensor<3x4xf64> -> tensor<3x4xf64>
  func.return
}

// -----

func.func @cell(%a: tensor<3xf64>, %i: index) {
  // CHECK: cell: the index is longer than the rank: expected at most 1 entries, got 2
  %b = moa.cell %a[%i, %i] : tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

// Selection and rearrangement

func.func @take_integers(%v: tensor<1xf64>, %a: tensor<3xf64>) {
  // CHECK: take expects integers, got tensor<1xf64>
  %b = moa.take %v, %a : tensor<1xf64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @take_rank(%v: tensor<1x1xindex>, %a: tensor<3xf64>) {
  // CHECK: take expects a scalar or a vector of static length, got tensor<1x1xindex>
  %b = moa.take %v, %a : tensor<1x1xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @take_length(%v: tensor<?xindex>, %a: tensor<3xf64>) {
  // CHECK: take expects a scalar or a vector of static length, got tensor<?xindex>
  %b = moa.take %v, %a : tensor<?xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @take_axes(%v: tensor<2xindex>, %a: tensor<3xf64>) {
  // CHECK: take: more counts than axes: expected at most 1, got 2
  %b = moa.take %v, %a : tensor<2xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @take_count(%a: tensor<3x4xf64>) {
  %v = moa.constant dense<[3, -5]> : tensor<2xindex>
  // CHECK: take: the count for axis 1 must not exceed the extent: expected at most 4 (axis 1 of a), got 5
  %b = moa.take %v, %a : tensor<2xindex>, tensor<3x4xf64> -> tensor<3x5xf64>
  func.return
}

// -----

func.func @drop_integers(%v: tensor<f64>, %a: tensor<3xf64>) {
  // CHECK: drop expects integers, got tensor<f64>
  %b = moa.drop %v, %a : tensor<f64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @drop_length(%v: tensor<?xindex>, %a: tensor<3xf64>) {
  // CHECK: drop expects a scalar or a vector of static length, got tensor<?xindex>
  %b = moa.drop %v, %a : tensor<?xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @drop_axes(%v: tensor<index>, %a: tensor<f64>) {
  // CHECK: drop: more counts than axes: expected at most 0, got 1
  %b = moa.drop %v, %a : tensor<index>, tensor<f64> -> tensor<f64>
  func.return
}

// -----

func.func @drop_count(%a: tensor<3x4xf64>) {
  %v = moa.constant dense<-4> : tensor<index>
  // CHECK: drop: the count for axis 0 must not exceed the extent: expected at most 3 (axis 0 of a), got 4
  %b = moa.drop %v, %a : tensor<index>, tensor<3x4xf64> -> tensor<?x4xf64>
  func.return
}

// -----

func.func @cat_ranks(%a: tensor<3x4xf64>, %b: tensor<4xf64>) {
  // CHECK: cat expects arrays of equal rank or a scalar, got tensor<3x4xf64> and tensor<4xf64>
  %c = moa.cat %a, %b : tensor<3x4xf64>, tensor<4xf64> -> tensor<4x4xf64>
  func.return
}

// -----

func.func @cat_extents(%a: tensor<3x4xf64>, %b: tensor<3x5xf64>) {
  // CHECK: cat: extents of axis 1 must be equal: expected 4 (axis 1 of a), got 5 (axis 1 of b)
  %c = moa.cat %a, %b : tensor<3x4xf64>, tensor<3x5xf64> -> tensor<6x4xf64>
  func.return
}

// -----

func.func @cat_elements(%a: tensor<3xf64>, %b: tensor<3xf32>) {
  // CHECK: cat: operands must have one element type, got f64, f32
  %c = moa.cat %a, %b : tensor<3xf64>, tensor<3xf32> -> tensor<6xf64>
  func.return
}

// -----

func.func @rotate_integers(%k: tensor<f64>, %a: tensor<3xf64>) {
  // CHECK: rotate expects integers, got tensor<f64>
  %b = moa.rotate %k, %a : tensor<f64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @rotate_count(%k: tensor<1xindex>, %a: tensor<3xf64>) {
  // CHECK: rotate expects a scalar, got tensor<1xindex>
  %b = moa.rotate %k, %a : tensor<1xindex>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @rotate_rank(%k: tensor<index>, %a: tensor<f64>) {
  // CHECK: rotate expects an array of rank 1 or more, got tensor<f64>
  %b = moa.rotate %k, %a : tensor<index>, tensor<f64> -> tensor<f64>
  func.return
}

// -----

func.func @reshape_integers(%t: tensor<1xf64>, %a: tensor<3xf64>) {
  // CHECK: reshape expects integers, got tensor<1xf64>
  %b = moa.reshape %t, %a : tensor<1xf64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @reshape_scalar(%t: tensor<index>, %a: tensor<3xf64>) {
  // CHECK: reshape expects a vector of static length as the shape, got tensor<index>
  %b = moa.reshape %t, %a : tensor<index>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @reshape_length(%t: tensor<?xindex>, %a: tensor<3xf64>) {
  // CHECK: reshape expects a vector of static length as the shape, got tensor<?xindex>
  %b = moa.reshape %t, %a : tensor<?xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @reshape_negative(%a: tensor<?xf64>) {
  %t = moa.constant dense<[-3, -4]> : tensor<2xindex>
  // CHECK: reshape: an extent must not be negative: expected at least 0, got -3
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<?xf64> -> tensor<?x?xf64>
  func.return
}

// -----

func.func @reshape_total(%a: tensor<3x4xf64>) {
  %t = moa.constant dense<[5, 2]> : tensor<2xindex>
  // CHECK: reshape: the number of elements must stay: expected 12 (axis 0 of a * axis 1 of a), got 10
  %b = moa.reshape %t, %a : tensor<2xindex>, tensor<3x4xf64> -> tensor<5x2xf64>
  func.return
}

// -----

func.func @compress_ranks(%v: tensor<i1>, %a: tensor<3xf64>) {
  // CHECK: compress expects a vector and an array of rank 1 or more, got tensor<i1> and tensor<3xf64>
  %b = moa.compress %v, %a : tensor<i1>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @compress_scalar(%v: tensor<1xi1>, %a: tensor<f64>) {
  // CHECK: compress expects a vector and an array of rank 1 or more, got tensor<1xi1> and tensor<f64>
  %b = moa.compress %v, %a : tensor<1xi1>, tensor<f64> -> tensor<?xf64>
  func.return
}

// -----

func.func @compress_mask(%v: tensor<3xi64>, %a: tensor<3xf64>) {
  // CHECK: compress expects i1 as its mask, got tensor<3xi64>
  %b = moa.compress %v, %a : tensor<3xi64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @compress_length(%v: tensor<4xi1>, %a: tensor<3xf64>) {
  // CHECK: compress: the mask must be as long as axis 0: expected 3 (axis 0 of a), got 4 (axis 0 of v)
  %b = moa.compress %v, %a : tensor<4xi1>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @expand_ranks(%v: tensor<1x3xi1>, %a: tensor<3xf64>) {
  // CHECK: expand expects a vector and an array of rank 1 or more, got tensor<1x3xi1> and tensor<3xf64>
  %b = moa.expand %v, %a : tensor<1x3xi1>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @expand_mask(%v: tensor<3xindex>, %a: tensor<3xf64>) {
  // CHECK: expand expects i1 as its mask, got tensor<3xindex>
  %b = moa.expand %v, %a : tensor<3xindex>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @expand_count(%a: tensor<3xf64>) {
  %v = moa.constant dense<[true, false, true]> : tensor<3xi1>
  // CHECK: expand: the mask must hold as often as axis 0 is long: expected 3 (axis 0 of a), got 2
  %b = moa.expand %v, %a : tensor<3xi1>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @grade_rank(%a: tensor<3x4xf64>) {
  // CHECK: grade expects a vector, got tensor<3x4xf64>
  %b = moa.grade_up %a : tensor<3x4xf64> -> tensor<3xindex>
  func.return
}

// -----

func.func @grade_elements(%a: tensor<3xi1>) {
  // CHECK: grade expects numbers, got tensor<3xi1>
  %b = moa.grade_down %a : tensor<3xi1> -> tensor<3xindex>
  func.return
}

// -----

// Scalar functions

func.func @unknown_unary(%a: tensor<3xf64>) {
  // CHECK: unknown scalar operation of 1 argument(s): expected one of neg, abs, exp{{.*}}, got add
  %b = moa.map add %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @unknown_binary(%a: tensor<3xf64>) {
  // CHECK: unknown scalar operation of 2 argument(s): expected one of add, sub, mul{{.*}}, got plus
  %b = moa.pointwise plus %a, %a : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @unknown_fold(%a: tensor<3xf64>) {
  // CHECK: unknown scalar operation of 2 argument(s): expected one of add, sub, mul{{.*}}, got sum
  %b = moa.reduce sum %a : tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

func.func @two_element_types(%a: tensor<3xf64>, %b: tensor<3xf32>) {
  // CHECK: add: operands must have one element type, got f64, f32
  %c = moa.pointwise add %a, %b : tensor<3xf64>, tensor<3xf32> -> tensor<3xf64>
  func.return
}

// -----

func.func @kind(%a: tensor<3xi1>) {
  // CHECK: add: expected elements of kind float or int, got i1 (bool)
  %b = moa.pointwise add %a, %a : tensor<3xi1>, tensor<3xi1> -> tensor<3xi1>
  func.return
}

// -----

func.func @unknown_function(%a: tensor<3xf64>) {
  // CHECK: unknown function: expected a func.func of one block named @nowhere
  %b = moa.map @nowhere %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func private @declared(f64) -> f64

func.func @declaration(%a: tensor<3xf64>) {
  // CHECK: unknown function: expected a func.func of one block named @declared
  %b = moa.map @declared %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @branching(%x: f64) -> f64 {
  cf.br ^end
^end:
  func.return %x : f64
}

func.func @blocks(%a: tensor<3xf64>) {
  // CHECK: unknown function: expected a func.func of one block named @branching
  %b = moa.map @branching %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @apply_itself(%a: tensor<3xf64>) -> tensor<3xf64> {
  // CHECK: function @apply_itself must not be applied inside itself
  %b = moa.omega @apply_itself <1> (%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}

// -----

func.func @ping(%a: tensor<3xf64>) -> tensor<3xf64> {
  // CHECK: function @pong must not be applied inside itself
  %b = moa.omega @pong <1> (%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}

func.func @pong(%a: tensor<3xf64>) -> tensor<3xf64> {
  %b = moa.omega @ping <1> (%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return %b : tensor<3xf64>
}

// -----

func.func @of_f32(%x: f32) -> f32 {
  func.return %x : f32
}

func.func @argument_type(%a: tensor<3xf64>) {
  // CHECK: function @of_f32 must map (f64) to one scalar, got (f32) -> f32
  %b = moa.map @of_f32 %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @to_array(%x: f64) -> tensor<f64> {
  %a = moa.constant dense<1.0> : tensor<f64>
  func.return %a : tensor<f64>
}

func.func @array_result(%a: tensor<3xf64>) {
  // CHECK: function @to_array must give a scalar: (f64) -> tensor<f64>
  %b = moa.map @to_array %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @fold_of_predicate(%a: tensor<3xf64>) {
  // CHECK: a fold needs a function from two f64 to f64, lt gives i1
  %b = moa.reduce lt %a : tensor<3xf64> -> tensor<f64>
  func.return
}

// -----

// Computation

func.func @pointwise_ranks(%a: tensor<3x4xf64>, %b: tensor<4xf64>) {
  // CHECK: add expects operands of equal rank or scalars, got tensor<3x4xf64>, tensor<4xf64>
  %c = moa.pointwise add %a, %b : tensor<3x4xf64>, tensor<4xf64> -> tensor<3x4xf64>
  func.return
}

// -----

func.func @pointwise_extents(%a: tensor<3x4xf64>, %b: tensor<3x1xf64>) {
  // CHECK: add: extents of axis 1 must be equal: expected 4 (axis 1 of a), got 1 (axis 1 of b)
  %c = moa.pointwise add %a, %b : tensor<3x4xf64>, tensor<3x1xf64> -> tensor<3x4xf64>
  func.return
}

// -----

func.func @where_ranks(%c: tensor<3xi1>, %a: tensor<f64>, %b: tensor<3x1xf64>) {
  // CHECK: where expects operands of equal rank or scalars, got tensor<3xi1>, tensor<f64>, tensor<3x1xf64>
  %d = moa.where %c, %a, %b : tensor<3xi1>, tensor<f64>, tensor<3x1xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @where_extents(%c: tensor<3xi1>, %a: tensor<f64>, %b: tensor<4xf64>) {
  // CHECK: where: extents of axis 0 must be equal: expected 3 (axis 0 of c), got 4 (axis 0 of b)
  %d = moa.where %c, %a, %b : tensor<3xi1>, tensor<f64>, tensor<4xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @where_condition(%c: tensor<3xf64>) {
  // CHECK: where expects i1 as its condition, got tensor<3xf64>
  %d = moa.where %c, %c, %c : tensor<3xf64>, tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @where_elements(%c: tensor<3xi1>, %a: tensor<3xf64>) {
  // CHECK: where: operands must have one element type, got f64, i1
  %d = moa.where %c, %a, %c : tensor<3xi1>, tensor<3xf64>, tensor<3xi1> -> tensor<3xf64>
  func.return
}

// -----

func.func @reduce_scalar(%a: tensor<f64>) {
  // CHECK: reduce expects an array of rank 1 or more, got tensor<f64>
  %b = moa.reduce add %a : tensor<f64> -> tensor<f64>
  func.return
}

// -----

func.func @reduce_empty(%a: tensor<0xf64>) {
  // CHECK: reduce: sub has no identity element, so the folded axis must not be empty: expected at least 1, got 0 (axis 0 of a)
  %b = moa.reduce sub %a : tensor<0xf64> -> tensor<f64>
  func.return
}

// -----

func.func @scan_scalar(%a: tensor<f64>) {
  // CHECK: scan expects an array of rank 1 or more, got tensor<f64>
  %b = moa.scan add %a : tensor<f64> -> tensor<f64>
  func.return
}

// -----

func.func @scan_of_predicate(%a: tensor<3xf64>) {
  // CHECK: a fold needs a function from two f64 to f64, lt gives i1
  %b = moa.scan lt %a : tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @inner_scalar(%a: tensor<3xf64>, %b: tensor<f64>) {
  // CHECK: inner expects two arrays of rank 1 or more, got tensor<3xf64> and tensor<f64>
  %c = moa.inner add mul %a, %b : tensor<3xf64>, tensor<f64> -> tensor<f64>
  func.return
}

// -----

func.func @inner_extents(%a: tensor<3x4xf64>) {
  // CHECK: inner: the last extent of the left operand must equal the first of the right: expected 4 (axis 1 of a), got 3 (axis 0 of a)
  %b = moa.inner add mul %a, %a : tensor<3x4xf64>, tensor<3x4xf64> -> tensor<3x4xf64>
  func.return
}

// -----

func.func @inner_empty(%a: tensor<0xf64>) {
  // CHECK: inner: sub has no identity element, so the folded axis must not be empty: expected at least 1, got 0 (axis 0 of a)
  %b = moa.inner sub mul %a, %a : tensor<0xf64>, tensor<0xf64> -> tensor<f64>
  func.return
}

// -----

// Omega

func.func @omega_arrays(%a: tensor<3xf64>) {
  // CHECK: omega expects one or two arrays and as many cell ranks, got 2 arrays and ranks [1]
  %b = moa.omega add <1> (%a, %a) : (tensor<3xf64>, tensor<3xf64>) -> tensor<3xf64>
  func.return
}

// -----

func.func @omega_rank(%a: tensor<3xf64>) {
  // CHECK: omega: a cell rank must be between 0 and the rank of its array: expected at most 1, got 2
  %b = moa.omega exp <2> (%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return
}

// -----

func.func @omega_negative_rank(%a: tensor<3xf64>) {
  // CHECK: omega: a cell rank must be between 0 and the rank of its array: expected at most 1, got -1
  %b = moa.omega exp <-1> (%a) : (tensor<3xf64>) -> tensor<3xf64>
  func.return
}

// -----

func.func @omega_cells(%a: tensor<3x4xf64>) {
  // CHECK: omega: a scalar operation needs cells of equal rank or scalars, got ranks [2, 1]
  %b = moa.omega add <2, 1> (%a, %a) : (tensor<3x4xf64>, tensor<3x4xf64>) -> tensor<3x4xf64>
  func.return
}

// -----

func.func @omega_cell_extents(%a: tensor<3x4xf64>, %b: tensor<5xf64>) {
  // CHECK: add: extents of cell axis 0 must be equal: expected 4 (axis 1 of a), got 5 (axis 0 of b)
  %c = moa.omega add <1, 1> (%a, %b) : (tensor<3x4xf64>, tensor<5xf64>) -> tensor<3x4xf64>
  func.return
}

// -----

func.func @omega_frames(%a: tensor<2x3x4xf64>, %b: tensor<2xf64>) {
  // CHECK: omega: frames must agree on their trailing axes: expected 3 (axis 1 of a), got 2 (axis 0 of b)
  %c = moa.omega sub <1, 0> (%a, %b) : (tensor<2x3x4xf64>, tensor<2xf64>) -> tensor<2x3x4xf64>
  func.return
}

// -----

func.func @of_matrix(%a: tensor<?x?xf64>) -> tensor<?x?xf64> {
  func.return %a : tensor<?x?xf64>
}

func.func @omega_function(%a: tensor<3x4xf64>) {
  // CHECK: omega: the cell function @of_matrix must map the cells (tensor<4xf64>) to one array, got (tensor<?x?xf64>) -> tensor<?x?xf64>
  %b = moa.omega @of_matrix <1> (%a) : (tensor<3x4xf64>) -> tensor<3x4xf64>
  func.return
}

// -----

func.func @first_row(%a: tensor<?x?xf64>) -> tensor<?xf64> {
  %i = moa.constant dense<2> : tensor<1xindex>
  %b = moa.psi %i, %a : tensor<1xindex>, tensor<?x?xf64> -> tensor<?xf64>
  func.return %b : tensor<?xf64>
}

func.func @omega_inside(%a: tensor<5x2x4xf64>) {
  // CHECK: psi: index entry 0 out of range of axis 0: expected less than 2 (axis 1 of a), got 2
  %b = moa.omega @first_row <2> (%a) : (tensor<5x2x4xf64>) -> tensor<5x4xf64>
  func.return
}

// -----

func.func @count(%n: tensor<index>) -> tensor<?xindex> {
  %a = moa.iota %n : tensor<index> -> tensor<?xindex>
  func.return %a : tensor<?xindex>
}

func.func @omega_shapes(%v: tensor<3xindex>) {
  // CHECK: function @count: the shape of its result depends on data, so cells need not give equal shapes
  %b = moa.omega @count <0> (%v) : (tensor<3xindex>) -> tensor<3x?xindex>
  func.return
}

// -----

// The denotational normal form

func.func @extent(%a: tensor<3xf64>) {
  // CHECK: extent: axis out of range: expected 0 <= axis < 1, got 1
  %n = moa.extent %a, 1 : tensor<3xf64>
  func.return
}

// -----

func.func @fixed_extent() {
  // CHECK: an extent must not be negative, got -1
  %n = moa.fixed_extent -1
  func.return
}

// -----

func.func @require(%n: index) {
  // CHECK: unknown relation: expected one of eq, lt, le, ge, got gt
  moa.require %n gt %n, "message"
  func.return
}

// -----

func.func @at_partial(%a: tensor<3x4xf64>, %i: index) {
  // CHECK: at needs a full index: expected 2 entries, got 1
  %x = moa.at %a[%i] : tensor<3x4xf64>
  func.return
}

// -----

func.func @at_element(%a: tensor<3xf64>, %i: index) {
  // CHECK: at gives an element of the array: expected f64, got f32
  %x = "moa.at"(%a, %i) : (tensor<3xf64>, index) -> f32
  func.return
}

// -----

func.func @at_array(%a: memref<3xf64>, %i: index) {
  // CHECK: expected a ranked tensor, got memref<3xf64>
  %x = moa.at %a[%i] : memref<3xf64>
  func.return
}

// -----

func.func @terminator(%n: index) {
  // CHECK: the body must end with moa.yield
  %a = moa.comprehension [%i < %n] -> tensor<?xf64> {
    ub.unreachable
  }
  func.return
}

// -----

func.func @comprehension_indices(%n: index, %x: f64) {
  // CHECK: the body takes one index for each axis: expected 1, got (index, index)
  %a = "moa.comprehension"(%n) ({
  ^body(%i: index, %j: index):
    moa.yield %x : f64
  }) : (index) -> tensor<?xf64>
  func.return
}

// -----

func.func @comprehension_values(%n: index, %x: f64) {
  // CHECK: a comprehension yields one value for each result: expected 2, got 1
  %a, %b = moa.comprehension [%i < %n] -> tensor<?xf64>, tensor<?xf64> {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @comprehension_rank(%n: index, %x: f64) {
  // CHECK: result tensor<?x?xf64> is not an array of 1 axes of f64
  %a = moa.comprehension [%i < %n] -> tensor<?x?xf64> {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @comprehension_element(%n: index, %x: vector<3xf64>) {
  // CHECK: unsupported element type: vector<3xf64>
  %a = moa.comprehension [%i < %n] -> tensor<?xvector<3xf64>> {
    moa.yield %x : vector<3xf64>
  }
  func.return
}

// -----

func.func @comprehension_order(%n: index, %x: f64) {
  // CHECK: order expects a permutation of 0 to 0, got [1]
  %a = moa.comprehension [%i < %n] order [1] -> tensor<?xf64> {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_type(%n: index, %x: f64) {
  // CHECK: a fold yields one value of its result type f32, got f64
  %s = moa.fold add [%i = %n to %n] -> f32 {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_nothing(%n: index) {
  // CHECK: a fold yields one value of its result type f32, got none
  %s = moa.fold add [%i = %n to %n] -> f32 {
    moa.yield
  }
  func.return
}

// -----

func.func @fold_function(%n: index, %x: f64) {
  // CHECK: a fold needs a function from two f64 to f64, eq gives i1
  %s = moa.fold eq [%i = %n to %n] -> f64 {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_element(%n: index, %x: vector<3xf64>) {
  // CHECK: unsupported element type: vector<3xf64>
  %s = moa.fold add [%i = %n to %n] -> vector<3xf64> {
    moa.yield %x : vector<3xf64>
  }
  func.return
}

// -----

func.func @fold_arguments(%n: index, %x: f64) {
  // CHECK: 1 arguments for a domain not given
  %s = "moa.fold"(%n, %n, %n) <{function = "add", operandSegmentSizes = array<i32: 1, 1, 1, 0>}> ({
  ^body(%i: index):
    moa.yield %x : f64
  }) : (index, index, index) -> f64
  func.return
}

// -----

func.func @fold_initial(%n: index, %x: f64, %y: f32) {
  // CHECK: a fold starts from a value of its result type: expected f64, got f32
  %s = "moa.fold"(%n, %n, %y) <{function = "add", operandSegmentSizes = array<i32: 1, 1, 0, 1>}> ({
  ^body(%i: index):
    moa.yield %x : f64
  }) : (index, index, f32) -> f64
  func.return
}

// -----

func.func @fold_domain(%n: index, %x: f64) {
  // CHECK: the domain's set takes 2 values, got 1 (the index first)
  %s = moa.fold add [%i = %n to %n] where affine_set<(d0, d1) : (d0 - d1 >= 0)>(%i) -> f64 {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_identity(%n: index, %x: f64) {
  // CHECK: a restricted fold needs an identity element, sub has none
  %s = moa.fold sub [%i = %n to %n] where affine_set<(d0) : (d0 - 1 >= 0)>(%i) -> f64 {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_set(%n: index, %x: f64) {
  // CHECK: expected an affine_set, got affine_map<(d0) -> (d0)>
  %s = moa.fold add [%i = %n to %n] where affine_map<(d0) -> (d0)>(%i) -> f64 {
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @fold_index_first(%n: index, %x: f64) {
  // CHECK: expected the fold's index %i as the domain's first
  %s = moa.fold add [%i = %n to %n] where affine_set<(d0, d1) : (d0 - d1 >= 0)>(%n, %i) -> f64 {
    moa.yield %x : f64
  }
  func.return
}

// -----

// The operational normal form

func.func @rav_order(%a: memref<3xf64>) {
  // CHECK: unknown order: expected row or column, got diagonal
  %b = moa.rav diagonal %a : memref<3xf64> -> memref<?xf64>
  func.return
}

// -----

func.func @rav_flat(%a: memref<3x4xf64>) {
  // CHECK: a flat address needs a flat buffer, got memref<3x4xf64>
  %b = moa.rav row %a : memref<3x4xf64> -> memref<3x4xf64>
  func.return
}

// -----

func.func @rav_element(%a: memref<3xf64>) {
  // CHECK: rav gives the elements of the array: expected f64, got f32
  %b = moa.rav row %a : memref<3xf64> -> memref<?xf32>
  func.return
}

// -----

func.func @buffer_flat(%n: index) {
  // CHECK: a flat address needs a flat buffer, got memref<?x?xf64>
  %b = moa.buffer [%n, %n] : memref<?x?xf64>
  func.return
}

// -----

func.func @buffer_type(%n: index) {
  // CHECK: expected a memref, got tensor<?xf64>
  %b = moa.buffer [%n] : tensor<?xf64>
  func.return
}

// -----

func.func @loop_stride(%n: index) {
  // CHECK: a loop needs a stride that is not zero
  moa.loop [%i = %n to %n by 0] {
    moa.yield
  }
  func.return
}

// -----

func.func @load_flat(%a: memref<3x4xf64>, %n: index) {
  // CHECK: a flat address needs a flat buffer, got memref<3x4xf64>
  %x = moa.load %a[%n] : memref<3x4xf64>
  func.return
}

// -----

func.func @load_type(%a: tensor<3xf64>, %n: index) {
  // CHECK: expected a memref, got tensor<3xf64>
  %x = moa.load %a[%n] : tensor<3xf64>
  func.return
}

// -----

func.func @load_strides(%a: memref<3xf64>, %n: index) {
  // CHECK: an access needs a stride for each index, got 1 terms
  %x = "moa.load"(%a, %n, %n) : (memref<3xf64>, index, index) -> f64
  func.return
}

// -----

func.func @load_element(%a: memref<3xf64>, %n: index) {
  // CHECK: load gives an element of the buffer: expected f64, got f32
  %x = "moa.load"(%a, %n) : (memref<3xf64>, index) -> f32
  func.return
}

// -----

func.func @store_element(%a: memref<3xf64>, %n: index, %x: f32) {
  // CHECK: store expects an element of the buffer: expected f64, got f32
  "moa.store"(%x, %a, %n) : (f32, memref<3xf64>, index) -> ()
  func.return
}

// -----

// Shapes and addresses

// -----

func.func @product_vector(%a: tensor<2x2xf64>) {
  // CHECK: product expects a vector, got tensor<2x2xf64>
  %b = moa.product %a : tensor<2x2xf64> -> tensor<f64>
  func.return
}

// -----

func.func @product_numbers(%a: tensor<2xi1>) {
  // CHECK: product expects numbers, got tensor<2xi1>
  %b = moa.product %a : tensor<2xi1> -> tensor<i1>
  func.return
}

// -----

func.func @gamma_order(%i: tensor<2xindex>) {
  // CHECK: unknown order: expected row or column, got diagonal
  %k = moa.gamma diagonal %i, %i : tensor<2xindex>, tensor<2xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_integers(%i: tensor<2xf64>, %s: tensor<2xindex>) {
  // CHECK: gamma expects integers, got tensor<2xf64>
  %k = moa.gamma row %i, %s : tensor<2xf64>, tensor<2xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_shape_rank(%i: tensor<2xindex>, %s: tensor<index>) {
  // CHECK: gamma expects a vector of static length as the shape, got tensor<index>
  %k = moa.gamma row %i, %s : tensor<2xindex>, tensor<index> -> tensor<index>
  func.return
}

// -----

func.func @gamma_shape_length(%i: tensor<2xindex>, %s: tensor<?xindex>) {
  // CHECK: gamma expects a vector of static length as the shape, got tensor<?xindex>
  %k = moa.gamma row %i, %s : tensor<2xindex>, tensor<?xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_scalar(%i: tensor<index>, %s: tensor<1xindex>) {
  // CHECK: gamma expects a vector (or array of vectors) as its index, got the scalar tensor<index>
  %k = moa.gamma row %i, %s : tensor<index>, tensor<1xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_lengths(%i: tensor<3xindex>, %s: tensor<2xindex>) {
  // CHECK: gamma needs as many index entries as there are extents: expected 2, got 3
  %k = moa.gamma row %i, %s : tensor<3xindex>, tensor<2xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_length(%i: tensor<?xindex>, %s: tensor<2xindex>) {
  // CHECK: gamma needs as many index entries as there are extents: expected 2, got any number
  %k = moa.gamma row %i, %s : tensor<?xindex>, tensor<2xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_range() {
  %i = moa.constant dense<[1, 4]> : tensor<2xindex>
  %s = moa.constant dense<[3, 4]> : tensor<2xindex>
  // CHECK: gamma: index entry 1 out of range of axis 1: expected less than 4, got 4
  %k = moa.gamma row %i, %s : tensor<2xindex>, tensor<2xindex> -> tensor<index>
  func.return
}

// -----

func.func @gamma_negative(%s: tensor<2xindex>) {
  %i = moa.constant dense<[[1, 4], [-1, 2]]> : tensor<2x2xindex>
  // CHECK: gamma: index entry 0 out of range of axis 0: expected at least 0, got -1
  %k = moa.gamma column %i, %s : tensor<2x2xindex>, tensor<2xindex> -> tensor<2xindex>
  func.return
}

// -----

func.func @gamma_type(%i: tensor<2xi64>, %s: tensor<2xi64>) {
  // CHECK: result type does not follow from the operands: expected tensor<index>, got tensor<i64>
  %k = moa.gamma row %i, %s : tensor<2xi64>, tensor<2xi64> -> tensor<i64>
  func.return
}

// -----

func.func @gamma_inverse_order(%k: tensor<index>, %s: tensor<2xindex>) {
  // CHECK: unknown order: expected row or column, got block
  %i = moa.gamma_inverse block %k, %s : tensor<index>, tensor<2xindex> -> tensor<2xindex>
  func.return
}

// -----

func.func @gamma_inverse_shape(%k: tensor<index>, %s: tensor<2x2xindex>) {
  // CHECK: gamma_inverse expects a vector of static length as the shape, got tensor<2x2xindex>
  %i = moa.gamma_inverse row %k, %s : tensor<index>, tensor<2x2xindex> -> tensor<2xindex>
  func.return
}

// -----

func.func @gamma_inverse_range() {
  %k = moa.constant dense<12> : tensor<index>
  %s = moa.constant dense<[3, 4]> : tensor<2xindex>
  // CHECK: gamma_inverse: the address is out of range: expected less than 12, got 12
  %i = moa.gamma_inverse row %k, %s : tensor<index>, tensor<2xindex> -> tensor<2xindex>
  func.return
}

// -----

func.func @gamma_inverse_negative(%s: tensor<2xindex>) {
  %k = moa.constant dense<[5, -2]> : tensor<2xindex>
  // CHECK: gamma_inverse: the address is out of range: expected at least 0, got -2
  %i = moa.gamma_inverse row %k, %s : tensor<2xindex>, tensor<2xindex> -> tensor<2x2xindex>
  func.return
}

// -----

func.func @gamma_inverse_extent(%k: tensor<index>) {
  %s = moa.constant dense<[-3, -4]> : tensor<2xindex>
  // CHECK: gamma_inverse: an extent must not be negative: expected at least 0, got -3
  %i = moa.gamma_inverse row %k, %s : tensor<index>, tensor<2xindex> -> tensor<2xindex>
  func.return
}

// -----

// Recycling and blocks

// -----

func.func @recycle_shape(%t: tensor<index>, %a: tensor<3xf64>) {
  // CHECK: recycle expects a vector of static length as the shape, got tensor<index>
  %b = moa.recycle %t, %a : tensor<index>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @recycle_integers(%t: tensor<1xf64>, %a: tensor<3xf64>) {
  // CHECK: recycle expects integers, got tensor<1xf64>
  %b = moa.recycle %t, %a : tensor<1xf64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @recycle_negative(%a: tensor<3xf64>) {
  %t = moa.constant dense<-2> : tensor<1xindex>
  // CHECK: recycle: an extent must not be negative: expected at least 0, got -2
  %b = moa.recycle %t, %a : tensor<1xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @recycle_empty(%a: tensor<0x3xf64>) {
  %t = moa.constant dense<2> : tensor<1xindex>
  // CHECK: recycle: an array without elements has none to repeat: expected at least 2, got 0
  %b = moa.recycle %t, %a : tensor<1xindex>, tensor<0x3xf64> -> tensor<2xf64>
  func.return
}

// -----

func.func @pad_integers(%v: tensor<f64>, %a: tensor<3xf64>) {
  // CHECK: pad expects integers, got tensor<f64>
  %b = moa.pad %v, %v, %a : tensor<f64>, tensor<f64>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @pad_vector(%v: tensor<?xindex>, %a: tensor<3xf64>) {
  // CHECK: pad expects a scalar or a vector of static length, got tensor<?xindex>
  %b = moa.pad %v, %v, %a : tensor<?xindex>, tensor<?xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @pad_axes(%v: tensor<2xindex>, %a: tensor<3xf64>) {
  // CHECK: pad: more counts than axes: expected at most 1, got 2
  %b = moa.pad %v, %v, %a : tensor<2xindex>, tensor<2xindex>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @pad_sides(%v: tensor<2xindex>, %w: tensor<1xindex>, %a: tensor<3x4xf64>) {
  // CHECK: pad expects as many counts on the right as on the left: expected 2, got 1
  %b = moa.pad %v, %w, %a : tensor<2xindex>, tensor<1xindex>, tensor<3x4xf64> -> tensor<?x?xf64>
  func.return
}

// -----

func.func @pad_negative(%v: tensor<index>, %a: tensor<3xf64>) {
  %w = moa.constant dense<-1> : tensor<index>
  // CHECK: pad: the right count for axis 0 must not be negative: expected at least 0, got -1
  %b = moa.pad %v, %w, %a : tensor<index>, tensor<index>, tensor<3xf64> -> tensor<?xf64>
  func.return
}

// -----

func.func @pad_count(%w: tensor<2xindex>, %a: tensor<3x4xf64>) {
  %v = moa.constant dense<[3, 5]> : tensor<2xindex>
  // CHECK: pad: the left count for axis 1 must not exceed the extent: expected at most 4 (axis 1 of a), got 5
  %b = moa.pad %v, %w, %a : tensor<2xindex>, tensor<2xindex>, tensor<3x4xf64> -> tensor<?x?xf64>
  func.return
}

// -----

func.func @insert_integers(%o: tensor<f64>, %a: tensor<3xf64>) {
  // CHECK: insert expects integers, got tensor<f64>
  %b = moa.insert %o, %a, %a : tensor<f64>, tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_vector(%o: tensor<1x1xindex>, %a: tensor<3xf64>) {
  // CHECK: insert expects a scalar or a vector of static length, got tensor<1x1xindex>
  %b = moa.insert %o, %a, %a : tensor<1x1xindex>, tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_axes(%o: tensor<2xindex>, %a: tensor<3xf64>) {
  // CHECK: insert: more counts than axes: expected at most 1, got 2
  %b = moa.insert %o, %a, %a : tensor<2xindex>, tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_rank(%o: tensor<index>, %b: tensor<3xf64>, %a: tensor<3x3xf64>) {
  // CHECK: insert expects a block of the array's rank, got tensor<3xf64> for tensor<3x3xf64>
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<3xf64>, tensor<3x3xf64> -> tensor<3x3xf64>
  func.return
}

// -----

func.func @insert_elements(%o: tensor<index>, %b: tensor<2xf32>, %a: tensor<3xf64>) {
  // CHECK: insert: operands must have one element type, got f32, f64
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<2xf32>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_long(%o: tensor<index>, %b: tensor<4xf64>, %a: tensor<3xf64>) {
  // CHECK: insert: the block must not be longer than axis 0: expected at most 3 (axis 0 of a), got 4 (axis 0 of b)
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<4xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_whole_axes(%o: tensor<index>, %b: tensor<2x4xf64>, %a: tensor<3x5xf64>) {
  // CHECK: insert: extents of axis 1 must be equal: expected 5 (axis 1 of a), got 4 (axis 1 of b)
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<2x4xf64>, tensor<3x5xf64> -> tensor<3x5xf64>
  func.return
}

// -----

func.func @insert_negative(%b: tensor<2xf64>, %a: tensor<3xf64>) {
  %o = moa.constant dense<-1> : tensor<index>
  // CHECK: insert: the offset for axis 0 must not be negative: expected at least 0, got -1
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<2xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @insert_beyond(%b: tensor<2xf64>, %a: tensor<3xf64>) {
  %o = moa.constant dense<2> : tensor<index>
  // CHECK: insert: the block must not reach beyond axis 0: offset: expected at most 1 (axis 0 of a - axis 0 of b), got 2
  %c = moa.insert %o, %b, %a : tensor<index>, tensor<2xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @floordiv_integers(%a: tensor<3xf64>) {
  // CHECK: floordiv: expected elements of kind int, got f64 (float)
  %b = moa.pointwise floordiv %a, %a : tensor<3xf64>, tensor<3xf64> -> tensor<3xf64>
  func.return
}

// -----

func.func @loop_body(%n: index) {
  // CHECK: a loop body yields what is carried: expected (), got (index)
  moa.loop [%i = %n to %n by 1] {
    moa.yield %i : index
  }
  func.return
}

// -----

func.func @loop_arguments(%n: index, %x: f64) {
  // CHECK: a loop body takes one index and what is carried: expected (index, f64), got (index)
  "moa.loop"(%n, %n, %x) <{stride = 1 : i64}> ({
  ^bb0(%i: index):
    moa.yield %x : f64
  }) : (index, index, f64) -> f64
  func.return
}

// -----

func.func @loop_results(%n: index, %x: f64) {
  // CHECK: a loop gives what is carried: expected (f64), got ()
  "moa.loop"(%n, %n, %x) <{stride = 1 : i64}> ({
  ^bb0(%i: index, %y: f64):
    moa.yield %y : f64
  }) : (index, index, f64) -> ()
  func.return
}

// -----

// Cascades

func.func @cascade_groups(%n: index) {
  // CHECK: a cascade has groups of one accumulator or more, and for each a number of pivots, got [0] and [0]
  "moa.cascade"(%n, %n) <{functions = [], groups = array<i64: 0>, pivot_counts = array<i64: 0>}> ({
  ^bb0(%p: index):
    moa.yield
  }, {
  ^bb0(%p: index):
    moa.yield
  }) : (index, index) -> ()
  func.return
}

// -----

func.func @cascade_regions(%n: index) {
  // CHECK: a cascade has one region for its data, and for each group one, or three if it has pivots: expected 2, got 1
  "moa.cascade"(%n, %n) <{functions = ["add"], groups = array<i64: 1>, pivot_counts = array<i64: 0>}> ({
  ^bb0(%p: index):
    moa.yield
  }) : (index, index) -> f64
  func.return
}

// -----

func.func @cascade_functions(%n: index, %x: f64) {
  // CHECK: a cascade has a function for each accumulator: expected 1, got 2
  "moa.cascade"(%n, %n) <{functions = ["add", "add"], groups = array<i64: 1>, pivot_counts = array<i64: 0>}> ({
  ^bb0(%p: index):
    moa.yield
  }, {
  ^bb0(%p: index):
    moa.yield %x : f64
  }) : (index, index) -> f64
  func.return
}

// -----

func.func @cascade_results(%n: index, %x: f64) {
  // CHECK: the results are the accumulators and the pivots: expected 1, got 2
  "moa.cascade"(%n, %n) <{functions = ["add"], groups = array<i64: 1>, pivot_counts = array<i64: 0>}> ({
  ^bb0(%p: index):
    moa.yield
  }, {
  ^bb0(%p: index):
    moa.yield %x : f64
  }) : (index, index) -> (f64, f64)
  func.return
}

// -----

func.func @cascade_starts(%n: index, %x: f64) {
  // CHECK: each pivot starts from a value of its type: expected (f64), got ()
  "moa.cascade"(%n, %n) <{functions = ["add"], groups = array<i64: 1>, pivot_counts = array<i64: 1>}> ({
  ^bb0(%p: index):
    moa.yield
  }, {
  ^bb0(%c: index, %r: f64, %s: f64):
    moa.yield %r : f64
  }, {
  ^bb0(%p: index, %r: f64):
    moa.yield %x : f64
  }, {
  ^bb0(%c: index, %r: f64, %q: f64, %s: f64):
    moa.yield %s : f64
  }) : (index, index) -> (f64, f64)
  func.return
}

// -----

func.func @cascade_result_types(%n: index, %x: f64) {
  // CHECK: expected 1 result types, got 2
  %s:2 = moa.cascade [%n to %n] -> f64, f64 data {
  ^bb0(%p: index):
    moa.yield
  } group add part {
  ^bb0(%p: index):
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @cascade_chunk(%n: index, %x: f64) {
  // CHECK: a chunk has at least one index, got 0
  %s = moa.cascade [%n to %n] chunk 0 -> f64 data {
  ^bb0(%p: index):
    moa.yield
  } group add part {
  ^bb0(%p: index):
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @cascade_identity(%n: index, %x: f64) {
  // CHECK: an accumulator needs a function with an identity element, sub has none
  %s = moa.cascade [%n to %n] -> f64 data {
  ^bb0(%p: index):
    moa.yield
  } group sub part {
  ^bb0(%p: index):
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @cascade_data(%n: index, %x: f64) {
  // CHECK: data takes (index), got ()
  %s = moa.cascade [%n to %n] -> f64 data {
    moa.yield
  } group add part {
  ^bb0(%p: index):
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @cascade_part(%n: index, %x: f64) {
  // CHECK: part takes (index, f64), got (index)
  %s = moa.cascade [%n to %n] -> f64 data {
  ^bb0(%p: index):
    moa.yield %x : f64
  } group add part {
  ^bb0(%p: index):
    moa.yield %x : f64
  }
  func.return
}

// -----

func.func @cascade_part_yields(%n: index, %x: f64, %y: f32) {
  // CHECK: part yields (f64), got (f32)
  %s = moa.cascade [%n to %n] -> f64 data {
  ^bb0(%p: index):
    moa.yield
  } group add part {
  ^bb0(%p: index):
    moa.yield %y : f32
  }
  func.return
}

// -----

func.func @cascade_pivot(%n: index, %x: f64) {
  // CHECK: pivot takes (index, f64, f64), got (index, f64)
  %s, %r = moa.cascade [%n to %n] -> f64, f64 data {
  ^bb0(%p: index):
    moa.yield
  } group add pivot %x {
  ^bb0(%c: index, %r: f64):
    moa.yield %r : f64
  } part {
  ^bb0(%p: index, %r: f64):
    moa.yield %r : f64
  } move {
  ^bb0(%c: index, %old: f64, %new: f64, %s: f64):
    moa.yield %s : f64
  }
  func.return
}

// -----

func.func @cascade_move(%n: index, %x: f64) {
  // CHECK: move yields (f64), got ()
  %s, %r = moa.cascade [%n to %n] -> f64, f64 data {
  ^bb0(%p: index):
    moa.yield
  } group add pivot %x {
  ^bb0(%c: index, %r: f64, %s: f64):
    moa.yield %r : f64
  } part {
  ^bb0(%p: index, %r: f64):
    moa.yield %r : f64
  } move {
  ^bb0(%c: index, %old: f64, %new: f64, %s: f64):
    moa.yield
  }
  func.return
}
