//! Tables and packets in the order of the stream enter; places where a decoder can start leave. Never keeps a picture.

use super::codec::{PictureScan, Syntax, Verdict};
use super::packet::Packet;
use super::pes::PesHeader;

/// Finds where a decoder can start: at a PAT behind which a whole PMT comes before a picture that needs no other.
#[derive(Debug, Default)]
pub(super) struct RandomAccess {
    target: Option<Target>,
    /// Where the last PAT is.
    pat: Option<u64>,
    /// Where the last PAT before a whole PMT is.
    join: Option<u64>,
    reported: Option<u64>,
    scan: Option<Scan>,
}

/// The stream whose pictures count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pid: u16,
    pub(super) syntax: Syntax,
}

/// A picture under way.
#[derive(Debug)]
struct Scan {
    join: u64,
    picture: PictureScan,
    packets_left: u8,
}

impl RandomAccess {
    pub(super) fn target(&self) -> Option<Target> {
        self.target
    }

    /// The tables changed: what came before them is no way in.
    pub(super) fn retarget(&mut self, target: Option<Target>) {
        if target != self.target {
            (self.target, self.scan) = (target, None);
        }
    }

    /// The PAT changed: a PMT has to come behind it before anybody can start.
    pub(super) fn forget(&mut self) {
        self.join = None;
        self.scan = None;
    }

    /// A PAT starts in the datagram at this position.
    pub(super) fn pat(&mut self, position: u64) {
        self.pat = Some(position);
    }

    /// The PAT behind which a PMT that starts now comes.
    pub(super) fn last_pat(&self) -> Option<u64> {
        self.pat
    }

    /// The target's PMT is whole; `pat` is what [`Self::last_pat`] said when it started.
    pub(super) fn pmt(&mut self, pat: Option<u64>) {
        self.join = pat;
    }

    /// Takes a packet of the target, duplicates left out; `whole` = none is missing before it. Returns the position
    /// to start from when this packet shows that a decoder can start at the picture.
    pub(super) fn packet(&mut self, packet: Packet<'_>, whole: bool) -> Option<u64> {
        let target = self.target?;
        if packet.starts_unit() {
            self.scan = None;
            let join = self.join.filter(|&join| self.reported != Some(join))?;
            let flagged = packet.adaptation().is_some_and(|a| a.is_random_access());
            if flagged || packet.scrambling() != 0 || target.syntax == Syntax::Opaque {
                return self.report(join);
            }
            let picture = PictureScan::new(target.syntax);
            self.scan = Some(Scan { join, picture, packets_left: SCANNED });
        } else if !whole {
            self.scan = None;
        }
        let scan = self.scan.as_mut()?;
        let mut bytes = packet.payload().unwrap_or_default();
        if packet.starts_unit()
            && let Some(picture) = PesHeader::parse(bytes).and_then(|h| bytes.get(h.header_len..))
        {
            bytes = picture;
        }
        let verdict = scan.picture.push(bytes);
        scan.packets_left -= 1;
        let (join, give_up) = (scan.join, scan.packets_left == 0);
        match verdict {
            Verdict::RandomAccess => {
                self.scan = None;
                return self.report(join);
            }
            Verdict::Open if !give_up => {}
            Verdict::Dependent | Verdict::Open => self.scan = None,
        }
        None
    }

    fn report(&mut self, join: u64) -> Option<u64> {
        self.reported = Some(join);
        Some(join)
    }
}

/// Packets of a picture that are looked at: parameter sets and messages come first, and a few kilobytes of user data
/// at most.
const SCANNED: u8 = 32;
