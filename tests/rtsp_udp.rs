//! RTSP whose media travel in datagrams, against others: every access unit compared with what went in; and against
//! readers that lie about their ports, vanish, or say nothing.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{
    Engine, GstServer, Peer, assert_run, clip, complaints, ffmpeg_reads, free_port, gst_reads, klv_lengths,
    looping, pictures, relayed, require, serve_rtsp, sounds, trimmed, wait_for,
};

/// An engine that serves the looping clip, the output's path, and its url.
fn serving(engine: &Engine, rest: &str) -> (String, String) {
    serve_rtsp(engine, looping(engine), "", rest)
}

fn size(path: &std::path::Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}

#[test]
fn ffmpeg_reads_every_picture_in_datagrams() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (output, url) = serving(&engine, "");
    let file = engine.folder().join("udp.h264");
    assert_eq!(ffmpeg_reads(&url, "udp", 6, &file), "");
    assert_eq!(complaints(&file), "");
    assert_run("pictures", &pictures(&file), &pictures(&clip()), 5 * 25);
    let stats = engine.wait(&output, "the reader to be gone", |output| output["stats"]["sessions"] == 0);
    assert_eq!((&stats["stats"]["send_errors"], &stats["stats"]["skipped"]), (&0.into(), &0.into()));
}

#[test]
fn gstreamer_reads_pictures_and_sound_in_datagrams_and_its_reports_make_the_output_live() {
    require!("ffmpeg", "gst-launch-1.0");
    let engine = Engine::start();
    let (output, url) = serving(&engine, "");
    let (video, audio) = (engine.folder().join("g.h264"), engine.folder().join("g.aac"));
    let Some(peer) = gst_reads(&url, "udp", [(&video, 350_000), (&audio, 40_000)]) else { return };
    engine.wait(&output, "a report of the receiver", |output| output["state"] == "Live");
    let sessions = engine.get(&format!("{output}/sessions"));
    assert!(sessions[0]["flow"]["bytes"].as_u64() > Some(350_000), "{sessions:#}");
    assert!(sessions[0]["flow"]["acknowledged_bytes"].as_u64() > Some(0), "{sessions:#}");
    assert_eq!(sessions[0]["flow"]["lost"], 0, "{sessions:#}");
    drop(peer);
    assert_run("pictures", &trimmed(pictures(&video)), &pictures(&clip()), 4 * 25);
    assert_run("sounds", &trimmed(sounds(&audio)), &sounds(&clip()), 3 * 45);
}

#[test]
fn this_engine_reads_what_it_serves_and_loses_no_unit() {
    require!("ffmpeg");
    let (near, far) = (Engine::start(), Engine::start());
    let (output, url) = serving(&near, "");
    let file = relayed(&far, &format!("{url}?transport=udp"), 400_000);
    assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 4 * 25);
    assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 4 * 45);
    let sessions = near.get(&format!("{output}/sessions"));
    assert!(sessions[0]["flow"]["messages"].as_u64() > Some(200), "{sessions:#}");
}

#[test]
fn klv_units_longer_than_a_datagram_come_through() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(false) else { return };
    let (near, far) = (Engine::start(), Engine::start());
    let input = near.add_input("klv", &server.url("klv"));
    near.wait_state(&format!("/api/inputs/{input}"), "Live");
    let (_, url) = serve_rtsp(&near, input, "", "");
    let file = relayed(&far, &format!("{url}?transport=udp"), 500_000);
    let lengths = klv_lengths(&file);
    assert!(lengths.len() >= 10, "{lengths:?}");
    let long = |lengths: &[usize]| lengths.iter().filter(|length| **length > 4000).count();
    assert!(lengths.windows(5).all(|five| long(five) == 1), "{lengths:?}");
}

