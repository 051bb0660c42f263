//! The one routine that copies memory which others may use.
//!
//! The rule that the `unsafe` blocks here rely on: the caller's contract of [`copy_memory`].
//! Small copies go through the cache; from [`STREAM_FROM`] on they go around it, because the
//! target would only push out what the program still needs (1.4 to 1.6 times as fast on 64 MiB
//! of 4 KiB pages; bench `migration`).
#![expect(unsafe_code, reason = "raw copies")]

/// From this many bytes on, stores go around the cache.
pub(crate) const STREAM_FROM: u64 = 16 << 20;

/// Copies `len` bytes; the ranges may not overlap.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and they do not overlap. Others
/// may write to either meanwhile if neither is behind a Rust reference; each byte is then some
/// byte that was there.
#[inline]
pub unsafe fn copy_memory(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe { copy_piece(from, to, len, len as u64) }
}

/// The same for a piece of a copy of `whole` bytes, which decides whether it goes around the
/// cache.
///
/// # Safety
/// As [`copy_memory`].
#[inline]
pub(super) unsafe fn copy_piece(from: *const u8, to: *mut u8, len: usize, whole: u64) {
    #[cfg(target_arch = "x86_64")]
    if whole >= STREAM_FROM && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: AVX2 was just detected; the ranges are as the caller promises.
        unsafe { stream_avx2(from, to, len) };
        return;
    }
    // SAFETY: as the caller promises.
    unsafe { core::ptr::copy_nonoverlapping(from, to, len) }
}

/// Copies by 128-byte blocks with stores that go around the cache.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn stream_avx2(from: *const u8, to: *mut u8, len: usize) {
    use core::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm_sfence, _mm256_loadu_si256, _mm256_stream_si256,
    };
    const BLOCK: usize = 128;
    const AHEAD: usize = 1024;
    // Streaming stores want 32-byte alignment.
    let head = to.align_offset(32).min(len);
    // SAFETY: `head <= len`.
    unsafe { core::ptr::copy_nonoverlapping(from, to, head) };
    let blocks = (len - head) / BLOCK;
    for n in 0..blocks {
        let at = head + n * BLOCK;
        // A prefetch is a hint that never faults, so it may point past the end.
        let ahead = from.wrapping_add(at + AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
        let source = from.wrapping_add(at).cast::<__m256i>();
        let target = to.wrapping_add(at).cast::<__m256i>();
        // SAFETY: `at + BLOCK <= len`, so the four 32-byte loads are inside; unaligned is fine.
        let a = unsafe { _mm256_loadu_si256(source) };
        // SAFETY: as above.
        let b = unsafe { _mm256_loadu_si256(source.wrapping_add(1)) };
        // SAFETY: as above.
        let c = unsafe { _mm256_loadu_si256(source.wrapping_add(2)) };
        // SAFETY: as above.
        let d = unsafe { _mm256_loadu_si256(source.wrapping_add(3)) };
        // SAFETY: `at + BLOCK <= len`, and `to + at` is 32-byte aligned because `head` made it so.
        unsafe { _mm256_stream_si256(target, a) };
        // SAFETY: as above.
        unsafe { _mm256_stream_si256(target.wrapping_add(1), b) };
        // SAFETY: as above.
        unsafe { _mm256_stream_si256(target.wrapping_add(2), c) };
        // SAFETY: as above.
        unsafe { _mm256_stream_si256(target.wrapping_add(3), d) };
    }
    let done = head + blocks * BLOCK;
    let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
    // SAFETY: `len - done` bytes are left in both.
    unsafe { core::ptr::copy_nonoverlapping(from, to, len - done) };
    // Streaming stores are weakly ordered; whoever is told about the copy must see all of it.
    _mm_sfence();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_arrives_at_every_alignment() {
        let len = STREAM_FROM as usize + 1000;
        let source: Vec<u8> = (0..len + 64).map(|n| (n * 7 % 251) as u8).collect();
        let mut target = vec![0u8; len + 64];
        for offset in [0, 1, 31, 32, 33] {
            target.fill(0);
            // SAFETY: both vectors hold `offset + len` bytes.
            unsafe {
                copy_memory(
                    source.as_ptr().wrapping_add(3),
                    target.as_mut_ptr().wrapping_add(offset),
                    len,
                )
            };
            assert!(target[..offset].iter().all(|b| *b == 0));
            assert_eq!(target[offset..offset + len], source[3..3 + len]);
            assert!(target[offset + len..].iter().all(|b| *b == 0));
        }
    }
}
