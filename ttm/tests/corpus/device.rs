//! An input of bytes is a list of operations on a device. After each of them the invariants hold,
//! every byte that can be read is the one that was written last, and at the end nothing is left.

use ttm::bo::{Bo, BoInfo, Reserved};
use ttm::context::OpContext;
use ttm::device::Device;
use ttm::driver::{Advice, BoKind};
use ttm::fault::Site;
use ttm::fence::Usage;
use ttm::pages::PageSource;
use ttm::placement::{Buddy, MemType, PAGE_SIZE, PageRange, Place, Placement, Range, Space};
use ttm::sync::Arc;
use ttm::tt::Backup;
use ttm::{Error, Result};

use super::machine::{Engine, Fate, Frames, Habit, Obedient, Shelf, Trap, Vram, pages};

const VRAM: u64 = 16;
const FRAMES: u64 = 64;
const SYSTEM_LIMIT: u64 = 40;
const SHELF: u64 = 24;
const OBJECTS: usize = 8;

/// Bytes, and zeroes after them.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }
}

/// An object, and what is known of the first byte of each of its pages.
struct Known {
    bo: Bo<Obedient>,
    pages: Vec<Option<u8>>,
    /// Its content may be gone at any time from now on.
    fickle: bool,
    pins: u32,
}

struct World {
    device: Device<Obedient>,
    engine: Arc<Engine>,
    frames: Arc<Frames>,
    shelf: Arc<Shelf>,
    trap: Arc<Trap>,
    objects: Vec<Option<Known>>,
    /// A copy has failed, or the device is lost: content may be lost, but never wrong.
    harmed: bool,
}

/// Runs the operations of `bytes`.
///
/// # Panics
/// If the device does something wrong.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(input.next());
    while !input.0.is_empty() {
        let op = input.next();
        let result = world.op(op, &mut input);
        // For whoever looks at one input.
        if std::env::var_os("TTM_VERBOSE").is_some() {
            eprintln!("{op:#04x}: {result:?}");
        }
        world.check();
    }
    world.end();
}

impl World {
    fn new(kind: u8) -> Self {
        let (vram, frames, shelf) = (Vram::new(VRAM), Frames::new(FRAMES), Shelf::new(SHELF));
        let engine = Engine::new(Arc::clone(&vram), Arc::clone(&frames));
        let trap = Arc::new(Trap::default());
        let space: Box<dyn Space> = match kind & 1 {
            0 => Box::new(Range::new(pages(VRAM))),
            _ => Box::new(Buddy::new(pages(VRAM))),
        };
        let mut builder = Device::builder(Obedient, engine.clock())
            .pages(frames.clone())
            .system_limit(pages(SYSTEM_LIMIT))
            .memory(MemType::VRAM, space, vram)
            .engine(engine.clone())
            .faults(trap.clone());
        if kind & 2 == 0 {
            builder = builder.backup(shelf.clone());
        }
        if kind & 4 != 0 {
            builder = builder.frames(MemType::TT, Box::new(Range::new(pages(6))));
        }
        Self {
            device: builder.build().expect("all parts are there"),
            engine,
            frames,
            shelf,
            trap,
            objects: (0..OBJECTS).map(|_| None).collect(),
            harmed: false,
        }
    }

    fn op(&mut self, op: u8, input: &mut Input<'_>) -> Result<()> {
        match op % 24 {
            0 | 1 => self.create(input),
            2 | 3 => self.validate(input),
            4 | 5 => self.submit(input),
            6 | 7 => self.write(input),
            8 => self.read(input),
            9 => self.forget(input),
            10 => self.pin(input),
            11 => self.unpin(input),
            12 => self.advise(input),
            13 => {
                self.engine.step(Fate::Done);
                Ok(())
            }
            14 => self.fail_copy(),
            15 => {
                self.engine.step_user(Fate::Done);
                Ok(())
            }
            16 => self
                .device
                .evict_all(MemType::VRAM, context(input.next()))
                .map(drop),
            17 => self.with(input, |reserved, _| reserved.swap_out()),
            18 => self.with(input, |reserved, _| reserved.populate()),
            19 => {
                let site = Site::ALL[usize::from(input.next()) % Site::ALL.len()];
                self.trap.set(Some((site, input.next() % 8)));
                Ok(())
            }
            20 => {
                self.device.reap();
                Ok(())
            }
            21 => self.with(input, |reserved, n| reserved.set_priority(n % 5)),
            22 => self.sleep(input),
            _ => self.rare(input),
        }
    }

    fn rare(&mut self, input: &mut Input<'_>) -> Result<()> {
        match input.next() {
            0..=15 => {
                self.harmed = true;
                self.device.set_lost();
            }
            16..=63 => {
                self.engine.step_user(Fate::Failed);
            }
            64..=127 => {
                let limit = pages(u64::from(input.next()) % FRAMES);
                self.device.system_budget().set_limit(limit);
            }
            n => self
                .device
                .manager(MemType::VRAM)
                .expect("given")
                .set_used(n & 1 == 0),
        }
        Ok(())
    }

