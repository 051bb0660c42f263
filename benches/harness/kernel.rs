//! What the same work costs in the Linux kernel's own TTM.
//!
//! Measured uncontended on one CPU, without debug options or mitigations: the kernel's best case.
//! A figure compares plainly only where this machine's primitives cost what they cost there
//! ([`crate::primitives`]). Objects are 4 KiB, of the kernel's own type, without fences, moved by
//! handing over the resource ("null move").

/// One figure of the kernel's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub workload: &'static str,
    /// How long one operation takes, in nanoseconds: the median.
    pub ns: f64,
}

const fn figure(workload: &'static str, ns: f64) -> Figure {
    Figure { workload, ns }
}

/// Reading the monotonic clock.
pub const CLOCK_READ: Figure = figure("clock read", 23.6);
/// Taking and releasing a mutex that nobody else wants.
pub const LOCK_PAIR: Figure = figure("mutex_lock + mutex_unlock", 4.8);
/// Allocating and freeing 256 bytes.
pub const ALLOC_PAIR_256: Figure = figure("kzalloc + kfree of 256 bytes", 15.4);

/// Operations a repeat in the create-and-drop rows.
pub const CREATE_OPS: usize = 1000;
/// Objects that stay alive in [`CREATE_VRAM_10K_LIVE`].
pub const CREATE_LIVE: usize = 10_000;
/// Row a: create, validate into an empty VRAM of 16 GiB, drop.
pub const CREATE_VRAM_EMPTY: Figure = figure("create + put, VRAM empty, 4 KiB", 230.0);
/// Row a beside [`CREATE_LIVE`] live objects.
pub const CREATE_VRAM_10K_LIVE: Figure = figure("create + put, VRAM 10k live, 4 KiB", 415.0);
/// Row b: create, validate into SYSTEM without pages, drop.
pub const CREATE_SYSTEM_4K: Figure = figure("create + put, SYSTEM, 4 KiB", 229.0);
/// Row b with 2 MiB.
pub const CREATE_SYSTEM_2M: Figure = figure("create + put, SYSTEM, 2 MiB", 297.0);

/// A batch of [`CREATE_OPS`] in an empty VRAM: created together, then put together, each.
pub const BATCH_VRAM_EMPTY: [Figure; 2] = [
    figure("batch create, VRAM empty, 4 KiB", 202.9),
    figure("batch put, VRAM empty, 4 KiB", 112.0),
];
/// The same beside [`CREATE_LIVE`] live objects.
pub const BATCH_VRAM_10K_LIVE: [Figure; 2] = [
    figure("batch create, VRAM 10k live, 4 KiB", 256.1),
    figure("batch put, VRAM 10k live, 4 KiB", 121.2),
];
/// The same into SYSTEM.
pub const BATCH_SYSTEM_4K: [Figure; 2] = [
    figure("batch create, SYSTEM, 4 KiB", 162.4),
    figure("batch put, SYSTEM, 4 KiB", 98.5),
];

/// Steps a repeat in the eviction rows.
pub const EVICTION_OPS: usize = 1000;
/// Steps a repeat with [`EVICTION_LOCKED`] objects locked.
pub const EVICTION_LOCKED_OPS: usize = 200;
/// Objects that fill VRAM in row d', those locked among them.
pub const EVICTION_LOCKED_DOMAIN: usize = 10_000;
/// Objects locked at the head of the LRU in row d'.
pub const EVICTION_LOCKED_COUNT: usize = 1000;
/// Row d: bring in the one outside, by number of objects that fill VRAM, in creation order.
pub const EVICTION_FIFO: [(usize, Figure); 4] = [
    (100, figure("eviction, N = 100, fifo", 388.9)),
    (1000, figure("eviction, N = 1,000, fifo", 428.9)),
    (10_000, figure("eviction, N = 10,000, fifo", 539.6)),
    (100_000, figure("eviction, N = 100,000, fifo", 704.6)),
];
/// Row d with the objects in random order.
pub const EVICTION_SHUFFLED: [(usize, Figure); 4] = [
    (100, figure("eviction, N = 100, shuffled", 395.6)),
    (1000, figure("eviction, N = 1,000, shuffled", 422.9)),
    (10_000, figure("eviction, N = 10,000, shuffled", 533.7)),
    (100_000, figure("eviction, N = 100,000, shuffled", 1042.0)),
];
/// Row d': row d with [`EVICTION_LOCKED_COUNT`] locked objects at the head of the LRU.
pub const EVICTION_LOCKED: Figure =
    figure("eviction, N = 10,000, 1,000 locked at the head", 7130.0);

/// Pages that fill VRAM in [`EVICTION_LARGE`], one an object.
pub const EVICTION_LARGE_DOMAIN: usize = 8192;
/// 2 MiB into a VRAM full of single pages: 512 evictions, each followed by an allocation tried.
pub const EVICTION_LARGE: Figure = figure("2 MiB into 8,192 x 4 KiB, per validate", 145_512.0);

/// Operations a repeat in the touch rows.
pub const TOUCH_OPS: usize = 10_000;
/// Objects gone round in the touch row with a target.
pub const TOUCH_OBJECTS: usize = 1000;
/// Row e: reserve, move to the LRU's tail, release: 15.4; validate where it already is: 5.2.
pub const TOUCH: Figure = figure("reserve + unreserve + validate already placed", 15.4 + 5.2);