#[test]
fn a_stream_is_pushed_to_gstreamer_in_datagrams() {
    require!("ffmpeg");
    let Some(server) = GstServer::start(false) else { return };
    let engine = Engine::start();
    std::fs::copy(clip(), engine.media().join("clip.ts")).expect("a clip");
    let input = engine.add_input("clip", "file:clip.ts?loop=true");
    let output = engine.add_output(input, "out", &server.url("rec?transport=udp"));
    engine.wait(&output, "datagrams to leave", |output| {
        matches!(output["state"].as_str(), Some("Sending" | "Live"))
    });
    wait_for("GStreamer to record", || (server.size("rec.h264") > 250_000).then_some(()));
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    assert_run("pictures", &trimmed(pictures(&server.recorded("rec.h264"))), &pictures(&clip()), 4 * 25);
    assert_run("sounds", &trimmed(sounds(&server.recorded("rec.aac"))), &sounds(&clip()), 3 * 45);
}

/// A client that says what a test wants.
struct Client {
    socket: TcpStream,
    url: String,
    cseq: u32,
    session: String,
}

impl Client {
    fn dial(url: &str) -> Self {
        let place = url.trim_start_matches("rtsp://").split('/').next().expect("a place");
        let socket = TcpStream::connect(place).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("SO_RCVTIMEO");
        Self { socket, url: url.into(), cseq: 0, session: String::new() }
    }

    /// The head of the answer.
    fn ask(&mut self, method: &str, track: &str, headers: &str) -> String {
        self.cseq += 1;
        let Self { url, cseq, session, .. } = self;
        let request = format!("{method} {url}{track} RTSP/1.0\r\nCSeq: {cseq}\r\n{session}{headers}\r\n");
        self.socket.write_all(request.as_bytes()).expect("a connection");
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            assert_eq!(self.socket.read(&mut byte).expect("an answer"), 1, "the connection is closed");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        if let Some(session) = head.lines().find(|line| line.starts_with("Session:")) {
            self.session = format!("{}\r\n", session.split(';').next().expect("an id"));
        }
        head
    }

    fn set_up(&mut self, track: u8, transport: &str) -> String {
        self.ask("SETUP", &format!("/trackID={track}"), &format!("Transport: {transport}\r\n"))
    }
}

fn socket() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("SO_RCVTIMEO");
    let port = socket.local_addr().expect("an address").port();
    (socket, port)
}

/// Sequence numbers that come within so long.
fn heard(socket: &UdpSocket, within: Duration) -> Vec<u16> {
    let (mut all, mut buffer, until) = (Vec::new(), [0; 2048], Instant::now() + within);
    while Instant::now() < until {
        let Ok(count) = socket.recv(&mut buffer) else { continue };
        assert!((12..=1472).contains(&count), "{count} bytes");
        all.push(u16::from_be_bytes([buffer[2], buffer[3]]));
    }
    all
}

