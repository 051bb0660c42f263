//! Every operation, failing at every step.
//!
//! An operation runs once to count the probes that it passes. Then, for each of them, in a fresh
//! world:
//!
//! - the probe fails, once or from then on;
//! - the device is lost at the probe;
//! - the client whose objects stand in the way lets go of them at the probe.
//!
//! After the failure the error is one that a caller can act on, the invariants hold, nothing is
//! left locked, and every content is what it was, or is reported lost: if the device is, or if an
//! engine failed to empty space that had been handed on behind its fence. Then the fault is lifted and the same operation succeeds; contents are compared again, all is dropped,
//! and nothing is left anywhere. The table of probes is printed; a site of the manager that was
//! never made to fail fails the test.

#[path = "fail_nth/lent.rs"]
mod lent;
#[path = "fail_nth/sight.rs"]
mod sight;
mod support;

use std::collections::BTreeSet;

use backends::sim::{Gpu, Inject, RouteMode, SimClock, SimDriver, VirtualClock};
use placement::{CacheMode, MemType, Place, Placement};
use ttm::bo::{Bo, BoInfo, Exec};
use ttm::context::OpContext;
use ttm::dma::{Direction, PeerPath};
use ttm::driver::Advice;
use ttm::error::{Error, Result};
use ttm::fault::{Faults, Site};
use ttm::resource::{Group, Limits};
use ttm::share::AttachInfo;
use ttm::sync::atomic::{AtomicU64, Ordering};
use ttm::sync::{Arc, Mutex};

use lent::Lent;
use sight::Sight;
use support::words::{compare, image, read_all};
use support::{Found, PAGE, Setup, World, in_type, pages, system, tt, vram};

const SIZE: u64 = 8 * PAGE;

/// What should be read from an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Content {
    /// What was written before the operation.
    Image,
    /// Zeroes.
    Zero,
    /// What was written, or nothing any more: its owner does not need it.
    Dispensable,
    /// What was written, or zeroes: the operation throws it away.
    Thrown,
}

struct Item {
    bo: Bo<SimDriver>,
    content: Content,
}

/// A world in which an operation is about to happen.
struct Stage {
    /// Closed first.
    sight: Option<Sight>,
    lent: Option<Lent>,
    world: World,
    hook: Arc<Hook>,
    /// What the operation is about.
    own: Vec<Item>,
    /// What stands in its way. Shared with the hook that drops it.
    others: Arc<Mutex<Vec<Item>>>,
    group: Arc<Group>,
}

type Call = Box<dyn FnOnce() + Send>;

/// Counts the manager's probes, and does something at one of them.
struct Hook {
    inject: Arc<Inject>,
    passed: AtomicU64,
    at: AtomicU64,
    call: Mutex<Option<Call>>,
}

impl Hook {
    /// Calls `call` at the `nth` probe from now on.
    fn set(&self, nth: u64, call: impl FnOnce() + Send + 'static) {
        self.passed.store(0, Ordering::Relaxed);
        self.at.store(nth, Ordering::Relaxed);
        *self.call.lock() = Some(Box::new(call));
    }

    fn clear(&self) -> Option<Call> {
        self.at.store(0, Ordering::Relaxed);
        self.call.lock().take()
    }
}

impl Faults for Hook {
    fn hit(&self, site: Site) -> bool {
        let passed = self.passed.fetch_add(1, Ordering::Relaxed) + 1;
        if passed == self.at.load(Ordering::Relaxed) {
            let call = self.call.lock().take();
            if let Some(call) = call {
                call();
            }
        }
        self.inject.hit(site)
    }
}

/// An operation.
struct Operation {
    name: String,
    setup: Setup,
    driver: SimDriver,
    prepare: fn(&mut Stage, MemType),
    from: MemType,
    act: Act,
}

type Act = Box<dyn Fn(&Stage) -> Result<()>>;

