//! RTP: order, payload formats, RTCP.

use std::time::Duration;

use millrace::wire::rtp::{
    AacDepacketizer, Ac3Depacketizer, AuHeaders, H264Depacketizer, H265Depacketizer, Header, InOrder,
    KlvDepacketizer, LatmDepacketizer, Line, MpegAudioDepacketizer, MuxConfig, Packets, PlainDepacketizer,
    Reception, Reorder, UNIT_MOST, Unit, packetize_aac, packetize_ac3, packetize_h264, packetize_h265,
    packetize_klv, packetize_mpeg_audio, parse, rtcp,
};

/// Datagrams of any bytes at any times: the window stays within its bounds and invents nothing.
pub fn reorder(data: &[u8]) {
    let [window, packets, rest @ ..] = data else { return };
    let mut reorder = Reorder::new(Duration::from_millis((*window).into()), (*packets).into());
    let (mut now, mut pushed, mut left) = (0, 0, 0);
    let mut rest = rest;
    // Each datagram: milliseconds since the last one, length, bytes.
    while let [step, len, behind @ ..] = rest {
        let (datagram, behind) = behind.split_at(behind.len().min((*len).into()));
        rest = behind;
        now += u64::from(*step) * 1_000_000;
        pushed += u64::from(parse(datagram).is_ok());
        reorder.push(datagram, now, &mut |_: InOrder<'_>| left += 1);
        assert!(reorder.deadline().is_none_or(|deadline| deadline > now));
    }
    reorder.expire(u64::MAX, &mut |_: InOrder<'_>| left += 1);
    assert_eq!(reorder.deadline(), None);
    let seen = reorder.counters();
    assert_eq!(seen.delivered, left);
    let settled = seen.delivered + seen.discarded + seen.foreign_types;
    // One packet may be set aside.
    assert!(settled == pushed || settled + 1 == pushed);
}

/// Payloads of any bytes for H.264: what leaves is whole NAL units behind their lengths.
pub fn h264(data: &[u8]) {
    let mut depacketizer = H264Depacketizer::default();
    let units = run(data, |h, p, lost, out| depacketizer.push(h, p, lost, &mut |unit| out.push(unit)));
    units.iter().for_each(|unit| assert!(nals(&unit.data, 1).is_some()));
}

/// Payloads of any bytes for H.265: what leaves is whole NAL units behind their lengths.
pub fn h265(data: &[u8]) {
    let mut depacketizer = H265Depacketizer::default();
    let units = run(data, |h, p, lost, out| depacketizer.push(h, p, lost, &mut |unit| out.push(unit)));
    units.iter().for_each(|unit| assert!(nals(&unit.data, 2).is_some()));
}

/// Payloads of any bytes for the formats of audio.
pub fn audio(data: &[u8]) {
    let [size, index, rest @ ..] = data else { return };
    let headers = AuHeaders { size: size & 31, index: index & 31, index_delta: index >> 5 };
    for headers in [AuHeaders::HBR, headers] {
        let mut aac = AacDepacketizer::new(headers, 1024);
        run(rest, |h, p, lost, out| aac.push(h, p, lost, &mut |unit| out.push(unit)));
    }
    let config = MuxConfig::parse(rest.get(..12).unwrap_or(rest));
    for (config, in_band) in [(config, false), (None, true)] {
        let mut latm = LatmDepacketizer::new(config, in_band);
        run(rest, |h, p, lost, out| latm.push(h, p, lost, &mut |unit| out.push(unit)));
    }
    let mut mpeg = MpegAudioDepacketizer::default();
    run(rest, |h, p, lost, out| mpeg.push(h, p, lost, &mut |unit| out.push(unit)));
    let mut ac3 = Ac3Depacketizer::default();
    run(rest, |h, p, lost, out| ac3.push(h, p, lost, &mut |unit| out.push(unit)));
    let mut plain = PlainDepacketizer::default();
    run(rest, |h, p, lost, out| plain.push(h, p, lost, &mut |unit| out.push(unit)));
}

/// Payloads of any bytes for KLV: no unit leaves that lost something.
pub fn klv(data: &[u8]) {
    let mut depacketizer = KlvDepacketizer::default();
    let units = run(data, |h, p, lost, out| depacketizer.push(h, p, lost, &mut |unit| out.push(unit)));
    assert!(units.iter().all(|unit| !unit.damaged));
}

/// Units of any bytes and packets of any length: what is packed is unpacked as it was.
pub fn round_trip(data: &[u8]) {
    let [kind, most, rest @ ..] = data else { return };
    let mut line = Line::new(96, 7, 65_530, usize::from(*most) * 8);
    let mut packets = Packets::default();
    // Any bytes as NAL units: their headers made plain slices, and no start code in them.
    let front: &[u8] = if kind & 1 == 0 { &[0x41] } else { &[0x02, 0x01] };
    let clean = |piece: &[u8]| piece.iter().map(|byte| byte | 1).collect::<Vec<_>>();
    let units: Vec<Vec<u8>> = rest.chunks(97).map(|piece| [front, &clean(piece)].concat()).collect();
    let nals = || units.iter().map(Vec::as_slice);
    match kind & 1 {
        0 => packetize_h264(nals(), &mut line, 9, &mut packets),
        _ => packetize_h265(nals(), &mut line, 9, &mut packets),
    }
    let (mut h264, mut h265) = (H264Depacketizer::default(), H265Depacketizer::default());
    let mut out = Vec::new();
    for packet in packets.iter() {
        assert!(packet.len() <= line.most);
        let (header, payload) = parse(packet).expect("a packet of our own");
        match kind & 1 {
            0 => h264.push(&header, payload, false, &mut |unit| out.push(unit)),
            _ => h265.push(&header, payload, false, &mut |unit| out.push(unit)),
        }
    }
    let want: Vec<u8> =
        units.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect();
    assert_eq!(
        out.iter().map(|unit| unit.data.to_vec()).collect::<Vec<_>>(),
        if units.is_empty() { vec![] } else { vec![want] }
    );
    // Of the others, that packets keep their bound.
    packets.clear();
    packetize_aac(rest, &mut line, 0, &mut packets);
    packetize_ac3(rest, &mut line, 0, &mut packets);
    packetize_klv(rest, &mut line, 0, &mut packets);
    packetize_mpeg_audio(rest, &mut line, 0, &mut packets);
    assert!(packets.iter().all(|packet| packet.len() <= line.most && parse(packet).is_ok()));
}

/// Any bytes as RTCP; what is read of reports is written and read as it was.
pub fn rtcp(data: &[u8]) {
    let mut read = Vec::new();
    let _ = rtcp::parse(data, |packet| read.push(packet));
    let mut reception = Reception::new(90_000);
    for packet in read {
        let mut out = Vec::new();
        match &packet {
            rtcp::Rtcp::SenderReport(report, _) => {
                reception.arrive(&Header { ssrc: report.ssrc, ..header(1, 2, false) }, report.ntp >> 8);
                reception.sender_report(report, report.ntp >> 8);
                let _ = reception.report(report.ntp);
                rtcp::write_sender_report(&mut out, report);
                again(&out, &rtcp::Rtcp::SenderReport(*report, vec![]));
            }
            rtcp::Rtcp::ReceiverReport { ssrc, blocks } => {
                rtcp::write_receiver_report(&mut out, *ssrc, blocks);
                again(&out, &packet);
            }
            _ => {}
        }
    }
}

fn again(bytes: &[u8], want: &rtcp::Rtcp) {
    let mut seen = Vec::new();
    rtcp::parse(bytes, |packet| seen.push(packet)).expect("RTCP of our own");
    assert_eq!(seen, std::slice::from_ref(want));
}

fn header(sequence: u16, timestamp: u32, marker: bool) -> Header {
    Header { marker, payload_type: 96, sequence, timestamp, ssrc: 1 }
}

/// Each packet: flags (marker, loss, next timestamp), length, bytes.
fn run(mut rest: &[u8], mut push: impl FnMut(&Header, &[u8], bool, &mut Vec<Unit>)) -> Vec<Unit> {
    let mut units = Vec::new();
    let (mut sequence, mut timestamp) = (0u16, 0u32);
    while let [flags, length, behind @ ..] = rest {
        let (payload, behind) = behind.split_at(behind.len().min((*length).into()));
        rest = behind;
        sequence = sequence.wrapping_add(1);
        timestamp = timestamp.wrapping_add(u32::from(flags >> 2 & 3) * 3000);
        let header = header(sequence, timestamp, flags & 1 != 0);
        push(&header, payload, flags & 2 != 0, &mut units);
    }
    assert!(units.iter().all(|unit: &Unit| !unit.data.is_empty() && unit.data.len() <= UNIT_MOST));
    units
}

/// The NAL units of an access unit; `None` when lengths and bytes disagree.
fn nals(mut data: &[u8], least: usize) -> Option<()> {
    while !data.is_empty() {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        data = rest.get(length..).filter(|_| length >= least)?;
    }
    Some(())
}
