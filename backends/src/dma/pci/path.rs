//! By which way a device reaches memory.

use ttm::dma::{Fact, Missing, Path, Topic, Tri, Trust};

use super::super::options::{self, Iommu};
use super::trust::flags;
use super::{Asked, is_vfio};

impl Asked<'_> {
    /// A group means an IOMMU; its type, what the default domain is.
    pub(super) fn path(&mut self, cmdline: Option<&str>, cpuinfo: Option<&str>) {
        let link = format!("{}/iommu_group", self.folder);
        let Some(group) = self.root.link(&link) else {
            self.verdict.path = Path::Direct;
            let says = "no IOMMU group: no IOMMU is in front of the device";
            self.fact(Topic::Path, Trust::Declared, &link, says);
            return;
        };
        let folder = format!("/sys/kernel/iommu_groups/{group}");
        let noiommu = self.root.text(&format!("{folder}/name"));
        if noiommu.is_ok_and(|name| name == "vfio-noiommu") {
            self.verdict.path = Path::Direct;
            let says = "a group without an IOMMU, for VFIO";
            self.fact(
                Topic::Path,
                Trust::Declared,
                &format!("{folder}/name"),
                says,
            );
            return;
        }
        let source = format!("{folder}/type");
        let kind = self.text(&source);
        self.verdict.path = match kind.as_deref() {
            Some("identity") => Path::Identity,
            Some("DMA") => Path::Translated { strict: true },
            Some("DMA-FQ") => Path::Translated { strict: false },
            Some("blocked") => Path::Blocked,
            _ => Path::Unknown,
        };
        if let Some(kind) = &kind {
            let says = format!("group {group} has the type {kind}");
            self.fact(Topic::Path, Trust::Declared, &source, says);
        }
        if cpuinfo.is_some_and(|text| flags(text).contains(&"hypervisor")) {
            let says = "this is a guest: what translates is the hypervisor's";
            self.fact(Topic::Path, Trust::Declared, "/proc/cpuinfo", says);
        }
        self.reserved(&folder);
        self.wanted(cmdline);
        self.owned();
    }

    /// Addresses that no mapping can have: those of interrupts, and what the firmware keeps.
    fn reserved(&mut self, group: &str) {
        let source = format!("{group}/reserved_regions");
        let Ok(text) = self.root.text(&source) else {
            return;
        };
        for region in text.lines() {
            let mut fields = region.split_ascii_whitespace();
            if let (Some(first), Some(last), Some(kind)) =
                (fields.next(), fields.next(), fields.next())
            {
                let says = format!("{first} to {last} are reserved: {kind}");
                self.fact(Topic::Iova, Trust::Declared, &source, says);
            }
        }
    }

    /// What was wanted of the IOMMU, if that is not what is.
    fn wanted(&mut self, cmdline: Option<&str>) {
        let Some(wanted) = cmdline.and_then(options::iommu) else {
            return;
        };
        let (says, fits) = match wanted {
            Iommu::Off => ("no IOMMU is wanted", false),
            Iommu::Identity => (
                "an IOMMU that lets addresses through is wanted",
                self.verdict.path == Path::Identity,
            ),
            Iommu::Translate => (
                "a translating IOMMU is wanted",
                matches!(self.verdict.path, Path::Translated { .. }),
            ),
        };
        self.fact(Topic::Path, Trust::Intent, "/proc/cmdline", says);
        if !fits {
            let path = self.verdict.path;
            self.verdict.conflicts.push(format!(
                "path: {says} [/proc/cmdline], but it is {path}; what is counts"
            ));
        }
    }

    /// A process that owns the device has its own translations, whatever the default domain is.
    fn owned(&mut self) {
        let Some(driver) = self.driver().filter(|driver| is_vfio(driver)) else {
            return;
        };
        let declared = self.forces_snoop();
        let forces_snoop = self.asked_to_force(declared);
        self.verdict.path = Path::Owned { forces_snoop };
        let link = format!("{}/driver", self.folder);
        let says = format!("{driver}: a process owns the device, the group's type is not its own");
        self.fact(Topic::Path, Trust::Declared, &link, says);
    }

    /// VFIO's own answer, if it can be asked.
    fn asked_to_force(&mut self, declared: Tri) -> Tri {
        let report = match self.probe.vfio(&self.verdict.device) {
            Ok(report) => report,
            Err(missing) => {
                self.miss(missing);
                return declared;
            }
        };
        let measured = match report.forces_snoop {
            Tri::Unknown => declared,
            told => told,
        };
        if declared != Tri::Unknown && declared != measured {
            let said = |fact: Option<&Fact>| {
                fact.map_or_else(String::new, |fact| {
                    format!("{} [{}]", fact.says, fact.source)
                })
            };
            let conflict = format!(
                "forced snoop: {}, but {}; what was measured counts",
                said(self.verdict.about(Topic::ForcedSnoop).next()),
                said(
                    report
                        .facts
                        .iter()
                        .find(|fact| fact.topic == Topic::ForcedSnoop)
                ),
            );
            self.verdict.conflicts.push(conflict);
        }
        self.verdict.facts.extend(report.facts);
        self.verdict.missing.extend(report.missing);
        measured
    }

    fn forces_snoop(&mut self) -> Tri {
        let iommu = format!("{}/iommu", self.folder);
        let source = format!("{iommu}/intel-iommu/ecap");
        if let Ok(ecap) = self.root.text(&source) {
            let bits = u64::from_str_radix(ecap.trim_start_matches("0x"), 16);
            if let Ok(bits) = bits {
                let forces = bits >> 7 & 1 == 1;
                let says = match forces {
                    true => "the IOMMU can force requests to snoop (bit 7)",
                    false => "the IOMMU cannot force requests to snoop (bit 7)",
                };
                self.fact(Topic::ForcedSnoop, Trust::Declared, &source, says);
                return forces.into();
            }
        }
        let source = format!("{iommu}/amd-iommu/cap");
        if self.root.has(&source) {
            let says = "AMD's IOMMU always forces requests to snoop";
            self.fact(Topic::ForcedSnoop, Trust::Declared, &source, says);
            return Tri::Yes;
        }
        self.miss(Missing {
            source: iommu,
            why: "the device's IOMMU is of no kind that tells".into(),
        });
        Tri::Unknown
    }
}
