//! The API of an engine at work: what it is asked for touches what it names and nothing else, and it never waits
//! for the packets.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    Api, Crowd, Engine, Flow, Netns, Receiver, Sender, between, free_port, holds, knock, loopable, mark,
    wait_for,
};

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An input that `sender` feeds, with an output for everybody of the crowd.
fn serve(engine: &Engine, crowd: &Crowd) -> (u64, Sender) {
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    for addr in crowd.addrs() {
        engine.add_output(input, &addr.to_string(), &format!("udp://{addr}"));
    }
    let mut sender = Sender::new(local(port));
    knock(0, |mark| sender.send(mark), || crowd.is_ready());
    (input, sender)
}

/// What a process holds.
#[derive(Debug, PartialEq)]
struct Held {
    descriptors: usize,
    threads: usize,
}

fn held(pid: u32) -> Held {
    let count = |what| fs::read_dir(format!("/proc/{pid}/{what}")).expect("a process").count();
    Held { descriptors: count("fd"), threads: count("task") }
}

fn resident_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn two_thousand_outputs_come_and_go_and_leave_nothing_behind() {
    // A short ring is full before the count begins.
    let engine = Engine::with("lane: {max_seconds: 1}\n");
    let source = loopable("h264_sync.ts");
    let crowd = Crowd::new(10, &source);
    let (input, sender) = serve(&engine, &crowd);
    let flow = Flow::from(sender, &source, 2.0);
    let sink = Receiver::new();
    let to = sink.addr();
    let urls = [
        format!("udp://{to}"),
        format!("udp://{to}?delay_ms=0"),
        format!("rtp://{to}?delay_ms=40&ttl=3"),
        format!("udp://{to}?source_port={}", free_port()),
        "udp://127.9.9.9:9".to_owned(),
        "udp://239.255.19.1:5000?interface=lo".to_owned(),
        format!("udp://localhost:{}?klv=strip", to.port()),
        "file:churn.ts".to_owned(),
    ];
    let cycle = |round: usize| {
        let output = engine.add_output(input, "passer-by", &urls[round % urls.len()]);
        if round.is_multiple_of(5) {
            engine.order(&output, "stop");
            engine.order(&output, "start");
        }
        engine.delete(&output);
        if round.is_multiple_of(20) {
            let port = free_port();
            let other = engine.add_input("other", &format!("udp://127.0.0.1:{port}"));
            engine.add_output(other, "its own", &urls[round % 3]);
            engine.delete(&format!("/api/inputs/{other}"));
        }
        sink.clear();
    };
    let at_rest = held(engine.pid());
    (0..400).for_each(cycle);
    let before = resident_kb(engine.pid());
    (400..2000).for_each(cycle);
    let after = resident_kb(engine.pid());
    wait_for("descriptors and threads as before", || {
        let now = held(engine.pid());
        (now.descriptors <= at_rest.descriptors && now.threads <= at_rest.threads + BLOCKING).then_some(())
    });
    // Less than a kilobyte for each: an output that stays behind costs several.
    assert!(after < before + 1600, "{before} kB grew to {after} kB in 1,600 cycles");
    crowd.expect(flow.stop());
    assert_eq!(engine.get("/api/system/status")["outputs_count"], 10);
    assert_eq!(engine.get("/api/system/status")["inputs_count"], 1);
}

/// Threads that resolve names come and go by themselves.
const BLOCKING: usize = 8;

