//! One move: space is taken, the content follows, the old place is given up.

use placement::{CacheMode, MemType, Place, PlaceFlags, Placement};
use smallvec::SmallVec;

use crate::bo::{BoCore, BoState, Content, Moving, OldPlace, span};
use crate::driver::{BoKind, CopyJob, EngineId, MoveFacts, Route, Side};
use crate::error::{Error, Result};
use crate::fault::Site;
use crate::fence::{Fence, FenceVec, Usage};
use crate::reservation::Held;
use crate::resource::{Ask, Home, Resource, Taken};
use crate::trace::{Event, How, Reason};
use crate::tt::{Fill, Tt};

/// A move that has been decided.
struct Move<'m> {
    /// The new space, until the object arrives there.
    new: Resource,
    /// Nothing may touch it before these.
    after: FenceVec,
    facts: &'m MoveFacts,
    /// The mode that its pages will have there.
    mode: CacheMode,
    ask: &'m Ask<'m>,
    since: crate::clock::Time,
}

impl BoCore {
    /// Moves the object into the space that was taken for it, through another place if the
    /// driver wants that.
    ///
    /// # Errors
    /// The object is where it was, or at the place on the way; nothing is lost.
    pub(super) fn migrate(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        taken: Taken,
        ask: &Ask<'_>,
        why: Reason,
    ) -> Result<()> {
        let injected = || Error::Backend("the start of a move was made to fail".into());
        self.device.probe(Site::MoveStart, injected)?;
        if self.device.is_lost() && !taken.resource.manager().uses_frames() {
            return Err(Error::DeviceLost);
        }
        // What the target cannot do is found out before anything happens.
        self.mode_in(state, &taken.resource)?;
        let (mut route, mut facts) = self.settled_route(held, state, &taken.resource, ask, why)?;
        if let Route::Hop(via) = route {
            self.hop(held, state, via, ask)?;
            (route, facts) = self.settled_route(held, state, &taken.resource, ask, why)?;
            if matches!(route, Route::Hop(_)) && facts.from != Some(via.mem_type) {
                let failed = "the copy to the place on the way failed";
                return Err(Error::Backend(failed.into()));
            }
        }
        self.perform(held, state, taken, route, &facts, ask)
    }

    /// Goes to a place on the way. From there the driver has to find a way without another.
    fn hop(&self, held: &Held<'_>, state: &mut BoState, via: Place, ask: &Ask<'_>) -> Result<()> {
        let placement = Placement::of(via.temporary());
        for forced in [false, true] {
            if let Some(taken) = self.find_space(state, &placement, forced, ask)? {
                let (route, facts) =
                    self.settled_route(held, state, &taken.resource, ask, Reason::Hop)?;
                return self.perform(held, state, taken, route, &facts, ask);
            }
        }
        Err(self.refusal(placement.places()))
    }

    /// How the content gets into `new` from where it really is: the last move is waited for if the
    /// content has to be found, for one that failed leaves it at the old place.
    fn settled_route(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        new: &Resource,
        ask: &Ask<'_>,
        why: Reason,
    ) -> Result<(Route, MoveFacts)> {
        let found = self.route(state, new, why);
        if state.moving.is_none() || matches!(found.0, Route::Null) {
            return Ok(found);
        }
        self.wait_for_move(held, state, ask)?;
        Ok(self.route(state, new, why))
    }

    /// How the content gets into `new`.
    fn route(&self, state: &BoState, new: &Resource, why: Reason) -> (Route, MoveFacts) {
        let facts = MoveFacts {
            from: state.mem_type(),
            to: new.mem_type(),
            range: span(new),
            has_content: state.content == Content::Kept,
            why,
        };
        let from_frames = state
            .resource
            .as_ref()
            .is_none_or(|old| old.manager().uses_frames());
        if new.manager().uses_frames() && from_frames {
            return (Route::Null, facts);
        }
        let bo = self.facts(state);
        (self.device.driver.route(&bo, &*self.object, &facts), facts)
    }

