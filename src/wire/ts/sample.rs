//! Packets enter, copies of those leave that rules about tables, metadata and time stamps need: tables, clocks, metadata,
//! and the heads of pictures. Never keeps more than a bound; what found no room is counted.

use super::codec::{Codec, Kind, Syntax};
use super::packet::{PACKET, Packet};

/// Packets of a while, in the order of the stream, those in between left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Whole packets, one behind the other.
    pub packets: Vec<u8>,
    /// When packets arrived: from the packet of this number on, in nanoseconds on the clock of the arrivals.
    pub arrivals: Vec<(u32, u64)>,
    /// Packets that found no room in front of these: what is under way is damaged.
    pub lost: u64,
    /// In front of the packets of these numbers the source plays anew from its beginning.
    pub seams: Vec<u32>,
}

/// A packet of a [`Sample`] with its arrival.
#[derive(Debug, Clone, Copy)]
pub struct Sampled<'a> {
    /// The packet.
    pub packet: &'a [u8; PACKET],
    /// When it arrived.
    pub arrival: u64,
    /// In front of it the source plays anew from its beginning.
    pub seam: bool,
}

/// Which packets of a PID are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Choice {
    /// None but those with a clock.
    #[default]
    None,
    /// All.
    All,
    /// The first ones of each PES packet: so many are still to come of the one under way.
    Heads(u8),
}

/// Copies packets.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    sample: Sample,
    lost: u64,
}

impl Sample {
    /// Its packets.
    pub fn iter(&self) -> impl Iterator<Item = Sampled<'_>> {
        let (mut arrivals, mut seams) = (self.arrivals.iter().peekable(), self.seams.iter().peekable());
        let mut arrival = 0;
        self.packets.as_chunks().0.iter().zip(0u32..).map(move |(packet, number)| {
            while let Some(&(_, at)) = arrivals.next_if(|(from, _)| *from <= number) {
                arrival = at;
            }
            Sampled { packet, arrival, seam: seams.next_if(|from| **from <= number).is_some() }
        })
    }
}

impl Choice {
    /// For an elementary stream: KLV hides in private streams and metadata of any name.
    pub(super) fn of(codec: Codec, stream_type: u8) -> Self {
        match codec.kind {
            Kind::Klv => Self::All,
            Kind::Video if matches!(codec.syntax, Syntax::H264 | Syntax::H265) => Self::Heads(0),
            Kind::Data
                if matches!(stream_type, 0x06 | 0x15)
                    && matches!(codec.name, "private data" | "metadata") =>
            {
                Self::All
            }
            _ => Self::None,
        }
    }
}

impl Sampler {
    /// Takes a packet that is no duplicate. `whole` = none is missing before it; `clock` = it carries the clock of a
    /// program.
    pub(super) fn offer(
        &mut self,
        packet: Packet<'_>,
        choice: &mut Choice,
        (whole, clock): (bool, bool),
        arrival: u64,
    ) {
        let wanted = match choice {
            Choice::None => clock,
            Choice::All => true,
            Choice::Heads(left) => {
                // behind a loss the head of a picture says nothing
                *left = match (packet.starts_unit(), whole) {
                    (true, _) => HEAD,
                    (false, true) => *left,
                    (false, false) => 0,
                };
                let head = *left > 0;
                *left = left.saturating_sub(1);
                head || clock
            }
        };
        if !wanted || packet.scrambling() != 0 {
            return;
        }
        let sample = &mut self.sample;
        if sample.packets.len() >= SAMPLE_MOST {
            self.lost += 1;
            return;
        }
        if sample.arrivals.last().is_none_or(|last| last.1 != arrival) {
            sample.arrivals.push(((sample.packets.len() / PACKET) as u32, arrival));
        }
        sample.packets.extend_from_slice(packet.bytes());
    }

    /// In front of the next packet the source plays anew.
    pub(super) fn seam(&mut self) {
        let number = (self.sample.packets.len() / PACKET) as u32;
        if self.sample.seams.last() != Some(&number) {
            self.sample.seams.push(number);
        }
    }

    /// What was copied since the last time.
    pub(super) fn take(&mut self) -> Option<Sample> {
        if self.sample.packets.is_empty() {
            return None;
        }
        // the loss lies behind what is taken now
        let lost = std::mem::take(&mut self.lost);
        let packets = Vec::with_capacity(self.sample.packets.len());
        // and so does a seam that no packet followed yet
        let end = (self.sample.packets.len() / PACKET) as u32;
        let seams = self.sample.seams.pop_if(|seam| *seam == end).map(|_| 0).into_iter().collect();
        let next = Sample { packets, lost, seams, ..Sample::default() };
        Some(std::mem::replace(&mut self.sample, next))
    }
}

/// Packets at the beginning of each picture: delimiter, parameter sets and messages come first.
const HEAD: u8 = 8;
/// Bytes that are kept until they are taken.
const SAMPLE_MOST: usize = 1400 * PACKET;
