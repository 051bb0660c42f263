//! `simulate`: the memory manager on a fake card, as a demonstration and as a replay of traces.
//!
//! Here the command line is read and handed on, and the outcome becomes an exit status. The rest:
//! - [`args`]: what was asked for.
//! - [`demo`]: clients whose objects don't all fit, every word checked.
//! - [`replay`]: a recorded trace of touches, against the manager and against the optimum.
//! - [`cli::report`]: Perfetto traces, plots; tables and JSON are in [`cli`].
//! - [`exit`]: failures and exit statuses.

#![deny(unsafe_code)]

mod args;
mod demo;
mod exit;
mod replay;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    exit::finish(match Cli::parse().into_command() {
        Command::Demo(args) => demo::run(&args),
        Command::Replay(args) => replay::run(&args),
    })
}
