//! What do I/O addresses cost, what does mapping an object for a device, and what does a bounce add
//! to its copy?
//!
//! Row x: a thread that holds 64 ranges of 1 to 8 pages frees one and takes another, alone and
//! beside others. Expected: two uncontended locks, a look at a list, and moving a request, a range
//! and an entry of the list, since what is freed is at hand for the next of its size. That is at most
//! 0.7 of the bare range space under one lock, for which threads also wait, and at most eight of
//! the lock pairs that it takes two of. More threads than CPUs take turns; the time is that of all,
//! over the operations of all. Lazily freed ones are queued under one lock more.
//!
//! Row y: a buffer is mapped through the pool and unmapped, which copies it in and out, or a mapping
//! is synced for the device, which copies it in. Beside it as many plain copies of as many bytes.
//! Expected: for 64 KiB at most 1.2 of them; for 4 KiB the locks and counters weigh as much as the
//! copies, so at most 2.
//!
//! Row z: an object's pages, in runs of 2 MiB, are mapped for a device and unmapped: at their own
//! addresses, and in an IOMMU's tables, strict and lazy. Beside it what no mapping does without: a
//! list of the frames and one of the addresses, a handle, a lock pair for the mask on each side and
//! one for the path, and behind an IOMMU the same for the addresses, with each page's entry of the
//! tables written and cleared. Expected: checks and joins add as much again, so at most 2.
//!
//! Row l: the list of 1 GiB of frames of which no two adjoin. Beside it a plain loop that fills as
//! long a list with what it is told. Expected: looking whether frames adjoin, and cutting by length
//! and boundary, three times as much, so at most 4 of it.

#[path = "dma/addresses.rs"]
mod addresses;
#[path = "dma/bounce.rs"]
mod bounce;
#[path = "dma/mapping.rs"]
mod mapping;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run("dma", |bench| {
        for threads in [1, 2, 4, 8] {
            addresses::addresses(bench, threads)?;
        }
        for bytes in [4 << 10, 64 << 10] {
            bounce::bounce(bench, bytes)?;
            bounce::sync(bench, bytes)?;
        }
        for bytes in [4 << 10, 64 << 10, 2 << 20, 1 << 30] {
            mapping::mapping(bench, bytes)?;
        }
        mapping::list(bench)
    })
}
