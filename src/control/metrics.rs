//! Snapshots of the board and of the process enter, their figures leave as Prometheus takes them (text format 0.0.4).
//! Counts nothing itself, and shows no url.
//!
//! Written here: an exporter with counters of its own would count everything twice, and the official client writes label
//! values as they are, so that a name with a quote or a line feed in it would spoil the whole answer.

use std::fmt::{self, Display, Write};
use std::fs::{read_dir, read_to_string};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use self::Kind::{Counter, Gauge};
use super::board::{Board, Card, InputCard, OutputCard};
use super::problem::Problem;
use super::server::serve_router;
use crate::inspect::conformance::Conformance;
use crate::telemetry::{Desired, InputStats, KlvStats, OutputStats, ShardStats, State as Stand};

/// What is shown.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Inputs and outputs.
    pub board: Arc<Board>,
    /// Data threads.
    pub shards: Vec<Arc<ShardStats>>,
    /// When the engine started.
    pub started: SystemTime,
}

/// Serves `GET /metrics` until `shutdown` is ready.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_router(listener, router(metrics), shutdown).await
}

pub(super) fn router(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(answer))
        .fallback(async || Problem::not_found("Not Found: the figures are at /metrics"))
        .method_not_allowed_fallback(async || {
            Problem::Said(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed".into())
        })
        .with_state(metrics)
}

async fn answer(State(metrics): State<Metrics>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render()).into_response()
}

/// A figure of something that has statistics: name, whether it only grows, help, where it is.
type Figure<T> = (&'static str, Kind, &'static str, fn(&T) -> u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

impl Metrics {
    /// All figures as they are now.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        page.one("millrace_build_info", Kind::Gauge, "Version of this program.", &[("version", VERSION)], 1);
        let inputs: Vec<(String, Arc<InputCard>)> =
            self.board.inputs(0, usize::MAX).into_iter().map(|card| (label_input(&card), card)).collect();
        let outputs: Vec<(String, Arc<OutputCard>)> = inputs
            .iter()
            .flat_map(|(_, input)| input.listed_outputs())
            .map(|card| (label_output(&card), card))
            .collect();
        self.render_inputs(&mut page, &inputs);
        render_klv(&mut page, &inputs);
        render_outputs(&mut page, &outputs);
        for (name, kind, help, value) in SHARD {
            page.head(name, *kind, help);
            for (index, shard) in self.shards.iter().enumerate() {
                page.line(name, &labels(&[("shard", &index)]), value(shard));
            }
        }
        self.render_process(&mut page);
        page.0
    }

    fn render_inputs(&self, page: &mut Page, inputs: &[(String, Arc<InputCard>)]) {
        page.head("millrace_input_state", Kind::Gauge, "1 for the state that the input is in.");
        for (labels, input) in inputs {
            let state = stand(&input.card);
            page.line("millrace_input_state", &format!("{labels},state=\"{state}\""), 1);
        }
        page.head("millrace_input_desired", Kind::Gauge, "1 = the input shall run.");
        for (labels, input) in inputs {
            let runs = input.card.spec().desired == Desired::Running;
            page.line("millrace_input_desired", labels, u64::from(runs));
        }
        page.head("millrace_input_reconnects_total", Kind::Counter, "Attempts after the first one.");
        for (labels, input) in inputs {
            let count = input.card.peek(|status| status.reconnect_count);
            page.line("millrace_input_reconnects_total", labels, count);
        }
        for (name, kind, help, value) in INPUT {
            page.head(name, *kind, help);
            for (labels, input) in inputs {
                page.line(name, labels, value(input.card.stats()));
            }
        }
        // From 0 on for each rule that the stream has to do with: an increase is seen from the first breach on, and what
        // does not apply is not taken for what is kept. As many lines as there are rules, for each input.
        let name = "millrace_input_rule_violations_total";
        page.head(
            name,
            Kind::Counter,
            "Breaches of rules that apply to the stream, as ts-health names them.",
        );
        for (labels, input) in inputs {
            for (rule, count) in input.conformance().iter().flat_map(Conformance::counts) {
                let of_rule = format!("{labels},rule=\"{}\",priority=\"{}\"", rule.id, rule.priority);
                page.line(name, &of_rule, count);
            }
        }
    }

    fn render_process(&self, page: &mut Page) {
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let facts = Facts::read();
        let figures = [
            (
                "process_start_time_seconds",
                Kind::Gauge,
                "Start, since the Unix epoch.",
                Some(started.as_secs_f64()),
            ),
            ("process_cpu_seconds_total", Kind::Counter, "CPU time, user and system.", facts.cpu_seconds),
            ("process_resident_memory_bytes", Kind::Gauge, "Resident memory.", facts.resident),
            ("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory.", facts.virtual_memory),
            ("process_threads", Kind::Gauge, "Threads.", facts.threads),
            ("process_open_fds", Kind::Gauge, "Open file descriptors.", facts.descriptors),
            ("process_max_fds", Kind::Gauge, "File descriptors that may be open.", facts.descriptors_most),
        ];
        for (name, kind, help, value) in figures {
            if let Some(value) = value {
                page.head(name, kind, help);
                page.line(name, "", value);
            }
        }
    }
}

