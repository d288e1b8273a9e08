//! SRT with others: every way to connect, to encrypt and to ask for a stream, in both directions, against programs over
//! libsrt, srt-tokio and MediaMTX. What goes in comes out, byte for byte.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::Value;
use srt_tokio::options::{ByteCount, SocketOptions};
use srt_tokio::{SrtListener, SrtSocket};
use support::{
    End, Engine, Flow, Giver, LATENCY, MediaMtx, NetworkPath, Peer, Proxy, Receiver, Sender, Taker, Tool,
    between, free_port, holds, knock, loopable, newer_libsrt, peers, require, sha256, testdata, wait_for,
};

/// One connection: who dials, how it is encrypted, what is asked for.
#[derive(Debug, Clone, Copy)]
struct Case {
    engine_dials: bool,
    key_bytes: u16,
    /// What whoever dials says; `NAME` stands for the name that the listener knows.
    stream_id: Option<&'static str>,
}

const KEYS: [u16; 4] = [0, 16, 24, 32];
const PASSPHRASE: &str = "a secret of tests";
/// What our listeners serve, and take.
const NAME: &str = "cam.1";

/// All of a direction, with plain and structured stream ids in turn.
fn cases(keys: &[u16], plain: &'static str, structured: &'static str) -> Vec<Case> {
    let mut cases = Vec::new();
    for &key_bytes in keys {
        for engine_dials in [true, false] {
            let id = if key_bytes % 16 == 0 { plain } else { structured };
            for stream_id in [None, Some(id)] {
                cases.push(Case { engine_dials, key_bytes, stream_id });
            }
        }
    }
    cases
}

impl Case {
    fn ends(&self, address: SocketAddr) -> (End, End) {
        let (dials, listens) = (End::caller(address).asking(self.stream_id), End::listener(address));
        let (engine, peer) = if self.engine_dials {
            (dials, listens)
        } else {
            (listens.asking(self.stream_id.map(|_| NAME)), dials)
        };
        (engine.locked(PASSPHRASE, self.key_bytes), peer.locked(PASSPHRASE, self.key_bytes))
    }

    fn cipher(&self) -> String {
        if self.key_bytes == 0 { "none".into() } else { format!("aes_{}_ctr", self.key_bytes * 8) }
    }
}

fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// An engine that comes back soon when a peer was not there yet, with an input of plain datagrams.
fn engine() -> (Engine, u64, Sender) {
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let to = local();
    let input = engine.add_input("in", &format!("udp://{to}"));
    (engine, input, Sender::new(to))
}

/// Waits until somebody may dial an output that listens.
fn listening(engine: &Engine, path: &str) {
    engine
        .wait(path, "a listener", |object| object["state"] != "Connecting" && object["desired"] == "running");
}

/// What came between marks 0 and 1 is `sent`.
#[track_caller]
fn same(what: &str, came: &[u8], sent: &[u8]) {
    let came = between(0, 1, came).unwrap_or_else(|| panic!("{what}: no marks"));
    assert_eq!(came.len(), sent.len(), "{what}: length");
    assert_eq!(sha256(came), sha256(sent), "{what}");
}

/// Sends `body` between marks, and compares what came out of each taker.
fn deliver(sender: &mut Sender, body: &[u8], takers: &[(String, Taker)]) {
    let all = |number| takers.iter().all(|(_, taker)| holds(number, &taker.bytes()));
    knock(0, |mark| sender.send(mark), || all(0));
    sender.send_paced(body, 1316, MBPS);
    knock(1, |mark| sender.send(mark), || all(1));
    takers.iter().for_each(|(name, taker)| same(name, &taker.bytes(), body));
}

/// The same for one that gives and what comes out of the engine.
fn take_from(giver: &mut Giver, body: &[u8], receiver: &Receiver, what: &str) {
    knock(0, |mark| giver.send(mark), || holds(0, &receiver.bytes()));
    giver.send_paced(body, MBPS);
    knock(1, |mark| giver.send(mark), || holds(1, &receiver.bytes()));
    same(what, &receiver.bytes(), body);
}

fn srt_stats(object: &Value) -> &Value {
    &object["stats"]["srt"]
}

