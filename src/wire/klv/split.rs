//! Bytes that hold KLV packets enter, the packets leave one by one, with the junk between them. Never believes a length
//! that is longer than a packet may be, or that reaches over the start of the next packet: it goes on at the next label.

use std::sync::OnceLock;

use memchr::memmem::Finder;

use super::PACKET_MAX;
use super::ber::{BerError, read_length};
use super::label::{Label, PREFIX};
use super::packet::{Checksum, Packet};

/// A piece of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A whole packet: key, length and value.
    Packet(&'a [u8]),
    /// A packet of a known set that ends before its length says, because another one starts.
    Cut(&'a [u8]),
    /// Bytes that belong to none.
    Junk(&'a [u8]),
    /// The beginning of a packet whose end is not there yet; always last.
    Partial(&'a [u8]),
}

/// See [`split`].
#[derive(Debug, Clone)]
pub struct Split<'a> {
    rest: &'a [u8],
}

/// Cuts bytes into packets.
pub fn split(bytes: &[u8]) -> Split<'_> {
    Split { rest: bytes }
}

impl<'a> Iterator for Split<'a> {
    type Item = Unit<'a>;

    fn next(&mut self) -> Option<Unit<'a>> {
        let unit = first_unit(self.rest, PACKET_MAX)?;
        self.rest = self.rest.get(unit.bytes().len()..).unwrap_or_default();
        Some(unit)
    }
}

impl<'a> Unit<'a> {
    /// What it consists of.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Packet(bytes) | Self::Cut(bytes) | Self::Junk(bytes) | Self::Partial(bytes) => bytes,
        }
    }
}

/// The piece that stands first, none where there are no bytes; `most`: the longest packet that is believed.
pub fn first_unit(bytes: &[u8], most: usize) -> Option<Unit<'_>> {
    let start = find_label(bytes, 0);
    if start > 0 {
        return Some(Unit::Junk(bytes.get(..start)?));
    }
    if bytes.is_empty() {
        return None;
    }
    let next = match extent(bytes, most) {
        Extent::Whole(length) => match swallowed(bytes, length, most) {
            Some(next) => next,
            None => return Some(Unit::Packet(bytes.get(..length)?)),
        },
        Extent::Partial => match resume(bytes, most) {
            Some(next) => next,
            None => return Some(Unit::Partial(bytes)),
        },
        Extent::Wrong => find_label(bytes, 1),
    };
    let broken = bytes.get(..next)?;
    Some(if next > KEY && own_label(bytes) != OTHER { Unit::Cut(broken) } else { Unit::Junk(broken) })
}

enum Extent {
    Whole(usize),
    Partial,
    Wrong,
}

/// How long the packet at the start is.
fn extent(bytes: &[u8], most: usize) -> Extent {
    let Some(behind) = bytes.get(KEY..) else { return Extent::Partial };
    match read_length(behind) {
        Ok((length, body)) if length <= most as u64 => {
            if body.len() as u64 >= length {
                Extent::Whole(bytes.len() - body.len() + length as usize)
            } else {
                Extent::Partial
            }
        }
        Err(BerError::Truncated) => Extent::Partial,
        Ok(_) | Err(BerError::TooLarge) => Extent::Wrong,
    }
}

/// Where the packet that was swallowed by the one at the start begins. The one at the start is as long as its length
/// says (`length`), but either it is shorter than that and the next one starts near its end, or it was none at all and
/// the next one starts within what was taken for its key and length.
fn swallowed(bytes: &[u8], length: usize, most: usize) -> Option<usize> {
    let own = own_label(bytes);
    if own == OTHER {
        let mut labels = labels(bytes, 1).take_while(|&at| at < length.min(KEY + LENGTH_MOST));
        return labels.find(|&at| {
            let here = bytes.get(at..).unwrap_or_default();
            own_label(here) != OTHER && !matches!(extent(here, most), Extent::Wrong)
        });
    }
    // No set holds one of its kind. Only near the end is looked: what is cut off costs no more than it brings.
    let key = bytes.get(..KEY)?;
    let next = labels(bytes, length.saturating_sub(NEAR).max(KEY + 1)).take_while(|&at| at < length).find(
        |&at| {
            let here = bytes.get(at..).unwrap_or_default();
            let seen = here.len().min(KEY);
            here.get(..seen) == key.get(..seen)
        },
    )?;
    // A key can stand in a value by chance, or by malice: the checksum tells.
    let whole = bytes.get(..length)?;
    (Packet::read(whole).checksum != Checksum::Right).then_some(next)
}

/// Where a whole packet starts in the beginning of one whose end is not there: a length that was damaged would swallow
/// it. Universal sets hold other keys.
fn resume(bytes: &[u8], most: usize) -> Option<usize> {
    let universal = matches!(own_label(bytes), Label::Predator | Label::SecurityUniversal);
    labels(bytes, 1).find(|&at| {
        let here = bytes.get(at..).unwrap_or_default();
        let another = !universal || own_label(here) == own_label(bytes);
        another && matches!(extent(here, most), Extent::Whole(_))
    })
}

/// What the key at the start names.
fn own_label(bytes: &[u8]) -> Label {
    match bytes.first_chunk::<KEY>().map(Label::new) {
        Some(label) if !matches!(label, Label::Other(_)) => label,
        _ => OTHER,
    }
}

/// Whether a label starts here, or may once there are more bytes.
pub fn starts_label(bytes: &[u8]) -> bool {
    let seen = bytes.len().min(PREFIX.len());
    seen > 0
        && bytes.get(..seen) == PREFIX.get(..seen)
        // a category and a registry designator: what junk rarely has (SMPTE ST 298)
        && bytes.get(4).is_none_or(|category| (1..=5).contains(category))
        && bytes.iter().skip(5).take(3).all(|&byte| byte < 0x80)
}

/// Where the next label starts, from `from` on; a label that is cut off at the end counts.
pub fn find_label(bytes: &[u8], from: usize) -> usize {
    labels(bytes, from).next().unwrap_or(bytes.len())
}

/// Where labels start, from `from` on; one that is cut off at the end counts.
fn labels(bytes: &[u8], from: usize) -> impl Iterator<Item = usize> {
    static PREFIXES: OnceLock<Finder<'static>> = OnceLock::new();
    let finder = PREFIXES.get_or_init(|| Finder::new(&PREFIX));
    let end = bytes.len().saturating_sub(PREFIX.len() - 1).max(from);
    let whole = finder.find_iter(bytes.get(from..).unwrap_or_default()).map(move |at| from + at);
    whole.chain(end..bytes.len()).filter(|&at| bytes.get(at..).is_some_and(starts_label))
}

const OTHER: Label = Label::Other([0; KEY]);
/// Bytes of a key.
const KEY: usize = 16;
/// Bytes of the longest length that is worth a look.
const LENGTH_MOST: usize = 9;
/// How far from the end of a packet the next one is looked for.
const NEAR: usize = 512;
