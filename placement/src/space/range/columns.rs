//! Searches of a column of weights.
//!
//! In rows of eight with plain loops, each in a function of its own: the compiler then makes a
//! handful of vector instructions of it, where inlining would leave 32 comparisons.

use super::node::{WIDTH, Weight};

type Row = [Weight; 8];

const SLOTS: [Weight; WIDTH] = {
    let mut slots = [0; WIDTH];
    let mut slot = 0;
    while slot < WIDTH {
        slots[slot] = slot as Weight;
        slot += 1;
    }
    slots
};

#[inline(never)]
pub(super) fn greatest(weights: &[Weight; WIDTH]) -> Weight {
    let [a, b, c, d] = [
        row(weights, 0),
        row(weights, 1),
        row(weights, 2),
        row(weights, 3),
    ];
    let v = zip(zip(a, b, Weight::max), zip(c, d, Weight::max), Weight::max);
    let [a, b] = [
        v[0].max(v[4]).max(v[2].max(v[6])),
        v[1].max(v[5]).max(v[3].max(v[7])),
    ];
    a.max(b)
}

#[inline(never)]
pub(super) fn first(weights: &[Weight; WIDTH], weight: Weight) -> usize {
    least(|r| {
        zip(row(weights, r), row(&SLOTS, r), |w, slot| {
            if w >= weight { slot } else { Weight::MAX }
        })
    }) as usize
}

#[inline(never)]
pub(super) fn tightest(weights: &[Weight; WIDTH], weight: Weight) -> usize {
    let tight = least(|r| {
        zip(row(weights, r), [weight; 8], |w, weight| {
            if w >= weight { w } else { Weight::MAX }
        })
    });
    slot_of(weights, tight)
}

#[inline(always)]
fn slot_of(weights: &[Weight; WIDTH], weight: Weight) -> usize {
    least(|r| {
        zip(row(weights, r), row(&SLOTS, r), |w, slot| {
            if w == weight { slot } else { Weight::MAX }
        })
    }) as usize
}

#[inline(always)]
fn row(weights: &[Weight; WIDTH], row: usize) -> Row {
    let mut copy = [0; 8];
    copy.copy_from_slice(&weights[8 * row..8 * row + 8]);
    copy
}

#[inline(always)]
fn zip(a: Row, b: Row, of: impl Fn(Weight, Weight) -> Weight) -> Row {
    let mut zipped = [0; 8];
    for column in 0..8 {
        zipped[column] = of(a[column], b[column]);
    }
    zipped
}

#[inline(always)]
fn least(row: impl Fn(usize) -> Row) -> Weight {
    let v = zip(
        zip(row(0), row(1), Weight::min),
        zip(row(2), row(3), Weight::min),
        Weight::min,
    );
    let [a, b] = [
        v[0].min(v[4]).min(v[2].min(v[6])),
        v[1].min(v[5]).min(v[3].min(v[7])),
    ];
    a.min(b)
}
