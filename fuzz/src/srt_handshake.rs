//! SRT: handshakes, key messages and stream ids.

use std::net::SocketAddr;
use std::sync::OnceLock;

use millrace::wire::srt::crypto::{Kek, KeyMaterial, KeyReply, Offer, Passphrase, derive};
use millrace::wire::srt::handshake::{
    Acceptance, Agreed, Caller, CookieSecret, Dial, Heard, Listener, Local, Progress, Rendezvous, Secret,
    Settings,
};
use millrace::wire::srt::{HEADER, KeyFlag, PAYLOAD_MOST, Packet, Reject, Seq, SocketId, StreamId};

/// The body of a handshake packet for a caller, a listener and a rendezvous in each of their steps. The first byte
/// chooses passphrases and enforcement; where a cookie is wanted, it is the right one.
pub fn handshake(data: &[u8]) {
    let [choice, body @ ..] = data else { return };
    let secured = choice & 1 != 0;
    let settings = Settings { enforced: choice & 2 != 0, ..Settings::default() };
    let dial = || dial(settings.clone(), secured);

    // a caller before and after the listener's first answer
    let listener = Listener::new(settings.clone(), CookieSecret::new([5; 32]), 0);
    let mut caller = Caller::new(dial(), 0);
    let answer = caller.poll(0).and_then(|induction| answered(&listener, &induction));
    caller_takes(&mut Caller::new(dial(), 0), &addressed(body, CALLER));
    if let Some(answer) = &answer {
        caller_takes(&mut caller, answer);
        caller_takes(&mut caller, &addressed(body, CALLER));
    }

    // a listener whose cookie stands in the body
    let mut conclusion = addressed(body, SocketId(0));
    if let (Some(place), Some(answer)) = (conclusion.get_mut(COOKIE..COOKIE + 4), &answer) {
        place.copy_from_slice(&answer[COOKIE..COOKIE + 4]);
    }
    listener_takes(&listener, &conclusion, &settings, secured);

    // a rendezvous that wins the draw of cookies, and one that loses it
    for cookie in [0x7FFF_FFFE, 0x8000_0001] {
        let mut meeting = Rendezvous::new(dial(), cookie, 0);
        for _ in 0..2 {
            let Ok(packet) = Packet::parse(&conclusion) else { break };
            match meeting.handle(&packet, 1) {
                Progress::Derive(salt) => drop(meeting.adopt(&kek_of(salt), 1)),
                Progress::Connected(agreed) => sound(&agreed),
                Progress::Waiting | Progress::Refused(_) => {}
            }
            drop(meeting.poll(1));
        }
    }
}

/// Datagrams of any bytes from a few addresses at any times: nothing unproven is answered with more bytes than it
/// asked with, and what was never given a cookie here is no request.
pub fn listener(data: &[u8]) {
    let settings = Settings::default();
    let listener = Listener::new(settings.clone(), CookieSecret::new([5; 32]), 0);
    let (mut now, mut rest) = (0, data);
    // Each datagram: seconds since the last one, address, length in words, bytes.
    while let [step, from, words, behind @ ..] = rest {
        let (datagram, behind) = behind.split_at(behind.len().min(4 * usize::from(*words)));
        rest = behind;
        now += u64::from(*step) * 1_000_000_000;
        let from = SocketAddr::from(([192, 0, 2, *from], 9000));
        let Ok(packet) = Packet::parse(datagram) else { continue };
        match listener.handle(from, &packet, now) {
            Heard::Answer(answer) => assert!(answer.len() <= datagram.len()),
            Heard::Refused(_, answer) => assert!(answer.len() <= datagram.len()),
            Heard::Request(request) => {
                drop(request.accept(&acceptance(&settings, Secret::None), now));
            }
            Heard::Ignored => {}
        }
    }
}

/// The body of a KMREQ or KMRSP for both sides of a connection: what is not taken changes no key.
pub fn key_material(data: &[u8]) {
    let _ = KeyMaterial::parse(data);
    let Agreed { security, .. } = *secured();
    let mut sender = security.sender.expect("keys to send with");
    let mut receiver = security.receiver.expect("keys to receive with");
    let header = [0; HEADER];
    let mut sealed = [0; 64];
    let length = sender.key(KeyFlag::Even).and_then(|key| key.seal(&header, &[0x47; 47], &mut sealed));
    let length = length.expect("a key to begin with");
    let taken = match receiver.handle(data) {
        KeyReply::Answer(answer) => answer == data,
        KeyReply::Derive(salt) => {
            assert_eq!(KeyMaterial::parse(data).map(|material| material.salt), Ok(salt));
            receiver.adopt(&kek_of(salt), data) == KeyReply::Answer(data.to_vec())
        }
    };
    if !taken {
        assert_eq!(receiver.open(&header, KeyFlag::Even, &mut sealed[..length]), Some(47));
        assert_eq!(sealed[..47], [0x47; 47]);
    }
    sender.announce([1; 32], 0);
    sender.handle(data);
}

/// Any bytes as a stream id.
pub fn stream_id(data: &[u8]) {
    let Ok(id) = StreamId::new(data) else { return };
    assert_eq!(id.as_bytes(), data);
    if let Ok(ask) = id.ask() {
        let texts = [ask.resource, ask.user, ask.password, ask.host, ask.kind];
        assert!(texts.into_iter().flatten().all(|text| !text.contains(char::is_control)));
    }
}

