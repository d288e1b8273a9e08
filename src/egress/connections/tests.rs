//! Connections over real sockets with scripted peers, on simulated time.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::hub::{Bounds, LaneWriter};
use crate::net::{Poller, PortPair};
use crate::telemetry;
use crate::wire::rtp::{Line as RtpLine, Packets, parse, rtcp};

const MS: Nanos = 1_000_000;

/// Answers each byte `?` with `!`, and leaves at `x`.
#[derive(Default)]
struct Echo {
    paused: bool,
    /// How often something beside the connection proved that it lives.
    touched: Arc<std::sync::atomic::AtomicU32>,
}

impl Peer for Echo {
    fn hear(&mut self, bytes: &[u8], _: Nanos, reply: &mut Vec<u8>) -> Result<(), Farewell> {
        for byte in bytes {
            match byte {
                b'?' => reply.push(b'!'),
                b'p' => self.paused = !self.paused,
                b'x' => return Err(Farewell { reason: "it left".into(), retryable: false }),
                _ => {}
            }
        }
        Ok(())
    }

    fn tick(&mut self, _: Nanos, _: &mut Vec<u8>) -> Result<(), Farewell> {
        Ok(())
    }

    fn next_due(&self) -> Option<Nanos> {
        None
    }

    fn is_playing(&self) -> bool {
        !self.paused
    }

    fn touch(&mut self, _: Nanos) {
        self.touched.fetch_add(1, Relaxed);
    }

    fn part(&mut self, reply: &mut Vec<u8>) {
        reply.extend_from_slice(b"bye");
    }
}

struct Bench {
    all: Connections,
    poller: Poller,
    notices: mpsc::Receiver<Notice>,
    writer: LaneWriter<Message>,
    now: Nanos,
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        let poller = Poller::new().unwrap();
        let wakes = Wakes { bell: poller.doorbell(), sockets: poller.sockets().clone() };
        let (told, notices) = mpsc::channel(64);
        let mut all = Connections::new(wakes, told, Arc::default());
        all.set_ticking(1, true, 0);
        Self { all, poller, notices, writer: Lane::new(bounds).1, now: MS }
    }

    fn attach(&mut self, output: OutputKey) -> (TcpStream, Arc<FlowStats>) {
        self.attach_as((output, None), LagPolicy::default(), None)
    }

    fn attach_as(
        &mut self,
        key: LinkKey,
        lag: LagPolicy,
        kicked: Option<Arc<telemetry::Session>>,
    ) -> (TcpStream, Arc<FlowStats>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let flow = Arc::<FlowStats>::default();
        let link = Link {
            key,
            attempt: 7,
            stream: 1,
            local: true,
            lane: Arc::clone(self.writer.lane()),
            delay: 20 * MS,
            socket: ByteStream::new(near, None).unwrap(),
            legs: Vec::new(),
            greeting: b"hello".to_vec(),
            peer: Box::<Echo>::default(),
            lag,
            stats: Arc::default(),
            flow: Arc::clone(&flow),
            kicked,
        };
        self.all.handle(Command::Attach(Box::new(link)), self.now);
        (far, flow)
    }

    fn write(&mut self, text: &str, preface: Option<&'static str>) {
        self.write_bytes(Bytes::copy_from_slice(text.as_bytes()), preface);
    }

    fn write_bytes(&mut self, bytes: Bytes, preface: Option<&'static str>) {
        let position = self.writer.next_position();
        let preface = preface.map(|text| Bytes::from_static(text.as_bytes()));
        if preface.is_some() {
            self.writer.mark_random_access(position);
        }
        self.writer.push(Message {
            bytes,
            arrival: self.now,
            dts: (self.now / 1000 * 9 / 100) as i64,
            preface,
        });
        assert!(self.writer.commit(self.now));
        self.all.arrived(1, false, self.now);
    }

    /// Lets so much time pass, in turns as a shard takes them.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 5 {
            self.now += 5 * MS;
            let mut ready = Vec::new();
            self.poller.wait(Some(Duration::ZERO), |token| ready.push(token));
            ready.into_iter().for_each(|token| self.all.readable(token, self.now));
            self.all.walk(self.now, &mut |_| 0);
        }
    }

    fn lost(&mut self) -> Option<NoticeKind> {
        self.notices.try_recv().ok().map(|notice| {
            assert_eq!(notice.attempt, 7);
            notice.kind
        })
    }
}

/// What has come, once nothing more comes for a while.
fn read(far: &mut TcpStream) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 65536]);
    loop {
        match far.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(all).unwrap()
}

