//! What can be asked of a device, drawn from a seed.

/// An operation. Objects are named by a number that is taken modulo those that there are, so a
/// list stays meaningful when some of it is left out.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Failing {
        site: usize,
        nth: u64,
        op: Box<Op>,
    },
    Create {
        pages: u64,
        short: u64,
        priority: u8,
        how: u64,
    },
    Drop {
        object: u64,
    },
    Validate {
        object: u64,
        to: To,
        terms: Terms,
    },
    Throw {
        object: u64,
    },
    Write {
        object: u64,
        part: u64,
    },
    Read {
        object: u64,
        part: u64,
    },
    Fill {
        object: u64,
        to: Option<To>,
    },
    Add {
        object: u64,
        to: Option<To>,
        addend: u64,
    },
    Checksum {
        object: u64,
    },
    EvictAll {
        tt: bool,
    },
    SwapOut {
        object: u64,
    },
    Populate {
        object: u64,
    },
    Pin {
        object: u64,
    },
    Unpin {
        object: u64,
    },
    Advise {
        object: u64,
        needed: bool,
    },
    Sleep {
        ns: u64,
    },
    Suspend,
    /// Makes room for a suspend, and leaves it at that.
    Prepare,
    /// Gives pooled pages back.
    Shrink {
        pages: u64,
    },
    /// Swaps out on nobody's behalf.
    Reclaim {
        pages: u64,
    },
    Priority {
        object: u64,
        priority: u8,
    },
    Bulk {
        object: u64,
        member: bool,
    },
    Limit {
        pages: u64,
        protected: bool,
    },
    Both {
        a: u64,
        b: u64,
    },
}

/// Steps that can fail without taking content along.
pub(crate) const SITES: [&str; 14] = [
    "pages.take",
    "pages.map",
    "pages.zero",
    "pages.switch",
    "backup.prepare",
    "backup.full",
    "ttm.cache-switch",
    "region.map",
    "backup.store",
    "backup.load",
    "copy.submit",
    "ttm.take",
    "ttm.move-start",
    "ttm.move-commit",
];

/// Where to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Vram,
    Tt,
    System,
    VramOrSystem,
    DesiredVram,
    VramTopDown,
    /// TT, write-combined.
    Combined,
    /// System memory, uncached.
    Uncached,
    /// Device memory, uncached.
    VramUncached,
}

/// On which terms.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Terms {
    Patient,
    Hasty,
    Cancelled,
    Late,
}

/// A splitmix generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn to(random: &mut Random) -> To {
    match random.below(12) {
        9 => To::Combined,
        10 => To::Uncached,
        11 => To::VramUncached,
        0..=2 => To::Vram,
        3 => To::Tt,
        4..=5 => To::System,
        6 => To::VramOrSystem,
        7 => To::DesiredVram,
        _ => To::VramTopDown,
    }
}

fn terms(random: &mut Random) -> Terms {
    match random.below(12) {
        0 => Terms::Hasty,
        1 => Terms::Cancelled,
        2 => Terms::Late,
        _ => Terms::Patient,
    }
}

fn op(random: &mut Random) -> Op {
    let object = random.next();
    match random.below(67) {
        0..=11 => Op::Create {
            pages: 1 + random.below(14),
            short: random.below(4) * 8,
            priority: u8::from(random.below(6) == 0) * random.below(4) as u8,
            how: random.below(4),
        },
        12..=13 => Op::Drop { object },
        14..=25 => Op::Validate {
            object,
            to: to(random),
            terms: terms(random),
        },
        26 => Op::Throw { object },
        27..=31 => Op::Write {
            object,
            part: random.next(),
        },
        32..=35 => Op::Read {
            object,
            part: random.next(),
        },
        36..=39 => Op::Fill {
            object,
            to: (random.below(3) > 0).then(|| to(random)),
        },
        40..=42 => Op::Add {
            object,
            to: (random.below(3) > 0).then(|| to(random)),
            addend: random.below(100),
        },
        43..=44 => Op::Checksum { object },
        45 => Op::EvictAll {
            tt: random.below(2) == 0,
        },
        46..=47 => Op::SwapOut { object },
        48..=49 => Op::Populate { object },
        50 => Op::Pin { object },
        51..=52 => Op::Unpin { object },
        53..=54 => Op::Advise {
            object,
            needed: random.below(2) == 0,
        },
        55..=56 => Op::Sleep {
            ns: random.below(200_000),
        },
        57 => Op::Suspend,
        64 => Op::Prepare,
        65 => Op::Shrink {
            pages: 1 + random.below(64),
        },
        66 => Op::Reclaim {
            pages: 1 + random.below(24),
        },
        58 => Op::Priority {
            object,
            priority: random.below(4) as u8,
        },
        59 => Op::Bulk {
            object,
            member: random.below(3) > 0,
        },
        60 => Op::Limit {
            pages: random.below(32),
            protected: random.below(4) == 0,
        },
        61 => Op::Failing {
            site: random.below(SITES.len() as u64) as usize,
            nth: 1 + random.below(3),
            op: Box::new(op(random)),
        },
        _ => Op::Both {
            a: object,
            b: random.next(),
        },
    }
}

/// The operations of a seed.
pub(crate) fn draw(seed: u64, steps: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    (0..steps).map(|_| op(&mut random)).collect()
}
