//! The limits of moving memory: how fast it can be copied, and what mapping frames for a copy
//! costs with bare system calls.
//!
//! All unsafe blocks here rely on the promise of [`Span::new`]: a span's bytes stay mapped,
//! readable and writable while the span lives, and nothing else touches them during a copy.
//! They are never made into references, since another mapping may show the same bytes. A span
//! stays on its thread, so that two copies never run over the same bytes at once.

use std::cell::Cell;
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// What streaming stores want of addresses and lengths, in bytes.
const LINE: usize = 64;

/// A run of mapped bytes.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    start: *mut u8,
    len: usize,
    mapped: PhantomData<&'a Cell<[u8]>>,
}

impl Span<'_> {
    /// Names `len` bytes from `start`.
    ///
    /// # Safety
    /// They must stay mapped, readable and writable as long as the span lives, and nothing else
    /// may access them while a copy runs.
    ///
    /// # Panics
    /// When start or length is no multiple of 64.
    pub unsafe fn new(start: *mut u8, len: usize) -> Self {
        assert!(start.addr().is_multiple_of(LINE), "a span from {start:p}");
        assert!(len.is_multiple_of(LINE), "a span of {len} bytes");
        Self {
            start,
            len,
            mapped: PhantomData,
        }
    }

    /// How many bytes it is.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    fn overlaps(self, other: Span<'_>) -> bool {
        let (start, other_start) = (self.start.addr(), other.start.addr());
        start < other_start + other.len && other_start < start + self.len
    }
}

/// A way to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The C library's `memcpy`.
    Memcpy,
    /// 32-byte stores past the caches.
    StreamAvx2,
    /// 64-byte stores past the caches.
    StreamAvx512,
    /// The processor's own string move.
    RepMovsb,
}

impl Method {
    /// Those that this processor has.
    pub fn available() -> Vec<Self> {
        let mut methods = vec![Self::Memcpy];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                methods.push(Self::StreamAvx2);
            }
            if is_x86_feature_detected!("avx512f") {
                methods.push(Self::StreamAvx512);
            }
            methods.push(Self::RepMovsb);
        }
        methods
    }

    /// What the report calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memcpy => "memcpy",
            Self::StreamAvx2 => "streaming stores, AVX2",
            Self::StreamAvx512 => "streaming stores, AVX-512",
            Self::RepMovsb => "rep movsb",
        }
    }

    /// Copies all of `from` to `to`; when it returns, other threads see the bytes.
    ///
    /// # Panics
    /// When the lengths differ, the spans overlap, or this processor lacks the method.
    pub fn copy(self, from: Span<'_>, to: Span<'_>) {
        assert_eq!(from.len, to.len, "spans of different lengths");
        assert!(!from.overlaps(to), "spans that overlap");
        match self {
            // SAFETY: both spans hold `from.len` bytes (checked above, promise of `Span::new`)
            // and do not overlap (checked above).
            Self::Memcpy => unsafe { ptr::copy_nonoverlapping(from.start, to.start, from.len) },
            #[cfg(target_arch = "x86_64")]
            Self::StreamAvx2 => {
                assert!(is_x86_feature_detected!("avx2"));
                // SAFETY: the processor has AVX2 (line above), the spans are equally long and
                // apart (checked above).
                unsafe { x86::stream_avx2(from, to) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::StreamAvx512 => {
                assert!(is_x86_feature_detected!("avx512f"));
                // SAFETY: the processor has AVX-512F (line above), the spans are equally long
                // and apart (checked above).
                unsafe { x86::stream_avx512(from, to) }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the spans are equally long and apart (checked above).
            Self::RepMovsb => unsafe { x86::rep_movsb(from, to) },
            #[cfg(not(target_arch = "x86_64"))]
            other => panic!("{} on this processor", other.name()),
        }
    }
}

/// Memory without an address: a memfd whose pages are allocated.
#[derive(Debug)]
pub struct Frames {
    file: OwnedFd,
    len: usize,
}

impl Frames {
    /// Allocates `len` bytes of frames, zeroed.
    ///
    /// # Errors
    /// What the system says, as when memory is short.
    pub fn allocate(len: usize) -> io::Result<Self> {
        let file = memfd_create("bench frames", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, len as u64)?;
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        Ok(Self { file, len })
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps all of them, with every page of the mapping already there.
    ///
    /// # Errors
    /// What the system says.
    pub fn map(&mut self) -> io::Result<Mapping<'_>> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the address is the system's choice, so no other mapping is replaced.
        let start = unsafe { mmap(ptr::null_mut(), self.len, protection, flags, &self.file, 0) }?;
        Ok(Mapping {
            start,
            frames: self,
        })
    }
}

/// [`Frames`] at an address, until dropped.
///
/// # Invariants
/// `frames.len` bytes are mapped at `start`, by [`Frames::map`], and no other mapping of the
/// frames exists, since this one borrows them exclusively.
#[derive(Debug)]
pub struct Mapping<'a> {
    start: *mut c_void,
    frames: &'a mut Frames,
}

impl Mapping<'_> {
    /// The bytes mapped.
    pub fn span(&mut self) -> Span<'_> {
        // SAFETY: mapped readable and writable while the mapping lives, and so while the span
        // does, which borrows it; there is no other way to them (invariant of `Mapping`).
        unsafe { Span::new(self.start.cast(), self.frames.len) }
    }
}

