//! Transport streams.

use millrace::inspect::conformance::{Conformance, Examiner};
use millrace::wire::klv::PREFIX;
use millrace::wire::ts::demux::Extractor;
use millrace::wire::ts::packet::{PACKET, PCR_WRAP, Packet, SYNC, set_opcr, set_pcr};
use millrace::wire::ts::pes::{PTS_WRAP, PesHeader, set_dts, set_pts};
use millrace::wire::ts::psi::{Assembler, Pat, Pmt, SECTION_MAX};
use millrace::wire::ts::{Analyzer, Framer};
use mpeg2ts_reader::mpegts_crc::sum32;

/// Whatever comes, only whole packets leave, and no more of them than came.
pub fn framer(data: &[u8]) {
    let Some((&[mode, low, high], data)) = data.split_first_chunk() else { return };
    let size = match mode >> 1 & 3 {
        0 => 1316,
        1 => 1358,
        _ => usize::from(u16::from_le_bytes([low, high])) % 3000 + 1,
    };
    let mut framer = if mode & 1 == 0 { Framer::datagrams() } else { Framer::stream() };
    let mut out = 0;
    let mut emit = |d: &[u8]| {
        assert!(!d.is_empty() && d.len().is_multiple_of(PACKET));
        assert!(d.iter().step_by(PACKET).all(|&b| b == SYNC));
        out += d.len() as u64;
    };
    for chunk in data.chunks(size) {
        framer.push(chunk, &mut emit);
        assert!(framer.pending() < 7);
        if mode & 8 != 0 {
            framer.flush(&mut emit);
            assert_eq!(framer.pending(), 0);
        }
    }
    framer.finish(&mut emit);
    assert_eq!(framer.pending(), 0);
    let filler = framer.junk_bytes() + out;
    assert!(filler <= data.len() as u64);
    // at most 16 of 204 bytes are neither a packet nor junk
    assert!(
        filler * 204 >= (data.len() as u64).saturating_sub(204) * 188 || mode & 16 != 0,
        "{filler} of {}",
        data.len()
    );
}

/// Sync bytes and the checksums of short tables are put right, so that the bytes reach what stands behind them.
pub fn analyzer(data: &[u8]) {
    let packets = &mended(data)[..];
    let mut analyzer = Analyzer::new();
    for (position, datagram) in (0..).zip(packets.chunks(7)) {
        let arrival = position * 20_000_000;
        let inspection = analyzer.datagram(position, datagram.as_flattened(), arrival);
        assert!(inspection.random_access.is_none_or(|join| join <= position));
        assert!(inspection.pcr.is_none_or(|pcr| pcr < PCR_WRAP));
    }
    let report = analyzer.report(data.len() as u64 * 1_000);
    assert_eq!(report.packets, (data.len() / PACKET) as u64);
    assert!(serde_json::to_string(&report).is_ok());
    assert!(report.render().chars().all(|c| c == '\n' || !c.is_control()));
}

/// The rules of transport streams, metadata and time stamps, over whatever comes: nothing is counted that is not told,
/// and what is sampled are packets of the stream.
pub fn rules(data: &[u8]) {
    let packets = &mended(data)[..];
    let (mut analyzer, mut examiner) = (Analyzer::new(), Examiner::default());
    analyzer.keep_sample();
    for (position, datagram) in (0..).zip(packets.chunks(7)) {
        analyzer.datagram(position, datagram.as_flattened(), position * 20_000_000);
        if position % 3 == 0
            && let Some(sample) = analyzer.take_sample()
        {
            assert!(sample.iter().all(|sampled| packets.contains(sampled.packet)));
            examiner.take(&sample);
        }
    }
    examiner.finish();
    let report = analyzer.report(data.len() as u64 * 1_000);
    let found = Conformance::new(&report.vitals, &examiner, None);
    for finding in &found.rules {
        assert_eq!(finding.count > 0, finding.last.is_some(), "{finding:?}");
        assert!(
            finding.last.as_ref().is_none_or(|last| !last.text.chars().any(char::is_control)),
            "{finding:?}"
        );
    }
    assert!(serde_json::to_string(&found).is_ok() && found.to_string().contains("Rules:"));
}

