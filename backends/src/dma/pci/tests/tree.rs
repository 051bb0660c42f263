//! A captured tree, made for a test and dropped with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use ttm::dma::Verdict;

use crate::dma::{Probe, ProbeRoot};

/// Its one device.
pub(super) const DEVICE: &str = "0000:01:00.0";

pub(super) struct Tree(PathBuf);

impl Tree {
    /// A PC without an IOMMU, with a device that reaches everything.
    pub(super) fn direct() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ttm-probe-{}-{n}", process::id()));
        Self(folder)
            .file("proc/cmdline", "quiet\n")
            .file("proc/cpuinfo", "vendor_id : GenuineIntel\nflags : fpu\n")
            .file("proc/zoneinfo", "spanned 1000\nstart_pfn: 0\n")
            .file(&of_device("dma_mask_bits"), "64\n")
            .link(&of_device("driver"), "../../drivers/card")
    }

    /// The same with an IOMMU group of that type.
    pub(super) fn grouped(kind: &str) -> Self {
        Self::direct()
            .file("sys/kernel/iommu_groups/3/type", kind)
            .link(&of_device("iommu_group"), "../../../kernel/iommu_groups/3")
    }

    /// The same, held by `vfio-pci`.
    pub(super) fn owned() -> Self {
        Self::grouped("DMA").link(&of_device("driver"), "../../drivers/vfio-pci")
    }

    /// With that file, or another content of it.
    pub(super) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.at(path), content).unwrap();
        self
    }

    /// With that link, or to somewhere else.
    pub(super) fn link(self, path: &str, to: &str) -> Self {
        let at = self.at(path);
        let _ = fs::remove_file(&at);
        symlink(to, at).unwrap();
        self
    }

    pub(super) fn without(self, path: &str) -> Self {
        fs::remove_file(self.at(path)).unwrap();
        self
    }

    fn at(&self, path: &str) -> PathBuf {
        let at = self.0.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        at
    }

    pub(super) fn probe(&self) -> Probe {
        Probe::new(ProbeRoot::captured(&self.0).unwrap())
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.probe().device(DEVICE)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all::<&Path>(&self.0);
    }
}

/// A file of the device's.
pub(super) fn of_device(file: &str) -> String {
    format!("sys/bus/pci/devices/{DEVICE}/{file}")
}
