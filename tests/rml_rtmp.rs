//! RTMP against rml_rtmp, a client and server in Rust that share nothing with ours: what it publishes, and what it is
//! sent, is compared tag by tag.
#![allow(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
    ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
};
use rml_rtmp::time::RtmpTimestamp;
use support::{
    Engine, PATIENCE, assert_run, clip, complaints, free_port, looping, pictures, require, sounds, trimmed,
    wait_for,
};

/// A tag of an FLV file: audio (8) or video (9), milliseconds, and its body.
struct Tag {
    kind: u8,
    timestamp: u32,
    body: Bytes,
}

/// The clip's tags as ffmpeg makes them.
fn tags(folder: &Path) -> Vec<Tag> {
    let file = folder.join("clip.flv");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-i"]).arg(clip()).args(["-c", "copy", "-flvflags", "no_duration_filesize"]);
    assert!(ffmpeg.arg(&file).stdin(Stdio::null()).status().expect("ffmpeg").success());
    let file = std::fs::read(file).expect("a file");
    // Behind the header and the size of no tag.
    let mut rest = &file[13..];
    let mut tags = Vec::new();
    while let [kind, l0, l1, l2, t0, t1, t2, t3, ..] = *rest {
        let length = u32::from_be_bytes([0, l0, l1, l2]) as usize;
        let timestamp = u32::from_be_bytes([t3, t0, t1, t2]);
        tags.push(Tag { kind, timestamp, body: Bytes::copy_from_slice(&rest[11..11 + length]) });
        rest = &rest[15 + length..];
    }
    tags.retain(|tag| matches!(tag.kind, 8 | 9));
    tags
}

/// An FLV file of these tags.
fn write_flv(tags: &[Tag], path: &Path) {
    let mut file = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for Tag { kind, timestamp, body } in tags {
        let length = (body.len() as u32).to_be_bytes();
        let [t3, t0, t1, t2] = timestamp.to_be_bytes();
        file.extend([*kind, length[1], length[2], length[3], t0, t1, t2, t3, 0, 0, 0]);
        file.extend_from_slice(body);
        file.extend((body.len() as u32 + 11).to_be_bytes());
    }
    std::fs::write(path, file).expect("a file");
}

/// A connection with its handshake done, and what came behind it.
fn shake_hands(mut socket: &TcpStream, role: PeerType) -> Vec<u8> {
    let mut handshake = Handshake::new(role);
    let first = handshake.generate_outbound_p0_and_p1().expect("a handshake");
    socket.write_all(&first).expect("a peer that reads");
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer).expect("a peer that answers");
        assert_ne!(count, 0, "the engine closed in the handshake");
        match handshake.process_bytes(&buffer[..count]).expect("a handshake that rml_rtmp understands") {
            HandshakeProcessResult::InProgress { response_bytes } => {
                socket.write_all(&response_bytes).expect("a peer that reads");
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).expect("a peer that reads");
                return remaining_bytes;
            }
        }
    }
}

struct Publisher {
    socket: TcpStream,
    session: ClientSession,
    events: Vec<ClientSessionEvent>,
}

impl Publisher {
    fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let rest = shake_hands(&socket, PeerType::Client);
        let (session, results) = ClientSession::new(ClientSessionConfig::new()).expect("a session");
        let mut publisher = Self { socket, session, events: Vec::new() };
        publisher.take(results);
        let results = publisher.session.handle_input(&rest).expect("messages that rml_rtmp understands");
        publisher.take(results);
        publisher
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => {
                    self.socket.write_all(&packet.bytes).expect("a peer that reads");
                }
                ClientSessionResult::RaisedEvent(event) => self.events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn read_until(&mut self, wanted: fn(&ClientSessionEvent) -> bool) {
        let mut buffer = [0; 4096];
        while !self.events.iter().any(wanted) {
            let count = self.socket.read(&mut buffer).expect("an answer");
            assert_ne!(count, 0, "the engine closed after {:?}", self.events);
            let results = self.session.handle_input(&buffer[..count]);
            self.take(results.expect("messages that rml_rtmp understands"));
        }
    }
}

