//! Fuzzes the spaces against a bitmap.
#![no_main]

#[path = "../../tests/corpus/spaces.rs"]
mod spaces;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spaces::run(bytes));
