//! Runs the `vulkan_info` binary: on captured devices, and on real drivers, which must answer as
//! they did when they were captured.
//!
//! A driver for hardware runs over a kernel that only pretends (`mesa-drm-shim`, preloaded into the
//! child). Where a driver or a shim is not installed, that is said on standard error and nothing is
//! checked. With `TTM_REQUIRE_VULKAN=1` it is a failure for Mesa's CPU driver and that for AMD, which
//! Debian's `mesa-vulkan-drivers` and `mesa-drm-shim` have since bookworm-backports; with
//! `TTM_REQUIRE_VULKAN=all` for every driver.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// What is compared of a memory: all but sizes of the machine's memory, and budgets.
const FIXED: [&str; 5] = ["memory", "made_of", "type", "heap", "cpu"];

fn vulkan_info() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vulkan_info"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The devices that `vulkan_info --json -` writes.
fn devices(command: &mut Command) -> Vec<Value> {
    let output = command.args(["--json", "-"]).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    value.as_array().unwrap().clone()
}

fn captured(fixture: &str) -> Value {
    let mut found = devices(vulkan_info().args(["--fixture", fixture]));
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// Whether every system that checks this program has the driver.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Had {
    Everywhere,
    Somewhere,
}

/// Says that a test does not run here, and why; fails where it must.
fn skip(missing: &str, had: Had) {
    eprintln!("skipped: {missing}");
    let required = std::env::var("TTM_REQUIRE_VULKAN").unwrap_or_default();
    let must = required == "all" || (required == "1" && had == Had::Everywhere);
    assert!(!must, "TTM_REQUIRE_VULKAN={required}, and {missing}");
}

/// A driver's manifest, wherever this system puts it.
fn manifest(driver: &str) -> Result<PathBuf, String> {
    let folders = [
        "/usr/share/vulkan/icd.d",
        "/usr/local/share/vulkan/icd.d",
        "/etc/vulkan/icd.d",
    ];
    let arch = std::env::consts::ARCH;
    let names = [
        format!("{driver}_icd.json"),
        format!("{driver}_icd.{arch}.json"),
    ];
    let paths = folders.iter().flat_map(|folder| {
        let path = move |name| PathBuf::from(folder).join(name);
        names.iter().map(path)
    });
    first_of(paths).ok_or_else(|| format!("the Vulkan driver {driver} is not installed"))
}

