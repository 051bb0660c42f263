//! The firmware's tables of IOMMUs.
//!
//! Their names can be listed by all, their content read by root.

use ttm::dma::Missing;

use super::root::ProbeRoot;

const TABLES: &str = "/sys/firmware/acpi/tables";

/// Names, and what they describe.
const KNOWN: [(&str, &str); 4] = [
    ("DMAR", "Intel's IOMMUs"),
    ("IVRS", "AMD's IOMMUs"),
    ("IORT", "the ways of Arm's devices to memory"),
    ("VIOT", "virtual IOMMUs"),
];

/// The byte of DMAR that has its flags, after a head of 36 bytes and a width.
const DMAR_FLAGS: usize = 37;

/// A table that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) describes: &'static str,
}

impl Table {
    pub(super) fn source(self) -> String {
        format!("{TABLES}/{}", self.name)
    }
}

/// What the firmware has.
#[derive(Clone, Debug)]
pub(super) struct Acpi {
    pub(super) tables: Vec<Table>,
    /// Whether the firmware asks that devices that are plugged in be guarded against; `None` if there
    /// is no DMAR.
    pub(super) opts_in: Option<Result<bool, Missing>>,
}

impl Acpi {
    pub(super) fn read(root: &ProbeRoot) -> Self {
        let known = KNOWN.into_iter();
        let tables: Vec<_> = known
            .map(|(name, describes)| Table { name, describes })
            .filter(|table| root.has(&table.source()))
            .collect();
        let dmar = tables.iter().find(|table| table.name == "DMAR");
        Self {
            opts_in: dmar.map(|table| opts_in(root, &table.source())),
            tables,
        }
    }

    /// The table of that name.
    pub(super) fn table(&self, name: &str) -> Option<Table> {
        self.tables.iter().copied().find(|table| table.name == name)
    }
}

fn opts_in(root: &ProbeRoot, source: &str) -> Result<bool, Missing> {
    let bytes = root.bytes(source)?;
    let flags = bytes.get(DMAR_FLAGS).ok_or_else(|| Missing {
        source: source.into(),
        why: "is cut off before its flags".into(),
    })?;
    Ok(flags >> 2 & 1 == 1)
}
