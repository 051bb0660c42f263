//! What the errors of sharing say.

use core::fmt;

use crate::dma::DmaError;

/// Writes what is an error of sharing.
pub(super) fn describe(error: &DmaError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        DmaError::Released => f.write_str("what was exported is gone; ask its owner for another"),
        DmaError::Vetoed { why } => write!(f, "the exporter's driver refuses: {why}"),
        DmaError::AttachIncompatible {
            have,
            want,
            held_by,
            ..
        } => {
            write!(f, "have {have}, want {want}")?;
            match held_by.is_empty() {
                true => f.write_str("; ask for less, or have the others detach"),
                false => write!(f, "; {} keep it where it is", held_by.join(", ")),
            }
        }
        DmaError::NeedsMigration {
            have, want, unmap, ..
        } => {
            write!(f, "have {have}, want {want}; ask for a migration")?;
            match unmap.is_empty() {
                true => Ok(()),
                false => write!(f, ", which {} will be told of", unmap.join(", ")),
            }
        }
        DmaError::PeerNotReachable { reason } => write!(
            f,
            "the other device's memory is out of reach, because {reason}; move the object to \
             system memory"
        ),
        DmaError::Revoked { generation } => write!(
            f,
            "the mapping was taken away ({generation} so far); reserve the object and map it again"
        ),
        DmaError::NotLent => f.write_str("it is not mapped; reserve the object and map it"),
        DmaError::AlreadyLent => {
            f.write_str("it is mapped already; unmap it, or attach once more for another mapping")
        }
        DmaError::NotDynamic => {
            f.write_str("only who is told of moves pins; a mapping keeps the object for others")
        }
        DmaError::NotRevocable { by } => {
            write!(f, "{by} has it mapped and may keep it; have it unmapped")
        }
        DmaError::TooManyPins { most } => {
            write!(
                f,
                "it is pinned {most} times, which is all there is; unpin first"
            )
        }
        _ => unreachable!("an error of something else"),
    }
}
