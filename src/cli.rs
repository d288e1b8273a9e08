//! What stands on the command line enters, an exit code leaves.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millrace::app::App;
use millrace::config::{Config, ConfigError};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::{demo, klv, package, probe};

/// Takes live transport streams in and copies their packets to thousands of outputs.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the engine until Ctrl-C or SIGTERM; then drain and exit with 0.
    Run {
        /// The configuration file; without one everything has its default.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Say what is wrong with a configuration file, with line and key; exit code 0 = nothing, 1 = something.
    ///
    /// The environment variables that would override it are checked too.
    Check {
        /// The file.
        config: PathBuf,
    },
    /// Say what is in a transport stream: programs, streams, bit rates, clock, errors, and which rules it breaks.
    ///
    /// The rules are those of ETSI TR 101 290 (priorities 1 and 2) and of MISB ST 1402, 0601, 0902 and 0604; --json names
    /// all of them, what is measured for each, and which do not apply.
    ///
    /// Exit code 1 = nothing was received, or no packet found.
    Probe {
        /// The path of a file, or a url as an input has it: udp://239.1.1.1:5000?interface=eth0
        url: String,
        /// How long to listen; a file is read to its end.
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
        /// For machines.
        #[arg(long)]
        json: bool,
        /// Exit code 3 = the stream breaks a rule of priority 1 or 2.
        #[arg(long)]
        strict: bool,
    },
    /// Say what is in a data package of a TAK Server: servers, certificates and when they expire.
    ///
    /// Exit code 1 = it cannot be read, or has no server or no client certificate.
    Tak {
        /// The archive.
        package: PathBuf,
        /// Password of its PKCS#12 files, where the package does not say it. Better than the command line, which others
        /// on this machine can read, is the variable.
        #[arg(long, env = "TAK_PASSWORD", hide_env_values = true)]
        password: Option<String>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Write what the KLV metadata in a stream says (MISB ST 0601 and the sets inside it), as JSON, CSV or GeoJSON.
    ///
    /// Reads transport streams (asynchronous, synchronous and mis-signalled KLV, in all programs) and files of bare KLV
    /// packets, to their end or for as long as you like. What is wrong with a packet stands beside what it says.
    ///
    /// Exit code 0 = there were packets, 1 = there were none, or an error.
    #[command(after_help = KLV_EXAMPLES)]
    Klv(klv::Options),
    /// Show the main job, with nothing configured: a looping stream, six outputs on this machine, a live table.
    ///
    /// Receives what it sends and compares it with what went in; exit code 0 = the same. Ctrl-C ends it.
    Demo {
        /// End after so many seconds.
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
}

impl Cli {
    pub(crate) fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Run { config } => run(config.as_deref()),
            Command::Check { config } => check(&config),
            Command::Probe { url, seconds, json, strict } => {
                block_on(probe::run(&url, seconds, json, strict))
            }
            Command::Klv(options) => block_on(klv::run(options)),
            Command::Tak { package, password, json } => package::show(&package, password.as_deref(), json),
            Command::Demo { seconds } => block_on(demo::run(seconds)),
        };
        // A terminal that went away is nobody's mistake, and nobody is left to be told.
        done.unwrap_or(ExitCode::FAILURE)
    }
}

fn run(path: Option<&Path>) -> io::Result<ExitCode> {
    let config = match Config::load(path, variables()) {
        Ok(config) => config,
        Err(errors) => return refuse(errors),
    };
    let terminal = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        .with_ansi(terminal)
        .with_writer(io::stderr)
        .init();
    block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let app = match App::start(config).await {
            Ok(app) => app,
            Err(error) => {
                writeln!(io::stderr(), "{error}")?;
                return Ok(ExitCode::FAILURE);
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("draining");
        app.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs everything that is not the packet path: the API, dials, the director.
fn block_on<T>(all: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime =
        Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build()?;
    let done = runtime.block_on(all);
    // Not dropped: that waits for resolver calls under way, and a silent resolver holds them for many seconds.
    runtime.shutdown_background();
    done
}

fn refuse(errors: Vec<ConfigError>) -> io::Result<ExitCode> {
    let mut stderr = io::stderr().lock();
    for error in errors {
        writeln!(stderr, "{error}")?;
    }
    Ok(ExitCode::FAILURE)
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
        Err(errors) => refuse(errors),
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

const KLV_EXAMPLES: &str = "\
Examples:
  millrace klv flight.ts                                        every packet, a JSON object a line
  millrace klv flight.ts | jq 'select(.issues != [])'           only those with something wrong
  millrace klv flight.ts --format csv > flight.csv              a table; --list-fields says of what
  millrace klv flight.ts --format csv --hold --fields time_us,13,14,15
  millrace klv flight.ts --format geojson > flight.geojson      track and footprints, for a GIS
  millrace klv udp://239.1.1.1:5000 --limit 1                   the next packet of a live stream
  ffmpeg -i in.mp4 -map 0:d -c copy -f data - | millrace klv -  a file of KLV through a pipe";
