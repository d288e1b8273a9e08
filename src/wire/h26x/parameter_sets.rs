//! NAL units of a stream enter, the parameter sets that a decoder needs stay, each id once, the newest. Never holds
//! more than the standards have ids for.

use bytes::Bytes;

use super::{Kind, Sequence, Sps264, Sps265, Standard};
use crate::wire::bits::Bits;

/// The parameter sets in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSets {
    standard: Standard,
    vps: Vec<(u32, Bytes)>,
    sps: Vec<(u32, Bytes)>,
    pps: Vec<(u32, Bytes)>,
    sequence: Option<Sequence>,
}

impl ParameterSets {
    /// None yet.
    pub fn new(standard: Standard) -> Self {
        Self { standard, vps: Vec::new(), sps: Vec::new(), pps: Vec::new(), sequence: None }
    }

    /// Which standard they follow.
    pub fn standard(&self) -> Standard {
        self.standard
    }

    /// Takes a whole NAL unit in if it is a parameter set, and says whether that changed anything. One that cannot
    /// be read, or is longer than 4 kB, is not taken.
    pub fn take(&mut self, unit: &[u8]) -> bool {
        let kind = self.standard.kind_of(unit);
        let sets = match kind {
            Kind::Vps => &mut self.vps,
            Kind::Sps => &mut self.sps,
            Kind::Pps => &mut self.pps,
            _ => return false,
        };
        let Some(id) = id(self.standard, kind, unit).filter(|_| unit.len() <= LONGEST) else { return false };
        match sets.iter_mut().find(|set| set.0 == id) {
            Some(set) if set.1 == unit => return false,
            Some(set) => set.1 = Bytes::copy_from_slice(unit),
            None => {
                let at = sets.partition_point(|set| set.0 < id);
                sets.insert(at, (id, Bytes::copy_from_slice(unit)));
            }
        }
        if kind == Kind::Sps {
            self.sequence = sequence(self.standard, unit);
        }
        true
    }

    /// Video parameter sets (H.265), by id.
    pub fn vps(&self) -> impl Iterator<Item = &Bytes> {
        self.vps.iter().map(|set| &set.1)
    }

    /// Sequence parameter sets, by id.
    pub fn sps(&self) -> impl Iterator<Item = &Bytes> {
        self.sps.iter().map(|set| &set.1)
    }

    /// Picture parameter sets, by id.
    pub fn pps(&self) -> impl Iterator<Item = &Bytes> {
        self.pps.iter().map(|set| &set.1)
    }

    /// All of them in the order in which a stream has them.
    pub fn all(&self) -> impl Iterator<Item = &Bytes> {
        self.vps().chain(self.sps()).chain(self.pps())
    }

    /// Whether there is enough to start a decoder.
    pub fn is_complete(&self) -> bool {
        let vps = self.standard == Standard::H264 || !self.vps.is_empty();
        vps && !self.sps.is_empty() && !self.pps.is_empty()
    }

    /// What the newest sequence parameter set says; none before the first one that can be read.
    pub fn sequence(&self) -> Option<Sequence> {
        self.sequence
    }
}

/// What a sequence parameter set says about the pictures; none when it is none or cannot be read.
fn sequence(standard: Standard, unit: &[u8]) -> Option<Sequence> {
    match standard {
        Standard::H264 => Sps264::parse(unit).map(|sps| sps.sequence),
        Standard::H265 => Sps265::parse(unit).map(|sps| sps.sequence),
    }
}

/// The id that a parameter set has.
fn id(standard: Standard, kind: Kind, unit: &[u8]) -> Option<u32> {
    let mut bits = Bits::escaped(unit.get(standard.header_len()..)?);
    match (standard, kind) {
        (Standard::H264, Kind::Sps) => {
            bits.skip(24)?;
            bits.unsigned().filter(|&id| id < 32)
        }
        // Few have more than a handful; 256 of 4 kB is what an attacker can fill.
        (Standard::H264, Kind::Pps) => bits.unsigned().filter(|&id| id < 256),
        (Standard::H265, Kind::Vps) => bits.take(4),
        (Standard::H265, Kind::Sps) => {
            // In front of the id stands profile_tier_level, whose length sub-layers decide.
            Sps265::parse(unit).map(|sps| sps.id)
        }
        (Standard::H265, Kind::Pps) => bits.unsigned().filter(|&id| id < 64),
        _ => None,
    }
}

/// Parameter sets are tens of bytes, with scaling lists a few hundred.
const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_kept_once_the_newest() {
        let mut sets = ParameterSets::new(Standard::H264);
        // ids 0, 1 (010) and 0 again
        assert!(sets.take(&[0x68, 0x80, 1]));
        assert!(sets.take(&[0x68, 0x40, 2]));
        assert!(!sets.take(&[0x68, 0x80, 1]));
        assert!(sets.take(&[0x68, 0x80, 3]));
        let pps: Vec<_> = sets.pps().map(|pps| pps[2]).collect();
        assert_eq!(pps, [3, 2]);
        assert!(!sets.is_complete());
        assert!(sets.take(&[0x67, 66, 0xc0, 30, 0x80]));
        assert!(sets.is_complete());
        assert!(!sets.take(&[0x65, 0x80]) && !sets.take(&[]) && !sets.take(&[0x68]));
        assert_eq!(sets.sequence(), None);
    }

    #[test]
    fn every_set_of_a_stream_is_found() {
        let stream =
            std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ts/h265_async.ts")).unwrap();
        let at = stream.windows(5).position(|w| w == [0, 0, 1, 0x40, 1]).unwrap();
        let mut sets = ParameterSets::new(Standard::H265);
        for unit in super::super::annex_b(&stream[at..at + 170]) {
            sets.take(unit);
        }
        assert!(sets.is_complete());
        assert_eq!(sets.all().count(), 3);
        assert_eq!(sets.sequence().map(|s| (s.width, s.height)), Some((640, 360)));
    }
}
