//! Every system call of the memory floor fails in turn: frames, mappings, swap. Whatever fails, a
//! program goes on or says why not, and no word is wrong.
//!
//! `strace` makes them fail; where it is not installed or not allowed, nothing is tested.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Files of one run, removed when dropped.
struct Files {
    log: PathBuf,
    json: PathBuf,
}

impl Files {
    fn new() -> Self {
        let path = |name| {
            let name = format!("syscalls-it-{}.{name}", std::process::id());
            std::env::temp_dir().join(name)
        };
        Self {
            log: path("log"),
            json: path("json"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
        let _ = fs::remove_file(&self.json);
    }
}

fn has_strace() -> bool {
    let tried = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

/// A system call, its error, and at which visits it fails, as `strace` says it.
type Fault<'a> = (&'a str, &'a str, &'a str);

/// Runs a small demo in which `calls` fail.
fn survives(calls: &[Fault<'_>], expected: i32) {
    let files = Files::new();
    let program = env!("CARGO_BIN_EXE_simulate");
    // What fails is to be an error and not a signal.
    let args = "demo --seconds 2 --vram 16M --clients 2 --system-limit 18M --windows populate";
    run(&files, calls, program, args, expected);
    if expected == 0 {
        let json: Value = serde_json::from_slice(&fs::read(&files.json).unwrap()).unwrap();
        assert_eq!(json["wrong_words"], 0, "{calls:?}");
        assert!(json["words_checked"].as_u64().unwrap() > 0, "{calls:?}");
    }
}

/// Fills a pool over the host's page files while a call fails. The program compares every word
/// and what the kernel says of its memory.
fn fills(call: Fault<'_>, expected: i32) {
    let program = env!("CARGO_BIN_EXE_pool_probe");
    let args = "--fill 32M --hold 0";
    run(&Files::new(), &[call], program, args, expected);
}

fn run(files: &Files, calls: &[Fault<'_>], program: &str, args: &str, expected: i32) {
    let mut command = Command::new("strace");
    command.args(["-qq", "-f", "-o"]).arg(&files.log);
    for (name, error, when) in calls {
        command.args(["-e", &format!("inject={name}:error={error}:when={when}")]);
    }
    let names: Vec<_> = calls.iter().map(|(name, ..)| *name).collect();
    command.args(["-e", &format!("trace={}", names.join(","))]);
    command.arg(program).args(args.split(' ')).arg("--json");
    let output = command.arg(&files.json).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);

    assert_eq!(output.status.code(), Some(expected), "{calls:?}: {text}");
    let log = fs::read_to_string(&files.log).unwrap();
    for (name, ..) in calls {
        let failed = |line: &str| line.contains(name) && line.contains("(INJECTED)");
        assert!(log.lines().any(failed), "{name} was not called so often");
    }
    if expected == 2 {
        assert!(text.contains("refused: "), "{calls:?}: {text}");
    }
}

/// What the swap file is written and read with where there is no io_uring.
const NO_URING: Fault<'static> = ("io_uring_setup", "EPERM", "1+");

#[test]
fn system_calls_fail_in_turn_and_no_word_is_wrong() {
    if !has_strace() {
        println!("skipped: strace is not installed, or may not trace");
        return;
    }
    // The card's and the system's memory files cannot be made.
    survives(&[("memfd_create", "EMFILE", "1")], 2);
    survives(&[("memfd_create", "EMFILE", "2")], 2);
    survives(&[("ftruncate", "EFBIG", "1")], 2);
    // Frames cannot be reserved, nor holes made; the disk of the swap file is full now and then.
    survives(&[("fallocate", "ENOMEM", "3..120")], 0);
    survives(&[("fallocate", "ENOSPC", "20+3")], 0);
    // They cannot be mapped, and not be kept from children.
    survives(&[("mmap", "ENOMEM", "150+5")], 0);
    survives(&[("madvise", "ENOMEM", "9+5")], 0);
    // The same for the host's page files.
    fills(("memfd_create", "EMFILE", "1"), 2);
    fills(("fallocate", "ENOSPC", "2"), 2);
    fills(("fallocate", "EIO", "4+3"), 2);
    fills(("mmap", "ENOMEM", "60+2"), 2);
    fills(("fcntl", "EPERM", "1"), 2);
    // Swap: without a ring, with one that refuses, and with a disk that fails or is full.
    survives(&[("io_uring_setup", "ENOSYS", "1")], 0);
    survives(&[("io_uring_enter", "ENOMEM", "1+")], 0);
    survives(&[NO_URING, ("pwrite64", "EIO", "2+4")], 0);
    survives(&[NO_URING, ("pwrite64", "ENOSPC", "3+")], 0);
    survives(&[NO_URING, ("pread64", "EIO", "4+5")], 0);
    survives(&[NO_URING, ("pread64", "EINTR", "3+2")], 0);
}
