//! Cards of the board enter, bodies of the API's contract leave: its names, its status words, its times. Urls
//! are shown without their secrets.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::board::{Card, InputCard, OutputCard};
use crate::store::{InputId, InputSpec, OutputId, OutputSpec, redact, redact_stream_id};
use crate::telemetry::{
    Desired, DroppedTracks, Event, InputStats, Level, OutputStats, Session, SessionId, SessionList, State,
    Status, Transport,
};

/// A moment as the contract writes it: naive UTC, whole seconds, `2024-01-01T12:00:00`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(pub(super) SystemTime);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (day, second) = (seconds / 86_400, seconds % 86_400);
        // Years of 400 (146,097 days) that begin on 1 March, so that the leap day is the last of its year.
        let day = day + 719_468;
        let (era, of_era) = (day / 146_097, day % 146_097);
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let day = of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year + era * 400 + u64::from(month <= 2);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}", second % 60)
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The contract's word for an input.
pub(super) fn input_word(desired: Desired, state: State) -> &'static str {
    match (desired, state) {
        (Desired::Stopped, State::Live | State::Connecting) => "stopping",
        (Desired::Stopped, _) | (_, State::Idle) => "inactive",
        (_, State::Connecting) => "starting",
        (_, State::Live | State::Sending | State::Starved) => "active",
        (_, State::Stalled | State::Backoff | State::Failed) => "error",
    }
}

/// The contract's word for an output.
pub(super) fn output_word(desired: Desired, state: State) -> &'static str {
    match (desired, state) {
        (Desired::Stopped, _) => "stopped",
        (_, State::Idle | State::Connecting) => "starting",
        (_, State::Live | State::Sending | State::Starved) => RUNNING,
        (_, State::Stalled | State::Backoff) => "reconnecting",
        (_, State::Failed) => "error",
    }
}

/// How many outputs of an input are running.
pub(super) fn active_outputs(input: &InputCard) -> usize {
    let running =
        |card: &Arc<OutputCard>| output_word(card.spec().desired, card.peek(|s| s.state)) == RUNNING;
    input.listed_outputs().iter().filter(|card| running(card)).count()
}

/// A snapshot of a card, ready to be written.
pub(super) struct View<C, Spec> {
    card: Arc<C>,
    spec: Arc<Spec>,
    status: Status,
    now: SystemTime,
}

/// `InputResponse`
pub(super) type InputView = View<InputCard, InputSpec>;
/// `OutputResponse`
pub(super) type OutputView = View<OutputCard, OutputSpec>;

impl InputView {
    pub(super) fn new(card: Arc<InputCard>, now: SystemTime) -> Self {
        Self { spec: card.card.spec(), status: card.card.status(), card, now }
    }

    /// `InputDetail`
    pub(super) fn with_outputs(self) -> impl Serialize {
        #[derive(Serialize)]
        struct Detail {
            #[serde(flatten)]
            input: InputView,
            outputs: Vec<OutputView>,
        }
        Detail { outputs: outputs(&self.card, self.now), input: self }
    }

    /// A port that is answered is open, or about to be: not one that could not be had.
    fn srt_port(&self) -> Option<u16> {
        let reader = self.card.reader()?;
        let open =
            reader.peek(|status| !matches!(status.state, State::Stalled | State::Backoff | State::Failed));
        self.spec.srt_port.filter(|_| open)
    }

    /// The short form of `GET …/status`.
    pub(super) fn short(&self) -> Value {
        json!({
            "id": self.spec.id,
            "name": &*self.spec.name,
            "status": input_word(self.spec.desired, self.status.state),
            "udp_port": self.spec.udp_port,
            "srt_port": self.srt_port(),
            "output_count": self.card.output_count(),
            "active_outputs": active_outputs(&self.card),
            "created_at": Stamp(self.spec.created_at),
            "state": self.status.state,
            "reason": self.status.reason,
            "since": Stamp(self.status.since),
        })
    }
}

/// Every output of an input.
pub(super) fn outputs(input: &InputCard, now: SystemTime) -> Vec<OutputView> {
    input.listed_outputs().into_iter().map(|card| OutputView::new(card, now)).collect()
}

impl Serialize for InputView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (spec, status, stats) = (&self.spec, &self.status, self.card.card.stats());
        InputAnswer {
            id: spec.id,
            name: &spec.name,
            udp_port: spec.udp_port,
            mediamtx_path: &spec.mediamtx_path,
            srt_port: self.srt_port(),
            status: input_word(spec.desired, status.state),
            created_at: Stamp(spec.created_at),
            updated_at: Stamp(spec.updated_at),
            output_count: self.card.output_count(),
            url: redact(spec.raw_url.reveal()),
            state: status.state,
            reason: &status.reason,
            desired: spec.desired,
            since: Stamp(status.since),
            started_at: status.started_at.map(Stamp),
            uptime_seconds: uptime(spec.desired, status, self.now),
            reconnect_count: status.reconnect_count,
            last_error: status.last_error.as_deref(),
            stats: InputCounters { all: stats, last_packet: moment(stats.last_packet_ms.load(Relaxed)) },
        }
        .serialize(serializer)
    }
}

