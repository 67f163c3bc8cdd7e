"""What runs beside a kernel on the CPU: the scheduler and the warp-wide operations.

Every GPU thread is a coroutine with a row of 32-bit words, of which the first have the
meanings below. A thread that comes to a synchronising operation writes what it waits
for and its operands into its row and suspends. The scheduler resumes the threads that
are ready, then carries out the operations whose threads have all come, and writes the
results into their rows. Layouts of fragments are those of the PTX ISA, section
"Warp Level Matrix Multiply-Accumulate Instructions".
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from moa_dialect.lowering import host, loader, upstream

# The words of a thread's row.
KIND, SITE, STATUS, TID, LINEAR, MASK = 0, 1, 2, 3, 6, 7
ARGUMENT, COUNT, ADDRESS, BLOCK, QUEUE = 8, 9, 10, 12, 14
QUEUED, COMMITTED, LANDED, FENCED, PRODUCTS, REGISTERS = 16, 17, 18, 19, 20, 21
MEETING = 22
"""1 + the number of the meeting of the cluster that the thread has arrived at, or 0."""
INPUTS, OUTPUTS, BULK = 32, 48, 64
"""Operands and results of warp-wide operations, then of those of warp groups."""

# The words of a block's record.
CTAID, NCTAID, NTID, THREADS, CURRENT, ERROR = 0, 3, 6, 9, 10, 11
SHARED, RANDOM, ARRIVED, EXPECTED = 12, 14, 16, 32
CHECKS, ENTITIES, SIZE, RANGES, OTHER = 48, 49, 50, 51, 56
RANGES_AT, SHADOW, PLACE, FENCES, RESUMED = 52, 54, 58, 60, 61
CLUSTER, RANK, NUMBER, CLOCKS = 62, 64, 65, 66
BLOCK_WORDS = 68

BARRIERS = 16
"""How many barriers a block has, beside those in memory."""

# The 64-bit words of a cluster: threads that have arrived, meetings there were, threads
# that there are, blocks, then where the memory of each block is.
MET, MEETINGS, MEMBERS, BLOCKS, BASES = range(5)

# What is checked: accesses to the arrays of the launch, races, shared memory.
BOUNDS, RACES, CHECKED = 1, 2, 4

# Where a thread stands.
READY, WAITING, AT_BARRIER, ENDED, CALLING, HELD = range(6)

# What a thread waits for: warp-wide operations, then those done in Python.
START, SHUFFLE, BARRIER, ARRIVAL, WARP_BARRIER, VOTE, REDUX, ELECT = range(8)
MATRICES, MMA, MBARRIER, STORED_MATRICES, MEET = range(8, 13)
FIRST_GROUP, FIRST_CALL = 32, 64
WGMMA, WGMMA_WAIT = FIRST_GROUP, FIRST_GROUP + 1
LOAD, STORE, STORE_COMMIT, STORE_WAIT = range(FIRST_CALL, FIRST_CALL + 4)
"""Warp groups' operations, then those of one thread."""

# What a round of the scheduler ends with.
FINISHED, GOES_ON, STUCK, CALLS, FAILED = range(5)

# Failures.
(
    NEEDS_WARP,
    MISALIGNED_MATRIX,
    MISALIGNED_COPY,
    TOO_MANY_COPIES,
    COUNTS_DIFFER,
    TOO_MANY_ARRIVALS,
    NO_MBARRIER,
    NEEDS_GROUP,
    OUT_OF_BOUNDS,
    RACE,
    NO_BLOCK,
    ARRIVED_TWICE,
    NOT_ARRIVED,
    RACE_IN_ARRAYS,
) = range(1, 15)
FAILURES = {
    NEEDS_WARP: "a warp-wide operation without all 32 lanes",
    MISALIGNED_MATRIX: "an address of ldmatrix or stmatrix that is no multiple of 16",
    MISALIGNED_COPY: "an address of cp.async that is no multiple of the size copied",
    TOO_MANY_COPIES: "more copies under way than the emulator keeps",
    COUNTS_DIFFER: "a barrier that is given different numbers of threads",
    TOO_MANY_ARRIVALS: "more arrivals at an mbarrier than it expects",
    NO_MBARRIER: "an mbarrier that is not initialised, or of a block that has ended",
    OUT_OF_BOUNDS: "an access beyond the arrays of the launch or the shared memory",
    RACE: "a race: bytes of shared memory that two warps access without a barrier",
    RACE_IN_ARRAYS: "a race: bytes of an array that two warps access without a barrier",
    NEEDS_GROUP: "an operation of warp groups without all 128 threads",
    NO_BLOCK: "an address in a block that the cluster has not",
    ARRIVED_TWICE: "an arrival at the barrier of the cluster without a wait before",
    NOT_ARRIVED: "a wait at the barrier of the cluster without an arrival before",
}

ARENA_BYTES = 1 << 18
"""The memory of a block and what lies behind it; it is aligned to its size."""

QUEUE_CAPACITY = 1024
"""How many copies of a thread may be under way; each takes four 64-bit words."""

# Kinds of shuffles, votes and reductions, as the row's argument says them.
SHUFFLES = {"bfly": 0, "up": 1, "down": 2, "idx": 3}
VOTES = {"any": 0, "all": 1, "ballot": 2, "uni": 3}
REDUCTIONS = {
    "add": 0,
    "min": 1,
    "max": 2,
    "umin": 3,
    "umax": 4,
    "and": 5,
    "or": 6,
    "xor": 7,
}
MMA_SHAPES = {
    ("bf16", 16): 0,
    ("f16", 16): 1,
    ("bf16", 8): 2,
    ("f16", 8): 3,
    ("tf32", 8): 4,
    ("tf32", 4): 5,
    ("f64", 4): 6,
}
"""Element type and k of a product: the row's argument. All but f64 are m16n8."""

_RUN = """
// Resumes thread %t; gives whether the round has to stop.
func.func private @resume(%T: !rows, %H: !handles, %B: !words, %t: index) -> i1 {
  %h = memref.load %H[%t] : !handles
  %p = llvm.inttoptr %h : i64 to !llvm.ptr
  %n = memref.load %B[%c{RESUMED}] : !words
  %n1 = arith.addi %n, %i1 : i32
  memref.store %n1, %B[%c{RESUMED}] : !words
  llvm.intr.coro.resume %p : !llvm.ptr
  %done = llvm.call_intrinsic "llvm.coro.done"(%p) : (!llvm.ptr) -> i1
  %kind = memref.load %T[%t, %c{KIND}] : !rows
  %calls0 = arith.cmpi sge, %kind, %i{FIRST_CALL} : i32
  %not = arith.xori %done, %true : i1
  %calls = arith.andi %calls0, %not : i1
  %s0 = arith.select %calls, %i{CALLING}, %i{WAITING} : i32
  %s = arith.select %done, %i{ENDED}, %s0 : i32
  memref.store %s, %T[%t, %c{STATUS}] : !rows
  scf.if %calls {
    %ti = arith.index_cast %t : index to i32
    memref.store %ti, %B[%c{CURRENT}] : !words
  }
  %e = memref.load %B[%c{ERROR}] : !words
  %failed = arith.cmpi ne, %e, %i0 : i32
  %stop = arith.ori %calls, %failed : i1
  return %stop : i1
}

// One round of the warp at a place of the order: what it ends with.
func.func private @warp(
    %T: !rows, %H: !handles, %O: !words, %B: !words, %at: index) -> i32 {
  %first = arith.muli %at, %c32 : index
  %r:2 = scf.for %i = %c0 to %c32 step %c1
      iter_args(%went = %false, %stop = %false) -> (i1, i1) {
    %o = arith.addi %first, %i : index
    %t32 = memref.load %O[%o] : !words
    %t = arith.index_cast %t32 : i32 to index
    %s = memref.load %T[%t, %c{STATUS}] : !rows
    %ready = arith.cmpi eq, %s, %i{READY} : i32
    %on = arith.xori %stop, %true : i1
    %go = arith.andi %ready, %on : i1
    %st = scf.if %go -> (i1) {
      %x = func.call @resume(%T, %H, %B, %t) : (!rows, !handles, !words, index) -> i1
      scf.yield %x : i1
    } else {
      scf.yield %stop : i1
    }
    %w = arith.ori %went, %go : i1
    scf.yield %w, %st : i1, i1
  }
  %result = scf.if %r#1 -> (i32) {
    scf.yield %i{CALLS} : i32
  } else {
    %t32 = memref.load %O[%first] : !words
    %t = arith.index_cast %t32 : i32 to index
    %w = arith.divui %t, %c32 : index
    %base = arith.muli %w, %c32 : index
    %x = func.call @together(%T, %B, %base) : (!rows, !words, index) -> i1
    %e = memref.load %B[%c{ERROR}] : !words
    %failed = arith.cmpi ne, %e, %i0 : i32
    %kind = memref.load %B[%c{CURRENT}] : !words
    %calls = arith.cmpi sge, %kind, %i0 : i32
    %stops = arith.ori %failed, %calls : i1
    %on = arith.ori %r#0, %x : i1
    %y = arith.select %on, %i{GOES_ON}, %i{STUCK} : i32
    %z = arith.select %stops, %i{CALLS}, %y : i32
    scf.yield %z : i32
  }
  return %result : i32
}

// Rounds of a warp until it has to wait for others; only one if the order is random.
func.func private @turn(
    %T: !rows, %H: !handles, %O: !words, %B: !words, %at: index, %random: i1) -> i32 {
  %first = func.call @warp(%T, %H, %O, %B, %at)
    : (!rows, !handles, !words, !words, index) -> i32
  %went = arith.cmpi ne, %first, %i{STUCK} : i32
  %again = arith.xori %random, %true : i1
  %last = scf.while (%s = %first) : (i32) -> i32 {
    %on = arith.cmpi eq, %s, %i{GOES_ON} : i32
    %go = arith.andi %on, %again : i1
    scf.condition(%go) %s : i32
  } do {
  ^bb0(%s: i32):
    %r = func.call @warp(%T, %H, %O, %B, %at)
      : (!rows, !handles, !words, !words, index) -> i32
    scf.yield %r : i32
  }
  %calls = arith.cmpi eq, %last, %i{CALLS} : i32
  %x = arith.select %went, %i{GOES_ON}, %i{STUCK} : i32
  %y = arith.select %calls, %last, %x : i32
  return %y : i32
}

// Runs the threads of a block until none can go on or Python is called.
func.func @moa_emulator_run(
    %T: !rows, %H: !handles, %O: !words, %B: !words) -> i32 {
  %n = memref.dim %O, %c0 : !words
  %warps = arith.divui %n, %c32 : index
  memref.store %m1, %B[%c{CURRENT}] : !words
  %end = scf.while (%state = %i{GOES_ON}) : (i32) -> i32 {
    %go = arith.cmpi eq, %state, %i{GOES_ON} : i32
    scf.condition(%go) %state : i32
  } do {
  ^bb0(%state: i32):
    %skipping = memref.load %B[%c{RANDOM}] : !words
    %random = arith.cmpi ne, %skipping, %i0 : i32
    %s = scf.for %at = %c0 to %warps step %c1 iter_args(%so = %i{STUCK}) -> (i32) {
      %stopped = arith.cmpi eq, %so, %i{CALLS} : i32
      // A warp is passed over in half of the rounds, if the order is random.
      %x0 = memref.load %B[%c{RANDOM}] : !words
      %x1 = arith.muli %x0, %i1664525 : i32
      %x2 = arith.addi %x1, %i1013904223 : i32
      %x3 = arith.ori %x2, %i1 : i32
      scf.if %random {
        memref.store %x3, %B[%c{RANDOM}] : !words
      }
      %high = arith.cmpi slt, %x3, %i0 : i32
      %pass = arith.andi %high, %random : i1
      %out = scf.if %stopped -> (i32) {
        scf.yield %so : i32
      } else {
        %out1 = scf.if %pass -> (i32) {
          scf.yield %i{GOES_ON} : i32
        } else {
          %r = func.call @turn(%T, %H, %O, %B, %at, %random)
            : (!rows, !handles, !words, !words, index, i1) -> i32
          scf.yield %r : i32
        }
        %going = arith.cmpi eq, %so, %i{GOES_ON} : i32
        %stuck = arith.cmpi eq, %out1, %i{STUCK} : i32
        %keep = arith.andi %going, %stuck : i1
        %out2 = arith.select %keep, %i{GOES_ON}, %out1 : i32
        scf.yield %out2 : i32
      }
      scf.yield %out : i32
    }
    %live = scf.for %t = %c0 to %n step %c1 iter_args(%any = %false) -> (i1) {
      %st = memref.load %T[%t, %c{STATUS}] : !rows
      %l = arith.cmpi ne, %st, %i{ENDED} : i32
      %a = arith.ori %any, %l : i1
      scf.yield %a : i1
    }
    %stopped = arith.cmpi eq, %s, %i{CALLS} : i32
    %or = arith.ori %live, %stopped : i1
    %f = arith.select %or, %s, %i{FINISHED} : i32
    scf.yield %f : i32
  }
  return %end : i32
}

// Starts the threads of a block; each waits before its first operation.
func.func @moa_emulator_start(
    %f: !llvm.ptr, %words: !llvm.ptr, %T: !rows, %H: !handles, %threads: index) {
  %x = memref.extract_aligned_pointer_as_index %T : !rows -> index
  %d = memref.dim %T, %c1 : !rows
  %stride = arith.muli %d, %c4 : index
  scf.for %t = %c0 to %threads step %c1 {
    %o = arith.muli %t, %stride : index
    %a = arith.addi %x, %o : index
    %a64 = arith.index_cast %a : index to i64
    %row = llvm.inttoptr %a64 : i64 to !llvm.ptr
    %h = llvm.call %f(%words, %row) : !llvm.ptr, (!llvm.ptr, !llvm.ptr) -> !llvm.ptr
    %h64 = llvm.ptrtoint %h : !llvm.ptr to i64
    memref.store %h64, %H[%t] : !handles
  }
  return
}

func.func @moa_emulator_end(%H: !handles, %threads: index) {
  scf.for %t = %c0 to %threads step %c1 {
    %h = memref.load %H[%t] : !handles
    %p = llvm.inttoptr %h : i64 to !llvm.ptr
    llvm.call_intrinsic "llvm.coro.destroy"(%p) : (!llvm.ptr) -> ()
  }
  return
}
"""

