//! What makes a transport stream of a transport stream.

use std::collections::{BTreeMap, BTreeSet};

use millrace::wire::ts::packet::{PACKET, Packet, SYNC};
use millrace::wire::ts::psi::Pmt;
use millrace::wire::ts::sections::Sections;
use millrace::wire::ts::{Fill, Filter, FilterSpec, Restamper};

use super::ts::mend_section;

/// Packets of any bytes through every kind of filter: none too many, and no KLV but in what is declared.
pub fn filter(data: &[u8]) {
    let [choice, number, rest @ ..] = data else { return };
    let bit = |n: u8| choice >> n & 1 == 1;
    let pid = 0x100 + u16::from(number & 0x0f);
    let spec = FilterSpec {
        program: bit(0).then_some(1),
        pids: bit(1).then(|| BTreeSet::from([pid])),
        drop_pids: bit(2).then_some(pid ^ 1).into_iter().collect(),
        strip_klv: bit(3),
        fill: if bit(4) { Fill::Null } else { Fill::Remove },
    };
    let stream = mended(rest);
    let (mut filter, mut out) = (Filter::new(spec.clone()), Vec::new());
    stream.chunks(7 * PACKET).for_each(|datagram| filter.push(datagram, &mut out));
    assert_eq!(out.len() % PACKET, 0);
    assert!(out.len() <= stream.len());
    assert!(spec.fill == Fill::Remove || out.len() == stream.len());
    if !spec.strip_klv {
        return;
    }
    let mut declared = BTreeSet::new();
    let mut sections: BTreeMap<u16, Sections> = BTreeMap::new();
    for packet in Packet::all(&stream) {
        sections.entry(packet.pid()).or_default().push(packet, &mut |section| {
            declared.extend(Pmt::parse(section).into_iter().flat_map(|pmt| pmt.streams).map(|s| s.pid));
        });
    }
    for packet in Packet::all(&out) {
        let label = packet.bytes().windows(4).any(|w| w == [0x06, 0x0e, 0x2b, 0x34]);
        assert!(!label || declared.contains(&packet.pid()));
    }
}

/// Files of any bytes, played three times: only what may change does.
pub fn restamp(data: &[u8]) {
    let file = mended(data);
    let mut restamper = Restamper::default();
    Packet::all(&file).for_each(|packet| restamper.observe(packet));
    for _ in 0..2 {
        if restamper.next_pass().is_err() {
            return;
        }
        let mut pass = file.clone();
        pass.as_chunks_mut().0.iter_mut().for_each(|packet| restamper.rewrite(packet));
        for (old, new) in Packet::all(&file).zip(Packet::all(&pass)) {
            assert_eq!(old.bytes()[..3], new.bytes()[..3]);
            assert_eq!(old.bytes()[3] & 0xf0, new.bytes()[3] & 0xf0);
            assert_eq!(old.pcr().is_some(), new.pcr().is_some());
            let changed = old.bytes().iter().zip(new.bytes()).filter(|(old, new)| old != new).count();
            // Counter, PCR, OPCR, PTS, DTS.
            assert!(changed <= 1 + 6 + 6 + 5 + 5);
        }
    }
}

/// Whole packets whose sync bytes and short sections are right, so that they reach what stands behind; a last part is
/// filled up.
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut stream = bytes.to_vec();
    stream.resize(bytes.len().next_multiple_of(PACKET), 0xff);
    for packet in stream.as_chunks_mut().0 {
        packet[0] = SYNC;
        mend_section(packet);
    }
    stream
}
