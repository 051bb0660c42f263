//! What a ledger is told, and how it is held against what it knows.

use core::fmt;

use bitflags::bitflags;

use super::{Class, Found, Site};
use crate::dma::{Direction, DmaError, DmaSegment, SegmentParms};

/// The number of a record, for who made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub(super) u64);

/// By what function something was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// One range.
    Single,
    /// A list.
    List,
    /// Allocated, coherent.
    Coherent,
    /// Allocated, to be synced.
    Noncoherent,
    /// Raw addresses.
    Raw,
}

/// What memory it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Origin {
    /// A backing: frames.
    #[default]
    Backing,
    /// A stack.
    Stack,
    /// Text or constants.
    ReadOnly,
    /// None.
    Invalid,
    /// Any other.
    Unregistered,
    /// Ordinary memory that is mapped as if it were a device's.
    AsRegisters,
}

bitflags! {
    /// How something was mapped.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct RecordAttrs: u8 {
        /// Without a view for the CPU.
        const NO_CPU_VIEW = 1 << 0;
        /// In one run.
        const CONTIGUOUS = 1 << 1;
        /// Registers of a device.
        const REGISTERS = 1 << 2;
        /// Neither synced nor copied.
        const COHERENT = 1 << 3;
        /// By privileged accesses.
        const PRIVILEGED = 1 << 4;
        /// Not encrypted.
        const DECRYPTED = 1 << 5;
        /// Caches were not maintained; may differ at the end.
        const SKIP_SYNC = 1 << 6;
        /// Overlapping lines do no harm; may differ at the end.
        const IGNORE_LINES = 1 << 7;
    }
}

impl RecordAttrs {
    /// Those that have to be the same when it is unmapped.
    const KEPT: Self = Self::SKIP_SYNC.union(Self::IGNORE_LINES).complement();
}

/// A mapping as its maker describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// The device, by a number of its own.
    pub device: u64,
    /// By what it was mapped.
    pub kind: Kind,
    /// The device's address of the first byte.
    pub addr: u64,
    /// How many bytes from there on.
    pub len: u64,
    /// Who writes and who reads.
    pub direction: Direction,
    /// Segments of the CPU's side.
    pub segments: usize,
    /// How.
    pub attrs: RecordAttrs,
    /// The memory, by a number of its own.
    pub memory: u64,
    /// What memory.
    pub origin: Origin,
    /// Bytes of files, `(file, first, end)`, whose cache lines the device uses. None where they do
    /// not matter, such as of a copy.
    pub bytes: Vec<(u32, u64, u64)>,
    /// Bytes of a line, at least one.
    pub line: u64,
}

impl Record {
    /// Lines that nobody else should have: those that the device writes, unless it was said that
    /// that is fine.
    pub(super) fn claims_lines(&self) -> bool {
        let exempt = RecordAttrs::SKIP_SYNC | RecordAttrs::IGNORE_LINES | RecordAttrs::COHERENT;
        self.direction.device_writes() && !self.attrs.intersects(exempt)
    }

    /// `(file, first line, line after the last)`.
    pub(super) fn lines(&self) -> impl Iterator<Item = (u32, u64, u64)> + '_ {
        let line = self.line;
        let lines =
            move |(file, first, end): &(u32, u64, u64)| (*file, first / line, end.div_ceil(line));
        self.bytes.iter().map(lines)
    }

    pub(super) fn check_origin(&self, found: &mut Found) {
        let (class, what) = match self.origin {
            Origin::Backing => return,
            Origin::Stack => (Class::Stack, "memory of a stack"),
            Origin::ReadOnly => (Class::ReadOnlyMemory, "text or constants"),
            Origin::Invalid => (Class::InvalidMemory, "memory that is not there"),
            Origin::Unregistered => (Class::Unregistered, "memory that nobody registered"),
            Origin::AsRegisters => (Class::MemoryAsRegisters, "memory, as registers,"),
        };
        found.push((class, None, format!("{what} is mapped: {self}")));
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}+{:#x} {}", self.addr, self.len, self.direction)
    }
}

