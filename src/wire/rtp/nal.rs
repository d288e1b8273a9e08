//! NAL units and pieces of them enter, access units of H.264 or H.265 leave: each NAL unit behind its length in four
//! bytes, without delimiters and filler, every parameter set where it came. Never reads beyond a NAL unit's header.

use memchr::memmem;

use super::header::Header;
use super::unit::{Assembly, Losses, Unit};
use crate::wire::h26x::{Kind, Standard, annex_b};

/// What an access unit is put together from, for both codecs.
#[derive(Debug)]
pub(super) struct NalAssembly {
    standard: Standard,
    unit: Assembly,
    /// Where the length of the NAL unit that is being written stands; none while no fragment is open.
    open: Option<usize>,
    /// A slice is in it: a marker ends it. Some cameras mark parameter sets.
    coded: bool,
    /// Packets were lost just before its first byte: whether it lost any of its own is seen by how it begins.
    beheaded: bool,
}

impl NalAssembly {
    pub(super) fn new(standard: Standard) -> Self {
        Self { standard, unit: Assembly::default(), open: None, coded: false, beheaded: false }
    }

    /// A packet is next; answers the access unit that ended without a marker.
    pub(super) fn turn(&mut self, header: &Header, lost: bool) -> Option<Unit> {
        if lost || self.unit.differs(header) {
            self.drop_open();
        }
        if self.coded {
            let ended = self.unit.turn(header, lost);
            if ended.is_some() || self.unit.is_fresh() {
                self.start(lost);
            }
            return ended;
        }
        // Nothing but parameter sets so far, perhaps with a timestamp of their own: they belong to what follows.
        if self.unit.retime(header, lost) {
            self.start(lost);
        }
        None
    }

    /// A whole NAL unit.
    pub(super) fn whole(&mut self, nal: &[u8]) {
        self.drop_open();
        self.begin(nal);
        self.end();
    }

    /// The first piece of a NAL unit, its header included.
    pub(super) fn begin(&mut self, front: &[u8]) {
        self.drop_open();
        self.open = Some(self.unit.bytes.len());
        self.coded |= is_slice(self.kind(front));
        self.unit.extend(&[0; 4]);
        self.unit.extend(front);
    }

    /// The next piece of a NAL unit with this header; false when none is open (its first piece was lost).
    pub(super) fn go_on(&mut self, front: &[u8], piece: &[u8]) -> bool {
        if self.open.is_some() {
            self.unit.extend(piece);
        } else {
            self.unit.damaged = true;
            self.coded |= is_slice(self.kind(front));
        }
        self.open.is_some()
    }

    /// The last piece was there.
    pub(super) fn end(&mut self) {
        let Some(at) = self.open.take() else { return };
        if self.unit.bytes.len() < at + 4 {
            // It did not fit: the whole access unit will go.
            return;
        }
        if memmem::find(&self.unit.bytes[at + 4..], &START_CODE[1..]).is_some() {
            // Some cameras put whole byte streams (annex B) into what should be one NAL unit.
            let mut stream = self.unit.bytes.split_off(at);
            stream[..4].copy_from_slice(START_CODE);
            for nal in annex_b(&stream) {
                let at = self.unit.bytes.len();
                self.unit.extend(&[0; 4]);
                self.unit.extend(nal);
                self.settle(at);
            }
            return;
        }
        self.settle(at);
    }

    /// The packet had the marker, the last one of its access unit.
    pub(super) fn marker(&mut self) -> Option<Unit> {
        if !self.coded {
            return None;
        }
        self.finish()
    }

    pub(super) fn malformed(&mut self) {
        self.unit.losses.malformed += 1;
        self.unit.damaged = true;
        self.drop_open();
    }

    pub(super) fn losses(&self) -> Losses {
        self.unit.losses
    }

    fn start(&mut self, lost: bool) {
        self.open = None;
        self.coded = false;
        self.beheaded = lost;
    }

    fn finish(&mut self) -> Option<Unit> {
        self.drop_open();
        self.start(false);
        self.unit.finish()
    }

    /// A fragmented NAL unit whose end never came.
    fn drop_open(&mut self) {
        if let Some(at) = self.open.take() {
            self.unit.bytes.truncate(at);
            self.unit.damaged = true;
        }
    }

    fn kind(&self, nal: &[u8]) -> Kind {
        nal.first().map_or(Kind::Other, |first| self.standard.kind(*first))
    }

    /// Writes the length of the NAL unit behind `at`, or takes it out.
    fn settle(&mut self, at: usize) {
        let standard = self.standard;
        let Some((place, nal)) = self.unit.bytes.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut::<4>)
        else {
            return;
        };
        if nal.len() < standard.header_len() {
            self.unit.bytes.truncate(at);
            return;
        }
        let kind = nal.first().map_or(Kind::Other, |first| standard.kind(*first));
        // At most UNIT_MOST bytes.
        *place = (nal.len() as u32).to_be_bytes();
        if matches!(kind, Kind::Delimiter | Kind::Filler) {
            self.unit.bytes.truncate(at);
        }
        if std::mem::take(&mut self.beheaded) {
            // What begins like an access unit lost nothing of its own.
            self.unit.damaged = !matches!(kind, Kind::Delimiter | Kind::Vps | Kind::Sps | Kind::Pps);
        }
        self.coded |= is_slice(kind);
    }
}

fn is_slice(kind: Kind) -> bool {
    matches!(kind, Kind::Slice | Kind::KeySlice)
}

const START_CODE: &[u8] = &[0, 0, 0, 1];
