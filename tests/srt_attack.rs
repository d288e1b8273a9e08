//! A listening SRT port and those who mean it ill: floods, crafted handshakes, packets for sessions of others, peers
//! that lie. Who reads and publishes there loses no byte. And who may not come in is told why, as the owner is.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    End, Engine, Flow, Giver, Receiver, Sender, Taker, Tool, between, free_port, holds, knock, loopable,
    peers, sha256, wait_for,
};

/// A socket that speaks as much SRT as a test wants, right or wrong.
struct Visitor {
    socket: UdpSocket,
    /// The socket id that it gives itself.
    id: u32,
}

/// A visitor that was let in, and reads.
struct Reader {
    visitor: Visitor,
    /// The engine's socket id.
    peer: u32,
    /// The next packet that it expects.
    next: u32,
    acks: u32,
    packets: u64,
    /// Packets that were not the next one.
    astray: u64,
    /// It was told that the connection is over.
    ended: bool,
}

/// xorshift64.
struct Random(u64);

impl Visitor {
    fn new(at: SocketAddr, id: u32) -> Self {
        Self::from(Ipv4Addr::LOCALHOST, at, id)
    }

    /// One whose address is not that of those who mean well.
    fn hostile(at: SocketAddr, id: u32) -> Self {
        Self::from(Ipv4Addr::new(127, 0, 0, 66), at, id)
    }

    fn from(host: Ipv4Addr, at: SocketAddr, id: u32) -> Self {
        let socket = UdpSocket::bind((host, 0)).expect("a free port");
        socket.connect(at).expect("an address");
        socket.set_read_timeout(Some(ANSWER)).expect("SO_RCVTIMEO");
        Self { socket, id }
    }

    fn send(&self, datagram: &[u8]) {
        // A full queue of the kernel is a loss like any other.
        drop(self.socket.send(datagram));
    }

    fn hear(&self) -> Option<Vec<u8>> {
        let mut buffer = [0; 2048];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(buffer[..length].to_vec())
    }

    /// The next handshake packet, before the time of [`ANSWER`] is over.
    fn answer(&self) -> Option<Vec<u8>> {
        let until = Instant::now() + ANSWER;
        while Instant::now() < until {
            if let Some(answer) = self.hear().filter(|a| a.len() >= 64 && a[..2] == [0x80, 0]) {
                return Some(answer);
            }
        }
        None
    }

    /// The cookie that the port gives to this address.
    fn cookie(&self) -> u32 {
        let question = handshake(4, 2, INDUCTION, self.id, 0, &[]);
        wait_for("a cookie", || {
            self.send(&question);
            let answer = self.answer()?;
            assert!(answer.len() <= question.len(), "{} bytes", answer.len());
            Some(word(&answer, COOKIE))
        })
    }

    /// What the port says to a conclusion with these blocks: the engine's socket id, or a rejection.
    fn conclude(&self, field: u32, blocks: &[u8]) -> Result<u32, u32> {
        let question = handshake(5, field, CONCLUSION, self.id, self.cookie(), blocks);
        let answer = wait_for("an answer to a conclusion", || {
            self.send(&question);
            // An answer to an earlier question may come late.
            self.answer().filter(|answer| word(answer, KIND) != INDUCTION)
        });
        match word(&answer, KIND) {
            CONCLUSION => Ok(word(&answer, SOCKET)),
            kind => {
                assert!(answer.len() <= question.len(), "{} bytes", answer.len());
                Err(kind)
            }
        }
    }

    fn ask(&self, stream_id: &str) -> Result<u32, u32> {
        self.conclude(HELLO_AND_ID, &[hello(), stream_id_block(stream_id.as_bytes())].concat())
    }
}

impl Reader {
    fn dial(at: SocketAddr, id: u32, stream_id: &str) -> Self {
        let visitor = Visitor::new(at, id);
        let peer = visitor.ask(stream_id).unwrap_or_else(|kind| panic!("{stream_id}: rejected with {kind}"));
        visitor.socket.set_nonblocking(true).expect("O_NONBLOCK");
        Self { visitor, peer, next: FIRST, acks: 0, packets: 0, astray: 0, ended: false }
    }

