//! The heads of pictures enter, their time stamps (MISB ST 0604) and whether metadata agrees with them leave. Never
//! decodes a picture.

use std::collections::VecDeque;

use super::checks::{Check, Checks, Moment};
use crate::wire::h26x::{Kind, Standard, annex_b};
use crate::wire::klv::{Timestamp, read_timestamp};

/// The pictures of one program.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// PTS in 1/90 kHz and time in nanoseconds since 1970 of the last ones.
    stamped: VecDeque<(u64, u64)>,
    /// Metadata that waits for the pictures behind it.
    waiting: VecDeque<Claim>,
    /// Pictures, and those with a time stamp.
    pub(super) count: u64,
    pub(super) with_stamp: u64,
}

/// What a packet of metadata says of time.
#[derive(Debug, Clone, Copy)]
struct Claim {
    moment: Moment,
    /// 90 kHz: its own, or the clock at its arrival.
    position: u64,
    /// Microseconds since 1970.
    time: u64,
    synchronous: bool,
}

impl Pictures {
    /// Takes the beginning of a picture. `metadata` = the program has metadata, so that its pictures must have stamps.
    pub(super) fn take(
        &mut self,
        standard: Standard,
        head: &[u8],
        pts: Option<u64>,
        metadata: bool,
        moment: Moment,
        checks: &mut Checks,
    ) {
        let Some(stamps) = read_head(standard, head) else { return };
        self.count += 1;
        self.with_stamp += u64::from(!stamps.is_empty());
        if metadata || self.with_stamp > 0 {
            checks.hold(Check::StampPresent, stamps.len() == 1, moment, || match stamps.len() {
                0 => "a picture has no time stamp".into(),
                several => format!("a picture has {several} time stamps"),
            });
        }
        if let [stamp] = stamps.as_slice() {
            checks.hold(Check::StampLocked, stamp.is_locked, moment, || {
                "the time stamp of a picture says that its clock follows no reference".into()
            });
            if let Some(pts) = pts {
                self.place(*stamp, pts, moment, checks);
            }
        }
        if let Some(pts) = pts {
            self.settle(Some(pts), checks);
        }
    }

    /// A packet of metadata says what time it is at a position of 90 kHz.
    pub(super) fn claim(
        &mut self,
        moment: Moment,
        position: u64,
        time: u64,
        synchronous: bool,
        checks: &mut Checks,
    ) {
        if self.waiting.len() >= WAITING {
            self.settle(None, checks);
        }
        self.waiting.push_back(Claim { moment, position, time, synchronous });
    }

    /// Compares what waits for a picture at or behind it; everything when no picture is to come.
    pub(super) fn settle(&mut self, pts: Option<u64>, checks: &mut Checks) {
        while let Some(claim) = self.waiting.front().copied() {
            // one far ahead has no picture to wait for
            if pts.is_some_and(|pts| (1..=2 * NEAR).contains(&apart(pts, claim.position))) {
                return;
            }
            self.waiting.pop_front();
            self.compare(claim, checks);
        }
    }

    /// The clock jumped: positions before and behind cannot be compared.
    pub(super) fn forget(&mut self) {
        self.stamped.clear();
        self.waiting.clear();
    }

    fn place(&mut self, stamp: Timestamp, pts: u64, moment: Moment, checks: &mut Checks) {
        let time = stamp.nanoseconds;
        if let Some(&(last_pts, last)) = self.stamped.back()
            && stamp.jump.is_none()
            && pts != last_pts
        {
            let later = apart(last_pts, pts) > 0;
            let ordered = if later { time > last } else { time < last };
            checks.hold(Check::StampOrder, ordered, moment, || {
                format!(
                    "the time stamp of a picture is {:.3} s behind that of the picture before, and says of no jump",
                    (last as f64 - time as f64).abs() / 1e9
                )
            });
        }
        if self.stamped.len() >= KEPT {
            self.stamped.pop_front();
        }
        self.stamped.push_back((pts, time));
    }