#[test]
fn what_is_done_to_one_output_touches_no_other() {
    let engine = Engine::start();
    let source = loopable("h265_sync.ts");
    let crowd = Crowd::new(20, &source);
    let (input, sender) = serve(&engine, &crowd);
    let flow = Flow::from(sender, &source, 2.0);
    let (one, two) = (Receiver::new(), Receiver::new());
    let hears = |receiver: &Receiver| {
        let before = receiver.count();
        wait_for("datagrams", || (receiver.count() > before + 20).then_some(()));
    };
    let silent = |receiver: &Receiver| {
        // A walk that was under way may still send.
        std::thread::sleep(Duration::from_millis(50));
        let before = receiver.count();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(receiver.count(), before);
    };
    for round in 0..5 {
        let output = engine.add_output(input, "named", &one.url());
        hears(&one);
        assert_eq!(engine.wait_state(&output, "Sending")["status"], "running");
        engine.order(&output, "stop");
        let stopped = engine.wait_state(&output, "Idle");
        assert_eq!((&stopped["status"], &stopped["desired"]), (&json!("stopped"), &json!("stopped")));
        silent(&one);
        engine.order(&output, "start");
        hears(&one);
        // Asking for what is so changes nothing.
        engine.order(&output, "start");
        hears(&one);
        engine.patch(&output, json!({"name": format!("renamed {round}"), "url": two.url()}));
        hears(&two);
        silent(&one);
        engine.delete(&output);
        silent(&two);
        assert_eq!(engine.call("GET", &output, None).0, 404);
    }
    crowd.expect(flow.stop());
    for addr in crowd.addrs() {
        let outputs = engine.get(&format!("/api/inputs/{input}/outputs"));
        let mut outputs = outputs.as_array().expect("a list").iter();
        let neighbour = outputs.find(|o| o["name"] == addr.to_string()).expect("the neighbour");
        assert_eq!((&neighbour["reconnect_count"], &neighbour["stats"]["skips"]), (&json!(0), &json!(0)));
    }
}

#[test]
fn an_input_that_is_stopped_changed_or_moved_keeps_its_outputs() {
    let engine = Engine::start();
    let source = loopable("h265_async.ts");
    let crowd = Crowd::new(5, &source);
    let (input, mut sender) = serve(&engine, &crowd);
    let path = format!("/api/inputs/{input}");
    let half = source.len() / 1316 / 2 * 1316;
    sender.send_paced(&source[..half], 1316, 4.0);
    crowd.expect(half);
    engine.order(&path, "stop");
    let stopped = engine.wait_state(&path, "Idle");
    assert_eq!((&stopped["status"], &stopped["desired"]), (&json!("inactive"), &json!("stopped")));
    let outputs = engine.get(&format!("{path}/outputs"));
    let first = format!("{path}/outputs/{}", outputs[0]["id"]);
    engine.wait_state(&first, "Starved");
    // Nobody listens: what is sent now is lost, and not by the outputs.
    sender.send_paced(&[0x47; 1316 * 20], 1316, 4.0);
    let port = free_port();
    engine.patch(&path, json!({"url": format!("udp://127.0.0.1:{port}")}));
    assert_eq!(engine.get(&path)["desired"], "stopped");
    engine.order(&path, "start");
    let mut sender = Sender::new(local(port));
    let late = Receiver::new();
    engine.add_output(input, "late", &late.url());
    knock(0, |mark| sender.send(mark), || late.count() > 0);
    sender.send_paced(&source[half..], 1316, 4.0);
    crowd.expect(source.len());
    assert_eq!(engine.get(&first)["reconnect_count"], 0);
}

/// Every route, in an order that works; the answer's code and a body where one is needed.
fn routes(to: &Receiver) -> Vec<(&'static str, &'static str, Option<Value>, u16)> {
    let output = Some(json!({"name": "new", "url": to.url()}));
    vec![
        ("GET", "/api/health", None, 200),
        ("GET", "/api/system/status", None, 200),
        ("GET", "/api/system/mediamtx/status", None, 200),
        ("POST", "/api/system/mediamtx/restart", None, 200),
        ("GET", "/api/inputs", None, 200),
        ("POST", "/api/inputs", Some(json!({"name": "new", "url": "udp://127.0.0.1:1"})), 201),
        ("GET", "/api/inputs/1", None, 200),
        ("PATCH", "/api/inputs/1", Some(json!({"name": "renamed"})), 200),
        ("GET", "/api/inputs/1/status", None, 200),
        ("GET", "/api/inputs/1/report", None, 200),
        ("GET", "/api/inputs/1/logs", None, 200),
        ("GET", "/api/inputs/1/outputs", None, 200),
        ("POST", "/api/inputs/1/outputs", output.clone(), 201),
        ("GET", "/api/inputs/1/outputs/1", None, 200),
        ("PATCH", "/api/inputs/1/outputs/1", Some(json!({"name": "renamed"})), 200),
        ("GET", "/api/inputs/1/outputs/1/stats", None, 200),
        ("GET", "/api/inputs/1/outputs/1/logs", None, 200),
        ("POST", "/api/inputs/1/outputs/1/stop", None, 200),
        ("POST", "/api/inputs/1/outputs/1/start", None, 200),
        ("DELETE", "/api/inputs/1/outputs/2", None, 200),
        ("POST", "/api/inputs/2/stop", None, 200),
        ("POST", "/api/inputs/2/start", None, 200),
        ("POST", "/api/inputs/2/outputs", output, 201),
        ("DELETE", "/api/inputs/2", None, 200),
    ]
}