#[test]
fn a_reader_begins_where_it_can_with_what_it_needs_and_hears_answers_between_messages() {
    let mut bench = Bench::new(Bounds::default());
    let (mut early, _) = bench.attach(1);
    bench.write("[p]", None);
    bench.run(50);
    assert_eq!(read(&mut early), "hello", "nobody can begin at it");
    bench.write("[K]", Some("<setup>"));
    bench.write("[p]", None);
    bench.run(50);
    assert_eq!(read(&mut early), "<setup>[K][p]");
    // One that comes later begins with what is there.
    let (mut late, flow) = bench.attach(2);
    assert_eq!(read(&mut late), "hello<setup>[K][p]");
    bench.write("[K]", Some("<setup>"));
    bench.run(50);
    assert_eq!((read(&mut early), read(&mut late)), ("[K]".into(), "[K]".into()));
    late.write_all(b"?").unwrap();
    bench.run(50);
    assert_eq!(read(&mut late), "!");
    bench.all.publish(bench.now);
    assert_eq!((flow.messages.load(Relaxed), flow.bytes.load(Relaxed)), (3, 9));
    assert!(flow.acknowledged_bytes.load(Relaxed) > 0);
}

#[test]
fn one_that_pauses_gets_nothing_and_begins_anew() {
    let mut bench = Bench::new(Bounds::default());
    let (mut far, _) = bench.attach(1);
    bench.write("[K1]", Some("<s>"));
    bench.run(30);
    far.write_all(b"p").unwrap();
    bench.run(30);
    bench.write("[p1]", None);
    bench.write("[K2]", Some("<s>"));
    bench.run(30);
    assert_eq!(read(&mut far), "hello<s>[K1]");
    far.write_all(b"p").unwrap();
    bench.run(30);
    bench.write("[p2]", None);
    bench.run(30);
    assert_eq!(read(&mut far), "", "not in the middle");
    bench.write("[K3]", Some("<s>"));
    bench.run(30);
    assert_eq!(read(&mut far), "[K3]");
}

#[test]
fn one_that_takes_nothing_harms_no_other_and_goes_on_at_a_whole_message() {
    let mut bench = Bench::new(Bounds { bytes: 1 << 20, age: Duration::from_secs(60) });
    let ((mut stuck, flow), (mut well, _)) = (bench.attach(1), bench.attach(2));
    let (mut sent, mut got) = (0u64, Vec::new());
    let mut buffer = vec![0; 1 << 20];
    well.set_nonblocking(true).unwrap();
    for _ in 0..400 {
        // Each message says its number in every eight bytes.
        let message: Vec<u8> = (0..2500).flat_map(|_| format!("{sent:08}").into_bytes()).collect();
        bench.write_bytes(message.into(), (sent % 10 == 0).then_some(""));
        sent += 1;
        bench.run(20);
        while let Ok(count) = well.read(&mut buffer) {
            got.extend_from_slice(&buffer[..count]);
        }
    }
    let numbers = |bytes: &[u8]| {
        let words = bytes["hello".len()..].chunks_exact(8);
        words.map(|word| std::str::from_utf8(word).unwrap().parse::<u64>().unwrap()).collect::<Vec<_>>()
    };
    let all = numbers(&got);
    assert!(all.len() as u64 >= (sent - 2) * 2500, "{} of {}", all.len(), sent * 2500);
    assert!(all.chunks_exact(2500).enumerate().all(|(at, m)| m.iter().all(|n| *n == at as u64)));
    bench.all.publish(bench.now);
    assert!(flow.unsent_bytes.load(Relaxed) < 2 << 20);
    // It wakes up: the message that it stopped in comes whole, the next one is one at which a reader can begin.
    stuck.set_nonblocking(true).unwrap();
    let mut late = Vec::new();
    for _ in 0..40 {
        bench.run(50);
        std::thread::park_timeout(Duration::from_millis(5));
        while let Ok(count) = stuck.read(&mut buffer) {
            late.extend_from_slice(&buffer[..count]);
        }
    }
    assert!(flow.skips.load(Relaxed) >= 1 && flow.skipped.load(Relaxed) > 100);
    let late = numbers(&late);
    assert_eq!(late.len() % 2500, 0, "whole messages");
    let first: Vec<u64> = late.chunks_exact(2500).map(|m| m[0]).collect();
    assert!(late.chunks_exact(2500).all(|m| m.iter().all(|n| *n == m[0])));
    assert_eq!(*first.last().unwrap(), sent - 1);
    let jump = first.windows(2).find(|pair| pair[1] != pair[0] + 1).unwrap();
    assert_eq!(jump[1] % 10, 0, "{jump:?}");
    assert!(bench.lost().is_none());
}

