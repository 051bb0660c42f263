//! Which memories the manager has on a device: its heaps and types, sorted into memory types.
//!
//! | memory type | made of | which Vulkan memory |
//! |---|---|---|
//! | SYSTEM | frames | none: pages of the process, swapped out when short |
//! | TT | frames that are imported, or chunks | the host's memory as the device reaches it |
//! | VRAM | chunks | the device's own |
//! | [`BAR`] | chunks | the part of the device's own that the CPU reaches, where that is a heap apart |
//! | [`GART`] | chunks | memory of the host that is not imported, where TT is frames |

use placement::MemType;

use super::facts::Facts;

/// The part of the device's memory that the CPU reaches, where it is apart from the rest.
pub const BAR: MemType = MemType::private(0).expect("there are six");

/// Memory of the host in chunks of the driver's: for buffers that imported frames cannot be bound to.
pub const GART: MemType = MemType::private(1).expect("there are six");

/// The memories of a device.
#[derive(Clone, PartialEq, Debug)]
pub struct Layout {
    /// Whether the device's memory is the host's.
    pub unified: bool,
    /// The memories, the device's own first.
    pub memories: Vec<Memory>,
    /// What else there is to say of the device: what was left out, and why.
    pub notes: Vec<String>,
}

/// One memory.
#[derive(Clone, PartialEq, Debug)]
pub struct Memory {
    /// Its name in the manager.
    pub mem_type: MemType,
    /// What it is made of.
    pub made_of: MadeOf,
    /// Why it is that.
    pub why: String,
}

/// What a memory is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MadeOf {
    /// System pages; `imported` says whether the device reaches them where they are.
    Frames {
        /// Whether they become the device's memory as they are.
        imported: bool,
    },
    /// Allocations of a Vulkan memory type, of which objects have parts.
    Chunks(Chunked),
}

/// The Vulkan memory type of a memory of chunks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chunked {
    /// Its number.
    pub type_index: u32,
    /// Its heap's number.
    pub heap: u32,
    /// How much there is at most, in bytes.
    pub bytes: u64,
    /// Whether the CPU reaches it.
    pub visible: bool,
    /// Whether the CPU's reads are cached.
    pub cached: bool,
    /// Whether what the CPU writes is seen without a flush. Memory that is visible and is not is
    /// taken for memory that the CPU does not reach.
    pub coherent: bool,
}

impl Layout {
    /// Sorts a device's heaps and types.
    ///
    /// # Errors
    /// What the device lacks: memory of its own, or a way for content to get there.
    pub fn of(facts: &Facts) -> Result<Self, String> {
        let _ = facts;
        Err("not sorted yet".into())
    }

    /// The memory of that name.
    #[must_use]
    pub fn memory(&self, mem_type: MemType) -> Option<&Memory> {
        self.memories.iter().find(|m| m.mem_type == mem_type)
    }
}
