//! Datagrams of one lane to many destinations: packets enter, one sendmmsg for each run of equal ones leaves, whoever
//! they go to. Never holds a packet, knows no session.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use super::port::Sockets;
use crate::net::{Batch, Failure, MAX_SEGMENTS, PortPair};
use crate::wire::rtp;

/// Where the packets of one track go.
#[derive(Debug, Clone)]
pub struct Leg {
    /// Its RTP channel in the lane, an even number; its RTCP has the next one.
    pub channel: u8,
    /// The sockets that it is sent through.
    pub pair: Arc<PortPair>,
    /// Where RTP goes.
    pub rtp: SocketAddr,
    /// Where RTCP goes.
    pub rtcp: SocketAddr,
}

/// Which channels a fan sends, and the number of the sockets of each; in the order of the channels.
pub(super) type Shape = Vec<(u8, usize)>;

/// Destinations that get the same, in the same order on each channel.
pub(super) struct Fan {
    spokes: Vec<Spoke>,
    /// The kernel cuts messages into datagrams (UDP_SEGMENT).
    segmented: bool,
    size: usize,
    pub(super) total: Total,
}

/// One channel.
struct Spoke {
    channel: u8,
    port: usize,
    batch: Batch,
    /// Source and sequence number of the last RTP packet.
    last: Option<(u32, u16)>,
}

/// Counts of RTP packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) skipped: u64,
    pub(super) skips: u64,
}

/// What one call did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spread {
    /// Messages handed to the kernel.
    pub(super) messages: usize,
    /// Datagrams that they are cut into.
    pub(super) datagrams: usize,
}

impl Fan {
    /// Without a destination.
    pub(super) fn new(shape: &Shape) -> Self {
        let spoke = |channel, port| Spoke { channel, port, batch: Batch::default(), last: None };
        let both = |(channel, port): &(u8, usize)| [spoke(*channel, *port), spoke(*channel | 1, *port)];
        Self {
            spokes: shape.iter().flat_map(both).collect(),
            segmented: true,
            size: 0,
            total: Total::default(),
        }
    }

    /// Adds a destination at the end.
    pub(super) fn push(&mut self, legs: &[Leg]) {
        for spoke in &mut self.spokes {
            let Some(leg) = legs.iter().find(|leg| leg.channel == spoke.channel & !1) else { continue };
            spoke.batch.push(if spoke.channel & 1 == 0 { leg.rtp } else { leg.rtcp });
        }
        self.size += 1;
    }

    /// Removes a destination; the last one takes its place.
    pub(super) fn swap_remove(&mut self, at: usize) {
        self.spokes.iter_mut().for_each(|spoke| spoke.batch.swap_remove(at));
        self.size -= 1;
    }

    /// Source and last sequence number of the RTP channels that were sent.
    pub(super) fn sources(&self) -> impl Iterator<Item = (u8, u32, u16)> {
        self.spokes.iter().filter_map(|spoke| {
            let (source, sequence) = spoke.last?;
            Some((spoke.channel, source, sequence))
        })
    }

    /// Sends packets, each with its channel, to every destination, those of a channel in their order. Of those that the
    /// kernel refuses `lost` gets the place and what it was.
    pub(super) fn send(
        &mut self,
        packets: &[(u8, &[u8])],
        ports: &mut [Option<Sockets>],
        lost: &mut Vec<(usize, Total)>,
    ) -> Spread {
        let mut spread = Spread::default();
        let (mut failures, mut refused) = (Vec::new(), 0);
        for spoke in &mut self.spokes {
            let control = spoke.channel & 1 == 1;
            let own: Vec<&[u8]> =
                packets.iter().filter(|(on, _)| *on == spoke.channel).map(|p| p.1).collect();
            let Some(Some(port)) = ports.get_mut(spoke.port) else { continue };
            let socket = if control { &mut port.rtcp } else { &mut port.rtp };
            if let (Some(last), false) = (own.last(), control)
                && let Ok((header, _)) = rtp::parse(last)
            {
                spoke.last = Some((header.ssrc, header.sequence));
            }
            let mut rest = &own[..];
            while !rest.is_empty() {
                let most = if self.segmented { MAX_SEGMENTS } else { 1 };
                let (run, behind) = rest.split_at(run_length(rest, most));
                rest = behind;
                let bytes: usize = run.iter().map(|packet| packet.len()).sum();
                if !control {
                    self.total.packets += run.len() as u64;
                    self.total.bytes += bytes as u64;
                }
                let parts: Vec<IoSlice<'_>> = run.iter().map(|packet| IoSlice::new(packet)).collect();
                // A lone datagram is cheaper without: the kernel then builds it in one piece. Beyond 65,535 none is.
                let segment = if run.len() > 1 { u16::try_from(run[0].len()).unwrap_or(0) } else { 0 };
                failures.clear();
                let sent = spoke.batch.send(socket, &parts, segment, &mut failures);
                spread.messages += sent.messages;
                spread.datagrams += sent.messages * run.len();
                for Failure { index, errno } in failures.drain(..) {
                    let cut = segment > 0 && matches!(errno, libc::EINVAL | libc::EIO | libc::EMSGSIZE);
                    refused += usize::from(cut);
                    let mut gone = Total::default();
                    for (packet, part) in run.iter().zip(&parts) {
                        // Its path refuses what the kernel would have to cut: one by one, then.
                        let again = cut && spoke.batch.send_one(socket, &[*part], 0, index).is_ok();
                        spread.datagrams += usize::from(again);
                        if !again && !control {
                            gone.packets += 1;
                            gone.bytes += packet.len() as u64;
                        }
                    }
                    if gone.packets > 0 {
                        lost.push((index, gone));
                    }
                }
            }
        }
        if 2 * refused > self.size {
            // Most paths: from now on nobody is asked.
            self.segmented = false;
        }
        spread
    }
}

impl Total {
    /// What came since `base`, on top.
    pub(super) fn with_since(self, total: Self, base: Self) -> Self {
        Self {
            packets: self.packets + total.packets.saturating_sub(base.packets),
            bytes: self.bytes + total.bytes.saturating_sub(base.bytes),
            skipped: self.skipped + total.skipped.saturating_sub(base.skipped),
            skips: self.skips + total.skips.saturating_sub(base.skips),
        }
    }
}

/// How many packets make one message: equal in length, only the last may be shorter.
fn run_length(packets: &[&[u8]], most: usize) -> usize {
    let Some(first) = packets.first() else { return 0 };
    let (mut count, mut bytes) = (0, 0);
    for packet in packets.iter().take(most) {
        if packet.len() > first.len() || bytes + packet.len() > MESSAGE_MOST && count > 0 {
            break;
        }
        (count, bytes) = (count + 1, bytes + packet.len());
        if packet.len() < first.len() {
            break;
        }
    }
    count
}

/// Bytes in one message; IPv4 allows 65,507 with its headers (RFC 791).
const MESSAGE_MOST: usize = 64_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_behind_a_shorter_packet_and_before_a_longer_one() {
        let (long, short) = (&[0u8; 1400][..], &[0u8; 300][..]);
        for (packets, most, expected) in [
            (vec![long, long, short, long], 64, 3),
            (vec![short, long], 64, 1),
            (vec![long, long, long], 2, 2),
            (vec![long; 64], 64, 45),
            (vec![short; 64], 64, 64),
            (vec![], 64, 0),
            (vec![&[0; 65_000][..], long], 64, 1),
        ] {
            assert_eq!(run_length(&packets, most), expected);
        }
    }
}
