//! Runs the `simulate` binary as a person does: exit statuses, figures, error texts, files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A folder of its own for one test, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("simulate-it-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn simulate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.args(args).output().unwrap()
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("no signal")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON that `--json -` prints; nothing else is on standard output.
fn json(args: &[&str]) -> Value {
    let output = simulate(&[args, &["--json", "-"]].concat());
    assert_eq!(status(&output), 0, "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn frames() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/frames.residency");
    path.to_str().unwrap().to_owned()
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 33
}

/// Lines of one to eight ids below 60.
fn lines(seed: u64) -> Vec<Vec<u64>> {
    let mut state = seed * 7919 + 1;
    let line = |state: &mut u64| {
        (0..=random(state) % 8)
            .map(|_| random(state) % 60)
            .collect()
    };
    (0..200).map(|_| line(&mut state)).collect()
}

fn mooncake(lines: &[Vec<u64>]) -> String {
    let line = |ids: &Vec<u64>| format!("{{\"timestamp\": 0, \"hash_ids\": {ids:?}}}\n");
    lines.iter().map(line).collect()
}

/// Misses and evictions of the least recently used policy, as one would explain it.
fn lru(lines: &[Vec<u64>], room: usize, together: bool) -> (u64, u64) {
    let (mut misses, mut evictions, mut clock) = (0, 0, 0u64);
    let mut resident: BTreeMap<u64, u64> = BTreeMap::new();
    for line in lines {
        for (at, id) in line.iter().enumerate() {
            let group = if together { &line[..] } else { &line[at..=at] };
            if !resident.contains_key(id) {
                misses += 1;
                if resident.len() == room {
                    let candidates = resident.iter().filter(|(id, _)| !group.contains(id));
                    let victim = *candidates.min_by_key(|(_, used)| **used).unwrap().0;
                    resident.remove(&victim);
                    evictions += 1;
                }
            }
            clock += 1;
            resident.insert(*id, clock);
        }
    }
    (misses, evictions)
}

#[test]
fn the_manager_is_an_exact_lru_on_random_traces() {
    let folder = Folder::new("lru");
    for seed in 0..6 {
        let lines = lines(seed);
        let file = folder.write("t.jsonl", &mooncake(&lines));
        for (order, together) in [("touch", false), ("request", true)] {
            let room = 9 + seed as usize * 5;
            let (misses, evictions) = lru(&lines, room, together);
            let vram = room.to_string();
            let out = json(&["replay", &file, "--vram", &vram, "--order", order]);
            let (row, best) = (&out["policies"][0], &out["policies"][1]);
            assert_eq!(row["policy"], "lru");
            assert_eq!(row["misses"], misses, "seed {seed} {order}");
            assert_eq!(row["evictions"], evictions, "seed {seed} {order}");
            assert_eq!(row["bytes_in"], misses << 21);
            assert_eq!(row["bytes_out"], evictions << 21);
            assert!(row["virtual_seconds"].as_f64().unwrap() > 0.0);
            assert!(row["wall_seconds"].as_f64().unwrap() > 0.0);
            assert!(best["misses"].as_u64() <= row["misses"].as_u64());
        }
    }
}

#[test]
fn a_trace_file_has_a_move_for_each_miss_and_each_eviction() {
    let folder = Folder::new("moves");
    let (trace, plot) = (folder.path("t.json"), folder.path("p.svg"));
    let frames = frames();
    let args = [
        "replay", &frames, "--vram", "384M", "--order", "request", "--policy", "lru",
    ];
    let out = json(&[&args[..], &["--trace", &trace, "--plot", &plot]].concat());
    let row = &out["policies"][0];
    let text: Value = serde_json::from_str(&fs::read_to_string(&trace).unwrap()).unwrap();
    let events = text["traceEvents"].as_array().unwrap();
    let moves = events.iter().filter(|event| event["cat"] == "move").count() as u64;
    let expected = row["misses"].as_u64().unwrap() + row["evictions"].as_u64().unwrap();
    assert!(row["evictions"].as_u64().unwrap() > 0);
    assert_eq!(moves, expected);
    assert!(fs::read_to_string(&plot).unwrap().contains("</svg>"));
    assert_eq!(folder.names(), ["p.svg", "t.json"]);
}