#[test]
fn one_that_may_not_fall_behind_is_ended_by_name() {
    let mut bench = Bench::new(Bounds { bytes: 1 << 16, age: Duration::from_secs(60) });
    let (_stuck, _) = bench.attach_as((1, None), LagPolicy::Disconnect, None);
    for number in 0..200 {
        bench.write_bytes(vec![0; 20_000].into(), (number % 10 == 0).then_some(""));
        bench.run(20);
    }
    let Some(NoticeKind::Disconnected { session: None, reason, retryable: true }) = bench.lost() else {
        panic!("it goes on");
    };
    assert!(reason.contains("lag says disconnect"), "{reason}");
}

#[test]
fn who_leaves_is_told_apart_from_who_is_sent_away() {
    let mut bench = Bench::new(Bounds::default());
    let (mut leaver, _) = bench.attach(1);
    let (mut gone, _) = bench.attach(2);
    assert_eq!(read(&mut gone), "hello");
    let card = telemetry::Session::new(
        9,
        ([127, 0, 0, 1], 1).into(),
        None,
        "".into(),
        "rtsp_listener",
        SystemTime::UNIX_EPOCH,
        telemetry::Transport::Flow(Arc::default()),
    );
    let card = Arc::new(card);
    let (mut kicked, _) = bench.attach_as((3, Some(9)), LagPolicy::default(), Some(Arc::clone(&card)));
    let (mut detached, _) = bench.attach(4);
    leaver.write_all(b"x").unwrap();
    bench.run(20);
    assert_eq!(
        bench.lost(),
        Some(NoticeKind::Disconnected { session: None, reason: "it left".into(), retryable: false })
    );
    drop(gone);
    bench.run(20);
    let reason = "the peer closed the connection".into();
    assert_eq!(bench.lost(), Some(NoticeKind::Disconnected { session: None, reason, retryable: true }));
    card.kick();
    bench.all.publish(bench.now);
    let reason = "it was kicked".into();
    assert_eq!(bench.lost(), Some(NoticeKind::Disconnected { session: Some(9), reason, retryable: true }));
    bench.all.handle(Command::Detach(4), bench.now);
    assert_eq!((read(&mut kicked), read(&mut detached)), ("hellobye".into(), "hellobye".into()));
    assert!(bench.lost().is_none(), "whoever asked knows");
    assert!(bench.all.connections.iter().all(Option::is_none) && bench.all.lines.iter().all(Option::is_none));
    assert_eq!(bench.all.next_due(), None);
}

/// A peer that is sent datagrams, and what it knows of itself.
struct Player {
    far: TcpStream,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    flow: Arc<FlowStats>,
    stats: Arc<OutputStats>,
    touched: Arc<std::sync::atomic::AtomicU32>,
}

impl Bench {
    /// Attaches one whose channels 0 and 1 leave through `pair`.
    fn attach_player(
        &mut self,
        key: LinkKey,
        pair: &Arc<PortPair>,
        kicked: Option<Arc<telemetry::Session>>,
    ) -> Player {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let [rtp, rtcp] = [(); 2].map(|()| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            socket
        });
        let at = |socket: &UdpSocket| socket.local_addr().unwrap();
        let leg = Leg { channel: 0, pair: Arc::clone(pair), rtp: at(&rtp), rtcp: at(&rtcp) };
        let (flow, stats, echo) =
            (Arc::<FlowStats>::default(), Arc::<OutputStats>::default(), Echo::default());
        let touched = Arc::clone(&echo.touched);
        let link = Link {
            key,
            attempt: 7,
            stream: 1,
            local: true,
            lane: Arc::clone(self.writer.lane()),
            delay: 20 * MS,
            socket: ByteStream::new(near, None).unwrap(),
            legs: vec![leg],
            greeting: b"hello".to_vec(),
            peer: Box::new(echo),
            lag: LagPolicy::default(),
            stats: Arc::clone(&stats),
            flow: Arc::clone(&flow),
            kicked,
        };
        self.all.handle(Command::Attach(Box::new(link)), self.now);
        Player { far, rtp, rtcp, flow, stats, touched }
    }

    /// Writes a message of so many packets of 1000 bytes and one of 10, with a report before them where one can begin.
    fn write_packets(&mut self, line: &mut RtpLine, count: usize, begins: bool) {
        let mut packets = Packets::default();
        if begins {
            let mut report = Vec::new();
            rtcp::write_sender_report(&mut report, &rtcp::SenderReport { ssrc: 7, ..Default::default() });
            packets.append(1, &report);
        }
        for _ in 0..count {
            line.packet(&mut packets, 0, false, &[&[1; 988]]);
        }
        line.packet(&mut packets, 0, true, &[&[2; 10]]);
        let position = self.writer.next_position();
        if begins {
            self.writer.mark_random_access(position);
        }
        let bytes = Bytes::copy_from_slice(packets.framed());
        let preface = begins.then(Bytes::new);
        self.writer.push(Message { bytes, arrival: self.now, dts: 0, preface });
        assert!(self.writer.commit(self.now));
        self.all.arrived(1, false, self.now);
    }
}

