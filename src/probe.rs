//! `millrace probe`: a url or the path of a file enters, what is in that transport stream leaves, as a table or as
//! JSON. Sends nothing but what an SRT peer needs to hear.

use std::fmt::{self, Display};
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use millrace::inspect::Senders;
use millrace::inspect::conformance::{Conformance, Examiner, Verdict};
use millrace::media::{Nanos, PACKET};
use millrace::net::clock;
use millrace::store::{InputUrl, RawUrl};
use millrace::telemetry::InputStats;
use millrace::wire::ts::packet::{PCR_HZ, pcr_delta};
use millrace::wire::ts::{Analyzer, FirstClock, Framer, Packet, Report};
use serde::{Serialize, Serializer};

use crate::source::{self, Source, SourceError};

/// Looks at a file to its end, or listens for so many seconds (Ctrl-C ends that early), and prints what was found.
///
/// `strict`: exit code 3 when a rule of priority 1 or 2 is broken.
pub(crate) async fn run(target: &str, seconds: u64, json: bool, strict: bool) -> io::Result<ExitCode> {
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
    let broken = strict && findings.conformance.state == Verdict::Failed;
    Ok(if broken { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS })
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
    conformance: Conformance,
    #[serde(serialize_with = "inner")]
    counters: Arc<InputStats>,
    /// Who sends; null for a file and for SRT.
    senders: Option<Senders>,
}

/// Why there is nothing to say about a stream.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("no transport packet was found in {0} bytes")]
    NoPacket(u64),
}

async fn look(target: &str, time: Duration) -> Result<Findings, ProbeError> {
    match Source::parse(target)? {
        Source::Live(url) => listen(target, &url, time).await,
        source => match source.open()? {
            Some(mut bytes) => read(target, &mut *bytes),
            None => Err(ProbeError::NoPacket(0)),
        },
    }
}

/// Reads a file as fast as it can be read; time in it is what its clock says.
fn read(target: &str, from: &mut dyn Read) -> Result<Findings, ProbeError> {
    let (mut rules, mut playtime, stats) = (Rules::new(), Playtime::default(), Arc::default());
    let mut take = |datagram: &[u8]| {
        Packet::all(datagram).for_each(|packet| playtime.push(packet));
        rules.take(datagram, NO_ARRIVAL);
    };
    let mut framer = Framer::stream();
    let bytes = source::read(from, |chunk| {
        framer.push(chunk, &mut take);
        Ok::<_, ProbeError>(true)
    })?;
    framer.finish(&mut take);
    let seconds = playtime.seconds();
    let (mut stream, conformance) = rules.finish(&framer, NO_ARRIVAL, None);
    forget_arrivals(&mut stream, seconds);
    findings(target, seconds, (stream, conformance), stats, &framer, bytes)
}

async fn listen(target: &str, url: &InputUrl, time: Duration) -> Result<Findings, ProbeError> {
    let stats = Arc::<InputStats>::default();
    let mut rules = Rules::new();
    let mut take = |datagram: &[u8], arrival| rules.take(datagram, arrival);
    let mut framer = Framer::datagrams();
    let heard = source::listen(url, Some(time), &stats, |payload, arrival| {
        framer.push(payload, &mut |datagram| take(datagram, arrival));
        true
    })
    .await?;
    framer.finish(&mut |datagram| take(datagram, heard.last_arrival));
    let seconds = (heard.end - heard.begin) as f64 / 1e9;
    let found = rules.finish(&framer, heard.end, Some((heard.end, clock::wall())));
    let found = findings(target, Some(seconds), found, stats, &framer, heard.bytes)?;
    let senders = heard.senders.map(|senders| Senders::clone(&senders));
    Ok(Findings { live: true, senders, ..found })
}

fn findings(
    target: &str,
    seconds: Option<f64>,
    (stream, conformance): (Report, Conformance),
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
    Ok(Findings { url, seconds, live: false, stream, conformance, counters, senders: None })
}

/// Holds a stream against the rules.
struct Rules {
    analyzer: Analyzer,
    examiner: Examiner,
    position: u64,
}

impl Rules {
    fn new() -> Self {
        let mut analyzer = Analyzer::new();
        analyzer.keep_sample();
        Self { analyzer, examiner: Examiner::default(), position: 0 }
    }

    fn take(&mut self, datagram: &[u8], arrival: Nanos) {
        self.analyzer.datagram(self.position, datagram, arrival);
        self.position += 1;
        if self.position.is_multiple_of(SAMPLED)
            && let Some(sample) = self.analyzer.take_sample()
        {
            self.examiner.take(&sample);
        }
    }

    /// What was found; a file has ended, what is listened to goes on elsewhere.
    fn finish(
        mut self,
        framer: &Framer,
        end: Nanos,
        now: Option<(Nanos, SystemTime)>,
    ) -> (Report, Conformance) {
        if let Some(sample) = self.analyzer.take_sample() {
            self.examiner.take(&sample);
        }
        if now.is_none() {
            self.examiner.finish();
        }
        self.analyzer.framing(framer.junk_bytes(), framer.resyncs());
        let report = self.analyzer.report(end);
        let conformance = Conformance::new(&report.vitals, &self.examiner, now);
        (report, conformance)
    }
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
        let Self { url, seconds, live, stream, conformance, counters, senders } = self;
        match (live, seconds) {
            (true, Some(seconds)) => writeln!(f, "{url}, {seconds:.1} s")?,
            (_, Some(seconds)) => writeln!(
                f,
                "{url}, plays {seconds:.1} s; bit rates are means, and without arrivals there is no jitter"
            )?,
            (_, None) => writeln!(f, "{url}, without a clock: no bit rates")?,
        }
        write!(f, "{stream}{conformance}")?;
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

/// Rules are broken.
const BROKEN: u8 = 3;
/// Datagrams after which what was sampled is looked at.
const SAMPLED: u64 = 32;
/// A file has none.
const NO_ARRIVAL: Nanos = 0;
/// A longer step of the clock says nothing about the time between.
const A_SECOND: i64 = PCR_HZ as i64;