fn render_klv(page: &mut Page, inputs: &[(String, Arc<InputCard>)]) {
    for (name, kind, help, value) in KLV {
        page.head(name, *kind, help);
        for (labels, input) in inputs {
            page.line(name, labels, value(input.klv().stats()));
        }
    }
    let tracks: Vec<_> = inputs
        .iter()
        .flat_map(|(labels, input)| {
            // their rates are not shown: whoever reads counters makes rates of them
            input
                .klv()
                .tracks(0)
                .into_iter()
                .map(move |view| (format!("{labels},pid=\"{}\"", view.track), view))
        })
        .collect();
    let name = "millrace_klv_decoded_packets_total";
    page.head(name, Kind::Counter, "KLV packets decoded since the source began.");
    tracks.iter().for_each(|(labels, view)| page.line(name, labels, view.counts.packets));
    let name = "millrace_klv_checksum_errors_total";
    page.head(name, Kind::Counter, "KLV packets whose checksum is wrong, since the source began.");
    tracks.iter().for_each(|(labels, view)| page.line(name, labels, view.counts.checksum_errors));
    let name = "millrace_klv_issues_total";
    page.head(name, Kind::Counter, "What was wrong with KLV packets, by name, since the source began.");
    for (labels, view) in &tracks {
        for (issue, count) in view.counts.issues.iter().chain(&view.counts.quirks) {
            page.line(name, &format!("{labels},issue=\"{issue}\""), *count);
        }
    }
}

fn render_outputs(page: &mut Page, outputs: &[(String, Arc<OutputCard>)]) {
    page.head("millrace_output_state", Kind::Gauge, "1 for the state that the output is in.");
    for (labels, output) in outputs {
        page.line("millrace_output_state", &format!("{labels},state=\"{}\"", stand(output)), 1);
    }
    page.head("millrace_output_desired", Kind::Gauge, "1 = the output shall run.");
    for (labels, output) in outputs {
        page.line("millrace_output_desired", labels, u64::from(output.spec().desired == Desired::Running));
    }
    page.head("millrace_output_reconnects_total", Kind::Counter, "Attempts after the first one.");
    for (labels, output) in outputs {
        page.line("millrace_output_reconnects_total", labels, output.peek(|status| status.reconnect_count));
    }
    for (name, kind, help, value) in OUTPUT {
        page.head(name, *kind, help);
        for (labels, output) in outputs {
            page.line(name, labels, value(output.stats()));
        }
    }
}

fn label_input(card: &InputCard) -> String {
    let spec = card.card.spec();
    labels(&[("input", &spec.id), ("name", &spec.name)])
}

fn label_output(card: &OutputCard) -> String {
    let spec = card.spec();
    let protocol = spec.url.protocol().as_str();
    labels(&[("input", &spec.input_id), ("output", &spec.id), ("name", &spec.name), ("protocol", &protocol)])
}

fn stand<Spec, Stats>(card: &Card<Spec, Stats>) -> &'static str {
    card.peek(|status| match status.state {
        Stand::Idle => "Idle",
        Stand::Connecting => "Connecting",
        Stand::Live => "Live",
        Stand::Sending => "Sending",
        Stand::Starved => "Starved",
        Stand::Stalled => "Stalled",
        Stand::Backoff => "Backoff",
        Stand::Failed => "Failed",
    })
}

/// `name="value",…`, values escaped.
fn labels(pairs: &[(&str, &dyn Display)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{name}=\"");
        let _ = write!(Escaped(&mut text), "{value}");
        text.push('"');
    }
    text
}

/// Escapes what a label value may not hold as it is: backslash, quote and line feed.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// What is answered.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = if kind == Kind::Counter { "counter" } else { "gauge" };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, pairs: &[(&str, &str)], value: u64) {
        self.head(name, kind, help);
        let pairs: Vec<(&str, &dyn Display)> =
            pairs.iter().map(|(name, value)| (*name, value as &dyn Display)).collect();
        self.line(name, &labels(&pairs), value);
    }
}

