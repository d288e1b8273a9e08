//! A port of our own on which an output is received: datagrams enter, the verdict on them leaves.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use millrace::hub::Tools;
use millrace::ingest::{NoticeKind, Piece, SenderRule, UdpDriver};
use millrace::media::{Nanos, PACKET};
use millrace::net::{Interface, ReceiveOptions, SocketError, bind_receiver};
use millrace::telemetry::InputStats;

use super::table::Tone;
use super::verdict::Comparer;

/// Listens to one output.
pub(super) struct Ear {
    driver: UdpDriver,
    stats: InputStats,
    comparer: Comparer,
    /// Somebody changed what it listens to.
    closed: bool,
    /// Why it hears no more.
    failed: Option<String>,
}

impl Ear {
    /// Takes a free port of `host`, which may be a group, and compares what comes with the looping `file`.
    pub(super) fn open(
        host: IpAddr,
        interface: Option<Interface>,
        rtp: bool,
        file: &'static [[u8; PACKET]],
    ) -> Result<Self, SocketError> {
        let options = ReceiveOptions { interface, ..ReceiveOptions::any(SocketAddr::new(host, 0)) };
        let socket = bind_receiver(&options)?;
        let driver = if rtp {
            UdpDriver::rtp(socket, SenderRule::All, REORDER)
        } else {
            UdpDriver::new(socket, SenderRule::All)
        };
        Ok(Self {
            driver,
            stats: InputStats::default(),
            comparer: Comparer::new(file),
            closed: false,
            failed: None,
        })
    }

    /// Where to send to.
    pub(super) fn address(&self) -> SocketAddr {
        self.driver.local_addr()
    }

    /// Takes what has come.
    pub(super) fn poll(&mut self, tools: &mut Tools, now: Nanos) {
        let Self { driver, stats, comparer, closed, failed } = self;
        let mut take = |piece: Piece<'_>, _| {
            if let (Piece::Bytes(payload), false) = (piece, *closed) {
                comparer.take(payload);
            }
        };
        if failed.is_none()
            && let (Some(NoticeKind::Failed { reason, .. }), _) = driver.poll(tools, now, stats, &mut take)
        {
            *failed = Some(reason);
        }
    }

    /// What comes from now on is not what went in, and nobody said that it would be.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Everything that came is what went in, and something came.
    pub(super) fn is_good(&self) -> bool {
        self.failed.is_none() && self.comparer.is_good()
    }

    /// The verdict in words.
    pub(super) fn note(&self) -> (Tone, String) {
        match (&self.failed, self.comparer.mismatch()) {
            (Some(reason), _) => (Tone::Bad, reason.clone()),
            (None, Some(_)) => {
                let dropped = self.stats.kernel_drops.load(std::sync::atomic::Ordering::Relaxed);
                let excuse = if dropped > 0 {
                    format!(" (the receiving socket overflowed: {dropped} datagrams)")
                } else {
                    String::new()
                };
                (Tone::Bad, format!("{}{excuse}", self.comparer))
            }
            (None, None) if self.is_good() => {
                let until = if self.closed { "; not compared since it was changed" } else { "" };
                (Tone::Good, format!("{}{until}", self.comparer))
            }
            (None, None) => (Tone::Faint, self.comparer.to_string()),
        }
    }
}

/// On loopback nothing arrives late.
const REORDER: Duration = Duration::from_millis(50);
