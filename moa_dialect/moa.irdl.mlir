// Written by `python -m moa_dialect.tools.irdl` from the operations; do not edit.
// The array algebra of moa: mlir-opt --irdl-file=moa.irdl.mlir

irdl.dialect @moa {
  // An array given by its elements; a scalar is a tensor of rank 0.
  irdl.operation @constant {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "#builtin.dense_int_or_fp_elements"
    irdl.results(result: %0)
    irdl.attributes { "value" = %1 }
  }

  // The array of all full indices of a shape.
  irdl.operation @iota {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(extents: %0)
    irdl.results(result: %1)
  }

  // The shape of an array: `<k> ψ ρA` is the extent of axis k.
  irdl.operation @shape {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // The number of axes of an array, `δA`, a scalar.
  irdl.operation @dim {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // The number of elements of an array, `τA = π(ρA)`, a scalar; 1 for a scalar.
  irdl.operation @total {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // Indexing: `j ψ (i ψ A) = (i ++ j) ψ A` for a vector i no longer than the rank.
  irdl.operation @psi {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(index: %0, array: %1)
    irdl.results(result: %2)
  }

  // Psi with a partial index of scalars: `<i j> ψ A`, an array of the other axes.
  irdl.operation @cell {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.is index
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0, indices: variadic %1)
    irdl.results(result: %2)
  }

  // The first `v_j` of each leading axis, or the last `-v_j` if that is negative.
  irdl.operation @take {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(counts: %0, array: %1)
    irdl.results(result: %2)
  }

  // All but the first `v_j` of each leading axis, or but the last `-v_j`.
  irdl.operation @drop {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(counts: %0, array: %1)
    irdl.results(result: %2)
  }

  // Catenation along axis 0: `A ++ B`, shape `<a0 + b0> ++ (1 ▽ ρA)`.
  irdl.operation @cat {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(lhs: %0, rhs: %1)
    irdl.results(result: %2)
  }

  // Reversal of axis 0: `i ψ ΦA = (<s0 - 1 - i0> ++ (1 ▽ i)) ψ A`; a scalar stays.
  irdl.operation @reverse {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // Rotation of axis 0: `i ψ (kθA) = (<(i0 + k) mod s0> ++ (1 ▽ i)) ψ A`.
  irdl.operation @rotate {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(count: %0, array: %1)
    irdl.results(result: %2)
  }

  // Transposition: `i ψ (t ⊘ A) = i[t] ψ A`, source axis k is result axis `t[k]`.
  irdl.operation @transpose {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // The same elements in another shape: `i ψ (t ρ̂ A) = γ'(γ(i; t); ρA) ψ A`.
  irdl.operation @reshape {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(shape: %0, array: %1)
    irdl.results(result: %2)
  }

  // The elements as a vector, in row-major order: `<k> ψ rav A = γ'(k; ρA) ψ A`.
  irdl.operation @ravel {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // The planes of axis 0 where the mask holds: `v ⌿ A`, shape `<Σv> ++ (1 ▽ s)`.
  irdl.operation @compress {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(mask: %0, array: %1)
    irdl.results(result: %2)
  }

  // The planes of axis 0 put where the mask holds, zeros elsewhere: `v ⍀ A`.
  irdl.operation @expand {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(mask: %0, array: %1)
    irdl.results(result: %2)
  }

  // The permutation that sorts a vector in ascending order, equal elements in place.
  irdl.operation @grade_up {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // The permutation that sorts a vector in descending order, equal elements in place.
  irdl.operation @grade_down {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // A scalar function of two arrays, element by element: `i ψ (A f B)`.
  irdl.operation @pointwise {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.any
    irdl.operands(lhs: %0, rhs: %1)
    irdl.results(result: %2)
    irdl.attributes { "function" = %3 }
  }

  // A scalar function of one array, element by element: `i ψ (f A) = f (i ψ A)`.
  irdl.operation @map {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.any
    irdl.operands(array: %0)
    irdl.results(result: %1)
    irdl.attributes { "function" = %2 }
  }

  // Conversion of every element to another element type.
  irdl.operation @cast {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(array: %0)
    irdl.results(result: %1)
  }

  // Choice by a truth value, element by element, with scalar extension.
  irdl.operation @where {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.base "!builtin.tensor"
    irdl.operands(condition: %0, if_true: %1, if_false: %2)
    irdl.results(result: %3)
  }

  // Right fold over axis 0: `i ψ (f red A) = (0++i ψ A) f ((1++i ψ A) f (...))`.
  irdl.operation @reduce {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.any
    irdl.operands(array: %0)
    irdl.results(result: %1)
    irdl.attributes { "function" = %2 }
  }

  // The folds of all prefixes of axis 0: `(<k> ++ i) ψ (f scan A)` folds 0 to k.
  irdl.operation @scan {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.any
    irdl.operands(array: %0)
    irdl.results(result: %1)
    irdl.attributes { "function" = %2 }
  }

  // Outer product: `(i ++ j) ψ (A •f B) = (i ψ A) f (j ψ B)`, shape `ρA ++ ρB`.
  irdl.operation @outer {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.any
    irdl.operands(lhs: %0, rhs: %1)
    irdl.results(result: %2)
    irdl.attributes { "function" = %3 }
  }

  // Inner product: `(i ++ j) ψ (A f•g B) = f red_l ((i++<l> ψ A) g (<l>++j ψ B))`.
  irdl.operation @inner {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.any
    %4 = irdl.any
    irdl.operands(lhs: %0, rhs: %1)
    irdl.results(result: %2)
    irdl.attributes { "combine" = %3, "function" = %4 }
  }

  // A function applied to the trailing-axes cells of one or two arrays.
  irdl.operation @omega {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.any
    %4 = irdl.base "#builtin.dense_array"
    irdl.operands(arrays_0: %0, arrays_1: optional %1)
    irdl.results(result: %2)
    irdl.attributes { "function" = %3, "ranks" = %4 }
  }
}
