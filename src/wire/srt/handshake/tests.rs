//! Callers against listeners in simulated time.

use std::net::SocketAddr;

use super::body::{BODY, Body, Extensions, Kind};
use super::*;
use crate::wire::srt::crypto::{
    Cipher, KeyLength, KeyState, Offer, Passphrase, ReceiveKeys, SendKeys, derive,
};
use crate::wire::srt::{
    Boundary, Control, ControlPacket, DataHeader, HEADER, KeyFlag, Packet, Reject, Seq, SocketId, StreamId,
};

const MS: Nanos = 1_000_000;
const TIMEOUT: Nanos = 3000 * MS;
const CALLER: SocketId = SocketId(0x0102_0304);
const ACCEPTED: SocketId = SocketId(0x0A0B_0C0D);
const FIRST: Seq = Seq::new(0x7FFF_FFF0);

fn address() -> SocketAddr {
    "192.0.2.7:40000".parse().unwrap()
}

pub(super) fn passphrase(text: &str) -> Passphrase {
    Passphrase::new(text).unwrap()
}

pub(super) fn offer(text: &str) -> Offer {
    Offer::new(&passphrase(text), [0x3C; 48])
}

pub(super) fn dial() -> Dial {
    Dial {
        settings: Settings::default(),
        local: Local { socket: CALLER, first: FIRST, started: 0 },
        to: "192.0.2.1".parse().unwrap(),
        stream_id: None,
        group: None,
        offer: None,
        timeout: TIMEOUT,
    }
}

fn listener(settings: Settings) -> Listener {
    Listener::new(settings, CookieSecret::new([5; 32]), 0)
}

pub(super) fn packet(datagram: &[u8]) -> Packet<'_> {
    Packet::parse(datagram).expect("a packet of our own")
}

/// The body of a handshake datagram.
fn body(datagram: &[u8]) -> (Body, &[u8]) {
    let Packet::Control(ControlPacket { control: Control::Handshake(bytes), .. }) = packet(datagram) else {
        panic!("no handshake");
    };
    Body::parse(bytes).expect("a body of our own")
}

/// A listening port with its owner, who has at most one passphrase and remembers its answers.
struct Port {
    listener: Listener,
    settings: Settings,
    passphrase: Option<Passphrase>,
    group: Option<Group>,
    agreed: Vec<Agreed>,
    answer: Option<Vec<u8>>,
    refused: Option<Refusal>,
}

impl Port {
    fn new(settings: Settings, text: Option<&str>) -> Self {
        Self {
            listener: listener(settings.clone()),
            settings,
            passphrase: text.map(passphrase),
            group: None,
            agreed: Vec::new(),
            answer: None,
            refused: None,
        }
    }

    fn handle(&mut self, datagram: &[u8], now: Nanos) -> Option<Vec<u8>> {
        match self.listener.handle(address(), &packet(datagram), now) {
            Heard::Answer(answer) => {
                assert!(answer.len() <= datagram.len(), "more than was asked with");
                Some(answer)
            }
            Heard::Refused(refusal, answer) => {
                self.refused = Some(refusal);
                Some(answer)
            }
            Heard::Ignored => None,
            Heard::Request(request) => {
                if self.answer.is_none() {
                    let kek = self.passphrase.as_ref().and_then(|passphrase| {
                        Some(derive(passphrase, request.encryption.and_then(|ask| ask.salt)?))
                    });
                    let secret = match &self.passphrase {
                        None => Secret::None,
                        Some(_) => Secret::Passphrase(kek.as_ref()),
                    };
                    let how =
                        Acceptance { settings: &self.settings, socket: ACCEPTED, secret, group: self.group };
                    match request.accept(&how, now) {
                        Ok((agreed, answer)) => {
                            self.agreed.push(agreed);
                            self.answer = Some(answer);
                        }
                        Err((refusal, answer)) => {
                            self.refused = Some(refusal);
                            return Some(answer);
                        }
                    }
                }
                self.answer.clone()
            }
        }
    }
}