_TOGETHER = """
// Carries out the operations of a warp whose threads have all come.
func.func private @together(%T: !rows, %B: !words, %base: index) -> i1 {
  %live = scf.for %l = %c0 to %c32 step %c1 iter_args(%m = %i0) -> (i32) {
    %t = arith.addi %base, %l : index
    %s = memref.load %T[%t, %c{STATUS}] : !rows
    %on = arith.cmpi ne, %s, %i{ENDED} : i32
    %li = arith.index_cast %l : index to i32
    %bit = arith.shli %i1, %li : i32
    %b = arith.select %on, %bit, %i0 : i32
    %n = arith.ori %m, %b : i32
    scf.yield %n : i32
  }
  %r = scf.for %l = %c0 to %c32 step %c1 iter_args(%any = %false) -> (i1) {
    %t = arith.addi %base, %l : index
    %s = memref.load %T[%t, %c{STATUS}] : !rows
    %waits = arith.cmpi eq, %s, %i{WAITING} : i32
    %did = scf.if %waits -> (i1) {
      %mask = memref.load %T[%t, %c{MASK}] : !rows
      %site = memref.load %T[%t, %c{SITE}] : !rows
      %need = arith.andi %mask, %live : i32
      %here = scf.for %k = %c0 to %c32 step %c1 iter_args(%m = %i0) -> (i32) {
        %u = arith.addi %base, %k : index
        %us = memref.load %T[%u, %c{STATUS}] : !rows
        %ui = memref.load %T[%u, %c{SITE}] : !rows
        %e0 = arith.cmpi eq, %us, %i{WAITING} : i32
        %e1 = arith.cmpi eq, %ui, %site : i32
        %e = arith.andi %e0, %e1 : i1
        %ki = arith.index_cast %k : index to i32
        %bit = arith.shli %i1, %ki : i32
        %b = arith.select %e, %bit, %i0 : i32
        %n = arith.ori %m, %b : i32
        scf.yield %n : i32
      }
      %have = arith.andi %here, %need : i32
      %all = arith.cmpi eq, %have, %need : i32
      %d = scf.if %all -> (i1) {
        %x = func.call @execute(%T, %B, %base, %t, %need)
          : (!rows, !words, index, index, i32) -> i1
        scf.yield %x : i1
      } else {
        scf.yield %false : i1
      }
      scf.yield %d : i1
    } else {
      scf.yield %false : i1
    }
    %o = arith.ori %any, %did : i1
    scf.yield %o : i1
  }
  return %r : i1
}

// Sets the status of the lanes of a mask.
func.func private @set(%T: !rows, %base: index, %mask: i32, %status: i32) {
  scf.for %l = %c0 to %c32 step %c1 {
    %li = arith.index_cast %l : index to i32
    %x = arith.shrui %mask, %li : i32
    %bit = arith.trunci %x : i32 to i1
    scf.if %bit {
      %t = arith.addi %base, %l : index
      memref.store %status, %T[%t, %c{STATUS}] : !rows
    }
  }
  return
}

func.func private @fail(%B: !words, %t: index, %code: i32) {
  %ti = arith.index_cast %t : index to i32
  memref.store %code, %B[%c{ERROR}] : !words
  memref.store %ti, %B[%c{CURRENT}] : !words
  return
}

// Carries out the operation that the lanes %need wait for, of which %t is one.
func.func private @execute(
    %T: !rows, %B: !words, %base: index, %t: index, %need: i32) -> i1 {
  %kind32 = memref.load %T[%t, %c{KIND}] : !rows
  %kind = arith.index_cast %kind32 : i32 to index
  %arg = memref.load %T[%t, %c{ARGUMENT}] : !rows
  %went = scf.index_switch %kind -> i1
  case {SHUFFLE} {
    func.call @shuffle(%T, %base, %arg, %need) : (!rows, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {VOTE} {
    func.call @vote(%T, %base, %arg, %need) : (!rows, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {REDUX} {
    func.call @redux(%T, %base, %arg, %need) : (!rows, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {WARP_BARRIER} {
    scf.yield %true : i1
  }
  case {MATRICES} {
    func.call @matrices(%T, %B, %base, %arg, %need)
      : (!rows, !words, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {STORED_MATRICES} {
    func.call @store_matrices(%T, %B, %base, %arg, %need)
      : (!rows, !words, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {MMA} {
    func.call @mma(%T, %B, %base, %arg, %need) : (!rows, !words, index, i32, i32) -> ()
    scf.yield %true : i1
  }
  case {MBARRIER} {
    %lo = memref.load %T[%t, %c{ADDRESS}] : !rows
    %hi = memref.load %T[%t, %c{ADDRESS + 1}] : !rows
    %p = func.call @pointer(%lo, %hi) : (i32, i32) -> !llvm.ptr
    %state = llvm.load %p : !llvm.ptr -> i64
    %phase64 = arith.andi %state, %l1 : i64
    %phase = arith.trunci %phase64 : i64 to i32
    %expected0 = arith.shrui %state, %l21 : i64
    %expected = arith.andi %expected0, %l1048575 : i64
    %wild = arith.cmpi eq, %expected, %l1048575 : i64
    scf.if %wild {
      func.call @fail(%B, %t, %i{NO_MBARRIER}) : (!words, index, i32) -> ()
    }
    %over = arith.cmpi ne, %phase, %arg : i32
    scf.if %over {
      %thread = func.call @thread_of(%T, %t) : (!rows, index) -> !llvm.ptr
      %same = func.call @moa_emulator_access(%thread, %p, %i8, %i0)
        : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
      %block = func.call @block_of(%B) : (!words) -> !llvm.ptr
      %warp = func.call @warp_of(%t) : (index) -> i32
      %row = func.call @slot(%block, %p) : (!llvm.ptr, !llvm.ptr) -> i32
      func.call @acquire(%block, %warp, %row) : (!llvm.ptr, i32, i32) -> ()
    }
    scf.yield %over : i1
  }
  case {MEET} {
    %lo = memref.load %B[%c{CLUSTER}] : !words
    %hi = memref.load %B[%c{CLUSTER + 1}] : !words
    %p = func.call @pointer(%lo, %hi) : (i32, i32) -> !llvm.ptr
    %np = llvm.getelementptr %p[{MEETINGS}] : (!llvm.ptr) -> !llvm.ptr, i64
    %n = llvm.load %np : !llvm.ptr -> i64
    %n32 = arith.trunci %n : i64 to i32
    %over = arith.cmpi ne, %n32, %arg : i32
    scf.yield %over : i1
  }
  default {
    scf.yield %false : i1
  }
  scf.if %went {
    func.call @set(%T, %base, %need, %i{READY}) : (!rows, index, i32, i32) -> ()
  }
  %sync = arith.cmpi eq, %kind32, %i{BARRIER} : i32
  %arrival = arith.cmpi eq, %kind32, %i{ARRIVAL} : i32
  %barrier = arith.ori %sync, %arrival : i1
  scf.if %barrier {
    %s = arith.select %sync, %i{AT_BARRIER}, %i{READY} : i32
    func.call @set(%T, %base, %need, %s) : (!rows, index, i32, i32) -> ()
    func.call @barrier(%T, %B, %t, %arg, %need) : (!rows, !words, index, i32, i32) -> ()
  }
  %group0 = arith.cmpi sge, %kind32, %i{FIRST_GROUP} : i32
  %group1 = arith.cmpi slt, %kind32, %i{FIRST_CALL} : i32
  %group = arith.andi %group0, %group1 : i1
  scf.if %group {
    func.call @group(%T, %B, %base, %t) : (!rows, !words, index, index) -> ()
  }
  %r = arith.ori %went, %barrier : i1
  return %r : i1
}

// An operation of a warp group is done in Python when all its threads have come.
func.func private @group(%T: !rows, %B: !words, %base: index, %t: index) {
  %g = arith.divui %base, %c128 : index
  %first = arith.muli %g, %c128 : index
  %end = arith.addi %first, %c128 : index
  %rows = memref.dim %T, %c0 : !rows
  %fits = arith.cmpi ule, %end, %rows : index
  scf.if %fits {
    %site = memref.load %T[%t, %c{SITE}] : !rows
    %all = scf.for %u = %first to %end step %c1 iter_args(%a = %true) -> (i1) {
      %us = memref.load %T[%u, %c{STATUS}] : !rows
      %ui = memref.load %T[%u, %c{SITE}] : !rows
      %e0 = arith.cmpi eq, %us, %i{WAITING} : i32
      %e1 = arith.cmpi eq, %ui, %site : i32
      %e = arith.andi %e0, %e1 : i1
      %b = arith.andi %a, %e : i1
      scf.yield %b : i1
    }
    scf.if %all {
      %f = arith.index_cast %first : index to i32
      memref.store %f, %B[%c{CURRENT}] : !words
    }
  } else {
    func.call @fail(%B, %t, %i{NEEDS_GROUP}) : (!words, index, i32) -> ()
  }
  return
}

func.func private @pointer(%lo: i32, %hi: i32) -> !llvm.ptr {
  %lo64 = arith.extui %lo : i32 to i64
  %hi64 = arith.extui %hi : i32 to i64
  %h = arith.shli %hi64, %l32 : i64
  %a = arith.ori %h, %lo64 : i64
  %p = llvm.inttoptr %a : i64 to !llvm.ptr
  return %p : !llvm.ptr
}

// The lanes %need come to barrier %id of the block.
func.func private @barrier(
    %T: !rows, %B: !words, %t: index, %id: i32, %need: i32) {
  %n0 = memref.load %T[%t, %c{COUNT}] : !rows
  %threads = memref.load %B[%c{THREADS}] : !words
  %whole = arith.cmpi eq, %n0, %i0 : i32
  %n = arith.select %whole, %threads, %n0 : i32
  %i = arith.index_cast %id : i32 to index
  %ia = arith.addi %i, %c{ARRIVED} : index
  %ie = arith.addi %i, %c{EXPECTED} : index
  %e = memref.load %B[%ie] : !words
  %fresh = arith.cmpi eq, %e, %i0 : i32
  %same = arith.cmpi eq, %e, %n : i32
  %fits = arith.ori %fresh, %same : i1
  scf.if %fits {
  } else {
    func.call @fail(%B, %t, %i{COUNTS_DIFFER}) : (!words, index, i32) -> ()
  }
  memref.store %n, %B[%ie] : !words
  %block = func.call @block_of(%B) : (!words) -> !llvm.ptr
  %entities = memref.load %B[%c{ENTITIES}] : !words
  %row = arith.addi %entities, %id : i32
  %warp = func.call @warp_of(%t) : (index) -> i32
  func.call @release(%block, %warp, %row) : (!llvm.ptr, i32, i32) -> ()
  %come = math.ctpop %need : i32
  %a0 = memref.load %B[%ia] : !words
  %a = arith.addi %a0, %come : i32
  %full = arith.cmpi sge, %a, %n : i32
  %left = arith.select %full, %i0, %a : i32
  memref.store %left, %B[%ia] : !words
  scf.if %full {
    memref.store %i0, %B[%ie] : !words
    %all = memref.dim %T, %c0 : !rows
    scf.for %u = %c0 to %all step %c1 {
      %s = memref.load %T[%u, %c{STATUS}] : !rows
      %ui = memref.load %T[%u, %c{ARGUMENT}] : !rows
      %at = arith.cmpi eq, %s, %i{AT_BARRIER} : i32
      %this = arith.cmpi eq, %ui, %id : i32
      %go = arith.andi %at, %this : i1
      scf.if %go {
        memref.store %i{READY}, %T[%u, %c{STATUS}] : !rows
        %uw = func.call @warp_of(%u) : (index) -> i32
        func.call @acquire(%block, %uw, %row) : (!llvm.ptr, i32, i32) -> ()
      }
    }
    func.call @forget(%block, %row) : (!llvm.ptr, i32) -> ()
  }
  return
}

// shfl.sync: inputs are value, offset or lane, and clamp with segment mask.
func.func private @shuffle(%T: !rows, %base: index, %mode32: i32, %need: i32) {
  %mode = arith.index_cast %mode32 : i32 to index
  scf.for %l = %c0 to %c32 step %c1 {
    %lane = arith.index_cast %l : index to i32
    %t = arith.addi %base, %l : index
    %x = memref.load %T[%t, %c{INPUTS}] : !rows
    %b0 = memref.load %T[%t, %c{INPUTS + 1}] : !rows
    %c = memref.load %T[%t, %c{INPUTS + 2}] : !rows
    %b = arith.andi %b0, %i31 : i32
    %clamp = arith.andi %c, %i31 : i32
    %seg0 = arith.shrui %c, %i8 : i32
    %seg = arith.andi %seg0, %i31 : i32
    %notseg = arith.xori %seg, %i31 : i32
    %low = arith.andi %lane, %seg : i32
    %up = arith.andi %clamp, %notseg : i32
    %bound = arith.ori %low, %up : i32
    %j = scf.index_switch %mode -> i32
    case 0 {
      %r = arith.xori %lane, %b : i32
      scf.yield %r : i32
    }
    case 1 {
      %r = arith.subi %lane, %b : i32
      scf.yield %r : i32
    }
    case 2 {
      %r = arith.addi %lane, %b : i32
      scf.yield %r : i32
    }
    default {
      %in = arith.andi %b, %notseg : i32
      %r = arith.ori %low, %in : i32
      scf.yield %r : i32
    }
    %ge = arith.cmpi sge, %j, %bound : i32
    %le = arith.cmpi sle, %j, %bound : i32
    %isup = arith.cmpi eq, %mode32, %i1 : i32
    %valid = arith.select %isup, %ge, %le : i1
    %k = arith.select %valid, %j, %lane : i32
    %ki = arith.index_cast %k : i32 to index
    %u = arith.addi %base, %ki : index
    %y = memref.load %T[%u, %c{INPUTS}] : !rows
    // What a lane that takes no part has is undefined.
    %on0 = arith.shrui %need, %k : i32
    %on = arith.trunci %on0 : i32 to i1
    %z = arith.select %on, %y, %m1 : i32
    %v = arith.extui %valid : i1 to i32
    memref.store %z, %T[%t, %c{OUTPUTS}] : !rows
    memref.store %v, %T[%t, %c{OUTPUTS + 1}] : !rows
  }
  return
}

// vote.sync and elect.sync: the input is a predicate.
func.func private @vote(%T: !rows, %base: index, %mode32: i32, %need: i32) {
  %mode = arith.index_cast %mode32 : i32 to index
  %ballot = scf.for %l = %c0 to %c32 step %c1 iter_args(%m = %i0) -> (i32) {
    %lane = arith.index_cast %l : index to i32
    %t = arith.addi %base, %l : index
    %x = memref.load %T[%t, %c{INPUTS}] : !rows
    %x1 = arith.andi %x, %i1 : i32
    %bit = arith.shli %x1, %lane : i32
    %n = arith.ori %m, %bit : i32
    scf.yield %n : i32
  }
  %set = arith.andi %ballot, %need : i32
  %any = arith.cmpi ne, %set, %i0 : i32
  %all = arith.cmpi eq, %set, %need : i32
  %none = arith.xori %any, %true : i1
  %uni = arith.ori %all, %none : i1
  %anyi = arith.extui %any : i1 to i32
  %alli = arith.extui %all : i1 to i32
  %unii = arith.extui %uni : i1 to i32
  %first = math.cttz %need : i32
  scf.for %l = %c0 to %c32 step %c1 {
    %lane = arith.index_cast %l : index to i32
    %leads0 = arith.cmpi eq, %lane, %first : i32
    %leads = arith.extui %leads0 : i1 to i32
    %r = scf.index_switch %mode -> i32
    case 0 { scf.yield %anyi : i32 }
    case 1 { scf.yield %alli : i32 }
    case 2 { scf.yield %set : i32 }
    case 3 { scf.yield %unii : i32 }
    default { scf.yield %leads : i32 }
    %t = arith.addi %base, %l : index
    memref.store %r, %T[%t, %c{OUTPUTS}] : !rows
  }
  return
}

// redux.sync of 32-bit integers.
func.func private @redux(%T: !rows, %base: index, %mode32: i32, %need: i32) {
  %mode = arith.index_cast %mode32 : i32 to index
  %first = math.cttz %need : i32
  %f = arith.index_cast %first : i32 to index
  %tf = arith.addi %base, %f : index
  %init = memref.load %T[%tf, %c{INPUTS}] : !rows
  %from = arith.addi %f, %c1 : index
  %sum = scf.for %l = %from to %c32 step %c1 iter_args(%a = %init) -> (i32) {
    %lane = arith.index_cast %l : index to i32
    %on0 = arith.shrui %need, %lane : i32
    %on = arith.trunci %on0 : i32 to i1
    %t = arith.addi %base, %l : index
    %x = memref.load %T[%t, %c{INPUTS}] : !rows
    %r = scf.index_switch %mode -> i32
    case 0 { %y = arith.addi %a, %x : i32 scf.yield %y : i32 }
    case 1 { %y = arith.minsi %a, %x : i32 scf.yield %y : i32 }
    case 2 { %y = arith.maxsi %a, %x : i32 scf.yield %y : i32 }
    case 3 { %y = arith.minui %a, %x : i32 scf.yield %y : i32 }
    case 4 { %y = arith.maxui %a, %x : i32 scf.yield %y : i32 }
    case 5 { %y = arith.andi %a, %x : i32 scf.yield %y : i32 }
    case 6 { %y = arith.ori %a, %x : i32 scf.yield %y : i32 }
    default { %y = arith.xori %a, %x : i32 scf.yield %y : i32 }
    %z = arith.select %on, %r, %a : i32
    scf.yield %z : i32
  }
  scf.for %l = %c0 to %c32 step %c1 {
    %t = arith.addi %base, %l : index
    memref.store %sum, %T[%t, %c{OUTPUTS}] : !rows
  }
  return
}
"""

