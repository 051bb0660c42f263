//! Copy engines.

use core::ops::Deref;

use placement::{PAGE_SIZE, PageCount, PageRange};
use ttm::driver::{CopyEngine, CopyJob, Side};
use ttm::error::{Error, Result};
use ttm::fence::{Fence, FenceError};
use ttm::pages::{FrameSpan, Mapped};
use ttm::sync::Arc;

use crate::host::{FileMap, memfd};

use super::gpu::{Core, Inner};
use super::inject::At;
use super::io_space::{IoSpace, Piece};
use super::lane::Lane;

/// A lane that copies. Keeps its device alive.
pub(super) struct Engine {
    // Before `gpu`: the last handle of the device joins the lane's thread, which ends once
    // nobody holds the lane.
    pub(super) lane: Arc<Lane>,
    pub(super) gpu: Arc<Inner>,
}

impl CopyEngine for Engine {
    /// # Errors
    /// Also [`Error::Invalid`] if a side is shorter than the job or outside the device.
    fn submit(&self, job: CopyJob) -> Result<Fence> {
        let core = &self.gpu.core;
        check(core, &job)?;
        if core.inject().fails(At::COPY_SUBMIT) {
            return Err(Error::Backend(
                "a job was made to fail (copy.submit)".into(),
            ));
        }
        let CopyJob {
            pages,
            src,
            dst,
            after,
            behind,
            ..
        } = job;
        let run = move |core: &Core| copy(core, pages, &src, &dst);
        self.lane
            .submit(pages.bytes(), after, behind, Box::new(run))
    }
}

fn check(core: &Core, job: &CopyJob) -> Result<()> {
    if job.dst == Side::Zero {
        return Err(Error::Invalid("zeroes are only a source"));
    }
    for side in [&job.src, &job.dst] {
        if pages_of(core, side)?.is_some_and(|pages| pages < job.pages.get()) {
            return Err(Error::Invalid("a side of the copy is shorter than the job"));
        }
    }
    Ok(())
}

/// How many pages a side has, if it has an end.
///
/// # Errors
/// [`Error::Invalid`] if it is outside the device.
pub(super) fn pages_of(core: &Core, side: &Side) -> Result<Option<u64>> {
    match side {
        Side::Zero => Ok(None),
        Side::Frames(spans) => Ok(Some(spans.iter().map(|s| s.pages.get()).sum())),
        Side::Mapped(list) => Ok(Some(list.bytes() / PAGE_SIZE)),
        Side::Device { ranges, .. } => {
            if ranges.iter().any(|r| r.end() > core.config().vram.get()) {
                return Err(Error::Invalid("the pages are outside the device's memory"));
            }
            Ok(Some(ranges.iter().map(|r| r.len().get()).sum()))
        }
    }
}

/// The device's view of a side, while a job uses it.
pub(super) struct Views<'a> {
    core: &'a Core,
    maps: Vec<Mapped>,
    frames: Vec<FrameSpan>,
}

impl Views<'_> {
    fn add(&mut self, piece: Piece) -> Result<()> {
        match piece {
            Piece::Frames(span) => {
                let memory = self
                    .core
                    .memory()
                    .ok_or(Error::Invalid("these frames have no content"))?;
                self.maps.push(memory.device_begins(span)?);
                self.frames.push(span);
            }
            Piece::Void(pages) => self.maps.push(void(pages)?),
        }
        Ok(())
    }

    /// What is on the bus, which nobody translates.
    fn add_peer(&mut self, address: u64, len: u64) -> Result<()> {
        let Some(pages) = PageCount::new(len / PAGE_SIZE).filter(|pages| !pages.is_zero()) else {
            return Ok(());
        };
        match self.core.bus().find(address, len)? {
            Some(view) => self.maps.push(view),
            None => self.maps.push(void(pages)?),
        }
        Ok(())
    }
}

/// What a device finds at bytes from `address` on.
fn pieces(address: u64, len: u64, io: Option<&Arc<IoSpace>>, access: Access) -> Vec<Piece> {
    match (io, PageCount::new(len / PAGE_SIZE)) {
        (_, Some(PageCount::ZERO) | None) => Vec::new(),
        (Some(io), _) => io.find(address, len, access.reads, access.writes),
        (None, Some(pages)) => vec![Piece::Frames(FrameSpan {
            file: 0,
            first: address / PAGE_SIZE,
            pages,
        })],
    }
}

/// What reads as all ones, and keeps nothing that is written.
fn void(pages: PageCount) -> Result<Mapped> {
    let map = || {
        let file = memfd("sim void")?;
        rustix::fs::ftruncate(&file, pages.bytes())?;
        let len = usize::try_from(pages.bytes()).map_err(std::io::Error::other)?;
        FileMap::populated(&file, 0, len, &Arc::default())
    };
    let void = map().map_err(|error: std::io::Error| Error::Backend(error.into()))?;
    let void = void.into_mapped();
    for at in (0..void.len()).step_by(ONES.len()) {
        void.write(at, &ONES);
    }
    Ok(void)
}

const ONES: [u8; PAGE_SIZE as usize] = [0xff; PAGE_SIZE as usize];

impl Deref for Views<'_> {
    type Target = [Mapped];

    fn deref(&self) -> &[Mapped] {
        &self.maps
    }
}

