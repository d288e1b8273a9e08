//! What goes in comes out, byte for byte: every kind of input and output, every packing, against peers that this
//! project does not control.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::{
    Engine, Peer, Receiver, Sender, between, free_port, holds, knock, mark, require, sha256, streams,
    testdata, wait_for,
};

/// What came between the marks of this turn is what was sent.
#[track_caller]
fn same(name: &str, turn: u16, got: &[u8], sent: &[u8]) {
    let got = between(2 * turn, 2 * turn + 1, got).expect("both marks");
    assert_eq!(got.len(), sent.len(), "{name}: length");
    assert_eq!(sha256(got), sha256(sent), "{name}");
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[test]
fn every_stream_leaves_as_it_came_by_every_kind_of_output() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receivers = [Receiver::new(), Receiver::new(), Receiver::new(), Receiver::rtp()];
    let options = ["?delay_ms=0", "?delay_ms=10", "?delay_ms=40", "?delay_ms=0"];
    for (i, (receiver, options)) in receivers.iter().zip(options).enumerate() {
        engine.add_output(input, &format!("out {i}"), &format!("{}{options}", receiver.url()));
    }
    let file = engine.add_output(input, "file", "file:dump.ts");
    let dump = engine.media().join("dump.ts");
    let dumped = || std::fs::read(&dump).unwrap_or_default();

    let mut sender = Sender::new(local(port));
    let at: Vec<&Receiver> = receivers.iter().collect();
    // The file's thread starts at the head that it finds.
    knock(u16::MAX, |mark| sender.send(mark), || holds(u16::MAX, &dumped()));
    for (turn, (name, sent)) in (0..).zip(streams()) {
        sender.send_marked(turn, &sent, 1316, 20.0, &at);
        for (receiver, options) in at.iter().zip(options) {
            same(&format!("{name}{options}"), turn, &receiver.bytes(), &sent);
            receiver.clear();
        }
        wait_for("the file", || holds(2 * turn + 1, &dumped()).then_some(()));
        same(&name, turn, &dumped(), &sent);
    }
    // Counted in datagrams: no chunk of a file was skipped.
    assert_eq!(engine.get(&file)["stats"]["skipped"], 0);
}

#[test]
fn datagrams_of_whole_packets_keep_their_boundaries() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let mut sender = Sender::new(local(port));
    let sent = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    let mut sizes = [7, 1, 3, 7, 7, 2, 5, 6, 7, 4].iter().cycle();
    let mut rest = sent.as_slice();
    let mut datagrams = Vec::new();
    while !rest.is_empty() {
        let size = (sizes.next().expect("a cycle") * 188).min(rest.len());
        datagrams.push(&rest[..size]);
        rest = &rest[size..];
    }
    knock(0, |mark| sender.send(mark), || receiver.count() > 0);
    sender.send_all_paced(datagrams.iter().copied(), 10.0);
    knock(1, |mark| sender.send(mark), || holds(1, &receiver.bytes()));
    let marks = [mark(0).to_vec(), mark(1).to_vec()];
    let got: Vec<Vec<u8>> = receiver.datagrams().into_iter().filter(|d| !marks.contains(d)).collect();
    assert_eq!(got, datagrams);
}

/// Packets of 192 bytes have a time in front (ARIB STD-B24 and Blu-ray), those of 204 a check behind (ETSI EN 300 429).
fn repack(stream: &[u8], size: usize) -> Vec<u8> {
    let packets = stream.as_chunks::<188>().0.iter().enumerate();
    match size {
        192 => packets.flat_map(|(i, p)| [&(i as u32 * 7919).to_be_bytes(), p.as_slice()].concat()).collect(),
        204 => packets.flat_map(|(i, p)| [p.as_slice(), &[i as u8; 16]].concat()).collect(),
        _ => stream.to_vec(),
    }
}

#[test]
fn every_packing_leaves_as_packets_of_188_bytes() {
    let engine = Engine::start();
    let stream = std::fs::read(testdata("ts/h264_nulls.ts")).expect("a stream");
    let sent = [mark(0).as_slice(), &stream, &mark(1)].concat();
    // Packet size, datagram size; 1358 is what some encoders fill an Ethernet frame with.
    for (packet, datagram) in
        [(188, 1358), (188, 1000), (192, 7 * 192), (192, 1358), (204, 7 * 204), (204, 1358), (204, 204)]
    {
        let port = free_port();
        let input = engine.add_input(&format!("{packet} {datagram}"), &format!("udp://127.0.0.1:{port}"));
        let receiver = Receiver::new();
        let output = engine.add_output(input, "out", &receiver.url());
        engine.wait_state(&output, "Starved");
        engine.wait(&format!("/api/inputs/{input}"), "a socket", |i| {
            i["reason"] == "waiting for the first packet"
        });
        Sender::new(local(port)).send_paced(&repack(&sent, packet), datagram, 20.0);
        wait_for("the last packet", || holds(1, &receiver.bytes()).then_some(()));
        same(&format!("{packet} in {datagram}"), 0, &receiver.bytes(), &stream);
        assert!(receiver.datagrams().iter().all(|d| d.len() % 188 == 0 && d.len() <= 1316));
        let seen = engine.get(&format!("/api/inputs/{input}"));
        assert_eq!((&seen["stats"]["junk_bytes"], &seen["stats"]["resyncs"]), (&0.into(), &0.into()));
        engine.delete(&format!("/api/inputs/{input}"));
    }
}

