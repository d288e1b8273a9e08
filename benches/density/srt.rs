//! What a run of SRT measures beyond what every run has: its options as given on the command line, and the urls and
//! receivers that follow from them.

use std::fmt;
use std::net::SocketAddrV4;

use clap::{Args, ValueEnum};

use crate::Result;
use crate::helper::Role;
use crate::plan::{AGAINST_LO, Against, ENGINE_LO, Options, SinkKind, local};
use crate::srt_sink::{self, Side};

/// What only SRT has.
#[derive(Debug, Clone, Args)]
pub(crate) struct Srt {
    /// Who calls: outputs (push), or readers of one output (serve)
    #[arg(long, default_value_t = Part::Push)]
    pub(crate) role: Part,
    /// Length of the key in bits: 128, 192 or 256
    #[arg(long)]
    pub(crate) aes: Option<u16>,
    /// So many more readers dial in within two seconds while the others are being served
    #[arg(long, default_value_t = 0)]
    pub(crate) dial_in: usize,
    /// Latency in milliseconds
    #[arg(long, default_value_t = 120)]
    pub(crate) latency: u64,
    /// Who receives
    #[arg(long, default_value_t = Receivers::Mini)]
    pub(crate) receivers: Receivers,
}

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Outputs call receivers.
    Push,
    /// Receivers call one output.
    Serve,
}

/// Who receives SRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Receivers {
    /// This program: cheap, and its counts are of packets as they arrive
    Mini,
    /// libsrt: a thread for each connection, and its counts are of what an application gets
    Libsrt,
}

impl Srt {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self, options: &Options) -> Result<()> {
        let serves = self.role == Part::Serve;
        let wrong = match options.against {
            Some(
                Against::Gst
                | Against::Sendto
                | Against::Limit
                | Against::Tokio
                | Against::Send
                | Against::Nginx
                | Against::Plain,
            ) => "--against libsrt-shared, libsrt, srt-tokio, ffmpeg, mediamtx or push: no other sends SRT",
            Some(Against::Ffmpeg) if serves => "ffmpeg serves one reader only",
            Some(Against::Push) if !serves => "--against push is for --role serve",
            _ if options.inputs != 1 || options.sink != SinkKind::Lo || options.pace.is_some() => {
                "SRT is measured with one input, --sink lo and without --pace"
            }
            _ if self.aes.is_some_and(|bits| ![128, 192, 256].contains(&bits)) => {
                "--aes is one of 128, 192 and 256"
            }
            _ if serves && (self.aes.is_some() || self.receivers == Receivers::Libsrt) => {
                "readers that call are plain ones of this program"
            }
            _ if self.dial_in > 0 && !serves => "--dial-in is for --role serve",
            _ => return Ok(()),
        };
        Err(wrong.into())
    }

    /// Length of the key in bytes; 0 = none.
    pub(crate) fn key_bytes(&self) -> u16 {
        self.aes.map_or(0, |bits| bits / 8)
    }

    /// The outputs of an engine as its configuration has them.
    pub(crate) fn entries(&self, part: Part, first: u16, outputs: usize, delay: u64) -> Vec<String> {
        let Self { latency, .. } = self;
        if part == Part::Serve {
            let url = format!(
                "srt://{}?mode=listener&latency={latency}&delay_ms={delay}&streamid={SERVED}",
                local(first)
            );
            return vec![format!("{{name: {SERVED}, url: \"{url}\"}}")];
        }
        let urls = self.urls(first, "latency", *latency);
        let entry = |(place, url)| format!("{{name: out{place}, url: \"{url}&delay_ms={delay}\"}}");
        urls.take(outputs).enumerate().map(entry).collect()
    }

    /// Urls that call the receivers, one after the other for ever. Programs do not agree on the unit of latency, nor on
    /// what it is called.
    pub(crate) fn urls(&self, first: u16, name: &str, latency: u64) -> impl Iterator<Item = String> {
        let keys = self
            .aes
            .map(|bits| format!("&passphrase={PASSPHRASE}&pbkeylen={}", bits / 8))
            .unwrap_or_default();
        let ports = (first..first + PORTS).cycle();
        ports.map(move |port| format!("srt://{}?mode=caller&{name}={latency}{keys}", local(port)))
    }

    /// Who receives.
    pub(crate) fn sink(&self, options: &Options, control: (SocketAddrV4, u32)) -> Role {
        let listen = |first: u16| Side::Listen((first..first + PORTS).map(local).collect());
        let dial = |to, name: &str| Side::Dial(to, format!("read:{name}"));
        let (engine, against) = match (self.role, options.against) {
            (Part::Push, _) => (listen(ENGINE_LO), listen(AGAINST_LO)),
            (Part::Serve, Some(Against::Push)) => (dial(local(ENGINE_LO), SERVED), listen(AGAINST_LO)),
            (Part::Serve, _) => (dial(local(ENGINE_LO), SERVED), dial(local(AGAINST_LO), SERVED)),
        };
        Role::SrtSink(srt_sink::Setup { megabits_per_second: options.stream_mbps, control, engine, against })
    }
}

/// The command line that says the same.
impl fmt::Display for Srt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, " --role {} --receivers {}", self.role, self.receivers)?;
        if let Some(bits) = self.aes {
            write!(formatter, " --aes {bits}")?;
        }
        if self.dial_in > 0 {
            write!(formatter, " --dial-in {}", self.dial_in)?;
        }
        Ok(())
    }
}

/// What readers ask for.
pub(crate) const SERVED: &str = "served";
/// Of every encrypted connection.
pub(crate) const PASSPHRASE: &str = "density-of-srt";
/// Ports that the receivers of one side listen on.
pub(crate) const PORTS: u16 = 4;
