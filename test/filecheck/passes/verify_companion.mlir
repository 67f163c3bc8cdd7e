// A derivation gives the function of the results' extents too.

func.func @f(%a: tensor<?xf64>) -> tensor<?xf64> {
  %e = moa.map exp %a : tensor<?xf64> -> tensor<?xf64>
  func.return %e : tensor<?xf64>
}

// RUN: moa-opt %s -p 'moa-to-dnf{certify=true},moa-to-onf' -o %t.mlir
// RUN: moa-opt %t.mlir -p moa-verify | filecheck %s
// CHECK: func.func @f.extents(

// RUN: sed 's/func.return %%0 : index/%%z = arith.addi %%0, %%0 : index func.return %%z : index/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix CHANGED
// CHANGED: moa-opt: @f.extents: the function is not what its derivation gives: expected func.return, got %z = arith.addi

// RUN: sed 's/@f.extents/@g/' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix RENAMED
// RENAMED: moa-opt: @g: expected a derivation

// RUN: sed '/@f.extents/,/^  }$/d' %t.mlir | not moa-opt -p moa-verify 2>&1 | filecheck %s --check-prefix MISSING
// MISSING: moa-opt: @f: its derivation gives @f.extents, got none
