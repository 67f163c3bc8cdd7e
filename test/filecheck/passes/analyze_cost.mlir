// What a function costs is attached to it, as formulas in its extents.

// RUN: moa-opt %s -p 'moa-to-dnf,moa-analyze-cost{machine=server-x86}' | filecheck %s --check-prefix DNF
// RUN: moa-opt %s -p 'moa-to-dnf,moa-to-onf,moa-analyze-cost{machine=server-x86 extent=64}' | filecheck %s --check-prefix ONF
// RUN: moa-opt %s -p 'moa-analyze-cost{machine=server-x86 explain=true}' | filecheck %s --check-prefix EXPLAIN
// RUN: not moa-opt %s -p 'moa-analyze-cost{machine=server-x86}' 2>&1 | filecheck %s --check-prefix STAGE
// RUN: not moa-opt %s -p 'moa-to-dnf,moa-analyze-cost{machine=abacus}' 2>&1 | filecheck %s --check-prefix MACHINE
// RUN: not moa-opt %s -p 'moa-to-dnf,moa-analyze-cost{machine=server-x86 extent=0}' 2>&1 | filecheck %s --check-prefix EXTENT
// RUN: not moa-opt %s -p 'moa-to-dnf,moa-analyze-cost{machine=server-x86 explain=true}' 2>&1 | filecheck %s --check-prefix EXPLAINED

// Extents that types do not give are symbols. b does not fit the first cache: it is
// fetched for each row of a.
// DNF-LABEL: func.func @product
// DNF-SAME:    machine = "server-x86"
// DNF-SAME:    operations = {"add f32" = "a_0*a_1*b_1", "mul f32" = "a_0*a_1*b_1"}
// DNF-SAME:    compulsory = "4*a_0*a_1 + 4*a_0*b_1 + 4*a_1*b_1"
// DNF-SAME:    storage = "0"
// DNF-SAME:    bound = "-2*C + 16*a_0*a_1*b_1/sqrt(C)"
// DNF-SAME:    L2 = {bytes = "{{[^"]+}}", when = [{{.*}} > C (j)"{{.*}}]}
// DNF-SAME:    seconds = {{.*}} : f64, joules = {{.*}} : f64

// Small ones fit: each array is fetched once, the result too, before it is written.
// ONF-LABEL: func.func @product
// ONF-SAME:    L3 = {bytes = "4*a_0*a_1 + 8*a_0*b_1 + 4*a_1*b_1"
// ONF-SAME:    DRAM = {bytes = "4*a_0*a_1 + 8*a_0*b_1 + 4*a_1*b_1"

// EXPLAIN:      @product:
// EXPLAIN:      time  bottleneck   energy
// EXPLAIN:      fused
// EXPLAIN:      materialised
// EXPLAIN:      on server-x86: fuse, the fused form takes 1/1 of the time
// EXPLAIN:      func.func @product
// EXPLAIN-SAME:   choice = "fuse"

// STAGE: moa-opt: expected a function at the stage dnf, fused or onf, got moa.inner
// MACHINE: moa-opt: unknown machine: expected one of host, {{.*}}, got abacus
// EXTENT: moa-opt: moa-analyze-cost: expected an extent above 0, got 0
// EXPLAINED: moa-opt: moa-analyze-cost: explain: expected @product at the stage moa
func.func @product(%a: tensor<?x?xf32>, %b: tensor<?x?xf32>) -> tensor<?x?xf32> {
  %c = moa.inner add mul %a, %b : tensor<?x?xf32>, tensor<?x?xf32> -> tensor<?x?xf32>
  func.return %c : tensor<?x?xf32>
}
