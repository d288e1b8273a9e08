//! The end of a run: what was sent and what arrived is compared, and a row is made of the slices.

use crate::Result;
use crate::histogram::Histogram;
use crate::measure::{Rival, Run};
use crate::plan::{Against, Pattern, RING_SECONDS};
use crate::report::{Outcome, Row};
use crate::rounds::{Pair, Slice};
use crate::sink::{Connections, Report};
use crate::source::Emitted;
use crate::stream::{DATAGRAM, PICTURE};
use crate::{reference, source, sys};

/// What arrived at the outputs that can be seen, against what was sent to the engine.
pub(crate) struct Delivery {
    report: Report,
    /// Datagrams that should have arrived.
    expected: u64,
    /// Datagrams that did not, at sockets of the sink that had room.
    lost: u64,
    /// System calls per datagram of an output.
    calls: Option<f64>,
}

impl Run<'_> {
    /// Stops the feed and counts what arrived since [`Run::begin`].
    pub(crate) fn finish(&mut self, begun: &Emitted) -> Result<Delivery> {
        let emitted = self.feed.tell_source(source::PAUSE)?;
        let report = self.feed.drain()?;
        let expected_at = |output: usize| {
            let flow = self.options.flow_of(output);
            self.options.due(begun.engine[flow], emitted.engine[flow])
        };
        let seen = self.options.counted();
        let expected: u64 = seen.iter().map(|&output| expected_at(output)).sum();
        let overflowed = &report.engine.overflowed;
        let dropped: u64 =
            overflowed.iter().map(|&(index, got)| expected_at(seen[index]).saturating_sub(got)).sum();
        if dropped > 0 {
            let sockets = overflowed.len();
            self.notes.push(format!(
                "{dropped} datagrams missing at {sockets} sockets of the sink that overflowed"
            ));
        }
        if self.options.tcp.is_some() && report.engine.in_order == 0 {
            return Err(self.engine.complain("sent no access unit that its receivers could see"));
        }
        self.describe_rival(&report, begun, &emitted)?;
        let mut dropped = dropped;
        if report.engine.connections.dropped > 0 {
            dropped += report.engine.connections.dropped;
            self.notes.push(format!(
                "{} datagrams dropped by sockets of the sink",
                report.engine.connections.dropped
            ));
        }
        let lost = expected.saturating_sub(report.engine.in_order + dropped);
        let calls = if self.options.has_connections() { self.calls_per_packet()? } else { None };
        Ok(Delivery { lost, expected, report, calls })
    }

    /// System calls of the engine for each datagram of its outputs. Last of all: being watched slows it down.
    fn calls_per_packet(&mut self) -> Result<Option<f64>> {
        let before = self.feed.tell_source(source::FEED_ENGINE)?;
        let start = sys::now();
        let calls = self.engine.system_calls();
        let seconds = (sys::now() - start) as f64 / 1e9;
        let after = self.feed.tell_source(source::PAUSE)?;
        let sent = (after.engine.iter().sum::<u64>() - before.engine.iter().sum::<u64>()) as f64;
        let outputs = self.options.total_outputs() as f64;
        if calls.is_none() {
            self.notes.push("no strace: system calls not counted".into());
        }
        Ok(calls.map(|calls| calls * seconds / (sent * outputs).max(1.0)))
    }

    /// Notes how much of its work the other side did.
    fn describe_rival(&mut self, report: &Report, begun: &Emitted, emitted: &Emitted) -> Result<()> {
        let datagrams = emitted.against.iter().sum::<u64>() - begun.against.iter().sum::<u64>();
        let outputs = self.options.total_outputs() as u64;
        let each = (datagrams * outputs / self.options.inputs as u64).max(1) as f64;
        let over_tcp = self.options.tcp.is_some();
        let share = match &mut self.rival {
            Rival::None => return Ok(()),
            Rival::Limit(_) if !over_tcp => return Ok(()),
            Rival::Limit(helper) => {
                let sent: u64 = helper.ask(reference::REPORT)?;
                report.against.datagrams as f64 / self.options.due(0, sent).max(1) as f64
            }
            Rival::Copier(helper) => helper.ask::<u64>(reference::REPORT)? as f64 / each,
            // Some leave the sound out.
            Rival::Peer(_) if over_tcp && self.options.against != Some(Against::Push) => {
                report.against.pictures as f64 / (each / PICTURE as f64)
            }
            Rival::Peer(_) => report.against.bytes as f64 / (each * DATAGRAM as f64),
        };
        if over_tcp && share < 0.5 {
            let share = share * 100.0;
            return Err(format!("the receivers of the reference saw {share:.1} % of its stream").into());
        }
        self.notes.push(format!("reference sent {:.2} % of its stream", share * 100.0));
        Ok(())
    }

    /// Makes the row.
    pub(crate) fn conclude(&mut self, pairs: &[Pair], delivery: Delivery, growth: f64) -> Result<Outcome> {
        let options = self.options;
        let (calm, busy): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(|pair| !pair.is_saturated());
        let counted = if calm.is_empty() { &busy } else { &calm };
        if calm.is_empty() {
            self.notes.push("every slice saturated: no CPU figure counts, delays are of all slices".into());
        }
        let collect = |part: fn(&Slice) -> &Histogram| {
            let mut all = Histogram::default();
            counted.iter().for_each(|pair| all.merge(part(&pair.engine)));
            all
        };
        let (delay, control, gap) =
            (collect(|slice| &slice.delay), collect(|slice| &slice.control), collect(|slice| &slice.gap));
        let arrivals = &delivery.report.engine;
        self.notes.extend(control.percentile(0.99).map(|p99| format!("control flow p99 {p99:.2} ms")));
        self.notes.push(format!("{} compared, {} changed", arrivals.compared, arrivals.changed));
        if arrivals.stray + arrivals.continuity_errors > 0 {
            let (stray, errors) = (arrivals.stray, arrivals.continuity_errors);
            self.notes.push(format!("{stray} stray datagrams, {errors} continuity errors"));
        }
        if let Some(pace) = options.pace {
            let p99 = gap.percentile(0.99).unwrap_or(f64::NAN);
            self.notes.push(format!("pace={pace}: inter-arrival p99 {p99:.2} ms"));
        }
        if options.source == Pattern::Bursty {
            self.notes.push("bursty source".into());
        }
        self.notes.push(format!("ring {RING_SECONDS} s"));
        let late = &delivery.report.late;
        if let Some(srt) = self.options.srt.as_ref().filter(|srt| srt.dial_in > 0) {
            self.notes.push(format!("{} of {} latecomers connected", late.connections.open, srt.dial_in));
        }
        if options.has_connections() {
            let Connections { missing, repeated, .. } = arrivals.connections;
            self.notes.push(format!("{missing} gaps, {repeated} repeats"));
            self.notes.extend(self.first_media.map(|time| format!("first media after {time:.0} ms")));
            self.notes.extend(delivery.calls.map(|calls| format!("{calls:.4} calls per packet")));
        }
        let all_in = options.srt.as_ref().is_some_and(|srt| late.connections.open == srt.dial_in);
        let dialled_in = late.connections.dialled_in.filter(|_| all_in);
        let ratios = sorted(calm.iter().filter_map(|pair| pair.ratio()));
        let compared = !matches!(self.rival, Rival::None);
        let outputs = options.total_outputs();
        let row = Row {
            mode: options.mode(),
            outputs,
            inputs: options.inputs,
            delay_ms: options.delay,
            stream_mbps: options.stream_mbps,
            seconds: options.seconds,
            sink: options.sink.to_string(),
            cpu_ms_per_s_per_output: median(&sorted(calm.iter().map(|pair| pair.engine.load.cost))),
            against: options.against.filter(|_| compared).map(|against| against.to_string()),
            against_cpu_ms_per_s_per_output: median(&sorted(
                calm.iter().filter_map(|pair| Some(pair.rival.as_ref()?.cost)),
            )),
            ratio: median(&ratios),
            ratio_min: ratios.first().copied(),
            ratio_max: ratios.last().copied(),
            lost_packets: delivery.lost,
            delivered_fraction: arrivals.in_order as f64 / delivery.expected.max(1) as f64,
            added_delay_ms_p50: delay.percentile(0.5),
            added_delay_ms_p99: delay.percentile(0.99),
            mean_batch: median(&sorted(counted.iter().map(|pair| pair.engine.batch))),
            rss_bytes: self.engine.resident()?,
            rss_bytes_per_output: (outputs > 1).then(|| growth / (outputs - 1) as f64),
            rounds: pairs.len(),
            saturated_rounds: busy.len(),
            role: options.srt.as_ref().map(|srt| srt.role.to_string()),
            aes: options.srt.as_ref().and_then(|srt| srt.aes),
            missing_sequences: options.has_connections().then_some(arrivals.connections.missing),
            repeated_packets: options.has_connections().then_some(arrivals.connections.repeated),
            syscalls_per_packet: delivery.calls,
            dial_in_s: dialled_in.map(|nanoseconds| nanoseconds as f64 / 1e9),
            tls: options.tcp.as_ref().map(|tcp| tcp.tls),
            stalled: options.tcp.as_ref().map(|tcp| tcp.stalled),
            first_media_ms: self.first_media,
            note: self.notes.join("; "),
        };
        Ok(Outcome {
            row,
            control_ms_p99: control.percentile(0.99),
            gap_ms_p99: gap.percentile(0.99),
            changed: arrivals.changed,
            ring_bytes: options.ring_bytes(),
        })
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    match sorted {
        [] => None,
        _ if sorted.len() % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}