#[test]
fn a_reader_is_sent_what_it_asks_for_at_its_own_host_only() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (output, url) = serving(&engine, "");
    let mut client = Client::dial(&url);
    for refused in [
        "RTP/AVP;unicast;client_port=0-1",
        "RTP/AVP;unicast;client_port=53-54",
        "RTP/AVP;unicast;client_port=65535-65536",
        "RTP/AVP;unicast;client_port=5000-5000",
        "RTP/AVP;unicast",
        "RTP/AVP;unicast;destination=192.0.2.1;client_port=5000-5001",
        "RTP/SAVP;unicast;client_port=5000-5001",
        "RTP/AVP;multicast",
    ] {
        let answer = client.set_up(0, refused);
        assert!(answer.starts_with("RTSP/1.0 461"), "{refused}: {answer}");
    }
    let ((rtp, port), (rtcp, control)) = (socket(), socket());
    // What cannot be had is passed over.
    let answer = client.set_up(
        0,
        &format!("RTP/AVP;unicast;client_port=0-1,RTP/AVP;unicast;destination=127.0.0.1;client_port={port}-{control}"),
    );
    assert!(answer.starts_with("RTSP/1.0 200"), "{answer}");
    assert!(answer.contains(&format!("client_port={port}-{control};server_port=")), "{answer}");
    // One session has one way.
    let answer = client.set_up(1, "RTP/AVP/TCP;interleaved=2-3");
    assert!(answer.starts_with("RTSP/1.0 461"), "{answer}");
    // Again and again, the same: nothing is taken for it.
    let open = || std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).expect("descriptors").count();
    let before = open();
    for _ in 0..3000 {
        let answer = client.set_up(0, &format!("RTP/AVP;unicast;client_port={port}-{control}"));
        assert!(answer.starts_with("RTSP/1.0 200"), "{answer}");
    }
    assert_eq!(open(), before);
    let (_sound, sound) = socket();
    let answer = client.set_up(1, &format!("RTP/AVP;unicast;client_port={sound}-{control}"));
    assert!(answer.starts_with("RTSP/1.0 200"), "{answer}");
    let answer = client.ask("PLAY", "", "");
    assert!(answer.contains("RTP-Info:"), "{answer}");
    let first: u16 = answer
        .split(";seq=")
        .nth(1)
        .and_then(|rest| rest.split(';').next())
        .expect("a number")
        .parse()
        .expect("a number");
    // It says nothing of what it gets: that it arrives is not known.
    engine.wait_state(&output, "Sending");
    // A question that is refused in mid-play harms nothing.
    assert!(client.set_up(0, "RTP/AVP;unicast;client_port=5000-5001").starts_with("RTSP/1.0 455"));
    let got = heard(&rtp, Duration::from_secs(3));
    // Where it was told, or a random access point later, if that came between.
    assert!(got.first().is_some_and(|got| got.wrapping_sub(first) < 200), "{first} {got:?}");
    assert!(got.len() > 60 && got.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{got:?}");
    let mut report = [0; 2048];
    let count = rtcp.recv(&mut report).expect("a sender report");
    assert!(count >= 28 && report[1] == 200, "{:?}", &report[..count]);
    assert_eq!(engine.get(&output)["state"], "Sending");
    // It vanishes: without the connection nothing is sent.
    drop(client);
    engine.wait(&output, "the session to be gone", |output| output["stats"]["sessions"] == 0);
    drop(heard(&rtp, Duration::from_millis(400)));
    assert!(heard(&rtp, Duration::from_millis(700)).is_empty());
    engine.wait_state(&output, "Idle");
}

#[test]
fn one_that_is_kicked_gets_a_bye_and_nothing_more() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (output, url) = serving(&engine, "");
    let mut client = Client::dial(&url);
    let ((rtp, port), (rtcp, control)) = (socket(), socket());
    let answer = client.set_up(0, &format!("RTP/AVP/UDP;unicast;client_port={port}-{control}"));
    assert!(answer.starts_with("RTSP/1.0 200"), "{answer}");
    client.ask("PLAY", "", "");
    assert!(!heard(&rtp, Duration::from_secs(1)).is_empty());
    let sessions = engine.get(&format!("{output}/sessions"));
    engine.delete(&format!("{output}/sessions/{}", sessions[0]["id"]));
    wait_for("a BYE", || {
        let mut report = [0; 2048];
        let count = rtcp.recv(&mut report).ok()?;
        // An empty receiver report of 8 bytes before it (RFC 3550, 6.1).
        (count >= 16 && report[1] == 201 && report[9] == 203).then_some(())
    });
    drop(heard(&rtp, Duration::from_millis(100)));
    assert!(heard(&rtp, Duration::from_millis(700)).is_empty());
}

