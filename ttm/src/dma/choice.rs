//! Streaming or coherent: the decision, as a table.
//!
//! The first row that matches decides; its code is stable. Every case matches a row, and every row
//! decides some case: a test goes through all of them. Two things hold for every row, and for any
//! that is added: none promises coherency while a copy on the way is possible, and none copies what
//! several share or what is mapped for the CPU without sync points.

mod case;
mod table;

pub use case::{CpuUse, Ends, Memory, Need, Share, SkipSync};
pub use table::{Code, Row, TABLE};

use core::fmt;
use core::fmt::Write as _;

use super::{DmaError, Tri, Verdict};
use case::Case;

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Map it as it is; CPU and device see the same without a sync.
    Streaming,
    /// Map it as it is, and sync at each hand-over.
    Synced {
        /// The hand-overs may copy: that was allowed.
        copies: bool,
    },
    /// Allocate it for the device: coherent memory.
    Coherent,
    /// Allocate it from memory that is not encrypted.
    Decrypted,
    /// Map a copy of it, to be brought up to date at each hand-over.
    Bounce,
    /// Do not.
    Refuse(DmaError),
}

impl Decision {
    /// One word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Synced { .. } => "streaming, synced",
            Self::Coherent => "coherent",
            Self::Decrypted => "decrypted",
            Self::Bounce => "bounce",
            Self::Refuse(_) => "refuse",
        }
    }

    /// Whether it copies.
    #[must_use]
    pub const fn copies(&self) -> bool {
        matches!(self, Self::Bounce | Self::Synced { copies: true })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A decision, the row that made it, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// What to do.
    pub decision: Decision,
    /// The row.
    pub code: Code,
    /// Why, with the device's figures.
    pub reason: String,
    /// What else one has to know.
    pub notes: Vec<String>,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.decision, self.code, self.reason)
    }
}

/// Decides how a device that is known so far gets to memory that is needed so.
///
/// ```
/// use ttm::dma::{Code, Decision, Mask, Need, Path, Tri, Verdict, choose};
///
/// let verdict = Verdict {
///     path: Path::Translated { strict: true },
///     snoop: Tri::Yes,
///     forced_bounce: Tri::No,
///     encrypted: Tri::No,
///     ..Verdict::unknown("0000:01:00.0")
/// };
/// let choice = choose(&verdict, &Need::default());
/// assert_eq!((choice.decision, choice.code), (Decision::Streaming, Code::D27));
/// ```
#[must_use]
pub fn choose(verdict: &Verdict, need: &Need) -> Choice {
    let (row, decision) = decided(verdict, need);
    let mut notes = Vec::new();
    notes.extend(confidence(row.code, verdict).map(String::from));
    let lazy = matches!(verdict.path, super::Path::Translated { strict: false });
    if need.revocable && lazy {
        // D30: a note to whatever was decided.
        notes.push("D30: what is unmapped stays reachable for up to about 10 ms".into());
    }
    Choice {
        decision,
        code: row.code,
        reason: (row.reason)(verdict, need),
        notes,
    }
}

/// The same without words, for who goes by it at every mapping.
pub(super) fn decide(verdict: &Verdict, need: &Need) -> (Decision, Code) {
    let (row, decision) = decided(verdict, need);
    (decision, row.code)
}

fn decided(verdict: &Verdict, need: &Need) -> (&'static Row, Decision) {
    let case = Case::new(verdict, need);
    let row = table::row_of(&case);
    (row, (row.decision)(&case))
}

/// How far a decision is to be trusted that rests on what requests a device makes.
fn confidence(code: Code, verdict: &Verdict) -> Option<&'static str> {
    match (code, verdict.may_ask_not_to) {
        (Code::D04, Tri::No) => {
            Some("of high confidence while the device's setting forbids it such requests")
        }
        (Code::D04, _) => Some("of medium confidence: nothing says what requests the device makes"),
        (Code::D03, Tri::No) => Some(
            "the device's setting forbids such requests: whoever says that it sends them may be wrong",
        ),
        _ => None,
    }
}

impl Choice {
    /// The decision, the facts that it rests on with their sources, what could not be asked, and
    /// what would change it.
    #[must_use]
    pub fn explain(&self, verdict: &Verdict) -> String {
        let mut text = format!("{}: {self}\n", verdict.device);
        let mut line = |head: &str, what: &dyn fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {head:<8} {what}");
        };
        for topic in self.code.topics() {
            let mut facts = verdict.about(*topic).peekable();
            if facts.peek().is_none() {
                line("open", &format!("{topic}: nothing says"));
            }
            facts.for_each(|fact| line("fact", fact));
        }
        verdict.conflicts.iter().for_each(|c| line("conflict", c));
        verdict.missing.iter().for_each(|m| line("missing", m));
        self.notes.iter().for_each(|note| line("note", note));
        line("change", &self.code.would_change());
        text
    }
}

#[cfg(test)]
mod tests;
