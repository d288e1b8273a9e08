//! Breaches of the rules about metadata and pictures enter, for each rule a count and its last breach leave. Never keeps
//! more than one of them.

use crate::media::Nanos;

/// A rule about metadata or time stamps of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is explained where it is reported")]
pub enum Check {
    StreamType,
    StreamId,
    Registration,
    MetadataDescriptor,
    MetadataStd,
    SameProgram,
    PtsForbidden,
    PtsRequired,
    Delay,
    Cells,
    Sequence,
    Alignment,
    PesLength,
    Structure,
    Checksum,
    Mandatory,
    Order,
    Version,
    Items,
    Time,
    Rate,
    Deviations,
    Security,
    Minimum,
    StampPresent,
    StampOrder,
    StampLocked,
    StampAgrees,
}

/// The last breach of a rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// When the packet that showed it arrived; 0 where nobody knows.
    pub arrival: Nanos,
    /// How long the program had been playing by its clock, seconds.
    pub seconds: f64,
    /// Where.
    pub pid: u16,
    /// What.
    pub text: String,
}

/// What is known of a rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// The stream had what the rule is about.
    pub judged: bool,
    /// Breaches.
    pub count: u64,
    /// The last one.
    pub last: Option<Note>,
}

/// Every rule's [`Outcome`].
#[derive(Debug, Clone, PartialEq)]
pub struct Checks(Vec<Outcome>);

/// When and where something is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) arrival: Nanos,
    pub(super) seconds: f64,
    pub(super) pid: u16,
}

impl Default for Checks {
    fn default() -> Self {
        Self(vec![Outcome::default(); Check::StampAgrees as usize + 1])
    }
}

impl Checks {
    /// What is known of a rule.
    pub fn outcome(&self, check: Check) -> Option<&Outcome> {
        self.0.get(check as usize)
    }

    /// The rule was looked at; where it does not hold, `why` says what is wrong.
    pub(super) fn hold(&mut self, check: Check, holds: bool, moment: Moment, why: impl FnOnce() -> String) {
        let Some(outcome) = self.0.get_mut(check as usize) else { return };
        outcome.judged = true;
        if !holds {
            outcome.count += 1;
            let Moment { arrival, seconds, pid } = moment;
            outcome.last = Some(Note { arrival, seconds, pid, text: why() });
        }
    }
}
