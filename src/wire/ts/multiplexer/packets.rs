//! Bytes of a unit enter, transport packets leave (ISO/IEC 13818-1, 2.4.3). Copies every byte once.

use super::Unit;
use crate::wire::ts::packet::{PACKET, SYNC};

/// What stands in the adaptation field of a packet, but for stuffing.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Adaptation {
    /// The clock in units of 1/27 MHz.
    pub(super) pcr: Option<i64>,
    pub(super) discontinuity: bool,
    pub(super) random_access: bool,
}

/// What is left of a unit: its header, then its parts.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    current: &'a [u8],
    next: std::slice::Iter<'a, &'a [u8]>,
    left: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn new(header: &'a [u8], parts: &'a [&'a [u8]], total: usize) -> Self {
        Self { current: header, next: parts.iter(), left: total }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Appends the next bytes, `count` or as many as are left.
    fn copy(&mut self, count: usize, out: &mut Vec<u8>) {
        let mut missing = count.min(self.left);
        self.left -= missing;
        while missing > 0 {
            let (part, rest) = self.current.split_at(missing.min(self.current.len()));
            out.extend_from_slice(part);
            missing -= part.len();
            self.current = rest;
            if missing > 0 {
                let Some(next) = self.next.next() else { break };
                self.current = next;
            }
        }
    }
}

/// Appends the next packet of a unit, filled up with stuffing behind its last byte.
pub(super) fn put_packet(
    pid: u16,
    starts: bool,
    count: u8,
    adaptation: Adaptation,
    parts: &mut Parts<'_>,
    out: &mut Vec<u8>,
) {
    let end = out.len() + PACKET;
    let flags = u8::from(adaptation.discontinuity) << 7
        | u8::from(adaptation.random_access) << 6
        | u8::from(adaptation.pcr.is_some()) << 4;
    let used = match (flags, adaptation.pcr) {
        (0, _) => 0,
        (_, None) => 2,
        (_, Some(_)) => 8,
    };
    let payload = parts.left.min(PACKET - HEAD - used);
    let field = PACKET - HEAD - payload;
    let control = u8::from(field > 0) << 5 | u8::from(payload > 0) << 4;
    let [high, low] = pid.to_be_bytes();
    out.extend_from_slice(&[SYNC, u8::from(starts) << 6 | high & 0x1f, low, control | count & 0x0f]);
    if field > 0 {
        out.push((field - 1) as u8);
    }
    if field > 1 {
        out.push(flags);
        if let Some(pcr) = adaptation.pcr {
            put_clock(pcr, out);
        }
        out.resize(end - payload, 0xff);
    }
    parts.copy(payload, out);
}

/// program_clock_reference_base and extension (2.4.3.5).
fn put_clock(pcr: i64, out: &mut Vec<u8>) {
    let base = pcr.div_euclid(300).rem_euclid(1 << 33) as u64;
    let bits = base << 15 | 0x3f << 9 | pcr.rem_euclid(300) as u64;
    out.extend(bits.to_be_bytes().iter().skip(2));
}

/// Appends the header of a PES packet with `payload` bytes behind it (2.4.3.6). Its length is said wherever it fits.
pub(super) fn put_pes_header(unit: &Unit<'_>, payload: usize, out: &mut Vec<u8>) {
    let dts = unit.dts.filter(|&dts| unit.pts.is_some_and(|pts| pts != dts));
    let stamps = usize::from(unit.pts.is_some()) + usize::from(dts.is_some());
    let length = u16::try_from(3 + 5 * stamps + payload).unwrap_or(0);
    out.extend_from_slice(&[0, 0, 1, unit.stream_id]);
    out.extend_from_slice(&length.to_be_bytes());
    let fields = [0x00, 0x80, 0xc0].get(stamps).copied().unwrap_or(0);
    out.extend_from_slice(&[0x80 | u8::from(unit.aligned) << 2, fields, 5 * stamps as u8]);
    if let Some(pts) = unit.pts {
        put_timestamp(if dts.is_some() { 3 } else { 2 }, pts, out);
    }
    if let Some(dts) = dts {
        put_timestamp(1, dts, out);
    }
}

/// Four bits of prefix, 33 of time, a marker behind each part.
fn put_timestamp(prefix: u8, time: i64, out: &mut Vec<u8>) {
    let time = time.rem_euclid(1 << 33) as u64;
    out.extend_from_slice(&[
        prefix << 4 | (time >> 29) as u8 & 0x0e | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]);
}

/// Header of a packet.
const HEAD: usize = 4;
