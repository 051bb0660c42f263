//! PCI devices.

mod bounce;
mod firmware;
mod hardware;
mod path;
mod reach;
mod snoop;
mod trust;

use ttm::dma::{Fact, Missing, Topic, Trust, Verdict};
use ttm::sync::Arc;

use super::acpi::Acpi;
use super::longest_line;
use super::root::ProbeRoot;
use super::trial;
use super::udmabuf::Udmabuf;
use super::vfio::{self, Nodes, Vfio, VfioReport};

const DEVICES: &str = "/sys/bus/pci/devices";

/// Why something was not tried.
const NOT_ALLOWED: &str = "not tried: the caller has not allowed it";
const CAPTURED: &str = "not tried: nothing can be in a captured tree";

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
    acpi: Acpi,
    /// Bytes of the longest cache line, and who says so.
    line: Option<(u32, String)>,
    /// Whether a page was copied, where that was tried.
    copied: Result<bool, Missing>,
    /// Whom to ask of groups, or why not to.
    vfio: Result<Arc<dyn Vfio>, &'static str>,
}

impl Probe {
    /// A probe of that platform. What is the same for all devices is read here, once.
    #[must_use]
    pub fn new(root: ProbeRoot) -> Self {
        Self {
            cmdline: root.text("/proc/cmdline"),
            cpuinfo: root.text("/proc/cpuinfo"),
            zoneinfo: root.text("/proc/zoneinfo"),
            acpi: Acpi::read(&root),
            line: longest_line(&root),
            copied: Err(not_tried(NOT_ALLOWED)),
            vfio: Err(NOT_ALLOWED),
            root,
        }
    }

    /// Whether to try what cannot be read, here and whenever a device is asked about; at first, no.
    ///
    /// Whether mappings are copied on direct paths is tried at once: a page of a memory file becomes a
    /// dma-buf by `/dev/udmabuf`, access to it is announced twice with a write in between, and both are
    /// dropped. That takes a slot of the bounce pool for as long, if there is one.
    ///
    /// Of a device that VFIO has, the group is taken while it is asked about: see [`Self::vfio`].
    ///
    /// In a captured tree nothing can be tried.
    #[must_use]
    pub fn allow_functional(self, allow: bool) -> Self {
        let why = match (allow, self.root.is_captured()) {
            (false, _) => NOT_ALLOWED,
            (true, true) => CAPTURED,
            (true, false) => return self.trying(&Udmabuf, Arc::new(Nodes)),
        };
        Self {
            copied: Err(not_tried(why)),
            vfio: Err(why),
            ..self
        }
    }

    /// What is tried is tried there.
    fn trying(self, exporter: &dyn trial::Exporter, vfio: Arc<dyn Vfio>) -> Self {
        Self {
            copied: trial::is_copied(exporter),
            vfio: Ok(vfio),
            ..self
        }
    }

    /// What VFIO says of the device's group. It is opened, put into a container of its own, asked,
    /// and given back, which fails while anybody has it, and makes everybody else fail for as long.
    ///
    /// # Errors
    /// Why it could not be asked; also if [`Self::allow_functional`] has not allowed it.
    pub fn vfio(&self, address: &str) -> Result<VfioReport, Missing> {
        let link = format!("{DEVICES}/{address}/iommu_group");
        let group = self.root.link(&link).ok_or_else(|| Missing {
            source: link,
            why: "not there: VFIO has nothing to ask".into(),
        })?;
        match &self.vfio {
            Ok(nodes) => vfio::ask(&**nodes, &group),
            Err(why) => Err(Missing {
                source: format!("/dev/vfio/{group}"),
                why: (*why).into(),
            }),
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
        self.path(cmdline, cpuinfo);
        self.tables();
        self.snoop(cpuinfo);
        self.no_snoop();
        self.bounce(cmdline);
        self.reach();
        self.trust();
        self.encryption(cpuinfo);
        self.line();
        self.hardware();
    }

    /// Its driver.
    fn driver(&self) -> Option<String> {
        self.root.link(&format!("{}/driver", self.folder))
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
            privileged: is_privileged(topic, source),
        });
    }
}

/// Whether a source tells root alone what it says about that.
fn is_privileged(topic: Topic, source: &str) -> bool {
    let content_of_table = source.starts_with("/sys/firmware/acpi") && topic != Topic::Path;
    source.starts_with("/sys/kernel/debug") || content_of_table || topic == Topic::NoSnoop
}

/// Whether a driver hands its devices to processes. There are several, named after the first.
fn is_vfio(driver: &str) -> bool {
    driver.ends_with("vfio-pci") || driver.ends_with("vfio_pci")
}

/// Whether a page is copied was not tried.
fn not_tried(why: &str) -> Missing {
    Missing {
        source: "/dev/udmabuf".into(),
        why: why.into(),
    }
}

#[cfg(test)]
mod tests;