_MATRICES = """
// ldmatrix: lane 8 m + r has the address of row r of matrix m; %arg is the number of
// matrices, plus 16 for .trans.
func.func private @matrices(
    %T: !rows, %B: !words, %base: index, %arg: i32, %need: i32) {
  %whole = arith.cmpi eq, %need, %m1 : i32
  scf.if %whole {
    %n32 = arith.andi %arg, %i15 : i32
    %n = arith.index_cast %n32 : i32 to index
    %trans = arith.cmpi sge, %arg, %i16 : i32
    %tile = memref.alloca() : memref<8x8xi16>
    scf.for %m = %c0 to %n step %c1 {
      scf.for %r = %c0 to %c8 step %c1 {
        %m8 = arith.muli %m, %c8 : index
        %l = arith.addi %m8, %r : index
        %t = arith.addi %base, %l : index
        %p = func.call @row(%T, %B, %t, %i0)
          : (!rows, !words, index, i32) -> !llvm.ptr
        %x = llvm.load %p {alignment = 2 : i64} : !llvm.ptr -> vector<8xi16>
        vector.store %x, %tile[%r, %c0] : memref<8x8xi16>, vector<8xi16>
      }
      %to = arith.addi %m, %c{OUTPUTS} : index
      scf.for %l = %c0 to %c32 step %c1 {
        %t = arith.addi %base, %l : index
        %g = arith.divui %l, %c4 : index
        %q = arith.remui %l, %c4 : index
        %k0 = arith.muli %q, %c2 : index
        %k1 = arith.addi %k0, %c1 : index
        %i0_ = arith.select %trans, %k0, %g : index
        %j0_ = arith.select %trans, %g, %k0 : index
        %i1_ = arith.select %trans, %k1, %g : index
        %j1_ = arith.select %trans, %g, %k1 : index
        %a = memref.load %tile[%i0_, %j0_] : memref<8x8xi16>
        %b = memref.load %tile[%i1_, %j1_] : memref<8x8xi16>
        %a32 = arith.extui %a : i16 to i32
        %b32 = arith.extui %b : i16 to i32
        %bh = arith.shli %b32, %i16 : i32
        %w = arith.ori %a32, %bh : i32
        memref.store %w, %T[%t, %to] : !rows
      }
    }
  } else {
    func.call @fail(%B, %base, %i{NEEDS_WARP}) : (!words, index, i32) -> ()
  }
  return
}

// stmatrix: the inverse; the words are the inputs.
func.func private @store_matrices(
    %T: !rows, %B: !words, %base: index, %arg: i32, %need: i32) {
  %whole = arith.cmpi eq, %need, %m1 : i32
  scf.if %whole {
    %n32 = arith.andi %arg, %i15 : i32
    %n = arith.index_cast %n32 : i32 to index
    %trans = arith.cmpi sge, %arg, %i16 : i32
    %tile = memref.alloca() : memref<8x8xi16>
    scf.for %m = %c0 to %n step %c1 {
      %from = arith.addi %m, %c{INPUTS} : index
      scf.for %l = %c0 to %c32 step %c1 {
        %t = arith.addi %base, %l : index
        %g = arith.divui %l, %c4 : index
        %q = arith.remui %l, %c4 : index
        %k0 = arith.muli %q, %c2 : index
        %k1 = arith.addi %k0, %c1 : index
        %i0_ = arith.select %trans, %k0, %g : index
        %j0_ = arith.select %trans, %g, %k0 : index
        %i1_ = arith.select %trans, %k1, %g : index
        %j1_ = arith.select %trans, %g, %k1 : index
        %w = memref.load %T[%t, %from] : !rows
        %a = arith.trunci %w : i32 to i16
        %h = arith.shrui %w, %i16 : i32
        %b = arith.trunci %h : i32 to i16
        memref.store %a, %tile[%i0_, %j0_] : memref<8x8xi16>
        memref.store %b, %tile[%i1_, %j1_] : memref<8x8xi16>
      }
      scf.for %r = %c0 to %c8 step %c1 {
        %m8 = arith.muli %m, %c8 : index
        %l = arith.addi %m8, %r : index
        %t = arith.addi %base, %l : index
        %p = func.call @row(%T, %B, %t, %i1)
          : (!rows, !words, index, i32) -> !llvm.ptr
        %x = vector.load %tile[%r, %c0] : memref<8x8xi16>, vector<8xi16>
        llvm.store %x, %p {alignment = 2 : i64} : vector<8xi16>, !llvm.ptr
      }
    }
  } else {
    func.call @fail(%B, %base, %i{NEEDS_WARP}) : (!words, index, i32) -> ()
  }
  return
}

// The address that a lane gives of a row of a matrix.
func.func private @row(
    %T: !rows, %B: !words, %t: index, %write: i32) -> !llvm.ptr {
  %lo = memref.load %T[%t, %c{ADDRESS}] : !rows
  %hi = memref.load %T[%t, %c{ADDRESS + 1}] : !rows
  %p = func.call @pointer(%lo, %hi) : (i32, i32) -> !llvm.ptr
  %low = arith.andi %lo, %i15 : i32
  %skew = arith.cmpi ne, %low, %i0 : i32
  scf.if %skew {
    func.call @fail(%B, %t, %i{MISALIGNED_MATRIX}) : (!words, index, i32) -> ()
  }
  %thread = func.call @thread_of(%T, %t) : (!rows, index) -> !llvm.ptr
  %safe = func.call @moa_emulator_access(%thread, %p, %i16, %write)
    : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
  return %safe : !llvm.ptr
}

// Where the row of a thread is.
func.func private @thread_of(%T: !rows, %t: index) -> !llvm.ptr {
  %x = memref.extract_aligned_pointer_as_index %T : !rows -> index
  %d = memref.dim %T, %c1 : !rows
  %stride = arith.muli %d, %c4 : index
  %o = arith.muli %t, %stride : index
  %a = arith.addi %x, %o : index
  %a64 = arith.index_cast %a : index to i64
  %thread = llvm.inttoptr %a64 : i64 to !llvm.ptr
  return %thread : !llvm.ptr
}

// The two numbers of 16 bits in a word: bf16 if %brain, else f16.
func.func private @pair(%w: i32, %brain: i1) -> (f32, f32) {
  %lo = arith.shli %w, %i16 : i32
  %hi = arith.andi %w, %m65536 : i32
  %b0 = arith.bitcast %lo : i32 to f32
  %b1 = arith.bitcast %hi : i32 to f32
  %l16 = arith.trunci %w : i32 to i16
  %h32 = arith.shrui %w, %i16 : i32
  %h16 = arith.trunci %h32 : i32 to i16
  %lh = arith.bitcast %l16 : i16 to f16
  %hh = arith.bitcast %h16 : i16 to f16
  %f0 = arith.extf %lh : f16 to f32
  %f1 = arith.extf %hh : f16 to f32
  %x = arith.select %brain, %b0, %f0 : f32
  %y = arith.select %brain, %b1, %f1 : f32
  return %x, %y : f32, f32
}

// mma.sync; inputs are the registers of A, B and C, outputs those of D.
func.func private @mma(
    %T: !rows, %B: !words, %base: index, %arg: i32, %need: i32) {
  %whole = arith.cmpi eq, %need, %m1 : i32
  scf.if %whole {
    %f64 = arith.cmpi eq, %arg, %i6 : i32
    scf.if %f64 {
      func.call @mma_f64(%T, %base) : (!rows, index) -> ()
    } else {
      func.call @mma_f32(%T, %base, %arg) : (!rows, index, i32) -> ()
    }
  } else {
    func.call @fail(%B, %base, %i{NEEDS_WARP}) : (!words, index, i32) -> ()
  }
  return
}

func.func private @mma_f32(%T: !rows, %base: index, %arg: i32) {
  %a = memref.alloca() {alignment = 64 : i64} : memref<16x16xf32>
  %b = memref.alloca() {alignment = 64 : i64} : memref<16x8xf32>
  %c = memref.alloca() {alignment = 64 : i64} : memref<16x8xf32>
  %tf32 = arith.cmpi sge, %arg, %i4 : i32
  %odd0 = arith.andi %arg, %i1 : i32
  %brain = arith.cmpi eq, %odd0, %i0 : i32
  // Registers of A: 4, but 2 for k = 8 of 16 bits and k = 4 of tf32; half for B.
  %is2 = arith.cmpi eq, %arg, %i2 : i32
  %is3 = arith.cmpi eq, %arg, %i3 : i32
  %is5 = arith.cmpi eq, %arg, %i5 : i32
  %few0 = arith.ori %is2, %is3 : i1
  %few = arith.ori %few0, %is5 : i1
  %na = arith.select %few, %c2, %c4 : index
  %nb = arith.divui %na, %c2 : index
  %width = arith.select %tf32, %c4, %c8 : index
  %depth = arith.muli %nb, %width : index
  %in_b = arith.addi %na, %c{INPUTS} : index
  %in_c = arith.addi %in_b, %nb : index
  scf.for %l = %c0 to %c32 step %c1 {
    %t = arith.addi %base, %l : index
    %g = arith.divui %l, %c4 : index
    %q = arith.remui %l, %c4 : index
    %g8 = arith.addi %g, %c8 : index
    %q2 = arith.muli %q, %c2 : index
    %q21 = arith.addi %q2, %c1 : index
    scf.if %tf32 {
      scf.for %r = %c0 to %na step %c1 {
        %from = arith.addi %r, %c{INPUTS} : index
        %w = memref.load %T[%t, %from] : !rows
        // The hardware does not read the lower 13 bits.
        %cut = arith.andi %w, %m8192 : i32
        %x = arith.bitcast %cut : i32 to f32
        %half = arith.divui %r, %c2 : index
        %par = arith.remui %r, %c2 : index
        %p8 = arith.muli %par, %c8 : index
        %row = arith.addi %g, %p8 : index
        %h4 = arith.muli %half, %c4 : index
        %col = arith.addi %q, %h4 : index
        memref.store %x, %a[%row, %col] : memref<16x16xf32>
      }
      scf.for %r = %c0 to %nb step %c1 {
        %from = arith.addi %r, %in_b : index
        %w = memref.load %T[%t, %from] : !rows
        %cut = arith.andi %w, %m8192 : i32
        %x = arith.bitcast %cut : i32 to f32
        %h4 = arith.muli %r, %c4 : index
        %k = arith.addi %q, %h4 : index
        memref.store %x, %b[%k, %g] : memref<16x8xf32>
      }
    } else {
      scf.for %r = %c0 to %na step %c1 {
        %from = arith.addi %r, %c{INPUTS} : index
        %w = memref.load %T[%t, %from] : !rows
        %x:2 = func.call @pair(%w, %brain) : (i32, i1) -> (f32, f32)
        %half = arith.divui %r, %c2 : index
        %par = arith.remui %r, %c2 : index
        %p8 = arith.muli %par, %c8 : index
        %row = arith.addi %g, %p8 : index
        %h8 = arith.muli %half, %c8 : index
        %k0 = arith.addi %q2, %h8 : index
        %k1 = arith.addi %k0, %c1 : index
        memref.store %x#0, %a[%row, %k0] : memref<16x16xf32>
        memref.store %x#1, %a[%row, %k1] : memref<16x16xf32>
      }
      scf.for %r = %c0 to %nb step %c1 {
        %from = arith.addi %r, %in_b : index
        %w = memref.load %T[%t, %from] : !rows
        %x:2 = func.call @pair(%w, %brain) : (i32, i1) -> (f32, f32)
        %h8 = arith.muli %r, %c8 : index
        %k0 = arith.addi %q2, %h8 : index
        %k1 = arith.addi %k0, %c1 : index
        memref.store %x#0, %b[%k0, %g] : memref<16x8xf32>
        memref.store %x#1, %b[%k1, %g] : memref<16x8xf32>
      }
    }
    scf.for %r = %c0 to %c4 step %c1 {
      %from = arith.addi %r, %in_c : index
      %w = memref.load %T[%t, %from] : !rows
      %x = arith.bitcast %w : i32 to f32
      %low = arith.cmpi ult, %r, %c2 : index
      %row = arith.select %low, %g, %g8 : index
      %par = arith.remui %r, %c2 : index
      %col = arith.addi %q2, %par : index
      memref.store %x, %c[%row, %col] : memref<16x8xf32>
    }
  }
  scf.for %i = %c0 to %c16 step %c1 {
    %c_row = vector.load %c[%i, %c0] : memref<16x8xf32>, vector<8xf32>
    %sum = scf.for %k = %c0 to %depth step %c1
        iter_args(%s = %c_row) -> (vector<8xf32>) {
      %x = memref.load %a[%i, %k] : memref<16x16xf32>
      %xs = vector.broadcast %x : f32 to vector<8xf32>
      %ys = vector.load %b[%k, %c0] : memref<16x8xf32>, vector<8xf32>
      %z = vector.fma %xs, %ys, %s : vector<8xf32>
      scf.yield %z : vector<8xf32>
    }
    vector.store %sum, %c[%i, %c0] : memref<16x8xf32>, vector<8xf32>
  }
  scf.for %l = %c0 to %c32 step %c1 {
    %t = arith.addi %base, %l : index
    %g = arith.divui %l, %c4 : index
    %q = arith.remui %l, %c4 : index
    %g8 = arith.addi %g, %c8 : index
    %q2 = arith.muli %q, %c2 : index
    scf.for %r = %c0 to %c4 step %c1 {
      %low = arith.cmpi ult, %r, %c2 : index
      %row = arith.select %low, %g, %g8 : index
      %par = arith.remui %r, %c2 : index
      %col = arith.addi %q2, %par : index
      %x = memref.load %c[%row, %col] : memref<16x8xf32>
      %w = arith.bitcast %x : f32 to i32
      %to = arith.addi %r, %c{OUTPUTS} : index
      memref.store %w, %T[%t, %to] : !rows
    }
  }
  return
}

// m8n8k4 of f64, of which each takes two words.
func.func private @mma_f64(%T: !rows, %base: index) {
  scf.for %l = %c0 to %c32 step %c1 {
    %t = arith.addi %base, %l : index
    %g = arith.divui %l, %c4 : index
    %q = arith.remui %l, %c4 : index
    scf.for %e = %c0 to %c2 step %c1 {
      %q2 = arith.muli %q, %c2 : index
      %col = arith.addi %q2, %e : index
      %e2 = arith.muli %e, %c2 : index
      %from = arith.addi %e2, %c{INPUTS + 4} : index
      %c0_ = func.call @double(%T, %t, %from) : (!rows, index, index) -> f64
      %sum = scf.for %k = %c0 to %c4 step %c1 iter_args(%s = %c0_) -> (f64) {
        %g4 = arith.muli %g, %c4 : index
        %la = arith.addi %g4, %k : index
        %ta = arith.addi %base, %la : index
        %n4 = arith.muli %col, %c4 : index
        %lb = arith.addi %n4, %k : index
        %tb = arith.addi %base, %lb : index
        %x = func.call @double(%T, %ta, %c{INPUTS}) : (!rows, index, index) -> f64
        %y = func.call @double(%T, %tb, %c{INPUTS + 2}) : (!rows, index, index) -> f64
        %z = math.fma %x, %y, %s : f64
        scf.yield %z : f64
      }
      %w = arith.bitcast %sum : f64 to i64
      %lo = arith.trunci %w : i64 to i32
      %h = arith.shrui %w, %l32 : i64
      %hi = arith.trunci %h : i64 to i32
      %to = arith.addi %e2, %c{OUTPUTS} : index
      %to1 = arith.addi %to, %c1 : index
      memref.store %lo, %T[%t, %to] : !rows
      memref.store %hi, %T[%t, %to1] : !rows
    }
  }
  return
}

func.func private @double(%T: !rows, %t: index, %from: index) -> f64 {
  %next = arith.addi %from, %c1 : index
  %lo = memref.load %T[%t, %from] : !rows
  %hi = memref.load %T[%t, %next] : !rows
  %lo64 = arith.extui %lo : i32 to i64
  %hi64 = arith.extui %hi : i32 to i64
  %h = arith.shli %hi64, %l32 : i64
  %w = arith.ori %h, %lo64 : i64
  %x = arith.bitcast %w : i64 to f64
  return %x : f64
}
"""