impl OutputView {
    pub(super) fn new(card: Arc<OutputCard>, now: SystemTime) -> Self {
        Self { spec: card.spec(), status: card.status(), card, now }
    }

    /// `GET …/stats`: the reference's own names (`process_stats`) and datarhei's (`progress`). What a process
    /// per output or a decoder would know is null.
    pub(super) fn stats(&self) -> Value {
        let (spec, status, stats) = (&self.spec, &self.status, self.card.stats());
        let word = output_word(spec.desired, status.state);
        let uptime = uptime(spec.desired, status, self.now);
        let bytes = stats.bytes.load(Relaxed);
        json!({
            "id": spec.id,
            "name": &*spec.name,
            "status": word,
            "reconnect_count": status.reconnect_count,
            "last_error": status.last_error,
            "process_stats": {
                "running": word == RUNNING,
                "pid": null,
                "reconnect_count": status.reconnect_count,
                "uptime_seconds": uptime,
                "cpu_percent": null,
                "memory_mb": null,
            },
            "progress": {
                "bitrate_kbit": stats.bitrate_bps.load(Relaxed) as f64 / 1e3,
                "fps": null,
                "frame": null,
                "packet": stats.packets(),
                "drop": stats.skipped.load(Relaxed) + stats.send_errors.load(Relaxed),
                "dup": null,
                "size_kb": bytes / 1024,
                "speed": null,
                "time": uptime,
            },
            "stats": OutputCounters::of(stats),
            "created_at": Stamp(spec.created_at),
        })
    }
}

impl Serialize for OutputView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (spec, status) = (&self.spec, &self.status);
        OutputAnswer {
            id: spec.id,
            input_id: spec.input_id,
            name: &spec.name,
            url: redact(spec.raw_url.reveal()),
            protocol: spec.url.protocol().as_str(),
            auto_reconnect: spec.auto_reconnect,
            reconnect_delay: spec.reconnect_delay,
            max_reconnect_attempts: spec.max_reconnect_attempts,
            status: output_word(spec.desired, status.state),
            reconnect_count: status.reconnect_count,
            last_error: status.last_error.as_deref(),
            process_id: None,
            started_at: status.started_at.map(Stamp),
            created_at: Stamp(spec.created_at),
            updated_at: Stamp(spec.updated_at),
            state: status.state,
            reason: &status.reason,
            desired: spec.desired,
            since: Stamp(status.since),
            uptime_seconds: uptime(spec.desired, status, self.now),
            dropped_tracks: &self.card.stats().dropped_tracks,
            stats: OutputCounters::of(self.card.stats()),
        }
        .serialize(serializer)
    }
}

/// Events of an input, or of one of its outputs, as log entries.
pub(super) fn logs<Spec, Stats>(
    card: &Card<Spec, Stats>,
    input: InputId,
    output: Option<OutputId>,
    limit: usize,
) -> Vec<LogAnswer> {
    let entry = |Event { id, at, level, message }| LogAnswer {
        id,
        entity_type: if output.is_some() { "output" } else { "input" },
        entity_id: output.unwrap_or(input),
        input_id: input,
        output_id: output,
        level,
        message,
        timestamp: Stamp(at),
    };
    card.events(limit).into_iter().map(entry).collect()
}

/// Who publishes to an input, and who reads it on its SRT port.
pub(super) fn input_sessions(input: &InputCard, now: SystemTime) -> Vec<SessionAnswer> {
    let mut all = sessions(&input.card.stats().sessions, "publish", now);
    all.extend(input.reader().iter().flat_map(|reader| output_sessions(reader, now)));
    all
}

/// Who reads an output.
pub(super) fn output_sessions(output: &OutputCard, now: SystemTime) -> Vec<SessionAnswer> {
    sessions(&output.stats().sessions, "read", now)
}

fn sessions(list: &SessionList, role: &'static str, now: SystemTime) -> Vec<SessionAnswer> {
    let answer = |session: Arc<Session>| SessionAnswer {
        id: session.id,
        role,
        protocol: session.protocol,
        peer: session.peer,
        user: session.user.clone(),
        stream_id: redact_stream_id(&session.stream_id).into(),
        since: Stamp(session.since),
        uptime_seconds: now.duration_since(session.since).unwrap_or_default().as_secs(),
        kicked: session.is_kicked(),
        transport: session.transport.clone(),
    };
    list.all().into_iter().map(answer).collect()
}

/// `{success, message, data}`
pub(super) fn success(message: impl Into<String>) -> Value {
    json!({ "success": true, "message": message.into(), "data": null })
}