impl Stage {
    fn new(operation: &Operation) -> Self {
        let clock = VirtualClock::new();
        let time = SimClock::Virtual(Arc::clone(&clock));
        let gpu = Gpu::new(operation.setup.config(), time).unwrap();
        let hook = Arc::new(Hook {
            inject: Arc::clone(gpu.inject()),
            passed: AtomicU64::new(0),
            at: AtomicU64::new(0),
            call: Mutex::new(None),
        });
        let faults = Arc::clone(&hook) as Arc<dyn Faults>;
        let driver = operation.driver.clone();
        let mut stage = Self {
            world: operation
                .setup
                .with_faults(gpu, Some(clock), driver, faults),
            hook,
            sight: None,
            lent: None,
            own: Vec::new(),
            others: Arc::new(Mutex::new(Vec::new())),
            group: Group::new("limited", None),
        };
        (operation.prepare)(&mut stage, operation.from);
        stage.settle();
        stage.world.device.reap();
        stage
    }

    fn make(&self, place: MemType, content: Content) -> Item {
        let bo = self.world.create_in(SIZE, &in_type(place));
        if content != Content::Zero {
            self.world.write_image(&bo, 1, 1).unwrap();
        }
        Item { bo, content }
    }

    fn own(&mut self, place: MemType, content: Content) {
        let item = self.make(place, content);
        self.own.push(item);
    }

    fn other(&mut self, place: MemType, content: Content) {
        let item = self.make(place, content);
        self.others.lock().push(item);
    }

    /// The operation's object, with windows over it.
    fn own_in_sight(&mut self, place: MemType, content: Content) {
        self.own(place, content);
        let World { device, inject, .. } = &self.world;
        self.sight = Some(Sight::new(device, inject, &self.own[0].bo));
    }

    fn sight(&self) -> &Sight {
        self.sight
            .as_ref()
            .expect("the operation's object has windows")
    }

    /// The operation's object, lent to a context that has it mapped.
    fn own_lent(&mut self, place: MemType, info: AttachInfo) {
        self.own(place, Content::Image);
        let lent = self.lend(info).unwrap();
        lent.reads(&self.words()).unwrap();
        self.lent = Some(lent);
    }

    fn lend(&self, info: AttachInfo) -> Result<Lent> {
        let World { device, gpu, .. } = &self.world;
        Lent::new(device, gpu, &self.own[0].bo, info)
    }

    fn lent(&self) -> &Lent {
        self.lent.as_ref().expect("the operation's object is lent")
    }

    /// What the operation's object has.
    fn words(&self) -> Vec<u8> {
        image(self.own[0].bo.id(), 1, 1, SIZE)
    }

    /// Waits until nothing is on its way, whatever became of it.
    fn settle(&self) {
        let others: Vec<_> = self.others.lock().iter().map(|i| i.bo.clone()).collect();
        for bo in self.own.iter().map(|i| &i.bo).chain(&others) {
            let _ = self
                .world
                .with(bo, |r| r.wait_idle(ttm::fence::Usage::Bookkeep));
        }
    }

    /// Compares every content. `lost`: the device is, and may have taken contents with it.
    fn compare(&self, lost: bool) -> core::result::Result<(), String> {
        for item in self.own.iter().chain(&*self.others.lock()) {
            let found = self.world.with(&item.bo, |r| read_all(r, SIZE));
            let id = item.bo.id();
            let found = match found {
                Ok(found) => found,
                Err(Error::Purged) if item.content == Content::Dispensable => continue,
                Err(Error::ContentLost | Error::DeviceLost) if lost => continue,
                Err(error) => return Err(format!("object {id} cannot be read: {error:?}")),
            };
            let (zero, written) = (vec![0; found.len()], image(id, 1, 1, SIZE));
            match item.content {
                Content::Zero => compare(id, &zero, &found)?,
                Content::Thrown if found == zero => {}
                _ => compare(id, &written, &found)?,
            }
        }
        match &self.sight {
            Some(sight) => self.compare_windows(sight, lost),
            None => Ok(()),
        }
    }

