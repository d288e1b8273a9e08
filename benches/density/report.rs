//! What a run found, for people and for programs.

use serde::{Serialize, Serializer};

/// One row. The names are a contract: later modes keep them.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// Protocol of the outputs.
    pub(crate) mode: &'static str,
    /// Outputs in all.
    pub(crate) outputs: usize,
    /// Inputs, each with a stream of its own.
    pub(crate) inputs: usize,
    /// Delay class.
    pub(crate) delay_ms: u64,
    /// Bit rate of each stream.
    pub(crate) stream_mbps: f64,
    /// Seconds asked for.
    pub(crate) seconds: u64,
    /// Where outputs went.
    pub(crate) sink: String,
    /// CPU of the engine, median of the slices.
    #[serde(serialize_with = "rounded")]
    pub(crate) cpu_ms_per_s_per_output: Option<f64>,
    /// What it was compared with.
    pub(crate) against: Option<String>,
    /// CPU of that, median of the slices.
    #[serde(serialize_with = "rounded")]
    pub(crate) against_cpu_ms_per_s_per_output: Option<f64>,
    /// Reference ÷ millrace, median of the pairs of slices.
    #[serde(serialize_with = "rounded")]
    pub(crate) ratio: Option<f64>,
    /// Lowest ratio of a pair.
    #[serde(serialize_with = "rounded")]
    pub(crate) ratio_min: Option<f64>,
    /// Highest ratio of a pair.
    #[serde(serialize_with = "rounded")]
    pub(crate) ratio_max: Option<f64>,
    /// Datagrams (RTMP and RTSP: access units) sent to the engine that an output which can be seen never got; overflows of
    /// the sink apart.
    pub(crate) lost_packets: u64,
    /// Share of the datagrams due at those outputs that arrived.
    pub(crate) delivered_fraction: f64,
    /// From leaving the source to arriving at an output.
    #[serde(serialize_with = "rounded")]
    pub(crate) added_delay_ms_p50: Option<f64>,
    /// The same, 99 of 100.
    #[serde(serialize_with = "rounded")]
    pub(crate) added_delay_ms_p99: Option<f64>,
    /// Datagrams that left in one send.
    #[serde(serialize_with = "rounded")]
    pub(crate) mean_batch: Option<f64>,
    /// Resident memory of the engine at the end.
    pub(crate) rss_bytes: u64,
    /// Resident memory with all outputs less that with one, per output.
    #[serde(serialize_with = "rounded")]
    pub(crate) rss_bytes_per_output: Option<f64>,
    /// Rounds measured.
    pub(crate) rounds: usize,
    /// Rounds of them that were left out because the machine was busy.
    pub(crate) saturated_rounds: usize,
    /// SRT: who called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// SRT: length of the key in bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aes: Option<u16>,
    /// SRT, RTMP and RTSP: numbers of packets or units that the engine's receivers never saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing_sequences: Option<u64>,
    /// The same: packets that the engine's receivers saw again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repeated_packets: Option<u64>,
    /// The same: system calls of the engine per datagram of the stream and output.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rounded")]
    pub(crate) syscalls_per_packet: Option<f64>,
    /// SRT: seconds from the order to dial in until the last latecomer was connected.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rounded")]
    pub(crate) dial_in_s: Option<f64>,
    /// RTMP and RTSP: over TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<bool>,
    /// RTMP and RTSP: one receiver in so many takes nothing; 0 = all take. Losses are those of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stalled: Option<usize>,
    /// RTMP and RTSP: milliseconds from the request for an output to its first media.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "rounded")]
    pub(crate) first_media_ms: Option<f64>,
    /// What else there is to know.
    pub(crate) note: String,
}

/// A row and what its targets need besides.
pub(crate) struct Outcome {
    /// The row.
    pub(crate) row: Row,
    /// Delay of the control flow, 99 of 100.
    pub(crate) control_ms_p99: Option<f64>,
    /// Time between arrivals at a probe, 99 of 100.
    pub(crate) gap_ms_p99: Option<f64>,
    /// Datagrams that arrived with other bytes than were sent.
    pub(crate) changed: u64,
    /// Bytes that the rings may take.
    pub(crate) ring_bytes: f64,
}

/// Prints rows as one table.
pub(crate) fn print_table(machine: &str, outcomes: &[Outcome]) {
    println!("\n{machine}\n");
    println!(
        "| outputs × D → sink | against | CPU ms/s/output | reference | ratio (min-max) | lost | delivered \
         | added p50 / p99 ms | batch | RSS MB | B/output | rounds (saturated) | note |"
    );
    println!("|{}", "---|".repeat(13));
    for Outcome { row, .. } in outcomes {
        let range = match (row.ratio_min, row.ratio_max) {
            (Some(min), Some(max)) => format!(" ({min:.2}-{max:.2})"),
            _ => String::new(),
        };
        let streams = if row.inputs > 1 { format!(" from {}", row.inputs) } else { String::new() };
        println!(
            "| {}{streams} × {} ms → {} | {} | {} | {} | {}{range} | {} | {:.5} | {} / {} | {} | {:.1} | {} | {} ({}) | {} |",
            row.outputs,
            row.delay_ms,
            row.sink,
            row.against.as_deref().unwrap_or("-"),
            show(row.cpu_ms_per_s_per_output, 4),
            show(row.against_cpu_ms_per_s_per_output, 4),
            show(row.ratio, 2),
            row.lost_packets,
            row.delivered_fraction,
            show(row.added_delay_ms_p50, 2),
            show(row.added_delay_ms_p99, 2),
            show(row.mean_batch, 2),
            row.rss_bytes as f64 / 1e6,
            show(row.rss_bytes_per_output, 0),
            row.rounds,
            row.saturated_rounds,
            row.note,
        );
    }
}

/// Prints rows for programs: one JSON object per line.
pub(crate) fn print_rows(outcomes: &[Outcome]) -> crate::Result<()> {
    println!();
    for outcome in outcomes {
        println!("{}", serde_json::to_string(&outcome.row)?);
    }
    Ok(())
}

/// A figure for people; `-` when there is none.
pub(crate) fn show(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".into(), |figure| format!("{figure:.digits$}"))
}

fn rounded<S: Serializer>(figure: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    figure.map(|figure| (figure * 1e5).round() / 1e5).serialize(serializer)
}