#[test]
fn garbage_at_the_rtcp_port_harms_nobody() {
    require!("ffmpeg");
    let engine = Engine::start();
    let (_, url) = serving(&engine, "");
    let mut client = Client::dial(&url);
    let ((rtp, port), (rtcp, control)) = (socket(), socket());
    let answer = client.set_up(0, &format!("RTP/AVP;unicast;client_port={port}-{control}"));
    let server = answer.split("server_port=").nth(1).expect("ports");
    let server: Vec<u16> =
        server.split(['-', ';', '\r']).take(2).map(|port| port.parse().expect("a port")).collect();
    client.ask("PLAY", "", "");
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let stop = Instant::now() + Duration::from_secs(2);
    let (mut got, other) = (Vec::new(), socket().0);
    while Instant::now() < stop {
        for socket in [&rtcp, &other, &rtp] {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut garbage: Vec<u8> = random.to_le_bytes().repeat(1 + (random % 150) as usize);
            garbage[0] = garbage[0] & 0x3f | 0x80;
            garbage[1] = 200 + garbage[1] % 8;
            for port in &server {
                let _ = socket.send_to(&garbage, ("127.0.0.1", *port));
            }
        }
        got.extend(heard(&rtp, Duration::from_millis(5)));
    }
    assert!(got.len() > 40 && got.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{got:?}");
}

/// A transport stream that is served, or pushed, by one engine and taken by another comes as it was.
fn assert_as_it_was(file: &std::path::Path) {
    let (got, sent) = (std::fs::read(file).expect("a file"), std::fs::read(clip()).expect("a clip"));
    let start = sent.windows(1880).position(|window| window == &got[..1880]).expect("packets of the clip");
    assert_eq!(start % 188, 0);
    let same = got.len().min(sent.len() - start);
    assert!(same > 90_000 && got[..same] == sent[start..start + same], "not the bytes that were sent");
}

#[test]
fn a_transport_stream_is_served_byte_for_byte() {
    require!("ffmpeg");
    for transport in ["tcp", "udp"] {
        let (near, far) = (Engine::start(), Engine::start());
        let (output, url) = serving(&near, "?payload=mp2t");
        let file = relayed(&far, &format!("{url}?transport={transport}"), 120_000);
        assert_as_it_was(&file);
        assert_eq!(near.get(&output)["dropped_tracks"].as_array().map_or(0, Vec::len), 0);
    }
    let engine = Engine::start();
    let (_, url) = serving(&engine, "?payload=mp2t");
    let read = engine.folder().join("read.h264");
    ffmpeg_reads(&url, "udp", 4, &read);
    assert_run("pictures", &pictures(&read), &pictures(&clip()), 2 * 25);
}

#[test]
fn a_transport_stream_is_pushed_byte_for_byte() {
    require!("ffmpeg");
    for transport in ["tcp", "udp"] {
        let (near, far) = (Engine::start(), Engine::start());
        let port = free_port();
        let input = far.add_input("in", &format!("rtsp://:{port}/pub"));
        let path = format!("/api/inputs/{input}");
        far.wait(&path, "a port to listen on", |input| input["state"] != "Connecting");
        let output = far.add_output(input, "file", "file:pushed.ts");
        std::fs::copy(clip(), near.media().join("clip.ts")).expect("a clip");
        let source = near.add_input("clip", "file:clip.ts?loop=true");
        let url = format!("rtsp://127.0.0.1:{port}/pub?payload=mp2t&transport={transport}");
        near.add_output(source, "out", &url);
        far.wait_state(&path, "Live");
        let file = far.media().join("pushed.ts");
        wait_for("the stream to arrive", || (size(&file) > 120_000).then_some(()));
        far.order(&output, "stop");
        far.wait_state(&output, "Idle");
        assert_as_it_was(&file);
    }
}

#[test]
fn a_group_is_sent_to_once_however_many_listen() {
    require!("ffmpeg", "gst-launch-1.0");
    let (near, far) = (Engine::start(), Engine::start());
    let port = free_port() & !1;
    let (output, url) = serving(&near, &format!("?multicast=239.255.77.9:{port}&interface=lo&ttl=3"));
    let answer = Client::dial(&url).set_up(1, "RTP/AVP/UDP;multicast");
    let expected = format!("multicast;port={}-{};destination=239.255.77.9;ttl=3", port + 2, port + 3);
    assert!(answer.starts_with("RTSP/1.0 200") && answer.contains(&expected), "{answer}");
    let video = near.folder().join("group.h264");
    let pipe = format!(
        "rtspsrc location={url} protocols=udp-mcast multicast-iface=lo latency=200 name=s s. ! \
         application/x-rtp,media=video ! rtph264depay ! h264parse ! \
         video/x-h264,stream-format=byte-stream,alignment=au ! filesink async=false location={}",
        video.display()
    );
    let peer = Peer::start(Command::new("gst-launch-1.0").arg("-q").args(pipe.split_whitespace()));
    let file = relayed(&far, &format!("{url}?transport=multicast"), 400_000);
    wait_for("GStreamer to read", || (size(&video) > 250_000).then_some(()));
    let sessions = near.get(&format!("{output}/sessions"));
    assert_eq!(sessions.as_array().map(Vec::len), Some(2), "{sessions:#}");
    let first = sessions[0]["flow"]["messages"].as_u64().expect("a count");
    let sent = near.get(&output);
    assert_eq!(sent["state"], "Sending");
    assert!(sent["stats"]["datagrams"].as_u64() < Some(first + first / 4), "{sent:#} {first}");
    drop(peer);
    assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 3 * 25);
    assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 3 * 45);
    assert_run("pictures", &trimmed(pictures(&video)), &pictures(&clip()), 2 * 25);
    // Whoever listens on is not cut off by one that leaves.
    near.wait(&output, "the first one to be gone", |output| output["stats"]["sessions"] == 1);
    let before = near.get(&output)["stats"]["datagrams"].as_u64();
    wait_for("the group to go on", || {
        (near.get(&output)["stats"]["datagrams"].as_u64() > before.map(|sent| sent + 50)).then_some(())
    });
}