    fn compare_windows(&self, sight: &Sight, lost: bool) -> core::result::Result<(), String> {
        let id = self.own[0].bo.id();
        let (part, whole) = match sight.look() {
            Ok(found) => found,
            Err(Error::ContentLost | Error::DeviceLost) if lost => return Ok(()),
            Err(error) => return Err(format!("object {id} cannot be shown: {error:?}")),
        };
        let written = image(id, 1, 1, SIZE);
        compare(id, &written, &whole)?;
        match part == whole[3 * PAGE as usize..5 * PAGE as usize] {
            true => Ok(()),
            false => Err(format!("object {id}: its windows differ")),
        }
    }

    fn check(&self) -> core::result::Result<(), String> {
        for item in self.own.iter().chain(&*self.others.lock()) {
            if item.bo.is_locked() {
                return Err(format!("I-70: object {} is left locked", item.bo.id()));
            }
        }
        let checked = self.world.device.check().map_err(|v| v.to_string())?;
        match checked.busy {
            0 => Ok(()),
            _ => Err(format!("{checked:?}")),
        }
    }

    fn end(self) {
        drop(self.sight);
        if let Some(lent) = self.lent {
            lent.end(&self.world.device);
        }
        drop((self.own, core::mem::take(&mut *self.others.lock())));
        self.world.assert_empty();
    }

    /// A transaction of a caller who gives up after some rounds.
    fn exec<'o>(&'o self, mut body: impl FnMut(&Exec<'o, SimDriver>) -> Result<()>) -> Result<()> {
        let mut rounds = 0;
        let locked = self.world.device.exec(OpContext::new(), |t| {
            rounds += 1;
            if rounds > 20 {
                return Err(Error::Busy);
            }
            body(t)
        });
        locked.map(drop)
    }

    fn validate(&self, placement: &Placement) -> Result<()> {
        let bo = &self.own[0].bo;
        self.exec(|t| t.lock(bo)?.validate(placement))
    }

    /// Puts the object in memory, and then out of it.
    fn swap_out(&self) -> Result<()> {
        let bo = &self.own[0].bo;
        self.exec(|t| {
            let reserved = t.lock(bo)?;
            reserved.validate(&system())?;
            reserved.swap_out()
        })
    }

    /// That who has the object reads its content, where it is now.
    fn lent_reads(&self) -> Result<()> {
        self.lent().reads(&self.words())
    }
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    Once,
    Forever,
    DeviceLost,
    OthersDropped,
}

const FAULTS: [Fault; 4] = [
    Fault::Once,
    Fault::Forever,
    Fault::DeviceLost,
    Fault::OthersDropped,
];

/// Whether a caller can act on the error.
fn is_typed(error: &Error, fault: Fault) -> bool {
    match error {
        Error::NoMemory { .. }
        | Error::Shortfall(_)
        | Error::NoSpace(_)
        | Error::OverLimit { .. }
        | Error::Backup(_)
        | Error::Backend(_)
        | Error::Dma { .. }
        | Error::Busy => true,
        Error::DeviceLost | Error::ContentLost => fault == Fault::DeviceLost,
        _ => false,
    }
}

/// Fails the `nth` probe of an operation; answers the site that failed.
fn fail(
    operation: &Operation,
    nth: u64,
    fault: Fault,
) -> core::result::Result<Option<&'static str>, String> {
    let stage = Stage::new(operation);
    stage.world.inject.start_counting();
    match fault {
        Fault::Once => stage.world.inject.fail_nth_probe(nth, false),
        Fault::Forever => stage.world.inject.fail_nth_probe(nth, true),
        Fault::DeviceLost => {
            let (gpu, device) = (stage.world.gpu.clone(), stage.world.device.clone());
            stage.hook.set(nth, move || {
                gpu.lose();
                device.set_lost();
            });
        }
        Fault::OthersDropped => {
            let others = Arc::clone(&stage.others);
            stage.hook.set(nth, move || {
                let gone = core::mem::take(&mut *others.lock());
                drop(gone);
            });
        }
    }
    let result = (operation.act)(&stage);
    stage.settle();
    let failed = stage.world.inject.last_failed();
    // Space is handed on behind the fence of the copy that empties it. If that copy fails then,
    // its content is reported lost.
    let copies = [
        "copy.start",
        "copy.middle",
        "copy.late-error",
        "fence.error",
    ];
    let copy_failed = copies.iter().any(|site| stage.world.inject.hits(site) > 0);
    stage.world.inject.clear();
    drop(stage.hook.clear());
    stage.settle();
    if let Err(error) = &result
        && !is_typed(error, fault)
        && !(copy_failed && matches!(error, Error::ContentLost))
    {
        return Err(format!("unexpected {error:?}"));
    }
    let lost = stage.world.gpu.is_lost();
    stage.check()?;
    stage.compare(lost || copy_failed)?;
    stage.check()?;
    if !lost {
        match (operation.act)(&stage) {
            Err(Error::ContentLost) if copy_failed => {}
            result => result.map_err(|e| format!("not even afterwards: {e:?}"))?,
        }
        stage.settle();
        stage.compare(copy_failed)?;
        stage.check()?;
    }
    stage.end();
    Ok(failed)
}

