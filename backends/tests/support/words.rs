//! The content oracle: every word of eight bytes says whose it is, who wrote it and when.
//!
//! ```text
//!   object 20 │ writer 8 │ page 4 │ sequence 32
//! ```
//!
//! So any word that is read tells foreign data (the object), stale data (an older sequence), data
//! of another page (the last four bits of its number), and data that was never cleared.

use ttm::bo::{Bo, Reserved};
use ttm::driver::Driver;
use ttm::error::Result;

use super::{PAGE, World};

const WORDS_PER_PAGE: u64 = PAGE / 8;

/// The word number `n` of an object.
pub(crate) fn word(tag: u64, writer: u64, n: u64, sequence: u64) -> u64 {
    let page = n / WORDS_PER_PAGE;
    (tag & 0xf_ffff) << 44 | (writer & 0xff) << 36 | (page & 0xf) << 32 | (sequence & 0xffff_ffff)
}

/// All bytes of an object that one writer has written at one time.
pub(crate) fn image(tag: u64, writer: u64, sequence: u64, bytes: u64) -> Vec<u8> {
    let words = bytes.div_ceil(8);
    let mut image: Vec<u8> = (0..words)
        .flat_map(|n| word(tag, writer, n, sequence).to_le_bytes())
        .collect();
    image.truncate(usize::try_from(bytes).expect("fits"));
    image
}

/// The first word that differs, told in full.
pub(crate) fn compare(tag: u64, expected: &[u8], found: &[u8]) -> core::result::Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let pairs = expected.chunks(8).zip(found.chunks(8)).enumerate();
    for (n, (want, got)) in pairs {
        if want != got {
            let number = |bytes: &[u8]| {
                let mut word = [0; 8];
                word[..bytes.len()].copy_from_slice(bytes);
                u64::from_le_bytes(word)
            };
            let (want, got) = (number(want), number(got));
            let kind = match got {
                0 => "zero",
                _ if got >> 44 == want >> 44 && got & 0xffff_ffff < want & 0xffff_ffff => "stale",
                _ if got >> 44 == want >> 44 => "wrong",
                _ => "foreign",
            };
            return Err(format!(
                "I-12: object {tag} byte {}: {kind} word {got:016x}, expected {want:016x}",
                n * 8
            ));
        }
    }
    Err(format!(
        "I-12: object {tag}: {} bytes of {}",
        found.len(),
        expected.len()
    ))
}

/// The whole content by the CPU's own read.
pub(crate) fn read_all<D: Driver>(reserved: &Reserved<'_, D>, bytes: u64) -> Result<Vec<u8>> {
    let mut found = vec![0xa5; usize::try_from(bytes).expect("fits")];
    reserved.read(0, &mut found)?;
    Ok(found)
}

impl<D: Driver> World<D> {
    /// Writes the whole object by the CPU.
    pub(crate) fn write_image(&self, bo: &Bo<D>, writer: u64, sequence: u64) -> Result<()> {
        let image = image(bo.id(), writer, sequence, bo.bytes());
        self.with(bo, |r| r.write(0, &image))
    }

    /// Compares the whole object with what one writer wrote at one time.
    pub(crate) fn expect_image(
        &self,
        bo: &Bo<D>,
        writer: u64,
        sequence: u64,
    ) -> core::result::Result<(), String> {
        let found = self
            .with(bo, |r| read_all(r, bo.bytes()))
            .map_err(|e| format!("object {}: {e}", bo.id()))?;
        compare(
            bo.id(),
            &image(bo.id(), writer, sequence, bo.bytes()),
            &found,
        )
    }

    /// Asserts [`World::expect_image`].
    pub(crate) fn assert_image(&self, bo: &Bo<D>, writer: u64, sequence: u64) {
        self.expect_image(bo, writer, sequence)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}