/// Lets them talk, one way taking 10 ms; `lost(n)` loses the datagram n, counted over both ways.
fn talk(caller: &mut Caller, port: &mut Port, lost: impl Fn(u32) -> bool) -> Result<Agreed, Refusal> {
    let (mut now, mut count) = (0, 0);
    let mut arrives = |_: &[u8]| {
        count += 1;
        !lost(count - 1)
    };
    loop {
        if let Some(refusal) = caller.overdue(now) {
            return Err(refusal);
        }
        if let Some(question) = caller.poll(now).filter(|datagram| arrives(datagram)) {
            let answer = port.handle(&question, now + 10 * MS).filter(|datagram| arrives(datagram));
            if let Some(answer) = answer {
                now += 20 * MS;
                match caller.handle(&packet(&answer), now) {
                    Progress::Waiting => continue,
                    Progress::Derive(_) => unreachable!("only in a rendezvous"),
                    Progress::Connected(agreed) => return Ok(*agreed),
                    Progress::Refused(refusal) => return Err(refusal),
                }
            }
        }
        now = caller.next_due();
    }
}

fn connect(dial: Dial, port: &mut Port) -> Result<Agreed, Refusal> {
    talk(&mut Caller::new(dial, 0), port, |_| false)
}

/// Payload goes from `sender` to `receiver`.
fn carries(sender: &SendKeys, receiver: &ReceiveKeys) -> bool {
    let header = DataHeader {
        sequence: FIRST,
        boundary: Boundary::Solo,
        in_order: false,
        key: KeyFlag::Even,
        retransmitted: false,
        message: 1,
        timestamp: 1,
        destination: ACCEPTED,
    }
    .to_bytes();
    let mut sealed = [0; 300];
    let length = sender.key(KeyFlag::Even).unwrap().seal(&header, &[0x47; 188], &mut sealed).unwrap();
    receiver.open(&header, KeyFlag::Even, &mut sealed[..length]) == Some(188) && sealed[..188] == [0x47; 188]
}

pub(super) fn assert_secured(one: &Agreed, other: &Agreed, cipher: Cipher, length: KeyLength) {
    for (from, to) in [(one, other), (other, one)] {
        let (sender, receiver) = (from.security.sender.as_ref(), to.security.receiver.as_ref());
        let (sender, receiver) = (sender.expect("keys to send"), receiver.expect("keys to receive"));
        assert_eq!((sender.strength(), receiver.strength()), ((cipher, length), (cipher, length)));
        assert!(carries(sender, receiver));
        assert!(from.security.may_send());
    }
}

#[test]
fn two_sides_agree() {
    let mut port = Port::new(
        Settings { receive_latency: 200, send_latency: 50, mss: 1400, window: 5000, ..Settings::default() },
        None,
    );
    let mut dial = dial();
    dial.settings.receive_latency = 80;
    dial.settings.send_latency = 300;
    dial.local.started = 0;
    dial.stream_id = StreamId::new(b"#!::r=live,m=publish").ok();
    let ours = connect(dial, &mut port).unwrap();
    let theirs = &port.agreed[0];
    assert_eq!((ours.local, ours.peer, theirs.local, theirs.peer), (CALLER, ACCEPTED, ACCEPTED, CALLER));
    for agreed in [&ours, theirs] {
        assert_eq!((agreed.first_sent, agreed.first_received), (FIRST, FIRST));
        assert_eq!((agreed.mss, agreed.payload_most), (1400, 1356));
        assert_eq!(agreed.peer_version, Version::OURS);
        assert_eq!(agreed.stream_id.as_ref().unwrap().as_bytes(), b"#!::r=live,m=publish");
        assert_eq!(agreed.security.send, KeyState::Unsecured);
        for flag in [Flags::TSBPD_SEND, Flags::TSBPD_RECEIVE, Flags::CRYPT, Flags::RETRANSMIT_FLAG] {
            assert!(agreed.peer_flags.has(flag));
        }
        assert!(!agreed.peer_flags.has(Flags::PACKET_FILTER) && !agreed.peer_flags.has(Flags::STREAM));
    }
    assert_eq!((ours.receive_latency, ours.send_latency), (80, 300));
    assert_eq!((theirs.receive_latency, theirs.send_latency), (300, 80));
    assert_eq!((ours.peer_window, theirs.peer_window), (5000, 8192));
}

#[test]
fn the_greater_latency_wins_each_way() {
    for (ours, theirs) in [((120, 0), (120, 0)), ((20, 500), (70, 30)), ((700, 10), (20, 20))] {
        let settings = |(receive_latency, send_latency)| Settings {
            receive_latency,
            send_latency,
            ..Settings::default()
        };
        let mut port = Port::new(settings(theirs), None);
        let agreed = connect(Dial { settings: settings(ours), ..dial() }, &mut port).unwrap();
        assert_eq!(agreed.receive_latency, ours.0.max(theirs.1));
        assert_eq!(agreed.send_latency, ours.1.max(theirs.0));
        assert_eq!(port.agreed[0].receive_latency, agreed.send_latency);
        assert_eq!(port.agreed[0].send_latency, agreed.receive_latency);
    }
}

