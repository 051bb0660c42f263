//! Whether a device's accesses look into the CPU's caches.

use ttm::dma::{Missing, Path, Topic, Tri, Trust};

use super::super::{config_space, tree};
use super::Asked;

impl Asked<'_> {
    pub(super) fn snoop(&mut self, cpuinfo: Option<&str>) {
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
            Some(_) => self.only_acpi_knows(),
            None => {}
        }
    }

    /// Whether the device may send requests that do not snoop. Most may, and few do: that it may says
    /// nothing yet, that it may not is an answer.
    pub(super) fn no_snoop(&mut self) {
        // Of a virtual function the bit means nothing: its physical function's counts.
        let physical = format!("{}/physfn", self.folder);
        let folder = match self.root.has(&physical) {
            true => &physical,
            false => &self.folder,
        };
        let source = format!("{folder}/config");
        let missing = |why: &str| Missing {
            source: source.clone(),
            why: why.into(),
        };
        let state = self.root.text(&format!("{folder}/power_state"));
        let told = match state.as_deref() {
            Ok("D3cold") => Err(missing(
                "is not read while the device is off: that would wake it",
            )),
            _ => self
                .root
                .bytes(&source)
                .and_then(|space| config_space::may_not_snoop(&space).map_err(missing)),
        };
        match told {
            Ok(may) => {
                self.verdict.may_ask_not_to = may.into();
                let says = match may {
                    true => "it may send requests that do not snoop (Enable No Snoop is set)",
                    false => {
                        "it may not send requests that do not snoop (Enable No Snoop is clear)"
                    }
                };
                self.fact(Topic::NoSnoop, Trust::Declared, &source, says);
            }
            // Elsewhere nothing depends on it.
            Err(missing) if self.escapes() => self.miss(missing),
            Err(_) => {}
        }
    }

    /// Whether a request that does not snoop would be the only one to pass the caches by.
    fn escapes(&self) -> bool {
        matches!(self.verdict.path, Path::Owned { forces_snoop } if !forces_snoop.is_yes())
    }
}

/// A kind of processor, as far as DMA differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Processor {
    X86,
    Arm64,
    RiscV,
    Other,
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
