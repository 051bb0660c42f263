//! What a run leaves behind beside tables and figures: a Perfetto trace, a plot.

pub(crate) mod observer;
pub(crate) mod perfetto;
pub(crate) mod plot;
