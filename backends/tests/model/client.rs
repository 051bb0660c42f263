//! A client: it carries operations out and knows what should come of them.

use backends::sim::{Checksum, Queue, SimDriver, checksum_words};
use placement::{CacheMode, MemType, Place, Placement};
use ttm::bo::{Bo, BoInfo, BulkGroup, Reserved, SharedReservation};
use ttm::context::{CancelToken, OpContext};
use ttm::driver::{Advice, Side};
use ttm::error::Error;
use ttm::fence::{Fence, Status, Usage};
use ttm::resource::{Group, Limits};
use ttm::sync::Arc;
use ttm::trace::{Event, Reason};

use crate::VRAM;
use crate::ops::{Op, SITES, Terms, To};
use crate::support::words::word;
use crate::support::{PAGE, World, bytes_of_moves, in_type, pages};

/// Whether others use the device at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Alone,
    Together,
}

/// What the reference knows of an object.
struct Object {
    bo: Bo<SimDriver>,
    words: Vec<u64>,
    pins: u32,
    needed: bool,
    purged: bool,
    shared: bool,
    grouped: bool,
}

pub(crate) struct Client<'w> {
    world: &'w World,
    mode: Mode,
    number: u64,
    queue: Queue,
    objects: Vec<Object>,
    sequence: u64,
    group: Arc<Group>,
    shared: SharedReservation,
    bulk: BulkGroup,
    protected: bool,
    sums: Vec<(Fence, Checksum, u64)>,
    fences: Vec<(Fence, Status)>,
}

type Outcome = Result<(), String>;

impl<'w> Client<'w> {
    pub(crate) fn new(world: &'w World, number: u64, mode: Mode) -> Self {
        Self {
            world,
            mode,
            number,
            queue: world.gpu.queue(number as usize),
            objects: Vec::new(),
            sequence: 0,
            group: Group::new("client", None),
            shared: SharedReservation::new(),
            bulk: world.device.bulk_group(),
            protected: false,
            sums: Vec::new(),
            fences: Vec::new(),
        }
    }

    fn alone(&self) -> bool {
        self.mode == Mode::Alone
    }

    fn pick(&self, number: u64) -> Option<usize> {
        let count = self.objects.len() as u64;
        (count > 0).then(|| (number % count) as usize)
    }

    /// Carries one operation out and compares.
    pub(crate) fn step(&mut self, op: &Op) -> Outcome {
        let order = self.alone().then(|| self.order());
        self.act(op, order.as_deref())?;
        self.hear_events();
        self.look_at_fences()?;
        if self.alone() {
            for object in &self.objects {
                if object.bo.is_locked() {
                    return Err(format!("I-70: object {} is left locked", object.bo.id()));
                }
            }
            let checked = self.world.device.check().map_err(|v| v.to_string())?;
            if checked.busy > 0 {
                return Err(format!("{checked:?}"));
            }
        }
        Ok(())
    }

    /// VRAM in the order of eviction.
    fn order(&self) -> Vec<u64> {
        let device = &self.world.device;
        let needed = (0..4).flat_map(|p| device.eviction_order(MemType::VRAM, p));
        let unneeded = device.unneeded(MemType::VRAM).into_iter();
        unneeded.chain(needed).collect()
    }

