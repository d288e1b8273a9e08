//! Values enter one by one, their least, mean and greatest leave. Also the counters of senders and receivers.

/// The least, mean, greatest and latest of the values seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    least: u64,
    greatest: u64,
    latest: u64,
    sum: u64,
    count: u64,
}

impl Spread {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.greatest = self.greatest.max(value);
        self.latest = value;
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
    }

    /// The least value; `None` when there was none.
    pub fn least(&self) -> Option<u64> {
        (self.count > 0).then_some(self.least)
    }

    /// The greatest value.
    pub fn greatest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.greatest)
    }

    /// The value seen last.
    pub fn latest(&self) -> Option<u64> {
        (self.count > 0).then_some(self.latest)
    }

    /// The arithmetic mean.
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }
}

/// What a [`super::Sender`] did and heard. Bytes are those of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderStats {
    /// Packets sent for the first time.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
    /// Packets sent again.
    pub retransmitted: u64,
    /// Their payload.
    pub retransmitted_bytes: u64,
    /// Packets sent again although the first one had arrived: the peer acknowledged them before the second could.
    pub needless: u64,
    /// Packets that the peer reported missing; one that is reported again after it was sent again counts again.
    pub lost: u64,
    /// Packets that were not sent again because they came too late, or were no longer there.
    pub dropped: u64,
    /// Positions of the ring that were never sent, for whatever reason.
    pub skipped: u64,
    /// Of these, refused because the peer's buffer was full.
    pub refused_by_window: u64,
    /// Of these, refused by the limit of bandwidth.
    pub refused_by_bandwidth: u64,
    /// Packets that the peer acknowledged.
    pub acknowledged: u64,
    /// Full acknowledgements.
    pub acks: u64,
    /// Light acknowledgements.
    pub light_acks: u64,
    /// Loss reports.
    pub naks: u64,
    /// Acknowledgements and loss reports of what was never sent: refused.
    pub refused_controls: u64,
    /// Round-trip times as the peer reports them, smoothed, in microseconds.
    pub rtt: Spread,
    /// Packets per second that arrive at the peer, as it says; 0 unknown.
    pub peer_packet_rate: u32,
    /// Bytes per second that arrive at the peer, as it says; 0 unknown.
    pub peer_byte_rate: u32,
    /// The link's capacity in packets per second, as the peer says; 0 unknown.
    pub link_capacity: u32,
}

/// What a [`super::Receiver`] saw. Bytes are those of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Data packets that arrived, whatever became of them.
    pub packets: u64,
    /// Their payload.
    pub bytes: u64,
    /// Packets that left for the application.
    pub delivered: u64,
    /// Packets marked as sent again.
    pub retransmitted: u64,
    /// Packets that were missing when a later one arrived, reordered ones among them.
    pub lost: u64,
    /// Packets that arrived after a later one without having been sent again.
    pub reordered: u64,
    /// Packets that were there already.
    pub duplicates: u64,
    /// Packets that arrived after their time.
    pub late: u64,
    /// Packets that were missing when their time had come.
    pub dropped: u64,
    /// Packets that could not be decrypted.
    pub undecrypted: u64,
    /// Packets that did not fit: their numbers lie beyond the buffer, or their payload is too long.
    pub refused: u64,
    /// Full acknowledgements sent.
    pub acks: u64,
    /// Light acknowledgements sent.
    pub light_acks: u64,
    /// Loss reports sent.
    pub naks: u64,
    /// Ranges that the peer said it will not send again.
    pub drop_requests: u64,
    /// Round-trip times measured, in microseconds.
    pub rtt: Spread,
    /// Time between the first and the last packet held, in microseconds, seen at every full acknowledgement.
    pub held: Spread,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_says_nothing_before_its_first_value() {
        let mut spread = Spread::default();
        assert_eq!(
            (spread.least(), spread.mean(), spread.greatest(), spread.latest()),
            (None, None, None, None)
        );
        for value in [7, 3, 5] {
            spread.add(value);
        }
        let seen = (spread.least(), spread.mean(), spread.greatest(), spread.latest());
        assert_eq!(seen, (Some(3), Some(5), Some(7), Some(5)));
    }
}
