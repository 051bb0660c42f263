//! The calling thread moves one run after the other.

use std::io;

use ttm::tt::Direction;

use super::super::file::SwapFile;
use super::{Flight, Runs, note_flying};

pub(super) fn transfer(file: &SwapFile, direction: Direction, runs: &mut dyn Runs) {
    while let Some(transfer) = runs.next() {
        note_flying(file, 1);
        let mut flight = Flight::new(transfer);
        let result = finish(file, direction, &mut flight);
        runs.done(flight.transfer, result);
    }
}

/// Does what is left of a run.
pub(super) fn finish(file: &SwapFile, direction: Direction, flight: &mut Flight) -> io::Result<()> {
    loop {
        flight.ask(file);
        let moved = file.request(direction, flight);
        if let Some(result) = flight.answer(file, moved) {
            return result;
        }
    }
}
