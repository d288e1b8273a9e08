//! SRT.

use std::time::Duration;

use millrace::wire::srt::{
    Bandwidth, Control, DataHeader, HEADER, KeyFlag, Merge, Packet, Receiver, ReceiverConfig, Sender,
    SenderConfig, Seq, SocketId, Stored,
};

/// A datagram of any bytes: what is read is written the same way.
pub fn packet(data: &[u8]) {
    match Packet::parse(data) {
        Ok(Packet::Data(header, payload)) => {
            assert_eq!(header.to_bytes(), data[..HEADER]);
            assert_eq!(payload, &data[HEADER..]);
        }
        Ok(Packet::Control(packet)) => {
            if let Control::Nak(losses) = packet.control {
                assert!(losses.ranges().all(|(first, last)| !last.is_before(first)));
                assert_ne!(losses.ranges().count(), 0);
            }
            let mut bytes = Vec::new();
            packet.write(&mut bytes);
            assert_eq!(Packet::parse(&bytes), Ok(Packet::Control(packet)));
        }
        Err(_) => {}
    }
}

/// A sender between packets of the stream and control packets of any bytes at any times. Each step: what,
/// milliseconds since the last one, length, bytes.
pub fn sender(data: &[u8]) {
    let [flags, window, rest @ ..] = data else { return };
    let initial = Seq::new(if flags & 1 == 0 { 0 } else { Seq::COUNT - 20 });
    let config = SenderConfig {
        destination: SocketId(1),
        start: 0,
        initial,
        window: u32::from(*window) * 16,
        peer_latency: Duration::from_millis(120),
        peer_drops_late: flags & 2 == 0,
        peer_repeats_reports: flags & 4 == 0,
        idle_timeout: Duration::from_secs(5),
        bandwidth: match flags >> 3 & 3 {
            0 => Bandwidth::Fixed(100_000),
            1 => Bandwidth::Relative { input: 0, minimum: 1000, overhead: 25 },
            _ => Bandwidth::Unlimited,
        },
    };
    let mut sender = Sender::new(&config, 0);
    let mut sent: Vec<(u64, DataHeader)> = Vec::new();
    let (mut now, mut position) = (0, 0);
    let mut rest = rest;
    while let [what, step, len, behind @ ..] = rest {
        let (bytes, behind) = behind.split_at(behind.len().min((*len).into()));
        rest = behind;
        now += u64::from(*step) * 1_000_000;
        if what & 1 == 0 {
            position += u64::from(what >> 6);
            let key = if what & 2 == 0 { KeyFlag::Even } else { KeyFlag::Odd };
            for _ in 0..*len {
                if let Some(header) = sender.header(position, now, 1316, key, now) {
                    sent.push((position, header));
                }
                position += 1;
            }
        } else if let Ok(Packet::Control(packet)) = Packet::parse(&control(bytes, initial)) {
            sender.handle(&packet.control, now);
        }
        let stored = |position: u64| {
            let at = sent.binary_search_by_key(&position, |sent| sent.0).ok()?;
            let arrival = u64::from(sent[at].1.timestamp) * 1000;
            // Some have left the ring.
            (position % 16 != 7).then_some(Stored { arrival, length: 1316 })
        };
        let mut count = 0;
        while let Some(again) = sender.next_retransmit(now, stored) {
            let at = again.header.sequence.ahead_of(initial) as usize;
            assert_eq!(sent[at].0, again.position);
            assert_eq!(DataHeader { retransmitted: true, ..sent[at].1 }, again.header);
            count += 1;
            assert!(count <= sent.len(), "each packet at most once");
        }
        while sender.next_control(now).is_some() {
            count += 1;
            assert!(count <= sent.len() + 100, "a bounded number of answers");
        }
        assert!(sender.in_flight() <= sent.len() as u64);
        assert_eq!(sender.next_sequence(), initial + sent.len() as u32);
    }
}

/// A receiver between data and control packets of any bytes at any times. Each step: milliseconds since the last
/// one, length, bytes.
pub fn receiver(data: &[u8]) {
    let [capacity, latency, rest @ ..] = data else { return };
    let initial = Seq::new(Seq::COUNT - 20);
    let config = ReceiverConfig {
        destination: SocketId(1),
        start: 0,
        initial,
        tied_at: 0,
        tied_timestamp: 0,
        latency: Duration::from_millis((*latency).into()),
        capacity: u32::from(*capacity) * 4,
        peer_holds_off: capacity & 1 == 0,
        idle_timeout: Duration::from_secs(5),
    };
    let most = (usize::from(*capacity) * 4).max(32);
    let mut receiver = Receiver::new(&config, 0);
    let (mut now, mut next) = (0, initial);
    let (mut rest, mut bytes) = (rest, Vec::new());
    while let [step, len, behind @ ..] = rest {
        let (datagram, behind) = behind.split_at(behind.len().min((*len).into()));
        rest = behind;
        now += u64::from(*step) * 1_000_000;
        let datagram = control(datagram, initial);
        match Packet::parse(&datagram) {
            Ok(Packet::Data(_, payload)) => {
                let header = datagram.first_chunk().expect("parsed");
                receiver.handle_data(header, payload, now, |header, _, payload| {
                    (header.key != KeyFlag::Odd).then_some(payload.len() / 2)
                });
            }
            Ok(Packet::Control(packet)) => drop(receiver.handle(&packet, now)),
            Err(_) => {}
        }
        while let Some(delivery) = receiver.pop(now) {
            assert_eq!(next + delivery.missing, delivery.sequence);
            assert!(delivery.deliver_at <= now);
            next = delivery.sequence + 1;
        }
        let mut count = 0;
        while receiver.next_control(now, &mut bytes) {
            assert!(Packet::parse(&bytes).is_ok());
            count += 1;
            assert!(count < 100, "a bounded number of answers");
        }
        assert!(receiver.next_due() > now || receiver.is_peer_lost(now));
        assert!(receiver.held().0 <= most);
    }
}

