//! Connections over real sockets with scripted peers, on simulated time.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::*;
use crate::hub::{Bounds, LaneWriter};
use crate::net::Poller;
use crate::telemetry;

const MS: Nanos = 1_000_000;

/// Answers each byte `?` with `!`, and leaves at `x`.
#[derive(Default)]
struct Echo {
    paused: bool,
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
