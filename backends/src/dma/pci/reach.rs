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

    /// The longest of all caches' of the first processor.
    pub(super) fn line(&mut self) {
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