    fn create(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let (shape, habit) = (input.next(), Habit(input.next()));
        let n = u64::from(shape & 7) + 1;
        let kind = if shape & 0x80 == 0 {
            BoKind::Device
        } else {
            BoKind::Kernel
        };
        let info = BoInfo::new(n * PAGE_SIZE)
            .kind(kind)
            .priority(shape >> 3 & 3)
            .align(pages(1 << (shape >> 5 & 1)));
        let bo = self.device.create(info, habit)?;
        let fresh = if kind == BoKind::Device {
            Some(0)
        } else {
            None
        };
        let known = Known {
            bo,
            pages: vec![fresh; n as usize],
            fickle: habit.is_discarded(),
            pins: 0,
        };
        // The handle of the one before drops, pins or not.
        self.objects[slot] = Some(known);
        Ok(())
    }

    fn forget(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        self.objects[slot] = None;
        Ok(())
    }

    /// Runs `f` on one object, in a transaction.
    fn with(
        &self,
        input: &mut Input<'_>,
        f: impl Fn(&Reserved<'_, Obedient>, u8) -> Result<()>,
    ) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let (terms, n) = (input.next(), input.next());
        let Some(known) = &self.objects[slot] else {
            return Ok(());
        };
        self.device
            .exec(context(terms), |t| f(&t.lock(&known.bo)?, n))
            .map(drop)
    }

    fn validate(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let (terms, wish) = (input.next(), input.next());
        let Some(known) = &mut self.objects[slot] else {
            return Ok(());
        };
        let placement = placement(wish);
        let nowhere = placement.is_empty();
        let bo = known.bo.clone();
        let result = self
            .device
            .exec(context(terms), |t| t.lock(&bo)?.validate(&placement))
            .map(drop);
        if nowhere && result.is_ok() {
            // Thrown away: zero again, or garbage.
            known.pages.fill(None);
        }
        if result.is_ok() && !nowhere {
            let at = self
                .device
                .exec(OpContext::new(), |t| Ok(t.lock(&bo)?.mem_type()));
            let at = *at?.value();
            let wanted = placement.places().iter().any(|p| Some(p.mem_type) == at);
            assert!(
                wanted,
                "validated into {at:?}, which is none of {placement:?}"
            );
        }
        result
    }