impl Drop for Views<'_> {
    fn drop(&mut self) {
        if let Some(memory) = self.core.memory() {
            self.frames
                .iter()
                .for_each(|span| memory.device_ends(*span));
        }
    }
}

/// What a job does to a side.
#[derive(Clone, Copy)]
pub(super) struct Access {
    reads: bool,
    writes: bool,
}

impl Access {
    pub(super) const READ: Self = Self {
        reads: true,
        writes: false,
    };
    pub(super) const WRITE: Self = Self {
        reads: false,
        writes: true,
    };
    pub(super) const BOTH: Self = Self {
        reads: true,
        writes: true,
    };
}

/// The device's view of the first `pages` pages of a side; `None` for zeroes. Addresses are
/// translated by `io`, if there is one; else they are the memory's own.
pub(super) fn views<'a>(
    core: &'a Core,
    side: &Side,
    pages: PageCount,
    io: Option<&Arc<IoSpace>>,
    access: Access,
) -> Result<Option<Views<'a>>> {
    let mut left = pages.get();
    let mut part = |len: PageCount| {
        let len = len.get().min(left);
        left -= len;
        PageCount::new(len).expect("part of a side")
    };
    let host = |error: std::io::Error| Error::Backend(error.into());
    let mut views = Views {
        core,
        maps: Vec::new(),
        frames: Vec::new(),
    };
    match side {
        Side::Zero => return Ok(None),
        Side::Frames(spans) => {
            for span in spans {
                let span = span.part(0, part(span.pages));
                if !span.pages.is_zero() {
                    views.add(Piece::Frames(span))?;
                }
            }
        }
        Side::Mapped(list) => {
            for segment in list.dma_segments() {
                let len = PageCount::new(segment.len / PAGE_SIZE).expect("part of a side");
                let len = part(len).bytes();
                if segment.bus {
                    views.add_peer(segment.addr.get(), len)?;
                    continue;
                }
                for piece in pieces(segment.addr.get(), len, io, access) {
                    views.add(piece)?;
                }
            }
        }
        Side::Device { ranges, .. } => {
            for range in ranges {
                let range = PageRange::at(range.start(), part(range.len())).expect("a part");
                if !range.is_empty() {
                    let vram = core
                        .vram()
                        .ok_or(Error::Invalid("there is no device memory"))?;
                    views.maps.push(vram.view(range).map_err(host)?);
                }
            }
        }
    }
    Ok(Some(views))
}

/// Moves the bytes of a job, or fails as it is told to.
fn copy(core: &Core, pages: PageCount, src: &Side, dst: &Side) -> Result<(), FenceError> {
    let inject = core.inject();
    if inject.fails(At::COPY_START) {
        return Err(FenceError::Failed);
    }
    let breaks_off = inject.fails(At::COPY_MIDDLE);
    let bytes = pages.bytes() >> u32::from(breaks_off);
    if core.config().contents {
        move_bytes(core, pages, bytes, src, dst).map_err(|_| FenceError::Failed)?;
    }
    if breaks_off || inject.fails(At::COPY_LATE_ERROR) {
        return Err(FenceError::Failed);
    }
    Ok(())
}

fn move_bytes(core: &Core, pages: PageCount, bytes: u64, src: &Side, dst: &Side) -> Result<()> {
    let from = views(core, src, pages, core.io(), Access::READ)?;
    let to = views(core, dst, pages, core.io(), Access::WRITE)?
        .ok_or(Error::Invalid("zeroes are only a source"))?;
    let bytes = usize::try_from(bytes).expect("both sides are mapped");
    transfer(from.as_deref(), &to, bytes);
    // Zeroes are mostly overwritten before anybody looks; a flip there would prove nothing.
    if from.is_some() && core.inject().fails(At::COPY_FLIP_BIT) {
        flip_bit(&to, core.random());
    }
    Ok(())
}

/// Copies `bytes` bytes between two lists of views, cut differently; zeroes without a source.
fn transfer(from: Option<&[Mapped]>, to: &[Mapped], bytes: usize) {
    let mut left = bytes;
    let (mut piece, mut offset) = (0, 0);
    for target in to {
        let mut at = 0;
        while at < target.len() && left > 0 {
            let mut len = (target.len() - at).min(left);
            match from {
                None => target.zero(at, len),
                Some(from) => {
                    let source = &from[piece];
                    len = len.min(source.len() - offset);
                    source.copy_to(offset, target, at, len);
                    offset += len;
                    if offset == source.len() {
                        (piece, offset) = (piece + 1, 0);
                    }
                }
            }
            at += len;
            left -= len;
        }
    }
}

/// Flips the bit that `random` chooses.
pub(super) fn flip_bit(memory: &[Mapped], random: u64) {
    let total: usize = memory.iter().map(Mapped::len).sum();
    let bit = random % (total as u64 * 8);
    let mut at = usize::try_from(bit / 8).expect("less than the total");
    for view in memory {
        if at < view.len() {
            let mut byte = [0];
            view.read(at, &mut byte);
            view.write(at, &[byte[0] ^ (1 << (bit % 8))]);
            return;
        }
        at -= view.len();
    }
}

const _: () = assert!(PAGE_SIZE.is_multiple_of(8));
