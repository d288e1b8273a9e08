//! Health of a stream, made from what passes by: reports enter once a second, snapshots leave. Never in the way.

pub mod conformance;
pub mod geo;
pub mod klv;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use serde::Serialize;

use self::conformance::{Conformance, Watch};
use self::klv::Metadata;
use crate::media::Nanos;
use crate::wire::ts::Report;

/// What is known about a stream beyond its counters.
#[derive(Debug, Default)]
pub struct InputHealth {
    report: ArcSwapOption<Report>,
    /// The clock of the shards and the wall clock when it was made.
    moment: ArcSwapOption<(Nanos, SystemTime)>,
    rules: Watch,
    senders: ArcSwapOption<Senders>,
    klv: Arc<Metadata>,
}

/// Who sends to an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Senders {
    /// Whose datagrams are taken.
    pub current: Option<SocketAddr>,
    /// Others whose datagrams are refused, with the count of each; at most eight are named.
    pub foreign: Vec<Foreign>,
}

/// A sender whose datagrams an input refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Foreign {
    /// Its address.
    pub address: SocketAddr,
    /// Datagrams (or groups of joined ones) refused.
    pub count: u64,
}

impl InputHealth {
    /// What its KLV says.
    pub fn klv(&self) -> &Arc<Metadata> {
        &self.klv
    }

    /// Puts a new report in place.
    pub fn report(&self, report: Report) {
        self.report.store(Some(Arc::new(report)));
    }

    /// What the clock of the shards and the wall clock say at the same moment.
    pub fn clocks(&self, now: Nanos, wall: SystemTime) {
        self.moment.store(Some(Arc::new((now, wall))));
    }

    /// Whether it keeps the rules.
    pub fn rules(&self) -> &Watch {
        &self.rules
    }

    /// Whether it kept the rules up to the last report; none before the first one.
    pub fn conformance(&self) -> Option<Conformance> {
        let (report, moment) = (self.report.load_full()?, self.moment.load_full()?);
        Some(self.rules.report(&report.vitals, *moment))
    }

    /// The newest report on the stream's content.
    pub fn latest(&self) -> Option<Arc<Report>> {
        self.report.load_full()
    }

    /// Notes who sends now.
    pub fn senders(&self, current: Option<SocketAddr>, foreign: &[(SocketAddr, u64)]) {
        let foreign = foreign.iter().map(|&(address, count)| Foreign { address, count }).collect();
        let senders = Senders { current, foreign };
        if self.senders.load().as_deref() != Some(&senders) {
            self.senders.store(Some(Arc::new(senders)));
        }
    }

    /// Who sends, as far as known.
    pub fn latest_senders(&self) -> Option<Arc<Senders>> {
        self.senders.load_full()
    }
}