/// The engine sends, `tool` receives.
fn outputs_reach(tool: Tool, keys: &[u16]) {
    if !peers(tool.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let mut takers = Vec::new();
    let mut paths = Vec::new();
    for case in cases(keys, "read:cam.1", "#!::r=cam.1,m=request") {
        let (ours, theirs) = case.ends(local());
        let name = format!("{tool:?} {case:?}");
        if case.engine_dials {
            takers.push((name.clone(), tool.take(&theirs)));
        }
        let path = engine.add_output(input, &name, &ours.ours());
        if !case.engine_dials {
            listening(&engine, &path);
            takers.push((name, tool.take(&theirs)));
        }
        paths.push((case, path));
    }
    deliver(&mut sender, &loopable("h264_sync.ts"), &takers);
    for (case, path) in paths.iter().filter(|(case, _)| case.engine_dials) {
        let output = engine.get(path);
        assert_eq!(srt_stats(&output)["encryption"], case.cipher(), "{output}");
        assert_eq!(output["reconnect_count"], 0, "{output}");
    }
}

/// `tool` sends, the engine receives.
fn inputs_come_from(tool: Tool, keys: &[u16]) {
    if !peers(tool.programs()) {
        return;
    }
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let body = loopable("h265_sync.ts");
    std::thread::scope(|scope| {
        for case in cases(keys, "publish:cam.1", "#!::r=cam.1,m=publish") {
            let (engine, body) = (&engine, &body);
            scope.spawn(move || {
                let (ours, theirs) = case.ends(local());
                let name = format!("{tool:?} {case:?}");
                let receiver = Receiver::new();
                let early = case.engine_dials.then(|| tool.give(&theirs));
                let input = engine.add_input(&name, &ours.ours());
                engine.add_output(input, "out", &receiver.url());
                let path = format!("/api/inputs/{input}");
                let mut giver = early.unwrap_or_else(|| {
                    listening(engine, &path);
                    tool.give(&theirs)
                });
                take_from(&mut giver, body, &receiver, &name);
                let seen = engine.get(&path);
                assert_eq!(srt_stats(&seen)["encryption"], case.cipher(), "{name}: {seen}");
            });
        }
    });
}

#[test]
fn outputs_reach_srt_live_transmit() {
    outputs_reach(Tool::Transmit, &KEYS);
}

#[test]
fn outputs_reach_ffmpeg() {
    outputs_reach(Tool::Ffmpeg, &KEYS);
}

#[test]
fn outputs_reach_gstreamer() {
    outputs_reach(Tool::Gst, &[0, 32]);
}

#[test]
fn inputs_come_from_srt_live_transmit() {
    inputs_come_from(Tool::Transmit, &KEYS);
}

#[test]
fn inputs_come_from_ffmpeg() {
    inputs_come_from(Tool::Ffmpeg, &KEYS);
}

#[test]
fn inputs_come_from_gstreamer() {
    inputs_come_from(Tool::Gst, &[0, 32]);
}

/// Both directions with these ends: ours and theirs.
fn both_directions(tool: Tool, outward: (End, End), inward: (End, End), cipher: Option<&str>) {
    let (engine, input, mut sender) = engine();
    let out = engine.add_output(input, "out", &outward.0.ours());
    listening(&engine, &out);
    let takers = [("out".to_owned(), tool.take(&outward.1))];
    let receiver = Receiver::new();
    let back = engine.add_input("back", &inward.0.ours());
    engine.add_output(back, "out", &receiver.url());
    let path = format!("/api/inputs/{back}");
    listening(&engine, &path);
    let mut giver = tool.give(&inward.1);
    let body = loopable("h264_async.ts");
    deliver(&mut sender, &body, &takers);
    take_from(&mut giver, &body, &receiver, "in");
    if let Some(cipher) = cipher {
        assert_eq!(srt_stats(&engine.get(&path))["encryption"], cipher);
    }
}

#[test]
fn ipv6_is_dialled_and_listens() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let address = || SocketAddr::from((Ipv6Addr::LOCALHOST, free_port()));
    let (to, from) = (address(), address());
    let outward = (End::caller(to), End::listener(to));
    let inward = (End::listener(from), End::caller(from));
    both_directions(Tool::Transmit, outward, inward, None);
}

