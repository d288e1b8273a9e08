//! What RTSP servers in the field do wrong, one by one: a scripted server plays real pictures and misbehaves, and every
//! picture arrives all the same.
#![allow(clippy::disallowed_methods, reason = "its server paces in real time")]

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use millrace::wire::rtp::{Line, Packets, packetize_h264};
use millrace::wire::rtsp::{Decoder, Item, Request};
use support::{Engine, assert_run, pictures, require, wait_for};

/// What the server does wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trap {
    /// It asks something in mid-play.
    Request,
    /// Its Session header has more parameters, and spaces.
    Session,
    /// Its Content-Type has a parameter.
    ContentType,
    /// Its answers have no CSeq.
    NoCseq,
    /// It puts stray bytes between packets.
    Stray,
    /// Its source changes in mid-play, sequence and timestamps begin anew.
    Source,
    /// It takes no datagrams.
    OnlyTcp,
    /// It takes datagrams, and none comes.
    Blocked,
    /// Its nonce goes stale with every keepalive.
    Nonce,
    /// It says nothing of parameter sets, and sends them with every picture that can be started at.
    InBand,
    /// It names another place, at which it plays.
    Moved,
    /// It names another place again and again.
    MovedOn,
}

struct Camera {
    port: u16,
    sessions: Arc<AtomicU32>,
}

/// Access units of a clip without B-frames, as NAL units.
fn clip(folder: &std::path::Path) -> (std::path::PathBuf, Vec<Vec<Vec<u8>>>) {
    let path = folder.join("camera.h264");
    let coded = "-f lavfi -i testsrc2=size=320x180:rate=25 -t 6 -c:v libx264 -preset veryfast -bf 0 -g 12 \
                 -x264-params threads=1 -b:v 300k -pix_fmt yuv420p -f h264";
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-y"])
        .args(coded.split_whitespace())
        .arg(&path)
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("ffmpeg").success());
    let stream = std::fs::read(&path).expect("a clip");
    let starts: Vec<usize> = stream
        .windows(3)
        .enumerate()
        .filter(|(_, window)| *window == [0, 0, 1])
        .map(|(at, _)| at + 3)
        .collect();
    let mut units: Vec<Vec<Vec<u8>>> = vec![Vec::new()];
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).map_or(stream.len(), |next| next - 3);
        let length = stream[*start..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let nal = stream[*start..*start + length].to_vec();
        let slice = matches!(nal[0] & 0x1f, 1 | 5);
        units.last_mut().expect("a unit").push(nal);
        if slice {
            units.push(Vec::new());
        }
    }
    units.retain(|unit| !unit.is_empty());
    (path, units)
}

impl Camera {
    fn start(trap: Trap, units: Vec<Vec<Vec<u8>>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let sessions = Arc::<AtomicU32>::default();
        let count = Arc::clone(&sessions);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (units, count) = (units.clone(), Arc::clone(&count));
                thread::spawn(move || drop(serve(socket, trap, &units, &count)));
            }
        });
        Self { port, sessions }
    }

    fn url(&self, rest: &str) -> String {
        format!("rtsp://user:pw@127.0.0.1:{}/cam{rest}", self.port)
    }
}

/// One connection; it ends with an error when the peer leaves.
fn serve(
    mut socket: TcpStream,
    trap: Trap,
    units: &[Vec<Vec<u8>>],
    sessions: &AtomicU32,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut decoder, mut buffer, mut nonce) = (Decoder::default(), [0; 4096], 1u32);
    let (mut playing, mut rotated) = (false, false);
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        decoder.push(&buffer[..count]);
        while let Ok(Some(item)) = decoder.decode() {
            let Item::Request(request) = item else { continue };
            let known = request.headers.first("Authorization").unwrap_or_default();
            let fresh = known.contains(&format!("nonce=\"{nonce}\""));
            // Every other request in mid-play meets a new one.
            rotated = trap == Trap::Nonce && playing && fresh && !rotated;
            nonce += u32::from(rotated);
            if trap == Trap::Nonce && !known.contains(&format!("nonce=\"{nonce}\"")) {
                let challenge =
                    format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=true\r\n");
                answer(&mut socket, trap, &request, "401 Unauthorized", &challenge, "")?;
                continue;
            }
            respond(&mut socket, trap, &request, units)?;
            if request.method == "PLAY" {
                playing = true;
                sessions.fetch_add(1, Relaxed);
                let (socket, units) = (socket.try_clone()?, units.to_vec());
                thread::spawn(move || drop(play(socket, trap, &units)));
            }
        }
    }
}

