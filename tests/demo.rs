//! `millrace demo`: what it receives of itself is what it sent, beyond the seam of the loop.

#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The sample takes 6 s: 8 s reach into the second pass.
fn demo(temporary: &Path, seconds: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["demo", "--seconds", seconds]).env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn every_output_is_verified_over_two_passes() {
    // Takes the usual port of the API away, unless somebody else has it.
    let _taken = TcpListener::bind("127.0.0.1:8080");
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(folder.path(), "8").output().expect("millrace runs");
    let text = text(&output);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let last = text.rsplit("INPUT").next().expect("a table");
    let verified = last.lines().filter(|line| line.contains("verified: ") && line.contains(" 2 passes"));
    assert_eq!(verified.count(), 5, "{text}");
    assert!(!text.contains("MISMATCH") && !text.contains('\x1b'), "{text}");
    assert!(last.contains("peer refuses (ICMP)"), "{text}");
    assert!(last.contains("http://127.0.0.1:") && !last.contains(":8080"), "{text}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn a_signal_drains_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let child = demo(folder.path(), "60").stdout(Stdio::piped()).spawn().expect("millrace runs");
    // Until it listens to the signal and its stream has begun.
    std::thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a process");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("Drained. Every output"), "{}", text(&output));
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn a_foreign_packet_is_a_mismatch() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = demo(folder.path(), "7").stdout(Stdio::piped()).spawn().expect("millrace runs");
    let mut lines =
        BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));
    let row = lines.find(|line| line.starts_with("plain ")).expect("a table");
    let (_, address) = row.split_once("udp://").expect("a url");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.send_to(&[0x47; 188], address.trim()).expect("a datagram to leave");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{rest:#?}");
    let last = rest.rsplitn(2, |line| line.starts_with("plain ")).next().expect("a table");
    assert!(last.first().is_some_and(|note| note.contains("MISMATCH at packet ")), "{rest:#?}");
    assert_eq!(last.iter().filter(|line| line.contains("verified: ")).count(), 4, "the others: {rest:#?}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn what_verified_nothing_is_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(folder.path(), "0").output().expect("millrace runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("nothing received yet"), "{}", text(&output));
    let gone = folder.path().join("gone");
    let output = demo(&gone, "1").output().expect("millrace runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot make a folder in"), "{output:?}");
}