impl Drop for Mapping<'_> {
    fn drop(&mut self) {
        // SAFETY: `start` and the length are those of our own mapping (invariant), and no span
        // of it lives any more, since it would borrow it.
        let unmapped = unsafe { munmap(self.start, self.frames.len) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

/// One side of [`bare_move`].
#[derive(Debug)]
pub enum Side<'a> {
    /// Mapped already.
    Mapped(Span<'a>),
    /// To be mapped for the copy and unmapped after it.
    Frames(&'a mut Frames),
}

/// Moves bytes with system calls alone: maps and populates what is not mapped, copies, unmaps.
///
/// # Errors
/// What the system says.
///
/// # Panics
/// When the sides are not equally long.
pub fn bare_move(from: Side<'_>, to: Side<'_>, method: Method) -> io::Result<()> {
    match (from, to) {
        (Side::Mapped(from), Side::Mapped(to)) => method.copy(from, to),
        (Side::Mapped(from), Side::Frames(to)) => method.copy(from, to.map()?.span()),
        (Side::Frames(from), Side::Mapped(to)) => method.copy(from.map()?.span(), to),
        (Side::Frames(from), Side::Frames(to)) => {
            let (mut from, mut to) = (from.map()?, to.map()?);
            method.copy(from.span(), to.span());
        }
    }
    Ok(())
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Copies for which this processor has instructions of its own. Spans begin and end at
    //! multiples of 64 bytes (checked by [`Span::new`]).

    use std::arch::asm;
    use std::arch::x86_64::{
        __m256i, __m512i, _mm_sfence, _mm256_load_si256, _mm256_stream_si256, _mm512_load_si512,
        _mm512_stream_si512,
    };

    use super::Span;

    /// Copies with 32-byte streaming stores.
    ///
    /// # Safety
    /// The processor must have AVX2; the spans must be equally long and apart.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn stream_avx2(from: Span<'_>, to: Span<'_>) {
        for offset in (0..from.len).step_by(size_of::<__m256i>()) {
            let source = from.start.wrapping_add(offset).cast::<__m256i>();
            // SAFETY: 32 mapped bytes from an address that is a multiple of 32: `offset` is one,
            // so are start and length, and `offset < len`.
            let bytes = unsafe { _mm256_load_si256(source) };
            let target = to.start.wrapping_add(offset).cast::<__m256i>();
            // SAFETY: as above, of a span that is as long (promise of the caller); the fence
            // below orders the store before anything later.
            unsafe { _mm256_stream_si256(target, bytes) };
        }
        _mm_sfence();
    }

    /// Copies with 64-byte streaming stores.
    ///
    /// # Safety
    /// The processor must have AVX-512F; the spans must be equally long and apart.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn stream_avx512(from: Span<'_>, to: Span<'_>) {
        for offset in (0..from.len).step_by(size_of::<__m512i>()) {
            let source = from.start.wrapping_add(offset).cast::<__m512i>();
            // SAFETY: 64 mapped bytes from an address that is a multiple of 64: `offset` is one,
            // so are start and length, and `offset < len`.
            let bytes = unsafe { _mm512_load_si512(source) };
            let target = to.start.wrapping_add(offset).cast::<__m512i>();
            // SAFETY: as above, of a span that is as long (promise of the caller); the fence
            // below orders the store before anything later.
            unsafe { _mm512_stream_si512(target, bytes) };
        }
        _mm_sfence();
    }

    /// Copies with one string move.
    ///
    /// # Safety
    /// The spans must be equally long and apart.
    pub(super) unsafe fn rep_movsb(from: Span<'_>, to: Span<'_>) {
        // SAFETY: `from.len` bytes are mapped at both addresses (promise of `Span::new`; equally
        // long by the caller), and the direction flag is clear, as Rust keeps it.
        unsafe {
            asm!(
                "rep movsb",
                inout("rcx") from.len => _,
                inout("rsi") from.start => _,
                inout("rdi") to.start => _,
                options(nostack, preserves_flags),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    /// Writes a pattern of `seed` to every byte, or says whether it is there.
    fn pattern(span: Span<'_>, seed: u8, write: bool) -> bool {
        (0..span.len).all(|offset| {
            let byte = span.start.wrapping_add(offset);
            let wanted = seed.wrapping_add((offset * 7 + offset / 251) as u8);
            if write {
                // SAFETY: inside the span (promise of `Span::new`).
                unsafe { byte.write_volatile(wanted) };
            }
            // SAFETY: as above.
            wanted == unsafe { byte.read_volatile() }
        })
    }

    #[test]
    fn every_method_copies_every_byte() -> io::Result<()> {
        let (mut source, mut target) = (Frames::allocate(LEN)?, Frames::allocate(LEN)?);
        let (mut source, mut target) = (source.map()?, target.map()?);
        let (from, to) = (source.span(), target.span());
        for (seed, method) in Method::available().into_iter().enumerate() {
            assert!(pattern(from, seed as u8, true));
            method.copy(from, to);
            assert!(pattern(to, seed as u8, false), "{}", method.name());
        }
        Ok(())
    }

    #[test]
    fn a_bare_move_of_unmapped_frames_arrives() -> io::Result<()> {
        let (mut source, mut target) = (Frames::allocate(LEN)?, Frames::allocate(LEN)?);
        pattern(source.map()?.span(), 3, true);
        let (from, to) = (Side::Frames(&mut source), Side::Frames(&mut target));
        bare_move(from, to, Method::Memcpy)?;
        assert!(pattern(target.map()?.span(), 3, false));
        Ok(())
    }

    #[test]
    #[should_panic(expected = "spans that overlap")]
    fn spans_that_overlap_are_refused() {
        let mut frames = Frames::allocate(LEN).expect("a megabyte");
        let mut mapping = frames.map().expect("address space");
        let span = mapping.span();
        Method::Memcpy.copy(span, span);
    }
}
