//! How long accesses wait: slow stores, by the object's size and the move that was begun last.

use serde::Serialize;

use crate::kernel::Interruptions;

/// What the mover does to an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(crate) enum Move {
    /// Nothing yet: its pages come to be.
    First,
    /// Between SYSTEM and TT; the frames stay.
    Rebind,
    /// Into device memory that the CPU reaches, copied by the CPU.
    InByCpu,
    /// The same, copied by an engine.
    InByEngine,
    /// Into device memory that the CPU does not reach: whoever touches it fetches it back.
    Outside,
    /// To system memory, copied by the CPU.
    OutByCpu,
    /// The same, copied by an engine.
    OutByEngine,
    /// Another cache mode, in place.
    Mode,
    /// To the backup.
    SwapOut,
    /// Everything leaves device memory because somebody else wants it.
    Evict,
    /// The device is put to sleep, and wakes.
    Suspend,
}

impl Move {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 11] = [
        Self::First,
        Self::Rebind,
        Self::InByCpu,
        Self::InByEngine,
        Self::Outside,
        Self::OutByCpu,
        Self::OutByEngine,
        Self::Mode,
        Self::SwapOut,
        Self::Evict,
        Self::Suspend,
    ];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::First => "first touch",
            Self::Rebind => "SYSTEM - TT",
            Self::InByCpu => "to VRAM, CPU",
            Self::InByEngine => "to VRAM, engine",
            Self::Outside => "outside the BAR",
            Self::OutByCpu => "from VRAM, CPU",
            Self::OutByEngine => "from VRAM, engine",
            Self::Mode => "cache mode",
            Self::SwapOut => "swapped out",
            Self::Evict => "evicted",
            Self::Suspend => "suspended",
        }
    }
}

/// Stores of one thread that waited.
#[derive(Default)]
pub(crate) struct Gaps {
    slow: Vec<Slow>,
    /// Slow because the thread had to give its processor to somebody else.
    pub(crate) preempted: u64,
    interruptions: Interruptions,
}

#[derive(Clone, Copy)]
struct Slow {
    size: usize,
    after: Move,
    ns: u64,
}

impl Gaps {
    /// To be called before some stores.
    pub(crate) fn begin(&mut self) {
        self.interruptions = Interruptions::now();
    }

    /// A store took `ns` nanoseconds. If the thread neither faulted nor slept since the last call,
    /// it was not the store that took so long.
    pub(crate) fn note(&mut self, size: usize, after: Move, ns: u64) {
        let now = Interruptions::now();
        if now == core::mem::replace(&mut self.interruptions, now) {
            self.preempted += 1;
            return;
        }
        self.slow.push(Slow { size, after, ns });
    }

    /// Adds those of another thread.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.slow.append(&mut other.slow);
        self.preempted += other.preempted;
    }

    /// Figures for each size, and for each move in it.
    pub(crate) fn figures(&self, sizes: &[u64]) -> Vec<SizeGaps> {
        let of = |n: usize, which: Option<Move>| {
            let slow = self.slow.iter().filter(|slow| slow.size == n);
            let slow = slow.filter(|slow| which.is_none_or(|which| slow.after == which));
            Figures::of(slow.map(|slow| slow.ns).collect())
        };
        let size = |(n, bytes): (usize, &u64)| {
            let moves = Move::ALL.into_iter().filter_map(|which| {
                let gaps = of(n, Some(which))?;
                Some(MoveGaps {
                    after: which.name(),
                    gaps,
                })
            });
            Some(SizeGaps {
                size: *bytes,
                gaps: of(n, None)?,
                moves: moves.collect(),
            })
        };
        sizes.iter().enumerate().filter_map(size).collect()
    }
}

/// Gaps of one size; nanoseconds.
#[derive(Debug, Serialize)]
pub(crate) struct SizeGaps {
    /// Bytes of the objects.
    pub(crate) size: u64,
    #[serde(flatten)]
    pub(crate) gaps: Figures,
    pub(crate) moves: Vec<MoveGaps>,
}

/// Gaps after one kind of move.
#[derive(Debug, Serialize)]
pub(crate) struct MoveGaps {
    #[serde(rename = "move")]
    pub(crate) after: &'static str,
    #[serde(flatten)]
    pub(crate) gaps: Figures,
}

/// How some gaps are distributed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) count: u64,
    pub(crate) median: u64,
    pub(crate) p99: u64,
    pub(crate) longest: u64,
}

impl Figures {
    fn of(mut ns: Vec<u64>) -> Option<Self> {
        ns.sort_unstable();
        let longest = *ns.last()?;
        let at = |percent: usize| ns[(ns.len() * percent / 100).min(ns.len() - 1)];
        Some(Self {
            count: ns.len() as u64,
            median: at(50),
            p99: at(99),
            longest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_sorted_gaps() {
        assert_eq!(Figures::of(Vec::new()), None);
        let figures = Figures::of((1..=200).rev().collect()).unwrap();
        assert_eq!(
            (figures.median, figures.p99, figures.longest),
            (101, 199, 200)
        );
    }

    #[test]
    fn moves_are_numbered_in_their_order() {
        for (n, which) in Move::ALL.into_iter().enumerate() {
            assert_eq!(which as usize, n);
        }
    }
}
