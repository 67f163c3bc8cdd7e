// What a function costs on a machine, predicted from its normal form.

// RUN: moa-cost %s --machine edge | filecheck %s
// CHECK:      total_of_rows with n=64, d=256 on edge
// CHECK:      form: one kernel, scheduled
// CHECK:      add f32 16.4 k d*n
// CHECK:      compulsory 65.8 kB 4*n*(d + 1)
// CHECK:      level bytes bound ratio regime time energy
// CHECK:      L1 {{.*}} registers
// CHECK:      DRAM {{.*}} fits
// CHECK:      bound: compulsory
// CHECK:      time: {{.*}} us
// CHECK:      energy: {{.*}} uJ

// RUN: moa-cost %s --machine edge --json | filecheck %s --check-prefix JSON
// JSON: "machine": "edge"
// JSON: "formula": "d*n"
// JSON: "count": 16384.0

// RUN: not moa-cost %s --machine abacus 2>&1 | filecheck %s --check-prefix MACHINE
// MACHINE-NOT: Traceback
// MACHINE: moa-cost: unknown machine: expected one of host, {{.*}}, got abacus

// RUN: not moa-cost %s --machine edge --sizes n=0 2>&1 | filecheck %s --check-prefix SIZES
// SIZES-NOT: Traceback
// SIZES: moa-cost: --sizes: n: expected 1 to {{[0-9]+}}, got 0

// RUN: not moa-cost %s --machine edge --entry nothing 2>&1 | filecheck %s --check-prefix ENTRY
// ENTRY-NOT: Traceback
// ENTRY: moa-cost: {{.*}}nothing
func.func private @total(%x: tensor<256xf32>) -> tensor<f32> {
  %0 = moa.reduce add %x : tensor<256xf32> -> tensor<f32>
  func.return %0 : tensor<f32>
}
func.func @total_of_rows(%x: tensor<64x256xf32> {moa.extents = ["n", "d"]}) -> tensor<64xf32> {
  %0 = moa.omega @total <1> (%x) : (tensor<64x256xf32>) -> tensor<64xf32>
  func.return %0 : tensor<64xf32>
}
