//! `millrace probe`: a url or the path of a file enters, what is in that transport stream leaves, as a table or as
//! JSON. Sends nothing but what an SRT peer needs to hear.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use millrace::app::{self, StartError};
use millrace::config::Config;
use millrace::hub::Tools;
use millrace::ingest::{Driver, NoticeKind};
use millrace::inspect::{InputHealth, Senders};
use millrace::media::{Nanos, PACKET};
use millrace::net::{Receiver, clock};
use millrace::store::{InputUrl, RawUrl};
use millrace::telemetry::InputStats;
use millrace::wire::ts::packet::{PCR_HZ, pcr_delta};
use millrace::wire::ts::{Analyzer, FirstClock, Framer, Packet, Report};
use serde::{Serialize, Serializer};
use tokio::signal::unix::{SignalKind, signal};

/// Looks at a file to its end, or listens for so many seconds (Ctrl-C ends that early), and prints what was found.
pub(crate) async fn run(target: &str, seconds: u64, json: bool) -> io::Result<ExitCode> {
    let findings = match look(target, Duration::from_secs(seconds)).await {
        Ok(findings) => findings,
        Err(error) => {
            writeln!(io::stderr(), "{}: {error}", RawUrl::from(target))?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut stdout = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut stdout, &findings)?;
        writeln!(stdout)?;
    } else {
        write!(stdout, "{findings}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was found, in the words of the API.
#[derive(Serialize)]
struct Findings {
    /// Without secrets.
    url: String,
    /// How long it was listened to; how long a file plays by its clock, null when it has none.
    seconds: Option<f64>,
    #[serde(skip)]
    live: bool,
    stream: Report,
    #[serde(serialize_with = "inner")]
    counters: Arc<InputStats>,
    /// Who sends; null for a file and for SRT.
    senders: Option<Senders>,
}

/// Why there is nothing to say about a stream.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
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
    #[error("no transport packet was found in {0} bytes")]
    NoPacket(u64),
    #[error("what arrived is no RTP with a transport stream (payload type 33); try udp://")]
    NoRtp,
}

async fn look(target: &str, time: Duration) -> Result<Findings, ProbeError> {
    let is_url = target.contains("://") || target.starts_with("file:");
    if !is_url {
        return read(target, Path::new(target));
    }
    match InputUrl::parse(target).map_err(|error| ProbeError::Url(error.msg))? {
        InputUrl::File(file) => read(target, &file.path),
        url => listen(target, &url, time).await,
    }
}

/// Reads a file as fast as it can be read; time in it is what its clock says.
fn read(target: &str, path: &Path) -> Result<Findings, ProbeError> {
    let mut file = File::open(path)?;
    let (mut analyzer, mut playtime, stats) = (Analyzer::new(), Playtime::default(), Arc::default());
    let mut position = 0;
    let mut take = |datagram: &[u8]| {
        Packet::all(datagram).for_each(|packet| playtime.push(packet));
        analyzer.datagram(position, datagram, NO_ARRIVAL);
        position += 1;
    };
    let (mut framer, mut buffer, mut bytes) = (Framer::stream(), vec![0; CHUNK], 0);
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        bytes += length as u64;
        framer.push(&buffer[..length], &mut take);
    }
    framer.finish(&mut take);
    let seconds = playtime.seconds();
    let mut stream = analyzer.report(NO_ARRIVAL);
    forget_arrivals(&mut stream, seconds);
    findings(target, seconds, stream, stats, &framer, bytes)
}

async fn listen(target: &str, url: &InputUrl, time: Duration) -> Result<Findings, ProbeError> {
    let stats = Arc::<InputStats>::default();
    let mut ear = app::listen(url, &Config::default(), &stats).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut analyzer = Analyzer::new();
    let (mut position, mut last_arrival, mut bytes) = (0, 0, 0);
    let mut take = |datagram: &[u8], arrival| {
        analyzer.datagram(position, datagram, arrival);
        position += 1;
    };
    let mut framer = Framer::datagrams();
    let mut tools = Tools { receiver: Receiver::new() };
    let mut tick = tokio::time::interval(LOOK);
    let begin = clock::now();
    let mut now = begin;
    let mut stop = false;
    while !stop && now - begin < time.as_nanos() as u64 {
        tokio::select! {
            _ = tick.tick() => {}
            _ = interrupt.recv() => stop = true,
        }
        now = clock::now();
        let ended = ear.end();
        let (failed, _) = ear.driver.poll(&mut tools, now, &stats, &mut |payload, arrival| {
            stats.datagrams.fetch_add(1, Relaxed);
            bytes += payload.len() as u64;
            last_arrival = arrival;
            framer.push(payload, &mut |datagram| take(datagram, arrival));
        });
        let over = match failed {
            Some(NoticeKind::Failed { reason, .. }) => Some(reason),
            _ => ended,
        };
        // What came before a connection ended is what there is to tell.
        stop |= over.is_some();
        if let Some(reason) = over.filter(|_| bytes == 0) {
            return Err(ProbeError::Broken(reason));
        }
    }
    framer.finish(&mut |datagram| take(datagram, last_arrival));
    let health = InputHealth::default();
    if let Driver::Udp(udp) = &ear.driver {
        health.senders(udp.sender(), udp.foreign());
    }
    let senders = health.latest_senders().map(|senders| Senders::clone(&senders));
    if bytes == 0 {
        let heard = senders.is_some_and(|senders| senders.current.is_some());
        return Err(if heard { ProbeError::NoRtp } else { ProbeError::Silent(time.as_secs()) });
    }
    let seconds = (now - begin) as f64 / 1e9;
    let srt = ear.srt();
    drop(ear);
    stats.srt.show(srt);
    let found = findings(target, Some(seconds), analyzer.report(now), stats, &framer, bytes)?;
    Ok(Findings { live: true, senders, ..found })
}

fn findings(
    target: &str,
    seconds: Option<f64>,
    stream: Report,
    counters: Arc<InputStats>,
    framer: &Framer,
    bytes: u64,
) -> Result<Findings, ProbeError> {
    if stream.packets == 0 {
        return Err(ProbeError::NoPacket(bytes));
    }
    counters.packets.store(stream.packets, Relaxed);
    counters.bytes.store(stream.packets * PACKET as u64, Relaxed);
    counters.bitrate_bps.store(stream.bitrate_bps, Relaxed);
    counters.junk_bytes.store(framer.junk_bytes(), Relaxed);
    counters.resyncs.store(framer.resyncs(), Relaxed);
    let url = RawUrl::from(target).to_string();
    Ok(Findings { url, seconds, live: false, stream, counters, senders: None })
}

fn inner<T: Serialize, S: Serializer>(shared: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    T::serialize(shared, serializer)
}

/// Without arrivals bit rates are means over the time that the file plays, and there is no jitter to measure.
fn forget_arrivals(report: &mut Report, seconds: Option<f64>) {
    let mean = |packets: u64| {
        seconds.map_or(0, |seconds| (packets as f64 * PACKET as f64 * 8.0 / seconds).round() as u64)
    };
    report.bitrate_bps = mean(report.packets);
    for pid in &mut report.pids {
        pid.bitrate_bps = mean(pid.packets);
        if let Some(clock) = &mut pid.pcr {
            (clock.jitter_mean_us, clock.jitter_peak_us) = (0.0, 0.0);
        }
    }
}

/// How long packets play by the clock of their first program.
#[derive(Default)]
struct Playtime {
    clock: FirstClock,
    packets: u64,
    /// Packets before the last PCR, and its value.
    last: Option<(u64, u64)>,
    /// Ticks of 27 MHz that passed while so many packets did.
    ticks: u64,
    timed: u64,
}

impl Playtime {
    fn push(&mut self, packet: Packet<'_>) {
        if let Some(pcr) = self.clock.push(packet)
            && let Some((before, last)) = self.last.replace((self.packets, pcr))
            && let step @ 1..=A_SECOND = pcr_delta(last, pcr)
        {
            self.ticks += step as u64;
            self.timed += self.packets - before;
        }
        self.packets += 1;
    }

    /// Of all packets, at the mean rate of those between two PCRs; none without two PCRs at most 1 s apart.
    fn seconds(&self) -> Option<f64> {
        let per_packet = self.ticks as f64 / PCR_HZ as f64 / self.timed as f64;
        (self.timed > 0).then_some(per_packet * self.packets as f64)
    }
}

impl Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, seconds, live, stream, counters, senders } = self;
        match (live, seconds) {
            (true, Some(seconds)) => writeln!(f, "{url}, {seconds:.1} s")?,
            (_, Some(seconds)) => writeln!(
                f,
                "{url}, plays {seconds:.1} s; bit rates are means, and without arrivals there is no jitter"
            )?,
            (_, None) => writeln!(f, "{url}, without a clock: no bit rates")?,
        }
        write!(f, "{stream}")?;
        if let Some(Senders { current, foreign }) = senders {
            if let Some(current) = current {
                writeln!(f, "Sender: {current}")?;
            }
            for other in foreign {
                writeln!(f, "Another sender, left out: {}, {} datagrams", other.address, other.count)?;
            }
        }
        let load = |counter: &AtomicU64| counter.load(Relaxed);
        if let Some(srt) = counters.srt.stats() {
            let encryption = srt.encryption.load().as_str();
            let ms = |microseconds: &AtomicU32| f64::from(microseconds.load(Relaxed)) / 1e3;
            writeln!(
                f,
                "SRT: peer {}, encryption {encryption}, latency {} ms, round trip {:.1} ms; {} packets lost, {} sent again, {} given up",
                srt.peer_version,
                srt.latency_ms.load(Relaxed),
                ms(&srt.rtt_us.last),
                load(&srt.lost),
                load(&srt.retransmitted),
                load(&srt.dropped),
            )?;
        }
        for (count, what) in [
            (load(&counters.junk_bytes), "bytes between packets"),
            (load(&counters.resyncs), "times packets were found anew behind them"),
            (load(&counters.rtp_lost), "RTP packets lost"),
            (load(&counters.rtp_reordered), "RTP packets out of order"),
            (load(&counters.rtp_discarded), "RTP packets late or doubled"),
            (load(&counters.rtp_ssrc_changes), "changes of the RTP source"),
            (load(&counters.kernel_drops), "datagrams dropped by this machine: it was too slow"),
        ] {
            if count > 0 {
                writeln!(f, "Transport: {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// A file has none.
const NO_ARRIVAL: Nanos = 0;
const CHUNK: usize = 64 << 10;
/// How often the socket is read; the kernel stamps arrivals.
const LOOK: Duration = Duration::from_millis(10);
/// A longer step of the clock says nothing about the time between.
const A_SECOND: i64 = PCR_HZ as i64;
