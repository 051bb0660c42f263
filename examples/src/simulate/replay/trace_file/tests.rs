//! Both formats: what is read, what is refused and how, and that no spoilt file panics.

use super::*;

const MOONCAKE: &str = "\
{\"timestamp\": 0, \"hash_ids\": [7, 3, 900000000000], \"more\": {\"a\": [1.5e3, \"é,]\", null]}}

{\"hash_ids\":[]}\r
{\"hash_ids\": [ 3 , 18446744073709551615 ]}
";

const RESIDENCY: &str = "\
# A comment.
residency 1
object depth 8M # the name, the size
\tobject  albédo 4097
touch depth albédo depth

touch albédo
";

fn read(format: Format, text: &str) -> Result<Trace, String> {
    parse(text.as_bytes(), format, ByteSize::MIB).map_err(|fault| fault.to_string())
}

fn refused(format: Format, text: &str) -> String {
    read(format, text).expect_err(text)
}

fn lines_and_names(trace: &Trace) -> Vec<(usize, Vec<String>)> {
    let name = |id: &u32| trace.name(*id).into_owned();
    trace
        .requests()
        .map(|r| (r.line, r.ids.iter().map(name).collect()))
        .collect()
}

#[test]
fn mooncake_lines_are_requests_and_ids_are_objects_of_a_block() {
    let trace = read(Format::Mooncake, MOONCAKE).unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = [
        (1, names(&["7", "3", "900000000000"])),
        (3, names(&[])),
        (4, names(&["3", "18446744073709551615"])),
    ];
    assert_eq!(lines_and_names(&trace), expected);
    assert_eq!(trace.objects().len(), 4);
    assert!(
        trace
            .objects()
            .iter()
            .all(|object| object.size == ByteSize::MIB)
    );
}

#[test]
fn residency_objects_have_names_and_whole_pages() {
    let trace = read(Format::Residency, RESIDENCY).unwrap();
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = [
        (5, names(&["depth", "albédo", "depth"])),
        (7, names(&["albédo"])),
    ];
    assert_eq!(lines_and_names(&trace), expected);
    let sizes: Vec<u64> = trace
        .objects()
        .iter()
        .map(|object| object.size.bytes())
        .collect();
    assert_eq!(sizes, [8 << 20, 8192]);
}

#[test]
fn the_example_in_the_repository_reads() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/traces/frames.residency");
    let trace = load(Path::new(path), None, ByteSize::MIB).unwrap();
    assert!(trace.requests().len() > 10 && trace.objects().len() > 10);
}

#[test]
fn a_malformed_mooncake_line_is_refused_with_its_place() {
    let good = "{\"hash_ids\": [1]}\n";
    for (bad, message) in [
        ("{\"hash_ids\": [1}", "2:16: expected `,` or `]`, found '}'"),
        (
            "{\"hash_ids\": [1",
            "2:16: expected valid JSON (EOF while parsing a list), found the end of the line",
        ),
        (
            "{\"ids\": [1]}",
            "2:12: expected a field \"hash_ids\" with an array of object ids, found an object without it",
        ),
        (
            "{\"hash_ids\": 5}",
            "2:14: expected an array of object ids, found \"5\"",
        ),
        (
            "{\"hash_ids\": [1, -2]}",
            "2:18: expected an object id (an integer, not negative), found \"-2\"",
        ),
        (
            "{\"é\": 1, \"hash_ids\": [1, 2.0]}",
            "2:26: expected an object id (an integer, not negative), found \"2.0\"",
        ),
        (
            "{\"hash_ids\": [\"a,b\"]}",
            "2:15: expected an object id (an integer, not negative), found \"\\\"a\"",
        ),
        (
            "{\"hash_ids\": [18446744073709551616]}",
            "2:15: expected an object id below 2^64, found \"18446744073709551616\"",
        ),
        (
            "{\"hash_ids\": [1]} x",
            "2:19: expected valid JSON (trailing characters), found 'x'",
        ),
        (
            "{\"hash_ids\": [1], \"hash_ids\": [1]}",
            "expected one field \"hash_ids\", found a duplicate field `hash_ids`",
        ),
        ("[[1]]", "2:1: expected a JSON object, found '['"),
        ("  null", "2:3: expected a JSON object, found 'n'"),
        (
            "{\"hash_ids\": [1], \"a\": \0}",
            "2:24: expected value, found '\\0'",
        ),
        ("\0", "2:1: expected a JSON object, found '\\0'"),
    ] {
        let found = refused(Format::Mooncake, &format!("{good}{bad}\n{good}"));
        assert!(found.ends_with(message), "{bad}\n{found}\n{message}");
    }
}

#[test]
fn a_malformed_residency_line_is_refused_with_its_place() {
    let start = "residency 1\nobject a 1M\n";
    for (bad, message) in [
        (
            "object",
            "3:7: expected the name of an object, found the end of the line",
        ),
        (
            "object b",
            "3:9: expected the size of the object, found the end of the line",
        ),
        (
            "object b # 1M",
            "3:14: expected the size of the object, found the end of the line",
        ),
        (
            "object b 0",
            "3:10: expected a size of at least one byte, below 2^64, found \"0\"",
        ),
        (
            "object b big",
            "3:10: expected a size such as 2M, below 2^64, found \"big\"",
        ),
        (
            "object b 18446744073709551615",
            "3:10: expected a size of at least one byte, below 2^64, found \"18446744073709551615\"",
        ),
        (
            "object b 99999P",
            "3:10: expected a size such as 2M, below 2^64, found \"99999P\"",
        ),
        (
            "object a 1M",
            "3:8: expected a name not declared before, found \"a\" again",
        ),
        (
            "object b 1M 2M",
            "3:13: expected the end of the line, found \"2M\"",
        ),
        (
            "touch",
            "3:6: expected the name of an object, found the end of the line",
        ),
        (
            "touch a é c",
            "3:9: expected an object declared before, found \"é\"",
        ),
        (
            "free a",
            "3:1: expected `object` or `touch`, found \"free\"",
        ),
        (
            "residency 1",
            "3:1: expected `object` or `touch`, found \"residency\"",
        ),
        (
            "touch \0",
            "3:7: expected text, found the control character '\\0'",
        ),
    ] {
        assert_eq!(
            refused(Format::Residency, &format!("{start}{bad}\ntouch a\n")),
            message
        );
    }
    let long = format!("{start}object {} 1M", "n".repeat(256));
    assert!(refused(Format::Residency, &long).starts_with("3:8: expected a name of at most 255"));
}

#[test]
fn a_residency_file_begins_with_its_header() {
    let missing = refused(Format::Residency, "\nobject a 1M\n");
    assert_eq!(
        missing,
        "2:1: expected the header `residency 1`, found \"object\""
    );
    let newer = refused(Format::Residency, "residency 2\n");
    assert_eq!(newer, "1:11: expected version 1 of the format, found \"2\"");
}

#[test]
fn a_file_without_touches_is_refused() {
    for format in [Format::Mooncake, Format::Residency] {
        assert_eq!(
            refused(format, ""),
            "1:1: expected a trace, found an empty file"
        );
        let blank = refused(format, "\n \n");
        assert!(
            blank.starts_with("2:1: expected at least one touch"),
            "{blank}"
        );
    }
    assert!(refused(Format::Mooncake, "{\"hash_ids\": []}").contains("at least one touch"));
    assert!(refused(Format::Residency, "residency 1\nobject a 1M").contains("at least one touch"));
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    let fault = parse(
        b"residency 1\nobj\xc3\xa9 \xff",
        Format::Residency,
        ByteSize::MIB,
    );
    assert_eq!(
        fault.unwrap_err().to_string(),
        "2:6: expected UTF-8 text, found the byte 0xff"
    );
}

#[test]
fn touches_of_too_many_bytes_are_refused() {
    let text = format!("residency 1\nobject a 16383P\ntouch a{}\n", " a".repeat(9));
    assert!(refused(Format::Residency, &text).contains("less than 2^64 bytes in all"));
}

#[test]
fn the_format_is_told_by_the_name_else_by_the_first_line() {
    let told = |name: &str, text: &str| guess(Path::new(name), text.as_bytes());
    assert_eq!(told("a.jsonl", "residency 1"), Some(Format::Mooncake));
    assert_eq!(told("a.residency", "{"), Some(Format::Residency));
    assert_eq!(told("a.txt", "\n {\"hash_ids\""), Some(Format::Mooncake));
    assert_eq!(told("a", "residency 1\n"), Some(Format::Residency));
    assert_eq!(told("a", "# note\nresidency 1\n"), Some(Format::Residency));
    assert_eq!(told("a", "id,size\n"), None);
    assert_eq!(told("a", ""), None);
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_its_name() {
    for path in ["/no/such/trace", "/"] {
        let error = load(Path::new(path), Some(Format::Mooncake), ByteSize::MIB).unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("{path}: ")),
            "{error:#}"
        );
    }
}

#[test]
fn every_cut_of_a_good_file_is_read_or_refused() {
    for (format, text) in [(Format::Mooncake, MOONCAKE), (Format::Residency, RESIDENCY)] {
        for end in 0..text.len() {
            let _ = parse(&text.as_bytes()[..end], format, ByteSize::MIB);
        }
    }
}

#[test]
fn every_spoilt_file_is_read_or_refused() {
    const TOKENS: &[u8] = b"\0\n\r\t \"\\{}[],:#-.+eE0189KMGTPabtx\xc3\xa9\xff";
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    for (format, text) in [(Format::Mooncake, MOONCAKE), (Format::Residency, RESIDENCY)] {
        for _ in 0..30_000 {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                let token = TOKENS[below(TOKENS.len())];
                match below(4) {
                    0 => bytes[at] = token,
                    1 => bytes.insert(at, token),
                    2 => drop(bytes.splice(at..at, text.as_bytes()[..below(text.len())].to_vec())),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let _ = parse(&bytes, format, ByteSize::MIB);
        }
    }
}