fn small() -> Setup {
    Setup {
        vram: 16,
        system_limit: Some(40),
        swap: Some(64),
        found: Found::Translated,
        ..Setup::default()
    }
}

fn operation(
    name: &str,
    prepare: fn(&mut Stage, MemType),
    act: impl Fn(&Stage) -> Result<()> + 'static,
) -> Operation {
    Operation {
        name: name.into(),
        setup: small(),
        driver: SimDriver::new(),
        prepare,
        from: MemType::SYSTEM,
        act: Box::new(act),
    }
}

fn in_mode(mem_type: MemType, mode: CacheMode) -> Placement {
    Placement::of(Place::new(mem_type).cached(mode))
}

/// Device memory is full, and so is system memory.
fn crowded(stage: &mut Stage, _: MemType) {
    for _ in 0..4 {
        stage.other(MemType::SYSTEM, Content::Image);
    }
    stage.other(MemType::VRAM, Content::Image);
    stage.own(MemType::VRAM, Content::Image);
}

/// VRAM is full of others.
fn full(stage: &mut Stage, _: MemType) {
    stage.other(MemType::VRAM, Content::Image);
    stage.other(MemType::VRAM, Content::Image);
    stage.own(MemType::SYSTEM, Content::Image);
}

fn directions() -> Vec<Operation> {
    let types = [MemType::SYSTEM, MemType::TT, MemType::VRAM];
    let mut all = Vec::new();
    for (mode, hop) in [
        (RouteMode::Engine, false),
        (RouteMode::Engine, true),
        (RouteMode::Cpu, false),
        (RouteMode::Cpu, true),
    ] {
        for from in types {
            for to in types.into_iter().filter(|to| *to != from) {
                let mut op = operation(
                    &format!(
                        "move {from}->{to} {mode:?}{}",
                        if hop { " hop" } else { "" }
                    ),
                    |stage, from| stage.own(from, Content::Image),
                    move |stage| stage.validate(&in_type(to)),
                );
                op.from = from;
                op.driver = SimDriver::new().routes(mode).hop(hop);
                all.push(op);
            }
        }
        let mut evict = operation(
            &format!("evict {mode:?}{}", if hop { " hop" } else { "" }),
            full,
            |stage| stage.validate(&vram()),
        );
        evict.driver = SimDriver::new().routes(mode).hop(hop);
        all.push(evict);
        let mut fresh = operation(
            &format!("validate fresh {mode:?}"),
            |_, _| {},
            |stage| {
                let device = &stage.world.device;
                let bo = device.create(BoInfo::new(SIZE), ())?;
                stage.exec(|_| Ok(()))?;
                stage.world.validate(&bo, &vram())?;
                let mut found = vec![1; SIZE as usize];
                stage.world.with(&bo, |r| r.read(0, &mut found))?;
                assert!(found.iter().all(|b| *b == 0), "I-14");
                Ok(())
            },
        );
        fresh.driver = SimDriver::new().routes(mode).hop(hop);
        all.push(fresh);
    }
    all
}