#[test]
fn no_route_waits_for_a_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "api: {{listen: '127.0.0.1:0'}}\nmetrics: {{listen: 'off'}}\nshards: 1\ndata_dir: {}\n",
        folder.path().display()
    );
    let config = millrace::config::Config::parse(&text, Path::new("test"), []).expect("a configuration");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let app = runtime.block_on(millrace::app::App::start(config)).expect("an engine");
    let engine = Api::new(&app.address().to_string());

    let (port, source) = (free_port(), loopable("h264_sync.ts"));
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let (receiver, new) = (Receiver::new(), Receiver::new());
    engine.add_output(input, "out", &receiver.url());
    engine.add_output(input, "to be deleted", &Receiver::new().url());
    let mut sender = Sender::new(local(port));
    knock(0, |mark| sender.send(mark), || receiver.count() > 0);
    let flow = Flow::from(sender, &source, 2.0);
    app.hold_shard(0, Duration::from_secs(2));
    let held = wait_for("the shard to stand still", || {
        let before = receiver.count();
        std::thread::sleep(Duration::from_millis(100));
        (receiver.count() == before).then_some(before)
    });
    for (method, path, body, status) in routes(&new) {
        let answer = engine.call(method, path, body.as_ref());
        assert_eq!(answer.0, status, "{method} {path}: {}", answer.1);
    }
    assert_eq!(receiver.count(), held, "the shard was held until the last answer");

    // What was asked for meanwhile is done.
    let output = engine.add_output(input, "new too", &new.url());
    wait_for("datagrams", || (receiver.count() > held && new.count() > 0).then_some(()));
    engine.wait_state(&output, "Sending");
    assert_eq!(engine.get("/api/system/status")["inputs_count"], 1);
    flow.stop();
    runtime.block_on(app.stop());
}

/// What the API shows of everything, without what changes by itself.
fn shown(engine: &Engine) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let inputs = engine.get("/api/inputs");
    for input in inputs.as_array().expect("a list") {
        let path = format!("/api/inputs/{}", input["id"]);
        let outputs = engine.get(&format!("{path}/outputs"));
        for object in outputs.as_array().expect("a list").iter().chain([input]) {
            let mut object = object.clone();
            let fields = object.as_object_mut().expect("an object");
            ["stats", "uptime_seconds"].iter().for_each(|field| drop(fields.remove(*field)));
            all.insert(format!("{path} {} {}", object["input_id"], object["id"]), object);
        }
    }
    all
}