/// What the kernel knows of this process; none where it does not say.
#[derive(Debug, Default)]
struct Facts {
    cpu_seconds: Option<f64>,
    resident: Option<f64>,
    virtual_memory: Option<f64>,
    threads: Option<f64>,
    descriptors: Option<f64>,
    descriptors_most: Option<f64>,
}

impl Facts {
    fn read() -> Self {
        let status = read_to_string("/proc/self/status").unwrap_or_default();
        let limits = read_to_string("/proc/self/limits").unwrap_or_default();
        let stat = read_to_string("/proc/self/stat").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        let open = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        Self {
            cpu_seconds: cpu_seconds(&stat),
            resident: number("VmRSS:").map(|kb| kb * 1024.0),
            virtual_memory: number("VmSize:").map(|kb| kb * 1024.0),
            threads: number("Threads:"),
            descriptors: read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64),
            descriptors_most: open.and_then(|line| line.split_whitespace().next()?.parse().ok()),
        }
    }
}

/// utime and stime of proc_pid_stat(5), behind the name in parentheses; USER_HZ is 100.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[rustfmt::skip]
const INPUT: &[Figure<InputStats>] = &[
    ("millrace_input_bytes_total", Counter, "Bytes of transport packets received.", |s| of(&s.bytes)),
    ("millrace_input_packets_total", Counter, "Transport packets received.", |s| of(&s.packets)),
    ("millrace_input_datagrams_total", Counter, "Datagrams received.", |s| of(&s.datagrams)),
    ("millrace_input_bits_per_second", Gauge, "Bit rate over the last second.", |s| of(&s.bitrate_bps)),
    ("millrace_input_last_packet_milliseconds", Gauge, "When the last packet came, since the Unix epoch; 0 = never.",
        |s| of(&s.last_packet_ms)),
    ("millrace_input_kernel_drops_total", Counter, "Datagrams that the receive buffer had no room for.",
        |s| of(&s.kernel_drops)),
    ("millrace_input_continuity_errors_total", Counter, "Gaps in continuity counters.", |s| of(&s.continuity_errors)),
    ("millrace_input_junk_bytes_total", Counter, "Bytes that were part of no packet.", |s| of(&s.junk_bytes)),
    ("millrace_input_resyncs_total", Counter, "How often synchronisation was lost.", |s| of(&s.resyncs)),
    ("millrace_input_foreign_datagrams_total", Counter, "Datagrams of senders that are refused.",
        |s| of(&s.foreign_datagrams)),
    ("millrace_input_rtp_lost_total", Counter, "RTP packets that never came.", |s| of(&s.rtp_lost)),
    ("millrace_input_rtp_discarded_total", Counter, "RTP packets that came twice or too late.",
        |s| of(&s.rtp_discarded)),
    ("millrace_input_srt_lost_total", Counter, "SRT packets missed on the present connection.",
        |s| s.srt.stats().map_or(0, |srt| of(&srt.lost))),
    ("millrace_input_srt_dropped_total", Counter, "SRT packets given up on the present connection.",
        |s| s.srt.stats().map_or(0, |srt| of(&srt.dropped))),
    ("millrace_input_sessions", Gauge, "Peers that publish.", |s| s.sessions.len() as u64),
];

#[rustfmt::skip]
const OUTPUT: &[Figure<OutputStats>] = &[
    ("millrace_output_bytes_total", Counter, "Bytes of payload sent.", |s| of(&s.bytes)),
    ("millrace_output_packets_total", Counter, "Transport packets sent.", OutputStats::packets),
    ("millrace_output_datagrams_total", Counter, "Datagrams sent, or chunks written.", |s| of(&s.datagrams)),
    ("millrace_output_bits_per_second", Gauge, "Bit rate over the last second.", |s| of(&s.bitrate_bps)),
    ("millrace_output_last_sent_milliseconds", Gauge, "When the last datagram left, since the Unix epoch; 0 = never.",
        |s| of(&s.last_sent_ms)),
    ("millrace_output_send_errors_total", Counter, "Datagrams that the kernel refused to send.",
        |s| of(&s.send_errors)),
    ("millrace_output_skipped_total", Counter, "Datagrams skipped because the output fell behind.",
        |s| of(&s.skipped)),
    ("millrace_output_skips_total", Counter, "How often it skipped.", |s| of(&s.skips)),
    ("millrace_output_icmp_errors_total", Counter, "ICMP errors that came back.", |s| of(&s.icmp_errors)),
    ("millrace_output_acknowledged_total", Counter, "Datagrams that the peer acknowledged.", |s| of(&s.acknowledged)),
    ("millrace_output_srt_retransmitted_total", Counter, "SRT packets sent again on the present connection.",
        |s| s.srt.stats().map_or(0, |srt| of(&srt.retransmitted))),
    ("millrace_output_srt_dropped_total", Counter, "SRT packets given up on the present connection.",
        |s| s.srt.stats().map_or(0, |srt| of(&srt.dropped))),
    ("millrace_output_sessions", Gauge, "Peers that read.", |s| s.sessions.len() as u64),
];

