//! Facts about a transport stream, for machines (JSON) and people (a table). Holds no stream.

use std::fmt::{self, Display, Write};

use serde::Serialize;

use super::clock::ClockReport;
use super::codec::Kind;
use super::descriptor::DescriptorReport;
use super::vitals::Vitals;

/// What is in a transport stream, and how healthy it is. Counters count since the start.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Packets of 188 bytes, null packets included.
    pub packets: u64,
    /// Bits per second over the last second.
    pub bitrate_bps: u64,
    /// Packets without meaning (PID 0x1fff).
    pub null_packets: u64,
    /// Gaps in the continuity counters of all PIDs (ISO/IEC 13818-1, 2.4.3.3).
    pub continuity_errors: u64,
    /// Packets sent twice, as the standard allows.
    pub duplicate_packets: u64,
    /// Packets whose payload is scrambled.
    pub scrambled_packets: u64,
    /// Packets with transport_error_indicator set.
    pub transport_errors: u64,
    /// PAT and PMT sections with a wrong CRC or length.
    pub psi_errors: u64,
    /// Packets of PIDs beyond the 255 that are followed.
    pub untracked_packets: u64,
    /// Places at which a decoder can start: a PAT, then a PMT, then a picture that needs no other.
    pub random_access_points: u64,
    /// transport_stream_id; null before the first PAT.
    pub transport_stream_id: Option<u16>,
    /// version_number of the PAT; null before the first one.
    pub pat_version: Option<u8>,
    /// How often the PAT changed.
    pub pat_changes: u64,
    /// PID of the network information table, if the PAT names one.
    pub network_pid: Option<u16>,
    /// Whether any PMT declares a KLV stream.
    pub klv_declared: bool,
    /// The programs, in the order of the PAT.
    pub programs: Vec<ProgramReport>,
    /// The PIDs seen, in ascending order.
    pub pids: Vec<PidReport>,
    /// What the stream does against the rules; shown by the report on its conformance.
    #[serde(skip)]
    pub vitals: Vitals,
}

/// A program that the PAT names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProgramReport {
    /// program_number.
    pub number: u16,
    /// PID of its PMT.
    pub pmt_pid: u16,
    /// version_number of its PMT; null before the first one.
    pub pmt_version: Option<u8>,
    /// How often its PMT changed.
    pub pmt_changes: u64,
    /// PID of its clock; null when it has none or before the first PMT.
    pub pcr_pid: Option<u16>,
    /// Descriptors of the program.
    pub descriptors: Vec<DescriptorReport>,
    /// Its streams, in the order of the PMT.
    pub streams: Vec<StreamReport>,
}

/// An elementary stream that a PMT names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamReport {
    /// elementary_PID.
    pub pid: u16,
    /// stream_type (ISO/IEC 13818-1, table 2-34).
    pub stream_type: u8,
    /// What stream_type and descriptors say it is.
    pub codec: &'static str,
    /// What it carries.
    pub kind: Kind,
    /// Its descriptors.
    pub descriptors: Vec<DescriptorReport>,
}

/// A PID that was seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PidReport {
    /// The PID.
    pub pid: u16,
    /// What it carries, in words.
    pub content: &'static str,
    /// Packets.
    pub packets: u64,
    /// Bits per second over the last second.
    pub bitrate_bps: u64,
    /// Gaps in its continuity counter.
    pub continuity_errors: u64,
    /// Packets sent twice, as the standard allows.
    pub duplicate_packets: u64,
    /// Jumps of the counter that a discontinuity_indicator announced.
    pub announced_discontinuities: u64,
    /// Packets whose payload is scrambled.
    pub scrambled_packets: u64,
    /// Packets with transport_error_indicator set; their PID may be wrong.
    pub transport_errors: u64,
    /// Its programme clock; null when it carries none.
    pub pcr: Option<ClockReport>,
}