/// What is done to and through windows.
fn windows() -> Vec<Operation> {
    let types = [MemType::SYSTEM, MemType::TT, MemType::VRAM];
    let look = |stage: &Stage| stage.sight().populate();
    let mut all = Vec::new();
    for mode in [RouteMode::Engine, RouteMode::Cpu] {
        for (from, to) in types.into_iter().flat_map(|a| types.map(|b| (a, b))) {
            let mut op = operation(
                &format!("move {from}->{to} {mode:?} under windows"),
                |stage, from| stage.own_in_sight(from, Content::Image),
                move |stage| {
                    stage.validate(&in_type(to))?;
                    look(stage)
                },
            );
            op.from = from;
            op.driver = SimDriver::new().routes(mode);
            all.push(op);
        }
    }
    let swapped = |stage: &mut Stage, _| {
        stage.own_in_sight(MemType::SYSTEM, Content::Image);
        let world = &stage.world;
        world.with(&stage.own[0].bo, |r| r.swap_out()).unwrap();
    };
    let evicted = |stage: &mut Stage, _| {
        stage.own_in_sight(MemType::VRAM, Content::Image);
        let device = &stage.world.device;
        device.evict_all(MemType::VRAM, OpContext::new()).unwrap();
    };
    let in_system = |stage: &mut Stage, _| stage.own_in_sight(MemType::SYSTEM, Content::Image);
    let in_vram = |stage: &mut Stage, _| stage.own_in_sight(MemType::VRAM, Content::Image);
    all.push(operation(
        "swap out under windows",
        in_system,
        move |stage| {
            stage.swap_out()?;
            look(stage)
        },
    ));
    all.push(operation(
        "evict all under windows",
        in_vram,
        move |stage| {
            stage.validate(&vram())?;
            let device = &stage.world.device;
            device.evict_all(MemType::VRAM, OpContext::new())?;
            look(stage)
        },
    ));
    all.push(operation(
        "switch modes under windows",
        in_system,
        move |stage| {
            for mode in [CacheMode::WriteCombined, CacheMode::Cached] {
                stage.validate(&in_mode(MemType::SYSTEM, mode))?;
            }
            look(stage)
        },
    ));
    all.push(operation(
        "an access to what is swapped",
        swapped,
        |stage| stage.sight().touch(),
    ));
    all.push(operation("an access after an eviction", evicted, |stage| {
        stage.sight().touch()
    }));
    all.push(operation("calls through a window", swapped, |stage| {
        let window = &stage.sight().whole;
        let mut bytes = [0; 4096];
        window.read_at(8192, &mut bytes)?;
        window.write_at(8192, &bytes)
    }));
    all.push(operation("open a window", in_system, |stage| {
        stage.sight().another(&stage.own[0].bo)
    }));
    all.push(operation("pin a window", in_system, |stage| {
        drop(stage.sight().part.pin()?);
        Ok(())
    }));
    all.push(operation("vmap", swapped, |stage| {
        let bo = &stage.own[0].bo;
        stage.exec(|t| {
            let reserved = t.lock(bo)?;
            let map = reserved.vmap(2..6)?;
            let mut bytes = [0; 4096];
            map.read(4096, &mut bytes)?;
            map.write(4096, &bytes)
        })
    }));
    all
}