/// Packets whose sync bytes and sections are right, so that more than the framer is reached.
fn mended(data: &[u8]) -> Vec<[u8; PACKET]> {
    let mut packets = data.as_chunks::<PACKET>().0.to_vec();
    for packet in &mut packets {
        packet[0] = SYNC;
        mend_section(packet);
    }
    packets
}

/// KLV leaves whole streams and damaged ones: only what starts with a key, and no more than came.
pub fn extractor(data: &[u8]) {
    let packets = &mended(data)[..];
    let mut extractor = Extractor::default();
    let (mut count, mut bytes) = (0, 0);
    let mut emit = |extract: millrace::wire::ts::demux::Extract<'_>| {
        assert!(extract.bytes.starts_with(&PREFIX));
        assert!(extract.pid < 0x1fff && extract.pts.is_none_or(|pts| pts < PTS_WRAP));
        count += 1;
        bytes += extract.bytes.len();
    };
    for datagram in packets.chunks(7) {
        extractor.push(datagram.as_flattened(), &mut emit);
    }
    extractor.flush(&mut emit);
    assert_eq!(extractor.counters().packets, count);
    assert!(bytes <= data.len());
}

/// Sections cut anywhere; tables survive being written and read again; clocks and timestamps being replaced.
pub fn psi(data: &[u8]) {
    let mut assembler = Assembler::default();
    let mut rest = data;
    while let Some((&[flags], behind)) = rest.split_first_chunk() {
        let (payload, next) = behind.split_at((usize::from(flags >> 1) * 2).min(behind.len()));
        assembler.push(payload, flags & 1 != 0, &mut |section| {
            assert!(section.len() <= SECTION_MAX);
            let _ = Pat::parse(section);
            let _ = Pmt::parse(section);
        });
        rest = next;
    }
    for table in [0, 2] {
        let body = &data[..data.len().min(SECTION_MAX - 12)];
        let len = (body.len() + 9) as u16;
        let mut section = [&[table][..], &(0xb000 | len).to_be_bytes(), &[0, 1, 0xc1, 0, 0], body].concat();
        section.extend_from_slice(&sum32(&section).to_be_bytes());
        if table == 0 {
            let pat = Pat::parse(&section).expect("a good section");
            // a second network entry replaces the first, so the table may only get shorter
            assert_eq!(Pat::parse(&pat.section().expect("fits")), Ok(pat));
        } else if let Ok(pmt) = Pmt::parse(&section) {
            assert_eq!(Pmt::parse(&pmt.section().expect("fits")), Ok(pmt));
        }
    }
    let mut pes = data.to_vec();
    if let Some(header) = PesHeader::parse(&pes) {
        assert_eq!(set_pts(&mut pes, 1 << 32), header.pts.is_some());
        assert_eq!(set_dts(&mut pes, PTS_WRAP - 1), header.dts.is_some());
        let header = PesHeader::parse(&pes).expect("still one");
        assert!(
            header.pts.is_none_or(|pts| pts == 1 << 32) && header.dts.is_none_or(|dts| dts == PTS_WRAP - 1)
        );
    }
    if let Some(mut packet) = data.first_chunk::<PACKET>().copied() {
        packet[0] = SYNC;
        let had = set_pcr(&mut packet, 12_345_678_901);
        let pcr = Packet::new(&packet).and_then(Packet::pcr);
        assert_eq!(pcr, had.then_some(12_345_678_901));
        set_opcr(&mut packet, 5);
        assert_eq!(Packet::new(&packet).and_then(Packet::pcr), pcr);
    }
}

/// Puts the checksum of a section right that starts and ends in this packet.
pub(crate) fn mend_section(packet: &mut [u8; PACKET]) {
    let Some(at) =
        Packet::new(packet).filter(|p| p.starts_unit()).and_then(Packet::payload).map(|p| PACKET - p.len())
    else {
        return;
    };
    let start = at + 1 + usize::from(packet.get(at).copied().unwrap_or(0));
    let Some(&[table, l0, l1]) = packet.get(start..).and_then(|s| s.first_chunk()) else { return };
    let end = start + 3 + usize::from(u16::from_be_bytes([l0 & 0x0f, l1]));
    if let Some((body, crc)) = packet.get_mut(start..end).and_then(|s| s.split_last_chunk_mut::<4>())
        && (table == 0 || table == 2)
    {
        *crc = sum32(body).to_be_bytes();
    }
}
