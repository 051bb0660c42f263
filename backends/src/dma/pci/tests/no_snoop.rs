//! What the configuration space says of requests that do not snoop.

use ttm::dma::{Need, Topic, Tri, Verdict, choose};

use super::Tree;
use super::tree::of_device;
use crate::dma::config_space::tests::express;

fn said(verdict: &Verdict) -> Vec<(&str, bool)> {
    let facts = verdict.about(Topic::NoSnoop);
    facts.map(|fact| (&*fact.source, fact.privileged)).collect()
}

fn config_is_missing(verdict: &Verdict) -> bool {
    verdict
        .missing
        .iter()
        .any(|missing| missing.source.ends_with("/config"))
}

#[test]
fn that_a_device_may_is_no_evidence_that_it_does() {
    for may in [false, true] {
        let verdict = Tree::owned()
            .file(&of_device("config"), express(may))
            .verdict();
        assert_eq!(verdict.may_ask_not_to, Tri::from(may));
        assert!(!verdict.asks_not_to);
        assert_eq!(
            said(&verdict),
            [(&*format!("/{}", of_device("config")), true)]
        );
        assert_eq!(verdict.snoops(), Tri::Yes);
    }
}

#[test]
fn it_is_missing_where_it_would_count() {
    let header = &express(true)[..64];
    let tree = Tree::owned().file(&of_device("config"), header);
    let verdict = tree.verdict();
    assert_eq!(verdict.may_ask_not_to, Tri::Unknown);
    let text = choose(&verdict, &Need::default()).explain(&verdict);
    assert!(
        text.contains("config: is cut off at its header; root sees more"),
        "{text}"
    );
    assert!(text.contains("no-snoop requests: nothing says"), "{text}");
    assert!(config_is_missing(&Tree::owned().verdict()));
    // An IOMMU that forces all requests to snoop, or a kernel's driver, that syncs if need be.
    let forced = tree.file(&of_device("iommu/intel-iommu/ecap"), "f00fca");
    assert!(!config_is_missing(&forced.verdict()));
    assert!(!config_is_missing(&Tree::grouped("DMA").verdict()));
    assert!(!config_is_missing(&Tree::direct().verdict()));
}

#[test]
fn of_a_virtual_function_the_physical_one_is_asked() {
    let physical = "sys/bus/pci/devices/0000:01:00.7/config";
    let tree = Tree::owned()
        .file(&of_device("config"), express(false))
        .file(physical, express(true))
        .link(&of_device("physfn"), "../0000:01:00.7");
    let verdict = tree.verdict();
    assert_eq!(verdict.may_ask_not_to, Tri::Yes);
    assert_eq!(said(&verdict).len(), 1);
}

#[test]
fn a_device_that_is_off_is_not_woken() {
    for (state, told) in [("D0\n", true), ("D3hot\n", true), ("D3cold\n", false)] {
        let verdict = Tree::owned()
            .file(&of_device("config"), express(false))
            .file(&of_device("power_state"), state)
            .verdict();
        assert_eq!(verdict.may_ask_not_to.is_no(), told, "{state}");
        assert_eq!(config_is_missing(&verdict), !told, "{state}");
    }
}