_COPIES = """
// cp.async: %size bytes, of which the first %bytes come from %from and the rest is
// zero, land when the thread waits for their group.
func.func @moa_emulator_copy(
    %thread: !llvm.ptr, %to: !llvm.ptr, %from: !llvm.ptr, %size: i32, %bytes: i32) {
  %to64 = llvm.ptrtoint %to : !llvm.ptr to i64
  %from64 = llvm.ptrtoint %from : !llvm.ptr to i64
  %or = arith.ori %to64, %from64 : i64
  %or32 = arith.trunci %or : i64 to i32
  %below = arith.subi %size, %i1 : i32
  %low = arith.andi %or32, %below : i32
  %skew = arith.cmpi ne, %low, %i0 : i32
  %counter = func.call @word(%thread, %i{QUEUED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %landed_p = func.call @word(%thread, %i{LANDED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %counter : !llvm.ptr -> i32
  %landed = llvm.load %landed_p : !llvm.ptr -> i32
  %under_way = arith.subi %n, %landed : i32
  %full = arith.cmpi sge, %under_way, %i{QUEUE_CAPACITY} : i32
  scf.if %skew {
    func.call @failure(%thread, %i{MISALIGNED_COPY}) : (!llvm.ptr, i32) -> ()
  } else {
    scf.if %full {
      func.call @failure(%thread, %i{TOO_MANY_COPIES}) : (!llvm.ptr, i32) -> ()
    } else {
      %size64 = arith.extui %size : i32 to i64
      %safe_to = func.call @moa_emulator_access(%thread, %to, %size, %i1)
        : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
      %read = arith.minui %bytes, %size : i32
      %safe_from = func.call @moa_emulator_access(%thread, %from, %read, %i0)
        : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
      %safe_to64 = llvm.ptrtoint %safe_to : !llvm.ptr to i64
      %safe_from64 = llvm.ptrtoint %safe_from : !llvm.ptr to i64
      "llvm.intr.memset"(%safe_to, %b255, %size64) <{{isVolatile = false}}>
        : (!llvm.ptr, i8, i64) -> ()
      %e = func.call @entry(%thread, %n) : (!llvm.ptr, i32) -> !llvm.ptr
      %e1 = llvm.getelementptr %e[1] : (!llvm.ptr) -> !llvm.ptr, i64
      %e2 = llvm.getelementptr %e[2] : (!llvm.ptr) -> !llvm.ptr, i64
      %e3 = llvm.getelementptr %e[3] : (!llvm.ptr) -> !llvm.ptr, i64
      %e25 = llvm.getelementptr %e[5] : (!llvm.ptr) -> !llvm.ptr, i32
      llvm.store %safe_to64, %e : i64, !llvm.ptr
      llvm.store %safe_from64, %e1 : i64, !llvm.ptr
      llvm.store %size, %e2 : i32, !llvm.ptr
      llvm.store %bytes, %e25 : i32, !llvm.ptr
      %group_p = func.call @word(%thread, %i{COMMITTED}) : (!llvm.ptr, i32) -> !llvm.ptr
      %group = llvm.load %group_p : !llvm.ptr -> i32
      llvm.store %group, %e3 : i32, !llvm.ptr
      %n1 = arith.addi %n, %i1 : i32
      llvm.store %n1, %counter : i32, !llvm.ptr
    }
  }
  return
}

func.func private @word(%thread: !llvm.ptr, %n: i32) -> !llvm.ptr {
  %p = llvm.getelementptr %thread[%n] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  return %p : !llvm.ptr
}

func.func private @entry(%thread: !llvm.ptr, %n: i32) -> !llvm.ptr {
  %q = func.call @word(%thread, %i{QUEUE}) : (!llvm.ptr, i32) -> !llvm.ptr
  %base = llvm.load %q : !llvm.ptr -> !llvm.ptr
  %r = arith.remui %n, %i{QUEUE_CAPACITY} : i32
  %w = arith.muli %r, %i4 : i32
  %p = llvm.getelementptr %base[%w] : (!llvm.ptr, i32) -> !llvm.ptr, i64
  return %p : !llvm.ptr
}

func.func private @failure(%thread: !llvm.ptr, %code: i32) {
  %b = func.call @word(%thread, %i{BLOCK}) : (!llvm.ptr, i32) -> !llvm.ptr
  %block = llvm.load %b : !llvm.ptr -> !llvm.ptr
  %l = func.call @word(%thread, %i{LINEAR}) : (!llvm.ptr, i32) -> !llvm.ptr
  %linear = llvm.load %l : !llvm.ptr -> i32
  %e = func.call @word(%block, %i{ERROR}) : (!llvm.ptr, i32) -> !llvm.ptr
  %c = func.call @word(%block, %i{CURRENT}) : (!llvm.ptr, i32) -> !llvm.ptr
  llvm.store %code, %e : i32, !llvm.ptr
  llvm.store %linear, %c : i32, !llvm.ptr
  return
}

func.func @moa_emulator_commit(%thread: !llvm.ptr) {
  %p = func.call @word(%thread, %i{COMMITTED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %p : !llvm.ptr -> i32
  %n1 = arith.addi %n, %i1 : i32
  llvm.store %n1, %p : i32, !llvm.ptr
  return
}

// cp.async.wait_group: all groups but the last %pending land.
func.func @moa_emulator_land(%thread: !llvm.ptr, %pending: i32) {
  %group_p = func.call @word(%thread, %i{COMMITTED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %queued_p = func.call @word(%thread, %i{QUEUED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %landed_p = func.call @word(%thread, %i{LANDED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %groups = llvm.load %group_p : !llvm.ptr -> i32
  %last = arith.subi %groups, %pending : i32
  %n = llvm.load %queued_p : !llvm.ptr -> i32
  %first = llvm.load %landed_p : !llvm.ptr -> i32
  %end = scf.while (%i = %first) : (i32) -> i32 {
    %in = arith.cmpi slt, %i, %n : i32
    %go = scf.if %in -> (i1) {
      %e = func.call @entry(%thread, %i) : (!llvm.ptr, i32) -> !llvm.ptr
      %e3 = llvm.getelementptr %e[3] : (!llvm.ptr) -> !llvm.ptr, i64
      %group = llvm.load %e3 : !llvm.ptr -> i32
      %due = arith.cmpi slt, %group, %last : i32
      scf.yield %due : i1
    } else {
      scf.yield %false : i1
    }
    scf.condition(%go) %i : i32
  } do {
  ^bb0(%i: i32):
    %e = func.call @entry(%thread, %i) : (!llvm.ptr, i32) -> !llvm.ptr
    %e1 = llvm.getelementptr %e[1] : (!llvm.ptr) -> !llvm.ptr, i64
    %e2 = llvm.getelementptr %e[2] : (!llvm.ptr) -> !llvm.ptr, i64
    %e25 = llvm.getelementptr %e[5] : (!llvm.ptr) -> !llvm.ptr, i32
    %to = llvm.load %e : !llvm.ptr -> !llvm.ptr
    %from = llvm.load %e1 : !llvm.ptr -> !llvm.ptr
    %size = llvm.load %e2 : !llvm.ptr -> i32
    %bytes0 = llvm.load %e25 : !llvm.ptr -> i32
    %bytes = arith.minui %bytes0, %size : i32
    %bytes64 = arith.extui %bytes : i32 to i64
    %again = func.call @moa_emulator_access(%thread, %to, %size, %i1)
      : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
    "llvm.intr.memcpy"(%to, %from, %bytes64) <{{isVolatile = false}}>
      : (!llvm.ptr, !llvm.ptr, i64) -> ()
    %rest = arith.subi %size, %bytes : i32
    %rest64 = arith.extui %rest : i32 to i64
    %tail = llvm.getelementptr %to[%bytes] : (!llvm.ptr, i32) -> !llvm.ptr, i8
    "llvm.intr.memset"(%tail, %b0, %rest64) <{{isVolatile = false}}>
      : (!llvm.ptr, i8, i64) -> ()
    %j = arith.addi %i, %i1 : i32
    scf.yield %j : i32
  }
  llvm.store %end, %landed_p : i32, !llvm.ptr
  return
}

// An mbarrier: `moa_dialect.lowering.copy_engine` says what its word holds.
func.func @moa_emulator_mbarrier(
    %thread: !llvm.ptr, %place: !llvm.ptr, %count: i32) {
  %p = func.call @moa_emulator_access(%thread, %place, %i8, %i1)
    : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
  %c = arith.extui %count : i32 to i64
  %pending = arith.shli %c, %l1 : i64
  %expected = arith.shli %c, %l21 : i64
  %s = arith.ori %pending, %expected : i64
  llvm.store %s, %p : i64, !llvm.ptr
  return
}

// Arrivals at an mbarrier that expect bytes; gives the word before.
func.func @moa_emulator_arrive(
    %thread: !llvm.ptr, %place: !llvm.ptr, %count: i32, %bytes: i32) -> i64 {
  %p = func.call @moa_emulator_access(%thread, %place, %i8, %i0)
    : (!llvm.ptr, !llvm.ptr, i32, i32) -> !llvm.ptr
  %tb = func.call @word(%thread, %i{BLOCK}) : (!llvm.ptr, i32) -> !llvm.ptr
  %block = llvm.load %tb : !llvm.ptr -> !llvm.ptr
  %lp = func.call @word(%thread, %i{LINEAR}) : (!llvm.ptr, i32) -> !llvm.ptr
  %linear = llvm.load %lp : !llvm.ptr -> i32
  %warp = arith.shrui %linear, %i5 : i32
  %row = func.call @slot(%block, %p) : (!llvm.ptr, !llvm.ptr) -> i32
  func.call @release(%block, %warp, %row) : (!llvm.ptr, i32, i32) -> ()
  %s = llvm.load %p : !llvm.ptr -> i64
  %n = arith.extui %count : i32 to i64
  %pending0 = arith.shrui %s, %l1 : i64
  %pending = arith.andi %pending0, %l1048575 : i64
  %expected0 = arith.shrui %s, %l21 : i64
  %expected = arith.andi %expected0, %l1048575 : i64
  %wild = arith.cmpi eq, %expected, %l1048575 : i64
  scf.if %wild {
    func.call @failure(%thread, %i{NO_MBARRIER}) : (!llvm.ptr, i32) -> ()
  } else {
    %many = arith.cmpi ult, %pending, %n : i64
    scf.if %many {
      func.call @failure(%thread, %i{TOO_MANY_ARRIVALS}) : (!llvm.ptr, i32) -> ()
    }
  }
  %left = arith.subi %pending, %n : i64
  %b0 = arith.extsi %bytes : i32 to i64
  %b1 = arith.shrsi %s, %l41 : i64
  %b = arith.addi %b0, %b1 : i64
  %none = arith.cmpi eq, %left, %l0 : i64
  %nothing = arith.cmpi eq, %b, %l0 : i64
  %over = arith.andi %none, %nothing : i1
  %phase = arith.andi %s, %l1 : i64
  %flipped = arith.xori %phase, %l1 : i64
  %phase1 = arith.select %over, %flipped, %phase : i64
  %left1 = arith.select %over, %expected, %left : i64
  %x0 = arith.shli %left1, %l1 : i64
  %x1 = arith.shli %expected, %l21 : i64
  %x2 = arith.shli %b, %l41 : i64
  %y0 = arith.ori %phase1, %x0 : i64
  %y1 = arith.ori %x1, %x2 : i64
  %y = arith.ori %y0, %y1 : i64
  llvm.store %y, %p : i64, !llvm.ptr
  return %s : i64
}

// The words of the cluster of a thread.
func.func private @cluster(%thread: !llvm.ptr) -> !llvm.ptr {
  %b = func.call @word(%thread, %i{BLOCK}) : (!llvm.ptr, i32) -> !llvm.ptr
  %block = llvm.load %b : !llvm.ptr -> !llvm.ptr
  %c = func.call @word(%block, %i{CLUSTER}) : (!llvm.ptr, i32) -> !llvm.ptr
  %cluster = llvm.load %c : !llvm.ptr -> !llvm.ptr
  return %cluster : !llvm.ptr
}

// barrier.cluster.arrive: the last one of all threads ends the meeting.
func.func @moa_emulator_cluster_arrive(%thread: !llvm.ptr) {
  %cluster = func.call @cluster(%thread) : (!llvm.ptr) -> !llvm.ptr
  %mp = func.call @word(%thread, %i{MEETING}) : (!llvm.ptr, i32) -> !llvm.ptr
  %before = llvm.load %mp : !llvm.ptr -> i32
  %twice = arith.cmpi ne, %before, %i0 : i32
  scf.if %twice {
    func.call @failure(%thread, %i{ARRIVED_TWICE}) : (!llvm.ptr, i32) -> ()
  }
  %np = llvm.getelementptr %cluster[{MEETINGS}] : (!llvm.ptr) -> !llvm.ptr, i64
  %n = llvm.load %np : !llvm.ptr -> i64
  %n32 = arith.trunci %n : i64 to i32
  %next = arith.addi %n32, %i1 : i32
  llvm.store %next, %mp : i32, !llvm.ptr
  %a0 = llvm.load %cluster : !llvm.ptr -> i64
  %a = arith.addi %a0, %l1 : i64
  %tp = llvm.getelementptr %cluster[{MEMBERS}] : (!llvm.ptr) -> !llvm.ptr, i64
  %total = llvm.load %tp : !llvm.ptr -> i64
  %all = arith.cmpi sge, %a, %total : i64
  %left = arith.select %all, %l0, %a : i64
  llvm.store %left, %cluster : i64, !llvm.ptr
  %more = arith.extui %all : i1 to i64
  %n1 = arith.addi %n, %more : i64
  llvm.store %n1, %np : i64, !llvm.ptr
  return
}

// barrier.cluster.wait begins: gives the number of the meeting that is waited for.
func.func @moa_emulator_cluster_wait(%thread: !llvm.ptr) -> i32 {
  %mp = func.call @word(%thread, %i{MEETING}) : (!llvm.ptr, i32) -> !llvm.ptr
  %m = llvm.load %mp : !llvm.ptr -> i32
  %none = arith.cmpi eq, %m, %i0 : i32
  scf.if %none {
    func.call @failure(%thread, %i{NOT_ARRIVED}) : (!llvm.ptr, i32) -> ()
  }
  llvm.store %i0, %mp : i32, !llvm.ptr
  %r = arith.subi %m, %i1 : i32
  return %r : i32
}

// mapa: where an address of the block's memory is in that of another of the cluster.
func.func @moa_emulator_mapa(
    %thread: !llvm.ptr, %p: !llvm.ptr, %rank: i32) -> !llvm.ptr {
  %cluster = func.call @cluster(%thread) : (!llvm.ptr) -> !llvm.ptr
  %kp = llvm.getelementptr %cluster[{BLOCKS}] : (!llvm.ptr) -> !llvm.ptr, i64
  %blocks = llvm.load %kp : !llvm.ptr -> i64
  %rank64 = arith.extui %rank : i32 to i64
  %ok = arith.cmpi ult, %rank64, %blocks : i64
  %r = scf.if %ok -> (!llvm.ptr) {
    %b = func.call @word(%thread, %i{BLOCK}) : (!llvm.ptr, i32) -> !llvm.ptr
    %block = llvm.load %b : !llvm.ptr -> !llvm.ptr
    %sp = func.call @word(%block, %i{SHARED}) : (!llvm.ptr, i32) -> !llvm.ptr
    %own = llvm.load %sp : !llvm.ptr -> i64
    %at = llvm.ptrtoint %p : !llvm.ptr to i64
    %offset = arith.subi %at, %own : i64
    %bp = llvm.getelementptr %cluster[{BASES}] : (!llvm.ptr) -> !llvm.ptr, i64
    %qp = llvm.getelementptr %bp[%rank] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %base = llvm.load %qp : !llvm.ptr -> i64
    %x = arith.addi %base, %offset : i64
    %q = llvm.inttoptr %x : i64 to !llvm.ptr
    scf.yield %q : !llvm.ptr
  } else {
    func.call @failure(%thread, %i{NO_BLOCK}) : (!llvm.ptr, i32) -> ()
    scf.yield %p : !llvm.ptr
  }
  return %r : !llvm.ptr
}

// An f32 whose subnormal values are zero of the same sign.
func.func @moa_emulator_flush(%x: f32) -> f32 {
  %w = arith.bitcast %x : f32 to i32
  %e = arith.andi %w, %i2139095040 : i32
  %tiny = arith.cmpi eq, %e, %i0 : i32
  %s = arith.andi %w, %m2147483648 : i32
  %z = arith.bitcast %s : i32 to f32
  %r = arith.select %tiny, %z, %x : f32
  return %r : f32
}

// Two f32 as a word of bf16, rounded to the nearest, ties to even; NaN is 0x7fff.
func.func @moa_emulator_bf16x2(%high: f32, %low: f32) -> i32 {
  %h = func.call @bf16(%high) : (f32) -> i32
  %l = func.call @bf16(%low) : (f32) -> i32
  %hs = arith.shli %h, %i16 : i32
  %r = arith.ori %hs, %l : i32
  return %r : i32
}

func.func private @bf16(%x: f32) -> i32 {
  %w = arith.bitcast %x : f32 to i32
  %s = arith.shrui %w, %i16 : i32
  %odd = arith.andi %s, %i1 : i32
  %a = arith.addi %w, %i32767 : i32
  %b = arith.addi %a, %odd : i32
  %r = arith.shrui %b, %i16 : i32
  %nan = arith.cmpf uno, %x, %x : f32
  %y = arith.select %nan, %i32767, %r : i32
  return %y : i32
}
"""

