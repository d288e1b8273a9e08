//! Connection groups: one stream over several links, to and from libsrt and between two of ours. While a link is cut
//! everything that goes in comes out, byte for byte, and the API says what each link does.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use support::{
    Bond, Engine, Flow, NetworkPath, Proxy, Receiver, Sender, between, bonding, free_port, holds, knock,
    loopable, sha256,
};

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// Two paths to one receiver that take different times and lose some datagrams.
fn paths(to: [SocketAddr; 2]) -> [Proxy; 2] {
    let path = |delay, seed| NetworkPath {
        loss: 0.01,
        delay: Duration::from_millis(delay),
        seed,
        ..NetworkPath::default()
    };
    [Proxy::start(to[0], path(5, 1)), Proxy::start(to[1], path(25, 2))]
}

fn states(object: &Value) -> Vec<&str> {
    let links = object["stats"]["links"].as_array().expect("a list");
    links.iter().map(|link| link["state"].as_str().expect("a word")).collect()
}

/// Sends `body` in two halves, `between_them` comes in the midst, and all of it arrives.
fn deliver(sender: &mut Sender, came: &Receiver, what: &str, in_the_midst: impl FnOnce()) {
    let body = loopable("h264_sync.ts").repeat(2);
    let half = body.len() / 2 / 1316 * 1316;
    knock(0, |mark| sender.send(mark), || holds(0, &came.bytes()));
    sender.send_paced(&body[..half], 1316, MBPS);
    in_the_midst();
    sender.send_paced(&body[half..], 1316, MBPS);
    knock(1, |mark| sender.send(mark), || holds(1, &came.bytes()));
    let bytes = came.bytes();
    let got = between(0, 1, &bytes).unwrap_or_else(|| panic!("{what}: no marks"));
    assert_eq!((got.len(), sha256(got)), (body.len(), sha256(&body)), "{what}");
}

/// An engine with an input of datagrams and an output that is a group over these proxies, the first of more weight.
fn dials(kind: &str, proxies: &[Proxy; 2], passphrase: &str) -> (Engine, String, Sender) {
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let to = local();
    let input = engine.add_input("in", &format!("udp://{to}"));
    let [a, b] = proxies.each_ref().map(Proxy::addr);
    let secret = if passphrase.is_empty() { String::new() } else { format!("&passphrase={passphrase}") };
    let url = format!("srt://*?type={kind}&nodes={a}?weight=2,{b}?weight=1&latency=2000{secret}");
    let output = engine.add_output(input, "group", &url);
    (engine, output, Sender::new(to))
}

fn outputs_reach_libsrt(kind: &str, passphrase: &str) {
    if !bonding() {
        return;
    }
    let came = Receiver::new();
    let ports = [free_port(), free_port()];
    let mut peer = Bond::receive(came.addr().port(), passphrase, &ports);
    let proxies = paths(ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()));
    let (engine, output, mut sender) = dials(kind, &proxies, passphrase);
    let calm = if kind == "backup" { ["active", "standby"] } else { ["active", "active"] };
    engine.wait(&output, "both links", |output| states(output) == calm);
    deliver(&mut sender, &came, kind, || proxies[0].cut(true));
    assert!(!peer.has_ended() && peer.log().contains("a group"), "{}", peer.log());
    let seen = engine.wait(&output, "the other link alone", |output| {
        states(output) == ["broken", "active"] || states(output) == ["connecting", "active"]
    });
    assert_eq!((&seen["state"], &seen["reconnect_count"]), (&"Live".into(), &0.into()), "{seen}");
    // What is counted is the stream, not what its links carry.
    assert_eq!(seen["stats"]["skipped"], 0, "{seen}");
    proxies[0].cut(false);
    // Links are judged by what they carry.
    let flow = Flow::from(sender, &loopable("h264_sync.ts"), MBPS);
    engine.wait(&output, "the link is back", |output| states(output) == calm);
    flow.stop();
    assert!(!peer.has_ended(), "{}", peer.log());
}

#[test]
fn a_broadcast_group_reaches_libsrt() {
    outputs_reach_libsrt("broadcast", "");
}

#[test]
fn an_encrypted_broadcast_group_reaches_libsrt() {
    outputs_reach_libsrt("broadcast", "a-secret-of-tests");
}

#[test]
fn a_backup_group_reaches_libsrt() {
    outputs_reach_libsrt("backup", "");
}

#[test]
fn an_encrypted_backup_group_reaches_libsrt() {
    outputs_reach_libsrt("backup", "a-secret-of-tests");
}