#[test]
fn timestamps_count_from_each_sides_own_start() {
    let mut dial = dial();
    dial.local.started = 1_000 * MS;
    let mut caller = Caller::new(dial, 1_500 * MS);
    let listener = Listener::new(Settings::default(), CookieSecret::new([5; 32]), 0);
    let induction = caller.poll(1_500 * MS).unwrap();
    let stamp = |datagram: &[u8]| {
        let Packet::Control(ControlPacket { timestamp, .. }) = packet(datagram) else { panic!() };
        timestamp
    };
    assert_eq!(stamp(&induction), 500_000);
    let Heard::Answer(answer) = listener.handle(address(), &packet(&induction), 1_600 * MS) else {
        panic!("no answer");
    };
    assert_eq!(stamp(&answer), 1_600_000);
    assert!(matches!(caller.handle(&packet(&answer), 1_700 * MS), Progress::Waiting));
    // the listener's clock shows 1.6 s and more: this one's own is what counts
    let conclusion = caller.poll(1_700 * MS).unwrap();
    assert_eq!(stamp(&conclusion), 700_000);
    let Heard::Request(request) = listener.handle(address(), &packet(&conclusion), 1_800 * MS) else {
        panic!("no request");
    };
    let settings = Settings::default();
    let how = Acceptance { settings: &settings, socket: ACCEPTED, secret: Secret::None, group: None };
    let (agreed, answer) = request.accept(&how, 1_850 * MS).unwrap();
    assert_eq!(agreed.peer_clock, PeerClock { at: 1_800 * MS, timestamp: 700_000 });
    assert_eq!((agreed.started, stamp(&answer)), (1_850 * MS, 0));
}

#[test]
fn every_key_length_and_cipher_is_agreed_on() {
    for length in [KeyLength::Aes128, KeyLength::Aes192, KeyLength::Aes256] {
        for cipher in [Cipher::Ctr, Cipher::Gcm] {
            let settings = Settings { key_length: Some(length), cipher: Some(cipher), ..Settings::default() };
            let mut port = Port::new(Settings::default(), Some("open sesame!"));
            let dial = Dial { settings, offer: Some(offer("open sesame!")), ..dial() };
            let agreed = connect(dial, &mut port).unwrap();
            assert_secured(&agreed, &port.agreed[0], cipher, length);
            assert_eq!(agreed.payload_most, if cipher == Cipher::Gcm { 1440 } else { 1456 });
        }
    }
}

#[test]
fn key_lengths_that_differ_are_settled() {
    use KeyLength::{Aes128, Aes192, Aes256};
    // the listener advertises its length; a caller's own stands only where the caller sends
    for (ours, sends, theirs, want) in [
        (None, false, None, Aes128),
        (None, true, Some(Aes256), Aes256),
        (Some(Aes192), false, None, Aes192),
        (Some(Aes128), false, Some(Aes256), Aes256),
        (Some(Aes128), true, Some(Aes256), Aes128),
    ] {
        let settings = Settings { key_length: ours, sends, ..Settings::default() };
        let mut port =
            Port::new(Settings { key_length: theirs, ..Settings::default() }, Some("open sesame!"));
        let dial = Dial { settings, offer: Some(offer("open sesame!")), ..dial() };
        let agreed = connect(dial, &mut port).unwrap();
        assert_secured(&agreed, &port.agreed[0], Cipher::Ctr, want);
    }
}

#[test]
fn passphrases_that_differ_are_refused_by_name() {
    for (ours, theirs, reject) in [
        (Some("open sesame!"), Some("open barley!"), Reject::BAD_SECRET),
        (Some("open sesame!"), None, Reject::UNSECURE),
        (None, Some("open sesame!"), Reject::UNSECURE),
    ] {
        let mut port = Port::new(Settings::default(), theirs);
        let refusal = connect(Dial { offer: ours.map(offer), ..dial() }, &mut port).unwrap_err();
        assert_eq!((refusal.reject, refusal.by_peer), (reject, true));
        assert_eq!(port.refused.map(|refusal| (refusal.reject, refusal.by_peer)), Some((reject, false)));
        assert!(port.agreed.is_empty());
    }
}

