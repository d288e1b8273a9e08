//! `millrace klv`: a transport stream or a file of KLV enters, what its metadata says leaves, packet by packet, as JSON,
//! CSV or GeoJSON. Never holds more than a packet and what of it still holds, however long the stream is.

mod columns;
mod csv;
mod found;
mod geojson;
mod json;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use millrace::store::{RawUrl, read_pid};
use millrace::telemetry::InputStats;

use self::columns::Columns;
use self::csv::Csv;
use self::found::{Extract, Found, Taken};
use self::geojson::GeoJson;
use self::json::Json;
use crate::source::{self, Source, SourceError};

/// What stands on the command line.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A transport stream or a file of KLV packets, `-` for standard input, or the url of an input
    ///
    /// Which of the two a file is, its bytes say. Urls are those of inputs: udp://239.1.1.1:5000?interface=eth0,
    /// rtp://…, srt://…, file:…
    #[arg(value_name = "FILE|URL|-", required_unless_present = "list_fields")]
    target: Option<String>,
    /// How it is written
    #[arg(long, short, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// End after so many packets
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// End after so many seconds: of listening to a url, of the time that a file plays (else to its end, or Ctrl-C)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Only this program (program_number)
    #[arg(long, value_name = "N")]
    program: Option<u16>,
    /// Only this PID, as 258 or 0x102
    #[arg(long, value_name = "PID", value_parser = pid)]
    pid: Option<u16>,
    /// Say of every packet what holds then, not only what it holds itself
    ///
    /// ST 0107 lets a sender leave out what did not change for 30 s. Packets with a wrong checksum change nothing.
    /// GeoJSON is always made so.
    #[arg(long)]
    hold: bool,
    /// JSON: with the bytes of the packet and of its items, hexadecimal
    #[arg(long)]
    raw: bool,
    /// CSV: the columns, by name or number of the item: time_us,sensor_latitude,14,48.1
    ///
    /// `all` is every item of ST 0601. See --list-fields.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    fields: Vec<String>,
    /// CSV: list every column there is with number, name and unit, and end
    #[arg(long)]
    list_fields: bool,
    /// GeoJSON: seconds between the scenes that are drawn; 0 = every packet
    ///
    /// [default: 1]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    every: Option<f64>,
}

impl Options {
    /// An option that the format does not use, and the one that does.
    fn idle(&self) -> Option<(&'static str, &'static str)> {
        [
            ("--raw", "json", self.raw, Format::Json),
            ("--fields", "csv", !self.fields.is_empty(), Format::Csv),
            ("--every", "geojson", self.every.is_some(), Format::Geojson),
        ]
        .into_iter()
        .find(|(.., given, format)| *given && self.format != *format)
        .map(|(option, name, ..)| (option, name))
    }
}

/// How packets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One JSON object a line, for each packet: where it came, its items, what is wrong with it
    Json,
    /// One line for each ST 0601 packet; the columns are listed by --list-fields
    Csv,
    /// A FeatureCollection (RFC 7946): sensor, frame centre, footprint and targets once a second, and the track
    Geojson,
}

/// What is written of each packet.
trait Render {
    fn packet(&mut self, found: &Found<'_>, to: &mut dyn Write) -> io::Result<()>;

    /// Nothing more comes.
    fn end(&mut self, to: &mut dyn Write) -> io::Result<()> {
        let _ = to;
        Ok(())
    }
}

/// Why there is nothing more to write.
#[derive(Debug, thiserror::Error)]
enum KlvError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Empty(String),
}

