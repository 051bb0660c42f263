//! One client: it makes its objects, writes them by the CPU and by the card, and checks them.
//!
//! What fails with a typed error is skipped and counted. A write of which it is not known how far
//! it came makes the object's content *unknown*: it is written anew before it is checked again.

use placement::{MemType, PAGE_SIZE, PageCount, Place, Placement};
use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::error::{Class, Error};
use ttm::fence::{Fence, Status, Usage};
use ttm::map::Window;
use ttm::resource::Group;
use ttm::sync::Arc;

use backends::sim::{Queue, SimDriver};

use super::oracle::{Expected, WrongWord};
use super::windows::Accesses;
use super::{Rig, Shared};
use cli::report::observer::Observer;

/// A transaction that restarts so often is given up, should somebody make every lock fail.
const MAX_RESTARTS: u32 = 1000;

/// Clients work on the card and by the CPU in turns of so many nanoseconds.
const PHASE_NS: u64 = 400_000_000;

/// What one client did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    pub(super) operations: u64,
    pub(super) skipped: u64,
    pub(super) lost: u64,
    pub(super) words: u64,
    pub(super) moved_bytes: u64,
    pub(super) waited_ns: u64,
}

/// Why a client ended before its time.
#[derive(Debug)]
pub(super) enum Ended {
    Wrong(WrongWord),
    Broken(String),
    /// The device is lost, or nothing can go on.
    Refused(String),
}

pub(super) struct Client<'a> {
    pub(super) number: u32,
    pub(super) shared: &'a Shared,
    pub(super) device: Device<SimDriver>,
    reach: Accesses<'a>,
    pub(super) queue: Queue,
    pub(super) group: Arc<Group>,
    pub(super) random: Random,
    pub(super) done: Done,
    objects: Vec<Object>,
    sequence: u32,
    bytes: Vec<u8>,
}

struct Object {
    /// Before the object, which it keeps.
    window: Option<Window<SimDriver>>,
    bo: Bo<SimDriver>,
    expected: Expected,
    /// Nobody knows what it holds.
    unknown: bool,
    /// Kernels whose fences have not been looked at.
    pending: Option<Fence>,
}

/// Splitmix: the same everywhere for the same seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}

fn place(mem_type: MemType) -> Placement {
    Placement::of(Place::new(mem_type))
}

impl<'a> Client<'a> {
    pub(super) fn new(
        number: u32,
        shared: &'a Shared,
        rig: &'a Rig,
        reach: Accesses<'a>,
        queue: Queue,
        group: Arc<Group>,
        seed: u64,
    ) -> Self {
        Self {
            number,
            shared,
            device: rig.device.clone(),
            reach,
            queue,
            group,
            random: Random(seed ^ u64::from(number) << 32),
            done: Done::default(),
            objects: Vec::new(),
            sequence: 1,
            bytes: Vec::new(),
        }
    }

    /// Works until the time is up or somebody ends the run; then checks everything once more.
    pub(super) fn run(&mut self) -> Result<(), Ended> {
        Observer::this_is_client(self.number);
        self.create()?;
        while !self.shared.is_over() && !self.objects.is_empty() {
            let index = self.random.below(self.objects.len() as u64) as usize;
            let result = self.operate(index);
            self.done.operations += 1;
            self.after(index, result)?;
            if self.number == 1 && self.done.operations.is_multiple_of(1000) {
                self.shared.check(&self.device)?;
            }
            self.shared.think(self.random.below(self.shared.think_ns));
        }
        for index in 0..self.objects.len() {
            if self.shared.is_stopped() {
                break;
            }
            let result = self.verify(index);
            self.after(index, result)?;
        }
        Ok(())
    }

    fn create(&mut self) -> Result<(), Ended> {
        for pages in self.shared.sizes(&mut self.random) {
            let info = BoInfo::new(pages * PAGE_SIZE).group(&self.group);
            match self.device.create(info, ()) {
                Ok(bo) => self.objects.push(Object {
                    window: self.reach.open(&bo),
                    expected: Expected::fresh(bo.id(), pages as usize),
                    bo,
                    unknown: false,
                    pending: None,
                }),
                Err(error) => self.survive(&error)?,
            }
        }
        Ok(())
    }

    fn operate(&mut self, index: usize) -> Result<(), Stop> {
        self.settle(index)?;
        let by_card = (self.shared.now() / PHASE_NS).is_multiple_of(2);
        let kind = self.random.below(100);
        if self.objects[index].unknown {
            return self.write(index, true);
        }
        match (by_card, kind) {
            (true, 0..35) => self.kernel(index, false),
            (true, 35..60) => self.kernel(index, true),
            (true, 60..85) => self.sum(index),
            (false, 0..40) => self.write(index, false),
            (false, 40..90) => self.read(index, false),
            _ => self.read(index, true),
        }
    }

