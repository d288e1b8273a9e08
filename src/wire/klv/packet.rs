//! A KLV packet's bytes enter, its items and what is wrong with it leave. Never fails, never panics, and never takes more
//! memory than a few dozen times the packet.

use std::borrow::Cow;

use super::ber::read_length;
use super::checksum::{crc16, sum16};
use super::issue::{Fault, Issue};
use super::label::{Label, PREFIX};
use super::reader::Reader;
use super::value::{Item, Set, Value};

/// A packet that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Packet<'a> {
    /// What its key names.
    pub label: Label,
    /// Its items.
    pub set: Set<'a>,
    /// Whether it is as it was sent.
    pub checksum: Checksum,
    /// What is wrong with it.
    pub issues: Vec<Issue>,
}

/// What the checksum says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The bytes are as they were sent.
    Right,
    /// They are not.
    Wrong {
        /// What the packet says.
        stored: u32,
        /// What its bytes make.
        computed: u32,
    },
    /// The packet has none.
    None,
}

impl<'a> Packet<'a> {
    /// Reads a packet: key, length, items. What stands behind its end is an issue.
    pub fn read(bytes: &'a [u8]) -> Self {
        let Some((key, rest)) = bytes.split_first_chunk::<16>().filter(|(key, _)| key.starts_with(&PREFIX))
        else {
            let label = Label::Other([0; 16]);
            return Self::unread(label, bytes, Fault::Key);
        };
        let label = Label::new(key);
        let Ok((length, body)) = read_length(rest) else {
            return Self::unread(label, rest, Fault::Truncated);
        };
        let head = bytes.len() - body.len();
        let whole = usize::try_from(length).ok().and_then(|length| body.split_at_checked(length));
        let mut reader = Reader::new();
        let spec = label.spec();
        let (body, behind) = whole.unwrap_or_else(|| {
            reader.note(spec, 0, "", Fault::Truncated);
            (body, &[])
        });
        if !behind.is_empty() {
            reader.note(spec, 0, "", Fault::Trailing(behind.len()));
        }
        let set = match label {
            Label::Miis => Set {
                spec,
                items: spec
                    .items
                    .iter()
                    .map(|item| Item {
                        tag: item.tag,
                        spec: Some(item),
                        value: reader.value(&item.kind, body),
                        raw: Cow::Borrowed(body),
                    })
                    .collect(),
            },
            _ => reader.set(spec, body),
        };
        let end = head + body.len();
        let checksum = compare(label, &set, bytes.get(..end).unwrap_or(bytes));
        if let Checksum::Wrong { stored, computed } = checksum {
            reader.note(spec, 1, "Checksum", Fault::Checksum(stored, computed));
        }
        if label == Label::Uas {
            look_at_order(&set, &mut reader);
        }
        Self { label, set, checksum, issues: reader.issues }
    }

    /// Microseconds since 1970 as item 2 says, in the sender's time scale.
    pub fn time(&self) -> Option<u64> {
        let tag = if self.label == Label::Uas || self.label == Label::Predator { 2 } else { return None };
        if let Some(Value::Time(time)) = self.set.value(tag) { Some(*time) } else { None }
    }

    /// The same, without a tie to the bytes it came from.
    pub fn into_owned(self) -> Packet<'static> {
        Packet { label: self.label, set: self.set.into_owned(), checksum: self.checksum, issues: self.issues }
    }

    fn unread(label: Label, bytes: &'a [u8], what: Fault) -> Self {
        let spec = label.spec();
        let mut set = Set::new(spec);
        if !bytes.is_empty() {
            set.items.push(Item {
                tag: 0,
                spec: None,
                value: Value::Raw(Cow::Borrowed(bytes)),
                raw: Cow::Borrowed(bytes),
            });
        }
        let issues = vec![Issue { set: spec.name, tag: 0, name: "", what }];
        Self { label, set, checksum: Checksum::None, issues }
    }
}

fn compare(label: Label, set: &Set<'_>, packet: &[u8]) -> Checksum {
    let Some((tag, bytes)) = label.checksum() else { return Checksum::None };
    // it is last: it covers everything before its own value
    let Some(item) = set.items.last().filter(|item| item.tag == tag) else { return Checksum::None };
    let (Value::Uint(stored), true) = (&item.value, item.raw.len() == bytes) else { return Checksum::None };
    let Some(covered) = packet.len().checked_sub(bytes).and_then(|end| packet.get(..end)) else {
        return Checksum::None;
    };
    let computed = match label {
        Label::Rvt => mpeg2ts_reader::mpegts_crc::sum32(covered),
        Label::RangeImage => u32::from(crc16(covered)),
        _ => u32::from(sum16(covered)),
    };
    let stored = *stored as u32;
    if stored == computed { Checksum::Right } else { Checksum::Wrong { stored, computed } }
}

/// Item 2 is first, 1 is last; 143 is not at the root; 100 and 101 do not stand together (ST 0601.19, ST 1607).
fn look_at_order(set: &Set<'_>, reader: &mut Reader) {
    let misplaced = |reader: &mut Reader, tag| {
        let name = set.spec.find(tag).map_or("", |spec| spec.name);
        reader.note(set.spec, tag, name, Fault::Misplaced);
    };
    if set.items.first().is_some_and(|item| item.tag != 2) && set.item(2).is_some() {
        misplaced(reader, 2);
    }
    if set.items.last().is_some_and(|item| item.tag != 1) && set.item(1).is_some() {
        misplaced(reader, 1);
    }
    // tags beyond 99 are rare: one look tells that there are none
    if set.items.iter().any(|item| item.tag > 99) {
        if set.item(143).is_some() {
            misplaced(reader, 143);
        }
        if set.item(100).is_some() && set.item(101).is_some() {
            misplaced(reader, 101);
        }
    }
}