_CHECKS = """
// An access of a thread: gives the address, or that of the thread's row if the access
// is not within what the kernel may touch. Records who reads and writes each byte of
// shared memory between barriers.
func.func @moa_emulator_access(
    %thread: !llvm.ptr, %p: !llvm.ptr, %size: i32, %write: i32) -> !llvm.ptr {
  %bp = func.call @word(%thread, %i{BLOCK}) : (!llvm.ptr, i32) -> !llvm.ptr
  %block = llvm.load %bp : !llvm.ptr -> !llvm.ptr
  %cp = func.call @word(%block, %i{CHECKS}) : (!llvm.ptr, i32) -> !llvm.ptr
  %checks = llvm.load %cp : !llvm.ptr -> i32
  %on = arith.cmpi ne, %checks, %i0 : i32
  %r = scf.if %on -> (!llvm.ptr) {
    %sp = func.call @word(%block, %i{SHARED}) : (!llvm.ptr, i32) -> !llvm.ptr
    %shared = llvm.load %sp : !llvm.ptr -> i64
    %a = llvm.ptrtoint %p : !llvm.ptr to i64
    %at = arith.subi %a, %shared : i64
    %inside = arith.cmpi ult, %at, %l{ARENA_BYTES} : i64
    %ok = scf.if %inside -> (i1) {
      %zp = func.call @word(%block, %i{SIZE}) : (!llvm.ptr, i32) -> !llvm.ptr
      %all = llvm.load %zp : !llvm.ptr -> i32
      %at32 = arith.trunci %at : i64 to i32
      %end = arith.addi %at32, %size : i32
      %fits = arith.cmpi ule, %end, %all : i32
      %bit = arith.andi %checks, %i{RACES} : i32
      %races = arith.cmpi ne, %bit, %i0 : i32
      %track = arith.andi %fits, %races : i1
      scf.if %track {
        func.call @track(%thread, %block, %at32, %size, %all, %write)
          : (!llvm.ptr, !llvm.ptr, i32, i32, i32, i32) -> ()
      }
      scf.yield %fits : i1
    } else {
      %x = func.call @in_range(%thread, %block, %a, %size, %checks, %write)
        : (!llvm.ptr, !llvm.ptr, i64, i32, i32, i32) -> i1
      %y = func.call @in_cluster(%thread, %block, %a, %size)
        : (!llvm.ptr, !llvm.ptr, i64, i32) -> i1
      %z = arith.ori %x, %y : i1
      scf.yield %z : i1
    }
    %safe = scf.if %ok -> (!llvm.ptr) {
      scf.yield %p : !llvm.ptr
    } else {
      func.call @failure(%thread, %i{OUT_OF_BOUNDS}) : (!llvm.ptr, i32) -> ()
      %ap = func.call @word(%block, %i{PLACE}) : (!llvm.ptr, i32) -> !llvm.ptr
      llvm.store %a, %ap : i64, !llvm.ptr
      %row = func.call @word(%thread, %i{INPUTS}) : (!llvm.ptr, i32) -> !llvm.ptr
      scf.yield %row : !llvm.ptr
    }
    scf.yield %safe : !llvm.ptr
  } else {
    scf.yield %p : !llvm.ptr
  }
  return %r : !llvm.ptr
}

// Whether bytes are within one of the arrays of the launch.
func.func private @in_range(
    %thread: !llvm.ptr, %block: !llvm.ptr, %a: i64, %size: i32, %checks: i32,
    %write: i32) -> i1 {
  %bit = arith.andi %checks, %i{BOUNDS} : i32
  %unchecked = arith.cmpi eq, %bit, %i0 : i32
  %np = func.call @word(%block, %i{RANGES}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %np : !llvm.ptr -> i32
  %rp = func.call @word(%block, %i{RANGES_AT}) : (!llvm.ptr, i32) -> !llvm.ptr
  %ranges = llvm.load %rp : !llvm.ptr -> !llvm.ptr
  %size64 = arith.extui %size : i32 to i64
  %end = arith.addi %a, %size64 : i64
  %found = scf.for %i = %i0 to %n step %i1 iter_args(%any = %unchecked) -> (i1) : i32 {
    %k = arith.muli %i, %i3 : i32
    %fp = llvm.getelementptr %ranges[%k] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %lp = llvm.getelementptr %fp[1] : (!llvm.ptr) -> !llvm.ptr, i64
    %mp = llvm.getelementptr %fp[2] : (!llvm.ptr) -> !llvm.ptr, i64
    %first = llvm.load %fp : !llvm.ptr -> i64
    %last = llvm.load %lp : !llvm.ptr -> i64
    %after = arith.cmpi uge, %a, %first : i64
    %before = arith.cmpi ule, %end, %last : i64
    %in = arith.andi %after, %before : i1
    %races = func.call @looks(%block, %i0) : (!llvm.ptr, i32) -> i1
    %fresh = arith.xori %any, %true : i1
    %once = arith.andi %in, %fresh : i1
    %follow = arith.andi %once, %races : i1
    scf.if %follow {
      %shadow = llvm.load %mp : !llvm.ptr -> !llvm.ptr
      %offset = arith.subi %a, %first : i64
      func.call @follow(%thread, %block, %shadow, %a, %offset, %size, %write)
        : (!llvm.ptr, !llvm.ptr, !llvm.ptr, i64, i64, i32, i32) -> ()
    }
    %or = arith.ori %any, %in : i1
    scf.yield %or : i1
  }
  // What is not read at all may be anywhere.
  %empty = arith.cmpi eq, %size, %i0 : i32
  %r = arith.ori %found, %empty : i1
  return %r : i1
}

// Whether bytes are within the memory of a block of the cluster.
func.func private @in_cluster(
    %thread: !llvm.ptr, %block: !llvm.ptr, %a: i64, %size: i32) -> i1 {
  %cluster = func.call @cluster(%thread) : (!llvm.ptr) -> !llvm.ptr
  %kp = llvm.getelementptr %cluster[{BLOCKS}] : (!llvm.ptr) -> !llvm.ptr, i64
  %blocks = llvm.load %kp : !llvm.ptr -> i64
  %n = arith.trunci %blocks : i64 to i32
  %zp = func.call @word(%block, %i{SIZE}) : (!llvm.ptr, i32) -> !llvm.ptr
  %all = llvm.load %zp : !llvm.ptr -> i32
  %all64 = arith.extui %all : i32 to i64
  %size64 = arith.extui %size : i32 to i64
  %end = arith.addi %a, %size64 : i64
  %bp = llvm.getelementptr %cluster[{BASES}] : (!llvm.ptr) -> !llvm.ptr, i64
  %found = scf.for %i = %i0 to %n step %i1 iter_args(%any = %false) -> (i1) : i32 {
    %qp = llvm.getelementptr %bp[%i] : (!llvm.ptr, i32) -> !llvm.ptr, i64
    %first = llvm.load %qp : !llvm.ptr -> i64
    %last = arith.addi %first, %all64 : i64
    %after = arith.cmpi uge, %a, %first : i64
    %before = arith.cmpi ule, %end, %last : i64
    %in = arith.andi %after, %before : i1
    %or = arith.ori %any, %in : i1
    scf.yield %or : i1
  }
  return %found : i1
}

// Who has written each byte last, and when each has read it; what the warp knows of
// others' clocks says whether that was before (`moa_dialect.lowering.races`).
func.func private @track(
    %thread: !llvm.ptr, %block: !llvm.ptr, %at: i32, %size: i32, %all: i32,
    %write: i32) {
  %sp = func.call @word(%block, %i{SHADOW}) : (!llvm.ptr, i32) -> !llvm.ptr
  %writers = llvm.load %sp : !llvm.ptr -> !llvm.ptr
  %readers = llvm.getelementptr %writers[%all] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  %np = func.call @word(%block, %i{ENTITIES}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %np : !llvm.ptr -> i32
  %lp = func.call @word(%thread, %i{LINEAR}) : (!llvm.ptr, i32) -> !llvm.ptr
  %linear = llvm.load %lp : !llvm.ptr -> i32
  %warp = arith.shrui %linear, %i5 : i32
  %known = func.call @clocks(%block, %warp) : (!llvm.ptr, i32) -> !llvm.ptr
  %op = llvm.getelementptr %known[%warp] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  %now = llvm.load %op : !llvm.ptr -> i32
  %high = arith.shli %now, %i11 : i32
  %mine = arith.ori %high, %linear : i32
  %writes = arith.cmpi ne, %write, %i0 : i32
  scf.for %k = %i0 to %size step %i1 : i32 {
    %b = arith.addi %at, %k : i32
    %wp = llvm.getelementptr %writers[%b] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %rb = arith.muli %b, %n : i32
    %rp = llvm.getelementptr %readers[%rb] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %w = llvm.load %wp : !llvm.ptr -> i32
    %who = arith.andi %w, %i2047 : i32
    %is_thread = arith.cmpi ult, %who, %i1024 : i32
    %of_thread = arith.shrui %who, %i5 : i32
    %of_others = arith.subi %who, %i1024 : i32
    %writer = arith.select %is_thread, %of_thread, %of_others : i32
    %time = arith.shrui %w, %i11 : i32
    %late = func.call @is_late(%known, %writer, %warp, %time)
      : (!llvm.ptr, i32, i32, i32) -> i1
    scf.if %late {
      func.call @report(%thread, %block, %b, %who)
        : (!llvm.ptr, !llvm.ptr, i32, i32) -> ()
    }
    scf.if %writes {
      scf.for %e = %i0 to %n step %i1 : i32 {
        %ep = llvm.getelementptr %rp[%e] : (!llvm.ptr, i32) -> !llvm.ptr, i32
        %read = llvm.load %ep : !llvm.ptr -> i32
        %unread = func.call @is_late(%known, %e, %warp, %read)
          : (!llvm.ptr, i32, i32, i32) -> i1
        scf.if %unread {
          %reader = arith.addi %e, %i2048 : i32
          func.call @report(%thread, %block, %b, %reader)
            : (!llvm.ptr, !llvm.ptr, i32, i32) -> ()
        }
      }
      llvm.store %mine, %wp : i32, !llvm.ptr
    } else {
      %ep = llvm.getelementptr %rp[%warp] : (!llvm.ptr, i32) -> !llvm.ptr, i32
      llvm.store %now, %ep : i32, !llvm.ptr
    }
  }
  return
}

// Who has written each byte of an array last, and who has read it last: the number of
// the block, the clock of the warp, and the thread. Nothing orders blocks.
func.func private @follow(
    %thread: !llvm.ptr, %block: !llvm.ptr, %shadow: !llvm.ptr, %a: i64, %offset: i64,
    %size: i32, %write: i32) {
  %lp = func.call @word(%thread, %i{LINEAR}) : (!llvm.ptr, i32) -> !llvm.ptr
  %linear = llvm.load %lp : !llvm.ptr -> i32
  %warp = arith.shrui %linear, %i5 : i32
  %known = func.call @clocks(%block, %warp) : (!llvm.ptr, i32) -> !llvm.ptr
  %op = llvm.getelementptr %known[%warp] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  %now = llvm.load %op : !llvm.ptr -> i32
  %high = arith.shli %now, %i11 : i32
  %low = arith.ori %high, %linear : i32
  %low64 = arith.extui %low : i32 to i64
  %bp = func.call @word(%block, %i{NUMBER}) : (!llvm.ptr, i32) -> !llvm.ptr
  %number = llvm.load %bp : !llvm.ptr -> i32
  %number64 = arith.extui %number : i32 to i64
  %top = arith.shli %number64, %l32 : i64
  %mine = arith.ori %top, %low64 : i64
  %writes = arith.cmpi ne, %write, %i0 : i32
  %size64 = arith.extui %size : i32 to i64
  scf.for %k = %l0 to %size64 step %l1 : i64 {
    %b = arith.addi %offset, %k : i64
    %b2 = arith.muli %b, %l2 : i64
    %wp = llvm.getelementptr %shadow[%b2] : (!llvm.ptr, i64) -> !llvm.ptr, i64
    %rp = llvm.getelementptr %wp[1] : (!llvm.ptr) -> !llvm.ptr, i64
    %w = llvm.load %wp : !llvm.ptr -> i64
    %r = llvm.load %rp : !llvm.ptr -> i64
    %wo = func.call @is_other(%known, %w, %number, %warp)
      : (!llvm.ptr, i64, i32, i32) -> i1
    %ro0 = func.call @is_other(%known, %r, %number, %warp)
      : (!llvm.ptr, i64, i32, i32) -> i1
    %ro = arith.andi %ro0, %writes : i1
    %race = arith.ori %wo, %ro : i1
    scf.if %race {
      func.call @failure(%thread, %i{RACE_IN_ARRAYS}) : (!llvm.ptr, i32) -> ()
      %ap = func.call @word(%block, %i{PLACE}) : (!llvm.ptr, i32) -> !llvm.ptr
      %at = arith.addi %a, %k : i64
      llvm.store %at, %ap : i64, !llvm.ptr
      %who0 = arith.select %wo, %w, %r : i64
      %who = arith.trunci %who0 : i64 to i32
      %whop = func.call @word(%block, %i{OTHER}) : (!llvm.ptr, i32) -> !llvm.ptr
      %in_block = arith.andi %who, %i1023 : i32
      %other64 = arith.shrui %who0, %l32 : i64
      %other = arith.trunci %other64 : i64 to i32
      %elsewhere = arith.cmpi ne, %other, %number : i32
      %mark = arith.select %elsewhere, %i1024, %i0 : i32
      %marked = arith.ori %in_block, %mark : i32
      llvm.store %marked, %whop : i32, !llvm.ptr
    }
    scf.if %writes {
      llvm.store %mine, %wp : i64, !llvm.ptr
    } else {
      llvm.store %mine, %rp : i64, !llvm.ptr
    }
  }
  return
}

// Whether an access was of another block, or at a time that a warp does not know of.
func.func private @is_other(
    %known: !llvm.ptr, %record: i64, %number: i32, %warp: i32) -> i1 {
  %b64 = arith.shrui %record, %l32 : i64
  %b = arith.trunci %b64 : i64 to i32
  %none = arith.cmpi eq, %b, %i0 : i32
  %own = arith.cmpi eq, %b, %number : i32
  %r = scf.if %own -> (i1) {
    %low = arith.trunci %record : i64 to i32
    %t = arith.andi %low, %i1023 : i32
    %w = arith.shrui %t, %i5 : i32
    %time = arith.shrui %low, %i11 : i32
    %late = func.call @is_late(%known, %w, %warp, %time)
      : (!llvm.ptr, i32, i32, i32) -> i1
    scf.yield %late : i1
  } else {
    %is = arith.xori %none, %true : i1
    scf.yield %is : i1
  }
  return %r : i1
}

// Whether another one did something at a time that a warp does not know of.
func.func private @is_late(
    %known: !llvm.ptr, %other: i32, %warp: i32, %time: i32) -> i1 {
  %p = llvm.getelementptr %known[%other] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  %last = llvm.load %p : !llvm.ptr -> i32
  %after = arith.cmpi ugt, %time, %last : i32
  %differ = arith.cmpi ne, %other, %warp : i32
  %r = arith.andi %after, %differ : i1
  return %r : i1
}

func.func private @report(
    %thread: !llvm.ptr, %block: !llvm.ptr, %at: i32, %who: i32) {
  func.call @failure(%thread, %i{RACE}) : (!llvm.ptr, i32) -> ()
  %op = func.call @word(%block, %i{OTHER}) : (!llvm.ptr, i32) -> !llvm.ptr
  %ap = func.call @word(%block, %i{PLACE}) : (!llvm.ptr, i32) -> !llvm.ptr
  %at64 = arith.extui %at : i32 to i64
  llvm.store %who, %op : i32, !llvm.ptr
  llvm.store %at64, %ap : i64, !llvm.ptr
  return
}

func.func private @block_of(%B: !words) -> !llvm.ptr {
  %x = memref.extract_aligned_pointer_as_index %B : !words -> index
  %x64 = arith.index_cast %x : index to i64
  %p = llvm.inttoptr %x64 : i64 to !llvm.ptr
  return %p : !llvm.ptr
}

func.func private @warp_of(%t: index) -> i32 {
  %w = arith.divui %t, %c32 : index
  %r = arith.index_cast %w : index to i32
  return %r : i32
}

// A row of clocks: what a warp or a barrier knows.
func.func private @clocks(%block: !llvm.ptr, %row: i32) -> !llvm.ptr {
  %cp = func.call @word(%block, %i{CLOCKS}) : (!llvm.ptr, i32) -> !llvm.ptr
  %all = llvm.load %cp : !llvm.ptr -> !llvm.ptr
  %np = func.call @word(%block, %i{ENTITIES}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %np : !llvm.ptr -> i32
  %at = arith.muli %row, %n : i32
  %p = llvm.getelementptr %all[%at] : (!llvm.ptr, i32) -> !llvm.ptr, i32
  return %p : !llvm.ptr
}

// The row of an mbarrier; -1 for none of the block's memory.
func.func private @slot(%block: !llvm.ptr, %p: !llvm.ptr) -> i32 {
  %sp = func.call @word(%block, %i{SHARED}) : (!llvm.ptr, i32) -> !llvm.ptr
  %shared = llvm.load %sp : !llvm.ptr -> i64
  %zp = func.call @word(%block, %i{SIZE}) : (!llvm.ptr, i32) -> !llvm.ptr
  %size = llvm.load %zp : !llvm.ptr -> i32
  %size64 = arith.extui %size : i32 to i64
  %np = func.call @word(%block, %i{ENTITIES}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %np : !llvm.ptr -> i32
  %a = llvm.ptrtoint %p : !llvm.ptr to i64
  %at = arith.subi %a, %shared : i64
  %inside = arith.cmpi ult, %at, %size64 : i64
  %at32 = arith.trunci %at : i64 to i32
  %number = arith.shrui %at32, %i3 : i32
  %first = arith.addi %n, %i{BARRIERS} : i32
  %row = arith.addi %first, %number : i32
  %r = arith.select %inside, %row, %m1 : i32
  return %r : i32
}

// Whether races are looked for, at a row that there is.
func.func private @looks(%block: !llvm.ptr, %row: i32) -> i1 {
  %cp = func.call @word(%block, %i{CHECKS}) : (!llvm.ptr, i32) -> !llvm.ptr
  %checks = llvm.load %cp : !llvm.ptr -> i32
  %bit = arith.andi %checks, %i{RACES} : i32
  %on = arith.cmpi ne, %bit, %i0 : i32
  %is = arith.cmpi sge, %row, %i0 : i32
  %r = arith.andi %on, %is : i1
  return %r : i1
}

// A warp tells a barrier what it knows; from then on it is later.
func.func private @release(%block: !llvm.ptr, %warp: i32, %row: i32) {
  %on = func.call @looks(%block, %row) : (!llvm.ptr, i32) -> i1
  scf.if %on {
    %to = func.call @clocks(%block, %row) : (!llvm.ptr, i32) -> !llvm.ptr
    %from = func.call @clocks(%block, %warp) : (!llvm.ptr, i32) -> !llvm.ptr
    func.call @join(%block, %to, %from) : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
    %p = llvm.getelementptr %from[%warp] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %now = llvm.load %p : !llvm.ptr -> i32
    %later = arith.addi %now, %i1 : i32
    llvm.store %later, %p : i32, !llvm.ptr
  }
  return
}

// A barrier tells a warp what it was told.
func.func private @acquire(%block: !llvm.ptr, %warp: i32, %row: i32) {
  %on = func.call @looks(%block, %row) : (!llvm.ptr, i32) -> i1
  scf.if %on {
    %to = func.call @clocks(%block, %warp) : (!llvm.ptr, i32) -> !llvm.ptr
    %from = func.call @clocks(%block, %row) : (!llvm.ptr, i32) -> !llvm.ptr
    func.call @join(%block, %to, %from) : (!llvm.ptr, !llvm.ptr, !llvm.ptr) -> ()
  }
  return
}

func.func private @join(%block: !llvm.ptr, %to: !llvm.ptr, %from: !llvm.ptr) {
  %np = func.call @word(%block, %i{ENTITIES}) : (!llvm.ptr, i32) -> !llvm.ptr
  %n = llvm.load %np : !llvm.ptr -> i32
  scf.for %e = %i0 to %n step %i1 : i32 {
    %tp = llvm.getelementptr %to[%e] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %fp = llvm.getelementptr %from[%e] : (!llvm.ptr, i32) -> !llvm.ptr, i32
    %t = llvm.load %tp : !llvm.ptr -> i32
    %f = llvm.load %fp : !llvm.ptr -> i32
    %m = arith.maxui %t, %f : i32
    llvm.store %m, %tp : i32, !llvm.ptr
  }
  return
}

// All threads of a barrier have come: what it was told is for them.
func.func private @forget(%block: !llvm.ptr, %row: i32) {
  %on = func.call @looks(%block, %row) : (!llvm.ptr, i32) -> i1
  scf.if %on {
    %p = func.call @clocks(%block, %row) : (!llvm.ptr, i32) -> !llvm.ptr
    %np = func.call @word(%block, %i{ENTITIES}) : (!llvm.ptr, i32) -> !llvm.ptr
    %n = llvm.load %np : !llvm.ptr -> i32
    scf.for %e = %i0 to %n step %i1 : i32 {
      %ep = llvm.getelementptr %p[%e] : (!llvm.ptr, i32) -> !llvm.ptr, i32
      llvm.store %i0, %ep : i32, !llvm.ptr
    }
  }
  return
}
"""