#[test]
fn ciphers_that_differ_are_refused_enforced_or_not() {
    for enforced in [true, false] {
        let theirs = Settings { cipher: Some(Cipher::Ctr), enforced, ..Settings::default() };
        let mut port = Port::new(theirs, Some("open sesame!"));
        let settings = Settings { cipher: Some(Cipher::Gcm), enforced, ..Settings::default() };
        let dial = Dial { settings, offer: Some(offer("open sesame!")), ..dial() };
        assert_eq!(connect(dial, &mut port).unwrap_err().reject, Reject::CRYPTO);
    }
}

#[test]
fn without_enforcement_each_side_knows_what_it_cannot_read() {
    use KeyState::{BadSecret, NoSecret, Unsecured};
    let loose = || Settings { enforced: false, ..Settings::default() };
    for (ours, theirs, (send, receive), may_send) in [
        (Some("open sesame!"), Some("open barley!"), (BadSecret, BadSecret), false),
        (Some("open sesame!"), None, (NoSecret, Unsecured), false),
        (None, Some("open sesame!"), (Unsecured, NoSecret), true),
    ] {
        let mut port = Port::new(loose(), theirs);
        let agreed =
            connect(Dial { settings: loose(), offer: ours.map(offer), ..dial() }, &mut port).unwrap();
        let (ours, theirs) = (&agreed.security, &port.agreed[0].security);
        assert_eq!((ours.send, ours.receive), (send, receive));
        assert_eq!((theirs.send, theirs.receive), (receive, send), "the other way round");
        assert_eq!(ours.may_send(), may_send);
        assert!(ours.sender.is_none() && theirs.receiver.is_none());
    }
}

#[test]
fn an_enforcing_caller_refuses_a_lax_listener() {
    let mut port = Port::new(Settings { enforced: false, ..Settings::default() }, Some("open barley!"));
    let refusal = connect(Dial { offer: Some(offer("open sesame!")), ..dial() }, &mut port).unwrap_err();
    assert_eq!((refusal.reject, refusal.by_peer), (Reject::BAD_SECRET, false));
    assert!(refusal.to_string().contains("wrong passphrase"));
}

#[test]
fn any_lost_datagram_is_made_up_for() {
    for secret in [None, Some("open sesame!")] {
        for mask in 0..1 << 6_u32 {
            let mut port = Port::new(Settings::default(), secret);
            let mut caller = Caller::new(Dial { offer: secret.map(offer), ..dial() }, 0);
            let agreed = talk(&mut caller, &mut port, |n| mask >> n & 1 == 1).unwrap();
            assert_eq!(port.agreed.len(), 1, "one connection for repeated requests");
            assert_eq!(agreed.peer, ACCEPTED);
            if secret.is_some() {
                assert_secured(&agreed, &port.agreed[0], Cipher::Ctr, KeyLength::Aes128);
            }
        }
    }
}

#[test]
fn a_silent_listener_is_given_up_after_the_timeout() {
    let mut port = Port::new(Settings::default(), None);
    let mut caller = Caller::new(dial(), 0);
    assert_eq!(talk(&mut caller, &mut port, |_| true).unwrap_err().reject, Reject::TIMEOUT);
    let mut caller = Caller::new(dial(), 7 * MS);
    let mut sent = 0;
    let mut now = 7 * MS;
    while caller.overdue(now).is_none() {
        sent += u32::from(caller.poll(now).is_some());
        now = caller.next_due();
    }
    assert_eq!((now, sent), (7 * MS + TIMEOUT, 12));
}

#[test]
fn a_repeated_or_late_answer_changes_nothing() {
    let mut port = Port::new(Settings::default(), None);
    let mut caller = Caller::new(dial(), 0);
    let induction = caller.poll(0).unwrap();
    let answer = port.handle(&induction, MS).unwrap();
    assert!(matches!(caller.handle(&packet(&answer), MS), Progress::Waiting));
    let conclusion = caller.poll(MS).unwrap();
    assert!(matches!(caller.handle(&packet(&answer), 2 * MS), Progress::Waiting));
    assert_eq!(caller.poll(2 * MS), None, "no conclusion for each repeat");
    let accepted = port.handle(&conclusion, 3 * MS).unwrap();
    assert_eq!(port.handle(&conclusion, 4 * MS).unwrap(), accepted, "the same answer");
    assert!(matches!(caller.handle(&packet(&accepted), 5 * MS), Progress::Connected(_)));
    assert!(matches!(caller.handle(&packet(&accepted), 6 * MS), Progress::Waiting));
    assert_eq!((caller.poll(1000 * MS), caller.overdue(10 * TIMEOUT)), (None, None));
}