    /// Takes what has come, and acknowledges it.
    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        let mut any = false;
        while let Ok(length) = self.visitor.socket.recv(&mut buffer) {
            if length < 16 || buffer[0] & 0x80 != 0 {
                self.ended |= length >= 16 && word(&buffer, 0) == 1 << 31 | SHUTDOWN;
                continue;
            }
            any = true;
            // Sent again because a busy machine acknowledged late.
            if word(&buffer, 1) & REPEAT != 0 {
                continue;
            }
            let sequence = word(&buffer, 0);
            self.astray += u64::from(sequence != self.next);
            self.next = sequence + 1;
            self.packets += 1;
        }
        if any {
            self.acks += 1;
            self.send(ACK, self.acks, &[self.next, 1000, 500, 8192, 0, 0, 0]);
        }
    }

    fn send(&self, kind: u32, information: u32, body: &[u32]) {
        self.visitor.send(&control(kind, information, self.peer, &bytes(body)));
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// The word at this place of a datagram, counted in words.
fn word(datagram: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(datagram[4 * at..][..4].try_into().expect("four bytes"))
}

/// A control packet of this type and subtype.
fn control(kind: u32, information: u32, to: u32, body: &[u8]) -> Vec<u8> {
    [bytes(&[1 << 31 | kind, information, 0, to]), body.to_vec()].concat()
}

fn data(sequence: u32, to: u32, payload: &[u8]) -> Vec<u8> {
    [bytes(&[sequence, 0b11 << 30 | 1, 0, to]), payload.to_vec()].concat()
}

fn handshake(version: u32, field: u32, kind: u32, id: u32, cookie: u32, blocks: &[u8]) -> Vec<u8> {
    let address = u32::from_le_bytes(Ipv4Addr::LOCALHOST.octets());
    let body = bytes(&[version, field, FIRST, 1500, 8192, kind, id, cookie, address, 0, 0, 0]);
    control(0, 0, 0, &[body, blocks.to_vec()].concat())
}

/// An extension block that says so many words are in it, whatever is.
fn block(kind: u16, words: usize, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &(words as u16).to_be_bytes(), body].concat()
}

/// HSREQ of libsrt 1.5.1 with all flags of live mode, and 120 ms.
fn hello() -> Vec<u8> {
    block(1, 3, &bytes(&[0x0001_0501, 0xbf, 120 << 16 | 120]))
}

/// A stream id as the wire has it: words in reverse.
fn stream_id_block(id: &[u8]) -> Vec<u8> {
    let mut padded = id.to_vec();
    padded.resize(id.len().next_multiple_of(4), 0);
    padded.chunks_exact_mut(4).for_each(<[u8]>::reverse);
    block(5, padded.len() / 4, &padded)
}

