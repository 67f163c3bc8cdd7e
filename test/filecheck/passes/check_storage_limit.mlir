// RUN: moa-opt %s -p moa-check-storage | filecheck %s
// RUN: moa-opt %s -p 'moa-check-storage{tile_bytes=1024}' --verify-diagnostics | filecheck %s --check-prefix=SMALL

// How large a tile may be is an option.

// CHECK-LABEL: func.func @tile(
func.func @tile(%b: memref<?xf64> {moa.result}) {
  %scratch = memref.alloc() : memref<16x16xf64>
  func.return
}
// SMALL: @tile: {{.*}} got memref.alloc of 2048 bytes, more than 1024