    /// Several objects at once, and work on all of them.
    fn submit(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slots = [input.next(), input.next(), input.next()];
        let (terms, wish) = (input.next(), input.next());
        let placement = placement(wish | 1);
        let bos: Vec<_> = slots
            .iter()
            .filter_map(|n| self.objects[usize::from(*n) % OBJECTS].as_ref())
            .map(|known| known.bo.clone())
            .collect();
        let usage = if wish & 0x80 == 0 {
            Usage::Read
        } else {
            Usage::Bookkeep
        };
        let locked = self.device.exec(context(terms), |t| {
            for bo in &bos {
                match t.lock(bo) {
                    Ok(reserved) => {
                        reserved.validate(&placement)?;
                        reserved.reserve_fences(1)?;
                    }
                    Err(Error::AlreadyLocked) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        let fence = self.engine.user().issue();
        locked.fence_all(&fence, usage);
        Ok(())
    }

    fn write(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let (terms, page, value) = (input.next(), input.next(), input.next());
        let Some(known) = &mut self.objects[slot] else {
            return Ok(());
        };
        let page = usize::from(page) % known.pages.len();
        let bo = known.bo.clone();
        let result = self
            .device
            .exec(context(terms), |t| {
                t.lock(&bo)?.write(page as u64 * PAGE_SIZE, &[value])
            })
            .map(drop);
        known.pages[page] = match result {
            Ok(()) => Some(value),
            Err(_) => None,
        };
        result
    }

    fn read(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let terms = input.next();
        let Some(known) = &self.objects[slot] else {
            return Ok(());
        };
        compare(&self.device, known, terms, self.harmed)
    }

    fn pin(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        if let Some(known) = &mut self.objects[slot] {
            let bo = known.bo.clone();
            self.device.exec(OpContext::new(), |t| {
                t.lock(&bo)?.pin();
                Ok(())
            })?;
            known.pins += 1;
        }
        Ok(())
    }

    fn unpin(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        if let Some(known) = &mut self.objects[slot] {
            let bo = known.bo.clone();
            let locked = self
                .device
                .exec(OpContext::new(), |t| t.lock(&bo).map(drop))?;
            let result = locked.get(&bo)?.unpin();
            assert_eq!(
                result.is_ok(),
                known.pins > 0,
                "an unpin of {} pins",
                known.pins
            );
            known.pins = known.pins.saturating_sub(1);
        }
        Ok(())
    }

    fn advise(&mut self, input: &mut Input<'_>) -> Result<()> {
        let slot = usize::from(input.next()) % OBJECTS;
        let needed = input.next() & 1 == 0;
        if let Some(known) = &mut self.objects[slot] {
            let bo = known.bo.clone();
            let advice = if needed {
                Advice::WillNeed
            } else {
                Advice::DontNeed
            };
            self.device
                .exec(OpContext::new(), |t| Ok(t.lock(&bo)?.advise(advice)))?;
            known.fickle |= !needed;
        }
        Ok(())
    }

    fn fail_copy(&mut self) -> Result<()> {
        self.harmed = true;
        self.engine.step(Fate::Failed);
        Ok(())
    }

    fn sleep(&mut self, input: &mut Input<'_>) -> Result<()> {
        let terms = input.next();
        let slept = self.device.suspend(context(terms)).map(drop);
        let woken = self.device.resume(OpContext::new()).map(drop);
        slept.and(woken)
    }

    fn check(&self) {
        let checked = self.device.check().unwrap_or_else(|v| panic!("{v}"));
        assert_eq!(
            checked.busy, 0,
            "a reservation is held between two operations"
        );
        let used = self.device.system_budget().used();
        assert!(
            used <= pages(FRAMES),
            "{used:?} of {FRAMES} frames are charged"
        );
        assert!(self.shelf.used() <= self.shelf.limit());
    }

    /// Everything is read once more, given back, and nothing is left.
    fn end(mut self) {
        self.trap.set(None);
        self.device.system_budget().set_limit(pages(FRAMES));
        self.device
            .manager(MemType::VRAM)
            .expect("given")
            .set_used(true);
        for known in self.objects.iter().flatten() {
            // What cannot be read is an error, and not a wrong byte.
            drop(compare(&self.device, known, 0, self.harmed));
        }
        self.objects.clear();
        while self.engine.step(Fate::Done) {}
        self.device.reap();
        self.check();
        assert_eq!(self.device.live_objects(), 0, "an object was forgotten");
        let usage = self.device.manager(MemType::VRAM).expect("given").usage();
        assert_eq!(usage.free, usage.size, "space was forgotten");
        self.device
            .close(None)
            .unwrap_or_else(|held| panic!("{held:?}"));
        drop(self.device);
        assert!(self.frames.taken().is_zero(), "frames were forgotten");
        assert!(self.shelf.used().is_zero(), "slots were forgotten");
    }
}

/// Reads every page and holds it against what is known.
fn compare(device: &Device<Obedient>, known: &Known, terms: u8, harmed: bool) -> Result<()> {
    for (n, value) in known.pages.iter().enumerate() {
        let mut byte = [0x55];
        let read = device
            .exec(context(terms), |t| {
                t.lock(&known.bo)?.read(n as u64 * PAGE_SIZE, &mut byte)
            })
            .map(drop);
        match read {
            Err(Error::ContentLost | Error::DeviceLost) => {
                assert!(
                    harmed,
                    "{:?}: content was lost without a cause\n{}",
                    known.bo,
                    device.explain(known.bo.id())
                );
            }
            Err(Error::Purged) => assert!(known.fickle, "{:?}: purged, though needed", known.bo),
            Err(Error::Corrupt(what)) => panic!("{:?}: {what:?}", known.bo),
            Err(error) => return Err(error),
            Ok(()) if known.fickle => {}
            Ok(()) => {
                let wrong = value.is_some_and(|value| value != byte[0]);
                let story = device.explain(known.bo.id());
                assert!(
                    !wrong,
                    "{:?} page {n}: {value:?} became {byte:?}\n{story}",
                    known.bo
                );
            }
        }
    }
    Ok(())
}

/// The terms of an operation. A deadline is over as soon as something has to be waited for.
fn context(terms: u8) -> OpContext {
    match terms & 7 {
        5 => OpContext::new().until(ttm::clock::Time::from_nanos(1)),
        6 | 7 => OpContext::new().without_waiting(),
        _ => OpContext::new(),
    }
}

/// The places of a validate; none for some.
fn placement(wish: u8) -> Placement {
    let window = match wish >> 4 & 7 {
        0 | 1 => PageRange::ALL,
        2 => PageRange::new(0, 8).expect("in order"),
        3 => PageRange::new(8, 16).expect("in order"),
        n => PageRange::new(u64::from(n), 12).expect("in order"),
    };
    let vram = Place::new(MemType::VRAM).within(window);
    let (tt, system) = (Place::new(MemType::TT), Place::new(MemType::SYSTEM));
    match wish & 15 {
        0 => Placement::new(),
        1..=5 => Placement::of(vram),
        6 => Placement::of(vram.contiguous()),
        7 => Placement::of(vram.top_down()),
        8 => Placement::of(vram.desired()).with(tt.fallback()),
        9 => Placement::of(vram).with(system),
        10 | 11 => Placement::of(tt),
        12 => Placement::of(tt).with(vram),
        _ => Placement::of(system),
    }
}
