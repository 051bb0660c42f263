//! PCI devices.

use ttm::dma::{Fact, Mask, Missing, Path, Topic, Tri, Trust, Verdict};

use super::options::{self, Iommu, Swiotlb};
use super::root::ProbeRoot;
use super::{memory, tree};

const DEVICES: &str = "/sys/bus/pci/devices";

/// Asks a platform of its devices.
///
/// ```
/// use backends::dma::{Probe, ProbeRoot};
/// use ttm::dma::{Need, choose};
///
/// let probe = Probe::new(ProbeRoot::system());
/// for device in probe.devices() {
///     let verdict = probe.device(&device);
///     println!("{}", choose(&verdict, &Need::default()).explain(&verdict));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Probe {
    root: ProbeRoot,
    cmdline: Result<String, Missing>,
    cpuinfo: Result<String, Missing>,
    zoneinfo: Result<String, Missing>,
}

/// A kind of processor, as far as DMA differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Processor {
    X86,
    Arm64,
    RiscV,
    Other,
}

impl Probe {
    /// A probe of that platform. What is the same for all devices is read here, once.
    #[must_use]
    pub fn new(root: ProbeRoot) -> Self {
        Self {
            cmdline: root.text("/proc/cmdline"),
            cpuinfo: root.text("/proc/cpuinfo"),
            zoneinfo: root.text("/proc/zoneinfo"),
            root,
        }
    }

    /// The addresses of all PCI devices, in order.
    #[must_use]
    pub fn devices(&self) -> Vec<String> {
        self.root.names(DEVICES)
    }

    /// What is known of a device. One that is not there is known by nothing.
    #[must_use]
    pub fn device(&self, address: &str) -> Verdict {
        let mut asked = Asked {
            probe: self,
            root: &self.root,
            folder: format!("{DEVICES}/{address}"),
            verdict: Verdict::unknown(address),
        };
        if !self.root.has(&asked.folder) {
            asked.miss(Missing {
                source: asked.folder.clone(),
                why: "there is no such device".into(),
            });
            return asked.verdict;
        }
        asked.ask();
        asked.verdict
    }
}

/// A device that is being asked of.
struct Asked<'a> {
    probe: &'a Probe,
    root: &'a ProbeRoot,
    folder: String,
    verdict: Verdict,
}

impl<'a> Asked<'a> {
    fn ask(&mut self) {
        let cmdline = self.known(&self.probe.cmdline);
        let cpuinfo = self.known(&self.probe.cpuinfo);
        self.path(cmdline);
        self.snoop(cpuinfo);
        self.bounce(cmdline);
        self.reach();
        self.trust();
        self.encryption(cpuinfo);
        self.line();
    }

    fn text(&mut self, path: &str) -> Option<String> {
        let text = self.root.text(path);
        text.map_err(|missing| self.miss(missing)).ok()
    }