/// A link of a sending group that carries the stream and rests in turn, and two links of a receiving group, between
/// packets of any bytes at any times. Each step: what, milliseconds since the last one, length, bytes.
pub fn group(data: &[u8]) {
    let initial = Seq::new(Seq::COUNT - 20);
    let sends = SenderConfig {
        destination: SocketId(1),
        start: 0,
        initial,
        window: 512,
        peer_latency: Duration::from_millis(120),
        peer_drops_late: true,
        peer_repeats_reports: true,
        idle_timeout: Duration::from_secs(5),
        bandwidth: Bandwidth::Unlimited,
    };
    let receives = ReceiverConfig {
        destination: SocketId(1),
        start: 0,
        initial,
        tied_at: 0,
        tied_timestamp: 0,
        latency: Duration::from_millis(40),
        capacity: 256,
        peer_holds_off: true,
        idle_timeout: Duration::from_secs(5),
    };
    let mut sender = Sender::new(&sends, 0);
    sender.pin(BASE, initial);
    let mut links = [Receiver::new(&receives, 0), Receiver::new(&receives, 0)];
    let mut merge = Merge::default();
    let (mut now, mut position, mut last) = (0, BASE, None::<Seq>);
    let (mut rest, mut bytes) = (data, Vec::new());
    while let [what, step, len, behind @ ..] = rest {
        let (datagram, behind) = behind.split_at(behind.len().min((*len).into()));
        rest = behind;
        now += u64::from(*step) * 1_000_000;
        match what >> 5 {
            0 => position += u64::from(*len) * 16,
            1 => sender.resume(position, now),
            2 => sender.rest(),
            _ => {}
        }
        for _ in 0..what & 7 {
            if let Some(header) = sender.header(position, now, 1316, KeyFlag::Clear, now) {
                assert_eq!(header.sequence, initial + (position - BASE) as u32);
                assert_eq!(sender.sent_to(), position + 1);
            }
            position += 1;
        }
        assert!(sender.acked_to() <= sender.sent_to() && sender.silence(now) <= now);
        let datagram = control(datagram, initial);
        let link = &mut links[usize::from(what >> 4 & 1)];
        match Packet::parse(&datagram) {
            Ok(Packet::Data(_, payload)) => {
                let header = datagram.first_chunk().expect("parsed");
                link.handle_data(header, payload, now, |_, _, payload| Some(payload.len()));
            }
            Ok(Packet::Control(packet)) => {
                link.handle(&packet, now);
                sender.handle(&packet.control, now);
            }
            Err(_) => {}
        }
        let stored = |at: u64| (at % 16 != 7).then_some(Stored { arrival: now, length: 1316 });
        while let Some(again) = sender.next_retransmit(now, stored) {
            assert_eq!(again.header.sequence, initial + (again.position - BASE) as u32);
        }
        while sender.next_control(now).is_some() {}
        let clock = links[0].clock();
        links[1].follow(clock);
        for link in &mut links {
            while let Some(delivery) = link.pop(now) {
                merge.add(delivery.sequence, delivery.sequence);
            }
        }
        merge.take(|sequence: Seq, missing| {
            assert!(last.is_none_or(|last| last + 1 + missing == sequence), "each once, in order");
            last = Some(sequence);
        });
        let furthest = links[0].next_missing().later(links[1].next_missing());
        for link in &mut links {
            link.skip_to(furthest);
            let mut count = 0;
            while link.next_control(now, &mut bytes) {
                // What did not come by a link is not acknowledged there.
                if let Ok(Packet::Control(packet)) = Packet::parse(&bytes)
                    && let Control::Ack(ack) = packet.control
                {
                    assert!(!ack.next.is_after(link.end()));
                }
                count += 1;
                assert!(count < 100, "a bounded number of answers");
            }
            assert!(link.next_due() > now || link.is_peer_lost(now));
        }
    }
}

/// Where the group begins in the ring.
const BASE: u64 = 1 << 40;

/// A datagram whose sequence numbers lie near those of the connection: byte 0 says what it is, the numbers follow
/// as single bytes; or raw bytes, when they say so themselves.
fn control(bytes: &[u8], initial: Seq) -> Vec<u8> {
    let [kind, rest @ ..] = bytes else { return Vec::new() };
    let near = |byte: u8| (initial + u32::from(byte) - 8).value();
    let word = |byte: Option<&u8>| u32::from(byte.copied().unwrap_or(0));
    let mut words = match kind {
        // Data: number, flags, timestamp in 16 ms.
        0..64 => vec![
            near(*kind * 4 + word(rest.first()) as u8 % 4),
            word(rest.get(1)) << 24,
            word(rest.get(2)) << 14,
        ],
        // ACK, NAK, ACKACK, DROPREQ.
        64..192 => {
            let kind = [2u32, 3, 6, 7][usize::from(kind % 4)];
            vec![1 << 31 | kind << 16, word(rest.first()), 0]
        }
        _ => return rest.to_vec(),
    };
    words.push(0);
    let mut out: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    for byte in rest.iter().skip(1) {
        let range = if *kind % 4 == 1 && byte & 1 == 1 { 1 << 31 } else { 0 };
        out.extend((near(*byte) | range).to_be_bytes());
    }
    out
}