    fn act(&mut self, op: &Op, order: Option<&[u64]>) -> Outcome {
        if let Op::Create {
            pages,
            short,
            priority,
            how,
        } = *op
        {
            return self.create(pages * PAGE - short, priority, how);
        }
        let number = match *op {
            Op::Drop { object }
            | Op::Validate { object, .. }
            | Op::Throw { object }
            | Op::Write { object, .. }
            | Op::Read { object, .. }
            | Op::Fill { object, .. }
            | Op::Add { object, .. }
            | Op::Checksum { object }
            | Op::SwapOut { object }
            | Op::Populate { object }
            | Op::Pin { object }
            | Op::Unpin { object }
            | Op::Advise { object, .. }
            | Op::Priority { object, .. }
            | Op::Bulk { object, .. } => object,
            Op::Both { a, .. } => a,
            _ => 0,
        };
        let at = self.pick(number);
        match (op, at) {
            (Op::EvictAll { tt }, _) => self.evict_all(*tt),
            (Op::Sleep { ns }, _) => self.sleep(*ns),
            (Op::Suspend, _) => self.suspend(),
            (Op::Prepare, _) => self.prepare(),
            (Op::Shrink { pages: n }, _) => {
                self.world.device.pool().scan(pages(*n));
                Ok(())
            }
            (Op::Reclaim { pages: n }, _) => {
                self.world.device.reclaim().reclaim(pages(*n), false);
                self.hear_events();
                Ok(())
            }
            (Op::Limit { pages, protected }, _) => self.limit(*pages, *protected),
            (Op::Failing { site, nth, op }, _) => self.failing(SITES[*site], *nth, op),
            (_, None) => Ok(()),
            (Op::Drop { .. }, Some(at)) => self.drop_object(at),
            (Op::Validate { to, terms, .. }, Some(at)) => self.validate(at, *to, *terms, order),
            (Op::Throw { .. }, Some(at)) => self.throw(at),
            (Op::Write { part, .. }, Some(at)) => self.write(at, *part),
            (Op::Read { part, .. }, Some(at)) => self.read(at, *part),
            (Op::Fill { to, .. }, Some(at)) => self.kernel(at, *to, None),
            (Op::Add { to, addend, .. }, Some(at)) => self.kernel(at, *to, Some(*addend)),
            (Op::Checksum { .. }, Some(at)) => self.checksum(at),
            (Op::SwapOut { .. }, Some(at)) => self.swap_out(at),
            (Op::Populate { .. }, Some(at)) => self.populate(at),
            (Op::Pin { .. }, Some(at)) => self.pin(at),
            (Op::Unpin { .. }, Some(at)) => self.unpin(at),
            (Op::Advise { needed, .. }, Some(at)) => self.advise(at, *needed),
            (Op::Priority { priority, .. }, Some(at)) => {
                self.with(at, |r| r.set_priority(*priority)).map_err(told)
            }
            (Op::Bulk { member, .. }, Some(at)) => self.join(at, *member),
            (Op::Both { b, .. }, Some(at)) => self.both(at, *b),
            (Op::Create { .. }, _) => unreachable!("done above"),
        }
    }

