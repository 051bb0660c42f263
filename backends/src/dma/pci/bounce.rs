//! When what is mapped for a device is copied on its way.

use ttm::dma::{Missing, Path, Topic, Tri, Trust};

use super::super::options::{self, Swiotlb};
use super::super::tree;
use super::Asked;

impl Asked<'_> {
    /// Of what is said of copies, the later counts.
    pub(super) fn bounce(&mut self, cmdline: Option<&str>) {
        self.copies_wanted(cmdline);
        self.copies_measured();
        self.copies_for_xen();
        self.pool();
        self.restricted_pool();
    }

    fn copies_wanted(&mut self, cmdline: Option<&str>) {
        let source = "/proc/cmdline";
        match cmdline.map(options::swiotlb) {
            Some(Swiotlb::Force) => {
                self.verdict.forced_bounce = Tri::Yes;
                let says = "swiotlb=force: what is mapped on a direct path is copied";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
            }
            Some(Swiotlb::Never) => {
                (self.verdict.forced_bounce, self.verdict.bounce_pool) = (Tri::No, Tri::No);
                let says = "swiotlb=noforce: nothing is copied, and there is no pool";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
                self.fact(Topic::BouncePool, Trust::Intent, source, says);
            }
            Some(Swiotlb::AsNeeded) => {
                self.verdict.forced_bounce = Tri::No;
                let says = "nothing forces copies";
                self.fact(Topic::ForcedBounce, Trust::Intent, source, says);
            }
            None => {}
        }
    }

    /// What was tried without an IOMMU counts for devices that have none in their way.
    fn copies_measured(&mut self) {
        if !matches!(self.verdict.path, Path::Direct | Path::Identity) {
            return;
        }
        let copied = match &self.probe.copied {
            Ok(copied) => *copied,
            Err(missing) => return self.miss(missing.clone()),
        };
        let says = match copied {
            true => "a page was copied when it was mapped, for a device without an IOMMU",
            false => "a page was not copied when it was mapped, for a device without an IOMMU",
        };
        let wanted = self.verdict.about(Topic::ForcedBounce).next();
        if let Some(wanted) = wanted
            && self.verdict.forced_bounce != Tri::from(copied)
        {
            let conflict = format!(
                "forced bounce: {} [{}], but {says}; what was measured counts",
                wanted.says, wanted.source
            );
            self.verdict.conflicts.push(conflict);
        }
        self.verdict.forced_bounce = copied.into();
        self.fact(Topic::ForcedBounce, Trust::Measured, "/dev/udmabuf", says);
    }

    /// One page, which is all that is tried, adjoins itself: it may not be copied here, and more
    /// would be.
    fn copies_for_xen(&mut self) {
        let source = "/sys/hypervisor/type";
        let is = |file: &str, what| self.root.text(file).is_ok_and(|text| text == what);
        if is(source, "xen") && is("/sys/hypervisor/guest_type", "PV") {
            self.verdict.forced_bounce = Tri::Yes;
            let says = "a paravirtual Xen guest: pages that adjoin here need not adjoin there";
            self.fact(Topic::ForcedBounce, Trust::Declared, source, says);
        }
    }

    fn pool(&mut self) {
        let source = "/sys/kernel/debug/swiotlb/io_tlb_nslabs";
        match self.root.text(source).map(|text| text.parse::<u64>()) {
            Ok(Ok(slots)) => {
                let pool = slots > 0;
                if self.verdict.bounce_pool.is_no() && pool {
                    self.verdict.conflicts.push(format!(
                        "bounce pool: none is wanted [/proc/cmdline], but there are {slots} slots; \
                         what is counts"
                    ));
                }
                self.verdict.bounce_pool = pool.into();
                let says = format!("{slots} slots of 2 KiB");
                self.fact(Topic::BouncePool, Trust::Declared, source, says);
            }
            Ok(Err(_)) => {}
            // An empty folder that all may read is what there is before debugfs is mounted.
            Err(missing) => self.miss(Missing {
                why: format!(
                    "{}; debugfs is for root, and has to be mounted",
                    missing.why
                ),
                ..missing
            }),
        }
    }

    fn restricted_pool(&mut self) {
        match tree::restricted_pool(self.root, &self.folder) {
            Some(node) => {
                self.verdict.restricted = Tri::Yes;
                let says = "the firmware assigns the device a restricted pool";
                self.fact(Topic::RestrictedPool, Trust::Declared, &node, says);
            }
            None => self.verdict.restricted = Tri::No,
        }
    }
}