    /// Waits for the object's last kernel and looks how it ended.
    fn settle(&mut self, index: usize) -> Result<(), Stop> {
        let object = &mut self.objects[index];
        let Some(fence) = object.pending.take() else {
            return Ok(());
        };
        match fence.wait(None)? {
            Status::Done => Ok(()),
            _ => {
                object.unknown = true;
                Err(Stop::Failed(Error::Backend("a kernel failed".into())))
            }
        }
    }

    /// Fills the object by a kernel, or adds one to every word; doesn't wait for it.
    fn kernel(&mut self, index: usize, add: bool) -> Result<(), Stop> {
        let object = &self.objects[index];
        let pages = object.expected.pages();
        // Adding to zeroes would make words without a writer.
        let add = add && object.expected.is_written();
        let expected = if add {
            object.expected.plus_one()
        } else {
            let sequence = self.next_sequence(pages);
            let object = &self.objects[index];
            object
                .expected
                .written(0, pages, self.number as u8, sequence)
        };
        let words = expected.words();
        let queue = self.queue.clone();
        let fence = self.submit(index, Usage::Read, Usage::Write, |side, after| {
            if add {
                return queue.add(side, 1, after);
            }
            queue.fill_with(
                side,
                move |n| words[n as usize / super::oracle::WORDS],
                after,
            )
        })?;
        let object = &mut self.objects[index];
        object.expected = expected;
        object.pending = Some(fence);
        Ok(())
    }

    /// Lets the card sum the object, and compares.
    fn sum(&mut self, index: usize) -> Result<(), Stop> {
        let mut sum = None;
        let queue = self.queue.clone();
        let fence = self.submit(index, Usage::Write, Usage::Read, |side, after| {
            let (fence, found) = queue.checksum(side, after)?;
            sum = Some(found);
            Ok(fence)
        })?;
        if fence.wait(None)? != Status::Done {
            return Err(Stop::Failed(Error::Backend("a kernel failed".into())));
        }
        let expected = self.objects[index].expected.checksum();
        let found = sum.and_then(|sum| sum.get());
        if found == Some(expected) {
            let words = self.objects[index].expected.pages() * super::oracle::WORDS;
            self.done.words += words as u64;
            return Ok(());
        }
        // The CPU says which word it is.
        self.read(index, true)?;
        Err(Stop::Ended(Ended::Broken(format!(
            "object {}: the card sums {found:x?}, expected {expected:x}; the CPU finds every word \
             right",
            self.objects[index].bo.id()
        ))))
    }

    fn submit(
        &mut self,
        index: usize,
        waits_for: Usage,
        usage: Usage,
        job: impl FnOnce(&ttm::driver::Side, Vec<Fence>) -> ttm::Result<Fence>,
    ) -> Result<Fence, Stop> {
        let bo = &self.objects[index].bo;
        let mut restarts = 0;
        let vram = place(MemType::VRAM);
        let locked = self.device.exec(OpContext::new(), |t| {
            once_more(&mut restarts)?;
            let reserved = t.lock(bo)?;
            reserved.validate(&vram)?;
            reserved.reserve_fences(1)
        })?;
        let reserved = locked.get(bo)?;
        let fence = job(&reserved.side()?, reserved.fences(waits_for))?;
        locked.fence(bo, &fence, usage)?;
        self.done.moved_bytes += locked.context().bytes_moved();
        self.done.waited_ns += locked.context().waited_ns();
        Ok(fence)
    }

    /// Writes some pages, or all, by the CPU, in system memory.
    fn write(&mut self, index: usize, all: bool) -> Result<(), Stop> {
        let pages = self.objects[index].expected.pages();
        let (first, end) = self.part(pages, all);
        let sequence = self.next_sequence(pages);
        let expected = &self.objects[index].expected;
        let expected = expected.written(first, end, self.number as u8, sequence);
        let mut bytes = std::mem::take(&mut self.bytes);
        expected.fill(first, end, &mut bytes);
        let offset = first as u64 * PAGE_SIZE;
        let how = self.how();
        let result = match (&self.objects[index].window, how) {
            (Some(window), Some(by_call)) => {
                let written = self.reach.write(window, offset, &bytes, by_call);
                written.map_err(Stop::Failed)
            }
            _ => self.by_cpu(index, |reserved| reserved.write(offset, &bytes)),
        };
        self.bytes = bytes;
        let object = &mut self.objects[index];
        match result {
            Ok(()) => {
                object.unknown &= !all;
                object.expected = expected;
                Ok(())
            }
            Err(error) => {
                object.unknown = true;
                Err(error)
            }
        }
    }

