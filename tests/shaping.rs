//! Outputs that ask for less than the stream, or for its datagrams at their time: what is taken out is gone, what
//! stays is what went in.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use millrace::net;
use support::{
    Engine, Receiver, Sender, between, free_port, holds, knock, loopable, require, testdata, wait_for,
};

type Packet = [u8; 188];

fn packets(bytes: &[u8]) -> &[Packet] {
    let (packets, rest) = bytes.as_chunks();
    assert!(rest.is_empty() && packets.iter().all(|p| p[0] == 0x47));
    packets
}

fn pid(packet: &Packet) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

fn pids(bytes: &[u8]) -> BTreeSet<u16> {
    packets(bytes).iter().map(pid).collect()
}

/// Packets of that PID, in order.
fn of(wanted: u16, bytes: &[u8]) -> Vec<Packet> {
    packets(bytes).iter().filter(|packet| pid(packet) == wanted).copied().collect()
}

fn holds_label(bytes: &[u8]) -> bool {
    bytes.windows(4).any(|w| w == [0x06, 0x0e, 0x2b, 0x34])
}

/// What ffprobe says of the programs, and of each stream with its decoded pictures.
fn ffprobe(bytes: &[u8]) -> serde_json::Value {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("got.ts");
    std::fs::write(&file, bytes).expect("a file");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_programs", "-show_streams", "-of", "json"])
        .arg(&file)
        .output()
        .expect("ffprobe");
    assert_eq!(String::from_utf8_lossy(&probe.stderr), "");
    serde_json::from_slice(&probe.stdout).expect("JSON")
}

/// All that one output per filter makes of a stream; the first filter is none.
fn shape<const N: usize>(name: &str, filters: [&str; N]) -> (Vec<u8>, [Vec<u8>; N]) {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let whole = Receiver::new();
    engine.add_output(input, "whole", &whole.url());
    let receivers = filters.map(|_| Receiver::new());
    for (receiver, filter) in receivers.iter().zip(filters) {
        let output = engine.add_output(input, filter, &format!("{}?{filter}", receiver.url()));
        engine.wait_state(&output, "Starved");
    }
    let sent = std::fs::read(testdata("ts").join(name)).expect("a stream");
    let mut sender = Sender::new((Ipv4Addr::LOCALHOST, port).into());
    sender.send_marked(0, &sent, 1316, 20.0, &[&whole]);
    // A filter may take the marks out, so that only silence says that all has come.
    let all = |receiver: &Receiver| {
        let before = receiver.bytes().len();
        std::thread::sleep(Duration::from_millis(150));
        receiver.bytes().len() == before
    };
    receivers.iter().for_each(|receiver| wait_for("the end", || all(receiver).then_some(())));
    assert!(between(0, 1, &whole.bytes()).expect("both marks") == sent, "the others cost it nothing");
    (sent, receivers.map(|receiver| receiver.bytes()))
}

/// Without null packets, such as the marks of the test.
fn meaning(bytes: &[u8]) -> Vec<u8> {
    packets(bytes).iter().filter(|packet| pid(packet) != NULL).flatten().copied().collect()
}

#[test]
fn a_stripped_output_holds_no_label_and_plays() {
    require!("ffprobe");
    for (name, declared) in [("h264_sync.ts", 0x102), ("h264_async.ts", 0x102), ("h264_dualklv.ts", 0x103)] {
        let (sent, [nulled, removed]) = shape(name, ["klv=strip", "klv=strip&fill=remove"]);
        assert!(holds_label(&sent) && pids(&sent).contains(&declared), "{name}");
        for got in [&nulled, &removed] {
            assert!(!holds_label(got), "{name}");
            assert!(!pids(got).contains(&0x102) && !pids(got).contains(&declared), "{name}");
            assert!(of(VIDEO, got) == of(VIDEO, &sent), "{name}: video");
            let seen = ffprobe(&meaning(got));
            let streams = seen["streams"].as_array().expect("streams");
            assert_eq!((streams.len(), &streams[0]["codec_type"]), (1, &"video".into()), "{name}: {seen:#}");
            assert_eq!(streams[0]["nb_read_frames"], "180", "{name}");
        }
        // One packet for one, at its place.
        let at = packets(&nulled).iter().position(|p| pid(p) != NULL).expect("a packet");
        for (got, sent) in packets(&nulled)[at..].iter().zip(packets(&sent)) {
            let expected = if pid(sent) == 0x102 || pid(sent) == declared { NULL } else { pid(sent) };
            assert_eq!(pid(got), expected, "{name}");
        }
        let klv = of(0x102, &sent).len() + if declared == 0x102 { 0 } else { of(declared, &sent).len() };
        assert_eq!(meaning(&removed).len(), sent.len() - klv * 188, "{name}");
    }
}

