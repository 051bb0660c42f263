//! What addresses a device reaches, and which memory has.

use ttm::dma::{Mask, Missing, Topic, Trust};

use super::super::memory;
use super::{Asked, is_vfio};

impl Asked<'_> {
    pub(super) fn reach(&mut self) {
        let source = format!("{}/dma_mask_bits", self.folder);
        if let Some(bits) = self.text(&source)
            && let Ok(bits @ 1..=64) = bits.parse::<u32>()
        {
            self.verdict.mask = Mask::bits(bits);
            match self.driver().filter(|driver| !is_vfio(driver)) {
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

    pub(super) fn line(&mut self) {
        if let Some((line, source)) = &self.probe.line {
            self.verdict.line = *line;
            let says = format!("{line} bytes");
            self.fact(Topic::Line, Trust::Declared, source, says);
        }
    }
}
