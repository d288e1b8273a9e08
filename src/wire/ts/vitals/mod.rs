//! What a transport stream does against the rules of ETSI TR 101 290 and MISB ST 1402: notices enter, for each rule a
//! count and its last breach leave. Never allocates; text is made when somebody asks.

mod watch;

use std::fmt;

use super::packet::PCR_HZ;
pub(super) use watch::{Interval, PidWatch, Watch};

/// A rule that the packets of a transport stream are held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "TR 101 290 names them; the clause stands with the rule where it is reported"
)]
pub enum Vital {
    SyncLoss,
    SyncByte,
    Pat,
    Continuity,
    Pmt,
    Pid,
    Transport,
    Crc,
    PcrRepetition,
    PcrDiscontinuity,
    PcrAccuracy,
    PcrArrival,
    Pts,
    Cat,
    Unreferenced,
    TableRate,
}

/// A breach of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breach {
    /// When the packet that showed it arrived, in nanoseconds on the clock of the arrivals.
    pub arrival: u64,
    /// How long the stream had been playing by its own clock, in units of 1/27 MHz.
    pub clock: u64,
    /// Where; none where it is the whole stream.
    pub pid: Option<u16>,
    /// What.
    pub slip: Slip,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Slip {
    /// The grid of sync bytes was lost and found somewhere else, so often since the last look.
    Resync(u64),
    /// So many bytes that are no packets.
    Junk(u64),
    /// A table did not come for so many ticks of 27 MHz.
    TableGap(&'static str, u64),
    /// A table is scrambled.
    Scrambled(&'static str),
    /// The counter jumped.
    Lost,
    /// A PID that a table names did not come for so many ticks.
    Absent(u64),
    /// transport_error_indicator.
    Error,
    /// A section whose checksum or length is wrong.
    Section,
    /// A PCR came so many ticks after the one before.
    Late(u64),
    /// The clock jumped by so many ticks, and nothing announced it.
    Jump(i64),
    /// PCRs that lie off the line that the others of a constant rate make, and by how many nanoseconds at most.
    Inaccurate(f64),
    /// A PCR arrived so many nanoseconds later (or earlier) than the one before it and the clock say.
    Unpunctual(f64),
    /// Two PTS lie so many units of 1/90 kHz apart.
    Stamps(u64),
    /// Packets are scrambled, and there is no conditional access table.
    NoCat,
    /// A PID that no table names.
    Stray,
}

/// What is known of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tally {
    /// The stream had what the rule is about.
    pub judged: bool,
    /// Breaches.
    pub count: u64,
    /// The last one.
    pub last: Option<Breach>,
}

/// Every rule's [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vitals {
    tallies: [Tally; Vital::ALL.len()],
    /// How long the stream has been playing by its own clock, in units of 1/27 MHz.
    pub clock: u64,
}

impl Vital {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::SyncLoss,
        Self::SyncByte,
        Self::Pat,
        Self::Continuity,
        Self::Pmt,
        Self::Pid,
        Self::Transport,
        Self::Crc,
        Self::PcrRepetition,
        Self::PcrDiscontinuity,
        Self::PcrAccuracy,
        Self::PcrArrival,
        Self::Pts,
        Self::Cat,
        Self::Unreferenced,
        Self::TableRate,
    ];
}

impl Vitals {
    /// What is known of a rule.
    pub fn tally(&self, vital: Vital) -> Tally {
        self.tallies.get(vital as usize).copied().unwrap_or_default()
    }

    /// Notes a breach.
    pub(super) fn note(&mut self, vital: Vital, breach: Breach) {
        if let Some(tally) = self.tallies.get_mut(vital as usize) {
            tally.judged = true;
            tally.count += 1;
            tally.last = Some(breach);
        }
    }

    /// The breach that was noted last goes on: says how it stands now.
    pub(super) fn amend(&mut self, vital: Vital, breach: Breach) {
        if let Some(tally) = self.tallies.get_mut(vital as usize)
            && tally.last.is_some_and(|last| last.pid == breach.pid)
        {
            tally.last = Some(breach);
        }
    }

    /// The stream has what the rule is about.
    pub(super) fn judge(&mut self, vital: Vital) {
        if let Some(tally) = self.tallies.get_mut(vital as usize) {
            tally.judged = true;
        }
    }
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ticks: u64| ticks as f64 / PCR_HZ as f64;
        match *self {
            Self::Resync(1) => f.write_str("the grid of sync bytes was lost and found again somewhere else"),
            Self::Resync(times) => write!(f, "the grid of sync bytes was lost and found again {times} times"),
            Self::Junk(bytes) => {
                write!(f, "{bytes} bytes are no packets: where 0x47 was due, something else stood")
            }
            Self::TableGap(table, ticks) => write!(f, "no {table} for {:.2} s", seconds(ticks)),
            Self::Scrambled(table) => write!(f, "the {table} is scrambled"),
            Self::Lost => {
                f.write_str("the continuity counter jumped: packets are missing, or came in another order")
            }
            Self::Absent(ticks) => {
                write!(f, "no packet for {:.1} s, though the tables name it", seconds(ticks))
            }
            Self::Error => f.write_str("a packet has transport_error_indicator set: bits of it are wrong"),
            Self::Section => f.write_str("a section of a table has a wrong CRC or length"),
            Self::Late(ticks) => {
                write!(f, "{:.0} ms between two PCRs, at most 100 are allowed", seconds(ticks) * 1e3)
            }
            Self::Jump(ticks) => {
                write!(
                    f,
                    "the PCR jumped by {:.3} s without a discontinuity_indicator",
                    ticks as f64 / PCR_HZ as f64
                )
            }
            Self::Inaccurate(ns) => {
                write!(
                    f,
                    "a PCR is {:.1} us off the line of its neighbours, at most 0.5 are allowed",
                    ns / 1e3
                )
            }
            Self::Unpunctual(ns) => write!(
                f,
                "a PCR arrived {:.1} ms {} than it says, at most 40 are allowed",
                ns.abs() / 1e6,
                if ns > 0.0 { "later" } else { "earlier" }
            ),
            Self::Stamps(units) => {
                write!(f, "{:.2} s between two PTS, at most 0.7 are allowed", units as f64 / 90_000.0)
            }
            Self::NoCat => f.write_str("packets are scrambled, and there is no conditional access table"),
            Self::Stray => f.write_str("packets of a PID that no table names"),
        }
    }
}
