// A function in a module in a module is compiled where it is: what it needs, and the
// function of its extents, come beside it. Kernels of a GPU are in the outermost module.

// RUN: moa-opt %s -p moa-cpu | filecheck %s
// RUN: not moa-opt %s -p moa-nvvm 2>&1 | filecheck %s --check-prefix GPU

// GPU: moa-opt: @f: expected a function of the outermost module: a GPU's kernels are there

// CHECK:      builtin.module {
// CHECK:        builtin.module {
// CHECK-NEXT:     "llvm.mlir.global"() <{{.*}}sym_name = "moa_num_threads"
// CHECK:          sym_name = "f"
// CHECK:          sym_name = "f.extents"

builtin.module {
  func.func @f(%x: tensor<?x1000xf64>) -> tensor<?x1000xf64> {
    %y = moa.map exp %x : tensor<?x1000xf64> -> tensor<?x1000xf64>
    func.return %y : tensor<?x1000xf64>
  }
}
func.func @f(%x: tensor<3xf64>) -> tensor<3xf64> {
  func.return %x : tensor<3xf64>
}