#[test]
fn junk_between_packets_is_taken_out_and_counted() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receiver = Receiver::new();
    let output = engine.add_output(input, "out", &receiver.url());
    engine.wait_state(&output, "Starved");
    engine
        .wait(&format!("/api/inputs/{input}"), "a socket", |i| i["reason"] == "waiting for the first packet");
    let stream = std::fs::read(testdata("ts/h265_sync.ts")).expect("a stream");
    let sent = [mark(0).as_slice(), &stream, &mark(1)].concat();
    // Junk in front, and every 40 packets a piece of another length; none looks like the start of a packet.
    let (mut dirty, mut junk) = (vec![0xa5; 777], 777);
    for (i, packets) in sent.chunks(40 * 188).enumerate() {
        dirty.extend(packets);
        if i % 2 == 0 {
            let piece = vec![0x12; 1 + i * 37 % 600];
            junk += piece.len();
            dirty.extend(piece);
        }
    }
    // The grid is found where several packets follow each other.
    dirty.extend((0..8).flat_map(|_| mark(1)));
    Sender::new(local(port)).send_paced(&dirty, 1316, 10.0);
    wait_for("the last packet", || holds(1, &receiver.bytes()).then_some(()));
    same("with junk", 0, &receiver.bytes(), &stream);
    let counted = |i: &serde_json::Value| i["stats"]["junk_bytes"] == junk && i["stats"]["resyncs"] != 0;
    engine.wait(&format!("/api/inputs/{input}"), "counts of the junk", counted);
}

#[test]
fn every_stream_comes_through_rtp_disordered_and_doubled() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtp://127.0.0.1:{port}?reorder_ms=500"));
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let mut sender = Sender::rtp(local(port), 0x1234_5678);
    for (turn, (name, sent)) in (0..).zip(streams()) {
        knock(2 * turn, |mark| sender.send(mark), || holds(2 * turn, &receiver.bytes()));
        for eight in sent.chunks(1316).collect::<Vec<_>>().chunks(8) {
            let mut packets: Vec<Vec<u8>> = eight.iter().map(|payload| sender.wrap(payload)).collect();
            // The third comes last and the first one twice; the first stays first, so that it can be told what a
            // receiver believes of it.
            let (third, first) = (packets.remove(2.min(packets.len() - 1)), packets.first().cloned());
            packets.push(third);
            packets.extend(first);
            packets.iter().for_each(|packet| sender.send_raw(packet));
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        knock(2 * turn + 1, |mark| sender.send(mark), || holds(2 * turn + 1, &receiver.bytes()));
        same(&name, turn, &receiver.bytes(), &sent);
        receiver.clear();
    }
    let seen = engine.wait(&format!("/api/inputs/{input}"), "counts", |i| i["stats"]["rtp_discarded"] != 0);
    assert_eq!(seen["stats"]["rtp_lost"], 0);
    assert_ne!(seen["stats"]["rtp_reordered"], 0);
    assert_eq!(seen["stats"]["rtp_ssrc_changes"], 0);
}

#[test]
fn an_rtp_output_numbers_its_packets() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receivers = [Receiver::rtp(), Receiver::rtp()];
    for (i, receiver) in receivers.iter().enumerate() {
        engine.add_output(input, &format!("out {i}"), &receiver.url());
    }
    let sent = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    Sender::new(local(port)).send_marked(0, &sent, 1316, 20.0, &receivers.each_ref());
    for receiver in &receivers {
        same("rtp", 0, &receiver.bytes(), &sent);
        let packets = receiver.datagrams();
        for pair in packets.windows(2) {
            let [a, b] = pair else { continue };
            // Version 2, no padding, no extension, no sources; payload type 33 (RFC 3551, 6).
            assert_eq!((b[0], b[1] & 0x7f), (0x80, 33));
            let number = |p: &[u8]| u16::from_be_bytes([p[2], p[3]]);
            assert_eq!(number(b), number(a).wrapping_add(1));
            assert_eq!(b[8..12], a[8..12], "one synchronisation source");
            let time = |p: &[u8]| u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            let marked = b[1] & 0x80 != 0;
            // A marker says that the timestamps jump (RFC 2250, 2).
            assert!(marked || time(b).wrapping_sub(time(a)) < 90_000 * 60, "{} {}", time(a), time(b));
        }
    }
}