fn dial(settings: Settings, secured: bool) -> Dial {
    Dial {
        settings,
        local: Local { socket: CALLER, first: Seq::new(77), started: 0 },
        to: [192, 0, 2, 1].into(),
        stream_id: StreamId::new(b"read:live").ok(),
        group: None,
        offer: secured.then(|| offer().clone()),
        timeout: 3_000_000_000,
    }
}

const fn acceptance<'a>(settings: &'a Settings, secret: Secret<'a>) -> Acceptance<'a> {
    Acceptance { settings, socket: SocketId(0x0A0B_0C0D), secret, group: None }
}

/// A handshake packet with this body.
fn addressed(body: &[u8], to: SocketId) -> Vec<u8> {
    [&[0x80, 0][..], &[0; 10], &to.0.to_be_bytes(), &body[..body.len().min(PAYLOAD_MOST)]].concat()
}

fn answered(listener: &Listener, datagram: &[u8]) -> Option<Vec<u8>> {
    match listener.handle(FROM.into(), &Packet::parse(datagram).ok()?, 0) {
        Heard::Answer(answer) => Some(answer),
        _ => None,
    }
}

fn caller_takes(caller: &mut Caller, datagram: &[u8]) {
    let Ok(packet) = Packet::parse(datagram) else { return };
    if let Progress::Connected(agreed) = caller.handle(&packet, 1) {
        sound(&agreed);
    }
    drop(caller.poll(1));
}

fn listener_takes(listener: &Listener, datagram: &[u8], settings: &Settings, secured: bool) {
    let Ok(packet) = Packet::parse(datagram) else { return };
    let Heard::Request(request) = listener.handle(FROM.into(), &packet, 1) else { return };
    if let Some(id) = &request.stream_id {
        stream_id(id.as_bytes());
    }
    assert!(request.reject(Reject::FORBIDDEN).len() <= datagram.len());
    let kek = request.encryption.and_then(|ask| ask.salt).map(kek_of);
    let secret = if secured { Secret::Passphrase(kek.as_ref()) } else { Secret::None };
    match request.accept(&acceptance(settings, secret), 1) {
        Ok((agreed, answer)) => {
            sound(&agreed);
            assert!(Packet::parse(&answer).is_ok());
        }
        Err((_, answer)) => assert!(answer.len() <= datagram.len()),
    }
}

/// What no peer may bring about.
fn sound(agreed: &Agreed) {
    assert!(agreed.peer != SocketId(0) && agreed.mss >= 76 && agreed.mss <= 1500);
    assert!(agreed.payload_most > 0 && agreed.payload_most <= PAYLOAD_MOST && agreed.peer_window >= 2);
}

fn offer() -> &'static Offer {
    static OFFER: OnceLock<Offer> = OnceLock::new();
    OFFER.get_or_init(|| Offer::new(&passphrase(), [0x3C; 48]))
}

/// Deriving takes milliseconds: keys for salts that were not seen before are of another salt, as a hurried owner's
/// might be.
fn kek_of(salt: [u8; 16]) -> Kek {
    static KEK: OnceLock<Kek> = OnceLock::new();
    let known = KEK.get_or_init(|| derive(&passphrase(), [0x3C; 16]));
    if salt[1..] == [0; 15] { derive(&passphrase(), salt) } else { known.clone() }
}

fn passphrase() -> Passphrase {
    Passphrase::new("open sesame!").expect("of the right length")
}

/// A conclusion with keys and its answer, for others to damage.
pub fn samples() -> [Vec<u8>; 2] {
    let (_, conclusion, answer) = exchange();
    [conclusion, answer]
}

/// A caller with its cookie, its conclusion, and the answer that connects it.
fn exchange() -> (Caller, Vec<u8>, Vec<u8>) {
    let settings = Settings::default();
    let listener = Listener::new(settings.clone(), CookieSecret::new([5; 32]), 0);
    let mut caller = Caller::new(dial(settings.clone(), true), 0);
    let induction = caller.poll(0).expect("an induction");
    let answer = answered(&listener, &induction).expect("a cookie");
    let induced = Packet::parse(&answer).expect("a packet");
    assert!(matches!(caller.handle(&induced, 0), Progress::Waiting));
    let conclusion = caller.poll(0).expect("a conclusion");
    let packet = Packet::parse(&conclusion).expect("a packet");
    let Heard::Request(request) = listener.handle(FROM.into(), &packet, 0) else { panic!("no request") };
    let kek = kek_of([0x3C; 16]);
    let accepted = request.accept(&acceptance(&settings, Secret::Passphrase(Some(&kek))), 0);
    let (_, answer) = accepted.expect("accepted");
    (caller, conclusion, answer)
}

/// The caller's end of a connection with keys.
fn secured() -> Box<Agreed> {
    let (mut caller, _, answer) = exchange();
    match caller.handle(&Packet::parse(&answer).expect("a packet"), 0) {
        Progress::Connected(agreed) => agreed,
        _ => panic!("not connected"),
    }
}

const CALLER: SocketId = SocketId(0x0102_0304);
const FROM: ([u8; 4], u16) = ([192, 0, 2, 7], 40_000);
/// Where the cookie stands in a datagram.
const COOKIE: usize = HEADER + 28;