#[test]
fn rml_rtmp_publishes_and_what_it_gives_goes_on() {
    require!("ffmpeg");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtmp://127.0.0.1:{port}/live/key?mode=listener"));
    let output = engine.add_output(input, "file", "file:published.ts");
    wait_for("the port to open", || TcpStream::connect(("127.0.0.1", port)).ok());
    let mut publisher = Publisher::connect(port);
    let request = publisher.session.request_connection("live".into()).expect("a request");
    publisher.take(vec![request]);
    publisher.read_until(|event| matches!(event, ClientSessionEvent::ConnectionRequestAccepted));
    let request = publisher.session.request_publishing("key".into(), PublishRequestType::Live);
    publisher.take(vec![request.expect("a request")]);
    publisher.read_until(|event| matches!(event, ClientSessionEvent::PublishRequestAccepted));

    let tags = tags(engine.folder());
    let start = Instant::now();
    for tag in &tags {
        // Twice as fast as it is: no publisher keeps time.
        let due = start + Duration::from_millis((tag.timestamp / 2).into());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (time, body) = (RtmpTimestamp::new(tag.timestamp), tag.body.clone());
        let sent = match tag.kind {
            9 => publisher.session.publish_video_data(body, time, false),
            _ => publisher.session.publish_audio_data(body, time, false),
        };
        publisher.take(vec![sent.expect("a message")]);
    }
    let messages = tags.len() as u64;
    let path = format!("/api/inputs/{input}");
    engine.wait(&path, "every message", |i| i["stats"]["flow"]["messages"].as_u64() >= Some(messages));
    let end = publisher.session.stop_publishing().expect("an end");
    publisher.take(end);
    engine.wait(&path, "the end of the publisher", |input| input["state"] != "Live");
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    let file = engine.media().join("published.ts");
    assert_eq!(complaints(&file), "", "decoding what was published");
    assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 195);
    assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 365);
}

#[test]
fn rml_rtmp_is_pushed_to_and_understands_every_message() {
    require!("ffmpeg");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let engine = Engine::start();
    let output = engine.add_output(looping(&engine), "out", &format!("rtmp://127.0.0.1:{port}/live/key"));
    let (socket, _) = listener.accept().expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut came = shake_hands(&socket, PeerType::Server);
    let (mut session, mut results) = ServerSession::new(ServerSessionConfig::new()).expect("a session");
    let (mut published, mut width, mut tags) = (None, None, Vec::new());
    let mut buffer = vec![0; 64 << 10];
    while tags.len() < ENOUGH {
        results.extend(session.handle_input(&came).expect("messages that rml_rtmp understands"));
        while !results.is_empty() {
            for result in std::mem::take(&mut results) {
                match result {
                    ServerSessionResult::OutboundResponse(packet) => {
                        (&socket).write_all(&packet.bytes).expect("a peer that reads");
                    }
                    ServerSessionResult::RaisedEvent(event) => match event {
                        ServerSessionEvent::ConnectionRequested { request_id, .. } => {
                            results.extend(session.accept_request(request_id).expect("an answer"));
                        }
                        ServerSessionEvent::PublishStreamRequested {
                            request_id,
                            app_name,
                            stream_key,
                            ..
                        } => {
                            published = Some((app_name, stream_key));
                            results.extend(session.accept_request(request_id).expect("an answer"));
                        }
                        ServerSessionEvent::StreamMetadataChanged { metadata, .. } => {
                            width = metadata.video_width;
                        }
                        ServerSessionEvent::VideoDataReceived { data, timestamp, .. } => {
                            tags.push(Tag { kind: 9, timestamp: timestamp.value, body: data });
                        }
                        ServerSessionEvent::AudioDataReceived { data, timestamp, .. } => {
                            tags.push(Tag { kind: 8, timestamp: timestamp.value, body: data });
                        }
                        _ => {}
                    },
                    ServerSessionResult::UnhandleableMessageReceived(_) => {}
                }
            }
        }
        let count = (&socket).read(&mut buffer).expect("media");
        assert_ne!(count, 0, "the engine closed after {} tags", tags.len());
        came = buffer[..count].to_vec();
    }
    engine.wait_state(&output, "Live");
    assert_eq!(published, Some(("live".into(), "key".into())));
    assert_eq!(width, Some(320));
    for kind in [8, 9] {
        let times = tags.iter().filter(|tag| tag.kind == kind).map(|tag| tag.timestamp);
        assert!(times.is_sorted(), "times of tags of kind {kind} go back");
    }
    let file = engine.folder().join("pushed.flv");
    write_flv(&tags, &file);
    assert_eq!(complaints(&file), "", "decoding what was pushed");
    assert_run("pictures", &trimmed(pictures(&file)), &pictures(&clip()), 90);
    assert_run("sounds", &trimmed(sounds(&file)), &sounds(&clip()), 180);
}

/// Tags of four seconds or more: 25 pictures and 47 sounds each.
const ENOUGH: usize = 300;