#[test]
fn ipv6_carries_the_same() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://[::1]:{port}"));
    let v6 = || UdpSocket::bind("[::1]:0").expect("IPv6 on loopback");
    let receivers = [Receiver::on(v6()), Receiver::on(v6()), Receiver::on(v6()).of_rtp()];
    engine.add_output(input, "udp", &receivers[0].url());
    engine.add_output(input, "late", &format!("{}?delay_ms=40&ttl=3&dscp=34", receivers[1].url()));
    engine.add_output(input, "rtp", &receivers[2].url());
    let sent = std::fs::read(testdata("ts/h265_async.ts")).expect("a stream");
    let to = SocketAddr::new("::1".parse().expect("an address"), port);
    Sender::new(to).send_marked(0, &sent, 1316, 20.0, &receivers.each_ref());
    receivers.iter().for_each(|receiver| same(&receiver.url(), 0, &receiver.bytes(), &sent));
}

/// A socket that gets this group from loopback, and nothing else.
fn join(group: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&SocketAddr::from((group, port)).into()).expect("the port of the group");
    socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).expect("a group");
    socket.into()
}

/// A socket that sends groups out on loopback.
fn multicaster() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    SockRef::from(&socket).set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("IP_MULTICAST_IF");
    socket
}

#[test]
fn multicast_comes_in_and_goes_out() {
    let engine = Engine::start();
    let (port, group, out) = (free_port(), Ipv4Addr::new(239, 255, 17, 1), Ipv4Addr::new(239, 255, 17, 2));
    let input = engine.add_input("in", &format!("udp://@{group}:{port}?interface=lo"));
    let (plain, other) = (Receiver::on(join(out, port)), Receiver::new());
    engine.add_output(input, "group", &format!("udp://{out}:{port}?interface=lo&ttl=2"));
    engine.add_output(input, "unicast", &other.url());
    let sent = std::fs::read(testdata("ts/h264_async.ts")).expect("a stream");
    let mut sender = Sender::on(multicaster(), (group, port).into());
    sender.send_marked(0, &sent, 1316, 20.0, &[&plain, &other]);
    same("group", 0, &plain.bytes(), &sent);
    same("unicast", 0, &other.bytes(), &sent);
    let interface =
        engine.add_output(input, "by address", &format!("udp://{out}:{port}?interface=127.0.0.1"));
    engine.wait_state(&interface, "Sending");
}

#[test]
fn a_live_stream_of_ffmpeg_is_whole_and_plays() {
    require!("ffmpeg", "ffprobe");
    let engine = Engine::start();
    // ffmpeg sends to a group, so that the engine and this test hear the very same datagrams.
    let (port, group) = (free_port(), Ipv4Addr::new(239, 255, 17, 3));
    let input = engine.add_input("in", &format!("udp://{group}:{port}?interface=lo"));
    let before = Receiver::on(join(group, port));
    let after = [Receiver::new(), Receiver::rtp()];
    for (i, receiver) in after.iter().enumerate() {
        let output = engine.add_output(input, &format!("out {i}"), &receiver.url());
        engine.wait_state(&output, "Starved");
    }
    let output = engine.add_output(input, "file", "file:live.ts");
    engine.wait_state(&output, "Starved");
    engine.wait(&format!("/api/inputs/{input}"), "the group", |i| {
        i["reason"] == "waiting for the first packet"
    });
    let url = format!("udp://{group}:{port}?localaddr=127.0.0.1&ttl=1&pkt_size=1316");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25"])
        .args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", "4"])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "25", "-b:v", "2M"])
        .args(["-c:a", "aac", "-f", "mpegts", &url])
        .output()
        .expect("ffmpeg");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let sent = wait_for("the stream", || {
        let bytes = before.bytes();
        after.iter().all(|receiver| receiver.bytes().len() >= bytes.len()).then_some(bytes)
    });
    assert!(sent.len() > 100_000, "{} bytes", sent.len());
    for receiver in &after {
        assert_eq!(sha256(&receiver.bytes()), sha256(&sent), "{}", receiver.url());
    }
    let live = engine.media().join("live.ts");
    let read = || std::fs::read(&live).ok();
    let dumped = wait_for("the file", || read().filter(|bytes| bytes.len() >= sent.len()));
    assert_eq!(sha256(&dumped), sha256(&sent));

    let heard = engine.folder().join("heard.ts");
    std::fs::write(&heard, after[0].bytes()).expect("a file");
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-show_entries", "stream=codec_name,nb_read_frames"])
        .args(["-of", "csv=p=0"])
        .arg(&heard)
        .output()
        .expect("ffprobe");
    assert_eq!(String::from_utf8_lossy(&probe.stderr), "");
    let streams = String::from_utf8_lossy(&probe.stdout);
    assert!(streams.contains("h264,100") && streams.contains("aac,"), "{streams}");
}