_EXPORTED = (
    *("run", "start", "end"),
    *("copy", "commit", "land", "mbarrier", "arrive", "flush", "bf16x2", "access"),
    *("cluster_arrive", "cluster_wait", "mapa"),
)

_TYPES = """
!rows = memref<?x?xi32>
!handles = memref<?xi64>
!words = memref<?xi32>
"""

_KINDS = {
    "c": ("index", 1),
    "i": ("i32", 1),
    "m": ("i32", -1),
    "l": ("i64", 1),
    "b": ("i8", 1),
}
"""Names of constants: `%c8` is an index, `%i8` an i32, `%m8` -8, `%l8` an i64."""


def _with_constants(text: str) -> str:
    """Define the constants that each function names at its start."""
    parts = re.split(r"(?m)^(?=func\.func|//)", text)
    return "".join(map(_function_with_constants, parts))


def _function_with_constants(text: str) -> str:
    names = sorted(set(re.findall(r"%[cimlb]\d+\b", text)))
    defined = set(re.findall(r"(%[cimlb]\d+) =", text))
    lines = [
        f"  {name} = arith.constant {_KINDS[name[1]][1] * int(name[2:])} : "
        f"{_KINDS[name[1]][0]}"
        for name in names
        if name not in defined
    ]
    lines += [
        f"  %{name} = arith.constant {name}"
        for name in ("true", "false")
        if re.search(rf"%{name}\b", text)
    ]
    return re.sub(r"(?m)\{$", lambda head: "\n".join([head[0], *lines]), text, count=1)