#[rustfmt::skip]
const KLV: &[Figure<KlvStats>] = &[
    ("millrace_klv_packets_total", Counter, "KLV packets that passed.", |s| of(&s.packets)),
    ("millrace_klv_bytes_total", Counter, "Bytes of KLV packets that passed.", |s| of(&s.bytes)),
    ("millrace_klv_dropped_total", Counter, "KLV packets that were not decoded: too many came.", |s| of(&s.dropped)),
    ("millrace_klv_oversize_total", Counter, "KLV packets longer than 64 kB.", |s| of(&s.oversize)),
    ("millrace_klv_damaged_total", Counter, "PES packets of metadata of which a part was missing.",
        |s| of(&s.damaged)),
    ("millrace_klv_foreign_total", Counter, "PES packets declared as KLV that carry none.", |s| of(&s.foreign)),
];

#[rustfmt::skip]
const SHARD: &[Figure<ShardStats>] = &[
    ("millrace_shard_messages_total", Counter, "Messages handed to the kernel.", |s| of(&s.messages)),
    ("millrace_shard_datagrams_total", Counter, "Datagrams that these were cut into.", |s| of(&s.datagrams)),
    ("millrace_shard_lost_notices_total", Counter, "Notices that found no room.", |s| of(&s.lost_notices)),
];

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{InputDraft, OutputDraft, Store};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    /// A board with an input and an output whose name holds everything that must be escaped.
    fn metrics(name: &str) -> Metrics {
        let (mut store, board) = (Store::default(), Board::default());
        let draft = InputDraft { name: name.into(), ..InputDraft::default() };
        board.add_input(store.create_input(draft, NOW).unwrap(), NOW);
        let draft = OutputDraft {
            name: name.into(),
            url: "rtmp://127.0.0.1/live/SECRET".into(),
            protocol: None,
            auto_reconnect: None,
            reconnect_delay: None,
            max_reconnect_attempts: None,
        };
        let output = board.add_output(store.create_output(1, draft, NOW).unwrap(), NOW).unwrap();
        output.stats().bytes.store(1880, Relaxed);
        board.input(1).unwrap().card.stats().packets.store(7, Relaxed);
        Metrics { board: Arc::new(board), shards: vec![Arc::default()], started: NOW }
    }

    #[test]
    fn a_parser_of_others_reads_every_line_and_names_are_escaped() {
        // The parser knows neither braces nor escapes in a value.
        let text = metrics("a b=é").render();
        let scrape = prometheus_parse::Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(scrape.samples.len(), lines, "{text}");
        let value = |name: &str| {
            let sample = scrape.samples.iter().find(|sample| sample.metric == name).expect(name);
            let (prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value)) =
                sample.value
            else {
                panic!("{name}: {:?}", sample.value)
            };
            value
        };
        assert_eq!(value("millrace_output_bytes_total"), 1880.0);
        assert_eq!(value("millrace_output_packets_total"), 10.0);
        assert_eq!(value("millrace_input_packets_total"), 7.0);
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_open_fds") >= 3.0 && value("process_threads") >= 1.0);
        let state = scrape.samples.iter().find(|sample| sample.metric == "millrace_output_state").unwrap();
        assert_eq!((state.labels.get("state"), state.labels.get("protocol")), (Some("Idle"), Some("rtmp")));
        assert!(!text.contains("SECRET"));
        let text = metrics("a\"b\\c{d}=é,").render();
        let named = text.lines().find(|line| line.starts_with("millrace_input_packets_total")).unwrap();
        assert_eq!(named, r#"millrace_input_packets_total{input="1",name="a\"b\\c{d}=é,"} 7"#);
    }

    #[test]
    fn a_line_feed_in_a_value_ends_no_line() {
        assert_eq!(labels(&[("a", &"x\ny\"z\\"), ("b", &1)]), r#"a="x\ny\"z\\",b="1""#);
    }

    #[test]
    fn every_figure_has_one_head_and_a_name_of_the_convention() {
        let text = metrics("a").render();
        let mut heads: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        for head in &heads {
            let (name, kind) = head.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{head}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{head}");
        }
        let all = heads.len();
        heads.sort_unstable();
        heads.dedup();
        assert_eq!(heads.len(), all);
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("nothing"), None);
    }
}
