//! What windows promise, and what each promise takes of the address space.

use ttm::map::Abilities;

/// A promise. Where the address space is not able to what it needs, it is not made.
pub(crate) struct Law {
    pub(crate) says: &'static str,
    needs: fn(&Abilities) -> bool,
}

impl Law {
    /// Whether it is made where this is what accesses do.
    pub(crate) fn holds(&self, abilities: &Abilities) -> bool {
        (self.needs)(abilities)
    }
}

const fn law(says: &'static str, needs: fn(&Abilities) -> bool) -> Law {
    Law { says, needs }
}

/// Loads and stores wait: nothing else is needed for objects to move under them.
pub(crate) const STORES: Law = law(
    "no store is lost, no reader goes back (I-15, I-22), whatever moves",
    |able| able.loads_wait,
);
pub(crate) const TOUCH: Law = law(
    "a touch brings in what is swapped, nowhere yet, outside the aperture",
    |able| able.loads_wait,
);
pub(crate) const CALLS: Law = law("read(2) and write(2) wait as loads and stores do", |able| {
    able.calls_wait
});
pub(crate) const PRECOPY: Law = law(
    "large copies by the CPU are made while writers go on",
    |able| able.tracks_writes,
);
pub(crate) const POISON: Law = law(
    "what cannot be had ends a touch in SIGBUS, and is an event",
    |able| able.loads_wait,
);
pub(crate) const ACCESSORS: Law = law(
    "read_at and write_at work wherever the object is, and keep it nowhere",
    |_| true,
);
pub(crate) const ADDRESSES: Law = law("addresses stay, and are never a hole (I-19)", |_| true);
pub(crate) const BUDGET: Law = law("mappings keep to their budget (I-25)", |_| true);
pub(crate) const FORK: Law = law("a forked child inherits nothing (F-37)", |_| true);
pub(crate) const REFUSALS: Law = law("what the host refuses loses nothing (F-16, F-17)", |_| true);
pub(crate) const PINS: Law = law("a pinned window keeps what the kernel holds on to", |_| {
    true
});

pub(crate) const ALL: [&Law; 11] = [
    &STORES, &TOUCH, &CALLS, &PRECOPY, &POISON, &ACCESSORS, &ADDRESSES, &BUDGET, &FORK, &REFUSALS,
    &PINS,
];