def text() -> str:
    """The runtime in upstream's dialects."""
    names = {name: value for name, value in globals().items() if name.isupper()}
    parts = (_RUN, _TOGETHER, _MATRICES, _COPIES, _CHECKS)

    def number(found: re.Match[str]) -> str:
        name, _, offset = found[1].partition(" + ")
        return str(names[name] + int(offset or 0))

    body = "".join(parts).replace("{{", "{").replace("}}", "}")
    body = re.sub(r"\{([A-Z_]+(?: \+ \d+)?)\}", number, body)
    return _TYPES + _with_constants(body)


TO_LLVM = (
    "builtin.module(convert-vector-to-scf,convert-scf-to-cf,expand-strided-metadata,"
    "lower-affine,convert-vector-to-llvm,convert-math-to-llvm,"
    "finalize-memref-to-llvm,convert-arith-to-llvm,convert-index-to-llvm,"
    "convert-func-to-llvm,convert-cf-to-llvm,reconcile-unrealized-casts)"
)
"""From the dialects that the runtime is written in to LLVM's."""


@cache
def functions() -> dict[str, Any]:
    """The runtime, compiled and loaded; kernels find its functions by their names."""
    module = upstream.parse(text(), upstream.new_context())
    upstream.run_pipeline(module, TO_LLVM, verify_each=False)
    symbols = [f"moa_emulator_{name}" for name in _EXPORTED]
    code = host.object_code(upstream.llvm_ir(module), symbols)
    return dict(zip(_EXPORTED, loader.loaded(code, symbols), strict=True))
