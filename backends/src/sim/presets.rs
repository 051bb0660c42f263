//! Layouts of real cards.
//!
//! Sizes are the heaps that the cards' Vulkan drivers report (Mesa 26.2). Speeds are what the
//! link or the memory of such a card gives, rounded; they are meant for comparisons, not as
//! measurements.

use placement::PageCount;

use super::gpu::{EngineConfig, GpuConfig};

struct Layout {
    name: &'static str,
    vram_mib: u64,
    aperture_mib: u64,
    system_mib: u64,
    engines: usize,
    link_gb: u64,
    memory_gb: u64,
}

const LAYOUTS: [Layout; 5] = [
    // RADV, Navi 21: a small BAR in front of 16 GB.
    Layout {
        name: "navi21",
        vram_mib: 16128,
        aperture_mib: 256,
        system_mib: 15970,
        engines: 2,
        link_gb: 25,
        memory_gb: 512,
    },
    // RADV, Renoir: an APU whose "VRAM" is a part of system memory, all of it visible.
    Layout {
        name: "renoir",
        vram_mib: 2773,
        aperture_mib: 2773,
        system_mib: 1386,
        engines: 1,
        link_gb: 30,
        memory_gb: 40,
    },
    // NVK, chip 162. The driver reports no window; 256 MiB is what such cards come with.
    Layout {
        name: "nvk",
        vram_mib: 3072,
        aperture_mib: 256,
        system_mib: 18079,
        engines: 2,
        link_gb: 12,
        memory_gb: 190,
    },
    // turnip, Adreno 660: one memory for all.
    Layout {
        name: "turnip",
        vram_mib: 18079,
        aperture_mib: 18079,
        system_mib: 18079,
        engines: 1,
        link_gb: 25,
        memory_gb: 50,
    },
    // honeykrisp, Apple M1: one memory for all.
    Layout {
        name: "m1",
        vram_mib: 12052,
        aperture_mib: 12052,
        system_mib: 12052,
        engines: 1,
        link_gb: 50,
        memory_gb: 65,
    },
];

impl Layout {
    fn config(&self) -> GpuConfig {
        let engine = EngineConfig {
            bytes_per_second: self.link_gb * 1_000_000_000,
            latency_ns: 2_000,
        };
        GpuConfig {
            vram: mib(self.vram_mib),
            aperture: mib(self.aperture_mib),
            system: mib(self.system_mib),
            engines: vec![engine; self.engines],
            queue: EngineConfig {
                bytes_per_second: self.memory_gb * 1_000_000_000,
                latency_ns: 5_000,
            },
            ..GpuConfig::default()
        }
    }
}

fn mib(mib: u64) -> PageCount {
    PageCount::from_bytes_ceil(mib << 20).expect("cards are smaller")
}

/// The layout of a real card, with contents on; `None` if [`preset_names`] does not have it.
///
/// ```
/// use backends::sim::{preset, preset_names};
///
/// let navi = preset("navi21").expect("it is there");
/// assert_eq!(navi.aperture.to_string(), "256 MiB");
/// assert!(preset_names().contains(&"m1"));
/// assert!(preset("voodoo").is_none());
/// ```
#[must_use]
pub fn preset(name: &str) -> Option<GpuConfig> {
    let layout = LAYOUTS.iter().find(|l| l.name == name)?;
    Some(layout.config())
}

/// The names that [`preset`] knows.
#[must_use]
pub fn preset_names() -> Vec<&'static str> {
    LAYOUTS.iter().map(|l| l.name).collect()
}