    fn perform(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        taken: Taken,
        route: Route,
        facts: &MoveFacts,
        ask: &Ask<'_>,
    ) -> Result<()> {
        let mode = self.mode_in(state, &taken.resource)?;
        self.enter_modes(&taken.resource, mode);
        let decided = Move {
            mode,
            new: taken.resource,
            after: taken.after,
            facts,
            ask,
            since: ask.ticket.now(!matches!(route, Route::Null)),
        };
        match route {
            Route::Null => self.move_nothing(held, state, decided),
            Route::Cpu => self.move_by_cpu(held, state, decided),
            Route::Clear(None) if !facts.has_content => self.move_by_cpu(held, state, decided),
            Route::Clear(Some(engine)) | Route::Engine(engine) => {
                self.move_by_engine(held, state, decided, engine)
            }
            Route::Clear(None) => Err(Error::Invalid("the driver wants to clear content")),
            Route::Hop(_) => Err(Error::Invalid("the driver wants two hops in a row")),
        }
    }

    /// Nothing is copied. Frames stay with the object if both places use them.
    fn move_nothing(&self, held: &Held<'_>, state: &mut BoState, decided: Move<'_>) -> Result<()> {
        let to_frames = decided.new.manager().uses_frames();
        let mode_before = state.mode;
        // Frames that stay what they are stay where views show them.
        let disturbs = !to_frames || !state.has_frames() || decided.mode != mode_before;
        if disturbs && !to_frames {
            self.prepare_views(
                &state.live_views(),
                &device_side(&decided.new),
                decided.mode,
            );
        }
        let ready = match disturbs {
            true => self.revoke_views(state),
            false => Ok(()),
        };
        if let Err(error) = ready.and_then(|()| self.make_ready_in_place(held, state, &decided)) {
            if to_frames && state.has_frames() {
                self.set_pages_mode(state, mode_before);
                self.unmap_pages(held, state);
            } else if to_frames {
                self.undo(&mut state.tt);
            }
            if disturbs {
                self.follow_views(state);
            }
            return Err(error);
        }
        // Whoever uses the object waits until its new space is free of its last owner.
        for fence in &decided.after {
            held.fences().add_move(fence.clone());
        }
        if !to_frames {
            let fences = pending(held);
            if let Some(tt) = state.tt.take() {
                self.device.retire_pages(tt, fences);
            }
        }
        self.arrive(held, state, decided, How::Null, None);
        self.unmap_pages(held, state);
        if disturbs {
            self.follow_views(state);
        }
        Ok(())
    }

    /// What can fail of a move that copies nothing.
    fn make_ready_in_place(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        decided: &Move<'_>,
    ) -> Result<()> {
        let to_frames = decided.new.manager().uses_frames();
        if to_frames && decided.facts.to != MemType::SYSTEM {
            self.populate_in(state, decided.mode, decided.ask)?;
            self.map_pages(state, decided.ask)?;
        }
        self.make_room_for(held, decided.after.len())?;
        if to_frames && decided.mode != state.mode && state.tt.is_some() {
            self.wait_idle(held, Usage::Bookkeep, decided.ask)?;
        }
        self.probe_commit()?;
        if to_frames && let Some(tt) = &mut state.tt {
            let fault = |site| self.device.fails(site);
            tt.set_mode(decided.mode, &self.device.supply(&fault))?;
        }
        Ok(())
    }

    /// The CPU copies or clears, after everything that uses either end.
    fn move_by_cpu(&self, held: &Held<'_>, state: &mut BoState, decided: Move<'_>) -> Result<()> {
        let ask = decided.ask;
        if self.opaque {
            return Err(Error::Invalid(
                "the driver has the CPU copy content that only engines understand",
            ));
        }
        self.wait_idle(held, Usage::Bookkeep, ask)?;
        for fence in &decided.after {
            self.wait_fence(fence, ask)?;
        }
        let (src, dst, mut fresh) = self.prepare(state, &decided, true)?;
        let how = if src == Side::Zero {
            How::Clear
        } else {
            How::Cpu
        };
        let copied = self
            .fill_under_views(state, &src, &dst, decided.mode)
            .and_then(|()| self.probe_commit());
        if let Err(error) = copied {
            self.undo(&mut fresh);
            self.follow_views(state);
            return Err(error);
        }
        let old_tt = exchange(state, fresh);
        if let Some(mut tt) = old_tt {
            tt.unpopulate(&self.device.supply(&|_| false));
        }
        self.arrive(held, state, decided, how, None);
        self.follow_views(state);
        Ok(())
    }