#[test]
fn what_is_refused_changes_nothing() {
    let engine = Engine::with("limits: {max_outputs_per_input: 6}\nudp_port_range: 5000-5001\n");
    let source = loopable("h265_sync.ts");
    let crowd = Crowd::new(5, &source);
    let (input, sender) = serve(&engine, &crowd);
    assert_eq!(input, 1);
    let flow = Flow::from(sender, &source, 2.0);
    let (inputs, outputs) = ("/api/inputs", "/api/inputs/1/outputs");
    let last = engine.add_output(1, "last", "file:last.ts");
    engine.wait_state(&last, "Sending");
    engine.wait_state("/api/inputs/1", "Live");
    for addr in 1..=5 {
        engine.wait_state(&format!("{outputs}/{addr}"), "Sending");
    }
    let before = shown(&engine);
    assert_eq!(before.len(), 7);
    let output = |url: &str| Some(json!({"name": "o", "url": url}));
    for (method, path, body, status) in [
        ("POST", inputs, None, 422),
        ("POST", inputs, Some(json!({"name": "in", "url": "udp://:7000"})), 400),
        ("POST", inputs, Some(json!({"name": "b", "url": "udp://:7000?stall_after=0"})), 422),
        ("POST", inputs, Some(json!({"name": "b", "udp_port": 22})), 422),
        ("POST", inputs, Some(json!({"name": "b", "surprise": 1})), 422),
        ("PATCH", "/api/inputs/1", Some(json!({"url": "udp://nowhere"})), 422),
        ("PATCH", "/api/inputs/1", Some(json!({"name": ""})), 422),
        ("PATCH", "/api/inputs/9", Some(json!({"name": "x"})), 404),
        ("DELETE", "/api/inputs/9", None, 404),
        ("POST", "/api/inputs/9/start", None, 404),
        ("POST", "/api/inputs/9/outputs", output("udp://127.0.0.1:9"), 400),
        ("POST", outputs, output("udp://127.0.0.1:9"), 400),
        ("POST", outputs, output("udp://127.0.0.1"), 422),
        ("PATCH", "/api/inputs/1/outputs/1", output("gopher://127.0.0.1:9"), 422),
        ("PATCH", "/api/inputs/1/outputs/1", Some(json!({"protocol": "srt_caller"})), 422),
        ("PATCH", "/api/inputs/1/outputs/1", Some(json!({"name": "last"})), 400),
        ("PATCH", "/api/inputs/1/outputs/1", Some(json!({"reconnect_delay": 0})), 422),
        ("PATCH", "/api/inputs/1/outputs/1", Some(json!({"url": "file:../../etc/passwd"})), 422),
        ("DELETE", "/api/inputs/1/outputs/9", None, 404),
        ("POST", "/api/inputs/1/outputs/9/stop", None, 404),
        ("PUT", "/api/inputs/1", Some(json!({"name": "x"})), 405),
        ("DELETE", inputs, None, 405),
        ("GET", "/api/nothing", None, 404),
    ] {
        let (code, answer) = engine.call(method, path, body.as_ref());
        assert_eq!(code, status, "{method} {path} {body:?}: {answer}");
        let detail = &answer["detail"];
        match status {
            422 => {
                let first = &detail[0];
                assert!(first["msg"].as_str().is_some_and(|m| m.len() > 5), "{answer}");
                assert!(first["loc"].as_array().is_some_and(|loc| loc[0] == "body"), "{answer}");
            }
            _ => assert!(detail.as_str().is_some_and(|d| !d.is_empty()), "{answer}"),
        }
    }
    assert_eq!(shown(&engine), before);
    crowd.expect(flow.stop());
}

#[test]
fn a_path_that_leads_out_is_refused() {
    let engine = Engine::start();
    let media = engine.media();
    let outside = tempfile::tempdir().expect("a folder");
    fs::copy(support::testdata("ts/h264_sync.ts"), outside.path().join("secret.ts")).expect("a file");
    symlink(outside.path(), media.join("folder")).expect("a link");
    symlink(outside.path().join("secret.ts"), media.join("file.ts")).expect("a link");
    symlink("../millrace.yaml", media.join("up.ts")).expect("a link");
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let outputs = format!("/api/inputs/{input}/outputs");
    let absolute = outside.path().join("secret.ts");
    for path in [
        "../millrace.yaml",
        "a/../../millrace.yaml",
        "%2e%2e/millrace.yaml",
        "folder/secret.ts",
        "file.ts",
        "up.ts",
        "/etc/passwd",
        "///etc/passwd",
        "//localhost/etc/passwd",
        ".",
        absolute.to_str().expect("UTF-8"),
    ] {
        let body = json!({"name": "x", "url": format!("file:{path}")});
        for place in ["/api/inputs", &outputs] {
            let (status, answer) = engine.call("POST", place, Some(&body));
            assert_eq!(
                (status, &answer["detail"][0]["loc"]),
                (422, &json!(["body", "url"])),
                "{path}: {answer}"
            );
        }
    }
    assert_eq!(engine.get("/api/inputs").as_array().map(Vec::len), Some(1));
    assert_eq!(engine.get(&outputs), json!([]));

    // What is harmless when it is asked for and not when it is opened.
    fs::create_dir(media.join("later")).expect("a folder");
    fs::copy(support::testdata("ts/h264_sync.ts"), media.join("later/secret.ts")).expect("a file");
    let dump = engine.add_output(input, "dump", "file:later/dump.ts");
    let player = engine.add_input("player", "file:later/secret.ts");
    let player = format!("/api/inputs/{player}");
    engine.order(&player, "stop");
    fs::rename(media.join("later"), media.join("before")).expect("a new name");
    symlink(outside.path(), media.join("later")).expect("a link");
    engine.order(&player, "start");
    let refused = engine.wait_state(&player, "Failed");
    assert_eq!(refused["status"], "error");
    assert!(refused["last_error"].as_str().is_some_and(|e| e.contains("symlink")), "{refused}");
    let mut sender = Sender::new(local(port));
    let by_link = |o: &Value| o["last_error"].as_str().is_some_and(|e| e.contains("symlink"));
    // Its file is made when the first packet comes.
    let refused = wait_for("the refusal", || {
        sender.send(&mark(0));
        Some(engine.get(&dump)).filter(by_link)
    });
    assert_eq!((&refused["state"], &refused["status"]), (&json!("Failed"), &json!("error")), "{refused}");
    assert!(!outside.path().join("dump.ts").exists());
    assert_eq!(fs::read_dir(outside.path()).expect("a folder").count(), 1);
}

