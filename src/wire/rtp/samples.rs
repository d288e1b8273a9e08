//! What the tests of all payload formats share.

use bytes::Bytes;

use super::header::{Header, parse};
use super::packets::{Line, Packets};
use super::unit::Unit;

/// A packet as the reorder window hands it on.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
}

pub(super) fn header(sequence: u16, timestamp: u32, marker: bool) -> Header {
    Header { marker, payload_type: 96, sequence, timestamp, ssrc: 1 }
}

pub(super) fn delivery(sequence: u16, timestamp: u32, marker: bool, payload: &[u8]) -> Delivery {
    Delivery { header: header(sequence, timestamp, marker), payload: payload.into() }
}

/// What `make` packs with packets of at most `most` bytes.
pub(super) fn packets(most: usize, make: impl FnOnce(&mut Line, &mut Packets)) -> Vec<Delivery> {
    let mut line = Line::new(96, 1, 65_530, most);
    let mut into = Packets::default();
    make(&mut line, &mut into);
    let split = |packet: &[u8]| {
        let (header, payload) = parse(packet).expect("a packet of our own");
        Delivery { header, payload: payload.into() }
    };
    into.iter().map(split).collect()
}

/// Runs packets through a depacketizer, gaps in their sequence told as loss.
pub(super) fn run(
    deliveries: &[Delivery],
    mut push: impl FnMut(&Header, &[u8], bool, &mut dyn FnMut(Unit)),
) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut next = deliveries.first().map_or(0, |first| first.header.sequence);
    for Delivery { header, payload } in deliveries {
        push(header, payload, header.sequence != next, &mut |unit| units.push(unit));
        next = header.sequence.wrapping_add(1);
    }
    units
}

/// A NAL unit with `header` and bytes that hold no start code.
pub(super) fn nal(header: &[u8], length: usize) -> Vec<u8> {
    let body = (header.len()..length).map(|i| (i % 251) as u8 | 1);
    header.iter().copied().chain(body).collect()
}

/// A whole access unit of these NAL units.
pub(super) fn unit(timestamp: u32, nals: &[&[u8]]) -> Unit {
    let data: Vec<u8> =
        nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect();
    Unit { timestamp, data: Bytes::from(data), damaged: false }
}
