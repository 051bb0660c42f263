//! The kernel's command line, as far as it is about DMA.

/// What `swiotlb=` asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Swiotlb {
    /// Nothing, or only a size.
    #[default]
    AsNeeded,
    /// Everything is copied.
    Force,
    /// Nothing is: there is no pool.
    Never,
}

/// What `iommu=`, `intel_iommu=`, `amd_iommu=` and `iommu.passthrough=` ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Iommu {
    Off,
    Identity,
    Translate,
}

/// The value of the last option of that name.
pub(super) fn last<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    let options = cmdline.split_ascii_whitespace();
    let mut values = options.filter_map(|option| option.strip_prefix(name)?.strip_prefix('='));
    values.next_back()
}

/// First a number of slots, then one of areas, then a word; each may be left out.
pub(super) fn swiotlb(cmdline: &str) -> Swiotlb {
    let words = last(cmdline, "swiotlb").unwrap_or_default().split(',');
    words.fold(Swiotlb::AsNeeded, |before, word| match word {
        "force" => Swiotlb::Force,
        "noforce" => Swiotlb::Never,
        _ => before,
    })
}

/// What was wanted of the IOMMU; `None` if nothing was said.
pub(super) fn iommu(cmdline: &str) -> Option<Iommu> {
    let is_off = |name| last(cmdline, name).is_some_and(|v| v.split(',').any(|w| w == "off"));
    if is_off("iommu") || is_off("intel_iommu") || is_off("amd_iommu") {
        return Some(Iommu::Off);
    }
    let through = last(cmdline, "iommu.passthrough").map(|value| match value {
        "1" | "y" | "on" => Iommu::Identity,
        _ => Iommu::Translate,
    });
    let words = last(cmdline, "iommu").unwrap_or_default().split(',');
    let by_word = words.fold(None, |before, word| match word {
        "pt" => Some(Iommu::Identity),
        "nopt" => Some(Iommu::Translate),
        _ => before,
    });
    by_word.or(through)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_the_last_counts_and_numbers_may_come_first() {
        assert_eq!(swiotlb("quiet"), Swiotlb::AsNeeded);
        assert_eq!(swiotlb("swiotlb=512,force"), Swiotlb::Force);
        assert_eq!(swiotlb("swiotlb=512,4,force quiet"), Swiotlb::Force);
        assert_eq!(swiotlb("swiotlb=force swiotlb=noforce"), Swiotlb::Never);
        assert_eq!(swiotlb("swiotlb=force swiotlb=65536"), Swiotlb::AsNeeded);
        assert_eq!(swiotlb("xswiotlb=force"), Swiotlb::AsNeeded);
    }

    #[test]
    fn the_iommu_is_asked_for_in_several_ways() {
        assert_eq!(iommu("quiet"), None);
        assert_eq!(iommu("intel_iommu=on iommu=pt"), Some(Iommu::Identity));
        assert_eq!(iommu("iommu.passthrough=0"), Some(Iommu::Translate));
        assert_eq!(
            iommu("iommu.passthrough=1 iommu=nopt"),
            Some(Iommu::Translate)
        );
        assert_eq!(iommu("intel_iommu=off iommu=pt"), Some(Iommu::Off));
    }
}