#[test]
fn a_program_is_taken_out_of_two() {
    require!("ffprobe");
    let (sent, [nulled, removed]) =
        shape("h264_multiprog.ts", ["program=2", "program=2&fill=remove&klv=strip"]);
    assert_eq!(ffprobe(&sent)["programs"].as_array().map(Vec::len), Some(2));
    for got in [&nulled, &removed] {
        let seen = ffprobe(&meaning(got));
        let programs = seen["programs"].as_array().expect("programs");
        assert_eq!((programs.len(), &programs[0]["program_id"]), (1, &2.into()), "{seen:#}");
        assert!(of(0x201, got) == of(0x201, &sent), "its video");
    }
    assert_eq!(pids(&nulled), [0, 0x200, 0x201, 0x202, NULL].into());
    assert_eq!(pids(&removed), [0, 0x200, 0x201].into());
    assert!(of(0x202, &nulled) == of(0x202, &sent), "its metadata");
    assert!(nulled.len() >= sent.len(), "a packet for each");
}

#[test]
fn pids_are_kept_or_taken_out() {
    let filters = ["pids=0x101", "pids=0x101&fill=remove", "drop_pids=0x102", "drop_pids=258&fill=remove"];
    let (sent, [kept, kept_alone, without, without_removed]) = shape("h264_sync.ts", filters);
    assert_eq!(pids(&kept), [0, 0x100, VIDEO, NULL].into());
    assert_eq!(pids(&kept_alone), [0, 0x100, VIDEO].into());
    assert_eq!(meaning(&kept), kept_alone);
    assert!(!pids(&without).contains(&0x102) && meaning(&without) == meaning(&without_removed));
    let klv = of(0x102, &sent).len();
    assert!(klv > 0 && meaning(&without).len() == sent.len() - klv * 188);
    for got in [&kept, &kept_alone, &without, &without_removed] {
        assert!(of(VIDEO, got) == of(VIDEO, &sent));
        // The PMT names what is there and nothing else: its only stream is the video.
        let pmt = &of(0x100, got)[0];
        assert!(
            pmt.windows(3).any(|w| w == [0x1b, 0xe1, 0x01]) && !pmt.windows(2).any(|w| w == [0xe1, 0x02])
        );
    }
    // A pair of outputs with one filter reads one lane: datagrams are full where packets are removed.
    assert!(kept_alone.len() < sent.len());
}

/// When datagrams came, by the kernel's clock, and all their bytes.
fn listen(socket: &net::UdpReceiver, stop: &AtomicBool) -> (Vec<u64>, Vec<u8>) {
    let mut receiver = net::Receiver::new();
    let (mut arrivals, mut bytes) = (Vec::new(), Vec::new());
    while !stop.load(Relaxed) {
        for i in 0..receiver.receive(socket).expect("a socket") {
            let message = receiver.message(i);
            for datagram in message.datagrams() {
                arrivals.push(message.arrival);
                bytes.extend_from_slice(datagram);
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    (arrivals, bytes)
}

/// How many of them came in a crowd: three or more within half a millisecond.
fn crowded(arrivals: &[u64]) -> usize {
    arrivals.windows(3).filter(|w| w[2] - w[0] < 500_000).count()
}

#[test]
fn a_paced_output_spreads_the_bursts_of_its_source_and_keeps_its_clock() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let open = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = net::ReceiveOptions { address, interface: None, source: None, buffer: 1 << 20 };
        net::bind_receiver(&options).expect("a socket")
    };
    let (paced, plain, steady) = (open(), open(), Receiver::new());
    engine.add_output(input, "paced", &format!("udp://{}?pace=pcr", paced.local_addr()));
    engine.add_output(input, "plain", &format!("udp://{}?delay_ms=0", plain.local_addr()));
    engine.add_output(input, "steady", &steady.url());
    let stop = AtomicBool::new(false);
    let source = loopable("h264_sync.ts");
    let (paced, plain) = std::thread::scope(|scope| {
        let paced = scope.spawn(|| listen(&paced, &stop));
        let plain = scope.spawn(|| listen(&plain, &stop));
        let mut sender = Sender::new((Ipv4Addr::LOCALHOST, port).into());
        knock(0, |mark| sender.send(mark), || holds(0, &steady.bytes()));
        // Six seconds of video in bursts of a tenth of a second each.
        let burst = source.len() / 1316 / 60 + 1;
        for datagrams in source.chunks(1316).collect::<Vec<_>>().chunks(burst) {
            datagrams.iter().for_each(|datagram| sender.send(datagram));
            std::thread::sleep(Duration::from_millis(100));
        }
        knock(1, |mark| sender.send(mark), || holds(1, &steady.bytes()));
        // The longest that a datagram may wait for its time.
        std::thread::sleep(Duration::from_secs(1));
        stop.store(true, Relaxed);
        (paced.join().expect("a listener"), plain.join().expect("a listener"))
    });
    for (name, (_, bytes)) in [("paced", &paced), ("plain", &plain)] {
        // Between the marks every byte is as it was, that of the clock too.
        assert!(between(0, 1, bytes).expect("both marks") == source, "{name}");
    }
    let (paced, plain) = (crowded(&paced.0), crowded(&plain.0));
    assert!(plain > 60 * 2, "the source came in bursts: {plain}");
    assert!(paced * 10 < plain, "{paced} of the paced datagrams came in crowds, {plain} of the others");
}

const VIDEO: u16 = 0x101;
const NULL: u16 = 0x1fff;
