//! An embedding example.
fn main() {}
