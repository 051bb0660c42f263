//! Whether the CPU or the queue copies sooner, by size, as it was measured when the device was opened.

use core::time::Duration;
use std::time::Instant;

use ash::vk;
use ttm::pages::Mapped;
use ttm::sync::Arc;

use super::error::VulkanError;
use super::layout::Chunked;
use super::raw::{
    Buffer, BufferWant, CommandPool, Commands, Memory, MemoryWant, Raw, Semaphore, SharedQueue,
    Submission,
};
use super::trials::Quiet;
use super::trials::{mapping_of, page_file};

/// The sizes that are measured, in bytes. What is larger than the last is like that.
const SIZES: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 8 << 20];

/// How often each; the least time counts.
const TIMES: u32 = 4;

/// Who copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Copies {
    /// Whoever was measured to be sooner, by size.
    #[default]
    Measured,
    /// The queue, always.
    Queue,
    /// The CPU wherever it reaches both ends.
    Cpu,
}

/// Times of one size, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// Bytes.
    pub bytes: u64,
    /// A copy by the queue, from the call to the signal.
    pub queue_ns: u64,
    /// Making system pages the device's for it, and no more; 0 where they are not imported.
    pub import_ns: u64,
    /// A copy by the CPU into the device's memory.
    pub cpu_in_ns: u64,
    /// A copy by the CPU out of it.
    pub cpu_out_ns: u64,
}

/// What copies cost, and who is chosen.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    copies: Copies,
    measured: Vec<Cost>,
}

impl Costs {
    /// Without measuring anything.
    pub(super) fn fixed(copies: Copies) -> Self {
        Self {
            copies,
            measured: Vec::new(),
        }
    }

    /// What was measured, by size; nothing if nothing was.
    #[must_use]
    pub fn measured(&self) -> &[Cost] {
        &self.measured
    }

    /// Whether the CPU copies so many bytes into, or out of, device memory that it reaches.
    #[must_use]
    pub fn cpu_copies(&self, bytes: u64, into_device: bool) -> bool {
        match self.copies {
            Copies::Cpu => true,
            Copies::Queue => false,
            Copies::Measured => {
                let near = self.measured.iter().find(|cost| cost.bytes >= bytes);
                let near = near.or(self.measured.last());
                near.is_some_and(|cost| {
                    let cpu = match into_device {
                        true => cost.cpu_in_ns,
                        false => cost.cpu_out_ns,
                    };
                    // The caller waits for the CPU's copy, and not for the queue's: a tenth less
                    // is not enough to make him.
                    cpu + cpu / 10 < cost.queue_ns + cost.import_ns
                })
            }
        }
    }

    /// Measures, with memory that the CPU reaches. Takes some milliseconds.
    pub(super) fn measure(
        raw: &Arc<Raw>,
        queue: &Arc<SharedQueue>,
        visible: Chunked,
        imports: bool,
    ) -> Result<Self, VulkanError> {
        let largest = SIZES[SIZES.len() - 1];
        let (from, from_buffer) = memory(raw, visible, largest)?;
        let (to, to_buffer) = memory(raw, visible, largest)?;
        let (Some(from), Some(to)) = (from.host_view(), to.host_view()) else {
            return Ok(Self::default());
        };
        from.zero(0, from.len());
        to.zero(0, to.len());
        let mut host = vec![0_u8; from.len()];
        let pool = CommandPool::create(raw, queue.family())?;
        let commands = Commands::create(&pool)?;
        let done = Semaphore::create(raw, false)?;
        let _quiet = Quiet { raw, queue };
        let mut value = 0;
        let mut measured = Vec::new();
        for bytes in SIZES {
            let mut cost = Cost {
                bytes,
                queue_ns: u64::MAX,
                import_ns: if imports { u64::MAX } else { 0 },
                cpu_in_ns: u64::MAX,
                cpu_out_ns: u64::MAX,
            };
            for _ in 0..TIMES {
                value += 1;
                let begun = Instant::now();
                let region = vk::BufferCopy::default().size(bytes);
                commands.begin()?;
                commands.copy(&from_buffer, &to_buffer, &[region]);
                commands.end()?;
                queue.submit(
                    raw,
                    &[Submission {
                        commands: &commands,
                        waits: &[],
                        signal: (&done, value),
                    }],
                )?;
                Semaphore::wait_any(raw, &[(done.handle(), value)], Duration::from_secs(5))?;
                if done.value()? < value {
                    return Ok(Self::default());
                }
                cost.queue_ns = cost.queue_ns.min(since(begun));
                if imports {
                    cost.import_ns = cost.import_ns.min(import(raw, bytes)?);
                }
                cost.cpu_in_ns = cost.cpu_in_ns.min(timed(|| write(&to, &host, bytes)));
                cost.cpu_out_ns = cost.cpu_out_ns.min(timed(|| read(&to, &mut host, bytes)));
            }
            measured.push(cost);
        }
        Ok(Self {
            copies: Copies::Measured,
            measured,
        })
    }
}

