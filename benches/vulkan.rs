//! What does the manager cost on a Vulkan device, beside the bare calls and beside other allocators?
//!
//! Row b: a buffer of 4 KiB to 1 MiB is made, put into device memory, bound and dropped, while 64 of
//! its like live. Beside it the bare calls that nobody does without (`vkCreateBuffer`, its
//! requirements, `vkBindBufferMemory`, `vkDestroyBuffer`) and, with the feature `peers`, what VMA and
//! gpu-allocator take for the same. Expected: below VMA. A stable buffer's memory is bound by a queue
//! instead, which costs a submission; so there is a row up to the call's return, and one up to the
//! last bind's end. The rows of memory alone leave the buffer out, on both sides. Fresh memory is not
//! cleared in these, as that of others is not; the row that clears stands beside.
//!
//! Row m: 4 KiB to 256 MiB move between SYSTEM and VRAM and are waited for: by the queue, beside a
//! bare copy command between two such buffers, submitted and waited for; by the CPU, beside `memcpy`
//! between the same two mappings; and by whoever was measured to be sooner, beside the sooner limit.
//! Expected: what a move costs beside its copy is microseconds, so 1.1 of either for what is large.
//!
//! Row r: buffers that moved are bound to where they are now: 1, 16 and 256 of them, an object, beside
//! one bare `vkQueueBindSparse` of one bind that is waited for. Expected: one submission for all, so
//! far below it for many. Without stable handles a new buffer is made, beside the bare calls for one.
//!
//! Row s: 1, 16 or 256 resident objects are locked, validated, bound and fenced around an empty
//! submission, beside the empty submission alone. What is added is also reported an object.
//!
//! Row o: a device writes 0.5 to 4 times as much as its memory holds, object by object: to and fro, and
//! round and round. The bytes that move are held against the least that any order of eviction moves
//! that knows the future (Belady's). Expected to and fro: at most 1.25, since what was used last is
//! needed first. Round and round the least recently used is the worst choice; nothing is expected.
//!
//! Without a device the bench says `skipped` and measures nothing; with `TTM_REQUIRE_VULKAN` set it
//! fails instead.

use std::process::ExitCode;

use anyhow::ensure;
use backends::vulkan::VulkanConfig;
use harness::Bench;

use stage::Stage;

#[path = "vulkan/bare.rs"]
mod bare;
#[path = "migration/memory.rs"]
mod memory;
#[path = "vulkan/moves.rs"]
mod moves;
#[path = "vulkan/objects.rs"]
mod objects;
#[cfg(feature = "peers")]
#[path = "vulkan/peers.rs"]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "vulkan/alone.rs"]
mod peers;
#[path = "vulkan/pressure.rs"]
mod pressure;
#[path = "vulkan/rebinds.rs"]
mod rebinds;
#[path = "vulkan/sides.rs"]
mod sides;
#[path = "vulkan/stage.rs"]
mod stage;
#[path = "vulkan/submissions.rs"]
mod submissions;

fn main() -> ExitCode {
    harness::run("vulkan", |bench| {
        match Stage::open(VulkanConfig::new("ttm bench"))? {
            Ok(stage) => {
                let facts = stage.vulkan.facts();
                bench
                    .report
                    .note(format!("device: {}, {}", facts.name, facts.driver));
                bench.report.note(stage.abilities());
                bench.report.note(stage.costs());
            }
            Err(why) => {
                let required = std::env::var_os("TTM_REQUIRE_VULKAN").is_some();
                ensure!(!required, "a Vulkan device is required here: {why}");
                bench.report.note(format!("skipped: {why}"));
                return Ok(());
            }
        }
        measure(bench)
    })
}

fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    objects::objects(bench)?;
    moves::moves(bench)?;
    rebinds::rebinds(bench)?;
    submissions::submissions(bench)?;
    pressure::pressure(bench)
}
