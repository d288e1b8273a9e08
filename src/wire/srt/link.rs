//! The times at which packets go and come enter, what is due on an idle connection leaves. Carries no data.

use std::time::Duration;

use super::{Control, ControlPacket, Nanos, SocketId};

/// What a [`super::Sender`] or a [`super::Receiver`] made of a control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing that the owner has to know.
    Quiet,
    /// The peer acknowledged that many packets for the first time.
    Acknowledged(u64),
    /// The peer ended the connection.
    Shutdown,
    /// The peer's application failed, with this reason.
    PeerError(u32),
    /// A packet of the handshake or of key material: it is the owner's.
    Unhandled,
}

/// One end of a connection: who the peer is, and when either was last heard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    destination: SocketId,
    start: Nanos,
    idle_timeout: Nanos,
    heard: Nanos,
    sent: Nanos,
}

impl Link {
    pub(super) fn new(destination: SocketId, start: Nanos, idle_timeout: Duration, now: Nanos) -> Self {
        let idle_timeout = nanos(idle_timeout);
        Self { destination, start, idle_timeout, heard: now, sent: now }
    }

    pub(super) fn destination(&self) -> SocketId {
        self.destination
    }

    /// Microseconds of the connection at `at`, modulo 2^32; what was before it began counts as its begin.
    #[inline]
    pub(super) fn timestamp(&self, at: Nanos) -> u32 {
        (at.saturating_sub(self.start) / 1000) as u32
    }

    pub(super) fn control<'a>(&self, control: Control<'a>, now: Nanos) -> ControlPacket<'a> {
        ControlPacket { timestamp: self.timestamp(now), destination: self.destination, control }
    }

    #[inline]
    pub(super) fn hear(&mut self, now: Nanos) {
        self.heard = self.heard.max(now);
    }

    #[inline]
    pub(super) fn send(&mut self, now: Nanos) {
        self.sent = self.sent.max(now);
    }

    /// The packet that shows that this end lives, when nothing else was sent for a second (3.2.3).
    pub(super) fn keep_alive(&mut self, now: Nanos) -> Option<ControlPacket<'static>> {
        if now < self.sent.saturating_add(KEEP_ALIVE) {
            return None;
        }
        self.sent = now;
        Some(self.control(Control::KeepAlive, now))
    }

    /// Has the next such packet sent at once: the peer shall see that this end rests.
    pub(super) fn rest(&mut self) {
        self.sent = 0;
    }

    /// When the peer was last heard.
    pub(super) fn heard(&self) -> Nanos {
        self.heard
    }

    pub(super) fn idle_timeout(&self) -> Nanos {
        self.idle_timeout
    }

    pub(super) fn is_peer_lost(&self, now: Nanos) -> bool {
        now.saturating_sub(self.heard) > self.idle_timeout
    }

    /// When one of the two above says something next.
    pub(super) fn due(&self) -> Nanos {
        let lost = self.heard.saturating_add(self.idle_timeout).saturating_add(1);
        lost.min(self.sent.saturating_add(KEEP_ALIVE))
    }
}

pub(super) fn nanos(duration: Duration) -> Nanos {
    duration.as_nanos().try_into().unwrap_or(Nanos::MAX)
}

const KEEP_ALIVE: Nanos = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn an_idle_link_keeps_itself_alive_and_notices_silence() {
        let mut link = Link::new(SocketId(7), 0, Duration::from_secs(5), 0);
        assert_eq!(link.keep_alive(SECOND - 1), None);
        assert_eq!(link.due(), SECOND);
        let packet = link.keep_alive(SECOND).unwrap();
        assert_eq!((packet.timestamp, packet.destination), (1_000_000, SocketId(7)));
        assert_eq!((link.keep_alive(SECOND), link.due()), (None, 2 * SECOND));
        link.hear(SECOND);
        link.send(6 * SECOND);
        assert_eq!(link.due(), 6 * SECOND + 1);
        assert!(!link.is_peer_lost(6 * SECOND) && link.is_peer_lost(6 * SECOND + 1));
    }

    #[test]
    fn time_before_the_connection_is_its_begin() {
        let link = Link::new(SocketId(0), 10 * SECOND, Duration::MAX, 0);
        assert_eq!(link.timestamp(9 * SECOND), 0);
        assert_eq!(link.timestamp(10 * SECOND + (1 << 32) * 1000 + 5000), 5);
        assert!(!link.is_peer_lost(Nanos::MAX));
    }
}
