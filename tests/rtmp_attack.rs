//! What hostile RTMP clients send, over real sockets: the engine closes them, grows by nothing, and serves others.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Engine, clip, free_port, require, wait_for};

struct Port(u16);

impl Port {
    /// Sends this, and reads until the engine closes or `seconds` passed; what it said, and whether it closed.
    fn send(&self, bytes: &[u8], seconds: u64) -> (Vec<u8>, bool) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.0)).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(seconds))).expect("a timeout");
        // The engine may close in the middle.
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match socket.read(&mut buffer) {
                Ok(0) => return (said, true),
                Ok(count) => said.extend_from_slice(&buffer[..count]),
                Err(error) => return (said, error.kind() == std::io::ErrorKind::ConnectionReset),
            }
        }
    }
}

/// What a client says before its chunks.
fn greeting() -> Vec<u8> {
    [&[3][..], &[0; 3072]].concat()
}

/// One message in chunks of 128 bytes.
fn message(chunk_stream: u8, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut out = vec![chunk_stream, 0, 0, 0, length[1], length[2], length[3], kind, 0, 0, 0, 0];
    for (index, chunk) in payload.chunks(128).enumerate() {
        if index > 0 {
            out.push(0xC0 | chunk_stream);
        }
        out.extend_from_slice(chunk);
    }
    out
}

fn resident(engine: &Engine) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

#[test]
fn hostile_clients_are_closed_and_cost_nothing() {
    require!("ffmpeg");
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("rtmp://127.0.0.1:{port}/live/key?mode=listener"));
    let port = Port(port);
    wait_for("the port to open", || TcpStream::connect(("127.0.0.1", port.0)).ok());
    let name = |name: &str| [&[2, 0, name.len() as u8][..], name.as_bytes()].concat();
    let bomb = [name("connect"), vec![0; 9], [3, 0, 1, b'a'].repeat(2 << 20)].concat();
    let small_bomb = [name("connect"), vec![0; 9], [3, 0, 1, b'a'].repeat(15_000)].concat();
    let announced = |id: u8| vec![id, 0, 0, 0, 0, 0xFF, 0xFF, 9, 1, 0, 0, 0];
    let attacks: Vec<(&str, Vec<u8>)> = vec![
        ("nested objects of 8 MB", [greeting(), message(3, 20, &bomb)].concat()),
        ("nested objects of 60 kB", [greeting(), message(3, 20, &small_bomb)].concat()),
        ("a command of one value", [greeting(), message(3, 20, &name("connect"))].concat()),
        ("a command of nothing", [greeting(), message(3, 20, &[])].concat()),
        ("a chunk size of 0", [greeting(), message(2, 1, &[0; 4])].concat()),
        ("chunk streams without end", [greeting(), (4..64).flat_map(announced).collect()].concat()),
        ("media before its time", [greeting(), message(6, 9, &[0x17; 100])].concat()),
        ("a handshake of noise", (0..200_000u32).map(|i| ((i * 31) >> 3) as u8).collect()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1]),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("RTMPE", [&[6][..], &[0; 3072]].concat()),
        (
            "noise behind the handshake",
            [greeting(), (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect()].concat(),
        ),
    ];
    let before = resident(&engine);
    for _ in 0..8 {
        for (what, bytes) in &attacks {
            let (said, closed) = port.send(bytes, 15);
            assert!(closed, "{what}: the connection stays");
            assert!(said.len() < 8192, "{what}: {} bytes were answered", said.len());
        }
    }
    assert!(engine.is_healthy());
    let grown = resident(&engine).saturating_sub(before);
    assert!(grown < 24 << 10, "it grew by {grown} kB");
    // Those who say nothing go by themselves.
    let mut silent = TcpStream::connect(("127.0.0.1", port.0)).expect("a connection");
    silent.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    assert_eq!(silent.read(&mut [0; 9]).expect("the end"), 0);
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-re", "-i"]).arg(clip()).args(["-c", "copy", "-f", "flv"]);
    let url = format!("rtmp://127.0.0.1:{}/live/key", port.0);
    let mut publisher = ffmpeg.arg(url).stdin(Stdio::null()).spawn().expect("ffmpeg");
    engine.wait_state(&format!("/api/inputs/{input}"), "Live");
    publisher.kill().expect("ffmpeg");
    publisher.wait().expect("ffmpeg");
}