/// A KMREQ for one AES-128 key, well made; what it wraps is noise.
fn key_block(random: &mut Random) -> Vec<u8> {
    let head = bytes(&[0x1220_2901, 0, 0x0200_0200, 0x0000_0404]);
    block(3, 14, &[head, random.bytes(16 + 24)].concat())
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

fn listening(engine: &Engine, path: &str) {
    engine
        .wait(path, "a listener", |object| object["state"] != "Connecting" && object["desired"] == "running");
}

fn sessions(engine: &Engine, path: &str) -> Vec<Value> {
    engine.get(&format!("{path}/sessions")).as_array().expect("a list").clone()
}

/// Kilobytes that a process holds.
fn resident(engine: &Engine) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Waits until the log of an object has a line with `text`.
#[track_caller]
fn wait_logged(engine: &Engine, path: &str, text: &str) {
    let logs = format!("{path}/logs?limit=1000");
    engine.wait(&logs, text, |lines| lines.to_string().contains(text));
}

/// What is asked of a port without the right to be asked: first words, each answered with no more than was said.
fn flood_inductions(at: SocketAddr, stop: &AtomicBool) -> u64 {
    let visitors: Vec<Visitor> = (0..200).map(|i| Visitor::hostile(at, 1 + i)).collect();
    visitors.iter().for_each(|v| v.socket.set_nonblocking(true).expect("O_NONBLOCK"));
    let mut random = Random(1);
    let (mut sent, mut came) = (0, 0);
    while !stop.load(Relaxed) {
        for visitor in &visitors {
            // Up to a whole datagram, or less than a handshake.
            let more = (random.next() % 8).saturating_sub(6) as usize * 700;
            let question = [handshake(4, 2, INDUCTION, visitor.id, 0, &[]), random.bytes(more)].concat();
            let cut = if random.next().is_multiple_of(5) { 63 } else { question.len() };
            visitor.send(&question[..cut]);
            sent += u64::from(cut >= 64);
            while let Some(answer) = visitor.hear() {
                came += 1;
                assert_eq!(answer.len(), 64);
            }
        }
        assert!(came <= sent, "{came} answers to {sent} questions");
        pause();
    }
    sent
}

/// Conclusions with cookies that were given to nobody or to others: not a word in answer.
fn conclude_with_wrong_cookies(at: SocketAddr, stop: &AtomicBool) -> u64 {
    let (owner, thief) = (Visitor::hostile(at, 7), Visitor::hostile(at, 7));
    let stolen = owner.cookie();
    thief.socket.set_nonblocking(true).expect("O_NONBLOCK");
    let mut random = Random(2);
    let mut sent = 0;
    let blocks = [hello(), stream_id_block(b"read:open")].concat();
    while !stop.load(Relaxed) {
        for _ in 0..50 {
            let cookie = [stolen, 0, random.next() as u32][sent as usize % 3];
            thief.send(&handshake(5, HELLO_AND_ID, CONCLUSION, thief.id, cookie, &blocks));
            sent += 1;
        }
        assert_eq!(thief.hear(), None, "an answer to a wrong cookie");
        pause();
    }
    sent
}

/// Conclusions of somebody who is there, and breaks every rule: each is refused, in no more words than it had.
fn conclude_wrongly(at: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut random = Random(3);
    let asks = |id: &[u8]| [hello(), stream_id_block(id)].concat();
    let open = asks(b"read:open");
    let locked = asks(b"read:locked");
    let with = |first: &[u8], second: &[u8]| [first, second].concat();
    let old = block(1, 3, &bytes(&[0x0001_0200, 0xbf, 0]));
    let stream_mode = block(1, 3, &bytes(&[0x0001_0501, 0xff, 0]));
    let mut sent = 0;
    while !stop.load(Relaxed) {
        let crafted: [(u32, u32, Vec<u8>, u32); _] = [
            (4, HELLO_AND_ID, open.clone(), 1008),
            (6, HELLO_AND_ID, open.clone(), 1008),
            (5, 0, Vec::new(), 1004),
            // congestion control, packet filter, group
            (5, HELLO_AND_ID, with(&open, &block(6, 1, b"elif")), 1013),
            (5, HELLO_AND_ID, with(&open, &block(6, 0, b"")), 1004),
            (5, HELLO_AND_ID, with(&open, &block(7, 1, b"\0cef")), 1014),
            (5, HELLO_AND_ID, with(&open, &block(8, 2, &random.bytes(8))), 1015),
            (5, HELLO_AND_ID, with(&open, &block(8, 1, &random.bytes(4))), 1004),
            // lengths beyond the end, too short, twice
            (5, HELLO_AND_ID, with(&open, &block(6, 0xffff, b"evil")), 1004),
            (5, HELLO_AND_ID, block(1, 2, &[0; 8]), 1004),
            (5, HELLO_AND_ID, with(&open, &hello()), 1004),
            (5, HELLO_AND_ID, with(&hello(), &block(5, 0, b"")), 1004),
            (5, HELLO_AND_ID, asks(&[b'x'; 1200]), 1004),
            (5, HELLO_AND_ID, asks(&[b'x'; 512]), 2404),
            (5, HELLO_AND_ID, asks(b"\x01\x02\x03\x04"), 2400),
            (5, HELLO_AND_ID, asks(b"#!::r"), 2400),
            (5, HELLO_AND_ID, asks(b"#!::r=open,m=bidirectional"), 2405),
            (5, HELLO_AND_ID, with(&old, &stream_id_block(b"read:open")), 1004),
            (5, HELLO_AND_ID, with(&stream_mode, &stream_id_block(b"read:open")), 1012),
            // key material where none is wanted, and where it is: none, cut, noise, another passphrase
            (5, HELLO_AND_ID | 2, with(&open, &key_block(&mut random)), 1011),
            (5, HELLO_AND_ID, locked.clone(), 1011),
            (5, HELLO_AND_ID | 2, with(&locked, &block(3, 0, b"")), 1011),
            (5, HELLO_AND_ID | 2, with(&locked, &block(3, 14, &random.bytes(56))), 1011),
            (5, HELLO_AND_ID | 2, with(&locked, &key_block(&mut random)), 1010),
        ];
        for (version, field, blocks, expected) in crafted {
            let visitor = Visitor::hostile(at, 8);
            let question = handshake(version, field, CONCLUSION, visitor.id, visitor.cookie(), &blocks);
            let answer = wait_for("a refusal", || {
                visitor.send(&question);
                visitor.answer().filter(|answer| word(answer, KIND) != INDUCTION)
            });
            assert_eq!(word(&answer, KIND), expected, "field {field:x}, {blocks:02x?}");
            assert_eq!(answer.len(), 64);
            sent += 1;
        }
    }
    sent
}

/// Requests that cost a millisecond each: as many as one who has a cookie can make.
fn flood_key_material(at: SocketAddr, stop: &AtomicBool) -> u64 {
    let visitor = Visitor::hostile(at, 9);
    let cookie = visitor.cookie();
    visitor.socket.set_nonblocking(true).expect("O_NONBLOCK");
    let mut random = Random(4);
    let mut sent = 0;
    while !stop.load(Relaxed) {
        for _ in 0..20 {
            let blocks = [hello(), stream_id_block(b"read:locked"), key_block(&mut random)].concat();
            let id = 1 + (random.next() as u32 >> 2);
            visitor.send(&handshake(5, HELLO_AND_ID | 2, CONCLUSION, id, cookie, &blocks));
            sent += 1;
        }
        while let Some(answer) = visitor.hear() {
            assert!(answer.len() == 64 && word(&answer, KIND) >= 1000, "{answer:02x?}");
        }
        pause();
    }
    sent
}

/// What would end or disturb a session, if it were its peer's.
fn forged(to: u32, random: &mut Random) -> [Vec<u8>; 7] {
    let sequence = FIRST + (random.next() % 1000) as u32;
    [
        control(SHUTDOWN, 0, to, &[0; 4]),
        control(ACK, 1, to, &bytes(&[sequence, 1000, 500, 0, 0, 0, 0])),
        control(NAK, 0, to, &bytes(&[1 << 31 | FIRST, sequence])),
        control(PEER_ERROR, 4000, to, &[0; 4]),
        control(DROP_REQUEST, 0, to, &bytes(&[FIRST, FIRST + 100_000])),
        data(sequence, to, &random.bytes(1316)),
        handshake(5, 5, CONCLUSION, to, 0, &[]),
    ]
}

/// The right socket id from a wrong address, and wrong ids from the address of a reader.
fn forge(reader: &UdpSocket, at: SocketAddr, target: u32, stop: &AtomicBool) -> u64 {
    let stranger = Visitor::hostile(at, 10);
    let mut random = Random(5);
    let mut sent = 0;
    while !stop.load(Relaxed) {
        for _ in 0..4 {
            for datagram in forged(target, &mut random) {
                stranger.send(&datagram);
                sent += 1;
            }
            let guess = random.next() as u32 & 0x3fff_ffff;
            if guess != target {
                for datagram in forged(guess, &mut random) {
                    drop(reader.send(&datagram));
                    sent += 1;
                }
            }
        }
        pause();
    }
    sent
}

/// A reader of its own session lies: reports all missing and the future arrived, and sends what only we may.
fn lie(mut liar: Reader, stop: &AtomicBool) -> u64 {
    let mut random = Random(6);
    let mut sent = 0;
    while !stop.load(Relaxed) {
        liar.turn();
        let last = liar.next.wrapping_sub(1);
        let everything: Vec<u32> = (0..180).flat_map(|_| [1 << 31 | FIRST, last]).collect();
        liar.send(NAK, 0, &everything);
        // Every other packet: as many ranges as there can be.
        liar.send(NAK, 0, &(0..360).map(|n| last.wrapping_sub(2 * n)).collect::<Vec<_>>());
        liar.send(NAK, 0, &[1 << 31 | FIRST, 0x7fff_ffff]);
        liar.send(NAK, 0, &[1 << 31 | last, FIRST]);
        liar.send(NAK, 0, &[1 << 31]);
        liar.send(ACK, random.next() as u32, &[liar.next + 1_000_000, 0, 0, u32::MAX, 0, 0, 0]);
        liar.send(ACK, random.next() as u32, &[last, u32::MAX, u32::MAX, 8192, u32::MAX, u32::MAX, u32::MAX]);
        liar.send(ACK, 0, &[random.next() as u32]);
        liar.send(ACKACK, random.next() as u32, &[0]);
        liar.send(DROP_REQUEST, 0, &[0, 0x7fff_ffff]);
        liar.send(KEY_REQUEST, 0, &[0x1220_2901; 20]);
        liar.send(KEY_RESPONSE, 0, &[0; 1]);
        liar.visitor.send(&data(FIRST, liar.peer, &random.bytes(1456)));
        sent += 13;
        pause();
    }
    assert!(liar.packets > 100, "it is served as long as it is there");
    sent
}

/// Noise, sometimes with the face of a packet.
fn babble(at: SocketAddr, stop: &AtomicBool) -> u64 {
    let visitor = Visitor::hostile(at, 11);
    let mut random = Random(7);
    let mut sent = 0;
    while !stop.load(Relaxed) {
        for _ in 0..40 {
            let length = random.next() as usize % 1473;
            let mut noise = random.bytes(length);
            match (random.next() % 3, noise.get_mut(12..16)) {
                (0, Some(destination)) => destination.fill(0),
                (1, Some(destination)) => {
                    destination.fill(0);
                    noise[..2].copy_from_slice(&[0x80, (random.0 % 9) as u8]);
                }
                _ => {}
            }
            visitor.send(&noise);
            sent += 1;
        }
        pause();
    }
    sent
}

/// Floods leave a core to those who are flooded: a test measures what they break, not how fast a machine is.
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

#[track_caller]
fn same(what: &str, came: &[u8], sent: &[u8]) {
    let came = between(0, 1, came).unwrap_or_else(|| panic!("{what}: no marks"));
    assert_eq!(came.len(), sent.len(), "{what}: length");
    assert_eq!(sha256(came), sha256(sent), "{what}");
}

#[test]
fn a_port_under_attack_serves_its_readers_and_its_publisher() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::start();
    let (from, at) = (local(), local());
    let input = engine.add_input("in", &format!("udp://{from}"));
    let serves = |name, end: End| {
        let path = engine.add_output(input, name, &end.asking(Some(name)).ours());
        listening(&engine, &path);
        path
    };
    let open = serves("open", End::listener(at));
    let locked = serves("locked", End::listener(at).locked(PASSPHRASE, 16));
    let cam = engine.add_input("cam", &End::listener(at).asking(Some("cam")).ours());
    let came = Receiver::new();
    engine.add_output(cam, "out", &came.url());
    listening(&engine, &format!("/api/inputs/{cam}"));

    let take = |id: &str| Tool::Transmit.take(&End::caller(at).asking(Some(id)));
    let takers: [(&str, Taker); 2] = [
        ("open", take("read:open")),
        ("locked", Tool::Transmit.take(&End::caller(at).asking(Some("read:locked")).locked(PASSPHRASE, 16))),
    ];
    let mut giver: Giver = Tool::Transmit.give(&End::caller(at).asking(Some("publish:cam")));
    let mut sender = Sender::new(from);
    let all = |number| takers.iter().all(|(_, taker)| holds(number, &taker.bytes()));
    knock(0, |mark| sender.send(mark), || all(0));
    knock(0, |mark| giver.send(mark), || holds(0, &came.bytes()));

    // The victim of forgeries, whose socket id is known to those who forge, and one who lies.
    let mut victim = Reader::dial(at, 100, "read:open");
    let liar = Reader::dial(at, 101, "read:open");
    let before = resident(&engine);
    let body = loopable("h264_sync.ts").repeat(3);
    let stop = AtomicBool::new(false);
    let (victims_socket, target) = (victim.visitor.socket.try_clone().expect("a descriptor"), victim.peer);
    std::thread::scope(|scope| {
        let stop = &stop;
        let attacks = [
            ("inductions", scope.spawn(move || flood_inductions(at, stop))),
            ("wrong cookies", scope.spawn(move || conclude_with_wrong_cookies(at, stop))),
            ("wrong conclusions", scope.spawn(move || conclude_wrongly(at, stop))),
            ("key material", scope.spawn(move || flood_key_material(at, stop))),
            ("forgeries", scope.spawn(move || forge(&victims_socket, at, target, stop))),
            ("lies", scope.spawn(move || lie(liar, stop))),
            ("noise", scope.spawn(move || babble(at, stop))),
        ];
        let reads = scope.spawn(|| {
            while !stop.load(Relaxed) {
                victim.turn();
                pause();
            }
        });
        let body = &body;
        let publishes = scope.spawn(move || {
            giver.send_paced(body, MBPS);
            giver
        });
        sender.send_paced(body, 1316, MBPS);
        let mut giver = publishes.join().expect("a publisher");
        // Those of the port find their way while it is attacked, too.
        let late = Reader::dial(at, 102, "read:open");
        assert_eq!(late.next, FIRST);
        let late_locked =
            Tool::Transmit.take(&End::caller(at).asking(Some("read:locked")).locked(PASSPHRASE, 16));
        knock(1, |mark| sender.send(mark), || holds(1, &late_locked.bytes()));
        knock(1, |mark| sender.send(mark), || all(1));
        knock(1, |mark| giver.send(mark), || holds(1, &came.bytes()));
        stop.store(true, Relaxed);
        for (name, attack) in attacks {
            let sent = attack.join().unwrap_or_else(|_| panic!("{name}: see above"));
            assert!(sent > 50, "{name}: {sent} only");
        }
        reads.join().expect("a reader");
    });
    let after = resident(&engine);
    takers.iter().for_each(|(name, taker)| same(name, &taker.bytes(), &body));
    same("cam", &came.bytes(), &body);
    assert!(victim.packets > 1000 && victim.astray == 0, "{} of {}", victim.astray, victim.packets);
    assert!(after < before + GROWTH, "{before} kB, then {after} kB");
    let ids: HashSet<String> =
        sessions(&engine, &open).iter().map(|session| session["id"].to_string()).collect();
    assert!((2..=4).contains(&ids.len()), "the taker, the victim, and who has just left: {ids:?}");
    assert!((1..=2).contains(&sessions(&engine, &locked).len()), "the taker, and who has just left");
}

