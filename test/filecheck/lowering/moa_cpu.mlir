// RUN: moa-opt %s -p moa-cpu --print-op-generic | filecheck %s

// From the algebra to the LLVM dialect; nothing else is left.

// CHECK:     "builtin.module"()
// CHECK-NOT: "{{(arith|builtin|cf|func|math|memref|moa|scf|vector)[.][a-z_]+}}"(
// CHECK:     "llvm.func"() <{{.*}}sym_name = "sums_of_exponentials.task"
// CHECK-NOT: "{{(arith|builtin|cf|func|math|memref|moa|scf|vector)[.][a-z_]+}}"(
// CHECK:     "llvm.fadd"
// CHECK-NOT: "{{(arith|builtin|cf|func|math|memref|moa|scf|vector)[.][a-z_]+}}"(
// CHECK:     "llvm.func"() <{{.*}}sym_name = "sums_of_exponentials",
// CHECK-NOT: "{{(arith|builtin|cf|func|math|memref|moa|scf|vector)[.][a-z_]+}}"(

// The entry for callers: a pointer to a descriptor for each argument and result.
// CHECK:     "llvm.func"() <{{.*}}!llvm.func<void (ptr, ptr)>{{.*}}sym_name = "_mlir_ciface_sums_of_exponentials",
// CHECK-NOT: "{{(arith|builtin|cf|func|math|memref|moa|scf|vector)[.][a-z_]+}}"(
func.func @sums_of_exponentials(%a: tensor<?x4xf64>) -> tensor<?xf64> {
  %e = moa.map exp %a : tensor<?x4xf64> -> tensor<?x4xf64>
  %t = moa.transpose %e : tensor<?x4xf64> -> tensor<4x?xf64>
  %s = moa.reduce add %t : tensor<4x?xf64> -> tensor<?xf64>
  func.return %s : tensor<?xf64>
}