#[derive(Serialize)]
struct InputAnswer<'a> {
    id: InputId,
    name: &'a str,
    udp_port: Option<u16>,
    mediamtx_path: &'a str,
    srt_port: Option<u16>,
    status: &'static str,
    created_at: Stamp,
    updated_at: Stamp,
    output_count: usize,
    url: Cow<'a, str>,
    state: State,
    reason: &'a str,
    desired: Desired,
    since: Stamp,
    started_at: Option<Stamp>,
    uptime_seconds: u64,
    reconnect_count: u64,
    last_error: Option<&'a str>,
    stats: InputCounters<'a>,
}

#[derive(Serialize)]
struct InputCounters<'a> {
    #[serde(flatten)]
    all: &'a InputStats,
    last_packet: Option<Stamp>,
}

#[derive(Serialize)]
struct OutputAnswer<'a> {
    id: OutputId,
    input_id: InputId,
    name: &'a str,
    url: Cow<'a, str>,
    protocol: &'static str,
    auto_reconnect: bool,
    reconnect_delay: u16,
    max_reconnect_attempts: u32,
    status: &'static str,
    reconnect_count: u64,
    last_error: Option<&'a str>,
    process_id: Option<u32>,
    started_at: Option<Stamp>,
    created_at: Stamp,
    updated_at: Stamp,
    state: State,
    reason: &'a str,
    desired: Desired,
    since: Stamp,
    uptime_seconds: u64,
    dropped_tracks: &'a DroppedTracks,
    stats: OutputCounters<'a>,
}

#[derive(Serialize)]
struct OutputCounters<'a> {
    #[serde(flatten)]
    all: &'a OutputStats,
    packets: u64,
    last_sent: Option<Stamp>,
}

impl<'a> OutputCounters<'a> {
    fn of(all: &'a OutputStats) -> Self {
        Self { packets: all.packets(), last_sent: moment(all.last_sent_ms.load(Relaxed)), all }
    }
}

/// `LogResponse`
#[derive(Serialize)]
pub(super) struct LogAnswer {
    id: u64,
    entity_type: &'static str,
    entity_id: u64,
    input_id: InputId,
    output_id: Option<OutputId>,
    level: Level,
    message: String,
    timestamp: Stamp,
}

#[derive(Serialize)]
pub(super) struct SessionAnswer {
    id: SessionId,
    role: &'static str,
    protocol: &'static str,
    peer: SocketAddr,
    user: Option<Box<str>>,
    stream_id: Box<str>,
    since: Stamp,
    uptime_seconds: u64,
    kicked: bool,
    #[serde(flatten, serialize_with = "carried")]
    transport: Transport,
}

/// `"srt": {…}` or `"flow": {…}`.
fn carried<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    match transport {
        Transport::Srt(stats) => serializer.collect_map([("srt", &**stats)]),
        Transport::Flow(stats) => serializer.collect_map([("flow", &**stats)]),
    }
}

/// Seconds since it became live, while it is.
fn uptime(desired: Desired, status: &Status, now: SystemTime) -> u64 {
    let up =
        desired == Desired::Running && matches!(status.state, State::Live | State::Sending | State::Starved);
    let since = status.started_at.filter(|_| up);
    since.and_then(|since| now.duration_since(since).ok()).unwrap_or_default().as_secs()
}

/// Milliseconds since the epoch; 0 = never.
fn moment(ms: u64) -> Option<Stamp> {
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))?;
    (ms != 0).then_some(Stamp(at))
}

const RUNNING: &str = "running";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_naive_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_704_110_400, "2024-01-01T12:00:00"),
            (1_709_210_096, "2024-02-29T12:34:56"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(Stamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Stamp(SystemTime::UNIX_EPOCH - Duration::from_secs(1)).to_string(), "1970-01-01T00:00:00");
    }

    #[test]
    fn words_follow_the_map() {
        use State::{Backoff, Connecting, Failed, Idle, Live, Sending, Stalled, Starved};
        for (state, input, output) in [
            (Idle, "inactive", "starting"),
            (Connecting, "starting", "starting"),
            (Live, "active", "running"),
            (Sending, "active", "running"),
            (Starved, "active", "running"),
            (Stalled, "error", "reconnecting"),
            (Backoff, "error", "reconnecting"),
            (Failed, "error", "error"),
        ] {
            assert_eq!(input_word(Desired::Running, state), input, "{state:?}");
            assert_eq!(output_word(Desired::Running, state), output, "{state:?}");
            assert_eq!(output_word(Desired::Stopped, state), "stopped", "{state:?}");
        }
        assert_eq!(input_word(Desired::Stopped, Idle), "inactive");
        assert_eq!(input_word(Desired::Stopped, Failed), "inactive");
        assert_eq!(input_word(Desired::Stopped, Live), "stopping");
    }
}