/// How long it takes to map pages that lie in a file, to import them, and to let go of them.
fn import(raw: &Arc<Raw>, bytes: u64) -> Result<u64, VulkanError> {
    let unsuitable = |error: std::io::Error| raw.lacks(error.to_string());
    let file = page_file(bytes).map_err(unsuitable)?;
    let begun = Instant::now();
    let pages = mapping_of(&file, bytes).map_err(unsuitable)?;
    drop(Memory::import(raw, pages)?);
    Ok(since(begun))
}

fn write(to: &Mapped, host: &[u8], bytes: u64) {
    to.write(0, &host[..index(bytes)]);
}

fn read(from: &Mapped, host: &mut [u8], bytes: u64) {
    from.read(0, &mut host[..index(bytes)]);
}

fn index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("few megabytes")
}

fn timed(work: impl FnOnce()) -> u64 {
    let begun = Instant::now();
    work();
    since(begun)
}

fn since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn memory(
    raw: &Arc<Raw>,
    visible: Chunked,
    bytes: u64,
) -> Result<(Arc<Memory>, Buffer), VulkanError> {
    let none = vk::ExternalMemoryHandleTypeFlags::empty();
    let want = MemoryWant {
        type_index: visible.type_index,
        bytes,
        priority: 0.5,
        mapped: true,
        export: none,
    };
    let memory = Arc::new(Memory::allocate(raw, &want)?);
    let want = BufferWant::for_copies(bytes, &[]);
    let buffer = Buffer::within(raw, &want, &memory, Some(visible.type_index), 0)?;
    Ok((memory, buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(bytes: u64, queue_ns: u64, cpu_in_ns: u64, cpu_out_ns: u64) -> Cost {
        Cost {
            bytes,
            queue_ns,
            import_ns: 0,
            cpu_in_ns,
            cpu_out_ns,
        }
    }

    #[test]
    fn whoever_is_sooner_copies_each_way() {
        let costs = Costs {
            copies: Copies::Measured,
            measured: vec![cost(100, 50, 10, 60), cost(1000, 100, 95, 400)],
        };
        assert!(costs.cpu_copies(1, true) && !costs.cpu_copies(1, false));
        // Not by enough to make the caller wait; and beyond the last, as the last.
        assert!(!costs.cpu_copies(101, true) && !costs.cpu_copies(1 << 40, true));
        assert!(
            !Costs::default().cpu_copies(1, true),
            "nothing was measured"
        );
        let mut imported = cost(100, 50, 60, 60);
        imported.import_ns = 30;
        let imported = Costs {
            copies: Copies::Measured,
            measured: vec![imported],
        };
        assert!(imported.cpu_copies(100, true), "the import counts");
        assert!(Costs::fixed(Copies::Cpu).cpu_copies(1, false));
        assert!(!Costs::fixed(Copies::Queue).cpu_copies(1, true));
    }
}