/// What is done to objects that are lent, and by those who have them.
fn shares() -> Vec<Operation> {
    const NEAR: PeerPath = PeerPath::BusAddress { hops: 4 };
    let types = [MemType::SYSTEM, MemType::TT, MemType::VRAM];
    let dynamic = || AttachInfo::new("context").dynamic();
    let mut all = Vec::new();
    for from in types {
        let mut op = operation(
            &format!("lend from {from}"),
            |stage, from| stage.own(from, Content::Image),
            move |stage| {
                let lent = stage.lend(AttachInfo::new("context"))?;
                lent.reads(&stage.words())?;
                lent.unmap()?;
                lent.map()?;
                lent.unmap()
            },
        );
        op.from = from;
        all.push(op);
    }
    for mode in [RouteMode::Engine, RouteMode::Cpu] {
        for (from, to) in types.into_iter().flat_map(|a| types.map(|b| (a, b))) {
            let mut op = operation(
                &format!("move {from}->{to} {mode:?}, lent"),
                |stage, from| stage.own_lent(from, AttachInfo::new("context").dynamic()),
                move |stage| {
                    stage.validate(&in_type(to))?;
                    stage.lent_reads()
                },
            );
            op.from = from;
            op.driver = SimDriver::new().routes(mode);
            all.push(op);
        }
    }
    all.push(operation(
        "lend device memory, and to one who does not reach it",
        |stage, _| {
            stage.own_lent(
                MemType::VRAM,
                AttachInfo::new("near").dynamic().through(NEAR),
            );
        },
        move |stage| {
            stage.validate(&vram())?;
            stage.lent_reads()?;
            let far = stage.lend(dynamic().migrating())?;
            far.reads(&stage.words())?;
            stage.lent_reads()
        },
    ));
    all.push(operation(
        "swap out, lent",
        |stage, _| stage.own_lent(MemType::SYSTEM, AttachInfo::new("context").revocable()),
        |stage| {
            stage.swap_out()?;
            stage.lent_reads()
        },
    ));
    all.push(operation(
        "pin, revoke and bracket what is lent",
        |stage, _| {
            let info = AttachInfo::new("context").dynamic().revocable();
            stage.own_lent(MemType::TT, info);
        },
        move |stage| {
            let lent = stage.lent();
            lent.with(|bo| lent.attached.pin(bo))?;
            let access = lent.shared.begin_cpu(OpContext::new(), Direction::Both);
            let read = access.and_then(|access| {
                lent.reads(&stage.words())?;
                access.end(OpContext::new())
            });
            // Whatever became of that, the pin is undone.
            let mut undone = lent.with(|bo| lent.attached.unpin(bo));
            while let Err(Error::Busy | Error::Backend(_)) = &undone {
                stage.world.inject.clear();
                undone = lent.with(|bo| lent.attached.unpin(bo));
            }
            undone.and(read)?;
            lent.shared.revoke(OpContext::new())?;
            lent.reads(&stage.words())
        },
    ));
    all.push(operation(
        "lend to a crowd's victim",
        |stage, _| {
            crowded(stage, MemType::SYSTEM);
            let lent = stage
                .lend(AttachInfo::new("near").dynamic().through(NEAR))
                .unwrap();
            stage.lent = Some(lent);
        },
        move |stage| {
            stage.lent_reads()?;
            let far = stage.lend(dynamic().migrating().through(NEAR))?;
            far.reads(&stage.words())
        },
    ));
    all
}