/// What libsrt says about a connection that it does not get.
fn libsrt_says(end: &End) -> String {
    let mut command = Command::new("srt-live-transmit");
    command.args(["-a:no", "-loglevel:note", "-logfa:all", "-chunk:1316"]);
    let output = command.args([end.transmit_url(), format!("udp://{}", local())]).output();
    let output = output.expect("srt-live-transmit");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn who_may_not_come_in_is_told_why_and_so_is_the_owner() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::start();
    let at = local();
    let input = engine.add_input("in", &format!("udp://{}", local()));
    let serve = |name: &str, end: String| {
        let path = engine.add_output(input, name, &end);
        listening(&engine, &path);
        path
    };
    let open = serve("open", End::listener(at).asking(Some("open")).with("max_sessions", "1").ours());
    let guarded = End::listener(at).asking(Some("guarded")).ours().replace("srt://", "srt://anna:key@");
    let guarded = serve("guarded", guarded);
    let locked = serve("locked", End::listener(at).asking(Some("locked")).locked(PASSPHRASE, 16).ours());
    let publish = End::listener(at).asking(Some("cam")).ours();
    let cam = format!("/api/inputs/{}", engine.add_input("cam", &publish));
    listening(&engine, &cam);

    let _first = Reader::dial(at, 1, "read:open");
    let all = [&open, &guarded, &locked, &cam];
    for (id, rejection, owners, text) in [
        ("read:open", 2402, &all[..1], "all 1 sessions are taken"),
        ("read:guarded", 2401, &all[1..2], "user or password"),
        ("read:guarded:anna:wrong", 2401, &all[1..2], "user or password"),
        ("read:guarded:bert:key", 2401, &all[1..2], "user or password"),
        ("#!::r=guarded,u=anna,s=ke", 2401, &all[1..2], "user or password"),
        ("read:locked", 1011, &all[2..3], "passphrase"),
        ("read:nobody", 2404, &all[..], r#"nothing of the name "nobody" is here"#),
        ("publish:open", 2404, &all[..], "nothing of the name"),
        ("read:cam", 2404, &all[..], "nothing of the name"),
    ] {
        // A line that is told again takes the place of the one before, under a new number.
        let newest = |log: &Value| {
            let lines = log.as_array().into_iter().flatten();
            let told = lines.filter(|line| line["message"].as_str().is_some_and(|m| m.contains(text)));
            told.filter_map(|line| line["id"].as_u64()).max()
        };
        let counts = all.map(|path| newest(&engine.get(&format!("{path}/logs?limit=1000"))));
        assert_eq!(Visitor::new(at, 2).ask(id), Err(rejection), "{id}");
        for (path, count) in all.iter().zip(counts) {
            let told = owners.contains(path);
            if told {
                engine.wait(&format!("{path}/logs?limit=1000"), text, |log| newest(log) > count);
            }
        }
        for (path, count) in all.iter().zip(counts) {
            let log = engine.get(&format!("{path}/logs?limit=1000"));
            assert_eq!(newest(&log) > count, owners.contains(path), "{id}: {path}");
        }
        let said = libsrt_says(&End::caller(at).asking(Some(id)));
        // Where libsrt sees it itself, it says REJECT and why; else the code.
        assert!(
            said.contains(&rejection.to_string()) || said.to_lowercase().contains("reject"),
            "{id}: {said}"
        );
    }
    let guest = Visitor::new(at, 3).ask("#!::r=guarded,m=request,u=anna,s=key");
    assert!(guest.is_ok(), "{guest:?}");
    let log =
        all.map(|path| engine.get(&format!("{path}/logs?limit=1000")).to_string()).concat() + &engine.log();
    assert!(!log.contains("wrong,") && !log.contains("anna:"), "a password in {log}");
}

/// An engine with a stream that comes to `from`, and an output of it that listens at `at` for whoever asks for x.
struct Served {
    engine: Engine,
    from: SocketAddr,
    at: SocketAddr,
    path: String,
}

impl Served {
    /// With this option of the output.
    fn new(option: &'static str, value: &str) -> Self {
        let engine = Engine::start();
        let (from, at) = (local(), local());
        let input = engine.add_input("in", &format!("udp://{from}"));
        let end = End::listener(at).asking(Some("x")).with(option, value);
        let path = engine.add_output(input, "out", &end.ours());
        listening(&engine, &path);
        Self { engine, from, at, path }
    }
}

#[test]
fn a_reader_that_acknowledges_nothing_is_not_called_nobody() {
    let Served { engine, from, at, path } = Served::new("peeridletimeo", "10000");
    let _flow = Flow::start(from, &loopable("h264_sync.ts"), MBPS);
    let mut reader = Reader::dial(at, 1, "x");
    wait_for("a reader", || {
        reader.turn();
        (engine.get(&path)["state"] == "Live").then_some(())
    });
    engine.wait(&path, "a reader that is silent", |output| {
        output["state"] == "Idle" && output["reason"] == "readers are here and acknowledge nothing"
    });
    assert_eq!(engine.get(&path)["stats"]["sessions"], 1);
    reader.send(SHUTDOWN, 0, &[0]);
    engine.wait(&path, "nobody", |output| output["reason"] == "listening, nobody reads");
}

#[test]
fn a_reader_that_is_kicked_makes_room() {
    let Served { engine, from, at, path } = Served::new("max_sessions", "2");
    let _flow = Flow::start(from, &loopable("h264_sync.ts"), MBPS);
    let (mut first, mut second) = (Reader::dial(at, 1, "x"), Reader::dial(at, 2, "x"));
    let full = Visitor::new(at, 3).ask("x");
    assert_eq!(full, Err(2402));
    let port = first.visitor.socket.local_addr().expect("bound").port().to_string();
    let shown = engine
        .wait(&format!("{path}/sessions"), "two sessions", |s| s.as_array().is_some_and(|s| s.len() == 2));
    let of_first = shown.as_array().expect("a list").iter().find(|s| s.to_string().contains(&port));
    let id = of_first.unwrap_or_else(|| panic!("{port} in {shown}"))["id"].clone();
    engine.delete(&format!("{path}/sessions/{}", id.to_string().trim_matches('"')));
    wait_for("a shutdown", || {
        first.turn();
        second.turn();
        first.ended.then_some(())
    });
    wait_logged(&engine, &path, "it was kicked");
    let mut third = Reader::dial(at, 3, "x");
    let until = second.packets + 200;
    wait_for("packets for those who stayed", || {
        second.turn();
        third.turn();
        (second.packets > until && third.packets > 0).then_some(())
    });
    assert!(!second.ended && second.astray == 0 && third.astray == 0);
    assert_eq!(sessions(&engine, &path).len(), 2);
}

#[test]
fn a_publisher_that_comes_back_takes_over_or_is_refused() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::start();
    let body = loopable("h265_sync.ts");
    for takeover in ["replace", "reject"] {
        let at = local();
        let receiver = Receiver::new();
        let input = engine.add_input(takeover, &End::listener(at).with("takeover", takeover).ours());
        engine.add_output(input, "out", &receiver.url());
        let path = format!("/api/inputs/{input}");
        listening(&engine, &path);
        // One that is half dead: it holds its place, and does not know that it is to leave.
        let mut first = Reader::dial(at, 1, "publish:x".replace("x", takeover).as_str());
        first.send(KEEP_ALIVE, 0, &[0]);
        match takeover {
            "replace" => {
                let mut giver = Tool::Transmit.give(&End::caller(at));
                knock(0, |mark| giver.send(mark), || holds(0, &receiver.bytes()));
                // What the first one says has no weight any more.
                first.turn();
                assert!(first.ended);
                giver.send_paced(&body[..body.len() / 2], MBPS);
                for datagram in forged(first.peer, &mut Random(8)) {
                    first.visitor.send(&datagram);
                }
                giver.send_paced(&body[body.len() / 2..], MBPS);
                knock(1, |mark| giver.send(mark), || holds(1, &receiver.bytes()));
                same(takeover, &receiver.bytes(), &body);
                wait_logged(&engine, &path, "takes its place");
            }
            _ => {
                assert_eq!(Visitor::new(at, 2).ask("publish:reject"), Err(2402));
                first.turn();
                assert!(!first.ended);
                wait_logged(&engine, &path, "all 1 sessions are taken");
                first.send(SHUTDOWN, 0, &[0]);
                wait_logged(&engine, &path, "the peer ended the connection");
                assert!(Visitor::new(at, 3).ask("publish:reject").is_ok());
            }
        }
    }
}