impl Report {
    /// The report as a table for a terminal, lines ending in a line feed.
    pub fn render(&self) -> String {
        self.to_string()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.transport_stream_id, self.pat_version) {
            (Some(id), Some(version)) => write!(f, "Transport stream {id}, PAT version {version}")?,
            _ => write!(f, "Transport stream without a PAT")?,
        }
        let null = percent(self.null_packets, self.packets);
        writeln!(f, ": {}, {} packets, {null} null", rate(self.bitrate_bps), self.packets)?;
        for program in &self.programs {
            self.write_program(f, program)?;
        }
        writeln!(
            f,
            "\n{:<15}{:<24}{:>12}{:>12}{:>7}{:>10}",
            "PID", "content", "bit rate", "packets", "lost", "scrambled"
        )?;
        for pid in &self.pids {
            writeln!(
                f,
                "{:<15}{:<24}{:>12}{:>12}{:>7}{:>10}",
                number(pid.pid),
                pid.content,
                rate(pid.bitrate_bps),
                pid.packets,
                pid.continuity_errors,
                pid.scrambled_packets
            )?;
        }
        self.write_clocks(f)?;
        let klv = if self.klv_declared { "declared" } else { "not declared" };
        writeln!(f, "\nKLV {klv}; {} places where a decoder can start", self.random_access_points)?;
        self.write_faults(f)
    }
}

impl Report {
    fn write_program(&self, f: &mut fmt::Formatter<'_>, program: &ProgramReport) -> fmt::Result {
        write!(f, "\nProgram {}: PMT PID {}", program.number, number(program.pmt_pid))?;
        let Some(version) = program.pmt_version else {
            return writeln!(f, ", no PMT seen");
        };
        write!(f, " version {version}")?;
        match program.pcr_pid {
            Some(pid) => writeln!(f, ", clock PID {}", number(pid))?,
            None => writeln!(f, ", no clock")?,
        }
        write_descriptors(f, "  ", &program.descriptors)?;
        for stream in &program.streams {
            let kind = match stream.kind {
                Kind::Video => " video",
                Kind::Audio => " audio",
                Kind::Klv => " metadata",
                Kind::Data => "",
            };
            let name = if stream.codec.contains(kind.trim()) { "" } else { kind };
            writeln!(
                f,
                "  {:<15}type {:#04x}  {}{name}",
                number(stream.pid),
                stream.stream_type,
                stream.codec
            )?;
            write_descriptors(f, "      ", &stream.descriptors)?;
        }
        Ok(())
    }

    fn write_clocks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clocks = self.pids.iter().filter_map(|p| Some((p.pid, p.pcr?)));
        for (n, (pid, clock)) in clocks.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:<15}{:>8}{:>27}{:>22}{:>7}",
                    "clock", "PCRs", "interval min/avg/max ms", "jitter mean/peak ms", "jumps"
                )?;
            }
            let ClockReport { interval_min_ms: min, interval_avg_ms: avg, interval_max_ms: max, .. } = clock;
            let interval = format!("{min:.1} / {avg:.1} / {max:.1}");
            let jitter = format!("{:.2} / {:.2}", clock.jitter_mean_us / 1e3, clock.jitter_peak_us / 1e3);
            let (count, jumps) = (clock.count, clock.discontinuities);
            writeln!(f, "{:<15}{count:>8}{interval:>27}{jitter:>22}{jumps:>7}", number(pid))?;
        }
        Ok(())
    }

    /// Only what is wrong.
    fn write_faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let late: u64 = self.pids.iter().filter_map(|p| p.pcr).map(|c| c.late).sum();
        let faults = [
            (self.continuity_errors, "continuity errors (packets are missing)"),
            (self.transport_errors, "packets with bit errors (transport_error_indicator)"),
            (self.psi_errors, "damaged PAT or PMT sections"),
            (late, "PCR intervals above 100 ms"),
            (self.untracked_packets, "packets of PIDs beyond the 255 that are followed"),
        ];
        let mut line = String::new();
        for (count, what) in faults.into_iter().filter(|(count, _)| *count > 0) {
            write!(line, "{}{count} {what}", if line.is_empty() { "" } else { ", " })?;
        }
        writeln!(f, "Faults: {}", if line.is_empty() { "none" } else { &line })
    }
}

fn write_descriptors(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    descriptors: &[DescriptorReport],
) -> fmt::Result {
    for d in descriptors {
        write!(f, "{indent}descriptor {:#04x}", d.tag)?;
        if let Some(name) = d.name {
            write!(f, " {name}")?;
        }
        writeln!(f, ": {}", d.text.as_ref().unwrap_or(&d.hex))?;
    }
    Ok(())
}

fn number(pid: u16) -> String {
    format!("{pid:#06x} ({pid})")
}

fn rate(bps: u64) -> String {
    match bps {
        0..10_000 => format!("{bps} b/s"),
        10_000..1_000_000 => format!("{:.1} kb/s", bps as f64 / 1e3),
        _ => format!("{:.2} Mb/s", bps as f64 / 1e6),
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.1} %", part as f64 * 100.0 / whole.max(1) as f64)
}
