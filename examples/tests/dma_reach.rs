//! Runs the `dma_reach` binary on captured platforms and on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn dma_reach(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dma_reach"));
    command.args(args).output().unwrap()
}

fn platforms() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("platforms")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_platform_is_explained_as_expected() {
    let mut seen = 0;
    for entry in fs::read_dir(platforms()).unwrap() {
        let tree = entry.unwrap().path();
        if !tree.is_dir() {
            continue;
        }
        seen += 1;
        let output = dma_reach(&["--root", tree.to_str().unwrap(), "--explain"]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        let at = printed.find("\n0000:01:00.0: ").expect("an explanation") + 1;
        let expected = fs::read_to_string(tree.with_extension("expected")).unwrap();
        assert_eq!(printed[at..], expected, "{}", tree.display());
    }
    assert!(seen >= 10, "only {seen} platforms");
}

#[test]
fn json_has_path_snoop_bounce_code_choice_and_evidence() {
    for (name, path, snoop, bounce, code, choice) in [
        ("coherent", "direct", "yes", "never", "D29", "streaming"),
        (
            "bounce-forced",
            "direct",
            "yes",
            "always",
            "D09",
            "coherent",
        ),
        (
            "iommu-intel",
            "translated, lazy",
            "yes",
            "never",
            "D27",
            "streaming",
        ),
        ("non-snooping", "direct", "no", "never", "D20", "coherent"),
        (
            "mask-28",
            "direct",
            "yes",
            "if out of reach",
            "D16",
            "coherent",
        ),
        (
            "untrusted",
            "translated",
            "yes",
            "if unaligned",
            "D15",
            "streaming",
        ),
        ("encrypted", "direct", "yes", "always", "D07", "decrypted"),
    ] {
        let root = platforms().join(name);
        let output = dma_reach(&["--root", root.to_str().unwrap(), "--json", "-"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let device = &found[0];
        for (key, expected) in [
            ("path", path),
            ("snoop", snoop),
            ("bounce", bounce),
            ("code", code),
            ("choice", choice),
        ] {
            assert_eq!(device[key], expected, "{name}: {key}");
        }
        let evidence = device["evidence"].as_array().unwrap();
        assert!(evidence.iter().all(|e| e["source"].is_string()));
        assert!(!evidence.is_empty(), "{name}");
    }
}

/// Whatever this machine is: each of its devices has a row, and evidence for its path.
#[test]
fn every_device_of_this_machine_is_listed_with_evidence() {
    let output = dma_reach(&["--json", "-"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let devices = fs::read_dir("/sys/bus/pci/devices").map_or(0, Iterator::count);
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), devices);
    for device in found {
        assert!(device["code"].as_str().unwrap().starts_with('D'));
        let evidence = device["evidence"].as_array().unwrap();
        assert!(evidence.iter().any(|e| e["topic"] == "path"), "{device}");
    }
}

#[test]
fn a_mask_and_sync_points_change_the_answer() {
    let root = platforms().join("mask-32");
    let root = root.to_str().unwrap();
    let wide = text(&dma_reach(&["--root", root, "--mask", "40"]).stdout);
    assert!(wide.contains("D28"), "{wide}");
    let root = platforms().join("non-snooping");
    let root = root.to_str().unwrap();
    let synced = text(&dma_reach(&["--root", root, "--bracketed"]).stdout);
    assert!(synced.contains("D21"), "{synced}");
}

#[test]
fn the_table_is_printed_and_bad_arguments_are_refused() {
    let table = text(&dma_reach(&["--table"]).stdout);
    for row in ["D01", "D16", "D29", "D31"] {
        assert!(table.contains(row), "{row}");
    }
    for (args, says) in [
        (&["--root", "/no/such/folder"][..], "--root"),
        (&["--root", "/proc/self"], "has no sys in it"),
        (&["--device", "ffff:ff:1f.7"], "there is no PCI device"),
        (&["--mask", "65"], "--mask"),
    ] {
        let output = dma_reach(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

#[test]
fn trying_is_asked_for_and_a_captured_tree_has_nothing_to_try() {
    let root = platforms().join("coherent");
    let root = root.to_str().unwrap();
    for (args, says) in [
        (
            &["--root", root, "--explain"][..],
            "the caller has not allowed it",
        ),
        (
            &["--root", root, "--explain", "--functional"],
            "captured tree",
        ),
    ] {
        let printed = text(&dma_reach(args).stdout);
        let line = printed.lines().find(|line| line.contains("/dev/udmabuf"));
        assert!(line.is_some_and(|line| line.contains(says)), "{printed}");
    }
    let output = dma_reach(&["--functional", "--explain"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

/// What is simulated is what is captured: the same path, the same answer.
#[test]
fn the_simulated_platforms_are_the_captured_ones() {
    use backends::dma::{Probe, ProbeRoot};
    use backends::sim::Platform;
    use ttm::dma::{Need, choose};

    for platform in Platform::ALL {
        let root = ProbeRoot::captured(platforms().join(platform.name())).unwrap();
        let captured = Probe::new(root).device("0000:01:00.0");
        let simulated = platform.verdict();
        let name = platform.name();
        assert_eq!(captured.path, simulated.path, "{name}");
        assert_eq!(captured.snoops(), simulated.snoops(), "{name}");
        assert_eq!(captured.bounce(), simulated.bounce(), "{name}");
        assert_eq!(captured.mask, simulated.mask, "{name}");
        let code = |verdict| choose(verdict, &Need::default()).code;
        assert_eq!(code(&captured), code(&simulated), "{name}");
        assert_eq!(
            captured.streaming_is_coherent(),
            simulated.streaming_is_coherent(),
            "{name}"
        );
    }
}
