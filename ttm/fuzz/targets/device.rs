//! Fuzzes a device: operations and faults, with the invariants and the contents checked after each.
#![no_main]

#[path = "../../tests/corpus/device.rs"]
mod device;
#[path = "../../tests/corpus/machine.rs"]
mod machine;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| device::run(bytes));