#[test]
fn a_line_that_cannot_fit_is_named_and_nothing_is_written() {
    let folder = Folder::new("fit");
    let file = folder.write(
        "t.jsonl",
        "{\"hash_ids\":[1,2]}\n\n{\"hash_ids\":[3,4,5]}\n",
    );
    let out = folder.path("out.json");
    let args = [
        "replay", &file, "--vram", "2", "--order", "request", "--json", &out,
    ];
    let output = simulate(&args);
    assert_eq!(status(&output), 2);
    assert!(
        stderr(&output).contains("line 3: 3 objects together"),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
    assert_eq!(folder.names(), ["t.jsonl"]);
    assert_eq!(status(&simulate(&["replay", &file, "--vram", "2"])), 0);
}

#[test]
fn what_is_malformed_is_refused_with_line_and_column() {
    let folder = Folder::new("bad");
    let trace = folder.path("trace.json");
    for (name, text, place) in [
        (
            "a.jsonl",
            "{\"hash_ids\":[1]}\n{\"hash_ids\":[1,x]}\n",
            "a.jsonl:2:",
        ),
        (
            "b.residency",
            "residency 1\nobject a 4K\ntouch a b\n",
            "b.residency:3:9: expected",
        ),
        (
            "c.residency",
            "residency 1\nobject a 4Q\n",
            "c.residency:2:10: expected",
        ),
        ("d.jsonl", "", "d.jsonl:1:1: expected"),
    ] {
        let file = folder.write(name, text);
        let output = simulate(&["replay", &file, "--trace", &trace]);
        assert_eq!(status(&output), 2, "{name}");
        assert!(
            stderr(&output).contains(place),
            "{name}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("found"),
            "{name}: {}",
            stderr(&output)
        );
    }
    assert!(!folder.names().contains(&"trace.json".to_owned()));
    assert_eq!(status(&simulate(&["replay", &folder.path("absent")])), 2);
}

#[test]
fn a_trace_without_the_manager_is_refused() {
    let folder = Folder::new("policy");
    let trace = folder.path("t.json");
    let args = [
        "replay",
        &frames(),
        "--policy",
        "optimal",
        "--trace",
        &trace,
    ];
    assert_eq!(status(&simulate(&args)), 2);
    assert!(folder.names().is_empty());
}

/// A demo that is small and quick.
const SMALL: [&str; 5] = ["demo", "--seconds", "1", "--vram", "8M"];

#[test]
fn the_demo_verifies_every_word_and_leaves_no_file() {
    let folder = Folder::new("demo");
    let (swap, trace, plot) = (folder.path(""), folder.path("t.json"), folder.path("p.svg"));
    let outputs = ["--swap-dir", &swap, "--trace", &trace, "--plot", &plot];
    let out = json(&[&SMALL[..], &outputs].concat());
    assert!(out["words_checked"].as_u64().unwrap() > 100_000, "{out}");
    assert_eq!(out["wrong_words"], 0);
    for figure in ["evictions", "swapped_out_bytes", "swapped_in_bytes"] {
        assert!(out[figure].as_u64().unwrap() > 0, "{figure}: {out}");
    }
    assert!(out["moves"]["engine"].as_u64().unwrap() > 0);
    assert!(out["wall_seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(folder.names(), ["p.svg", "t.json"]);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let figures = || {
        let mut out = json(&[&SMALL[..], &["--seed", "7"]].concat());
        out.as_object_mut().unwrap().remove("wall_seconds");
        out
    };
    assert_eq!(figures(), figures());
}

#[test]
fn the_demo_runs_on_the_wall_clock_too() {
    let out = json(&[&SMALL[..], &["--clock", "wall"]].concat());
    assert_eq!(out["wrong_words"], 0);
}

#[test]
fn a_flipped_bit_is_found_and_its_object_named() {
    let output = simulate(&[&SMALL[..], &["--inject", "copy.flip-bit:1"]].concat());
    assert_eq!(status(&output), 1, "{}", stderr(&output));
    let text = stderr(&output);
    for word in ["object ", "byte offset ", "expected 0x", "found 0x"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_card_that_sees_no_caches_needs_the_manager_to_maintain_them() {
    let args = [&SMALL[..], &["--no-snoop"]].concat();
    let out = json(&args);
    assert_eq!(out["wrong_words"], 0);
    for lines in ["cleaned", "invalidated", "written_back_by_themselves"] {
        assert!(out["caches"][lines].as_u64().unwrap() > 0, "{lines}: {out}");
    }
    for site in [
        "cache.skip-clean:1:forever",
        "cache.skip-invalidate:1:forever",
    ] {
        let output = simulate(&[&args[..], &["--inject", site]].concat());
        assert_eq!(status(&output), 1, "{site}: {}", stderr(&output));
    }
}

#[test]
fn other_failures_are_survived_or_refused_and_never_hang() {
    for (site, expected) in [
        ("copy.start:3", 0),
        ("copy.late-error:5:forever", 0),
        ("kernel.submit:2", 0),
        ("pages.take:9", 0),
        ("backup.load:1", 0),
        ("backup.flip:1", 0),
        ("ttm.lock:3:forever", 0),
        ("fence.never:4", 2),
        ("device.lost:6", 2),
    ] {
        let output = simulate(&[&SMALL[..], &["--inject", site]].concat());
        assert_eq!(status(&output), expected, "{site}: {}", stderr(&output));
    }
    let output = simulate(&[&SMALL[..], &["--inject", "fence.never:4"]].concat());
    assert!(
        stderr(&output).contains("waits since"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn lists_are_printed_and_bad_arguments_refused() {
    let list = simulate(&["demo", "--inject", "list"]);
    assert_eq!(status(&list), 0);
    assert!(String::from_utf8_lossy(&list.stdout).contains("copy.flip-bit"));
    assert_eq!(status(&simulate(&["demo", "--preset", "list"])), 0);
    for (args, text) in [
        (&["--inject", "copy.flop"][..], "no site"),
        (&["--swap-dir", "/no/such/folder"], "--swap-dir"),
        (&["--vram", "4K"], "--vram"),
        (&["--system-limit", "4K"], "--system-limit"),
        (&["--working-set", "4K"], "--working-set"),
        (&["--preset", "voodoo"], "navi21"),
    ] {
        let output = simulate(&[&["demo"], args].concat());
        assert_eq!(status(&output), 2, "{args:?}");
        assert!(
            stderr(&output).contains(text),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn every_platform_is_served_and_ignoring_its_probe_shows() {
    let list = simulate(&["demo", "--platform", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let names: Vec<_> = list.lines().map(|l| l.split(' ').next().unwrap()).collect();
    assert_eq!(names.len(), 10, "{list}");
    let harmless = [
        "coherent",
        "iommu-amd",
        "iommu-intel",
        "identity",
        "untrusted",
    ];
    for name in names {
        let args = [&SMALL[..], &["--platform", name]].concat();
        let out = json(&args);
        assert_eq!(out["wrong_words"], 0, "{name}");
        assert_eq!(out["platform"]["name"], name);
        let count = |of: &str| out["platform"][of].as_u64().unwrap();
        assert!(count("mapped") > 0 && count("live_mappings") <= count("mapped"));
        let ignored = simulate(&[&args[..], &["--unsafe-ignore-probe"]].concat());
        let text = stderr(&ignored);
        if harmless.contains(&name) {
            assert_eq!(status(&ignored), 0, "{name}: {text}");
        } else {
            assert_eq!(status(&ignored), 1, "{name}: {text}");
            for word in ["object ", "byte offset ", "expected 0x", "found 0x"] {
                assert!(text.contains(word), "{name}: {word} in {text}");
            }
        }
    }
    for args in [
        &["demo", "--platform", "toaster"][..],
        &["demo", "--unsafe-ignore-probe"],
        &["demo", "--platform", "coherent", "--no-snoop"],
    ] {
        assert_eq!(status(&simulate(args)), 2, "{args:?}");
    }
}