#[test]
fn a_rendezvous_meets_in_both_directions() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    for key_bytes in [0, 16] {
        let pair = || {
            let (ours, theirs) = (local(), local());
            let meet = |from: SocketAddr, to| End::rendezvous(from.port(), to).locked(PASSPHRASE, key_bytes);
            (meet(ours, theirs), meet(theirs, ours))
        };
        let cipher = if key_bytes == 0 { "none" } else { "aes_128_ctr" };
        both_directions(Tool::Transmit, pair(), pair(), Some(cipher));
    }
}

#[test]
fn gcm_is_agreed_on_with_a_libsrt_that_has_it() {
    if !newer_libsrt() {
        return;
    }
    for key_bytes in [16, 32] {
        let gcm = |end: End| end.locked(PASSPHRASE, key_bytes).with("cryptomode", "2");
        let (to, from) = (local(), local());
        let outward = (gcm(End::caller(to)), gcm(End::listener(to)));
        let inward = (gcm(End::listener(from)), gcm(End::caller(from)));
        let cipher = format!("aes_{}_gcm", key_bytes * 8);
        both_directions(Tool::NewerTransmit, outward, inward, Some(&cipher));
    }
}

#[test]
fn keys_are_refreshed_while_the_stream_goes_on() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let refreshing = |end: End| end.with("kmrefreshrate", "256").with("kmpreannounce", "100");
    let to = local();
    let takers = [("out".to_owned(), Tool::Transmit.take(&End::listener(to).locked(PASSPHRASE, 16)))];
    let ours = refreshing(End::caller(to).locked(PASSPHRASE, 16));
    let path = engine.add_output(input, "out", &ours.ours());
    let body = loopable("h264_sync.ts").repeat(4);
    deliver(&mut sender, &body, &takers);
    let refreshes = |object: &Value| srt_stats(object)["key_refreshes"].as_u64().expect("a count");
    let due = (body.len() / 1316 / 256) as u64;
    assert!(refreshes(&engine.get(&path)) >= due, "{}", engine.get(&path));

    let from = local();
    let receiver = Receiver::new();
    let back = engine.add_input("back", &End::listener(from).locked(PASSPHRASE, 16).ours());
    engine.add_output(back, "out", &receiver.url());
    let path = format!("/api/inputs/{back}");
    listening(&engine, &path);
    let mut giver = Tool::Transmit.give(&refreshing(End::caller(from).locked(PASSPHRASE, 16)));
    take_from(&mut giver, &body, &receiver, "in");
    assert!(refreshes(&engine.get(&path)) >= due, "{}", engine.get(&path));
}

#[test]
fn keys_are_refreshed_on_a_path_that_loses() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let to = local();
    let takers = [("out".to_owned(), Tool::Transmit.take(&End::listener(to).locked(PASSPHRASE, 16)))];
    let bad = NetworkPath {
        loss: 0.05,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        seed: 1,
        ..NetworkPath::default()
    };
    let proxy = Proxy::start(to, bad);
    let ours = End::caller(proxy.addr()).locked(PASSPHRASE, 16);
    let ours = ours.with("kmrefreshrate", "200").with("kmpreannounce", "90");
    let path = engine.add_output(input, "out", &ours.ours());
    deliver(&mut sender, &loopable("h264_sync.ts").repeat(4), &takers);
    let output = engine.get(&path);
    let stats = srt_stats(&output);
    assert!(
        stats["key_refreshes"].as_u64() >= Some(5) && stats["retransmitted"].as_u64() > Some(0),
        "{output}"
    );
}

