//! Replays the inputs in `corpus/`, each through the interpreter of its fuzz target, and a few
//! thousand random ones after them. `ttm/fuzz` runs the same interpreters under a fuzzer.
//!
//! An input that broke something stays in `corpus/` for ever. `TTM_INPUT=FILE` runs that file
//! alone, `TTM_VERBOSE=1` prints what each operation answered.
#![cfg(not(any(shuttle, loom)))]

#[path = "corpus/device.rs"]
mod device;
#[path = "corpus/machine.rs"]
mod machine;
#[path = "corpus/spaces.rs"]
mod spaces;

use std::fs;
use std::path::Path;

fn replay(target: &str, run: fn(&[u8])) {
    let inputs = match std::env::var_os("TTM_INPUT") {
        Some(file) => vec![file.into()],
        None => {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/corpus")
                .join(target);
            let entries = fs::read_dir(folder).unwrap();
            let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            inputs.sort();
            inputs
        }
    };
    assert!(!inputs.is_empty(), "no inputs of {target}");
    for input in inputs {
        println!("{}", input.display());
        run(&fs::read(input).unwrap());
    }
}

/// Runs `count` random inputs; the number of the one that fails is the last that is printed.
fn random(count: u64, longest: u64, run: fn(&[u8])) {
    for seed in 0..count {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 24
        };
        let length = next() % longest;
        let bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        println!("seed {seed}");
        run(&bytes);
    }
}

#[test]
fn the_inputs_for_the_device_pass() {
    replay("device", device::run);
}

#[test]
fn the_inputs_for_the_spaces_pass() {
    replay("spaces", spaces::run);
}

#[test]
fn random_operations_on_a_device_pass() {
    random(3_000, 400, device::run);
}

#[test]
fn random_requests_to_a_space_pass() {
    random(3_000, 400, spaces::run);
}
