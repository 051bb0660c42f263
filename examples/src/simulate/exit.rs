//! How the program ends: the one place that turns a failure into an exit status.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done and right |
//! | 1 | a wrong byte or a broken invariant |
//! | 2 | refused: bad input or no device, and nothing lost |

use std::fmt;
use std::process::ExitCode;

/// A run that didn't end with "done and right".
#[derive(Debug)]
pub(crate) enum Failure {
    /// The run was refused, or ended early, with nothing lost: exit status 2.
    Refused(anyhow::Error),
    /// A wrong byte or a broken invariant, in words with the facts: exit status 1.
    Wrong(String),
}

impl Failure {
    /// The exit status as a number.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Wrong(_) => 1,
            Self::Refused(_) => 2,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Refused(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(what) => write!(f, "wrong: {what}"),
            // The alternate form prints the whole chain of causes on one line.
            Self::Refused(error) => write!(f, "refused: {error:#}"),
        }
    }
}

/// Prints a failure to standard error and returns the exit status of `outcome`.
pub(crate) fn finish(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("simulate: {failure}");
            ExitCode::from(failure.status())
        }
    }
}

/// Ends the program at once, from any thread, where going on would end in a signal.
pub(crate) fn at_once(failure: &Failure) -> ! {
    eprintln!("simulate: {failure}");
    std::process::exit(failure.status().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_wrong_byte_is_one_and_a_refusal_is_two() {
        assert_eq!(Failure::Wrong("object 3".into()).status(), 1);
        assert_eq!(Failure::from(anyhow!("no such file")).status(), 2);
    }

    #[test]
    fn a_refusal_prints_its_causes_on_one_line() {
        let error = anyhow!("no such file").context("t.jsonl");
        assert_eq!(
            Failure::from(error).to_string(),
            "refused: t.jsonl: no such file"
        );
    }
}