#[test]
fn what_a_peer_has_no_room_for_is_skipped_and_leaves_no_hole() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let to = local();
    // Room for 200 packets, and each of them stays for a second.
    let narrow = End::listener(to).late(1000).with("fc", "200").with("rcvbuf", (200 * 1456).to_string());
    let taker = Tool::Transmit.take(&narrow);
    let path = engine.add_output(input, "out", &End::caller(to).late(1000).ours());
    let body = loopable("h264_sync.ts").repeat(2);
    knock(0, |mark| sender.send(mark), || holds(0, &taker.bytes()));
    sender.send_paced(&body, 1316, 40.0);
    knock(1, |mark| sender.send(mark), || holds(1, &taker.bytes()));
    let output = engine.get(&path);
    let (skipped, stats) = (output["stats"]["skipped"].as_u64().expect("a count"), srt_stats(&output));
    assert!(skipped > 0, "{output}");
    engine.wait(&format!("{path}/logs?limit=1000"), "whose room it was", |lines| {
        lines.to_string().contains(&format!("for {to} "))
            && lines.to_string().contains("its receive window has no room for")
    });
    // A hole would be asked for, all of it; what a busy kernel has no room for is, too.
    assert!(stats["lost"].as_u64().is_some_and(|lost| lost * 10 <= skipped), "{output}");
    let came = taker.bytes();
    let came = between(0, 1, &came).expect("both marks");
    let mut sent = body.chunks(1316);
    let in_order = came.chunks(1316).all(|datagram| sent.any(|sent| sent == datagram));
    assert!(in_order, "{} of {} bytes, others or in another order", came.len(), body.len());
    // Marks may have been skipped, too.
    assert!(body.len() - came.len() <= skipped as usize * 1316, "{output}");
}

#[test]
fn what_the_limit_of_bandwidth_leaves_out_is_said() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let to = local();
    let taker = Tool::Transmit.take(&End::listener(to));
    let path = engine.add_output(input, "out", &End::caller(to).with("maxbw", "200000").ours());
    let body = loopable("h264_sync.ts").repeat(2);
    knock(0, |mark| sender.send(mark), || holds(0, &taker.bytes()));
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| sender.send_paced(&body, 1316, 8.0));
        engine.wait(&path, "the limit", |output| {
            output["state"] == "Live" && output["reason"].as_str().is_some_and(|why| why.contains("maxbw"))
        });
        sent.join().expect("sent");
    });
    engine.wait(&format!("{path}/logs?limit=1000"), "the limit", |lines| {
        lines.to_string().contains("refused by maxbw")
    });
    engine.wait(&path, "an end of it", |output| output["reason"] == "" || output["state"] != "Live");
}

#[test]
fn a_closed_port_is_told_apart_from_a_silent_one() {
    let (engine, input, _) = engine();
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (closed, silent_at) = (local(), silent.local_addr().expect("bound"));
    for (name, to, words) in
        [("closed", closed, "(ICMP port unreachable)"), ("silent", silent_at, "is the peer there")]
    {
        let path = engine.add_output(input, name, &End::caller(to).with("conntimeo", "500").ours());
        engine.wait(&path, words, |output| {
            let why = output["last_error"].as_str().unwrap_or_default();
            why.contains(words) && why.contains(&to.to_string())
        });
    }
}

#[test]
fn an_input_that_listens_says_that_nobody_publishes() {
    let engine = Engine::start();
    let (srt, rtmp, rtsp) = (local(), local(), local());
    let nobody = |path: &str, state: &str| {
        engine.wait(path, "that nobody publishes", |input| {
            input["state"] == state && input["reason"] == "listening, nobody publishes"
        });
    };
    let urls = [format!("srt://{srt}?mode=listener"), format!("rtmp://{rtmp}/live/key?mode=listener")];
    for (name, url) in urls.into_iter().chain([format!("rtsp://{rtsp}/in?mode=listener")]).enumerate() {
        let path = format!("/api/inputs/{}", engine.add_input(&format!("in{name}"), &url));
        nobody(&path, "Idle");
    }
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let path = "/api/inputs/1";
    let mut giver = Tool::Transmit.give(&End::caller(srt));
    engine.wait(path, "a publisher that is silent", |input| {
        input["stats"]["srt"].is_object() && input["reason"] != "listening, nobody publishes"
    });
    knock(0, |mark| giver.send(mark), || engine.get(path)["state"] == "Live");
    drop(giver);
    nobody(path, "Stalled");
}