    fn compare(&self, claim: Claim, checks: &mut Checks) {
        let nearest = self.stamped.iter().min_by_key(|(pts, _)| apart(*pts, claim.position).abs());
        let Some(&(pts, time)) = nearest.filter(|(pts, _)| apart(*pts, claim.position).abs() <= NEAR) else {
            return;
        };
        let shift = apart(pts, claim.position) as f64 / 90_000.0;
        let picture = time as f64 / 1e9 + shift;
        let off = claim.time as f64 / 1e6 - picture;
        let limit = if claim.synchronous { SYNCHRONOUS } else { ASYNCHRONOUS };
        checks.hold(Check::StampAgrees, off.abs() <= limit, claim.moment, || {
            let way = if off > 0.0 { "ahead of" } else { "behind" };
            format!("metadata is {:.3} s {way} the time stamps of the pictures around it", off.abs())
        });
    }
}

/// Time stamps in front of the first slice; none when no slice is there.
fn read_head(standard: Standard, head: &[u8]) -> Option<Vec<Timestamp>> {
    let mut stamps = Vec::new();
    for unit in annex_b(head) {
        match standard.kind_of(unit) {
            Kind::KeySlice | Kind::Slice => return Some(stamps),
            Kind::Sei => read_messages(unit.get(standard.header_len()..).unwrap_or_default(), &mut stamps),
            _ => {}
        }
    }
    None
}

/// Walks the messages of a unit (H.264, 7.3.2.3.1), without its emulation prevention.
fn read_messages(unit: &[u8], stamps: &mut Vec<Timestamp>) {
    let mut bytes = Vec::with_capacity(unit.len());
    let mut zeros = 0;
    for &byte in unit {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        bytes.push(byte);
    }
    let mut rest = bytes.as_slice();
    let field = |rest: &mut &[u8]| {
        let mut sum = 0usize;
        while let Some((&byte, behind)) = rest.split_first() {
            *rest = behind;
            sum += usize::from(byte);
            if byte != 0xff {
                return Some(sum);
            }
        }
        None
    };
    while let Some((kind, size)) = field(&mut rest).and_then(|kind| Some((kind, field(&mut rest)?))) {
        let Some((payload, behind)) = rest.split_at_checked(size) else { return };
        rest = behind;
        if kind == USER_DATA && stamps.len() < STAMPS_MOST {
            stamps.extend(read_timestamp(payload));
        }
    }
}

/// From one position of 33 bits to another, the shorter way round.
fn apart(from: u64, to: u64) -> i64 {
    let forward = to.wrapping_sub(from) & MASK;
    if forward > MASK / 2 { forward as i64 - (MASK as i64 + 1) } else { forward as i64 }
}

const MASK: u64 = (1 << 33) - 1;
/// payload_type of user_data_unregistered.
const USER_DATA: usize = 5;
const STAMPS_MOST: usize = 4;
/// Pictures whose stamps are kept.
const KEPT: usize = 64;
/// Packets of metadata that wait.
const WAITING: usize = 64;
/// Pictures further away than a second say nothing.
const NEAR: i64 = 90_000;
/// Seconds by which metadata may be off its picture: synchronous metadata belongs to the picture of its PTS, to within
/// a few pictures; asynchronous metadata is only near it (ST 1402, 8).
const SYNCHRONOUS: f64 = 0.1;
const ASYNCHRONOUS: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap() {
        assert_eq!((apart(MASK, 1), apart(1, MASK), apart(5, 7)), (2, -2, 2));
    }

    #[test]
    fn a_time_stamp_is_found_in_front_of_the_slices_only() {
        let time = 1_700_000_000_000_000u64.to_be_bytes();
        let mut payload = b"MISPmicrosectime\x1f".to_vec();
        for pair in time.chunks(2) {
            payload.extend_from_slice(pair);
            payload.push(0xff);
        }
        payload.pop();
        let sei = [&[0, 0, 0, 1, 6, 5, 28][..], &payload, &[0x80]].concat();
        let slice = [0, 0, 1, 0x65, 0x88, 1];
        let read = |bytes: &[&[u8]]| read_head(Standard::H264, &bytes.concat()).map(|stamps| stamps.len());
        assert_eq!(read(&[&sei, &slice]), Some(1));
        assert_eq!(read(&[&sei, &sei, &slice]), Some(2));
        assert_eq!(read(&[&slice, &sei]), Some(0));
        assert_eq!(read(&[&sei]), None);
        assert_eq!(read(&[&sei[..20], &slice]), Some(0));
    }
}