#[test]
fn gstreamer_sends_rtp() {
    require!("gst-launch-1.0");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtp://127.0.0.1:{port}"));
    let receiver = Receiver::new();
    let output = engine.add_output(input, "out", &receiver.url());
    engine.wait_state(&output, "Starved");
    engine
        .wait(&format!("/api/inputs/{input}"), "a socket", |i| i["reason"] == "waiting for the first packet");
    let file = testdata("ts/h264_async.ts");
    let sent = std::fs::read(&file).expect("a stream");
    let made = Command::new("gst-launch-1.0")
        .arg("-q")
        .arg("filesrc")
        .arg(format!("location={}", file.display()))
        .arg("blocksize=13160")
        .args(["!", "video/mpegts,systemstream=(boolean)true,packetsize=(int)188"])
        .args(["!", "rtpmp2tpay", "mtu=1400", "!", "udpsink", "host=127.0.0.1", "sync=false"])
        .arg(format!("port={port}"))
        .output()
        .expect("gst-launch-1.0");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(sha256(&receiver.payload(sent.len())), sha256(&sent));
}

#[test]
fn gstreamer_reads_rtp_and_udp() {
    require!("gst-launch-1.0");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let sent = std::fs::read(testdata("ts/h265_async.ts")).expect("a stream");
    let caps = "caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=MP2T,payload=33";
    let mut peers = Vec::new();
    for (name, reads) in [("rtp", &[caps, "!", "rtpmp2tdepay"][..]), ("udp", &[])] {
        let (at, file) = (free_port(), engine.folder().join(name));
        engine.add_output(input, name, &format!("{name}://127.0.0.1:{at}"));
        let mut command = Command::new("gst-launch-1.0");
        command.args(["-q", "udpsrc", "address=127.0.0.1"]).arg(format!("port={at}"));
        command.args(["buffer-size=4000000"]).args(reads).args(["!", "filesink", "buffer-mode=unbuffered"]);
        command.arg(format!("location={}", file.display()));
        peers.push((name, file, Peer::start(&mut command)));
    }
    let read = |file: &PathBuf| std::fs::read(file).unwrap_or_default();
    let all = |number| peers.iter().all(|(_, file, _)| holds(number, &read(file)));
    let mut sender = Sender::new(local(port));
    knock(0, |mark| sender.send(mark), || all(0));
    sender.send_paced(&sent, 1316, 20.0);
    knock(1, |mark| sender.send(mark), || all(1));
    for (name, file, _) in &peers {
        same(name, 0, &read(file), &sent);
    }
}

#[test]
fn multicat_reads_rtp_and_udp() {
    require!("multicat");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let witness = Receiver::new();
    engine.add_output(input, "witness", &witness.url());
    let mut sent = std::fs::read(testdata("ts/h264_dualklv.ts")).expect("a stream");
    // multicat fills datagrams of less than seven packets up with null packets.
    sent.truncate(sent.len() / 1316 * 1316);
    let mut peers = Vec::new();
    for (name, udp) in [("rtp", false), ("udp", true)] {
        let (at, file) = (free_port(), engine.folder().join(name));
        engine.add_output(input, name, &format!("{name}://127.0.0.1:{at}"));
        let mut command = Command::new("multicat");
        command.args(udp.then_some("-u")).arg("-U").arg(format!("@127.0.0.1:{at}")).arg(&file);
        peers.push((name, file, Peer::start(&mut command)));
    }
    let files: Vec<PathBuf> = peers.iter().map(|(_, file, _)| file.clone()).collect();
    let read = |file: &PathBuf| std::fs::read(file).unwrap_or_default();
    let mut sender = Sender::new(local(port));
    // Until multicat listens; it writes its file in pieces.
    knock(0, |mark| sender.send(&mark.repeat(7)), || files.iter().all(|file| holds(0, &read(file))));
    sender.send_paced(&sent, 1316, 20.0);
    knock(1, |mark| sender.send(&mark.repeat(7)), || files.iter().all(|file| holds(1, &read(file))));
    for (name, file, _) in &peers {
        same(name, 0, &read(file), &sent);
    }
}