/// A conclusion with a good cookie, as a caller of ours writes it.
fn conclusion(listener: &Listener, dial: Dial, now: Nanos) -> Vec<u8> {
    let mut caller = Caller::new(dial, now);
    let induction = caller.poll(now).unwrap();
    let Heard::Answer(answer) = listener.handle(address(), &packet(&induction), now) else { panic!() };
    assert!(matches!(caller.handle(&packet(&answer), now), Progress::Waiting));
    caller.poll(now).unwrap()
}

#[test]
fn only_a_cookie_of_this_address_and_time_is_heeded() {
    let listener = listener(Settings::default());
    let now = 10 * 60_000 * MS;
    let conclusion = conclusion(&listener, dial(), now);
    let heard = |from: SocketAddr, now| listener.handle(from, &packet(&conclusion), now);
    assert!(matches!(heard(address(), now), Heard::Request(_)));
    assert!(matches!(heard(address(), now + 60_000 * MS), Heard::Request(_)), "the minute after");
    assert!(matches!(heard(address(), now + 120_000 * MS), Heard::Ignored), "expired");
    assert!(matches!(heard("192.0.2.8:40000".parse().unwrap(), now), Heard::Ignored), "foreign");
    assert!(matches!(heard("192.0.2.7:40001".parse().unwrap(), now), Heard::Ignored), "foreign port");
}

/// `conclusion` with a field changed.
fn with_body(conclusion: &[u8], change: impl FnOnce(&mut Body)) -> Vec<u8> {
    let (mut body, rest) = body(conclusion);
    change(&mut body);
    let mut bytes = Vec::new();
    body.write(&mut bytes);
    [&conclusion[..HEADER], &bytes, rest].concat()
}

/// `conclusion` with more blocks.
fn with_block(conclusion: &[u8], kind: u8, block: &[u8]) -> Vec<u8> {
    [conclusion, &[0, kind, 0, (block.len() / 4) as u8], block].concat()
}

#[test]
fn a_handshake_that_breaks_the_protocol_is_refused_with_its_code() {
    let listener = listener(Settings { minimum_version: Version(0x0001_0401), ..Settings::default() });
    let good = conclusion(&listener, dial(), 0);
    let hello = HEADER + BODY + 4;
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    for (datagram, reject, field) in [
        (with_body(&good, |body| body.version = 4), Reject::VERSION, "handshake version"),
        (with_body(&good, |body| body.version = 0), Reject::VERSION, "handshake version"),
        (with_body(&good, |body| body.version = 6), Reject::VERSION, "handshake version"),
        (with_body(&good, |body| body.mss = 75), Reject::ROGUE, "MSS"),
        (with_body(&good, |body| body.window = 1), Reject::ROGUE, "flow window"),
        (with_body(&good, |body| body.first = 0x7FFF_FFFF), Reject::ROGUE, "initial sequence number"),
        (with_body(&good, |body| body.first = 0x8000_0000), Reject::ROGUE, "initial sequence number"),
        (good[..HEADER + BODY].to_vec(), Reject::ROGUE, "missing HSREQ"),
        (good[..good.len() - 4].to_vec(), Reject::ROGUE, "block length"),
        (with(hello, &[0, 1, 2, 0]), Reject::ROGUE, "a version too old for its handshake"),
        (with(hello, &[0, 1, 4, 0]), Reject::VERSION, "version"),
        (with(hello + 4, &[0, 0, 0, 0x7F]), Reject::MESSAGE_API, "stream flag"),
        // the 72 bytes that end srt-tokio's listener, here with a cookie that is heeded
        (with_block(&good, 6, b"elif"), Reject::CONGESTION, "congestion control"),
        (with_block(&good, 7, b",cef"), Reject::FILTER, "packet filter"),
        (with_block(&good, 7, &[]), Reject::ROGUE, "packet filter length"),
        (with_block(&good, 8, &[0; 4]), Reject::ROGUE, "group length"),
        (with_block(&good, 5, &[]), Reject::ROGUE, "stream id length"),
        (with_block(&good, 1, &[0; 12]), Reject::ROGUE, "HSREQ twice"),
    ] {
        let Heard::Refused(refusal, answer) = listener.handle(address(), &packet(&datagram), 0) else {
            panic!("{field} was not refused");
        };
        assert_eq!((refusal.reject, refusal.field, refusal.by_peer), (reject, Some(field), false));
        let (answered, rest) = body(&answer);
        assert_eq!((answered.kind, rest.len()), (Kind::Rejection(reject), 0));
        assert_eq!(Packet::destination_of(&answer), Some(CALLER));
        assert!(answer.len() <= datagram.len());
    }
    for block in [(6, &b"evil"[..]), (9, b"what"), (200, b"")] {
        let datagram = with_block(&good, block.0, block.1);
        assert!(matches!(listener.handle(address(), &packet(&datagram), 0), Heard::Request(_)), "{block:?}");
    }
}

