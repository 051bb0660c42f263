//! Searches of a column of weights.
//!
//! In rows of eight with plain loops: the compiler then makes a handful of vector instructions of
//! each.

use super::node::{WIDTH, Weight};

type Row = [Weight; 8];

const BITS: Row = [1, 2, 4, 8, 16, 32, 64, 128];

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

/// The first entry of all is asked before the others: at low addresses it is most often the one.
#[inline]
pub(super) fn first(weights: &[Weight; WIDTH], weight: Weight) -> usize {
    if weights[0] >= weight {
        return 0;
    }
    for r in 0..WIDTH / 8 {
        let fits = zip(
            row(weights, r),
            BITS,
            |w, bit| if w >= weight { bit } else { 0 },
        );
        let [a, b] = [
            fits[0] | fits[4] | (fits[2] | fits[6]),
            fits[1] | fits[5] | (fits[3] | fits[7]),
        ];
        if a | b != 0 {
            return (8 * r + (a | b).trailing_zeros() as usize) % WIDTH;
        }
    }
    0
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
