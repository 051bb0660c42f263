//! Whether a device is trusted, and whether memory is encrypted.

use ttm::dma::{Topic, Tri, Trust};

use super::Asked;

impl Asked<'_> {
    /// No attribute says "untrusted"; a device that can be plugged in is, where somebody guards
    /// against those.
    pub(super) fn trust(&mut self) {
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

fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let flags = line.and_then(|line| line.split_once(':'));
    flags.map_or_else(Vec::new, |(_, flags)| {
        flags.split_ascii_whitespace().collect()
    })
}
