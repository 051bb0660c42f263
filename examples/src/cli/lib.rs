//! What the programs of this package share on the command line: sizes as people write them, tables,
//! JSON, files that appear whole or not at all, words that say whose they are.

#![deny(unsafe_code)]

pub mod atomic_file;
#[doc(hidden)]
pub mod folder;
pub mod json;
pub mod report;
pub mod size;
pub mod table;
pub mod tracer;
pub mod word;