fn operations() -> Vec<Operation> {
    let mut all = directions();
    all.extend(windows());
    all.extend(shares());
    all.push(operation(
        "create",
        |_, _| {},
        |stage| {
            let device = &stage.world.device;
            let bo = device.create(BoInfo::new(SIZE), ())?;
            stage.exec(|_| Ok(()))?;
            drop(bo);
            Ok(())
        },
    ));
    all.push(operation("create in system, populate", full, |stage| {
        let device = &stage.world.device;
        let bo = device.create(BoInfo::new(SIZE), ())?;
        stage.world.validate(&bo, &system())?;
        stage.world.with(&bo, |r| r.populate())
    }));
    all.push(operation(
        "discard",
        |stage, _| stage.own(MemType::VRAM, Content::Thrown),
        |stage| stage.validate(&Placement::new()),
    ));
    all.push(operation(
        "evict what is not needed",
        |stage, _| {
            for _ in 0..2 {
                stage.other(MemType::VRAM, Content::Dispensable);
            }
            for item in &*stage.others.lock() {
                let advised = stage
                    .world
                    .with(&item.bo, |r| Ok(r.advise(Advice::DontNeed)));
                assert!(advised.unwrap());
            }
            stage.own(MemType::SYSTEM, Content::Image);
        },
        |stage| stage.validate(&vram()),
    ));
    all.push(operation(
        "swap out",
        |stage, _| stage.own(MemType::SYSTEM, Content::Image),
        |stage| {
            let bo = &stage.own[0].bo;
            stage.exec(|t| t.lock(bo)?.swap_out())
        },
    ));
    let swapped: fn(&mut Stage, MemType) = |stage, _| {
        stage.own(MemType::SYSTEM, Content::Image);
        let bo = &stage.own[0].bo;
        stage.world.with(bo, |r| r.swap_out()).unwrap();
    };
    all.push(operation("swap in", swapped, |stage| {
        let bo = &stage.own[0].bo;
        stage.exec(|t| t.lock(bo)?.populate())
    }));
    all.push(operation("read what is swapped", swapped, |stage| {
        let bo = &stage.own[0].bo;
        stage.exec(|t| t.lock(bo)?.read(0, &mut [0; 64]))
    }));
    all.push(operation("validate what is swapped", swapped, |stage| {
        stage.validate(&vram())
    }));
    all.push(operation(
        "reclaim",
        |stage, _| {
            for _ in 0..4 {
                stage.other(MemType::SYSTEM, Content::Image);
            }
            stage.other(MemType::TT, Content::Image);
            stage.own(MemType::VRAM, Content::Image);
        },
        |stage| stage.validate(&tt()),
    ));
    let pinned: fn(&mut Stage, MemType) = |stage, _| {
        stage.other(MemType::VRAM, Content::Image);
        stage.own(MemType::VRAM, Content::Image);
        let bo = &stage.own[0].bo;
        stage
            .world
            .with(bo, |r| {
                r.pin();
                Ok(())
            })
            .unwrap();
    };
    all.push(operation("suspend", pinned, |stage| {
        stage.world.device.suspend(OpContext::new()).map(drop)
    }));
    all.push(operation(
        "resume",
        |stage, _| {
            stage.own(MemType::VRAM, Content::Image);
            let bo = &stage.own[0].bo;
            stage
                .world
                .with(bo, |r| {
                    r.pin();
                    Ok(())
                })
                .unwrap();
            stage.world.device.suspend(OpContext::new()).unwrap();
        },
        |stage| stage.world.device.resume(OpContext::new()).map(drop),
    ));
    all.push(operation(
        "prepare a suspend, and leave it at that",
        pinned,
        |stage| {
            let context = OpContext::new();
            stage.world.device.prepare_suspend(context).map(drop)
        },
    ));
    all.push(operation(
        "suspend what does not fit at once",
        crowded,
        |stage| stage.world.device.suspend(OpContext::new()).map(drop),
    ));
    // Blocks of eight pages that are aligned so: there are two.
    let mut op = operation(
        "find addresses that others have",
        |stage, _| {
            stage.other(MemType::TT, Content::Image);
            stage.other(MemType::TT, Content::Image);
            stage.own(MemType::SYSTEM, Content::Image);
        },
        |stage| stage.validate(&tt()),
    );
    op.setup.found = Found::Scarce(24);
    all.push(op);
    let written_combined = CacheMode::WriteCombined;
    all.push(operation(
        "switch the mode where it is",
        |stage, _| stage.own(MemType::TT, Content::Image),
        move |stage| stage.validate(&in_mode(MemType::TT, written_combined)),
    ));
    for from in [MemType::SYSTEM, MemType::VRAM] {
        let mut op = operation(
            &format!("move {from}->tt in another mode"),
            |stage, from| {
                stage.own(from, Content::Image);
                let bo = &stage.own[0].bo;
                let explicit = in_mode(from, CacheMode::Cached);
                stage.world.validate(bo, &explicit).unwrap();
            },
            move |stage| stage.validate(&in_mode(MemType::TT, written_combined)),
        );
        op.from = from;
        all.push(op);
    }
    all.push(operation(
        "switch the mode of device memory",
        |stage, _| stage.own(MemType::VRAM, Content::Image),
        |stage| stage.validate(&in_mode(MemType::VRAM, CacheMode::Uncached)),
    ));
    all.push(operation(
        "read what has another mode and is swapped",
        |stage, _| {
            stage.own(MemType::SYSTEM, Content::Image);
            let bo = &stage.own[0].bo;
            let combined = in_mode(MemType::SYSTEM, CacheMode::WriteCombined);
            stage.world.validate(bo, &combined).unwrap();
            stage.world.with(bo, |r| r.swap_out()).unwrap();
        },
        |stage| {
            let bo = &stage.own[0].bo;
            stage.exec(|t| t.lock(bo)?.read(PAGE, &mut [0; 64]))
        },
    ));
    all.push(operation("evict all", full, |stage| {
        let device = &stage.world.device;
        device.evict_all(MemType::VRAM, OpContext::new()).map(drop)
    }));
    all.push(operation(
        "pin and unpin",
        |stage, _| stage.own(MemType::VRAM, Content::Image),
        |stage| {
            let bo = &stage.own[0].bo;
            stage.exec(|t| {
                let reserved = t.lock(bo)?;
                reserved.pin();
                reserved.unpin()
            })
        },
    ));
    all.push(operation(
        "several at once",
        |stage, _| {
            stage.other(MemType::VRAM, Content::Image);
            stage.other(MemType::VRAM, Content::Image);
            stage.own(MemType::SYSTEM, Content::Image);
            stage.own(MemType::TT, Content::Image);
        },
        |stage| {
            stage.exec(|t| {
                for item in &stage.own {
                    let reserved = t.lock(&item.bo)?;
                    reserved.validate(&vram())?;
                    reserved.reserve_fences(1)?;
                }
                Ok(())
            })
        },
    ));
    all.push(operation(
        "create within a limit",
        |stage, _| {
            let limits = Limits {
                max: pages(8),
                ..Limits::default()
            };
            stage.group.set_limits(MemType::VRAM, limits);
            let info = BoInfo::new(SIZE).group(&stage.group);
            let device = &stage.world.device;
            let bo = device
                .create_in(OpContext::new(), info, (), &vram())
                .unwrap();
            stage.world.write_image(&bo, 1, 1).unwrap();
            stage.others.lock().push(Item {
                bo,
                content: Content::Image,
            });
        },
        |stage| {
            let info = BoInfo::new(SIZE).group(&stage.group);
            let device = &stage.world.device;
            let bo = device.create(info, ())?;
            stage.world.validate(&bo, &vram()).map(drop)
        },
    ));
    all.push(operation(
        "release",
        |_, _| {},
        |stage| {
            let device = &stage.world.device;
            let bo = device.create(BoInfo::new(SIZE), ())?;
            stage.world.validate(&bo, &vram())?;
            drop(bo);
            device.reap();
            Ok(())
        },
    ));
    all
}