    /// An engine copies or clears, in its own time.
    fn move_by_engine(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        decided: Move<'_>,
        engine: EngineId,
    ) -> Result<()> {
        let Some(queue) = self.device.engines.get(usize::from(engine.0)) else {
            return Err(Error::Invalid(
                "the driver names an engine that is not there",
            ));
        };
        debug_assert!(state.moving.is_none(), "its last move has ended");
        let prepared = self.prepare(state, &decided, false);
        let (src, dst, mut fresh) = prepared.inspect_err(|_| self.unmap_pages(held, state))?;
        let how = if src == Side::Zero {
            How::Clear
        } else {
            How::Engine(engine.0)
        };
        // The object's own last move has ended. What became of others' work, on this object or on
        // the space before it was handed on, is not this move's business.
        let mut behind = pending(held);
        behind.extend(decided.after.iter().cloned());
        let job = CopyJob {
            object: self.id,
            pages: self.pages,
            dst,
            src,
            after: Vec::new(),
            behind,
        };
        let submitted = self
            .make_room_for(held, 1)
            .and_then(|()| self.probe_commit())
            .and_then(|()| self.revoke_views(state))
            .and_then(|()| queue.submit(job));
        let fence = match submitted {
            Ok(fence) => fence,
            Err(error) => {
                self.undo(&mut fresh);
                self.unmap_pages(held, state);
                self.follow_views(state);
                return Err(error);
            }
        };
        // The point of no return: nothing below fails.
        held.fences().add_move(fence.clone());
        let old_tt = exchange(state, fresh);
        self.arrive(held, state, decided, how, Some((fence, old_tt)));
        Ok(())
    }

    fn probe_commit(&self) -> Result<()> {
        let injected = || Error::Backend("a move was made to fail before its commit".into());
        self.device.probe(Site::MoveCommit, injected)
    }

    fn make_room_for(&self, held: &Held<'_>, fences: usize) -> Result<()> {
        for _ in 0..fences {
            self.device.probe(Site::FenceSlots, || {
                Error::no_memory(placement::PageCount::ZERO)
            })?;
        }
        held.fences().make_room_for_moves(fences)
    }

    /// Fresh memory of an object that users see reads as zero.
    fn must_clear(&self) -> bool {
        self.kind != BoKind::Kernel
    }

    /// The source, with its pages populated, the target, and fresh pages for that if it needs some.
    ///
    /// What the CPU overwrites at once need not be zero before. What an engine writes later must
    /// be: should it fail half-way, or lie, nobody sees what was there.
    fn prepare(
        &self,
        state: &mut BoState,
        decided: &Move<'_>,
        by_cpu: bool,
    ) -> Result<(Side, Side, Option<Box<Tt>>)> {
        let pages = |tt: &Tt| match by_cpu {
            true => frames(tt),
            false => self.device.frames_for_device(tt),
        };
        let to_frames = decided.new.manager().uses_frames();
        let from_frames = state
            .resource
            .as_ref()
            .is_some_and(|old| old.manager().uses_frames());
        let src = if !decided.facts.has_content {
            Side::Zero
        } else if from_frames {
            self.populate(state, decided.ask)?;
            if !by_cpu {
                self.map_pages(state, decided.ask)?;
            }
            pages(state.tt.as_ref().expect("just populated"))
        } else {
            match &state.resource {
                Some(old) => device_side(old),
                None => Side::Zero,
            }
        };
        if !to_frames {
            return Ok((src, device_side(&decided.new), None));
        }
        let fill = match by_cpu && src != Side::Zero {
            true => Fill::Overwritten,
            false => Fill::Zeroes,
        };
        let mut fresh = self.new_tt(decided.mode);
        let mut made = self.populate_tt(&mut fresh, fill, decided.ask);
        if made.is_ok() && (!by_cpu || decided.facts.to != MemType::SYSTEM) {
            made = self
                .device
                .map_tt(&mut fresh, self.id, decided.ask)
                .map(drop);
        }
        match made {
            Ok(()) => Ok((src, pages(&fresh), Some(fresh))),
            Err(error) => {
                self.undo(&mut Some(fresh));
                Err(error)
            }
        }
    }

