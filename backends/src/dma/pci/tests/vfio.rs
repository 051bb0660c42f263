//! What VFIO says of a device that it has, beside what the IOMMU's registers say.

use ttm::dma::{Path, Topic, Tri, Trust, Verdict};
use ttm::sync::Arc;

use super::Tree;
use super::tree::{DEVICE, of_device};
use crate::dma::trial;
use crate::dma::vfio::tests::Fake;

/// Its IOMMU can force requests to snoop, or not.
fn intel(tree: Tree, can: bool) -> Tree {
    let ecap = match can {
        true => "f00fca",
        false => "f00f4a",
    };
    tree.file(&of_device("iommu/intel-iommu/ecap"), ecap)
}

fn asked(tree: &Tree, machine: &Fake) -> Verdict {
    let probe = tree.probe();
    let probe = probe.trying(&trial::tests::Fake::default(), Arc::new(machine.clone()));
    probe.device(DEVICE)
}

fn owned(forces_snoop: bool) -> Path {
    Path::Owned {
        forces_snoop: forces_snoop.into(),
    }
}

#[test]
fn vfio_is_believed_before_the_registers_and_a_contradiction_kept() {
    for (declared, measured) in [(false, false), (false, true), (true, false), (true, true)] {
        let tree = intel(Tree::owned(), declared);
        assert_eq!(tree.verdict().path, owned(declared));
        let machine = Fake::forcing(measured);
        let verdict = asked(&tree, &machine);
        assert_eq!(verdict.path, owned(measured));
        let conflicts = verdict.conflicts.iter();
        let conflicts: Vec<_> = conflicts
            .filter(|c| c.starts_with("forced snoop"))
            .collect();
        assert_eq!(
            conflicts.len(),
            usize::from(declared != measured),
            "{conflicts:?}"
        );
        for conflict in conflicts {
            assert!(
                conflict.contains("ecap") && conflict.contains("/dev/vfio/3"),
                "{conflict}"
            );
        }
        let trust: Vec<_> = verdict.about(Topic::ForcedSnoop).map(|f| f.trust).collect();
        assert_eq!(trust, [Trust::Declared, Trust::Measured]);
        assert_eq!(verdict.about(Topic::Iova).count(), 3);
        machine.assert_left_alone();
    }
}

#[test]
fn vfio_answers_where_no_register_does() {
    assert_eq!(
        Tree::owned().verdict().path,
        Path::Owned {
            forces_snoop: Tri::Unknown
        }
    );
    let verdict = asked(&Tree::owned(), &Fake::forcing(true));
    assert_eq!(verdict.path, owned(true));
    assert_eq!(verdict.conflicts, [""; 0]);
}

#[test]
fn no_group_is_taken_unless_the_caller_allows_it_and_vfio_has_the_device() {
    let verdict = Tree::owned().verdict();
    let missing = verdict.missing.iter().find(|m| m.source == "/dev/vfio/3");
    assert!(missing.unwrap().why.contains("has not allowed it"));
    for tree in [Tree::grouped("DMA"), Tree::grouped("identity")] {
        let machine = Fake::forcing(true);
        let verdict = asked(&tree, &machine);
        assert_eq!(verdict.about(Topic::ForcedSnoop).count(), 0);
        assert!(machine.is_untouched());
        assert!(
            verdict
                .missing
                .iter()
                .all(|m| !m.source.starts_with("/dev/vfio"))
        );
    }
    let nothing = Tree::direct().probe().vfio(DEVICE).unwrap_err();
    assert!(nothing.source.ends_with("iommu_group"), "{nothing}");
}

#[test]
fn drivers_for_one_kind_of_device_are_vfio_too() {
    for (driver, is_owned) in [("mlx5_vfio_pci", true), ("vfio-pci", true), ("card", false)] {
        let tree = Tree::owned().link(&of_device("driver"), &format!("../../drivers/{driver}"));
        let path = tree.verdict().path;
        assert_eq!(matches!(path, Path::Owned { .. }), is_owned, "{driver}");
    }
}
