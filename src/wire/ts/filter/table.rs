//! Packets of one PID of PSI enter, the sections in them leave; sections that take their place enter, and leave in as
//! many packets as came in. Never holds more than 4 KB.

use std::collections::VecDeque;

use crate::wire::ts::packet::{PACKET, Packet, SYNC};
use crate::wire::ts::sections::Sections;

/// Reads and rewrites the sections of one PID. A section that needs several packets leaves in the places of the packets
/// that bring its next repetition, so that no packet changes its place.
#[derive(Debug, Default)]
pub(super) struct Table {
    sections: Sections,
    queue: VecDeque<u8>,
    /// Where in the queue a section starts.
    starts: VecDeque<usize>,
    /// Counter of the next packet.
    count: Option<u8>,
}

impl Table {
    /// The sections that this packet completes.
    pub(super) fn read(&mut self, packet: Packet<'_>) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        self.sections.push(packet, &mut |section| found.push(section.to_vec()));
        found
    }

    /// Puts a section in line. One that finds the line full is left out: it will be repeated.
    pub(super) fn queue(&mut self, section: &[u8]) {
        if self.queue.len() + section.len() <= QUEUE {
            self.starts.push_back(self.queue.len());
            self.queue.extend(section);
        }
    }

    /// Appends the packet that takes the place of `packet`; false when nothing is in line.
    pub(super) fn emit(&mut self, packet: Packet<'_>, out: &mut Vec<u8>) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        let pid = packet.pid().to_be_bytes();
        let count = self.count.unwrap_or(packet.continuity());
        self.count = Some((count + 1) & 0x0f);
        let start = self.starts.front().copied().filter(|start| *start < PAYLOAD - 1);
        let take = match (start, self.starts.front()) {
            (Some(_), _) => PAYLOAD - 1,
            // A section that starts in the last byte has no room for its pointer_field: it starts the next packet.
            (None, Some(&next)) => next.min(PAYLOAD),
            (None, None) => PAYLOAD,
        }
        .min(self.queue.len());

        let end = out.len() + PACKET;
        out.extend_from_slice(&[SYNC, u8::from(start.is_some()) << 6 | pid[0], pid[1], 0x10 | count]);
        // Less than 183.
        out.extend(start.map(|start| start as u8));
        out.extend(self.queue.drain(..take));
        out.resize(end, 0xff);
        self.starts.retain(|start| *start >= take);
        self.starts.iter_mut().for_each(|start| *start -= take);
        true
    }
}

const PAYLOAD: usize = PACKET - 4;

/// Most bytes in line: four sections of the longest.
const QUEUE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Sections of any length come out whole and in order, counted, and in no more packets than they need.
        #[test]
        fn sections_survive(lengths in prop::collection::vec(3usize..1021, 1..4)) {
            let sections: Vec<Vec<u8>> = lengths.iter().zip(1u8..).map(|(len, id)| {
                let mut section = vec![0xb0 | id; *len];
                section[..3].copy_from_slice(&[0x80, 0x30 | ((len - 3) >> 8) as u8, (len - 3) as u8]);
                section
            }).collect();
            let mut slot = [0xff; PACKET];
            slot[..4].copy_from_slice(&[SYNC, 0x01, 0x23, 0x1e]);
            let slot = Packet::new(&slot).unwrap();
            let (mut writer, mut reader) = (Table::default(), Table::default());
            sections.iter().for_each(|section| writer.queue(section));
            let mut out = Vec::new();
            while writer.emit(slot, &mut out) {}
            prop_assert_eq!(out.len() % PACKET, 0);
            prop_assert!(out.len() / PACKET <= sections.concat().len() / 182 + 1);
            let mut read = Vec::new();
            for (packet, count) in Packet::all(&out).zip(0x0eu8..) {
                prop_assert_eq!((packet.pid(), packet.continuity()), (0x123, count & 0x0f));
                read.extend(reader.read(packet));
            }
            prop_assert_eq!(read, sections);
        }
    }

    #[test]
    fn a_full_line_takes_no_more() {
        let mut table = Table::default();
        for _ in 0..100 {
            table.queue(&[0; 1024]);
        }
        assert_eq!((table.queue.len(), table.starts.len()), (QUEUE, 4));
    }
}
