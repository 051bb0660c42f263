//! `window_torture` says what it did, refuses what it cannot do, and goes on without what the system
//! does not allow.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_window_torture");

const STRATEGIES: [&str; 6] = [
    "userfaultfd",
    "userfaultfd-user",
    "userfaultfd-6.1",
    "device-file",
    "signal",
    "pinned",
];

/// A file of one test, removed when dropped.
struct Json(PathBuf);

impl Json {
    fn new(test: &str) -> Self {
        let name = format!("window-torture-it-{test}-{}.json", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn read(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.0).unwrap()).unwrap()
    }
}

impl Drop for Json {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

fn names<'a>(report: &'a Value, list: &str) -> BTreeSet<&'a str> {
    let rows = report[list].as_array().unwrap();
    rows.iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect()
}

/// Every strategy ran or says why not; those that ran moved and looked and found nothing wrong.
fn is_complete(report: &Value) {
    let (ran, not) = (names(report, "strategies"), names(report, "not_run"));
    assert!(ran.is_disjoint(&not), "{ran:?} {not:?}");
    let all: BTreeSet<_> = ran.union(&not).copied().collect();
    assert_eq!(all, BTreeSet::from(STRATEGIES));
    assert!(ran.contains("pinned"), "what needs nothing runs everywhere");
    for row in report["not_run"].as_array().unwrap() {
        assert!(!row["reason"].as_str().unwrap().is_empty(), "{row}");
    }
    for row in report["strategies"].as_array().unwrap() {
        for field in ["moves", "accesses", "compared"] {
            assert!(row[field].as_u64().unwrap() > 0, "{field} of {row}");
        }
        assert_eq!(row["wrong_words"], 0, "{row}");
        let sizes = row["gap_ns"].as_array().unwrap();
        assert!(!sizes.is_empty(), "{row}");
        for size in sizes {
            let figure = |of: &Value, name: &str| of[name].as_u64().unwrap();
            assert!(figure(size, "size") >= 4096);
            assert!(figure(size, "median") <= figure(size, "p99"));
            assert!(figure(size, "p99") <= figure(size, "longest"));
            let moves = size["moves"].as_array().unwrap();
            let count: u64 = moves.iter().map(|m| figure(m, "count")).sum();
            assert_eq!(count, figure(size, "count"), "{size}");
            assert!(moves.iter().all(|m| m["move"].is_string()));
        }
    }
    assert_eq!(report["wrong_words"], 0);
    assert_eq!(report["wrong"], serde_json::json!([]));
}

#[test]
fn nothing_is_wrong_and_every_strategy_is_accounted_for() {
    let json = Json::new("short");
    let output = run(&["--seconds", "2", "--json", json.0.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let report = json.read();
    is_complete(&report);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.ends_with("; 0 wrong words\n"), "{stdout}");
    for row in names(&report, "not_run") {
        assert!(stdout.contains(&format!("not run: {row}: ")), "{stdout}");
    }
}

#[test]
fn json_to_standard_output_is_alone_there() {
    let args = "--seconds 0.2 --strategy pinned --sizes 4K,64K --json -";
    let output = run(&args.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(names(&report, "strategies"), BTreeSet::from(["pinned"]));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("; 0 wrong words"), "{text}");
}

#[test]
fn bad_arguments_are_refused_with_what_was_expected() {
    for (args, expected) in [
        ("--seconds 0", "expected from 0.1"),
        ("--seconds soon", "expected seconds"),
        ("--sizes 5000", "--sizes: expected whole pages"),
        ("--sizes 1G", "at most 16M"),
        ("--sizes lots", "expected a size"),
        ("--strategy magic", "userfaultfd-6.1"),
        ("--break nothing", "no-revoke"),
    ] {
        let output = run(&args.split(' ').collect::<Vec<_>>());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {text}");
        assert!(text.contains(expected), "{args}: {text}");
    }
}

#[test]
#[cfg(not(feature = "plant"))]
fn a_defect_is_refused_by_a_program_that_has_none() {
    let output = run(&["--break", "no-revoke"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--features plant"), "{text}");
}

#[test]
#[cfg(feature = "plant")]
fn a_planted_defect_is_found() {
    for defect in ["no-revoke", "no-dirty-recopy"] {
        let args = [
            "--seconds",
            "4",
            "--strategy",
            "userfaultfd",
            "--break",
            defect,
        ];
        let output = run(&args);
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("no strategy can run here") {
            println!("skipped: {text}");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{defect}: {text}");
    }
}

#[test]
fn without_userfaultfd_the_rest_runs() {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    if !traced.is_ok_and(|output| output.status.success()) {
        println!("skipped: strace is not installed, or may not trace");
        return;
    }
    let json = Json::new("strace");
    // The device gives the same as the call; there may be none.
    let output = Command::new("strace")
        .args(["-qq", "-f", "-o", "/dev/null"])
        .args([
            "-e",
            "trace=userfaultfd",
            "-e",
            "inject=userfaultfd:error=EPERM",
        ])
        .arg(PROGRAM)
        .args(["--seconds", "1", "--sizes", "4K,64K", "--json"])
        .arg(&json.0)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report = json.read();
    is_complete(&report);
    let not_run = names(&report, "not_run");
    assert!(
        not_run.iter().any(|name| name.starts_with("userfaultfd")),
        "{not_run:?}"
    );
}