/// Writes what is found; exit code 0 when there was a packet.
pub(crate) async fn run(options: Options) -> io::Result<ExitCode> {
    if options.list_fields {
        return quiet(columns::list(&mut io::stdout().lock())).map(|_| ExitCode::SUCCESS);
    }
    if let Some((option, format)) = options.idle() {
        writeln!(io::stderr(), "{option} says something of --format {format} only: leave one out")?;
        return Ok(ExitCode::from(USAGE));
    }
    let target = options.target.clone().unwrap_or_default();
    let columns = match Columns::parse(&options.fields) {
        Ok(columns) => columns,
        Err(error) => {
            writeln!(io::stderr(), "--fields: {error}")?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let mut render: Box<dyn Render + Send> = match options.format {
        Format::Json => Box::new(Json::new(options.raw)),
        Format::Csv => Box::new(Csv::new(columns)),
        Format::Geojson => Box::new(GeoJson::new(options.every.unwrap_or(1.0))),
    };
    let hold = options.hold || options.format == Format::Geojson;
    let mut out = Out { to: BufWriter::with_capacity(BUFFER, io::stdout()), failed: None };
    let read = match follow(&target, &options, hold, &mut *render, &mut out).await {
        Err(error) => {
            // what came before is not lost
            finish(&mut *render, out)?;
            writeln!(io::stderr(), "{}: {error}", RawUrl::from(target))?;
            return Ok(ExitCode::FAILURE);
        }
        Ok(read) => read,
    };
    finish(&mut *render, out)?;
    Ok(if read { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Standard output, and what writing there failed with.
struct Out {
    to: BufWriter<io::Stdout>,
    failed: Option<io::Error>,
}

/// Ends the output; who stopped reading it is nobody's mistake.
fn finish(render: &mut dyn Render, mut out: Out) -> io::Result<()> {
    let done = match out.failed.take() {
        Some(error) => Err(error),
        None => render.end(&mut out.to).and_then(|()| out.to.flush()),
    };
    let done = quiet(done);
    // its buffer is not to be written by the drop
    drop(out.to.into_parts());
    done
}

fn quiet(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            // the caller cannot know what failed
            writeln!(io::stderr(), "cannot write to standard output: {error}")?;
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Reads or listens to the end. Whether there was a packet.
async fn follow(
    target: &str,
    options: &Options,
    hold: bool,
    render: &mut (dyn Render + Send),
    out: &mut Out,
) -> Result<bool, KlvError> {
    let source = Source::parse(target)?;
    let limit = options.limit.unwrap_or(u64::MAX);
    let (program, pid) = (options.program, options.pid);
    let live = matches!(source, Source::Live(_));
    let playtime = options.seconds.filter(|_| !live).map(|seconds| seconds as f64);
    let (mut written, mut past) = (0, false);
    let mut take = |found: &Found<'_>| {
        if program.is_some_and(|number| found.program != Some(number))
            || pid.is_some_and(|number| found.pid != Some(number))
        {
            return Taken::More;
        }
        if playtime.zip(found.seconds).is_some_and(|(end, at)| at >= end) {
            past = true;
            return Taken::Enough;
        }
        let done = render.packet(found, &mut out.to);
        // live packets are seen when they come
        let done = if live { done.and_then(|()| out.to.flush()) } else { done };
        written += 1;
        match done {
            Err(error) => {
                out.failed = Some(error);
                Taken::Enough
            }
            Ok(()) if written >= limit => Taken::Enough,
            Ok(()) => Taken::More,
        }
    };
    let mut extract = Extract::new(live, hold);
    let bytes = match (source.open()?, source) {
        (Some(mut from), _) => source::read(&mut *from, |chunk| {
            Ok::<_, KlvError>(extract.push(chunk, &mut take) == Taken::More)
        })?,
        (None, Source::Live(url)) => {
            let stats = Arc::<InputStats>::default();
            let time = options.seconds.map(Duration::from_secs);
            let heard = source::listen(&url, time, &stats, |payload, _| {
                extract.push(payload, &mut take) == Taken::More
            });
            heard.await?.bytes
        }
        (None, _) => 0,
    };
    extract.finish(&mut take);
    let broken = out.failed.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if written == 0 && !past && !broken {
        return Err(KlvError::Empty(extract.nothing(bytes, program, pid)));
    }
    Ok(written > 0 || broken)
}

fn pid(text: &str) -> Result<u16, String> {
    let pid = read_pid(text).filter(|pid| *pid < 0x2000);
    pid.ok_or_else(|| "a PID is a number from 0 to 8191, or 0x1fff".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0 to 86400".into())
}

/// As clap ends when arguments are wrong.
const USAGE: u8 = 2;
const BUFFER: usize = 64 << 10;
