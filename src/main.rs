//! Front door: flags, runtime, signals; hands over to the library.

mod cli;
mod demo;
mod klv;
mod package;
mod probe;
mod source;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
