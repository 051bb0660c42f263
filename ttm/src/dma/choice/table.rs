//! The rows.
//!
//! Three things differ from what the kernel would do. An encrypted guest and a restricted pool are
//! looked at before the contract of an owned device, which says nothing of either. Where nobody knows
//! whether a device snoops, a line that is shared with something else is refused as if it did not:
//! syncing does not help there. And every copy is opt-in.

use core::fmt;

use super::Decision;
use super::case::{Case, Ends, Lies, Memory, Need, SkipSync, Way};
use crate::dma::{DmaError, Topic, Verdict};

/// The name of a row. It stays; new rows get new ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the table says what each is")]
pub enum Code {
    D01,
    D02,
    D03,
    D04,
    D05,
    D06,
    D07,
    D08,
    D09,
    D10,
    D11,
    D12,
    D13,
    D14,
    D15,
    D16,
    D17,
    D18,
    D19,
    D20,
    D21,
    D22,
    D23,
    D24,
    D25,
    D26,
    D27,
    D28,
    D29,
    D31,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Code {
    /// What the decision rests on.
    #[must_use]
    pub fn topics(self) -> &'static [Topic] {
        use Topic::{
            BouncePool, Encryption, ForcedBounce, ForcedSnoop, Line, Mask, Memory, NoSnoop, Path,
            RestrictedPool, Snoop, Trust,
        };
        match self {
            Self::D01 => &[Path, Snoop, ForcedBounce, Mask, Memory],
            Self::D02 => &[Path, ForcedSnoop],
            Self::D03 | Self::D04 => &[Path, ForcedSnoop, NoSnoop],
            Self::D05 => &[Mask],
            Self::D06 => &[RestrictedPool],
            Self::D07 | Self::D08 => &[Encryption],
            Self::D09 | Self::D10 | Self::D11 => &[Path, ForcedBounce],
            Self::D12 => &[Path, ForcedBounce, Trust, Snoop],
            Self::D13 | Self::D14 | Self::D15 => &[Path, Trust, Snoop],
            Self::D16 | Self::D17 => &[Path, Mask, Memory],
            Self::D18 | Self::D19 => &[Path, Mask, Memory, BouncePool],
            Self::D20 | Self::D21 | Self::D25 | Self::D26 => &[Path, Snoop],
            Self::D22 => &[Snoop, Line],
            Self::D23 | Self::D24 => &[Snoop],
            Self::D27 => &[Path, Snoop, Encryption],
            Self::D28 | Self::D29 => &[Path, Snoop, ForcedBounce, Mask, Memory, Encryption],
            Self::D31 => &[Path],
        }
    }

    /// What would change it, in words.
    #[must_use]
    pub const fn would_change(self) -> &'static str {
        match self {
            Self::D01 => "without the demand, the other rows decide",
            Self::D02 | Self::D27 | Self::D28 | Self::D29 => {
                "nothing better is to be had: this is streaming without syncs"
            }
            Self::D03 => "an IOMMU that forces snooping would make it streaming",
            Self::D04 => "a device that is known to send no-snoop requests would make it synced",
            Self::D05 => "an address inside the mask",
            Self::D06 => "memory outside the pool becomes reachable when the firmware assigns none",
            Self::D07 | Self::D08 => "memory that is not encrypted would be mapped as it is",
            Self::D09 | Self::D10 | Self::D11 => {
                "streaming without swiotlb=force, or behind a translating IOMMU"
            }
            Self::D12 => "an untrusted device would be bounced at unaligned ends",
            Self::D13 | Self::D14 => {
                "a buffer that is aligned to the IOMMU's pages is mapped in place"
            }
            Self::D15 => "nothing but trust: the mapping is in place",
            Self::D16 | Self::D18 | Self::D19 => {
                "a wider mask, or a translating IOMMU, would make it streaming"
            }
            Self::D17 => "a page above the mask would have to be copied",
            Self::D20 => "sync points would make it streaming with syncs",
            Self::D21 => "a device that snoops would need no syncs",
            Self::D22 => "ends at cache lines would make it streaming with syncs",
            Self::D23 => "the first mapping for a device has to sync",
            Self::D24 => "a proof that a device owns the buffer",
            Self::D25 | Self::D26 => "a source that says whether the device snoops",
            Self::D31 => "a source that says by which path the device reaches memory",
        }
    }
}

