//! What the firmware's tables and a device tree's ports say.

use ttm::dma::{Fact, Path, Topic, Tri, Trust, Verdict};

use super::Tree;
use super::tree::of_device;

const DMAR: &str = "sys/firmware/acpi/tables/DMAR";

fn dmar(flags: u8) -> Vec<u8> {
    let mut table = vec![0; 48];
    table[..4].copy_from_slice(b"DMAR");
    table[37] = flags;
    table
}

fn of_tables(verdict: &Verdict, topic: Topic) -> Vec<&Fact> {
    let facts = verdict.about(topic);
    facts.filter(|fact| fact.source.contains("acpi")).collect()
}

#[test]
fn a_table_is_evidence_and_changes_no_path() {
    for name in ["DMAR", "IVRS", "IORT", "VIOT"] {
        let table = format!("sys/firmware/acpi/tables/{name}");
        let direct = Tree::direct().file(&table, b"").verdict();
        assert_eq!(direct.path, Path::Direct);
        let [fact] = of_tables(&direct, Topic::Path)[..] else {
            panic!("{name}: {direct:?}")
        };
        assert!(fact.source.ends_with(name) && !fact.privileged, "{fact}");
        assert_eq!(
            fact.says.contains("none of which"),
            name != "IORT",
            "{fact}"
        );
        let translated = Tree::grouped("DMA").file(&table, b"").verdict();
        assert_eq!(translated.path, Path::Translated { strict: true });
        let said = of_tables(&translated, Topic::Path)[0];
        assert!(!said.says.contains("none of which"), "{said}");
    }
    assert!(of_tables(&Tree::direct().verdict(), Topic::Path).is_empty());
}

#[test]
fn a_device_that_can_be_plugged_in_is_untrusted_where_the_firmware_asks_for_guarding() {
    for (flags, untrusted) in [(0, Tri::Unknown), (0b011, Tri::Unknown), (0b100, Tri::Yes)] {
        let tree = Tree::grouped("DMA").file(DMAR, dmar(flags));
        // Of one that cannot, nothing follows.
        assert_eq!(tree.verdict().untrusted, Tri::Unknown, "{flags:#b}");
        let tree = tree.file(&of_device("removable"), "removable\n");
        let verdict = tree.verdict();
        assert_eq!(verdict.untrusted, untrusted, "{flags:#b}");
        let asked = of_tables(&verdict, Topic::Trust);
        assert_eq!(asked.len(), usize::from(untrusted.is_yes()), "{flags:#b}");
        assert!(asked.iter().all(|fact| fact.privileged));
    }
}

#[test]
fn a_table_that_says_too_little_is_missing_where_it_would_count() {
    let tree = Tree::grouped("DMA").file(DMAR, &dmar(4)[..37]);
    let is_missing = |verdict: &Verdict| {
        let mut missing = verdict.missing.iter();
        missing.any(|missing| missing.source.ends_with("DMAR") && missing.why.contains("cut off"))
    };
    assert!(!is_missing(&tree.verdict()));
    let tree = tree.file(&of_device("removable"), "removable\n");
    assert!(is_missing(&tree.verdict()));
    assert_eq!(tree.verdict().untrusted, Tri::Unknown);
}

#[test]
fn what_is_below_a_port_that_leads_outside_is_untrusted() {
    let port = "sys/bus/pci/devices/of_node/external-facing";
    let verdict = Tree::grouped("DMA").file(port, b"").verdict();
    assert_eq!(verdict.untrusted, Tri::Yes);
    assert_eq!(
        verdict.about(Topic::Trust).next().unwrap().trust,
        Trust::Declared
    );
    // The port itself is not.
    let own = Tree::grouped("DMA").file(&of_device("of_node/external-facing"), b"");
    assert_eq!(own.verdict().untrusted, Tri::Unknown);
}
