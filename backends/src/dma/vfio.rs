//! What VFIO says of a group that the caller may take.
//!
//! ```text
//!   open container ── open group ── attach ── set the IOMMU ── ask ── detach
//! ```
//!
//! Whether the IOMMU forces requests to snoop is asked last: before a group is attached the answer is
//! no, whatever the IOMMU can. However it ends, the group is detached and closed.

mod info;
mod nodes;

pub(super) use nodes::Nodes;

use core::fmt;
use core::ops::RangeInclusive;
use std::io;

use ttm::dma::{Fact, Missing, Topic, Tri, Trust};

const TYPE1V2: u32 = 3;
const DMA_CC: u32 = 4;

/// What VFIO says of a group. It is what the group has alone in a container; others attached to the
/// same can make it less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VfioReport {
    /// Whether the IOMMU makes requests snoop that ask not to.
    pub forces_snoop: Tri,
    /// The sizes of pages that it translates, a bit for each; 0 if they are not told.
    pub page_sizes: u64,
    /// The addresses that can be mapped, in order; none if they are not told.
    pub iova_ranges: Vec<RangeInclusive<u64>>,
    /// How many mappings there can be.
    pub mappings_left: Option<u32>,
    /// The same, with its source.
    pub facts: Vec<Fact>,
    /// What could not be asked.
    pub missing: Vec<Missing>,
}

/// The nodes of VFIO.
pub(super) trait Vfio: fmt::Debug + Send + Sync {
    /// A container without groups.
    fn container(&self) -> io::Result<Box<dyn Container>>;
}

/// A container, and one group. Dropping it closes both.
pub(super) trait Container {
    /// Opens the group; nobody else can meanwhile.
    fn open(&mut self, group: &str) -> io::Result<()>;

    /// Whether no device of the group has a driver that drives it.
    fn is_viable(&mut self) -> io::Result<bool>;

    fn attach(&mut self) -> io::Result<()>;

    fn detach(&mut self) -> io::Result<()>;

    /// Makes the container one of that type.
    fn set_iommu(&mut self, kind: u32) -> io::Result<()>;

    fn has(&mut self, extension: u32) -> io::Result<bool>;

    /// The bytes of `struct vfio_iommu_type1_info`, capabilities included.
    fn info(&mut self) -> io::Result<Vec<u8>>;
}

/// A group in a container, until it drops.
struct Attached<'a>(&'a mut dyn Container);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // Closing the group, which follows, detaches it as well.
        let _ = self.0.detach();
    }
}

/// Takes a group for as long as it is asked.
pub(super) fn ask(vfio: &dyn Vfio, group: &str) -> Result<VfioReport, Missing> {
    let source = format!("/dev/vfio/{group}");
    let missing = |why: String| Missing {
        source: source.clone(),
        why,
    };
    let failed = |what: &'static str| {
        let source = source.clone();
        move |error: io::Error| Missing {
            source,
            why: format!("{what}: {}", reason(&error)),
        }
    };
    let mut container = vfio.container().map_err(|error| Missing {
        source: "/dev/vfio/vfio".into(),
        why: reason(&error),
    })?;
    if !container.has(TYPE1V2).map_err(failed("the container"))? {
        return Err(missing("this kernel's VFIO has no IOMMU of type 1".into()));
    }
    container
        .open(group)
        .map_err(|error| missing(reason(&error)))?;
    if !container.is_viable().map_err(failed("its status"))? {
        return Err(missing(
            "a device of the group has a driver that drives it; bind all of them to vfio-pci"
                .into(),
        ));
    }
    container
        .attach()
        .map_err(failed("it cannot be attached"))?;
    let attached = Attached(&mut *container);
    let no_iommu = failed("its IOMMU cannot be set");
    attached.0.set_iommu(TYPE1V2).map_err(no_iommu)?;
    Ok(asked(attached.0, &source))
}

fn asked(container: &mut dyn Container, source: &str) -> VfioReport {
    let mut report = VfioReport {
        forces_snoop: Tri::Unknown,
        page_sizes: 0,
        iova_ranges: Vec::new(),
        mappings_left: None,
        facts: Vec::new(),
        missing: Vec::new(),
    };
    let missing = |error: &io::Error| Missing {
        source: source.into(),
        why: reason(error),
    };
    match container.has(DMA_CC) {
        Ok(forces) => report.forces_snoop = forces.into(),
        Err(error) => report.missing.push(missing(&error)),
    }
    match container.info() {
        Ok(bytes) => {
            let told = info::parse(&bytes);
            report.page_sizes = told.page_sizes;
            report.iova_ranges = told.iova_ranges;
            report.mappings_left = told.mappings_left;
        }
        Err(error) => report.missing.push(missing(&error)),
    }
    report.facts = facts(&report, source);
    report
}

fn facts(report: &VfioReport, source: &str) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |topic, says| {
        facts.push(Fact {
            topic,
            says,
            source: source.into(),
            trust: Trust::Measured,
            privileged: true,
        });
    };
    match report.forces_snoop {
        Tri::Yes => fact(
            Topic::ForcedSnoop,
            "the IOMMU forces the group's requests to snoop".into(),
        ),
        Tri::No => fact(
            Topic::ForcedSnoop,
            "the IOMMU does not force the group's requests to snoop".into(),
        ),
        Tri::Unknown => {}
    }
    if report.page_sizes != 0 {
        let bits = (0..u64::BITS).filter(|bit| report.page_sizes >> bit & 1 == 1);
        let sizes: Vec<_> = bits.map(|bit| format!("{:#x}", 1_u64 << bit)).collect();
        fact(Topic::Iova, format!("pages of {}", sizes.join(", ")));
    }
    if !report.iova_ranges.is_empty() {
        let ranges = report.iova_ranges.iter();
        let ranges: Vec<_> = ranges
            .map(|range| format!("{:#x} to {:#x}", range.start(), range.end()))
            .collect();
        fact(Topic::Iova, format!("addresses {}", ranges.join(", ")));
    }
    if let Some(left) = report.mappings_left {
        fact(Topic::Iova, format!("{left} mappings at a time"));
    }
    facts
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "not there".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::ResourceBusy => "in use: whoever has it can ask".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests;