    /// The same of what the probe has read.
    fn known(&mut self, text: &'a Result<String, Missing>) -> Option<&'a str> {
        let text = text.as_deref();
        text.map_err(|missing| self.miss(missing.clone())).ok()
    }

    fn miss(&mut self, missing: Missing) {
        self.verdict.missing.push(missing);
    }

    fn fact(&mut self, topic: Topic, trust: Trust, source: &str, says: impl Into<String>) {
        self.verdict.facts.push(Fact {
            topic,
            says: says.into(),
            source: source.into(),
            trust,
            privileged: source.starts_with("/sys/kernel/debug"),
        });
    }

    /// A group means an IOMMU; its type, what the default domain is.
    fn path(&mut self, cmdline: Option<&str>) {
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
        self.wanted(cmdline);
        self.owned();
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
        let link = format!("{}/driver", self.folder);
        let driver = self.root.link(&link);
        if driver.as_deref() != Some("vfio-pci") {
            return;
        }
        let forces_snoop = self.forces_snoop();
        self.verdict.path = Path::Owned { forces_snoop };
        let says = "vfio-pci: a process owns the device, the group's type is not its own";
        self.fact(Topic::Path, Trust::Declared, &link, says);
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

    fn snoop(&mut self, cpuinfo: Option<&str>) {
        if let Some((coherent, source)) = tree::is_coherent(self.root, &self.folder) {
            self.verdict.snoop = coherent.into();
            let says = match coherent {
                true => "the firmware says that it snoops",
                false => "the firmware says that it does not snoop",
            };
            return self.fact(Topic::Snoop, Trust::Declared, &source, says);
        }
        let source = "/proc/cpuinfo";
        match cpuinfo.map(processor) {
            Some(Processor::X86) => {
                self.verdict.snoop = Tri::Yes;
                let says = "x86: PCI devices snoop, unless a request asks not to";
                self.fact(Topic::Snoop, Trust::Declared, source, says);
            }
            Some(Processor::Arm64) if tree::has_node(self.root, &self.folder) => {
                self.verdict.snoop = Tri::No;
                let says = "arm64: without the property dma-coherent a device does not snoop";
                self.fact(Topic::Snoop, Trust::Declared, source, says);
            }
            Some(Processor::RiscV) if tree::has_node(self.root, &self.folder) => {
                self.verdict.snoop = Tri::Yes;
                let says = "riscv: without the property dma-noncoherent a device snoops";
                self.fact(Topic::Snoop, Trust::Declared, source, says);
            }
            Some(_) => self.miss(Missing {
                source: "the firmware's _CCA".into(),
                why: "is code in its tables, which only the kernel runs".into(),
            }),
            None => {}
        }
    }

    fn bounce(&mut self, cmdline: Option<&str>) {
        let source = "/proc/cmdline";
        match cmdline.map(options::swiotlb) {
            Some(Swiotlb::Force) => {
                self.verdict.forced_bounce = Tri::Yes;
                let says = "swiotlb=force: what is mapped on a direct path is copied";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
            }
            Some(Swiotlb::Never) => {
                (self.verdict.forced_bounce, self.verdict.bounce_pool) = (Tri::No, Tri::No);
                let says = "swiotlb=noforce: nothing is copied, and there is no pool";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
                self.fact(Topic::BouncePool, Trust::Intent, source, says);
            }
            Some(Swiotlb::AsNeeded) => {
                self.verdict.forced_bounce = Tri::No;
                let says = "nothing forces copies";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
            }
            None => {}
        }
        let source = "/sys/hypervisor/type";
        if self.root.text(source).is_ok_and(|kind| kind == "xen")
            && self
                .root
                .text("/sys/hypervisor/guest_type")
                .is_ok_and(|kind| kind == "PV")
        {
            self.verdict.forced_bounce = Tri::Yes;
            let says = "a paravirtual Xen guest: pages that adjoin here need not adjoin there";
            self.fact(Topic::ForcedBounce, Trust::Declared, source, says);
        }
        let source = "/sys/kernel/debug/swiotlb/io_tlb_nslabs";
        match self.root.text(source).map(|text| text.parse::<u64>()) {
            Ok(Ok(slots)) => {
                let pool = slots > 0;
                if self.verdict.bounce_pool.is_no() && pool {
                    self.verdict.conflicts.push(format!(
                        "bounce pool: none is wanted [/proc/cmdline], but there are {slots} slots; \
                         what is counts"
                    ));
                }
                self.verdict.bounce_pool = pool.into();
                let says = format!("{slots} slots of 2 KiB");
                self.fact(Topic::BouncePool, Trust::Declared, source, says);
            }
            Ok(Err(_)) => {}
            // An empty folder that all may read is what there is before debugfs is mounted.
            Err(missing) => self.miss(Missing {
                why: format!(
                    "{}; debugfs is for root, and has to be mounted",
                    missing.why
                ),
                ..missing
            }),
        }
        match tree::restricted_pool(self.root, &self.folder) {
            Some(node) => {
                self.verdict.restricted = Tri::Yes;
                let says = "the firmware assigns the device a restricted pool";
                self.fact(Topic::RestrictedPool, Trust::Declared, &node, says);
            }
            None => self.verdict.restricted = Tri::No,
        }
    }

    fn reach(&mut self) {
        let source = format!("{}/dma_mask_bits", self.folder);
        if let Some(bits) = self.text(&source)
            && let Ok(bits @ 1..=64) = bits.parse::<u32>()
        {
            self.verdict.mask = Mask::bits(bits);
            let driver = self.root.link(&format!("{}/driver", self.folder));
            match driver.filter(|driver| driver != "vfio-pci") {
                Some(driver) => {
                    let says = format!("{bits} bits, as {driver} has set it");
                    self.fact(Topic::Mask, Trust::Declared, &source, says);
                }
                None => {
                    let says = format!(
                        "{bits} bits, which nobody has set: what the device can is not told"
                    );
                    self.fact(Topic::Mask, Trust::Guess, &source, says);
                }
            }
        }
        let source = "/proc/zoneinfo";
        if let Some(text) = self.known(&self.probe.zoneinfo) {
            match memory::last_byte(text) {
                Some(last) => {
                    // All address lines that the last byte takes.
                    let lines = Mask::up_to(last).lines().max(1);
                    self.verdict.required = Mask::bits(lines);
                    let says = format!("memory ends at byte {last:#x}: {lines} bits reach it");
                    self.fact(Topic::Memory, Trust::Declared, source, says);
                }
                None => self.miss(Missing {
                    source: source.into(),
                    why: "names no zone with memory".into(),
                }),
            }
        }
    }

    /// No attribute says "untrusted"; a device that can be plugged in is, where somebody guards
    /// against those.
    fn trust(&mut self) {
        let source = format!("{}/removable", self.folder);
        let removable = self.root.text(&source);
        let domains = "/sys/bus/thunderbolt/devices";
        let guarded = self.root.names(domains).into_iter().find(|domain| {
            let file = format!("{domains}/{domain}/iommu_dma_protection");
            self.root.text(&file).is_ok_and(|text| text == "1")
        });
        match (removable.as_deref(), guarded) {
            (Ok("removable"), Some(domain)) => {
                self.verdict.untrusted = Tri::Yes;
                let says = format!("it can be plugged in, and {domain} is guarded by an IOMMU");
                self.fact(Topic::Trust, Trust::Guess, &source, says);
            }
            (Ok("removable"), None) => {
                let says = "it can be plugged in; nobody says that it is guarded against";
                self.fact(Topic::Trust, Trust::Guess, &source, says);
            }
            (Ok("fixed"), _) => {
                self.verdict.untrusted = Tri::No;
                let says = "it is built in";
                self.fact(Topic::Trust, Trust::Declared, &source, says);
            }
            _ => {}
        }
    }

    fn encryption(&mut self, cpuinfo: Option<&str>) {
        let source = "/proc/cpuinfo";
        let Some(flags) = cpuinfo.map(flags) else {
            return;
        };
        let has = |flag| flags.contains(&flag);
        // Hosts have these flags too.
        let sev = (has("sev") || has("sev_es") || has("sev_snp"))
            && has("hypervisor")
            && (self.root.has("/dev/sev-guest") || self.root.has("/dev/sev"));
        let encrypted = has("tdx_guest") || sev;
        self.verdict.encrypted = encrypted.into();
        let says = match encrypted {
            true => "this is a guest with encrypted memory",
            false => "no sign of a guest with encrypted memory",
        };
        self.fact(Topic::Encryption, Trust::Declared, source, says);
    }

    /// The longest of all caches' of the first processor.
    fn line(&mut self) {
        let folder = "/sys/devices/system/cpu/cpu0/cache";
        let lengths = self.root.names(folder).into_iter().filter_map(|index| {
            let source = format!("{folder}/{index}/coherency_line_size");
            let line = self.root.text(&source).ok()?.parse::<u32>().ok()?;
            line.is_power_of_two().then_some((line, source))
        });
        if let Some((line, source)) = lengths.max() {
            self.verdict.line = line;
            self.fact(
                Topic::Line,
                Trust::Declared,
                &source,
                format!("{line} bytes"),
            );
        }
    }
}

fn processor(cpuinfo: &str) -> Processor {
    let has = |key: &str| cpuinfo.lines().any(|line| line.starts_with(key));
    if has("vendor_id") || has("flags") {
        Processor::X86
    } else if has("CPU implementer") {
        Processor::Arm64
    } else if has("isa") {
        Processor::RiscV
    } else {
        Processor::Other
    }
}

fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags = line.and_then(|line| line.split_once(':'));
    flags.map_or_else(Vec::new, |(_, flags)| {
        flags.split_ascii_whitespace().collect()
    })
}
