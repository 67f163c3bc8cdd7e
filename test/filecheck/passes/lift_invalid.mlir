// RUN: not moa-opt %s -p 'moa-lift{schedule="j=procs"}' 2>&1 | filecheck %s --check-prefix=LANES
// RUN: not moa-opt %s -p 'moa-lift{schedule="i=procs,lanes:3"}' 2>&1 | filecheck %s --check-prefix=POWER
// RUN: not moa-opt %s -p 'moa-lift{schedule="i=cores:2"}' 2>&1 | filecheck %s --check-prefix=RESOURCE
// RUN: not moa-opt %s -p 'moa-lift{schedule="i"}' 2>&1 | filecheck %s --check-prefix=SYNTAX
// RUN: not moa-opt %s -p 'moa-lift{machine=z80}' 2>&1 | filecheck %s --check-prefix=MACHINE
// RUN: not moa-opt %s -p 'moa-lift{target=rocm}' 2>&1 | filecheck %s --check-prefix=TARGET
// RUN: not moa-opt %s -p 'moa-lift{target=nvptx tier=simt}' 2>&1 | filecheck %s --check-prefix=TIER
// RUN: not moa-opt %s -p 'moa-lift{target=nvptx schedule="i=procs"}' 2>&1 | filecheck %s --check-prefix=GRID

// LANES:    schedule: no axis has lanes
// POWER:    schedule: lanes are a power of 2, got 3
// RESOURCE: schedule: expected procs, chunk, block, regs, lanes, columns, pairs, aligned, ahead or each, got cores
// SYNTAX:   schedule: expected axis=resource:extent,..., separated by semicolons, got 'i'
// TARGET:   moa-lift: unknown target: expected cpu or nvptx, got rocm
// TIER:     moa-lift: unknown tier: expected portable, mma or wgmma, got simt
// GRID:     schedule: expected one of grid, groups, warps, regs, block, chunk, stages, threads, span, split, mma, wgmma, tma, ahead, behind, turns, tall, square, persistent, tf32, aligned, got procs
// MACHINE:  unknown machine: expected one of host, avx512, avx512bf16, avx2, neon, {{.*}}, or a .toml file, got z80
func.func @copy(%a: tensor<64xf32>) -> tensor<64xf32> {
  %n = moa.extent %a, 0 : tensor<64xf32>
  %s = moa.comprehension [%i < %n] -> tensor<64xf32> {
    %x = moa.at %a[%i] : tensor<64xf32>
    moa.yield %x : f32
  }
  func.return %s : tensor<64xf32>
}