/// A shim's library, wherever this system puts it.
fn shim(name: &str) -> Result<PathBuf, String> {
    let file = format!("lib{name}_noop_drm_shim.so");
    let debian = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = [debian.as_str(), "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let paths = folders
        .iter()
        .map(|folder| PathBuf::from(folder).join(&file));
    first_of(paths).ok_or_else(|| format!("{file} is not installed (mesa-drm-shim)"))
}

fn first_of(mut paths: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    paths.find(|path| path.exists())
}

/// The program with one driver only; `Err` says what is missing.
fn with_driver(driver: &str) -> Result<Command, String> {
    let manifest = manifest(driver)?;
    let mut command = vulkan_info();
    command.env("VK_DRIVER_FILES", &manifest);
    // The name of the same before loader 1.3.207.
    command.env("VK_ICD_FILENAMES", &manifest);
    command.env_remove("VK_INSTANCE_LAYERS");
    match command.output().unwrap() {
        output if text(&output.stderr).contains("no Vulkan loader") => {
            Err("the Vulkan loader is not installed (libvulkan1)".into())
        }
        _ => Ok(command),
    }
}

/// The program on a driver whose kernel pretends to have a chip, named as the shim wants it, if it
/// knows several.
fn with_shim(driver: &str, shim_name: &str, chip: Option<(&str, &str)>) -> Result<Command, String> {
    let library = shim(shim_name)?;
    let mut command = with_driver(driver)?;
    command.env("LD_PRELOAD", library);
    command.envs(chip);
    Ok(command)
}

/// Checks that a real driver's only device is laid out as the fixture, unless something is missing.
fn answers_as(fixture: &str, had: Had, command: Result<Command, String>) {
    let mut command = match command {
        Ok(command) => command,
        Err(missing) => return skip(&format!("{fixture} against its driver: {missing}"), had),
    };
    let found = devices(&mut command);
    assert_eq!(found.len(), 1, "{found:?}");
    let (real, captured) = (&found[0], captured(fixture));
    let fixed = |device: &Value| -> Vec<Vec<Value>> {
        let memories = device["memories"].as_array().unwrap().iter();
        let memory = |memory: &Value| FIXED.map(|field| memory[field].clone()).to_vec();
        memories.map(memory).collect()
    };
    assert_eq!(fixed(real), fixed(&captured), "{fixture}");
    for field in ["unified", "lacks", "kind", "notes"] {
        assert_eq!(real[field], captured[field], "{fixture}: {field}");
    }
}

#[test]
fn radv_of_a_card_answers_as_captured() {
    let chip = Some(("AMDGPU_GPU_ID", "navi21"));
    answers_as(
        "radv-navi21",
        Had::Everywhere,
        with_shim("radeon", "amdgpu", chip),
    );
}

#[test]
fn radv_of_an_apu_answers_as_captured() {
    let chip = Some(("AMDGPU_GPU_ID", "renoir"));
    answers_as(
        "radv-renoir",
        Had::Everywhere,
        with_shim("radeon", "amdgpu", chip),
    );
}

#[test]
fn nvk_answers_as_captured() {
    let chip = Some(("NOUVEAU_CHIPSET", "162"));
    answers_as(
        "nvk-tu102",
        Had::Somewhere,
        with_shim("nouveau", "nouveau", chip),
    );
}

#[test]
fn turnip_answers_as_captured() {
    let chip = Some(("FD_GPU_ID", "660"));
    answers_as(
        "turnip-660",
        Had::Somewhere,
        with_shim("freedreno", "freedreno", chip),
    );
}

#[test]
fn hk_answers_as_captured() {
    answers_as("hk-m1", Had::Somewhere, with_shim("asahi", "asahi", None));
}

#[test]
fn lavapipe_answers_as_captured() {
    answers_as("lavapipe-25", Had::Everywhere, with_driver("lvp"));
}

#[test]
fn each_fixture_listed_is_printed_with_its_memories() {
    let listed = vulkan_info().args(["--fixture", "list"]).output().unwrap();
    assert_eq!(listed.status.code(), Some(0));
    let table = text(&listed.stdout);
    for name in [
        "lavapipe-25",
        "radv-navi21",
        "nvk-tu102",
        "nvidia-proprietary",
    ] {
        assert!(table.contains(name), "{table}");
        let output = vulkan_info()
            .args(["--fixture", name, "--all-types"])
            .output()
            .unwrap();
        let printed = text(&output.stdout);
        for word in ["vram", "system", "device local", "timeline semaphores"] {
            assert!(printed.contains(word), "{name}: {printed}");
        }
    }
}

#[test]
fn json_has_memories_and_all_that_they_were_sorted_from() {
    let device = captured("radv-navi21");
    let memory = &device["memories"][0];
    assert_eq!(memory["memory"], "vram");
    assert_eq!(memory["bytes"], 16_128_u64 << 20);
    assert_eq!(memory["cpu"], "none");
    assert_eq!(device["heaps"].as_array().unwrap().len(), 3);
    assert_eq!(device["types"].as_array().unwrap().len(), 11);
    assert_eq!(device["limits"]["import_align"], 4096);
    assert!(
        device["can"]
            .as_array()
            .unwrap()
            .contains(&"host import".into())
    );
}

fn refused(output: &Output, with: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("vulkan_info: refused: "), "{said}");
    assert!(said.contains(with), "{said}");
}

#[test]
fn a_fixture_that_is_not_there_is_refused() {
    let output = vulkan_info()
        .args(["--fixture", "voodoo"])
        .output()
        .unwrap();
    refused(&output, "`--fixture list` lists them");
}

#[test]
fn no_loader_or_no_device_is_refused_with_what_to_do() {
    let nothing = "/no/such/driver.json";
    let output = vulkan_info()
        .env("VK_DRIVER_FILES", nothing)
        .env("VK_ICD_FILENAMES", nothing)
        .output()
        .unwrap();
    refused(&output, ": install ");
}

/// With `--try` the device is opened, and what it keeps of what it says is found out.
#[test]
fn what_a_driver_says_is_tried() {
    let mut command = match with_driver("lvp") {
        Ok(command) => command,
        Err(missing) => return skip(&format!("trials: {missing}"), Had::Everywhere),
    };
    let found = devices(command.arg("--try"));
    let tried = &found[0]["tried"];
    assert!(tried["lacks"].is_null(), "{tried}");
    assert_eq!(tried["imported_pages"], true, "{tried}");
    let copies = tried["copies"].as_array().unwrap();
    assert_eq!(copies.len(), 4, "{tried}");
    for copy in copies {
        assert!(copy["queue_ns"].as_u64().unwrap() > 0, "{copy}");
        let who = &copy["into_device"];
        assert!(who == "cpu" || who == "queue", "{copy}");
    }
    let output = vulkan_info().args(["--try", "--fixture", "hk-m1"]).output();
    assert_eq!(
        output.unwrap().status.code(),
        Some(2),
        "nobody is there to try"
    );
}