#[test]
fn hundreds_dial_in_at_once_and_nobody_loses_a_packet() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let Served { engine, from, at, path } = Served::new("max_sessions", "600");
    let taker = Tool::Transmit.take(&End::caller(at));
    let mut sender = Sender::new(from);
    knock(0, |mark| sender.send(mark), || holds(0, &taker.bytes()));
    let body = loopable("h264_sync.ts");
    let stop = AtomicBool::new(false);
    let dialled = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (stop, dialled) = (&stop, &dialled);
        let crowds: Vec<_> = (0..CROWDS)
            .map(|crowd| {
                scope.spawn(move || {
                    let mut readers: Vec<Reader> = Vec::new();
                    let begun = Instant::now();
                    while !stop.load(Relaxed) {
                        let due = (begun.elapsed().as_millis() as usize * CROWD / DIAL_MS).min(CROWD);
                        if readers.len() < due {
                            readers.push(Reader::dial(at, (1 + crowd * CROWD + readers.len()) as u32, "x"));
                            dialled.fetch_add(1, Relaxed);
                        }
                        readers.iter_mut().for_each(Reader::turn);
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    readers
                })
            })
            .collect();
        sender.send_paced(&body, 1316, 1.0);
        wait_for("all to have dialled in", || {
            (dialled.load(Relaxed) as usize == CROWDS * CROWD).then_some(())
        });
        sender.send_paced(&body, 1316, 1.0);
        knock(1, |mark| sender.send(mark), || holds(1, &taker.bytes()));
        stop.store(true, Relaxed);
        for reader in crowds.into_iter().flat_map(|crowd| crowd.join().expect("a crowd")) {
            assert!(!reader.ended && reader.astray == 0 && reader.packets > 0, "{} astray", reader.astray);
        }
    });
    same("taker", &taker.bytes(), &body.repeat(2));
    let output = engine.get(&path);
    assert_eq!(output["stats"]["sessions"], 1 + CROWDS * CROWD, "{output}");
}

