//! Where the device sits and what it has. Nothing here decides how it reaches memory.

use ttm::dma::{Topic, Trust};

use super::Asked;

/// Bits of a resource's flags.
const IS_MEMORY: u64 = 0x200;
const IS_PREFETCHABLE: u64 = 0x2000;

/// The BARs come first, then the ROM and what is behind a bridge.
const BARS: usize = 6;

impl Asked<'_> {
    pub(super) fn hardware(&mut self) {
        let source = format!("{}/numa_node", self.folder);
        // -1: no node is told, or there is only one.
        if let Some(node) = self.number(&source).filter(|node| *node >= 0) {
            let says = format!("near memory node {node}");
            self.fact(Topic::Hardware, Trust::Declared, &source, says);
        }
        let source = format!("{}/resource", self.folder);
        if let Ok(text) = self.root.text(&source) {
            for says in text.lines().take(BARS).enumerate().filter_map(bar) {
                self.fact(Topic::Hardware, Trust::Declared, &source, says);
            }
        }
        let source = format!("{}/p2pmem/size", self.folder);
        if let Some(bytes) = self.number(&source).filter(|bytes| *bytes > 0) {
            let says = format!("{bytes:#x} bytes of its memory are for other devices");
            self.fact(Topic::Hardware, Trust::Declared, &source, says);
        }
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.root.text(path).ok()?.parse().ok()
    }
}

/// A line of a first byte, a last byte, and flags.
fn bar((number, line): (usize, &str)) -> Option<String> {
    let mut fields = line.split_ascii_whitespace();
    let mut field = || u64::from_str_radix(fields.next()?.trim_start_matches("0x"), 16).ok();
    let (first, last, flags) = (field()?, field()?, field()?);
    let bytes = last.checked_sub(first)?.checked_add(1)?;
    let prefetchable = match flags & IS_PREFETCHABLE {
        0 => "",
        _ => ", prefetchable",
    };
    (flags & IS_MEMORY != 0).then(|| format!("BAR {number}: {bytes:#x} bytes{prefetchable}"))
}