/// A row of the table.
pub struct Row {
    /// Its name.
    pub code: Code,
    /// When it decides, in words.
    pub when: &'static str,
    pub(super) matches: fn(&Case) -> bool,
    pub(super) decision: fn(&Case) -> Decision,
    pub(super) reason: fn(&Verdict, &Need) -> String,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({}: {})", self.code, self.when)
    }
}

fn streaming(_: &Case) -> Decision {
    Decision::Streaming
}

fn synced(_: &Case) -> Decision {
    Decision::Synced { copies: false }
}

/// Streaming where accesses snoop, with syncs elsewhere.
fn by_snoop(case: &Case) -> Decision {
    match case.snoop.is_yes() {
        true => Decision::Streaming,
        false => Decision::Synced { copies: false },
    }
}

fn not_coherent(case: &Case) -> Decision {
    Decision::Refuse(DmaError::NotCoherent {
        cause: case.cause(),
    })
}

fn coherent(case: &Case) -> Decision {
    match case.coherent_memory {
        true => Decision::Coherent,
        false => not_coherent(case),
    }
}

fn would_bounce(case: &Case) -> Decision {
    let cause = case.cause();
    Decision::Refuse(match case.shared {
        true => DmaError::WouldBounceShared { cause },
        false => DmaError::WouldBounce { cause },
    })
}

/// The platform copies, if that is allowed.
fn copied(case: &Case) -> Decision {
    match case.can_be_copied() && case.allow_bounce {
        true => Decision::Synced { copies: true },
        false => would_bounce(case),
    }
}

/// We copy, if that is allowed.
fn bounce(case: &Case) -> Decision {
    match case.can_be_copied() && case.allow_bounce {
        true => Decision::Bounce,
        false => would_bounce(case),
    }
}

/// What is mapped as it is where it snoops, or can be synced.
fn in_place(case: &Case) -> bool {
    case.snoop.is_yes() || !case.persistent && !case.tears_lines() && case.skip == SkipSync::No
}

fn end_of(need: &Need) -> String {
    match need.memory {
        Memory::Foreign { end } => format!("byte {end:#x}"),
        Memory::Ours => "the buffer".into(),
    }
}