/// The end of a mapping as its maker describes it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What it is taken for.
    pub record: Record,
    /// Its record, if that is known.
    pub ticket: Option<Ticket>,
}

impl Claim {
    /// How many things are not as they were.
    pub(super) fn misfits(&self, was: &Record) -> usize {
        let mut found = Found::new();
        self.compare(was, None, &mut found);
        found.len()
    }

    pub(super) fn check(&self, was: &Record, site: Site, checked: bool, found: &mut Found) {
        self.compare(was, Some(site), found);
        if !checked {
            let text = format!("{was}: nobody asked whether mapping it had failed");
            found.push((Class::Unchecked, Some(site), text));
        }
    }

    fn compare(&self, was: &Record, site: Option<Site>, found: &mut Found) {
        let now = &self.record;
        let kept = RecordAttrs::KEPT;
        let differs = [
            (Class::FreeOfOtherSize, now.len != was.len),
            (Class::FreeAsOtherKind, now.kind != was.kind),
            (Class::FreeOfOtherMemory, now.memory != was.memory),
            (Class::FreeOfOtherCount, now.segments != was.segments),
            (Class::FreeInOtherDirection, now.direction != was.direction),
            (
                Class::FreeWithOtherAttrs,
                now.attrs & kept != was.attrs & kept,
            ),
        ];
        for (class, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            found.push((class, site, format!("mapped {was:?}, unmapped {now:?}")));
        }
    }
}

/// To whom a sync shows bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SyncTo {
    /// The CPU.
    Cpu,
    /// The device.
    Device,
}

/// A sync as its maker describes it.
#[derive(Clone, Debug)]
pub struct Synced {
    /// The device, by a number of its own.
    pub device: u64,
    /// The device's address of the first byte.
    pub addr: u64,
    /// How many bytes.
    pub len: u64,
    /// In which direction it is taken to be mapped.
    pub direction: Direction,
    /// To whom.
    pub to: SyncTo,
    /// Segments of the CPU's side, if all of them are synced.
    pub segments: Option<usize>,
}

impl Synced {
    pub(super) fn check(&self, was: &Record, site: Site, found: &mut Found) {
        let asked = self.direction;
        let mut add = |class, text: String| found.push((class, Some(site), text));
        let end = self.addr.saturating_add(self.len);
        if end > was.addr.saturating_add(was.len) {
            let text = format!("bytes {:#x}+{:#x} of {was}", self.addr, self.len);
            add(Class::SyncOutOfRange, text);
        }
        match (self.to, was.direction) {
            (SyncTo::Cpu, Direction::ToDevice) if asked != Direction::ToDevice => add(
                Class::SyncForCpuOfReadOnly,
                format!("for the CPU, {asked}, of {was}"),
            ),
            (SyncTo::Device, Direction::FromDevice) if asked != Direction::FromDevice => add(
                Class::SyncForDeviceOfWriteOnly,
                format!("for the device, {asked}, of {was}"),
            ),
            (_, Direction::Both) => {}
            (_, mapped) if mapped != asked => {
                add(Class::SyncInOtherDirection, format!("{asked}, of {was}"));
            }
            _ => {}
        }
        if let Some(count) = self.segments
            && count != was.segments
        {
            let text = format!("{count} segments of {}", was.segments);
            add(Class::SyncOfOtherCount, text);
        }
    }
}

/// What the segments of a list have that its device does not take.
pub(super) fn check_segments(segments: &[DmaSegment], parms: &SegmentParms, found: &mut Found) {
    for segment in segments {
        let alone = core::slice::from_ref(segment);
        let class = match parms.check(alone) {
            Err(DmaError::SegmentTooLong { .. }) => Class::SegmentTooLong,
            Err(DmaError::BoundaryCrossed { .. }) => Class::SegmentAcrossBoundary,
            _ => continue,
        };
        let (addr, len) = (segment.addr, segment.len);
        found.push((class, None, format!("{addr:#x}+{len:#x}")));
    }
}
