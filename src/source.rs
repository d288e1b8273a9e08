//! What a command looks at: a path, `-` or the url of an input enters, its bytes leave with their arrival. Never keeps
//! more of them than one read, and sends nothing but what an SRT peer needs to hear.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use millrace::app::{self, StartError};
use millrace::config::Config;
use millrace::hub::Tools;
use millrace::ingest::{Driver, NoticeKind, Piece};
use millrace::inspect::{InputHealth, Senders};
use millrace::media::Nanos;
use millrace::net::{Receiver, clock};
use millrace::store::InputUrl;
use millrace::telemetry::InputStats;
use tokio::signal::unix::{SignalKind, signal};

/// Where bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Standard input, to its end.
    Stdin,
    /// A file, to its end.
    File(PathBuf),
    /// A peer, for as long as is wanted.
    Live(InputUrl),
}

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("{0}")]
    Url(String),
    #[error(transparent)]
    Listen(#[from] StartError),
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Broken(String),
    #[error("nothing was received in {0} s")]
    Silent(u64),
    #[error("what arrived is no RTP with a transport stream (payload type 33); try udp://")]
    NoRtp,
}

/// What came of listening.
#[derive(Debug)]
pub(crate) struct Heard {
    /// How long it was listened, nanoseconds of the clock.
    pub(crate) begin: Nanos,
    pub(crate) end: Nanos,
    /// Bytes that came, without RTP headers.
    pub(crate) bytes: u64,
    /// When the last ones did.
    pub(crate) last_arrival: Nanos,
    /// Who sends; none for SRT.
    pub(crate) senders: Option<Arc<Senders>>,
}

impl Source {
    /// A url has a scheme; anything else is the path of a file, and `-` is standard input.
    ///
    /// # Errors
    /// [`SourceError::Url`]: names the option and what is known instead.
    pub(crate) fn parse(target: &str) -> Result<Self, SourceError> {
        if target == "-" {
            return Ok(Self::Stdin);
        }
        if !target.contains("://") && !target.starts_with("file:") {
            return Ok(Self::File(target.into()));
        }
        Ok(match InputUrl::parse(target).map_err(|error| SourceError::Url(error.msg))? {
            InputUrl::File(file) => Self::File(file.path),
            url => Self::Live(url),
        })
    }

    /// Opens what can be read to an end; none for a peer.
    ///
    /// # Errors
    /// [`SourceError::Read`].
    pub(crate) fn open(&self) -> Result<Option<Box<dyn Read>>, SourceError> {
        Ok(match self {
            Self::Stdin => Some(Box::new(io::stdin())),
            Self::File(path) => Some(Box::new(File::open(path)?)),
            Self::Live(_) => None,
        })
    }
}

/// Hands over everything that can be read, in pieces, until `take` answers `false`. Returns how many bytes there were.
///
/// # Errors
/// What reading fails with, and what `take` does.
pub(crate) fn read<E: From<io::Error>>(
    from: &mut dyn Read,
    mut take: impl FnMut(&[u8]) -> Result<bool, E>,
) -> Result<u64, E> {
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        bytes += length as u64;
        if !take(buffer.get(..length).unwrap_or_default())? {
            return Ok(bytes);
        }
    }
}

/// Listens as an input of this url would, for so long or until Ctrl-C, and hands over what comes with its arrival, until
/// `take` answers `false`. Counts in `stats`.
///
/// # Errors
/// [`SourceError`]: it could not be listened, or nothing came.
pub(crate) async fn listen(
    url: &InputUrl,
    time: Option<Duration>,
    stats: &Arc<InputStats>,
    mut take: impl FnMut(&[u8], Nanos) -> bool,
) -> Result<Heard, SourceError> {
    let mut ear = app::listen(url, &Config::default(), stats).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut tools = Tools { receiver: Receiver::new() };
    let mut tick = tokio::time::interval(LOOK);
    let begin = clock::now();
    let mut heard = Heard { begin, end: begin, bytes: 0, last_arrival: begin, senders: None };
    let mut stop = false;
    while !stop && time.is_none_or(|time| heard.end - begin < time.as_nanos() as u64) {
        tokio::select! {
            _ = tick.tick() => {}
            _ = interrupt.recv() => stop = true,
            _ = terminate.recv() => stop = true,
        }
        heard.end = clock::now();
        let ended = ear.end();
        let (failed, _) = ear.driver.poll(&mut tools, heard.end, stats, &mut |piece, arrival| {
            // who plays a file here plays it once
            let Piece::Bytes(payload) = piece else { return };
            stats.datagrams.fetch_add(1, Relaxed);
            heard.bytes += payload.len() as u64;
            heard.last_arrival = arrival;
            stop |= !take(payload, arrival);
        });
        let over = match failed {
            Some(NoticeKind::Failed { reason, .. }) => Some(reason),
            _ => ended,
        };
        // What came before a connection ended is what there is to tell.
        stop |= over.is_some();
        if let Some(reason) = over.filter(|_| heard.bytes == 0) {
            return Err(SourceError::Broken(reason));
        }
    }
    let health = InputHealth::default();
    if let Driver::Udp(udp) = &ear.driver {
        health.senders(udp.sender(), udp.foreign());
    }
    heard.senders = health.latest_senders();
    let srt = ear.srt();
    drop(ear);
    stats.srt.show(srt);
    if heard.bytes == 0 {
        let sent = heard.senders.is_some_and(|senders| senders.current.is_some());
        let waited = (heard.end - begin + 500_000_000) / 1_000_000_000;
        return Err(if sent { SourceError::NoRtp } else { SourceError::Silent(waited) });
    }
    Ok(heard)
}

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;
/// How often the socket is read; the kernel stamps arrivals.
const LOOK: Duration = Duration::from_millis(10);