impl Player {
    /// Sequence numbers of what came.
    fn heard(&self) -> Vec<u16> {
        let mut buffer = [0; 2000];
        let mut all = Vec::new();
        while let Ok(count) = self.rtp.recv(&mut buffer) {
            all.push(parse(&buffer[..count]).unwrap().0.sequence);
        }
        all
    }

    /// RTCP that came.
    fn reports(&self) -> Vec<rtcp::Rtcp> {
        let mut buffer = [0; 2000];
        let mut all = Vec::new();
        while let Ok(count) = self.rtcp.recv(&mut buffer) {
            rtcp::parse(&buffer[..count], |packet| all.push(packet)).unwrap();
        }
        all
    }
}

fn pair() -> Arc<PortPair> {
    Arc::new(PortPair::open("127.0.0.1:0".parse().unwrap()).unwrap())
}

fn card(id: SessionId) -> Arc<telemetry::Session> {
    Arc::new(telemetry::Session::new(
        id,
        ([127, 0, 0, 1], 1).into(),
        None,
        "".into(),
        "rtsp_listener",
        SystemTime::UNIX_EPOCH,
        telemetry::Transport::Flow(Arc::default()),
    ))
}

#[test]
fn players_get_every_datagram_from_a_random_access_point_on_whenever_they_come() {
    let mut bench = Bench::new(Bounds::default());
    let (pair, mut line) = (pair(), RtpLine::new(96, 7, 65_500, 1400));
    let mut early = bench.attach_player((1, Some(1)), &pair, None);
    bench.write_packets(&mut line, 3, false);
    bench.run(50);
    assert_eq!(read(&mut early.far), "hello");
    assert!(early.heard().is_empty(), "nobody can begin at it");
    let first = line.sequence;
    bench.write_packets(&mut line, 50, true);
    bench.run(200);
    let mut heard = (early.heard(), Vec::new());
    bench.write_packets(&mut line, 30, false);
    bench.run(50);
    let late = bench.attach_player((1, Some(2)), &pair, None);
    // It comes level while the stream goes on.
    heard.0.extend(early.heard());
    for _ in 0..40 {
        bench.write_packets(&mut line, 5, false);
        bench.run(10);
        heard.0.extend(early.heard());
        heard.1.extend(late.heard());
    }
    bench.run(50);
    heard.0.extend(early.heard());
    heard.1.extend(late.heard());
    let count = line.sequence.wrapping_sub(first);
    let all: Vec<u16> = (0..count).map(|i| first.wrapping_add(i)).collect();
    assert_eq!(heard.0, all);
    assert_eq!(heard.1, all);
    assert!(bench.all.lines.iter().flatten().any(|line| line.members.len() == 2), "they go along");
    let is_report =
        |packet: &rtcp::Rtcp| matches!(packet, rtcp::Rtcp::SenderReport(report, _) if report.ssrc == 7);
    for player in [&early, &late] {
        let reports = player.reports();
        assert!(reports.len() == 1 && is_report(&reports[0]), "{reports:?}");
    }
    bench.all.publish(bench.now);
    for player in [&early, &late] {
        assert_eq!(player.flow.messages.load(Relaxed), u64::from(count));
        assert_eq!(player.stats.unanswered.load(Relaxed), u64::from(count));
        let small = u64::from(count) - 80 - 200;
        assert_eq!(player.flow.bytes.load(Relaxed), 280 * 1000 + small * 22);
        assert_eq!(player.flow.acknowledged_bytes.load(Relaxed), 0, "nobody answered");
    }
}

