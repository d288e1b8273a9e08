//! What stands on the command line enters, an exit code leaves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millrace::config::Config;

/// Takes live transport streams in and copies their packets to thousands of outputs.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with a configuration file, with line and key; exit code 0 = nothing, 1 = something.
    ///
    /// The environment variables that would override it are checked too.
    Check {
        /// The file.
        config: PathBuf,
    },
}

impl Cli {
    pub(crate) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Check { config } => check(&config),
        };
        // A terminal that went away is nobody's mistake, and nobody is left to be told.
        done.unwrap_or(ExitCode::FAILURE)
    }
}

fn check(path: &Path) -> io::Result<ExitCode> {
    match Config::load(Some(path), variables()) {
        Ok(config) => {
            let (inputs, outputs) =
                (config.inputs.len(), config.inputs.iter().map(|input| input.outputs.len()).sum());
            let (inputs, outputs) = (count(inputs, "input"), count(outputs, "output"));
            writeln!(io::stdout(), "{}: OK, {inputs}, {outputs}", path.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            let mut stderr = io::stderr().lock();
            for error in errors {
                writeln!(stderr, "{error}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The environment. What is not UTF-8 cannot be right where we look, and is refused there by its name.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
