//! What is told of the device itself, of its group and of the processors.

use ttm::dma::{Path, Topic, Verdict};

use super::Tree;
use super::tree::of_device;

fn said(verdict: &Verdict, topic: Topic) -> Vec<&str> {
    verdict.about(topic).map(|fact| &*fact.says).collect()
}

#[test]
fn node_bars_and_peer_memory_are_listed() {
    let resource = "0x00000000fe000000 0x00000000feffffff 0x0000000000040200\n\
                    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
                    0x0000002000000000 0x00000020ffffffff 0x000000000014220c\n\
                    0x000000000000e000 0x000000000000e07f 0x0000000000040101\n";
    let tree = Tree::direct()
        .file(&of_device("numa_node"), "1\n")
        .file(&of_device("resource"), resource)
        .file(&of_device("p2pmem/size"), "1048576\n");
    assert_eq!(
        said(&tree.verdict(), Topic::Hardware),
        [
            "near memory node 1",
            "BAR 0: 0x1000000 bytes",
            "BAR 2: 0x100000000 bytes, prefetchable",
            "0x100000 bytes of its memory are for other devices",
        ]
    );
    let nothing = Tree::direct().file(&of_device("numa_node"), "-1\n").file(
        &of_device("resource"),
        "0x1 0x0 0x200\n0x0 0xffffffffffffffff 0x200\nx y z\n",
    );
    assert!(said(&nothing.verdict(), Topic::Hardware).is_empty());
}

#[test]
fn addresses_that_are_reserved_are_listed() {
    let tree = Tree::grouped("DMA").file(
        "sys/kernel/iommu_groups/3/reserved_regions",
        "0x00000000fee00000 0x00000000feefffff msi\n",
    );
    assert_eq!(
        said(&tree.verdict(), Topic::Iova),
        ["0x00000000fee00000 to 0x00000000feefffff are reserved: msi"]
    );
}

#[test]
fn in_a_guest_what_translates_is_the_hypervisors_and_counts_the_same() {
    let guest = Tree::grouped("DMA").file("proc/cpuinfo", "flags : fpu hypervisor\n");
    let verdict = guest.verdict();
    assert_eq!(verdict.path, Path::Translated { strict: true });
    let is_said = |verdict: &Verdict| {
        said(verdict, Topic::Path)
            .iter()
            .any(|s| s.contains("guest"))
    };
    assert!(is_said(&verdict));
    assert!(!is_said(&Tree::grouped("DMA").verdict()));
}

#[test]
fn the_longest_line_of_all_processors_counts() {
    let line =
        |cpu: u32| format!("sys/devices/system/cpu/cpu{cpu}/cache/index1/coherency_line_size");
    let tree = Tree::direct()
        .file(&line(0), "64\n")
        .file(&line(1), "96\n")
        .file(&line(10), "128\n")
        .file(&line(2), "128\n");
    let verdict = tree.verdict();
    assert_eq!(verdict.line, 128);
    assert_eq!(said(&verdict, Topic::Line), ["128 bytes"]);
    assert!(
        verdict
            .about(Topic::Line)
            .next()
            .unwrap()
            .source
            .contains("cpu10/")
    );
    assert_eq!(Tree::direct().verdict().line, 64);
}
