//! What a run leaves behind: tables, JSON, a Perfetto trace, a plot.
//!
//! Files appear whole under their name or not at all ([`atomic_file`]).

pub(crate) mod atomic_file;
pub(crate) mod json;
pub(crate) mod observer;
pub(crate) mod perfetto;
pub(crate) mod plot;
pub(crate) mod table;