#[test]
fn a_passphrase_that_does_not_fit_is_named_and_tried_slowly() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, _) = engine();
    let (to, open) = (local(), local());
    let _locked = Tool::Transmit.take(&End::listener(to).locked(PASSPHRASE, 16));
    let _open = Tool::Transmit.take(&End::listener(open));
    let wrong = End::caller(to).locked("another secret", 16);
    for (name, end) in [
        ("wrong", wrong),
        ("missing", End::caller(to)),
        ("not asked for", End::caller(open).locked(PASSPHRASE, 16)),
    ] {
        let path = engine.add_output(input, name, &end.ours());
        let failed = engine.wait_state(&path, "Failed");
        assert_eq!(failed["status"], "error", "{failed}");
        let error = failed["last_error"].as_str().expect("an error");
        assert!(error.contains("passphrase"), "{name}: {error}");
        assert!(!engine.log().contains(PASSPHRASE) && !engine.log().contains("another secret"));
    }
}

#[test]
fn a_reader_with_another_passphrase_is_kept_out_and_costs_nobody_a_packet() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let at = local();
    let path = engine.add_output(input, "out", &End::listener(at).locked(PASSPHRASE, 16).ours());
    listening(&engine, &path);
    let takers = [("right".to_owned(), Tool::Transmit.take(&End::caller(at).locked(PASSPHRASE, 16)))];
    knock(0, |mark| sender.send(mark), || holds(0, &takers[0].1.bytes()));
    let wrong = Tool::Transmit.take(&End::caller(at).locked("another secret", 16));
    let missing = Tool::Transmit.take(&End::caller(at));
    deliver(&mut sender, &loopable("h264_sync.ts"), &takers);
    assert!(wrong.bytes().is_empty() && missing.bytes().is_empty());
    assert_eq!(engine.get(&path)["stats"]["sessions"], 1);
}

#[test]
fn a_listener_tells_the_length_of_its_keys_and_takes_no_shorter_one() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, mut sender) = engine();
    let at = local();
    let path = engine.add_output(input, "out", &End::listener(at).locked(PASSPHRASE, 32).ours());
    listening(&engine, &path);
    let reader = Tool::Transmit.take(&End::caller(at).with("passphrase", PASSPHRASE));
    deliver(&mut sender, &loopable("h264_sync.ts"), &[("asks for no length".into(), reader)]);
    let sessions = engine.get(&format!("{path}/sessions"));
    assert_eq!(sessions[0]["srt"]["encryption"], "aes_256_ctr", "{sessions}");

    // Whoever publishes says how long the key is.
    let at = local();
    let taken = engine.add_input("taken", &End::listener(at).locked(PASSPHRASE, 24).ours());
    let taken = format!("/api/inputs/{taken}");
    listening(&engine, &taken);
    let short = engine.add_output(input, "short", &End::caller(at).locked(PASSPHRASE, 16).ours());
    let failed = engine.wait_state(&short, "Failed");
    assert!(failed["last_error"].as_str().is_some_and(|error| error.contains("pbkeylen")), "{failed}");
    engine.wait(&format!("{taken}/logs?limit=1000"), "who was turned away", |lines| {
        lines.to_string().contains("its key of 16 bytes is shorter than pbkeylen=24 asks for")
    });
    // The log of the process has what an operator wants to see, once and by name.
    let log = engine.log();
    assert!(log.contains("its key of 16 bytes"), "{log}");
    let failures: Vec<&str> = log.lines().filter(|line| line.contains("(SRT rejection 1017")).collect();
    assert!(failures.len() == 1 && failures[0].contains("short"), "{failures:?}");
    let long = engine.add_output(input, "long", &End::caller(at).locked(PASSPHRASE, 32).ours());
    engine.wait(&long, "a longer key", |output| srt_stats(output)["encryption"] == "aes_256_ctr");
    knock(2, |mark| sender.send(mark), || engine.get(&long)["state"] == "Live");
    wait_for("the log of it", || engine.log().contains("Live").then_some(()));
}

