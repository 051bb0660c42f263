//! Several ways to do the same, measured in turn.

use harness::measure::{self, Spread, Stopwatch};

/// One way.
pub(crate) struct Side<'a> {
    /// What the report calls it.
    pub(crate) name: &'static str,
    repeat: Box<dyn FnMut(&mut Stopwatch) + 'a>,
}

impl<'a> Side<'a> {
    /// A way of which each call of `repeat` is one repeat.
    pub(crate) fn new(name: &'static str, repeat: impl FnMut(&mut Stopwatch) + 'a) -> Self {
        Self {
            name,
            repeat: Box::new(repeat),
        }
    }

    /// A way of which each call of `once` is one operation.
    pub(crate) fn of(name: &'static str, ops: usize, mut once: impl FnMut() + 'a) -> Self {
        Self::new(name, move |watch| {
            watch.time(ops, || (0..ops).for_each(|_| once()));
        })
    }
}

/// What was found of some sides, by their name.
pub(crate) struct Found(Vec<(&'static str, Spread)>);

impl Found {
    /// Measures all of them, repeat by repeat.
    pub(crate) fn of(repeats: usize, mut sides: Vec<Side<'_>>) -> Self {
        let names: Vec<_> = sides.iter().map(|side| side.name).collect();
        let mut repeated: Vec<&mut dyn FnMut(&mut Stopwatch)> = sides
            .iter_mut()
            .map(|side| &mut *side.repeat as &mut dyn FnMut(&mut Stopwatch))
            .collect();
        let spreads = measure::in_turn(repeats, &mut repeated);
        Self(names.into_iter().zip(spreads).collect())
    }

    /// What was found of one, if it took part.
    pub(crate) fn get(&self, name: &str) -> Option<Spread> {
        let found = self.0.iter().find(|(side, _)| *side == name);
        found.map(|(_, spread)| *spread)
    }

    /// All but those that are named.
    pub(crate) fn others<'a>(
        &'a self,
        names: &'a [&str],
    ) -> impl Iterator<Item = (&'static str, Spread)> + 'a {
        let others = self.0.iter().filter(|(side, _)| !names.contains(side));
        others.copied()
    }
}

/// The same, an object of `objects` in each operation.
pub(crate) fn per_object(spread: Spread, objects: usize) -> Spread {
    let share = |ns: f64| ns / objects as f64;
    Spread {
        median: share(spread.median),
        min: share(spread.min),
        max: share(spread.max),
        ..spread
    }
}