    /// Copies by the CPU what has to be copied.
    fn fill(&self, src: &Side, dst: &Side) -> Result<()> {
        match (src, dst) {
            // Fresh frames are zero already.
            (Side::Zero, Side::Frames(_)) => Ok(()),
            (Side::Zero, _) if !self.must_clear() => Ok(()),
            _ => self.device.copy_by_cpu(src, dst),
        }
    }

    /// The same for an object that views may show.
    pub(super) fn fill_under_views(
        &self,
        state: &BoState,
        src: &Side,
        dst: &Side,
        mode: CacheMode,
    ) -> Result<()> {
        let views = state.live_views();
        if views.is_empty() {
            return self.fill(src, dst);
        }
        self.prepare_views(&views, dst, mode);
        self.copy_from_under(&views, state, || self.fill(src, dst), src, dst)
    }

    fn undo(&self, fresh: &mut Option<Box<Tt>>) {
        if let Some(mut tt) = fresh.take() {
            tt.unpopulate(&self.device.supply(&|_| false));
        }
    }

    /// The object has its new place; the old one goes, behind its fences.
    fn arrive(
        &self,
        held: &Held<'_>,
        state: &mut BoState,
        decided: Move<'_>,
        how: How,
        copy: Option<(Fence, Option<Box<Tt>>)>,
    ) {
        let Move {
            mut new,
            facts,
            mode,
            ..
        } = decided;
        new.settle();
        let flags = state
            .resource
            .as_ref()
            .map_or(PlaceFlags::empty(), Resource::flags);
        let mode_before = core::mem::replace(&mut state.mode, mode);
        let old = state.resource.replace(new);
        state.losses = self.device.losses();
        state.placement = None;
        let fence = copy.as_ref().map(|(f, _)| (f.timeline(), f.seqno()));
        let old_place = old.and_then(|old| {
            self.leave_behind(held, old, flags, facts, copy.as_ref().map(|(f, _)| f))
        });
        if let Some((fence, old_tt)) = copy {
            state.moving = Some(Box::new(Moving {
                fence,
                old: old_place,
                old_tt,
                mode: mode_before,
                fresh: !facts.has_content,
                written: false,
            }));
            self.device.moving.push(self.me.clone());
        }
        if facts.why != Reason::CpuAccess && !state.has_frames() {
            state.cpu_access = false;
        }
        if facts.to != MemType::SYSTEM {
            state.content = Content::Kept;
        } else if state.home() == Home::Ordered {
            state.update_home();
        }
        let bytes = self.pages.bytes();
        decided.ask.context.add_moved(bytes);
        self.device.emit_at(
            decided.since,
            Event::Moved {
                object: self.id,
                from: facts.from,
                to: facts.to,
                bytes,
                how,
                why: facts.why,
                since: decided.since,
                fence,
            },
        );
        let bo = self.facts(state);
        self.device.driver.moved(&bo, &*self.object, facts);
    }

    fn leave_behind(
        &self,
        held: &Held<'_>,
        mut old: Resource,
        flags: PlaceFlags,
        facts: &MoveFacts,
        fence: Option<&Fence>,
    ) -> Option<OldPlace> {
        match facts.why {
            Reason::EvictedFor(_) | Reason::Cleared => old.evicted(),
            _ => {}
        }
        if let Some(fence) = fence {
            let manager = old.manager().clone();
            let number = old.retire([fence.clone()], true);
            return Some(OldPlace {
                manager,
                number,
                flags,
            });
        }
        if !old.manager().uses_frames() {
            let fences = pending(held);
            if !fences.is_empty() {
                old.retire(fences, false);
            }
        }
        None
    }
}

/// Puts the fresh pages in the old ones' stead; answers those that are left over.
fn exchange(state: &mut BoState, fresh: Option<Box<Tt>>) -> Option<Box<Tt>> {
    core::mem::replace(&mut state.tt, fresh).filter(|tt| !tt.is_empty())
}

/// All fences that are pending on the reservation.
pub(super) fn pending(held: &Held<'_>) -> FenceVec {
    held.fences().waited_by(Usage::Bookkeep).cloned().collect()
}

pub(super) fn frames(tt: &Tt) -> Side {
    Side::Frames(tt.frames().map(|(_, span)| span).collect::<SmallVec<_>>())
}

pub(super) fn device_side(resource: &Resource) -> Side {
    Side::Device {
        mem_type: resource.mem_type(),
        ranges: resource.ranges(),
    }
}