#[test]
fn reports_of_a_receiver_prove_it_and_garbage_does_not() {
    let mut bench = Bench::new(Bounds::default());
    let (pair, mut line) = (pair(), RtpLine::new(96, 7, 100, 1400));
    let player = bench.attach_player((1, Some(1)), &pair, None);
    bench.write_packets(&mut line, 9, true);
    bench.run(60);
    assert_eq!(player.heard().len(), 10);
    let port = pair.ports().1;
    let tell = |socket: &UdpSocket, ssrc: u32, highest: u32| {
        let mut report = Vec::new();
        let block = rtcp::ReportBlock { ssrc, highest, lost: 3, ..Default::default() };
        rtcp::write_receiver_report(&mut report, 1, &[block]);
        socket.send_to(&report, ("127.0.0.1", port)).unwrap();
    };
    let counts = |bench: &mut Bench| {
        bench.run(20);
        (player.touched.load(Relaxed), player.flow.acknowledged_bytes.load(Relaxed))
    };
    for garbage in [&b""[..], b"\x80", b"\x80\xc9\xff\xff", b"\x41\xc9\x00\x00", &[0xff; 1400]] {
        player.rtcp.send_to(garbage, ("127.0.0.1", port)).unwrap();
    }
    tell(&UdpSocket::bind("127.0.0.1:0").unwrap(), 7, 109);
    assert_eq!(counts(&mut bench), (0, 0), "nothing of that is its word");
    tell(&player.rtcp, 99, 109);
    tell(&player.rtcp, 7, 4000);
    assert_eq!(counts(&mut bench), (2, 0), "it lives, and says nothing of what was sent");
    tell(&player.rtcp, 7, 105);
    assert_eq!(counts(&mut bench), (3, 9 * 1000 + 22));
    assert_eq!(player.flow.lost.load(Relaxed), 3);
    tell(&player.rtcp, 7, 105);
    assert_eq!(counts(&mut bench).1, 9 * 1000 + 22, "the same again");
}

#[test]
fn who_is_kicked_is_told_bye_and_who_pauses_begins_anew() {
    let mut bench = Bench::new(Bounds::default());
    let (pair, mut line) = (pair(), RtpLine::new(96, 7, 100, 1400));
    let session = card(5);
    let kicked = bench.attach_player((1, Some(5)), &pair, Some(Arc::clone(&session)));
    let mut paused = bench.attach_player((1, Some(6)), &pair, None);
    bench.write_packets(&mut line, 2, true);
    bench.run(60);
    assert_eq!((kicked.heard().len(), paused.heard().len()), (3, 3));
    session.kick();
    bench.all.publish(bench.now);
    assert!(matches!(bench.lost(), Some(NoticeKind::Disconnected { session: Some(5), .. })));
    assert!(kicked.reports().contains(&rtcp::Rtcp::Bye(vec![7])));
    paused.far.write_all(b"p").unwrap();
    bench.run(60);
    bench.write_packets(&mut line, 2, true);
    bench.run(60);
    assert!(paused.heard().is_empty());
    paused.far.write_all(b"p").unwrap();
    bench.run(60);
    assert_eq!(paused.heard(), [103, 104, 105]);
    drop(paused.far);
    bench.run(20);
    assert!(matches!(bench.lost(), Some(NoticeKind::Disconnected { session: Some(6), .. })));
    assert!(bench.all.ports.0.iter().all(Option::is_none) && bench.all.lines.iter().all(Option::is_none));
    assert_eq!(Arc::strong_count(&pair), 1);
}

#[test]
fn a_port_where_nobody_listens_is_left_within_seconds() {
    let mut bench = Bench::new(Bounds::default());
    let (pair, mut line) = (pair(), RtpLine::new(96, 7, 100, 1400));
    let gone = bench.attach_player((1, Some(1)), &pair, None);
    let well = bench.attach_player((1, Some(2)), &pair, None);
    let Player { far: _far, rtp, stats, .. } = gone;
    drop(rtp);
    let (mut sent, mut heard) = (0, 0);
    for _ in 0..80 {
        bench.write_packets(&mut line, 1, true);
        sent += 2;
        bench.run(100);
        bench.all.publish(bench.now);
        heard += well.heard().len();
    }
    assert_eq!(heard, sent, "its neighbour has everything");
    assert!(stats.icmp_errors.load(Relaxed) > 0);
    let Some(NoticeKind::Disconnected { session: Some(1), reason, .. }) = bench.lost() else { panic!() };
    assert!(reason.contains("nobody listens"), "{reason}");
}
