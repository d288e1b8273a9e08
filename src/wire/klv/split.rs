//! Bytes that hold KLV packets enter, the packets leave one by one, with the junk between them. Never believes a length
//! that is longer than a packet may be: it looks for the next label instead.

use super::PACKET_MAX;
use super::ber::{BerError, read_length};
use super::label::PREFIX;

/// A piece of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A whole packet: key, length and value.
    Packet(&'a [u8]),
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
        if self.rest.is_empty() {
            return None;
        }
        let start = find_label(self.rest, 0);
        if start > 0 {
            return Some(Unit::Junk(self.take(start)));
        }
        match extent(self.rest) {
            Extent::Whole(length) => Some(Unit::Packet(self.take(length))),
            Extent::Partial => {
                // A length that was damaged would swallow what follows: a label inside says that it was.
                let next = find_label(self.rest, 1);
                let whole =
                    self.rest.get(next..).is_some_and(|rest| matches!(extent(rest), Extent::Whole(_)));
                if whole {
                    Some(Unit::Junk(self.take(next)))
                } else {
                    Some(Unit::Partial(self.take(self.rest.len())))
                }
            }
            Extent::Wrong => {
                let next = find_label(self.rest, 1);
                Some(Unit::Junk(self.take(next)))
            }
        }
    }
}

impl<'a> Split<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }
}

enum Extent {
    Whole(usize),
    Partial,
    Wrong,
}

/// How long the packet at the start is.
fn extent(bytes: &[u8]) -> Extent {
    let Some(behind) = bytes.get(16..) else { return Extent::Partial };
    match read_length(behind) {
        Ok((length, body)) if length <= PACKET_MAX as u64 => {
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

/// Where the next label starts, from `from` on; a label that is cut off at the end counts.
fn find_label(bytes: &[u8], from: usize) -> usize {
    let starts = |at: &usize| {
        let here = bytes.get(*at..).unwrap_or_default();
        let seen = here.len().min(PREFIX.len());
        here.get(..seen) == PREFIX.get(..seen)
            // a registry designator below 0x80: what junk rarely has (SMPTE ST 298)
            && here.get(4..8).is_none_or(|next| next.iter().all(|&b| b < 0x80))
    };
    (from..bytes.len()).find(starts).unwrap_or(bytes.len())
}