#[test]
fn what_asks_for_nothing_gets_no_answer() {
    let listener = listener(Settings::default());
    let good = conclusion(&listener, dial(), 0);
    let mut to_somebody = good.clone();
    to_somebody[15] = 1;
    for datagram in [
        with_body(&good, |body| body.cookie ^= 1),
        with_body(&good, |body| body.cookie = 0),
        with_body(&good, |body| body.kind = Kind::Agreement),
        with_body(&good, |body| body.kind = Kind::WaveAHand),
        with_body(&good, |body| body.kind = Kind::Rejection(Reject::CLOSE)),
        with_body(&good, |body| body.kind = Kind::Other(77)),
        with_body(&good, |body| body.socket = SocketId(0)),
        good[..HEADER + BODY - 1].to_vec(),
        good[..HEADER].to_vec(),
        to_somebody,
    ] {
        assert!(matches!(listener.handle(address(), &packet(&datagram), 0), Heard::Ignored));
    }
    let keep_alive = [&[0x80, 1][..], &[0; 18]].concat();
    assert!(matches!(listener.handle(address(), &packet(&keep_alive), 0), Heard::Ignored));
}

#[test]
fn an_answer_to_an_unproven_address_is_no_larger_than_the_question() {
    let listener = listener(Settings::default());
    let induction = Caller::new(dial(), 0).poll(0).unwrap();
    assert_eq!(induction.len(), HEADER + BODY);
    for extra in [0, 1, 400] {
        let question = [&induction[..], &vec![0; extra]].concat();
        let Heard::Answer(answer) = listener.handle(address(), &packet(&question), 0) else { panic!() };
        assert_eq!(answer.len(), HEADER + BODY);
    }
}

#[test]
fn a_caller_minds_only_its_listeners_answers() {
    let mut port = Port::new(Settings::default(), None);
    let mut caller = Caller::new(dial(), 0);
    let induction = caller.poll(0).unwrap();
    let answer = port.handle(&induction, 0).unwrap();
    let mut foreign = answer.clone();
    foreign[15] ^= 1;
    for datagram in [
        foreign,
        with_body(&answer, |body| body.kind = Kind::Conclusion),
        with_body(&answer, |body| body.kind = Kind::WaveAHand),
        answer[..answer.len() - 1].to_vec(),
        [&[0x80, 5][..], &[0; 10], &ACCEPTED.0.to_be_bytes(), &[0; 4]].concat(),
    ] {
        assert!(matches!(caller.handle(&packet(&datagram), 0), Progress::Waiting));
    }
    let shutdown = [&[0x80, 5][..], &[0; 10], &CALLER.0.to_be_bytes(), &[0; 4]].concat();
    for (change, reject) in [
        (shutdown, Reject::CLOSE),
        (with_body(&answer, |body| body.version = 4), Reject::VERSION),
        (with_body(&answer, |body| body.extension = 0), Reject::ROGUE),
        (with_body(&answer, |body| body.kind = Kind::Rejection(Reject::FORBIDDEN)), Reject::FORBIDDEN),
    ] {
        let mut caller = Caller::new(dial(), 0);
        let Progress::Refused(refusal) = caller.handle(&packet(&change), 0) else { panic!() };
        assert_eq!(refusal.reject, reject);
        assert_eq!(caller.poll(1000 * MS), None);
    }
}