#[test]
fn readers_of_one_port_get_the_stream_that_they_name() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::start();
    let at = local();
    let bodies = [loopable("h264_sync.ts"), loopable("h265_sync.ts")];
    let mut streams = Vec::new();
    for (name, body) in ["one", "two"].into_iter().zip(&bodies) {
        let to = local();
        let input = engine.add_input(name, &format!("udp://{to}"));
        let path = engine.add_output(input, name, &End::listener(at).asking(Some(name)).ours());
        listening(&engine, &path);
        let ids = [format!("read:{name}"), format!("#!::r={name},m=request")];
        let takers = ids.map(|id| {
            let taker = Tool::Transmit.take(&End::caller(at).asking(Some(&id)));
            (id, taker)
        });
        streams.push((Sender::new(to), body, takers, path));
    }
    let stranger = Tool::Transmit.take(&End::caller(at).asking(Some("read:three")));
    std::thread::scope(|scope| {
        for (sender, body, takers, _) in &mut streams {
            scope.spawn(|| deliver(sender, body, takers));
        }
    });
    assert!(stranger.bytes().is_empty());
    for (.., path) in &streams {
        let output = engine.get(path);
        assert_eq!(output["stats"]["sessions"], 2, "{output}");
    }
}

#[test]
fn an_input_that_was_away_finds_the_connection_as_it_left_it() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::with("input: {stall_after_s: 1}\n");
    let (from, to, at) = (local(), local(), local());
    let input = engine.add_input("in", &format!("udp://{from}"));
    let called = Tool::Transmit.take(&End::listener(to));
    let calls = engine.add_output(input, "calls", &End::caller(to).ours());
    let serves = engine.add_output(input, "serves", &End::listener(at).ours());
    listening(&engine, &serves);
    let takers =
        [("called".to_owned(), called), ("reader".to_owned(), Tool::Transmit.take(&End::caller(at)))];
    let (first, second) = (loopable("h264_sync.ts"), loopable("h265_sync.ts"));
    let mut sender = Sender::new(from);
    let all = |number| takers.iter().all(|(_, taker)| holds(number, &taker.bytes()));
    knock(0, |mark| sender.send(mark), || all(0));
    sender.send_paced(&first, 1316, MBPS);
    let before = engine.wait_state(&calls, "Live");
    engine.wait_state(&calls, "Starved");
    // Twice what a peer is silent before its connection ends.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(engine.get(&calls)["state"], "Starved");
    sender.send_paced(&second, 1316, MBPS);
    let after = engine.wait_state(&calls, "Live");
    knock(1, |mark| sender.send(mark), || all(1));
    let body = [first, second].concat();
    takers.iter().for_each(|(name, taker)| same(name, &taker.bytes(), &body));
    assert_eq!(srt_stats(&after)["since_ms"], srt_stats(&before)["since_ms"]);
    assert_eq!(after["reconnect_count"], 0);
    assert_eq!(engine.get(&serves)["stats"]["sessions"], 1);
}

#[test]
fn a_pause_that_an_input_may_make_is_not_held_against_the_peer() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let engine = Engine::start();
    let (from, to) = (local(), local());
    let input = engine.add_input("in", &format!("udp://{from}?stall_after=60"));
    let taker = Tool::Transmit.take(&End::listener(to));
    let output = engine.add_output(input, "out", &End::caller(to).ours());
    let stream = loopable("h264_sync.ts");
    let mut sender = Sender::new(from);
    knock(0, |mark| sender.send(mark), || holds(0, &taker.bytes()));
    sender.send_paced(&stream, 1316, MBPS);
    let before = engine.wait_state(&output, "Live");
    // Twice as long as a peer may leave data unacknowledged.
    let pause = Instant::now();
    while pause.elapsed() < Duration::from_secs(6) {
        std::thread::sleep(Duration::from_millis(200));
        let now = engine.get(&output);
        assert_eq!(now["state"], "Live", "after {:?}: {now:#}", pause.elapsed());
    }
    sender.send_paced(&stream, 1316, MBPS);
    knock(1, |mark| sender.send(mark), || holds(1, &taker.bytes()));
    same("taker", &taker.bytes(), &[stream.clone(), stream].concat());
    let after = engine.get(&output);
    assert_eq!(srt_stats(&after)["since_ms"], srt_stats(&before)["since_ms"]);
    assert_eq!(after["reconnect_count"], 0);
}

