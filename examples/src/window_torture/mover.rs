//! The thread that moves objects, at random, while others use them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backends::sim::{RouteMode, SimDriver};
use placement::{CacheMode, MemType, Place, Placement};
use ttm::Error;
use ttm::bo::{BoInfo, Reserved};
use ttm::context::OpContext;
use ttm::driver::BoKind;

use crate::gap::Move;
use crate::object::Object;
use crate::random::Random;
use crate::rig::Rig;
use crate::scratch;
use crate::stage::Stage;

/// Moves of one object in a row.
const IN_A_ROW: u64 = 12;

/// The longest pause between two moves, in microseconds: others get to work meanwhile.
const PAUSE_US: u64 = 400;

/// Moves objects.
pub(crate) struct Mover<'a> {
    stage: &'a Stage<'a>,
    rig: &'a Rig,
    random: Random,
    pub(crate) moves: BTreeMap<&'static str, u64>,
    /// What was refused, and how often.
    pub(crate) refused: BTreeMap<String, u64>,
}

/// Where an object is to go.
#[derive(Clone, Copy)]
enum Target {
    System,
    Tt,
    /// Device memory that the CPU reaches.
    Inside,
    /// Device memory that it does not reach.
    Outside,
    /// Another cache mode where it is.
    Mode(CacheMode),
    /// The backup.
    Backup,
}

impl<'a> Mover<'a> {
    pub(crate) fn new(stage: &'a Stage<'a>, rig: &'a Rig, random: Random) -> Self {
        Self {
            stage,
            rig,
            random,
            moves: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Moves objects until `end`, or until something is wrong.
    pub(crate) fn run(&mut self, end: Instant, tick: impl Fn()) {
        while Instant::now() < end && !self.stage.is_stopped() {
            let n = self.random.below(self.stage.objects().len() as u64) as usize;
            self.stage.look_at(n);
            for _ in 0..IN_A_ROW {
                let result = self.move_one(&self.stage.objects()[n]);
                self.survive(result);
                std::thread::sleep(Duration::from_micros(self.random.below(PAUSE_US)));
                if Instant::now() >= end || self.stage.is_stopped() {
                    break;
                }
            }
            let result = match self.random.below(24) {
                0 | 1 => self.evict(),
                2 => self.suspend(),
                3 | 4 => self.scratch(),
                _ => Ok(()),
            };
            self.survive(result);
            tick();
        }
    }

    fn target(&mut self) -> Target {
        let by_engine = self.rig.routes() == RouteMode::Engine;
        match self.random.below(16) {
            0..3 => Target::System,
            3..6 => Target::Tt,
            6..10 => Target::Inside,
            10..12 if by_engine => Target::Outside,
            10..12 => Target::Inside,
            12..14 => Target::Mode(CacheMode::ALL[self.random.below(3) as usize]),
            _ => Target::Backup,
        }
    }

    fn move_one(&mut self, object: &Object) -> ttm::Result<()> {
        let target = self.target();
        let mut what = None;
        let locked = self.rig.device().exec(OpContext::new(), |t| {
            let reserved = t.lock(&object.bo)?;
            what = self.go(object, &reserved, target)?;
            Ok(())
        })?;
        drop(locked);
        self.count(what);
        Ok(())
    }

    /// Moves a locked object. Answers what that was; nothing if it was there already.
    fn go(
        &self,
        object: &Object,
        reserved: &Reserved<'_, SimDriver>,
        target: Target,
    ) -> ttm::Result<Option<Move>> {
        let from = reserved.mem_type();
        let in_vram = from == Some(MemType::VRAM);
        let aperture = self.rig.aperture();
        let vram = |window| Place::new(MemType::VRAM).within(window);
        let by_engine = self.rig.routes() == RouteMode::Engine;
        let (place, what) = match target {
            Target::System => (Place::new(MemType::SYSTEM), self.out(in_vram)),
            Target::Tt => (Place::new(MemType::TT), self.out(in_vram)),
            Target::Inside if by_engine => (vram(aperture), Move::InByEngine),
            Target::Inside => (vram(aperture), Move::InByCpu),
            Target::Outside => (vram(self.rig.outside()), Move::Outside),
            Target::Mode(mode) => {
                // The host's own frames have one mode.
                let mode = if in_vram || by_engine {
                    mode
                } else {
                    CacheMode::Cached
                };
                let place = Place::new(from.unwrap_or(MemType::SYSTEM)).cached(mode);
                (place, Move::Mode)
            }
            Target::Backup => (Place::new(MemType::SYSTEM), self.out(in_vram)),
        };
        let before = (from, reserved.ranges(), reserved.facts().mode);
        let moves_nothing = matches!(target, Target::Backup) && from == Some(MemType::SYSTEM);
        if !moves_nothing {
            object.begins(what);
        }
        reserved.validate(&Placement::of(place))?;
        if matches!(target, Target::Backup) {
            object.begins(Move::SwapOut);
            reserved.swap_out()?;
            return Ok(Some(Move::SwapOut));
        }
        let after = (
            reserved.mem_type(),
            reserved.ranges(),
            reserved.facts().mode,
        );
        Ok((before != after).then_some(what))
    }

    fn out(&self, from_vram: bool) -> Move {
        match self.rig.routes() {
            _ if !from_vram => Move::Rebind,
            RouteMode::Engine => Move::OutByEngine,
            _ => Move::OutByCpu,
        }
    }

    /// Somebody who needs all device memory comes and goes.
    fn evict(&mut self) -> ttm::Result<()> {
        self.stage.begins(Move::Evict);
        let bytes = self.rig.vram().bytes();
        let info = BoInfo::new(bytes).kind(BoKind::Kernel);
        let placement = Placement::of(Place::new(MemType::VRAM));
        let made = self
            .rig
            .device()
            .create_in(OpContext::new(), info, (), &placement);
        self.rig.device().reap();
        drop(made?);
        self.rig.device().reap();
        self.count(Some(Move::Evict));
        Ok(())
    }

    fn suspend(&mut self) -> ttm::Result<()> {
        self.stage.begins(Move::Suspend);
        let device = self.rig.device();
        device.suspend(OpContext::new())?;
        device.resume(OpContext::new())?;
        self.count(Some(Move::Suspend));
        Ok(())
    }

    fn scratch(&mut self) -> ttm::Result<()> {
        if let Err(wrong) = scratch::use_up(self.rig)? {
            self.stage.wrong(wrong);
        }
        *self.moves.entry("discarded").or_default() += 1;
        Ok(())
    }

    fn count(&mut self, what: Option<Move>) {
        if let Some(what) = what {
            *self.moves.entry(what.name()).or_default() += 1;
        }
    }

    /// What has no room now may have some later. Everything else is wrong.
    fn survive(&mut self, result: ttm::Result<()>) {
        let Err(error) = result else {
            return;
        };
        let why = match &error {
            Error::NoSpace(_) => "no space".to_owned(),
            Error::NoMemory { .. } => "no memory".to_owned(),
            Error::Shortfall(_) => "no room to suspend".to_owned(),
            Error::Busy => "busy".to_owned(),
            _ => return self.stage.broken(format!("a move failed: {error}")),
        };
        *self.refused.entry(why).or_default() += 1;
    }
}
