//! The floors of the crate: a module uses those above it in the list of `src/lib.rs`, and what
//! only one file may name is named in no other.
//!
//! The sources are read as text with comments and literals blanked, so a path counts wherever it
//! stands: in a `use`, in an expression, in a type. A finding is `file:line: what is wrong`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A source file: its path below `src`, its text, and that text with comments and literals blanked.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    /// The module of the crate that it belongs to; `lib` for the root.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn finding(&self, at: usize, what: &str) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("src/{}:{line}: {what}", self.path)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        found.len() > 20,
        "the sources are not where they are looked for"
    );
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let relative = path.strip_prefix(root()).unwrap();
            found.push(Source {
                path: relative.to_str().unwrap().replace('\\', "/"),
                code: blank(&text),
                text,
            });
        }
    }
}

/// The text with comments, strings and characters replaced by spaces, line ends kept.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_comment(bytes, at),
            b'"' => end_of_string(bytes, at + 1),
            b'r' if is_raw_string(bytes, at) => end_of_raw_string(bytes, at + 1),
            b'\'' => end_of_character(bytes, at),
            _ => at,
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from..].windows(what.len()).position(|w| w == what);
    found.map_or(bytes.len(), |n| from + n)
}

fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0;
    let mut at = at;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn is_raw_string(bytes: &[u8], at: usize) -> bool {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    !is_word_before(bytes, at) && bytes.get(at + 1 + hashes) == Some(&b'"')
}

fn end_of_raw_string(bytes: &[u8], at: usize) -> usize {
    let hashes = bytes[at..].iter().take_while(|b| **b == b'#').count();
    let end = [b"\"", &b"################"[..hashes]].concat();
    (find(bytes, at + hashes + 1, &end) + end.len()).min(bytes.len())
}

/// A character ends with its quote, a lifetime has none.
fn end_of_character(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return find(bytes, at + 3, b"'") + 1;
    }
    let width = std::str::from_utf8(&bytes[at + 1..])
        .ok()
        .and_then(|rest| rest.chars().next())
        .map_or(1, char::len_utf8);
    if bytes.get(at + 1 + width) == Some(&b'\'') {
        at + width + 2
    } else {
        at
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_word_before(bytes: &[u8], at: usize) -> bool {
    at > 0 && is_word(bytes[at - 1])
}

/// Where `word` stands in `code`, not as a part of another word.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let after = bytes.get(at + word.len()).copied().unwrap_or(b' ');
            !is_word_before(bytes, *at) && !is_word(after)
        })
}

/// All paths of `code` that begin with `root`, such as `crate`, spelled out: of
/// `crate::a::{b, c::d}` both `a::b` and `a::c::d`. With the offset at which each ends.
fn paths(code: &str, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for at in words(code, root) {
        if !code[..at].trim_end().ends_with("::") {
            tree(code, at + root.len(), String::new(), &mut found);
        }
    }
    found
}

/// Reads what follows a path segment; answers where it ends.
fn tree(code: &str, at: usize, path: String, found: &mut Vec<(usize, String)>) -> usize {
    let at = skip_space(code, at);
    if !code[at..].starts_with("::") {
        if !path.is_empty() {
            found.push((at, path));
        }
        return at;
    }
    let at = skip_space(code, at + 2);
    if code[at..].starts_with('{') {
        return branches(code, at + 1, &path, found);
    }
    let length = code[at..].bytes().take_while(|b| is_word(*b)).count();
    if length == 0 {
        // A glob, or the arguments of a generic.
        found.push((at, path));
        return at;
    }
    let segment = &code[at..at + length];
    tree(code, at + length, join(&path, segment), found)
}

/// Reads the inside of the braces of a `use`.
fn branches(code: &str, mut at: usize, path: &str, found: &mut Vec<(usize, String)>) -> usize {
    loop {
        at = skip_space(code, at);
        match code.as_bytes().get(at) {
            None => return at,
            Some(b'}') => return at + 1,
            Some(byte) if is_word(*byte) => {
                let length = code[at..].bytes().take_while(|b| is_word(*b)).count();
                let segment = &code[at..at + length];
                if segment == "as" {
                    // The name after it is not a path.
                    at = skip_space(code, at + length);
                    at += code[at..].bytes().take_while(|b| is_word(*b)).count();
                } else {
                    at = tree(code, at + length, join(path, segment), found);
                }
            }
            Some(_) => at += 1,
        }
    }
}

fn join(path: &str, segment: &str) -> String {
    if path.is_empty() {
        segment.into()
    } else {
        format!("{path}::{segment}")
    }
}

