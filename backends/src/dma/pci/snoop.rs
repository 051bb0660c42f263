//! Whether a device's accesses look into the CPU's caches.

use ttm::dma::{Missing, Topic, Tri, Trust};

use super::super::tree;
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
            Some(_) => self.miss(Missing {
                source: "the firmware's _CCA".into(),
                why: "is code in its tables, which only the kernel runs".into(),
            }),
            None => {}
        }
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