fn inputs_come_from_libsrt(kind: &str, passphrase: &str) {
    if !bonding() {
        return;
    }
    let engine = Engine::start();
    let at = local();
    let secret = if passphrase.is_empty() { String::new() } else { format!("&passphrase={passphrase}") };
    let input =
        engine.add_input("group", &format!("srt://{at}?mode=listener&latency=2000&groupconnect=1{secret}"));
    let came = Receiver::new();
    engine.add_output(input, "out", &came.url());
    let path = format!("/api/inputs/{input}");
    engine.wait(&path, "a listener", |input| input["state"] != "Connecting");
    let proxies = paths([at, at]);
    let feed = local();
    let links = [(proxies[0].addr().port(), 2), (proxies[1].addr().port(), 1)];
    let mut peer = Bond::send(feed.port(), passphrase, kind, &links);
    let mut sender = Sender::new(feed);
    engine.wait(&path, "both links", |input| states(input).len() == 2);
    deliver(&mut sender, &came, kind, || proxies[0].cut(true));
    assert!(!peer.has_ended(), "{}", peer.log());
    engine.wait(&path, "the other link alone", |input| states(input).len() == 1);
}

#[test]
fn a_broadcast_group_comes_from_libsrt() {
    inputs_come_from_libsrt("broadcast", "");
}

#[test]
fn an_encrypted_broadcast_group_comes_from_libsrt() {
    inputs_come_from_libsrt("broadcast", "a-secret-of-tests");
}

#[test]
fn a_backup_group_comes_from_libsrt() {
    inputs_come_from_libsrt("backup", "");
}

#[test]
fn an_encrypted_backup_group_comes_from_libsrt() {
    inputs_come_from_libsrt("backup", "a-secret-of-tests");
}

fn ours_to_ours(kind: &str) {
    let receives = Engine::start();
    let at = local();
    let input = receives.add_input("group", &format!("srt://{at}?mode=listener&latency=2000"));
    let came = Receiver::new();
    receives.add_output(input, "out", &came.url());
    let path = format!("/api/inputs/{input}");
    receives.wait(&path, "a listener", |input| input["state"] != "Connecting");
    let proxies = paths([at, at]);
    let (engine, output, mut sender) = dials(kind, &proxies, "");
    let calm = if kind == "backup" { ["active", "standby"] } else { ["active", "active"] };
    engine.wait(&output, "both links", |output| states(output) == calm);
    deliver(&mut sender, &came, kind, || proxies[0].cut(true));
    engine.wait(&output, "the other link alone", |output| {
        states(output)[1] == "active" && states(output)[0] != "active"
    });
    receives.wait(&path, "the other link alone", |input| states(input).len() == 1);
    proxies[0].cut(false);
    let flow = Flow::from(sender, &loopable("h264_sync.ts"), MBPS);
    engine.wait(&output, "the link is back", |output| states(output) == calm);
    flow.stop();
    receives.wait(&path, "both links", |input| states(input).len() == 2);
    // Both ends count the stream once, whatever its links carry; the receiver holds it for its latency.
    let datagrams = |object: &Value| object["stats"]["datagrams"].as_u64().expect("a count");
    let sent = datagrams(&engine.get(&output));
    let got = receives.wait(&path, "the rest", |input| datagrams(input) + 10 > sent);
    // What was sent is shown twice a second: it may have been read too early.
    engine.wait(&output, "as much to be sent as came", |output| datagrams(output) >= datagrams(&got));
}

#[test]
fn a_broadcast_group_of_ours_comes_to_ours() {
    ours_to_ours("broadcast");
}

#[test]
fn a_backup_group_of_ours_comes_to_ours() {
    ours_to_ours("backup");
}

#[test]
fn who_takes_no_groups_says_so_and_the_output_names_every_link() {
    let engine = Engine::start();
    let at = local();
    let input = engine.add_input("single", &format!("srt://{at}?mode=listener&groupconnect=0"));
    engine.wait(&format!("/api/inputs/{input}"), "a listener", |input| input["state"] != "Connecting");
    let output = engine.add_output(input, "loop", &format!("srt://*?type=broadcast&nodes={at},{at}"));
    let failed = engine.wait(&output, "a refusal", |output| output["status"] == "error");
    let reason = failed["reason"].as_str().expect("a text");
    assert!(reason.contains("no link of the group is up") && reason.contains("1015"), "{reason}");
    assert_eq!(reason.matches(&at.to_string()).count(), 2, "{reason}");
    assert_eq!(failed["stats"]["links"], serde_json::json!([]));
}

const MBPS: f64 = 4.0;