fn skip_space(code: &str, at: usize) -> usize {
    let rest = &code.as_bytes()[at..];
    at + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// The modules in the order of `lib.rs`.
fn floors(lib: &Source) -> Vec<String> {
    let code = &lib.code;
    let mut found = Vec::new();
    for at in words(code, "mod") {
        let at = skip_space(code, at + 3);
        let length = code[at..].bytes().take_while(|b| is_word(*b)).count();
        found.push(code[at..at + length].to_owned());
    }
    assert!(found.len() > 10, "lib.rs declares only {found:?}");
    found
}

fn lib(sources: &[Source]) -> &Source {
    sources.iter().find(|s| s.path == "lib.rs").unwrap()
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn a_module_uses_those_above_it_only() {
    let sources = sources();
    let floors = floors(lib(&sources));
    let floor = |module: &str| floors.iter().position(|m| m == module);
    let mut findings = Vec::new();
    for source in sources.iter().filter(|s| s.path != "lib.rs") {
        let Some(own) = floor(source.module()) else {
            findings.push(format!("src/{}:1: no module of lib.rs", source.path));
            continue;
        };
        for (at, path) in paths(&source.code, "crate") {
            let used = path.split("::").next().unwrap();
            if ["Error", "Result", "placement"].contains(&used) {
                continue;
            }
            match floor(used) {
                Some(n) if n <= own => {}
                Some(_) => findings.push(source.finding(
                    at,
                    &format!(
                        "`{}` uses `crate::{path}`, which is below it",
                        source.module()
                    ),
                )),
                None => findings.push(source.finding(at, &format!("`crate::{path}`: no floor"))),
            }
        }
        findings.extend(leaves_its_module(source));
    }
    assert_none(&findings);
}

/// `super` leads out of a module only through its own head: elsewhere say `crate`.
fn leaves_its_module(source: &Source) -> Vec<String> {
    let depth = source.path.matches('/').count();
    let mut findings = Vec::new();
    for at in words(&source.code, "super") {
        if source.code[..at].trim_end().ends_with("::") {
            continue;
        }
        let mut ups = 0;
        let mut rest = &source.code[at..];
        while let Some(next) = rest.strip_prefix("super") {
            ups += 1;
            rest = next
                .trim_start()
                .strip_prefix("::")
                .unwrap_or("")
                .trim_start();
        }
        // Inline modules, as `mod tests`, are one deeper each.
        let inner = inline_modules_around(&source.code, at);
        if ups > depth + inner {
            findings.push(source.finding(at, "`super` leads to the root; say `crate`"));
        }
    }
    findings
}

fn inline_modules_around(code: &str, at: usize) -> usize {
    let heads = words(&code[..at], "mod").filter(|head| {
        let Some(open) = code[*head..].find(['{', ';']).map(|n| head + n) else {
            return false;
        };
        if open >= at || code.as_bytes()[open] == b';' {
            return false;
        }
        let depth = code[open..at].bytes().fold(0i64, |depth, byte| match byte {
            b'{' => depth + 1,
            b'}' => depth - 1,
            _ => depth,
        });
        depth > 0
    });
    heads.count()
}

#[test]
fn locks_and_atomics_come_from_sync_alone() {
    const BANNED: [&str; 9] = [
        "atomic",
        "Mutex",
        "RwLock",
        "Condvar",
        "Once",
        "LazyLock",
        "Barrier",
        "mpsc",
        "ReentrantLock",
    ];
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| s.module() != "sync") {
        for name in ["parking_lot", "crossbeam", "loom", "shuttle"] {
            for at in words(&source.code, name) {
                if !source.code[..at].trim_end().ends_with("cfg(") {
                    findings.push(source.finding(at, &format!("`{name}` outside `sync`")));
                }
            }
        }
        for root in ["std", "core"] {
            for (at, path) in paths(&source.code, root) {
                let mut parts = path.split("::");
                let banned = parts.next() == Some("sync")
                    && parts
                        .next()
                        .is_none_or(|part| BANNED.contains(&part) || root == "std");
                if banned {
                    findings.push(source.finding(at, &format!("`{root}::{path}` outside `sync`")));
                }
            }
        }
    }
    assert_none(&findings);
}

#[test]
fn no_thread_and_no_system_call() {
    let mut findings = Vec::new();
    for source in &sources() {
        for name in ["rustix", "libc", "nix"] {
            let names = words(&source.code, name);
            findings.extend(names.map(|at| source.finding(at, &format!("`{name}` in ttm"))));
        }
        for (at, path) in paths(&source.code, "std") {
            let module = path.split("::").next().unwrap();
            // A file that is only handed from one backend to another.
            if path == "fs::File" && source.path == "pages/file_range.rs" {
                continue;
            }
            if ["thread", "fs", "net", "process", "os", "env", "time"].contains(&module) {
                findings.push(source.finding(at, &format!("`std::{path}` in ttm")));
            }
        }
    }
    let manifest = include_str!("../Cargo.toml");
    for name in ["rustix", "libc", "nix"] {
        if manifest
            .lines()
            .any(|line| line.trim_start().starts_with(name))
        {
            findings.push(format!("Cargo.toml: depends on {name}"));
        }
    }
    assert_none(&findings);
}

#[test]
fn the_unsafe_files_are_those_that_the_crate_names() {
    let sources = sources();
    let text = &lib(&sources).text;
    let from = text
        .find("Unsafe code is in")
        .expect("lib.rs names the unsafe files");
    let to = from + text[from..].find("nowhere else").expect("the list ends");
    let parts = text[from..to].split('`');
    let named: BTreeSet<&str> = parts.filter(|part| part.ends_with(".rs")).collect();
    let found: BTreeSet<&str> = sources
        .iter()
        .filter(|s| words(&s.code, "unsafe").next().is_some())
        .map(|s| s.path.as_str())
        .collect();
    assert_eq!(
        named, found,
        "left: named in lib.rs; right: contain `unsafe`"
    );
}

#[test]
fn the_reader_of_this_test_reads_rust() {
    let code = blank(
        "use crate::{a, b::{self, c as d}};\n// crate::comment\nlet s = \"crate::string\"; \
         let q = '\"'; fn f<'a>(x: crate::e::F<'a>) { r#\"crate::raw\"# }",
    );
    let found: Vec<_> = paths(&code, "crate")
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    assert_eq!(found, ["a", "b::self", "b::c", "e::F"]);
    assert_eq!(inline_modules_around("mod a { mod b { } x }", 17), 1);
}
