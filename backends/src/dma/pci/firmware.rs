//! What the firmware's tables say.

use ttm::dma::{Missing, Path, Topic, Trust};

use super::Asked;

impl Asked<'_> {
    /// Which tables of IOMMUs there are. That one is described does not mean that it is used.
    pub(super) fn tables(&mut self) {
        for table in &self.probe.acpi.tables {
            let describes = table.describes;
            let says = match self.verdict.path {
                Path::Direct if table.name != "IORT" => format!(
                    "the firmware describes {describes}, none of which is in front of the device"
                ),
                _ => format!("the firmware describes {describes}"),
            };
            self.fact(Topic::Path, Trust::Declared, &table.source(), says);
        }
    }

    /// Where only ACPI says whether the device snoops.
    pub(super) fn only_acpi_knows(&mut self) {
        self.miss(Missing {
            source: "the firmware's _CCA".into(),
            why: "is code in its tables, which only the kernel runs".into(),
        });
        if let Some(table) = self.probe.acpi.table("IORT") {
            self.miss(Missing {
                source: table.source(),
                why: "is not believed about snooping: the kernel goes by _CCA, which may say \
                      otherwise"
                    .into(),
            });
        }
    }

    /// Whether it asks to be guarded against devices that are plugged in.
    pub(super) fn asks_for_guarding(&mut self) -> bool {
        let Some(table) = self.probe.acpi.table("DMAR") else {
            return false;
        };
        match &self.probe.acpi.opts_in {
            Some(Ok(true)) => {
                let says = "the firmware asks that devices that are plugged in be guarded against";
                self.fact(Topic::Trust, Trust::Declared, &table.source(), says);
                true
            }
            Some(Err(missing)) => {
                self.miss(missing.clone());
                false
            }
            Some(Ok(false)) | None => false,
        }
    }
}