/// The rows, in order.
pub const TABLE: &[Row] = &[
    Row {
        code: Code::D24,
        when: "the sync is to be skipped, and nobody shows that a device owns the buffer",
        matches: |case| case.skip == SkipSync::Unproven,
        decision: |_| Decision::Refuse(DmaError::SkipSyncWithoutProof),
        reason: |_, _| "a sync is skipped only for a buffer that a device owns already".into(),
    },
    Row {
        code: Code::D05,
        when: "its I/O address is above the mask",
        matches: |case| case.io_above,
        decision: would_bounce,
        reason: |verdict, need| {
            format!(
                "I/O address {:#x} is above the device's {}, and nobody else checks that",
                need.io_end.unwrap_or_default(),
                verdict.mask
            )
        },
    },
    Row {
        code: Code::D01,
        when: "coherency is demanded, and the device is not known to snoop or a copy is possible",
        matches: |case| case.coherent && (!case.snoop.is_yes() || case.bounces().is_some()),
        decision: not_coherent,
        reason: |verdict, need| {
            let cause = Case::new(verdict, need).cause();
            format!("coherency is demanded, and {cause}")
        },
    },
    Row {
        code: Code::D06,
        when: "the device reaches a pool of its own and nothing else",
        matches: |case| case.restricted,
        decision: |case| match case.ours() {
            true => coherent(case),
            false => bounce(case),
        },
        reason: |_, _| "the device reaches only its own pool: everything else is copied".into(),
    },
    Row {
        code: Code::D07,
        when: "this guest's memory is encrypted, and the buffer is still to be allocated",
        matches: |case| case.encrypted && case.ours(),
        decision: |_| Decision::Decrypted,
        reason: |_, _| "encrypted guest: the device sees only pages that are not encrypted".into(),
    },
    Row {
        code: Code::D08,
        when: "this guest's memory is encrypted, and the buffer is there already",
        matches: |case| case.encrypted,
        decision: bounce,
        reason: |_, _| "encrypted pages have to be copied for the device".into(),
    },
    Row {
        code: Code::D02,
        when: "the process owns the device, and the IOMMU forces its requests to snoop",
        matches: |case| case.way == Way::Owned(true),
        decision: streaming,
        reason: |_, _| {
            "mapped cacheable, and the IOMMU forces snooping: coherent by contract".into()
        },
    },
    Row {
        code: Code::D03,
        when: "the process owns the device, which asks not to snoop",
        matches: |case| case.way == Way::Owned(false) && case.asks_not_to && !case.tears_lines(),
        decision: |case| match case.persistent {
            true => not_coherent(case),
            false => synced(case),
        },
        reason: |verdict, _| {
            format!(
                "the IOMMU cannot override requests of {} that ask not to snoop",
                verdict.device
            )
        },
    },
    Row {
        code: Code::D04,
        when: "the process owns the device, which is not known to ask not to snoop",
        matches: |case| case.way == Way::Owned(false) && !case.asks_not_to && !case.snoop.is_no(),
        decision: streaming,
        reason: |verdict, _| {
            format!(
                "mapped cacheable; only requests that ask not to snoop would escape, and {} is not \
                 known to send any",
                verdict.device
            )
        },
    },
    Row {
        code: Code::D09,
        when: "a direct path on which everything is copied; the buffer is still to be allocated",
        matches: |case| case.is_direct() && case.forced && case.ours(),
        decision: coherent,
        reason: |verdict, _| {
            match verdict.forced_bounce.is_yes() {
                true => {
                    "everything that is mapped is copied, what is allocated for the device is not"
                }
                false => "nothing says that mappings are not copied; what is allocated is not",
            }
            .into()
        },
    },
    Row {
        code: Code::D10,
        when: "the same for a buffer that is there already, of one device, with sync points",
        matches: |case| case.is_direct() && case.forced && case.can_be_copied(),
        decision: copied,
        reason: |_, _| "forced bounce: two copies each time, and the syncs are mandatory".into(),
    },
    Row {
        code: Code::D11,
        when: "the same for what is shared, or has no sync points",
        matches: |case| case.is_direct() && case.forced,
        decision: would_bounce,
        reason: |verdict, _| {
            format!(
                "forced bounce gives {} a copy of its own; whoever else uses the buffer would read \
                 old data",
                verdict.device
            )
        },
    },
    Row {
        code: Code::D12,
        when: "a translated, trusted device that snoops, while direct paths are copied",
        matches: |case| {
            case.way == Way::Translated && case.forced && !case.untrusted && case.snoop.is_yes()
        },
        decision: streaming,
        reason: |verdict, _| {
            match verdict.forced_bounce.is_yes() {
                true => "forced bounce is for direct paths; this one is translated, and trusted",
                false => "translated and trusted: whether direct paths are copied does not matter",
            }
            .into()
        },
    },
    Row {
        code: Code::D13,
        when: "a translated, untrusted device; unaligned, of one device, with sync points",
        matches: |case| {
            case.way == Way::Translated
                && case.untrusted
                && case.ends != Ends::Granule
                && case.can_be_copied()
        },
        decision: copied,
        reason: |_, _| "untrusted device: unaligned ends go through padded pages".into(),
    },
    Row {
        code: Code::D14,
        when: "the same, shared or without sync points",
        matches: |case| case.way == Way::Translated && case.untrusted && case.ends != Ends::Granule,
        decision: would_bounce,
        reason: |_, _| {
            "untrusted device and unaligned buffer: align it to the IOMMU's pages, or allocate it \
             for the device"
                .into()
        },
    },
    Row {
        code: Code::D15,
        when: "a translated, untrusted device; aligned",
        matches: |case| case.way == Way::Translated && case.untrusted && in_place(case),
        decision: by_snoop,
        reason: |_, _| "untrusted, but aligned: mapped in place".into(),
    },
    Row {
        code: Code::D16,
        when: "a direct path that does not reach all memory; the buffer is still to be allocated",
        matches: |case| case.is_direct() && case.limited && case.ours(),
        decision: coherent,
        reason: |verdict, _| {
            format!(
                "{}, and memory of {} bits: allocate where the device reaches, instead of copying",
                verdict.mask,
                verdict.required.lines()
            )
        },
    },
    Row {
        code: Code::D17,
        when: "the same for a buffer that is there already, and within reach",
        matches: |case| {
            case.is_direct() && case.limited && case.lies == Lies::Below && in_place(case)
        },
        decision: by_snoop,
        reason: |_, _| "all pages happen to be within reach".into(),
    },
    Row {
        code: Code::D18,
        when: "the same out of reach, with a pool to copy to, of one device, with sync points",
        matches: |case| {
            case.is_direct() && case.lies == Lies::Above && case.pool && case.can_be_copied()
        },
        decision: copied,
        reason: |verdict, need| format!("{} is above the {}: copied", end_of(need), verdict.mask),
    },
    Row {
        code: Code::D19,
        when: "the same, shared or without sync points or without a pool",
        matches: |case| case.is_direct() && case.lies == Lies::Above,
        decision: would_bounce,
        reason: |verdict, need| {
            format!(
                "{} is above the {}, and may not be copied",
                end_of(need),
                verdict.mask
            )
        },
    },
    Row {
        code: Code::D20,
        when: "the device does not snoop, and there are no sync points",
        matches: |case| case.snoop.is_no() && case.persistent,
        decision: coherent,
        reason: |_, _| "the device does not snoop, and the buffer has no sync points".into(),
    },
    Row {
        code: Code::D31,
        when: "nobody knows the path",
        matches: |case| case.way == Way::Unknown,
        decision: |case| match case.can_be_copied() && !case.tears_lines() {
            true => synced(case),
            // Of memory that is there already nobody could say that it is not copied.
            false if case.ours() => coherent(case),
            false => would_bounce(case),
        },
        reason: |verdict, _| {
            format!(
                "nothing says by which path {} reaches memory: it is not taken to snoop",
                verdict.device
            )
        },
    },
    Row {
        code: Code::D23,
        when: "the device does not snoop, or nobody knows; a device owns the buffer already",
        matches: |case| !case.snoop.is_yes() && !case.persistent && case.skip == SkipSync::Proven,
        decision: synced,
        reason: |_, _| "a device owns it already: the first mapping did what was to be done".into(),
    },
    Row {
        code: Code::D22,
        when: "the same, and the device writes a cache line that something else is in",
        matches: |case| !case.snoop.is_yes() && !case.persistent && case.tears_lines(),
        decision: bounce,
        reason: |verdict, _| {
            format!(
                "a part of a cache line of {} bytes: CPU and device would overwrite each other",
                verdict.line
            )
        },
    },
    Row {
        code: Code::D21,
        when: "the device does not snoop; there are sync points",
        matches: |case| case.snoop.is_no(),
        decision: synced,
        reason: |_, _| {
            "the device does not snoop: the caches are maintained at each hand-over".into()
        },
    },
    Row {
        code: Code::D25,
        when: "nobody knows whether the device snoops, and there are no sync points",
        matches: |case| !case.snoop.is_yes() && case.persistent,
        decision: coherent,
        reason: |verdict, _| {
            format!(
                "nothing proves that {} snoops; what has no sync points needs coherent memory",
                verdict.device
            )
        },
    },
    Row {
        code: Code::D26,
        when: "nobody knows whether the device snoops; there are sync points",
        matches: |case| !case.snoop.is_yes(),
        decision: synced,
        reason: |_, _| "nothing proves that the device snoops: synced to be safe".into(),
    },
    Row {
        code: Code::D27,
        when: "translated, and the device snoops",
        matches: |case| case.way == Way::Translated,
        decision: streaming,
        reason: |_, _| "translated, and the device snoops".into(),
    },
    Row {
        code: Code::D28,
        when: "an IOMMU lets addresses through, all memory is in reach, and the device snoops",
        matches: |case| case.way == Way::Identity,
        decision: streaming,
        reason: |_, _| {
            "the IOMMU lets addresses through, the device snoops, all memory is within reach".into()
        },
    },
    Row {
        code: Code::D29,
        when: "no IOMMU, all memory is in reach, and the device snoops",
        matches: |case| case.way == Way::Direct,
        decision: streaming,
        reason: |_, _| "no IOMMU, the device snoops, all memory is within reach".into(),
    },
];

/// The row that decides.
///
/// # Panics
/// If none does, which the test of the table excludes.
pub(super) fn row_of(case: &Case) -> &'static Row {
    TABLE
        .iter()
        .find(|row| (row.matches)(case))
        .expect("the table is total")
}