fn respond(
    socket: &mut TcpStream,
    trap: Trap,
    request: &Request,
    units: &[Vec<Vec<u8>>],
) -> std::io::Result<()> {
    let session = match trap {
        Trap::Session => "Session: abc ; timeout = 60;x=y\r\n",
        Trap::Nonce => "Session: abc;timeout=4\r\n",
        _ => "Session: abc\r\n",
    };
    match request.method.as_str() {
        "OPTIONS" => {
            answer(socket, trap, request, "200 OK", "Public: DESCRIBE, SETUP, PLAY, GET_PARAMETER\r\n", "")
        }
        "DESCRIBE" if trap == Trap::MovedOn || trap == Trap::Moved && !request.uri.ends_with("/moved") => {
            let port = socket.local_addr()?.port();
            let place = format!("Location: rtsp://127.0.0.1:{port}/moved\r\n");
            answer(socket, trap, request, "302 Moved Temporarily", &place, "")
        }
        "DESCRIBE" => {
            use base64::Engine as _;
            let sets = units[0].iter().filter(|nal| matches!(nal[0] & 0x1f, 7 | 8));
            let sets: Vec<String> =
                sets.map(|nal| base64::engine::general_purpose::STANDARD.encode(nal)).collect();
            let fmtp = match trap {
                Trap::InBand => String::new(),
                _ => format!("a=fmtp:96 packetization-mode=1;sprop-parameter-sets={}\r\n", sets.join(",")),
            };
            let body = format!(
                "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n\
                 a=rtpmap:96 H264/90000\r\n{fmtp}a=control:track1\r\n"
            );
            let kind = match trap {
                Trap::ContentType => "Content-Type: application/sdp; charset=utf-8\r\n",
                _ => "Content-Type: application/sdp\r\n",
            };
            answer(socket, trap, request, "200 OK", kind, &body)
        }
        "SETUP" => {
            let asked = request.headers.first("Transport").unwrap_or_default();
            let udp = !asked.contains("interleaved");
            if trap == Trap::OnlyTcp && udp {
                return answer(socket, trap, request, "461 Unsupported Transport", "", "");
            }
            let ports = if udp { ";server_port=9-10" } else { "" };
            let transport = format!("Transport: {asked}{ports}\r\n{session}");
            answer(socket, trap, request, "200 OK", &transport, "")
        }
        _ => answer(socket, trap, request, "200 OK", session, ""),
    }
}

fn answer(
    socket: &mut TcpStream,
    trap: Trap,
    request: &Request,
    status: &str,
    headers: &str,
    body: &str,
) -> std::io::Result<()> {
    let cseq = match trap {
        Trap::NoCseq => String::new(),
        _ => format!("CSeq: {}\r\n", request.headers.first("CSeq").unwrap_or_default()),
    };
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    socket.write_all(format!("RTSP/1.0 {status}\r\n{cseq}{headers}{length}\r\n{body}").as_bytes())
}

/// Plays the clip again and again over the connection.
fn play(mut socket: TcpStream, trap: Trap, units: &[Vec<Vec<u8>>]) -> std::io::Result<()> {
    let mut line = Line::new(96, 0x1122_3344, 65_000, 1200);
    let mut packets = Packets::default();
    let (mut timestamp, mut count) = (4_294_900_000u32, 0);
    loop {
        for unit in units {
            packets.clear();
            if trap == Trap::Source && count == 30 {
                line = Line::new(96, 0x5566_7788, 7, 1200);
                timestamp = 1_000_000;
            }
            packetize_h264(unit.iter().map(Vec::as_slice), &mut line, timestamp, &mut packets);
            if trap == Trap::Stray && count % 10 == 5 {
                socket.write_all(b"\x00\x01garbage$\xff\x00\x00")?;
            }
            if trap == Trap::Request && count % 25 == 5 {
                socket.write_all(b"OPTIONS rtsp://127.0.0.1/x RTSP/1.0\r\nCSeq: 7\r\n\r\n")?;
            }
            socket.write_all(packets.framed())?;
            timestamp = timestamp.wrapping_add(3600);
            count += 1;
            thread::sleep(Duration::from_millis(40));
        }
    }
}

fn arrives(trap: Trap, options: &str) -> (Engine, u32) {
    let engine = Engine::start();
    let (path, units) = clip(engine.folder());
    let camera = Camera::start(trap, units);
    let input = engine.add_input("camera", &camera.url(options));
    let output = engine.add_output(input, "file", "file:camera.ts");
    engine.wait_state(&format!("/api/inputs/{input}"), "Live");
    let file = engine.media().join("camera.ts");
    wait_for("pictures to arrive", || {
        std::fs::metadata(&file).is_ok_and(|f| f.len() > 200_000).then_some(())
    });
    engine.order(&output, "stop");
    engine.wait_state(&output, "Idle");
    // The file was still being written: its last picture may be a part of one.
    let mut got = pictures(&file);
    got.truncate(got.len().saturating_sub(2));
    assert_run(&format!("{trap:?}"), &got, &pictures(&path), 60);
    (engine, camera.sessions.load(Relaxed))
}

#[test]
fn sloppy_answers_are_understood() {
    require!("ffmpeg");
    for trap in [Trap::Session, Trap::ContentType, Trap::NoCseq, Trap::InBand] {
        assert_eq!(arrives(trap, "").1, 1, "{trap:?}");
    }
}

#[test]
fn requests_and_stray_bytes_in_mid_play_cost_no_picture() {
    require!("ffmpeg");
    for trap in [Trap::Request, Trap::Stray] {
        assert_eq!(arrives(trap, "").1, 1, "{trap:?}");
    }
}

#[test]
fn another_source_in_mid_play_goes_on_in_the_same_session() {
    require!("ffmpeg");
    assert_eq!(arrives(Trap::Source, "").1, 1);
}

#[test]
fn a_server_without_datagrams_is_pulled_over_the_connection() {
    require!("ffmpeg");
    assert_eq!(arrives(Trap::OnlyTcp, "?transport=udp").1, 1);
    assert_eq!(arrives(Trap::Blocked, "?transport=udp").1, 2);
}

#[test]
fn a_nonce_that_goes_stale_with_every_keepalive_ends_nothing() {
    require!("ffmpeg");
    assert_eq!(arrives(Trap::Nonce, "").1, 1);
}

#[test]
fn another_place_is_gone_to_once() {
    require!("ffmpeg");
    assert_eq!(arrives(Trap::Moved, "").1, 1);
    let engine = Engine::start();
    let camera = Camera::start(Trap::MovedOn, Vec::new());
    let input = format!("/api/inputs/{}", engine.add_input("camera", &camera.url("")));
    let failed = engine.wait(&input, "an end of it", |input| input["state"] == "Backoff");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("not followed")), "{failed:#}");
}
