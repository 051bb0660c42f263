//! Whether a device is trusted, and whether memory is encrypted.

use ttm::dma::{Topic, Tri, Trust};

use super::super::tree;
use super::Asked;

impl Asked<'_> {
    /// No attribute says "untrusted"; a device that can be plugged in is, where somebody guards
    /// against those.
    pub(super) fn trust(&mut self) {
        if let Some(port) = tree::external_port(self.root, &self.folder) {
            self.verdict.untrusted = Tri::Yes;
            let says = "the firmware says that the port above it leads outside";
            return self.fact(Topic::Trust, Trust::Declared, &port, says);
        }
        let source = format!("{}/removable", self.folder);
        match self.root.text(&source).as_deref() {
            Ok("removable") => {
                let says = match self.guard() {
                    Some(guard) => {
                        self.verdict.untrusted = Tri::Yes;
                        format!("it can be plugged in, and {guard}")
                    }
                    None => "it can be plugged in; nobody says that it is guarded against".into(),
                };
                self.fact(Topic::Trust, Trust::Guess, &source, says);
            }
            Ok("fixed") => {
                self.verdict.untrusted = Tri::No;
                let says = "it is built in";
                self.fact(Topic::Trust, Trust::Declared, &source, says);
            }
            _ => {}
        }
    }

    /// Who guards against devices that are plugged in.
    fn guard(&mut self) -> Option<String> {
        let asked_for = self.asks_for_guarding();
        let domains = "/sys/bus/thunderbolt/devices";
        let guarded = self.root.names(domains).into_iter().find(|domain| {
            let file = format!("{domains}/{domain}/iommu_dma_protection");
            self.root.text(&file).is_ok_and(|text| text == "1")
        });
        let guarded = guarded.map(|domain| format!("{domain} is guarded by an IOMMU"));
        guarded.or_else(|| asked_for.then(|| "the firmware asks for an IOMMU".into()))
    }

    pub(super) fn encryption(&mut self, cpuinfo: Option<&str>) {
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
}

/// What an x86 processor, or its hypervisor, says that there is.
pub(super) fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags = line.and_then(|line| line.split_once(':'));
    flags.map_or_else(Vec::new, |(_, flags)| {
        flags.split_ascii_whitespace().collect()
    })
}
