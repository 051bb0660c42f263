//! Legal sequences against one array of bytes, on every platform, while caches do what they may;
//! then what is refused, what is kept from being freed, and what goes wrong where somebody lies.

mod hazards;
mod kept;
mod refused;
mod sequences;
mod shared;

use super::*;
use crate::dma::fixture::{Machine, Platform};
use crate::fence::Timeline;
use crate::pages::{PageSource, Zone};

const BYTES: u64 = 3 * 4096;

fn backing(machine: &Machine) -> Backing {
    Backing::alloc(&machine.source(), BYTES, Zone::Normal).unwrap()
}

fn bouncing() -> MapAttrs<'static> {
    MapAttrs::new().allow_bounce()
}

fn mapped<D: Dir>(machine: &Machine, range: Range<u64>, direction: D) -> Streaming<DeviceOwned, D> {
    let mapped = machine
        .dma
        .map_streaming(backing(machine), range, direction, &bouncing());
    mapped.unwrap()
}

fn timeline() -> Timeline {
    Timeline::new(1, crate::dma::fixture::clock())
}

fn seen(backing: &Backing) -> Vec<u8> {
    let mut seen = vec![0; BYTES as usize];
    backing.read(0, &mut seen).unwrap();
    seen
}