    /// Reads some pages, or all, by the CPU, and compares every word.
    fn read(&mut self, index: usize, all: bool) -> Result<(), Stop> {
        let (first, end) = self.part(self.objects[index].expected.pages(), all);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize((end - first) * PAGE_SIZE as usize, 0);
        let offset = first as u64 * PAGE_SIZE;
        let how = self.how();
        let result = match (&self.objects[index].window, how) {
            (Some(window), Some(by_call)) => {
                let read = self.reach.read(window, offset, &mut bytes, by_call);
                read.map_err(Stop::Failed)
            }
            _ => self.by_cpu(index, |reserved| reserved.read(offset, &mut bytes)),
        };
        let compared = result.and_then(|()| {
            let compared = self.objects[index].expected.compare(first, &bytes);
            compared.map_err(|wrong| Stop::Ended(Ended::Wrong(wrong)))
        });
        self.bytes = bytes;
        self.done.words += compared?;
        Ok(())
    }

    /// Whether an access goes through the window, and then whether a system call makes it.
    fn how(&mut self) -> Option<bool> {
        match self.random.below(8) {
            0..4 => None,
            n => Some(n == 7),
        }
    }

    fn by_cpu(
        &mut self,
        index: usize,
        mut access: impl FnMut(&Reserved<'_, SimDriver>) -> ttm::Result<()>,
    ) -> Result<(), Stop> {
        let bo = &self.objects[index].bo;
        let mut restarts = 0;
        let system = place(MemType::SYSTEM);
        let locked = self.device.exec(OpContext::new(), |t| {
            once_more(&mut restarts)?;
            let reserved = t.lock(bo)?;
            reserved.validate(&system)?;
            access(&reserved)
        })?;
        self.done.moved_bytes += locked.context().bytes_moved();
        self.done.waited_ns += locked.context().waited_ns();
        Ok(())
    }

    /// Checks an object whole, unless nobody knows what it holds.
    fn verify(&mut self, index: usize) -> Result<(), Stop> {
        self.settle(index)?;
        if self.objects[index].unknown {
            return Ok(());
        }
        self.read(index, true)
    }

    fn part(&mut self, pages: usize, all: bool) -> (usize, usize) {
        if all {
            return (0, pages);
        }
        let first = self.random.below(pages as u64) as usize;
        let end = first + 1 + self.random.below((pages - first) as u64) as usize;
        (first, end)
    }

    fn next_sequence(&mut self, pages: usize) -> u32 {
        let first = self.sequence;
        // Room for what kernels add.
        self.sequence = first.wrapping_add(pages as u32 + 64);
        first
    }

    /// Goes on after an operation, or ends.
    fn after(&mut self, index: usize, result: Result<(), Stop>) -> Result<(), Ended> {
        match result {
            Ok(()) => Ok(()),
            Err(Stop::Ended(ended)) => Err(ended),
            Err(Stop::Failed(error)) => {
                if matches!(error, Error::ContentLost | Error::Corrupt(_)) {
                    self.replace(index);
                }
                self.survive(&error)
            }
        }
    }

    /// The manager says that an object's content is gone: a new one takes its place.
    fn replace(&mut self, index: usize) {
        self.done.lost += 1;
        let pages = self.objects[index].expected.pages();
        let info = BoInfo::new(pages as u64 * PAGE_SIZE).group(&self.group);
        if let Ok(bo) = self.device.create(info, ()) {
            self.objects[index] = Object {
                window: self.reach.open(&bo),
                expected: Expected::fresh(bo.id(), pages),
                bo,
                unknown: false,
                pending: None,
            };
        } else {
            self.objects.swap_remove(index);
        }
    }

    fn survive(&mut self, error: &Error) -> Result<(), Ended> {
        self.done.skipped += 1;
        match error {
            Error::DeviceLost => Err(Ended::Refused(
                "the device was lost; what was in its memory is gone".into(),
            )),
            Error::Stalled(graph) => Err(Ended::Refused(format!(
                "nothing can go on, a fence never comes; who waits for what:\n{graph}"
            ))),
            error if error.class() == Class::Broken || error.class() == Class::Retry => {
                self.shared.note(error);
                Ok(())
            }
            Error::NoSpace(_) | Error::NoMemory { .. } | Error::Unsupported(_) => {
                self.shared.note(error);
                Ok(())
            }
            error => Err(Ended::Broken(format!("an unexpected refusal: {error}"))),
        }
    }
}

/// Why an operation was not done.
enum Stop {
    Failed(Error),
    Ended(Ended),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn once_more(restarts: &mut u32) -> ttm::Result<()> {
    *restarts += 1;
    if *restarts > MAX_RESTARTS {
        return Err(Error::Busy);
    }
    Ok(())
}

/// So many pages at most has one object.
pub(super) fn largest(vram: PageCount) -> u64 {
    (vram.get() / 32).max(1)
}
