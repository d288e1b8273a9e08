//! `millrace probe`: what it finds in files and on sockets, and its exit code when there is nothing.

#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Engine, Flow, Sender, free_port, loopable, send_paced, testdata, wait_for};

fn probe(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.arg("probe").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn done(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = probe(arguments).output().expect("millrace runs");
    (status.code(), String::from_utf8([stdout, stderr].concat()).expect("UTF-8"))
}

fn json(arguments: &[&str]) -> Value {
    let (code, text) = done(&[&["--json"], arguments].concat());
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The PID's part of the report.
fn pid(found: &Value, pid: u64) -> &Value {
    let pids = found["stream"]["pids"].as_array().expect("pids");
    pids.iter().find(|one| one["pid"] == pid).unwrap_or_else(|| panic!("PID {pid} in {found:#}"))
}

/// What is found on a socket while `send` sends to it.
fn hear(scheme: &str, send: impl Fn(std::net::SocketAddr)) -> Value {
    let port = free_port();
    let url = format!("{scheme}://127.0.0.1:{port}");
    let child = probe(&["--json", "--seconds", "3", &url]).spawn().expect("millrace runs");
    // Not by trying to bind: that would be in the probe's way.
    let bound = || std::fs::read_to_string("/proc/net/udp").expect("the kernel's list of sockets");
    wait_for("the probe to listen", || bound().contains(&format!("0100007F:{port:04X} ")).then_some(()));
    send(([127, 0, 0, 1], port).into());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_file_is_read_by_its_own_clock() {
    let path = testdata("ts/h264_sync.ts");
    let path = path.to_str().expect("UTF-8");
    for target in [path, &format!("file:{path}")] {
        let found = json(&[target]);
        let stream = &found["stream"];
        let seconds = found["seconds"].as_f64().expect("seconds");
        assert!((5.9..6.1).contains(&seconds), "{seconds}");
        let rate = stream["bitrate_bps"].as_f64().expect("a rate");
        assert!((rate * seconds / 8.0 - 474_512.0).abs() < 1.0, "the mean over the whole file: {rate}");
        let klv = pid(&found, 0x102);
        let share = klv["packets"].as_f64().expect("packets") / 2524.0;
        assert!((klv["bitrate_bps"].as_f64().expect("a rate") / rate - share).abs() < 1e-3);
        assert_eq!((&stream["packets"], &found["counters"]["packets"]), (&2524.into(), &2524.into()));
        assert_eq!((&stream["continuity_errors"], &stream["klv_declared"]), (&0.into(), &true.into()));
        let types: Vec<_> = stream["programs"][0]["streams"]
            .as_array()
            .expect("streams")
            .iter()
            .map(|s| &s["stream_type"])
            .collect();
        assert_eq!(types, [0x1b, 0x15]);
        let clock = &pid(&found, 0x101)["pcr"];
        assert_eq!((&clock["jitter_peak_us"], &clock["late"]), (&0.0.into(), &0.into()));
        let interval = clock["interval_avg_ms"].as_f64().expect("an interval");
        assert!((33.0..34.0).contains(&interval), "{interval}");
        assert_eq!(found["senders"], Value::Null);
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let found = json(&[testdata("ts/h264_cc_loss.ts").to_str().expect("UTF-8")]);
    assert_eq!(found["stream"]["continuity_errors"], 12);
    let (code, text) = done(&[testdata("ts/h264_cc_loss.ts").to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0));
    assert!(text.contains("plays 6.0 s") && text.contains("12 continuity errors"), "{text}");
    assert!(text.contains("Program 1: PMT PID 0x0100"), "{text}");

    let folder = tempfile::tempdir().expect("a folder");
    let junk = folder.path().join("junk.ts");
    let mut bytes = b"no packet in here".to_vec();
    bytes.extend(std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream"));
    std::fs::write(&junk, bytes).expect("a file");
    let found = json(&[junk.to_str().expect("UTF-8")]);
    assert_eq!((&found["counters"]["junk_bytes"], &found["stream"]["packets"]), (&17.into(), &2524.into()));
}

#[test]
fn a_live_stream_is_listened_to() {
    let bytes = std::fs::read(testdata("ts/h264_multiprog.ts")).expect("a stream");
    let stranger = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let found = hear("udp", |to| {
        send_paced(to, &bytes[..1316 * 100], 1316, 2.0);
        stranger.send_to(&[0x47; 188], to).expect("a datagram to leave");
    });
    assert_eq!((&found["stream"]["packets"], &found["counters"]["datagrams"]), (&700.into(), &100.into()));
    assert_eq!(found["stream"]["programs"].as_array().map(Vec::len), Some(2));
    assert_eq!(found["counters"]["foreign_datagrams"], 1);
    let stranger = stranger.local_addr().expect("bound").to_string();
    assert_eq!(found["senders"]["foreign"][0]["address"], stranger);
    assert!(pid(&found, 0x101)["pcr"]["jitter_peak_us"].as_f64().expect("jitter") > 0.0);
}

#[test]
fn rtp_is_listened_to() {
    let bytes = std::fs::read(testdata("ts/h264_sync.ts")).expect("a stream");
    let found = hear("rtp", |to| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        for (sequence, payload) in
            bytes.chunks(1316).take(50).enumerate().filter(|(sequence, _)| *sequence != 20)
        {
            let mut packet = vec![0x80, 33, 0, sequence as u8, 0, 0, 0, 0, 1, 2, 3, 4];
            packet.extend_from_slice(payload);
            socket.send_to(&packet, to).expect("a datagram to leave");
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    assert_eq!((&found["stream"]["packets"], &found["counters"]["rtp_lost"]), (&343.into(), &1.into()));
    assert_eq!(found["stream"]["programs"][0]["number"], 1);
}

#[test]
fn nothing_to_say_is_a_failure_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "no transport stream".repeat(1000)).expect("a file");
    let silent = format!("udp://127.0.0.1:{}", free_port());
    for (arguments, reason) in [
        (vec![text.to_str().expect("UTF-8")], "no transport packet was found in 19000 bytes"),
        (vec!["missing.ts"], "missing.ts: cannot be read: No such file"),
        (vec!["http://127.0.0.1:5000"], "not supported yet"),
        (vec!["udp://127.0.0.1"], "a port from 1 to 65535"),
        (vec!["udp://192.0.2.1:5000"], "cannot bind to 192.0.2.1:5000"),
        (vec!["--seconds", "1", &silent], "nothing was received in 1 s"),
    ] {
        let (code, text) = done(&arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {text}");
        assert!(text.contains(reason), "{arguments:?}: {text}");
    }
}

/// An engine with an input of datagrams that come.
fn engine() -> (Engine, u64, Flow) {
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let input = engine.add_input("in", &format!("udp://{to}"));
    let flow = Flow::from(Sender::new(to), &loopable("h264_sync.ts"), 4.0);
    (engine, input, flow)
}

fn is_the_stream(found: &Value, encryption: &str) {
    assert_eq!(found["stream"]["klv_declared"], true, "{found}");
    assert_eq!(found["stream"]["programs"][0]["streams"][0]["stream_type"], 0x1b);
    let counters = &found["counters"];
    assert_eq!(
        (&counters["srt"]["encryption"], &counters["srt"]["dropped"]),
        (&encryption.into(), &0.into())
    );
    assert!(counters["datagrams"].as_u64() > Some(100), "{counters}");
    assert_eq!(found["senders"], Value::Null);
}

#[test]
fn an_srt_listener_is_dialled_and_one_with_another_passphrase_named() {
    let (engine, input, flow) = engine();
    let port = free_port();
    let serves = format!("srt://127.0.0.1:{port}?mode=listener&streamid=cam&passphrase=correct-horse");
    let output = engine.add_output(input, "serves", &serves);
    engine.wait(&output, "a listener", |output| output["state"] != "Connecting");
    let url = format!("srt://127.0.0.1:{port}?streamid=read:cam&passphrase=");
    is_the_stream(&json(&["--seconds", "3", &format!("{url}correct-horse")]), "aes_128_ctr");
    let (code, text) = done(&["--seconds", "3", &format!("{url}correct-horse")]);
    assert!(code == Some(0) && text.contains("SRT: peer 1.5.4, encryption aes_128_ctr"), "{text}");
    let (code, text) = done(&["--seconds", "3", &format!("{url}another-horse")]);
    assert!(code == Some(1) && text.contains("passphrase") && !text.contains("horse"), "{text}");
    engine.wait(&output, "nobody", |output| output["stats"]["sessions"] == 0);
    flow.stop();
}

#[test]
fn an_srt_publisher_dials_in_whatever_it_asks_for() {
    let (engine, input, flow) = engine();
    let port = free_port();
    engine.add_output(
        input,
        "pushes",
        &format!("srt://127.0.0.1:{port}?streamid=publish:anything&conntimeo=500"),
    );
    is_the_stream(&json(&["--seconds", "8", &format!("srt://:{port}")]), "none");
    flow.stop();
}

#[test]
fn an_srt_peer_that_is_not_there_is_said() {
    let url = format!("srt://127.0.0.1:{}?conntimeo=300", free_port());
    let (code, text) = done(&["--seconds", "20", &url]);
    assert!(code == Some(1) && text.contains("no answer"), "{text}");
}
