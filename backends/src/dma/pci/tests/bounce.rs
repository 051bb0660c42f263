//! What was tried of copies, beside what is said of them.

use ttm::dma::{BouncePolicy, Fact, Topic, Tri, Trust, Verdict};
use ttm::sync::Arc;

use super::Tree;
use super::tree::DEVICE;
use crate::dma::trial::tests::{Call, Fake};
use crate::dma::{Probe, vfio};

fn platform(copies: bool) -> Fake {
    Fake {
        copies,
        ..Fake::default()
    }
}

fn tried_on(probe: Probe, platform: Fake) -> Probe {
    probe.trying(&platform, Arc::new(vfio::tests::Fake::default()))
}

fn tried(tree: &Tree, platform: Fake) -> Verdict {
    tried_on(tree.probe(), platform).device(DEVICE)
}

fn measured(verdict: &Verdict) -> Option<&Fact> {
    let mut facts = verdict.about(Topic::ForcedBounce);
    facts.find(|fact| fact.trust == Trust::Measured)
}

#[test]
fn what_was_measured_counts_and_what_it_contradicts_is_kept() {
    for (cmdline, copies, contradicts) in [
        ("quiet", false, false),
        ("quiet", true, true),
        ("swiotlb=force", true, false),
        ("swiotlb=force", false, true),
        ("swiotlb=noforce", true, true),
    ] {
        for tree in [Tree::direct(), Tree::grouped("identity")] {
            let tree = tree.file("proc/cmdline", cmdline);
            let verdict = tried(&tree, platform(copies));
            assert_eq!(verdict.forced_bounce, Tri::from(copies), "{cmdline}");
            assert!(measured(&verdict).is_some(), "{cmdline}");
            let conflict = verdict
                .conflicts
                .iter()
                .find(|c| c.starts_with("forced bounce"));
            assert_eq!(conflict.is_some(), contradicts, "{cmdline}: {conflict:?}");
            if let Some(conflict) = conflict {
                assert!(conflict.contains("/proc/cmdline"), "{conflict}");
            }
        }
    }
}

#[test]
fn what_was_measured_is_known_where_nothing_is_said() {
    let tree = Tree::direct().without("proc/cmdline");
    assert_eq!(tree.verdict().forced_bounce, Tri::Unknown);
    for copies in [false, true] {
        let verdict = tried(&tree, platform(copies));
        assert_eq!(verdict.forced_bounce, Tri::from(copies));
        assert_eq!(verdict.conflicts, [""; 0]);
    }
    let verdict = tried(&tree, platform(true));
    assert_eq!(verdict.bounce(), BouncePolicy::Always);
    assert_eq!(verdict.streaming_is_coherent(), Some(false));
}

#[test]
fn it_says_nothing_of_a_device_behind_a_translation() {
    for tree in [Tree::grouped("DMA"), Tree::grouped("DMA-FQ"), Tree::owned()] {
        let verdict = tried(&tree, platform(true));
        assert_eq!(verdict.forced_bounce, Tri::No, "as the command line says");
        assert_eq!(measured(&verdict), None);
        assert_eq!(verdict.conflicts, [""; 0]);
        let missing = tree.verdict().missing;
        assert!(
            missing.iter().all(|m| m.source != "/dev/udmabuf"),
            "{missing:?}"
        );
    }
}

#[test]
fn what_could_not_be_tried_is_missing_with_the_reason_and_changes_nothing() {
    let tree = Tree::direct().file("proc/cmdline", "swiotlb=force");
    let fails = |errno| Fake {
        fails: Some((Call::SecondBegin, errno)),
        ..Fake::default()
    };
    let plain = tree.probe();
    let captured = tree.probe().allow_functional(true);
    for (probe, says) in [
        (plain.clone(), "the caller has not allowed it"),
        (captured.clone(), "captured tree"),
        (
            captured.allow_functional(false),
            "the caller has not allowed it",
        ),
        (
            tried_on(plain.clone(), fails(libc::EIO)),
            "bounce pool may be full",
        ),
        (tried_on(plain, fails(libc::EACCES)), "permission denied"),
    ] {
        let verdict = probe.device(DEVICE);
        assert_eq!(verdict.forced_bounce, Tri::Yes, "{says}");
        assert_eq!(measured(&verdict), None, "{says}");
        let missing = verdict
            .missing
            .iter()
            .filter(|m| m.source.starts_with("/dev/"));
        let missing: Vec<_> = missing.map(|m| &m.why).collect();
        assert!(
            matches!(missing[..], [why] if why.contains(says)),
            "{says}: {missing:?}"
        );
    }
}

#[test]
fn one_page_does_not_speak_for_a_paravirtual_guest() {
    let tree = Tree::direct()
        .file("sys/hypervisor/type", "xen\n")
        .file("sys/hypervisor/guest_type", "PV\n");
    assert_eq!(tried(&tree, platform(false)).forced_bounce, Tri::Yes);
}