#[test]
fn a_file_that_rotates_holds_every_byte() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let media = engine.media();
    fs::create_dir(media.join("parts")).expect("a folder");
    engine.add_output(input, "parts", "file:parts/dump.ts?rotate_mb=1");
    // Names sort by time, and within a second by number.
    let parts = || -> Vec<Vec<u8>> {
        let entries = fs::read_dir(media.join("parts")).expect("a folder");
        let mut names: Vec<(String, u32)> = entries
            .map(|entry| {
                let name = entry.expect("a file").file_name().into_string().expect("UTF-8");
                let stamp =
                    name.strip_prefix("dump-").and_then(|n| n.strip_suffix(".ts")).expect("dump-….ts");
                let (stamp, number) = stamp.split_once('-').unwrap_or((stamp, "0"));
                (stamp.to_owned(), number.parse().expect("a number"))
            })
            .collect();
        names.sort();
        let path = |(stamp, number): &(String, u32)| match number {
            0 => format!("parts/dump-{stamp}.ts"),
            _ => format!("parts/dump-{stamp}-{number}.ts"),
        };
        names.iter().map(|name| fs::read(media.join(path(name))).expect("a part")).collect()
    };
    let mut sender = Sender::new(local(port));
    knock(0, |mark| sender.send(mark), || holds(0, &parts().concat()));
    let source = loopable("h264_multiprog.ts").repeat(5);
    sender.send_paced(&source, 1316, 20.0);
    knock(1, |mark| sender.send(mark), || holds(1, &parts().concat()));
    let parts = parts();
    assert!(between(0, 1, &parts.concat()).expect("both marks") == source);
    assert!(parts.len() >= 5);
    let full = parts.split_last().expect("a part").1;
    assert!(full.iter().all(|part| (990_000..=1_000_000).contains(&part.len())));
}

#[test]
fn a_signal_drains_and_ends_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::with(&format!("media_roots: [{}]\n", folder.path().display()));
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let receiver = Receiver::new();
        engine.add_output(input, "out", &receiver.url());
        engine.add_output(input, "file", "file:dump.ts");
        let dump = folder.path().join("dump.ts");
        let mut sender = Sender::new(local(port));
        let heard = || receiver.count() > 0 && dump.exists();
        knock(0, |mark| sender.send(mark), heard);
        let source = loopable("h264_sync.ts");
        sender.send_paced(&source, 1316, 20.0);
        // All has come in: the file is to hold it when the engine has ended.
        wait_for("all of it", || receiver.bytes().ends_with(&source).then_some(()));
        let (status, log) = engine.end(signal);
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(log.contains("draining") && !log.contains("not everything ended"), "{log}");
        assert!(fs::read(&dump).expect("the dump").ends_with(&source));
    }
}