#[test]
fn a_peer_that_is_cut_off_is_not_called_live_and_is_found_again() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let (engine, input, sender) = engine();
    let to = local();
    let _taker = Tool::Transmit.take(&End::listener(to));
    let proxy = Proxy::start(to, NetworkPath::default());
    let path = engine.add_output(input, "out", &End::caller(proxy.addr()).ours());
    let flow = Flow::from(sender, &loopable("h264_sync.ts"), MBPS);
    engine.wait_state(&path, "Live");
    proxy.cut(true);
    let cut = Instant::now();
    engine.wait(&path, "another state", |output| output["state"] != "Live");
    // Three seconds without an acknowledgement, and what a busy machine takes to say so.
    assert!(cut.elapsed() < Duration::from_secs(5), "{:?}", cut.elapsed());
    engine.wait(&path, "the end of the connection", |output| output["status"] == "reconnecting");
    proxy.cut(false);
    engine.wait_state(&path, "Live");
    flow.stop();
}

#[test]
fn numbers_and_clocks_wrap_on_the_way() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    // Four seconds before the clock comes round, a second and a half before the sequence does.
    let wrapping = |seed| NetworkPath {
        first_sequence: Some(0x8000_0000 - 500),
        ahead: 0u32.wrapping_sub(5_000_000),
        seed,
        ..NetworkPath::default()
    };
    let (engine, input, mut sender) = engine();
    let body = loopable("h264_sync.ts").repeat(4);
    let (to, at, from) = (local(), local(), local());
    let called = Tool::Transmit.take(&End::listener(to));
    let outward = Proxy::start(to, wrapping(1));
    engine.add_output(input, "calls", &End::caller(outward.addr()).ours());
    let serves = engine.add_output(input, "serves", &End::listener(at).ours());
    listening(&engine, &serves);
    let inward = Proxy::start(at, wrapping(2));
    let takers = [
        ("called".to_owned(), called),
        ("reader".to_owned(), Tool::Transmit.take(&End::caller(inward.addr()))),
    ];
    let receiver = Receiver::new();
    let back = engine.add_input("back", &End::listener(from).ours());
    engine.add_output(back, "out", &receiver.url());
    listening(&engine, &format!("/api/inputs/{back}"));
    let publishing = Proxy::start(from, wrapping(3));
    let mut giver = Tool::Transmit.give(&End::caller(publishing.addr()));
    std::thread::scope(|scope| {
        scope.spawn(|| deliver(&mut sender, &body, &takers));
        scope.spawn(|| take_from(&mut giver, &body, &receiver, "in"));
    });
}

#[test]
fn mediamtx_takes_a_push_and_gives_it_back() {
    require!("ffmpeg");
    let Some(mediamtx) = MediaMtx::start() else { return };
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let to = local();
    let input = engine.add_input("in", &format!("udp://{to}"));
    // Its readers leave when a stream's clock goes back, as one does that is sent again and again as it is.
    let mut flow = Command::new("ffmpeg");
    flow.args("-hide_banner -loglevel error -re -stream_loop -1 -i".split(' '))
        .arg(testdata("ts/h264_sync.ts"));
    flow.args("-map 0 -c copy -f mpegts".split(' ')).arg(format!("udp://{to}?pkt_size=1316"));
    let _flow = Peer::start(&mut flow);
    let push = End::caller(mediamtx.srt()).asking(Some("publish:cam"));
    let pushed = engine.add_output(input, "push", &push.ours());
    engine.wait_state(&pushed, "Live");
    let back = engine.add_input("back", &End::caller(mediamtx.srt()).asking(Some("read:cam")).ours());
    let receiver = Receiver::new();
    engine.add_output(back, "out", &receiver.url());
    engine.wait_state(&format!("/api/inputs/{back}"), "Live");
    wait_for("packets of its own making", || (receiver.bytes().len() > 188 * 1000).then_some(()));
    assert!(receiver.bytes().as_chunks::<188>().0.iter().all(|packet| packet[0] == 0x47));
}

/// Options of srt-tokio that fit [`End`].
fn tokio_options(options: &mut SocketOptions, key_bytes: u16) {
    let latency = Duration::from_millis(LATENCY.into());
    (options.sender.peer_latency, options.receiver.latency) = (latency, latency);
    // Its default holds 31 packets.
    (options.sender.buffer_size, options.receiver.buffer_size) =
        (ByteCount(12_000_000), ByteCount(12_000_000));
    if key_bytes > 0 {
        options.encryption.passphrase = PASSPHRASE.to_owned().try_into().ok();
        options.encryption.key_size = key_bytes.try_into().expect("a length");
    }
}

