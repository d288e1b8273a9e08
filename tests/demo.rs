//! `millrace demo`: what it receives of itself is what it sent, beyond the seam of the loop.

#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
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

/// A demo with its first table read: the child, the lines to come, the address of an output and of the API.
fn running(folder: &Path, seconds: &str) -> (Child, Lines<BufReader<ChildStdout>>, String, String) {
    let mut child = demo(folder, seconds).stdout(Stdio::piped()).spawn().expect("millrace runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = |start: &str| {
        let mut lines = lines.by_ref().map(|line| line.expect("UTF-8"));
        lines.find(|line| line.starts_with(start)).expect("a table")
    };
    let output = line("plain ").split("udp://").nth(1).expect("a url").trim().to_owned();
    let api = line("API ").split_whitespace().nth(1).expect("a url").to_owned();
    (child, lines, output, api)
}

/// What is said below that output in the last table.
fn last_note(lines: &[String], output: &str) -> String {
    let row = lines.iter().rposition(|line| line.starts_with(output)).expect("a table");
    lines[row + 1].trim().to_owned()
}

#[test]
fn a_foreign_packet_is_a_mismatch() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, lines, output, _) = running(folder.path(), "7");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.send_to(&[0x47; 188], output).expect("a datagram to leave");
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(1), "{rest:#?}");
    assert!(last_note(&rest, "plain ").starts_with("MISMATCH at packet "), "{rest:#?}");
    assert!(last_note(&rest, "at once ").starts_with("verified: "), "the others: {rest:#?}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn what_an_operator_changes_is_no_mismatch() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, lines, _, api) = running(folder.path(), "8");
    let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
    for (id, action) in [(1, "stop"), (1, "start"), (2, "stop")] {
        let answer =
            agent.post(format!("{api}/inputs/1/outputs/{id}/{action}")).send_empty().expect("an answer");
        assert!(answer.status().is_success());
        std::thread::sleep(Duration::from_millis(200));
    }
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{rest:#?}");
    for output in ["plain ", "at once "] {
        let note = last_note(&rest, output);
        assert!(
            note.contains("verified: ") && note.ends_with("not compared since it was changed"),
            "{rest:#?}"
        );
    }
    assert!(last_note(&rest, "RTP ").ends_with(" 2 passes"), "{rest:#?}");
}

#[test]
fn a_signal_drains_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, lines, ..) = running(folder.path(), "60");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a process");
    let rest: Vec<String> = lines.map(|line| line.expect("UTF-8")).collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{rest:#?}");
    assert!(rest.last().is_some_and(|line| line.starts_with("Drained. Every output")), "{rest:#?}");
    assert!(is_empty(folder.path()), "it cleans up");
}

#[test]
fn without_a_folder_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = demo(&folder.path().join("gone"), "1").output().expect("millrace runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot make a folder in"), "{output:?}");
}

/// A recipe as `make demo` has it, run by make.
fn recipe(folder: &Path) -> Command {
    let root = env!("CARGO_MANIFEST_DIR");
    let makefile = folder.join("makefile");
    let demo = env!("CARGO_BIN_EXE_millrace");
    let text = format!("demo:\n\t@{root}/scripts/foreground {demo} demo --seconds 60\n");
    std::fs::write(&makefile, text).expect("a file");
    let said = std::fs::read_to_string(format!("{root}/Makefile")).expect("a file");
    assert!(
        said.contains("\t@scripts/foreground target/release/millrace demo\n"),
        "the recipe is another one"
    );
    let mut command = Command::new("script");
    // A terminal of its own: script exits with the status of make.
    command.args(["-qec", &format!("make -f {}", makefile.display()), "/dev/null"]);
    command.env("TMPDIR", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The demo in that terminal, with something received, and what it says from then on.
fn shown(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = std::iter::from_fn(move || lines.next()?.ok());
    assert!(lines.any(|line| line.contains("verified: ")));
    lines
}

#[test]
fn a_key_ends_make_demo_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = recipe(folder.path()).spawn().expect("script");
    let lines = shown(&mut child);
    // Ctrl-Z does nothing, Ctrl-C ends it.
    let mut keys = child.stdin.take().expect("a pipe");
    keys.write_all(b"\x1a\x03").expect("a terminal");
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("Drained. Every output")), "{rest:#?}");
}

#[test]
fn a_signal_to_all_of_make_demo_drains_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = recipe(folder.path()).spawn().expect("script");
    let keys = child.stdin.take();
    let lines = shown(&mut child);
    let make = children(child.id()).into_iter().next().expect("make");
    let group = rustix::process::Pid::from_raw(make).expect("a process");
    rustix::process::kill_process_group(group, rustix::process::Signal::INT).expect("a group");
    let rest: Vec<String> = lines.collect();
    // Make itself mostly dies of a signal that it gets: its status says nothing of the demo.
    child.wait().expect("it ends");
    assert!(rest.iter().any(|line| line.contains("Drained. Every output")), "{rest:#?}");
    drop(keys);
}

fn children(parent: u32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