#[test]
fn readers_are_sent_away_when_the_tracks_are_others() {
    require!("ffmpeg");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtsp://:{port}/pub"));
    let path = format!("/api/inputs/{input}");
    engine.wait(&path, "a port to listen on", |input| input["state"] != "Connecting");
    let publish = |sound: &[&str]| {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]).arg(clip());
        ffmpeg.args(["-map", "0:v:0", "-map", "0:a:0", "-c:v", "copy"]).args(sound);
        ffmpeg.args(["-f", "rtsp", "-rtsp_transport", "tcp", &format!("rtsp://127.0.0.1:{port}/pub")]);
        Peer::start(ffmpeg.stdin(Stdio::null()))
    };
    let first = publish(&["-c:a", "aac", "-ar", "48000"]);
    engine.wait_state(&path, "Live");
    let (output, url) = serve_rtsp(&engine, input, "", "");
    let mut over_tcp = Client::dial(&url);
    assert!(over_tcp.ask("DESCRIBE", "", "").contains("200 OK"));
    drop(over_tcp);
    let mut over_tcp = Client::dial(&url);
    assert!(over_tcp.set_up(0, "RTP/AVP/TCP;interleaved=0-1").contains("200 OK"));
    over_tcp.ask("PLAY", "", "");
    let ((_rtp, rtp), (_rtcp, rtcp)) = (socket(), socket());
    let mut over_udp = Client::dial(&url);
    assert!(over_udp.set_up(0, &format!("RTP/AVP;unicast;client_port={rtp}-{rtcp}")).contains("200 OK"));
    over_udp.ask("PLAY", "", "");
    engine.wait(&output, "both readers", |output| output["stats"]["sessions"] == 2);
    // The sound is of another rate: what the readers were told of it is wrong.
    let _second = publish(&["-c:a", "aac", "-ar", "32000"]);
    for mut client in [over_tcp, over_udp] {
        let (mut buffer, until) = (vec![0; 65_536], Instant::now() + Duration::from_secs(30));
        while client.socket.read(&mut buffer).is_ok_and(|count| count > 0) {
            assert!(Instant::now() < until, "it goes on");
        }
    }
    engine.wait(&output, "the readers to be gone", |output| output["stats"]["sessions"] == 0);
    let log = engine.get(&format!("{output}/logs")).to_string();
    assert!(log.contains("others than before"), "{log}");
    drop(first);
}