#[test]
fn every_operation_survives_the_failure_of_every_step() {
    let mut sites = BTreeSet::new();
    let mut complaints = Vec::new();
    let mut runs = 0;
    for operation in operations() {
        let stage = Stage::new(&operation);
        stage.world.inject.start_counting();
        (operation.act)(&stage).unwrap_or_else(|e| panic!("{}: {e:?}", operation.name));
        stage.settle();
        let probes = stage.world.inject.total();
        stage
            .compare(false)
            .unwrap_or_else(|e| panic!("{}: {e}", operation.name));
        stage
            .check()
            .unwrap_or_else(|e| panic!("{}: {e}", operation.name));
        stage.end();
        println!("{:3} probes  {}", probes, operation.name);
        for nth in 1..=probes {
            for fault in FAULTS {
                runs += 1;
                match fail(&operation, nth, fault) {
                    Ok(site) => sites.extend(site),
                    Err(why) => {
                        complaints
                            .push(format!("{}, probe {nth}, {fault:?}: {why}", operation.name));
                    }
                }
            }
        }
    }
    println!("{runs} failures, at {sites:?}");
    assert!(
        complaints.is_empty(),
        "{} complaints: {complaints:#?}",
        complaints.len()
    );
    for site in Site::ALL {
        assert!(sites.contains(site.name()), "{site} was never made to fail");
    }
}