/// A connection of srt-tokio, and what whoever dialled said.
async fn tokio_connect(
    address: SocketAddr,
    dials: Option<&str>,
    key_bytes: u16,
) -> (SrtSocket, Option<String>) {
    if let Some(stream_id) = dials {
        let socket = SrtSocket::builder().set(|options| tokio_options(options, key_bytes));
        return (socket.call(address, Some(stream_id)).await.expect("a connection"), None);
    }
    let listener = SrtListener::builder().set(|options| tokio_options(options, key_bytes));
    let (listener, mut incoming) = listener.bind(address).await.expect("a listener");
    let request = incoming.incoming().next().await.expect("a caller");
    let stream_id = request.stream_id().map(|id| format!("{id}"));
    let socket = request.accept(None).await.expect("a connection");
    // The connection ends with its listener.
    std::mem::forget((listener, incoming));
    (socket, stream_id)
}

#[test]
fn srt_tokio_reads() {
    let (engine, input, mut sender) = engine();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let body = loopable("h264_sync.ts");
    for (engine_dials, key_bytes) in [(true, 0), (true, 16), (false, 0), (false, 32)] {
        let address = local();
        let case = Case { engine_dials, key_bytes, stream_id: Some("read:cam.1") };
        let name = format!("{case:?}");
        let came = Arc::new(Mutex::new((Vec::new(), None)));
        let ours = case.ends(address).0.ours();
        let read = {
            let came = Arc::clone(&came);
            async move {
                let dials = (!engine_dials).then_some("read:cam.1");
                let (mut socket, stream_id) = tokio_connect(address, dials, key_bytes).await;
                came.lock().1 = stream_id;
                while let Some(Ok((_, payload))) = socket.next().await {
                    came.lock().0.extend_from_slice(&payload);
                }
            }
        };
        let path = if engine_dials {
            runtime.spawn(read);
            engine.add_output(input, &name, &ours)
        } else {
            let path = engine.add_output(input, &name, &ours);
            listening(&engine, &path);
            runtime.spawn(read);
            path
        };
        knock(0, |mark| sender.send(mark), || holds(0, &came.lock().0));
        sender.send_paced(&body, 1316, MBPS);
        knock(1, |mark| sender.send(mark), || holds(1, &came.lock().0));
        same(&name, &came.lock().0, &body);
        assert_eq!(came.lock().1.as_deref(), engine_dials.then_some("read:cam.1"));
        engine.delete(&path);
    }
}

#[test]
fn srt_tokio_publishes() {
    let engine = Engine::with("reconnect: {delay_s: 1}\n");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let body = loopable("h264_sync.ts");
    for (engine_dials, key_bytes) in [(true, 0), (true, 16), (false, 0), (false, 32)] {
        let address = local();
        let case = Case { engine_dials, key_bytes, stream_id: Some("publish:cam.1") };
        let name = format!("{case:?}");
        let receiver = Receiver::new();
        let add = || {
            let input = engine.add_input(&name, &case.ends(address).0.ours());
            engine.add_output(input, "out", &receiver.url());
            listening(&engine, &format!("/api/inputs/{input}"));
        };
        let (feed, mut fed) = tokio::sync::mpsc::channel::<Bytes>(4096);
        let give = async move {
            let dials = (!engine_dials).then_some("publish:cam.1");
            let (mut socket, _) = tokio_connect(address, dials, key_bytes).await;
            while let Some(payload) = fed.recv().await {
                socket.try_send(Instant::now(), payload).expect("room");
            }
        };
        if engine_dials {
            runtime.spawn(give);
            add();
        } else {
            add();
            runtime.spawn(give);
        }
        let send =
            |datagram: &[u8]| feed.blocking_send(Bytes::copy_from_slice(datagram)).expect("a connection");
        knock(0, send, || holds(0, &receiver.bytes()));
        support::pace(body.chunks(1316), MBPS, send);
        knock(1, send, || holds(1, &receiver.bytes()));
        same(&name, &receiver.bytes(), &body);
    }
}

/// Slow enough for a process that sleeps through half a second with the kernel's default buffers.
const MBPS: f64 = 2.0;