const PASSPHRASE: &str = "a secret of tests";
/// Slow enough for a process that sleeps through half a second with the kernel's default buffers.
const MBPS: f64 = 2.0;
/// How long somebody who speaks SRT waits before it repeats itself.
const ANSWER: Duration = Duration::from_millis(250);
/// Kilobytes that an engine may grow by while it is attacked: rings of streams, no flood.
const GROWTH: u64 = 16 << 10;

/// The number of everybody's first packet.
const FIRST: u32 = 1000;
const INDUCTION: u32 = 1;
const CONCLUSION: u32 = u32::MAX;
/// Words of a handshake datagram.
const KIND: usize = 9;
const SOCKET: usize = 10;
const COOKIE: usize = 11;
/// Extension field: HSREQ and configuration.
const HELLO_AND_ID: u32 = 1 | 4;

/// Threads that dial, readers of each, and how long they take over it.
const CROWDS: usize = 5;
const CROWD: usize = 100;
const DIAL_MS: usize = 2000;

/// Bit R of a data packet's second word (draft-sharabayko-srt-01, 3.1).
const REPEAT: u32 = 1 << 26;
/// Types of control packets, with their subtypes.
const ACK: u32 = 2 << 16;
const NAK: u32 = 3 << 16;
const KEEP_ALIVE: u32 = 1 << 16;
const SHUTDOWN: u32 = 5 << 16;
const ACKACK: u32 = 6 << 16;
const DROP_REQUEST: u32 = 7 << 16;
const PEER_ERROR: u32 = 8 << 16;
const KEY_REQUEST: u32 = 0x7fff << 16 | 3;
const KEY_RESPONSE: u32 = 0x7fff << 16 | 4;
