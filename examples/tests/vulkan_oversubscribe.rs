//! The program as people run it. Without a Vulkan device it says `skipped:`, unless
//! `TTM_REQUIRE_VULKAN` is set.

use std::process::{Command, Output};

use serde_json::Value;

fn run(args: &[&str]) -> Option<Output> {
    let output = Command::new(env!("CARGO_BIN_EXE_vulkan_oversubscribe"))
        .args(args)
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(2) && said.contains("no Vulkan") {
        assert!(std::env::var_os("TTM_REQUIRE_VULKAN").is_none(), "{said}");
        eprintln!("skipped: {said}");
        return None;
    }
    Some(output)
}

const SMALL: [&str; 6] = ["--limit", "8M", "--object", "512K", "--passes", "3"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().chain(more).copied().collect()
}

#[test]
fn it_ends_in_verified_and_moves_little_more_than_it_must() {
    for way in [
        &[][..],
        &["--no-sparse"],
        &["--copies", "queue"],
        &["--copies", "cpu"],
    ] {
        let args = with(way);
        let Some(output) = run(&[&args[..], &["--json", "-"]].concat()) else {
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{way:?}: {text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("verified: 32.0 MiB"), "{last}");
        let json: Value =
            serde_json::from_str(text.strip_suffix(&format!("{last}\n")).unwrap()).unwrap();
        assert_eq!(json["wrong_words"], 0);
        assert!(json["times_limit"].as_f64().unwrap() >= 4.0);
        assert_eq!(json["words_checked"], 2 * (32 << 20) / 4);
        assert!(
            json["moved_of_least"].as_f64().unwrap() <= 1.25,
            "{way:?}: {json}"
        );
        let by_queue = json["limited"]["copies"].as_u64().unwrap();
        match way {
            ["--copies", "queue"] => assert!(by_queue > 0),
            ["--copies", "cpu"] => assert_eq!(by_queue, 0),
            ["--no-sparse"] => assert_eq!(json["keeps_handles"], false),
            _ => {}
        }
    }
}

#[test]
fn a_trace_and_a_plot_are_written() {
    let folder = cli::folder::Folder::new("oversubscribe");
    let (trace, plot) = (folder.file("t.json"), folder.file("p.svg"));
    let args = with(&["--no-comparison", "--order", "cyclic"]);
    let outputs = [
        "--trace",
        trace.to_str().unwrap(),
        "--plot",
        plot.to_str().unwrap(),
    ];
    let Some(output) = run(&[&args[..], &outputs].concat()) else {
        return;
    };
    assert_eq!(output.status.code(), Some(0));
    let text = std::fs::read_to_string(trace).unwrap();
    let events: Value = serde_json::from_str(&text).unwrap();
    assert!(events["traceEvents"].as_array().unwrap().len() > 100);
    assert!(std::fs::read_to_string(plot).unwrap().contains("<svg"));
}

#[test]
fn what_cannot_be_is_refused_with_two() {
    for bad in [
        &["--object", "1000"][..],
        &["--limit", "1M", "--batch", "8"],
        &["--device", "no such"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_vulkan_oversubscribe"))
            .args(bad)
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(2), "{bad:?}");
        assert!(!said.contains("verified"), "{said}");
    }
}

#[test]
fn without_a_device_it_is_two_and_never_verified() {
    let output = Command::new(env!("CARGO_BIN_EXE_vulkan_oversubscribe"))
        .env("VK_ICD_FILENAMES", "/nowhere.json")
        .env("VK_DRIVER_FILES", "/nowhere.json")
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no Vulkan"), "{said}");
}
