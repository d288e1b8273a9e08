//! Counts and breaches enter, one report leaves, for machines (JSON), for counters and for people (text). Holds no stream.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::checks::Note;
use super::examiner::Examiner;
use super::rules::{RULES, Rule, Source};
use crate::media::Nanos;
use crate::wire::ts::packet::PCR_HZ;
use crate::wire::ts::{Breach, Vitals};

/// What a stream does against every rule. Counts count since it began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conformance {
    /// `failed` when any rule of priority 1 or 2 is broken.
    pub state: Verdict,
    /// How long the stream has been playing by its own clock.
    pub stream_seconds: f64,
    /// Packets of tables, metadata and pictures that were not looked at, because more came than is looked at.
    pub unexamined_packets: u64,
    /// Rules in the order of [`RULES`].
    pub rules: Vec<Finding>,
    /// The streams that carry KLV.
    pub metadata: Vec<MetadataFacts>,
}

/// Whether a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It held all the time.
    Ok,
    /// It was broken.
    Failed,
    /// The stream has nothing that it is about, or it cannot be measured here.
    NotApplicable,
}

/// What was found about one rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The rule.
    #[serde(flatten)]
    pub rule: &'static Rule,
    /// Whether it holds.
    pub state: Verdict,
    /// How often it was broken.
    pub count: u64,
    /// The last time; none while it holds.
    pub last: Option<Last>,
}

/// The last time a rule was broken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Last {
    /// On the wall clock, seconds since 1970; null for a file.
    #[serde(serialize_with = "seconds")]
    pub time: Option<SystemTime>,
    /// How long the stream had been playing by its own clock.
    pub stream_seconds: f64,
    /// Where; null where it is the whole stream.
    pub pid: Option<u16>,
    /// What, in plain words.
    pub text: String,
}

/// A stream that carries KLV.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetadataFacts {
    /// program_number.
    pub program: u16,
    /// Its PID.
    pub pid: u16,
    /// How it travels, as its bytes are; null before that is known.
    pub carriage: Option<&'static str>,
    /// ST 0601 packets.
    pub packets: u64,
    /// The same a second, in the stream's own time.
    pub packets_per_second: f64,
    /// Edition of ST 0601 that it names (item 65).
    pub version: Option<u64>,
    /// Pictures of its program.
    pub pictures: u64,
    /// Those with a time stamp (ST 0604).
    pub pictures_with_time: u64,
}

impl Conformance {
    /// What is known now. `now` = the clock of the arrivals and the wall clock at the same moment; none for a file.
    pub fn new(vitals: &Vitals, examiner: &Examiner, now: Option<(Nanos, SystemTime)>) -> Self {
        let wall = |arrival: Nanos| {
            let (now, wall) = now.filter(|_| arrival > 0)?;
            wall.checked_sub(Duration::from_nanos(now.saturating_sub(arrival)))
        };
        let rules: Vec<Finding> = RULES.iter().map(|rule| find(rule, vitals, examiner, &wall)).collect();
        let broken = rules.iter().any(|f| f.state == Verdict::Failed && f.rule.priority < 3);
        let seen = rules.iter().any(|f| f.state != Verdict::NotApplicable);
        Self {
            state: match (broken, seen) {
                (true, _) => Verdict::Failed,
                (false, true) => Verdict::Ok,
                (false, false) => Verdict::NotApplicable,
            },
            stream_seconds: round(vitals.clock as f64 / PCR_HZ as f64),
            unexamined_packets: examiner.lost(),
            rules,
            metadata: examiner.facts(),
        }
    }

    /// Rules that are broken.
    pub fn failed(&self) -> impl Iterator<Item = &Finding> {
        self.rules.iter().filter(|finding| finding.state == Verdict::Failed)
    }

    /// Breaches of each rule that applies: for counters.
    pub fn counts(&self) -> impl Iterator<Item = (&'static Rule, u64)> {
        let applies = |finding: &&Finding| finding.state != Verdict::NotApplicable;
        self.rules.iter().filter(applies).map(|finding| (finding.rule, finding.count))
    }
}

fn find(
    rule: &'static Rule,
    vitals: &Vitals,
    examiner: &Examiner,
    wall: &impl Fn(Nanos) -> Option<SystemTime>,
) -> Finding {
    let (judged, count, last) = match rule.source {
        Source::Vital(vital) => {
            let tally = vitals.tally(vital);
            let last = tally.last.map(|Breach { arrival, clock, pid, slip }| Last {
                time: wall(arrival),
                stream_seconds: round(clock as f64 / PCR_HZ as f64),
                pid,
                text: slip.to_string(),
            });
            (tally.judged, tally.count, last)
        }
        Source::Check(check) => match examiner.checks().outcome(check) {
            Some(outcome) => {
                let last = outcome.last.as_ref().map(|Note { arrival, seconds, pid, text }| Last {
                    time: wall(*arrival),
                    stream_seconds: round(*seconds),
                    pid: Some(*pid),
                    text: text.clone(),
                });
                (outcome.judged, outcome.count, last)
            }
            None => (false, 0, None),
        },
    };
    let state = match (count, judged) {
        (1.., _) => Verdict::Failed,
        (0, true) => Verdict::Ok,
        (0, false) => Verdict::NotApplicable,
    };
    Finding { rule, state, count, last }
}

fn seconds<S: Serializer>(time: &Option<SystemTime>, to: S) -> Result<S::Ok, S::Error> {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map(|since| round(since.as_secs_f64())).serialize(to)
}

/// To the millisecond: more is noise.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |state| self.rules.iter().filter(|finding| finding.state == state).count();
        let (good, bad, none) = (count(Verdict::Ok), count(Verdict::Failed), count(Verdict::NotApplicable));
        writeln!(f, "\nRules: {bad} broken, {good} kept, {none} not applicable")?;
        for facts in &self.metadata {
            let MetadataFacts { program, pid, carriage, packets, packets_per_second: rate, .. } = facts;
            write!(
                f,
                "  KLV on PID {pid:#06x} of program {program}: {}",
                carriage.unwrap_or("unknown carriage")
            )?;
            write!(f, ", {packets} packets, {rate:.1} a second")?;
            if let Some(version) = facts.version {
                write!(f, ", ST 0601.{version}")?;
            }
            writeln!(f, "; {} of {} pictures have a time stamp", facts.pictures_with_time, facts.pictures)?;
        }
        for finding in self.failed() {
            let Finding { rule, count, last, .. } = finding;
            let times = if *count == 1 { "once".into() } else { format!("{count} times") };
            writeln!(f, "  {:<44} {times}: {} ({})", rule.id, rule.title, rule.clause)?;
            if let Some(last) = last {
                let place = last.pid.map(|pid| format!(" on PID {pid:#06x}")).unwrap_or_default();
                writeln!(f, "  {:<44} last at {:.3} s{place}: {}", "", last.stream_seconds, last.text)?;
            }
        }
        Ok(())
    }
}
