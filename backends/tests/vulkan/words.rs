//! Content that says whose it is: object, page, word and sequence in each word.

/// Words of an object, as somebody wrote them the `seq`th time.
pub(crate) fn words(object: u64, seq: u64, bytes: u64) -> Vec<u8> {
    let word = |n: u64| (object << 48 ^ seq << 32 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..bytes / 8).flat_map(|n| word(n).to_le_bytes()).collect()
}

/// The first word that is another's.
pub(crate) fn assert_words(found: &[u8], object: u64, seq: u64) {
    let expected = words(object, seq, found.len() as u64);
    if let Some(at) = found.iter().zip(&expected).position(|(a, b)| a != b) {
        let word = |bytes: &[u8]| {
            let at = at / 8 * 8;
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        panic!(
            "object {object}, byte {at}: {:#x} instead of {:#x}",
            word(found),
            word(&expected)
        );
    }
}