    fn with<R>(
        &self,
        at: usize,
        f: impl FnMut(&Reserved<'_, SimDriver>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.world.with(&self.objects[at].bo, f)
    }

    fn create(&mut self, bytes: u64, priority: u8, how: u64) -> Outcome {
        let mut info = BoInfo::new(bytes).priority(priority);
        let shared = how == 1;
        if shared {
            info = info.reservation(&self.shared);
        }
        let grouped = how == 2;
        if grouped {
            info = info.group(&self.group);
        }
        let bo = self.world.device.create(info, ()).map_err(told)?;
        let words = vec![0; (bo.pages().bytes() / 8) as usize];
        self.objects.push(Object {
            bo,
            words,
            pins: 0,
            needed: true,
            purged: false,
            shared,
            grouped,
        });
        Ok(())
    }

    fn drop_object(&mut self, at: usize) -> Outcome {
        let object = self.objects.swap_remove(at);
        self.world
            .with(&object.bo, |r| {
                for _ in 0..object.pins {
                    r.unpin()?;
                }
                Ok(())
            })
            .map_err(told)
    }

    fn sleep(&self, ns: u64) -> Outcome {
        if let Some(clock) = &self.world.clock {
            clock.sleep(ns);
        }
        Ok(())
    }

    /// Whether everything that the validate needs is there for the taking, so that it may not
    /// fail.
    fn must_fit(&self, at: usize, to: To) -> bool {
        let object = &self.objects[at];
        if !self.alone() || self.protected || object.grouped || object.purged {
            return false;
        }
        // What shares its reservation is held with it and stays.
        if object.shared {
            return false;
        }
        // Pins cut memory into pieces, and pinned pages of the system are not swapped.
        let pinned = self.objects.iter().any(|o| o.pins > 0);
        let tt_only = matches!(to, To::Tt | To::Combined);
        !pinned && !tt_only && !matches!(to, To::DesiredVram)
    }

    fn validate(&mut self, at: usize, to: To, terms: Terms, order: Option<&[u64]>) -> Outcome {
        let placement = placement(to);
        let before = self.with(at, |r| Ok(r.mem_type())).map_err(told)?;
        if self.alone() {
            self.hear_events();
        }
        let token = CancelToken::new();
        let context = match terms {
            Terms::Patient => OpContext::new(),
            Terms::Hasty => OpContext::new().without_waiting(),
            Terms::Cancelled => OpContext::new().cancelled_by(&token),
            Terms::Late => OpContext::new().until(self.world.device.clock().now()),
        };
        if matches!(terms, Terms::Cancelled) {
            token.cancel();
        }
        let result = self
            .world
            .validate_with(context, &self.objects[at].bo, &placement);
        let after = self.with(at, |r| Ok(r.mem_type())).map_err(told)?;
        let id = self.objects[at].bo.id();
        match &result {
            Ok(moved) if self.alone() => {
                let events = self.world.log.events();
                let in_events = bytes_of_moves(&events);
                if *moved != in_events {
                    return Err(format!(
                        "I-08: {moved} bytes moved, {in_events} in the events"
                    ));
                }
                // TT may be a stop on the way of a move that failed; there nothing stays.
                let satisfied = matches!(
                    (to, before),
                    (
                        To::Vram
                            | To::VramTopDown
                            | To::DesiredVram
                            | To::VramOrSystem
                            | To::VramUncached,
                        Some(MemType::VRAM)
                    ) | (To::System | To::Uncached, Some(MemType::SYSTEM))
                );
                if satisfied && *moved > 0 {
                    return Err(format!("I-08: needless move of object {id}"));
                }
                if let Some(order) = order.filter(|_| !self.protected) {
                    victims_in_order(&events, id, order).map_err(|e| e + &self.last_events())?;
                }
            }
            Ok(_) => {}
            Err(error) => self.judge(at, to, terms, error)?,
        }
        let there =
            after.is_some_and(|after| placement.places().iter().any(|p| p.mem_type == after));
        if result.is_ok() && !there && self.alone() {
            return Err(format!("I-06: object {id} is in {after:?}"));
        }
        // On the way it may have stopped in TT.
        let hop = after == Some(MemType::TT);
        if result.is_err() && self.alone() && after != before && !hop {
            return Err(format!(
                "I-65: a failed validate moved object {id} to {after:?}"
            ));
        }
        Ok(())
    }

    /// Whether the call may answer so.
    fn judge(&self, at: usize, to: To, terms: Terms, error: &Error) -> Outcome {
        let object = &self.objects[at];
        let fine = match error {
            Error::Pinned => object.pins > 0,
            Error::OverLimit { .. } => object.grouped,
            Error::NoSpace(_) | Error::NoMemory { .. } => {
                !matches!(terms, Terms::Patient) || !self.must_fit(at, to)
            }
            Error::Busy => matches!(terms, Terms::Hasty),
            Error::Interrupted => matches!(terms, Terms::Cancelled),
            Error::TimedOut => matches!(terms, Terms::Late),
            _ => false,
        };
        if fine {
            Ok(())
        } else {
            let last = self.last_events();
            let budget = self.world.device.system_budget();
            Err(format!("unexpected {error}; {budget:?}; {last}"))
        }
    }

    /// What happened last, for people.
    fn last_events(&self) -> String {
        let events = self.world.device.events();
        let last = &events[events.len().saturating_sub(16)..];
        last.iter()
            .map(|r| format!("\n    {:?} {}", r.at, r.event))
            .collect()
    }

    fn throw(&mut self, at: usize) -> Outcome {
        match self.world.validate(&self.objects[at].bo, &Placement::new()) {
            Ok(_) => {
                let object = &mut self.objects[at];
                object.words.fill(0);
                object.purged = false;
                if self.alone() {
                    self.world.log.take();
                }
                Ok(())
            }
            Err(Error::Pinned) if self.objects[at].pins > 0 => Ok(()),
            Err(error) => Err(told(error)),
        }
    }

    /// A range of whole words inside the object's bytes.
    fn part(&self, at: usize, part: u64) -> (usize, usize) {
        let words = (self.objects[at].bo.bytes() / 8) as usize;
        let first = part as usize % words;
        let count = 1 + (part >> 32) as usize % (words - first);
        if part.is_multiple_of(5) {
            (0, words)
        } else {
            (first, count)
        }
    }

    fn write(&mut self, at: usize, part: u64) -> Outcome {
        let (first, count) = self.part(at, part);
        self.sequence += 1;
        let tag = self.objects[at].bo.id();
        let new: Vec<u64> = (first..first + count)
            .map(|n| word(tag, self.number, n as u64, self.sequence))
            .collect();
        let bytes: Vec<u8> = new.iter().flat_map(|w| w.to_le_bytes()).collect();
        let result = self.with(at, |r| r.write(first as u64 * 8, &bytes));
        self.hear_events();
        match result {
            Ok(()) if self.objects[at].purged => Err("a purged object was written".into()),
            Ok(()) => {
                self.objects[at].words[first..first + count].copy_from_slice(&new);
                Ok(())
            }
            Err(error) => self.judge_access(at, error),
        }
    }

    fn read(&mut self, at: usize, part: u64) -> Outcome {
        let (first, count) = self.part(at, part);
        let mut bytes = vec![0xa5; count * 8];
        let result = self.with(at, |r| r.read(first as u64 * 8, &mut bytes));
        self.hear_events();
        match result {
            Ok(()) if self.objects[at].purged => Err("a purged object was read".into()),
            Ok(()) => self.compare(at, first, &bytes),
            Err(error) => self.judge_access(at, error),
        }
    }

    fn compare(&self, at: usize, first: usize, bytes: &[u8]) -> Outcome {
        let object = &self.objects[at];
        for (n, found) in bytes.chunks_exact(8).enumerate() {
            let found = u64::from_le_bytes(found.try_into().expect("eight"));
            let expected = object.words[first + n];
            if found != expected {
                return Err(format!(
                    "I-12: object {} byte {}: {found:016x}, expected {expected:016x}\n{}",
                    object.bo.id(),
                    (first + n) * 8,
                    self.world.device.explain(object.bo.id())
                ));
            }
        }
        Ok(())
    }

    /// Whether an access may answer so. Swapping in fails only where much is pinned, or where
    /// others hold what could be swapped out.
    fn judge_access(&self, at: usize, error: Error) -> Outcome {
        let object = &self.objects[at];
        let pinned = self.objects.iter().any(|o| o.pins > 0);
        match error {
            Error::Purged if object.purged => Ok(()),
            Error::NoMemory { .. } if pinned || object.shared || !self.alone() => Ok(()),
            error => Err(told(error)),
        }
    }

    /// Fills by a kernel, or adds to every word.
    fn kernel(&mut self, at: usize, to: Option<To>, addend: Option<u64>) -> Outcome {
        let device = &self.world.device;
        let bo = self.objects[at].bo.clone();
        let placement = to.map(placement);
        let locked = device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            if let Some(placement) = &placement {
                reserved.validate(placement)?;
            }
            reserved.reserve_fences(1)?;
            let side = reserved.side()?;
            Ok((side, reserved.fences(Usage::Read)))
        });
        let locked = match locked {
            Ok(locked) => locked,
            Err(error) => {
                self.hear_events();
                return match to {
                    Some(to) if !matches!(error, Error::Purged) => {
                        self.judge(at, to, Terms::Patient, &error)
                    }
                    _ => self.judge_access(at, error),
                };
            }
        };
        let (side, after): (Side, Vec<Fence>) = locked.value().clone();
        self.sequence += 1;
        let (tag, number, sequence) = (bo.id(), self.number, self.sequence);
        let fill = move |n| word(tag, number, n, sequence);
        let fence = match addend {
            None => self.queue.fill_with(&side, fill, after),
            Some(addend) => self.queue.add(&side, addend, after),
        };
        let fence = fence.map_err(told)?;
        locked.fence_all(&fence, Usage::Write);
        drop(locked);
        self.fences.push((fence, Status::Pending));
        self.hear_events();
        let words = self.objects[at].words.iter_mut();
        for (n, w) in words.enumerate() {
            *w = match addend {
                None => fill(n as u64),
                Some(addend) => w.wrapping_add(addend),
            };
        }
        Ok(())
    }

    fn checksum(&mut self, at: usize) -> Outcome {
        let device = &self.world.device;
        let bo = self.objects[at].bo.clone();
        let locked = device.exec(OpContext::new(), |t| {
            let reserved = t.lock(&bo)?;
            reserved.reserve_fences(1)?;
            Ok((reserved.side()?, reserved.fences(Usage::Write)))
        });
        let locked = match locked {
            Ok(locked) => locked,
            Err(error) => {
                self.hear_events();
                return self.judge_access(at, error);
            }
        };
        let (side, after) = locked.value().clone();
        let (fence, sum) = self.queue.checksum(&side, after).map_err(told)?;
        locked.fence_all(&fence, Usage::Read);
        drop(locked);
        let expected = checksum_words(self.objects[at].words.iter().copied());
        self.fences.push((fence.clone(), Status::Pending));
        self.sums.push((fence, sum, expected));
        Ok(())
    }

    fn evict_all(&mut self, tt: bool) -> Outcome {
        let mem_type = if tt { MemType::TT } else { MemType::VRAM };
        let result = self.world.device.evict_all(mem_type, OpContext::new());
        self.hear_events();
        result.map(drop).map_err(told)?;
        let device = &self.world.device;
        let left = device.eviction_order(mem_type, 0).len() + device.unneeded(mem_type).len();
        let pinned = self.objects.iter().any(|o| o.pins > 0 || o.shared);
        if self.alone() && left > 0 && !pinned && !self.protected {
            return Err(format!(
                "{left} objects stayed in {mem_type}{}",
                self.last_events()
            ));
        }
        Ok(())
    }

    fn swap_out(&mut self, at: usize) -> Outcome {
        match self.with(at, |r| r.swap_out()) {
            Ok(()) => Ok(()),
            Err(Error::Pinned) if self.objects[at].pins > 0 => Ok(()),
            // In device memory, or nowhere.
            Err(Error::Invalid(_)) => Ok(()),
            // Another client has filled the backup.
            Err(Error::Backup(_)) if !self.alone() => Ok(()),
            Err(error) => Err(told(error)),
        }
    }

    fn populate(&mut self, at: usize) -> Outcome {
        match self.with(at, |r| r.populate()) {
            Ok(()) | Err(Error::Invalid(_)) => Ok(()),
            Err(error) => {
                self.hear_events();
                self.judge_access(at, error)
            }
        }
    }

    fn pin(&mut self, at: usize) -> Outcome {
        // Few, and of the small ones, so that the rest can still move.
        let pinned = self.objects.iter().filter(|o| o.pins > 0).count();
        if pinned >= 2 || self.objects[at].bo.pages().get() > 8 {
            return Ok(());
        }
        self.with(at, |r| {
            r.pin();
            Ok(())
        })
        .map_err(told)?;
        self.objects[at].pins += 1;
        Ok(())
    }

    fn unpin(&mut self, at: usize) -> Outcome {
        match self.with(at, |r| r.unpin()) {
            Ok(()) if self.objects[at].pins > 0 => {
                self.objects[at].pins -= 1;
                Ok(())
            }
            Err(Error::Invalid(_)) if self.objects[at].pins == 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn advise(&mut self, at: usize, needed: bool) -> Outcome {
        if !self.alone() {
            return Ok(());
        }
        let advice = if needed {
            Advice::WillNeed
        } else {
            Advice::DontNeed
        };
        let retained = self.with(at, |r| Ok(r.advise(advice))).map_err(told)?;
        let object = &mut self.objects[at];
        object.needed = needed;
        if retained == object.purged {
            return Err(format!("retained: {retained}, purged: {}", object.purged));
        }
        Ok(())
    }

    fn join(&mut self, at: usize, member: bool) -> Outcome {
        let bulk = member.then_some(&self.bulk);
        match self.with(at, |r| r.set_bulk(bulk)) {
            Ok(()) if self.objects[at].shared || !member => Ok(()),
            Err(Error::Invalid(_)) if !self.objects[at].shared => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn limit(&mut self, max: u64, protected: bool) -> Outcome {
        // Protection only where nobody else is kept from what he needs.
        self.protected = protected && self.alone();
        let min = if self.protected { max / 4 } else { 0 };
        let limits = Limits {
            min: pages(min),
            low: pages(min * 2),
            max: pages(if max < 16 { VRAM } else { max }),
        };
        self.group.set_limits(MemType::VRAM, limits);
        Ok(())
    }

    /// An operation in which one step fails. Whatever it answers, contents and invariants hold.
    fn failing(&mut self, site: &str, nth: u64, op: &Op) -> Outcome {
        // A write that fails half way has written half; together, others would meet the fault.
        if !self.alone() || matches!(op, Op::Write { .. } | Op::Failing { .. }) {
            return Ok(());
        }
        self.world.inject.fail(site, nth, false);
        let result = self.act(op, None);
        self.world.inject.clear();
        self.hear_events();
        match result {
            Err(why) if why.starts_with("I-") => Err(why),
            _ => Ok(()),
        }
    }

    /// Two objects resident at once, in one transaction.
    fn both(&mut self, a: usize, b: u64) -> Outcome {
        let b = self.pick(b).expect("there is one");
        if a == b {
            return Ok(());
        }
        let (one, two) = (&self.objects[a].bo, &self.objects[b].bo);
        let vram = in_type(MemType::VRAM);
        let result = self.world.device.exec(OpContext::new(), |t| {
            t.lock(one)?.validate(&vram)?;
            t.lock(two)?.validate(&vram)?;
            Ok(())
        });
        let result = result.map(drop);
        self.hear_events();
        match result {
            Ok(()) => Ok(()),
            Err(error) => self
                .judge(a, To::Vram, Terms::Patient, &error)
                .or_else(|_| self.judge(b, To::Vram, Terms::Patient, &error)),
        }
    }

    /// Room is put by for a suspend, and given back. What does not fit is told, and nothing more.
    fn prepare(&mut self) -> Outcome {
        self.hear_events();
        let used = self.world.device.system_budget().used();
        let prepared = self.world.device.prepare_suspend(OpContext::new());
        let result = match prepared {
            Ok(prepared) => {
                // Others have victims in hand.
                let all = match self.alone() {
                    true => self.world.device.check().map(drop),
                    false => Ok(()),
                };
                drop(prepared);
                all.map_err(|violation| violation.to_string())
            }
            Err(Error::Shortfall(_) | Error::NoMemory { .. } | Error::Busy) => Ok(()),
            Err(error) => Err(told(error)),
        };
        let moved = self.moved_out();
        self.hear_events();
        let after = self.world.device.system_budget().used();
        if self.alone() && after > used && !moved {
            return Err(format!("I-65: {after} in use, {used} before"));
        }
        result
    }

    /// Whether something left device memory by the last call.
    fn moved_out(&self) -> bool {
        let events = self.world.log.events();
        let out = |e: &Event| {
            matches!(
                e,
                Event::Moved {
                    from: Some(MemType::VRAM),
                    ..
                }
            )
        };
        events.iter().any(out)
    }

    /// The device sleeps, forgets its memory, and wakes.
    fn suspend(&mut self) -> Outcome {
        if !self.alone() {
            return Ok(());
        }
        let device = &self.world.device;
        let suspended = device.suspend(OpContext::new());
        self.hear_events();
        match suspended {
            Ok(_) => {}
            Err(Error::NoMemory { .. } | Error::Shortfall(_))
                if self.objects.iter().any(|o| o.pins > 0) =>
            {
                // Nothing is lost by half a suspend.
                return self
                    .world
                    .device
                    .resume(OpContext::new())
                    .map(drop)
                    .map_err(told);
            }
            Err(error) => {
                self.world.inject.clear();
                self.world
                    .device
                    .resume(OpContext::new())
                    .map_err(|e| format!("I-65: after {error:?}: {e:?}"))?;
                return Err(told(error));
            }
        }
        for object in &self.objects {
            self.world.settle(&object.bo);
        }
        let all = Side::Device {
            mem_type: MemType::VRAM,
            ranges: [placement::PageRange::new(0, VRAM).expect("in order")].into(),
        };
        let fence = self
            .queue
            .fill(&all, 0xdead_beef_dead_beef, [])
            .map_err(told)?;
        fence.wait(None).map_err(told)?;
        if self.world.device.resume(OpContext::new()).is_err() {
            // Call again, says the documentation.
            self.world.inject.clear();
            self.world.device.resume(OpContext::new()).map_err(told)?;
        }
        self.hear_events();
        Ok(())
    }

    /// Learns from the events what was thrown away.
    fn hear_events(&mut self) {
        if !self.alone() {
            return;
        }
        for event in self.world.log.take() {
            let object = self
                .objects
                .iter_mut()
                .find(|o| o.bo.id() == event.object());
            let Some(object) = object else {
                continue;
            };
            match event {
                Event::Discarded { why, .. } => {
                    object.words.fill(0);
                    object.purged = !object.needed && why != Reason::Validate;
                }
                // A place of the device has content, if only zeroes.
                Event::Moved { to, .. } if to != MemType::SYSTEM => object.purged = false,
                _ => {}
            }
        }
    }

    /// I-33 and I-34: a fence signals once, and in order on its timeline; sums are right.
    fn look_at_fences(&mut self) -> Outcome {
        for (fence, last) in &mut self.fences {
            let now = fence.status();
            if *last != Status::Pending && *last != now {
                return Err(format!("I-33: {fence:?} was {last:?}"));
            }
            if matches!(now, Status::Failed(_)) {
                return Err(format!("{fence:?} failed"));
            }
            *last = now;
        }
        for pair in self.fences.windows(2) {
            let (earlier, later) = (&pair[0], &pair[1]);
            if later.1 == Status::Done && earlier.1 == Status::Pending && later.0.covers(&earlier.0)
            {
                // It may have signalled between the two looks.
                if !earlier.0.is_signalled() {
                    return Err(format!("I-34: {:?} before {:?}", later.0, earlier.0));
                }
            }
        }
        let mut wrong = None;
        self.sums.retain(|(fence, sum, expected)| {
            if !fence.is_signalled() {
                return true;
            }
            if sum.get() != Some(*expected) {
                wrong = Some(format!(
                    "I-12: a kernel summed {sum:?}, expected {expected:x}"
                ));
            }
            false
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Compares everything, then goes; nothing of the client stays (I-58).
    pub(crate) fn leave(mut self) -> Outcome {
        for at in 0..self.objects.len() {
            // Others may hold the system's pages for the moment; then it is looked at in place.
            self.read(at, 0)?;
        }
        for (fence, _) in &self.fences {
            fence.wait(None).map_err(told)?;
        }
        self.look_at_fences()?;
        while !self.objects.is_empty() {
            self.drop_object(0)?;
        }
        if self.alone() {
            self.world
                .device
                .close(None)
                .map_err(|h| format!("I-58: {h:?}"))?;
            for mem_type in [MemType::VRAM, MemType::TT, MemType::SYSTEM] {
                if !self.group.used(mem_type).is_zero() {
                    return Err(format!("I-58: the group is charged in {mem_type}"));
                }
            }
        }
        Ok(())
    }
}

/// I-43: who left was the least recently used of those who could, and each one before it that
/// stayed has a reason.
fn victims_in_order(events: &[Event], wanted_by: u64, order: &[u64]) -> Outcome {
    let victims: Vec<u64> = events
        .iter()
        .filter_map(|e| match *e {
            Event::Moved {
                object, from, why, ..
            }
            | Event::Discarded {
                object, from, why, ..
            } => {
                // The first stop of a victim's way out is told as such.
                let leaves = matches!(why, Reason::Hop) || why == Reason::EvictedFor(wanted_by);
                let out = from == Some(MemType::VRAM) && object != wanted_by;
                (leaves && out).then_some(object)
            }
            _ => None,
        })
        .collect();
    // One that was given back meanwhile has left by itself.
    let excused = |id: u64| {
        events.iter().any(|e| match e {
            Event::PassedOver { object, .. } | Event::Released { object } => *object == id,
            _ => false,
        })
    };
    let mut at = 0;
    for victim in victims {
        while order.get(at).is_some_and(|id| *id != victim) {
            if !excused(order[at]) {
                return Err(format!(
                    "I-43: {victim} left before {} of {order:?}",
                    order[at]
                ));
            }
            at += 1;
        }
        if at == order.len() {
            // One that had to stay in the first round may leave in the next.
            let before = order.iter().position(|id| *id == victim);
            let again = before.filter(|_| excused(victim));
            let Some(again) = again else {
                return Err(format!("I-43: {victim} left out of turn, {order:?}"));
            };
            at = again;
        }
        at += 1;
    }
    Ok(())
}

fn placement(to: To) -> Placement {
    let vram = Place::new(MemType::VRAM);
    match to {
        To::Vram => Placement::of(vram),
        To::Tt => in_type(MemType::TT),
        To::System => in_type(MemType::SYSTEM),
        To::VramOrSystem => Placement::of(vram).with(Place::new(MemType::SYSTEM)),
        To::DesiredVram => {
            Placement::of(vram.desired()).with(Place::new(MemType::SYSTEM).fallback())
        }
        To::VramTopDown => Placement::of(vram.top_down()),
        To::VramUncached => Placement::of(vram.cached(CacheMode::Uncached)),
        To::Combined => {
            let tt = Place::new(MemType::TT);
            Placement::of(tt.cached(CacheMode::WriteCombined))
        }
        To::Uncached => {
            let system = Place::new(MemType::SYSTEM);
            Placement::of(system.cached(CacheMode::Uncached))
        }
    }
}

fn told(error: Error) -> String {
    format!("{error:?}: {error}")
}