#[test]
fn a_name_that_does_not_resolve_is_asked_again_or_not() {
    let engine = Engine::with("reconnect: {delay_s: 1, jitter: 0}\n");
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let outputs = format!("/api/inputs/{input}/outputs");
    let add = |name: &str, more: Value| {
        let mut body = json!({"name": name, "url": "udp://no-such-host.invalid:5000"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        format!("{outputs}/{}", engine.post(&outputs, body)["id"])
    };
    let again = add("again", json!({}));
    let once = add("once", json!({"auto_reconnect": false}));
    let twice = add("twice", json!({"max_reconnect_attempts": 1}));

    let failed = engine.wait_state(&once, "Failed");
    assert_eq!((&failed["status"], &failed["reconnect_count"]), (&json!("error"), &json!(0)));
    let failed = engine.wait_state(&twice, "Failed");
    assert_eq!((&failed["status"], &failed["reconnect_count"]), (&json!("error"), &json!(1)));
    let backoff = engine.wait_state(&again, "Backoff");
    assert_eq!(backoff["status"], "reconnecting");
    let error = backoff["last_error"].as_str().expect("an error");
    assert!(error.contains("no-such-host.invalid"), "{error}");
    engine.wait(&again, "another attempt", |o| o["reconnect_count"].as_u64() > Some(1));

    engine.order(&again, "stop");
    assert_eq!(engine.wait_state(&again, "Idle")["status"], "stopped");
    engine.order(&again, "start");
    engine.wait_state(&again, "Backoff");
    // Started by hand, the one that failed tries once more.
    engine.order(&once, "start");
    engine.wait_state(&once, "Failed");
    // A right address is taken at once.
    engine.patch(&again, json!({"url": receiver.url()}));
    engine.wait_state(&again, "Starved");
    let mut sender = Sender::new(local(port));
    knock(0, |mark| sender.send(mark), || receiver.count() > 1);
    engine.wait_state(&again, "Sending");
    assert_eq!(engine.get(&again)["reconnect_count"], 0);
}

/// A resolver inside the namespace: it says of every name that there is none, or is silent.
struct Resolver {
    asked: Arc<AtomicUsize>,
    silent: Arc<AtomicBool>,
}

impl Resolver {
    /// `None` when this machine's resolver has no IPv4 address to stand in for.
    fn start(netns: &Netns) -> Option<Self> {
        let text = fs::read_to_string("/etc/resolv.conf").ok()?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("nameserver "));
        let server: Ipv4Addr = lines.find_map(|address| address.trim().parse().ok())?;
        if !server.is_loopback() {
            netns.ip(&format!("addr add {server}/32 dev lo"));
        }
        let resolver = Self { asked: Arc::default(), silent: Arc::default() };
        let (asked, silent) = (Arc::clone(&resolver.asked), Arc::clone(&resolver.silent));
        let socket = netns.run(|| UdpSocket::bind((server, 53)).expect("the port of the resolver"));
        std::thread::spawn(move || {
            let mut message = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut message) {
                asked.fetch_add(1, Relaxed);
                if !silent.load(Relaxed) {
                    // A response, recursion available, NXDOMAIN (RFC 1035, 4.1.1); nothing behind the question.
                    message[2] |= 0x80;
                    message[3] = 0x83;
                    message[6..12].fill(0);
                    socket.send_to(&message[..length.min(12 + question(&message[12..length]))], from).ok();
                }
            }
        });
        Some(resolver)
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

/// The length of the first question: a name that ends in an empty label, type and class.
fn question(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&length) = bytes.get(at).filter(|length| **length > 0) {
        at += 1 + usize::from(length);
    }
    at + 5
}

#[test]
fn two_thousand_names_that_do_not_resolve_leave_nothing_behind() {
    let Some(netns) = Netns::new() else { return };
    let Some(resolver) = Resolver::start(&netns) else { return };
    netns.run(|| {
        let engine = Engine::with("lane: {max_seconds: 1}\nreconnect: {delay_s: 300}\n");
        let source = loopable("h264_sync.ts");
        let crowd = Crowd::new(10, &source);
        let (input, sender) = serve(&engine, &crowd);
        let flow = Flow::from(sender, &source, 2.0);
        let add = |i: usize| {
            engine.add_output(input, &format!("nobody {i}"), &format!("udp://nobody-{i}.example:5000"))
        };
        let hundred = |round: usize| {
            let before = resolver.asked();
            let outputs: Vec<String> = (round * 100..round * 100 + 100).map(add).collect();
            for output in &outputs {
                let refused = engine.wait_state(output, "Backoff");
                assert!(refused["last_error"].as_str().is_some_and(|e| e.contains(".example")), "{refused}");
            }
            assert!(resolver.asked() >= before + 100, "every name was asked for");
            outputs.iter().for_each(|output| drop(engine.delete(output)));
        };
        let at_rest = held(engine.pid());
        (0..4).for_each(hundred);
        let before = resident_kb(engine.pid());
        (4..20).for_each(hundred);
        let after = resident_kb(engine.pid());
        assert!(after < before + 1600, "{before} kB grew to {after} kB in 1,600 dials");

        // Nobody answers any more: what is asked for at once stays bounded, and the API and the packets go on.
        resolver.silent.store(true, Relaxed);
        let waiting: Vec<String> = (2000..2200).map(add).collect();
        wait_for("questions", || (resolver.asked() > 2010).then_some(()));
        let now = held(engine.pid());
        assert!(now.threads <= at_rest.threads + LOOKUPS + BLOCKING, "{now:?} after {at_rest:?}");
        assert!(now.descriptors <= at_rest.descriptors + LOOKUPS + BLOCKING, "{now:?} after {at_rest:?}");
        assert_eq!(engine.get(&waiting[199])["status"], "starting");
        assert!(engine.is_healthy());
        waiting.iter().for_each(|output| drop(engine.delete(output)));
        resolver.silent.store(false, Relaxed);
        wait_for("descriptors and threads as before", || {
            let now = held(engine.pid());
            (now.descriptors <= at_rest.descriptors && now.threads <= at_rest.threads + LOOKUPS + BLOCKING)
                .then_some(())
        });
        crowd.expect(flow.stop());
        assert_eq!(engine.get("/api/system/status")["outputs_count"], 10);
    });
}

/// Names that the engine asks for at once; each takes a thread and a socket while it waits.
const LOOKUPS: usize = 32;

#[test]
fn a_resolver_that_does_not_answer_holds_up_nothing() {
    let Some(netns) = Netns::new() else { return };
    let Some(resolver) = Resolver::start(&netns) else { return };
    resolver.silent.store(true, Relaxed);
    netns.run(|| {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let waiting = engine.add_output(input, "waiting", "udp://resolver-is-silent.example:5000");
        wait_for("the question", || (resolver.asked() > 0).then_some(()));
        // Other names, and addresses, do not wait for that one.
        let receiver = Receiver::new();
        engine.add_output(input, "out", &receiver.url());
        let mut sender = Sender::new(local(port));
        knock(0, |mark| sender.send(mark), || receiver.count() > 0);
        assert_eq!(engine.get(&waiting)["status"], "starting");
        let before = resolver.asked();
        let (status, log) = engine.terminate();
        assert_eq!(status.code(), Some(0), "{log}");
        // The resolver's library would have asked again before it gave up.
        assert_eq!(resolver.asked(), before, "the end waited for the resolver");
    });
}

#[test]
fn sockets_that_say_nothing_do_not_take_the_api_away() {
    millrace::net::raise_open_files().expect("room for sockets");
    let engine = Engine::start();
    let source = loopable("h265_sync.ts");
    let crowd = Crowd::new(5, &source);
    let (_, sender) = serve(&engine, &crowd);
    let flow = Flow::from(sender, &source, 2.0);
    let before = held(engine.pid()).descriptors;
    let address: SocketAddr = engine.address().parse().expect("an address");
    let sockets: Vec<TcpStream> =
        (0..1200).map(|_| TcpStream::connect(address).expect("a connection")).collect();
    // Who came too late is told.
    let mut last = sockets.last().expect("many");
    let mut said = String::new();
    last.set_read_timeout(Some(support::PATIENCE)).expect("SO_RCVTIMEO");
    last.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(held(engine.pid()).descriptors <= before + 1024);
    drop(sockets);
    wait_for("the API", || engine.is_healthy().then_some(()));
    wait_for("descriptors as before", || (held(engine.pid()).descriptors <= before + 8).then_some(()));
    crowd.expect(flow.stop());
}