#[test]
fn a_broken_conclusion_of_the_listener_is_refused_by_name() {
    let mut port = Port::new(Settings::default(), None);
    let fresh = || {
        let mut caller = Caller::new(dial(), 0);
        let answer = listener(Settings::default()).handle(address(), &packet(&caller.poll(0).unwrap()), 0);
        let Heard::Answer(answer) = answer else { panic!() };
        caller.handle(&packet(&answer), 0);
        caller
    };
    let conclusion = fresh().poll(0).unwrap();
    let good = port.handle(&conclusion, 0).unwrap();
    assert!(matches!(fresh().handle(&packet(&good), 0), Progress::Connected(_)));
    for (datagram, reject) in [
        (with_body(&good, |body| body.version = 4), Reject::VERSION),
        (with_body(&good, |body| body.socket = SocketId(0)), Reject::ROGUE),
        (good[..HEADER + BODY].to_vec(), Reject::ROGUE),
        (with_block(&good, 7, b",cef"), Reject::FILTER),
        (with_block(&good, 4, &[0; 4]), Reject::UNSECURE),
    ] {
        let Progress::Refused(refusal) = fresh().handle(&packet(&datagram), 0) else { panic!() };
        assert_eq!((refusal.reject, refusal.by_peer), (reject, false));
    }
}

#[test]
fn a_group_is_told_and_its_absence_refused() {
    let group = Group { id: 0x4000_0007, kind: GroupKind::Backup, flags: 0, weight: 50 };
    let mirror = Group { id: 0x4000_0099, ..group };
    let mut port = Port::new(Settings::default(), None);
    let refusal = connect(Dial { group: Some(group), ..dial() }, &mut port).unwrap_err();
    assert_eq!((refusal.reject, refusal.by_peer), (Reject::GROUP, false));
    assert_eq!(port.agreed[0].group, Some(group));
    let mut port = Port { group: Some(mirror), ..Port::new(Settings::default(), None) };
    let agreed = connect(Dial { group: Some(group), ..dial() }, &mut port).unwrap();
    assert_eq!((agreed.group, port.agreed[0].group), (Some(mirror), Some(group)));
}

#[test]
fn a_password_in_a_stream_id_does_not_show() {
    let listener = listener(Settings::default());
    let dial = Dial { stream_id: StreamId::new(b"read:live:joe:hunter2").ok(), ..dial() };
    let conclusion = conclusion(&listener, dial.clone(), 0);
    let Heard::Request(request) = listener.handle(address(), &packet(&conclusion), 0) else { panic!() };
    let shown = format!("{dial:?} {request:?}");
    // as text, and as a list of numbers in either order
    for secret in ["hunter2", "104, 117, 110", "110, 117, 104"] {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn a_request_says_what_its_sender_wants() {
    let listener = listener(Settings::default());
    let settings = Settings { key_length: Some(KeyLength::Aes192), ..Settings::default() };
    let stream_id = StreamId::new(b"read:live").ok();
    let dial = Dial { settings, stream_id, offer: Some(offer("open sesame!")), ..dial() };
    let conclusion = conclusion(&listener, dial, 0);
    let Heard::Request(request) = listener.handle(address(), &packet(&conclusion), 0) else { panic!() };
    assert_eq!((request.from, request.peer, request.version), (address(), CALLER, Version::OURS));
    assert_eq!(request.stream_id.as_ref().unwrap().as_bytes(), b"read:live");
    let ask = request.encryption.unwrap();
    assert_eq!((ask.salt, ask.strength), (Some([0x3C; 16]), Some((Cipher::Ctr, KeyLength::Aes192))));
    let (answered, _) = body(&request.reject(Reject::NOT_FOUND));
    assert_eq!(answered.kind, Kind::Rejection(Reject::NOT_FOUND));
    // a key message that cannot be read has no salt, and is refused as libsrt does
    let (good, rest) = body(&conclusion);
    let mut all = Extensions::parse(rest).unwrap();
    all.key_request = Some(&[0; 64]);
    let mut bytes = conclusion[..HEADER].to_vec();
    good.write(&mut bytes);
    bytes.extend(all.write().0);
    let Heard::Request(request) = listener.handle(address(), &packet(&bytes), 0) else { panic!() };
    assert_eq!(request.encryption, Some(KeyAsk { salt: None, strength: None }));
    let settings = Settings::default();
    let secret = Secret::Passphrase(None);
    let how = Acceptance { settings: &settings, socket: ACCEPTED, secret, group: None };
    assert_eq!(request.accept(&how, 0).unwrap_err().0.reject, Reject::UNSECURE);
}
