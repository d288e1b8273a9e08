//! Whether a stream keeps the rules, all the time: what an analyzer counts and samples of the stream enter, a report
//! leaves: for each rule whether it holds, how often it was broken, and the last time in plain words. Never in the way of
//! a packet: what costs more than a count is looked at elsewhere, on copies.
//!
//! ```text
//!     shard                                  a task of the stream
//!  Analyzer ── Vitals (TR 101 290) ────────────────────────────────────▶┐
//!     │                                                                  ├─▶ Conformance (JSON, text, counters)
//!     └─ Sample (tables, KLV, heads of pictures) ─▶ Examiner ── Checks ─▶┘
//!                                          (ST 1402, 0601, 0604, 0902)
//! ```

mod checks;
mod examiner;
mod metadata;
mod minimum;
mod pictures;
mod report;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

pub use checks::{Check, Checks, Note, Outcome};
pub use examiner::Examiner;
pub use report::{Conformance, Finding, Last, MetadataFacts, Verdict};
pub use rules::{RULES, Rule};
pub use watch::Watch;
