//! The README shows the embedding example whole, and the example works.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn the_readme_shows_the_embedding_example_whole() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(here.join("../README.md")).unwrap();
    let example = fs::read_to_string(here.join("src/first_driver.rs")).unwrap();
    assert!(readme.contains(&format!("```rust\n{example}```\n")));
}

#[test]
fn the_embedding_example_ends_with_verified() {
    let output = Command::new(env!("CARGO_BIN_EXE_first_driver"))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .ends_with("verified\n")
    );
}