/// Transactions of `n` objects a repeat, in the locking and submission rows.
pub const fn transactions(n: usize) -> usize {
    2560 / n
}
/// Row f: lock and unlock so many objects in a transaction, per transaction.
pub const LOCKING: [(usize, Figure); 3] = [
    (1, figure("drm_exec lock + unlock of 1", 28.4)),
    (16, figure("drm_exec lock + unlock of 16", 186.2)),
    (256, figure("drm_exec lock + unlock of 256", 4929.0)),
];
/// Row k: lock so many, validate, prepare a fence slot, release, per transaction.
pub const SUBMISSION: [(usize, Figure); 3] = [
    (1, figure("submission of 1", 42.1)),
    (16, figure("submission of 16", 451.6)),
    (256, figure("submission of 256", 9634.0)),
];

/// Row g: a move of 64 MiB by memcpy, the space and pages of both sides in place, out of VRAM.
pub const MOVE_64M_TO_SYSTEM: Figure =
    figure("ttm_move_memcpy, VRAM to SYSTEM, 64 MiB", 4_392_311.0);
/// Row g, into VRAM.
pub const MOVE_64M_TO_VRAM: Figure = figure("ttm_move_memcpy, SYSTEM to VRAM, 64 MiB", 4_505_684.0);
/// The kernel's plain memcpy of 64 MiB in that run.
pub const MEMCPY_64M: Figure = figure("memcpy, 64 MiB", 3_026_768.0);
/// Row g, out of VRAM, 2 MiB.
pub const MOVE_2M_TO_SYSTEM: Figure = figure("ttm_move_memcpy, VRAM to SYSTEM, 2 MiB", 54_897.0);
/// Row g, into VRAM, 2 MiB.
pub const MOVE_2M_TO_VRAM: Figure = figure("ttm_move_memcpy, SYSTEM to VRAM, 2 MiB", 51_480.0);

/// Row c: populate + unpopulate by the pool that keeps pages, 4 KiB, cleared.
pub const POPULATE_4K: Figure = figure("ttm_tt_populate + unpopulate, pool, 4 KiB", 49.0 + 84.0);
/// The same, 64 KiB.
pub const POPULATE_64K: Figure = figure("ttm_tt_populate + unpopulate, pool, 64 KiB", 57.5 + 675.0);
/// The same, 2 MiB.
pub const POPULATE_2M: Figure = figure(
    "ttm_tt_populate + unpopulate, pool, 2 MiB",
    377.0 + 25_361.0,
);
/// Row h: a swap-out of 2 MiB to shmem, which stays in memory.
pub const SWAP_OUT_2M: Figure = figure("ttm_bo_swapout to shmem, 2 MiB", 263_958.0);
/// Row h: a swap-in of 2 MiB from shmem.
pub const SWAP_IN_2M: Figure = figure("swap-in from shmem, 2 MiB", 104_643.0);

/// Pairs of free and allocation a repeat in the allocator rows.
pub const ALLOCATOR_OPS: usize = 2000;
/// Untimed repeats before them.
pub const ALLOCATOR_WARM_UPS: usize = 20;
/// Row i: `drm_mm` in mode BEST, sizes of 1 to 512 pages in powers of two.
pub const RANGE_POW2_1K: Figure = figure("drm_mm BEST, pow2, 1k live of 1 GiB", 209.9);
/// The same with 10,000 live.
pub const RANGE_POW2_10K: Figure = figure("drm_mm BEST, pow2, 10k live of 8 GiB", 258.6);
/// The same in half the space.
pub const RANGE_TIGHT_10K: Figure = figure("drm_mm BEST, pow2, 10k live of 4.5 GiB", 258.8);
/// `drm_mm` in mode BEST, any number of pages from 1 to 512.
pub const RANGE_UNIFORM_1K: Figure = figure("drm_mm BEST, uniform, 1k live of 2 GiB", 365.2);
/// The same with 10,000 live.
pub const RANGE_UNIFORM_10K: Figure = figure("drm_mm BEST, uniform, 10k live of 16 GiB", 531.1);
/// Row i: `gpu_buddy`, sizes of 1 to 512 pages in powers of two.
pub const BUDDY_POW2_1K: Figure = figure("gpu_buddy, pow2, 1k live of 1 GiB", 79.0);
/// The same with 10,000 live.
pub const BUDDY_POW2_10K: Figure = figure("gpu_buddy, pow2, 10k live of 8 GiB", 109.5);
/// The same in half the space.
pub const BUDDY_TIGHT_10K: Figure = figure("gpu_buddy, pow2, 10k live of 4.5 GiB", 109.4);
/// `gpu_buddy`, any number of pages from 1 to 512, several blocks each.
pub const BUDDY_UNIFORM_1K: Figure = figure("gpu_buddy, uniform, 1k live of 2 GiB", 340.4);
/// The same with 10,000 live.
pub const BUDDY_UNIFORM_10K: Figure = figure("gpu_buddy, uniform, 10k live of 16 GiB", 477.6);

/// Row t: what replaying a trace would cost the kernel, in nanoseconds: each eviction as in row d
/// (10,000 shuffled), each first touch as in row b, each hit as in row e.
pub fn replay_ns(evictions: u64, first_touches: u64, hits: u64) -> f64 {
    let [_, _, (_, eviction), _] = EVICTION_SHUFFLED;
    evictions as f64 * eviction.ns
        + first_touches as f64 * CREATE_SYSTEM_4K.ns
        + hits as f64 * TOUCH.ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_the_sum_of_its_parts() {
        assert_eq!(replay_ns(0, 0, 0), 0.0);
        let sum = replay_ns(189_898, 182_790, 80_323);
        assert!((0.144e9..0.146e9).contains(&sum), "{sum}");
    }
}
