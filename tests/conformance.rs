//! Whether streams keep the rules, seen from outside: the report of a live input and that of the probe; and whether KLV
//! keeps its carriage and every byte on its way through the engine.

#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Engine, Sender, free_port, testdata, verified, wait_for};

fn millrace(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("millrace runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
    (output.status.code(), text)
}

/// Ids of broken rules, with how often.
fn broken(report: &Value) -> Vec<(String, u64)> {
    let rules = report["rules"].as_array().expect("rules");
    let broken = rules.iter().filter(|rule| rule["state"] == "failed");
    broken
        .map(|rule| (rule["id"].as_str().expect("an id").into(), rule["count"].as_u64().expect("a count")))
        .collect()
}

fn probed(file: &Path) -> Value {
    let (code, text) = millrace(&["probe", "--json", file.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0), "{text}");
    serde_json::from_str::<Value>(&text).expect("JSON")["conformance"].take()
}

#[test]
fn the_probe_says_which_rules_a_file_breaks() {
    let good = testdata("ts/h264_sync.ts");
    let report = probed(&good);
    assert_eq!((&report["state"], broken(&report)), (&"ok".into(), vec![]));
    let rules = report["rules"].as_array().expect("rules");
    let rule = |id: &str| rules.iter().find(|rule| rule["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    assert_eq!(rule("tr101290.pat_error")["state"], "ok");
    assert_eq!(rule("ts102034.pcr_jitter")["state"], "not_applicable");
    assert!(
        rule("tr101290.pcr_accuracy_error")["measured"].as_str().is_some_and(|text| text.contains("varies"))
    );
    let bad = testdata("ts/h264_badsum.ts");
    let report = probed(&bad);
    assert_eq!(broken(&report), [("st0601.checksum".to_owned(), 12)]);
    let rules = report["rules"].as_array().expect("rules");
    let last = &rules.iter().find(|rule| rule["state"] == "failed").expect("one")["last"];
    assert_eq!((&last["pid"], &last["time"]), (&258.into(), &Value::Null));
    assert!(last["text"].as_str().is_some_and(|text| text.starts_with("the checksum says 0x")), "{last}");

    let (good, bad) = (good.to_str().expect("UTF-8"), bad.to_str().expect("UTF-8"));
    let (code, text) = millrace(&["probe", "--strict", good]);
    assert!(code == Some(0) && text.contains("Rules: 0 broken"), "{text}");
    assert!(text.contains("KLV on PID 0x0102 of program 1: synchronous, 60 packets"), "{text}");
    let (code, text) = millrace(&["probe", "--strict", bad]);
    assert!(code == Some(3) && text.contains("st0601.checksum") && text.contains("12 times"), "{text}");
    assert_eq!(millrace(&["probe", bad]).0, Some(0));
}

#[test]
fn a_live_input_is_held_against_the_rules_all_the_time() {
    let engine = Engine::start();
    let name = "h264_sync.ts";
    std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a stream");
    let input = engine.add_input("in", &format!("file:{name}?loop=true"));
    let path = format!("/api/inputs/{input}/ts-health");
    // that the file begins anew is the engine's doing: no rule is broken by it
    let report = engine.wait(&path, "the second pass", |report| {
        report["stream_seconds"].as_f64() > Some(8.0) && report["metadata"][0]["packets"].as_u64() > Some(70)
    });
    let rules: Vec<_> = broken(&report).into_iter().filter(|rule| rule.0 != "ts102034.pcr_jitter").collect();
    assert_eq!(rules, [], "{report:#}");
    assert_eq!(report["metadata"][0]["carriage"], "synchronous");
    assert_eq!(report["unexamined_packets"], 0);
    // a sender that does the same is told of it
    let port = free_port();
    let sent = engine.add_input("sent", &format!("udp://127.0.0.1:{port}"));
    let path = format!("/api/inputs/{sent}/ts-health");
    let stream = std::fs::read(testdata("ts").join(name)).expect("a stream");
    let mut sender = Sender::new((std::net::Ipv4Addr::LOCALHOST, port).into());
    sender.send_all_paced(stream.chunks(1316).chain(stream.chunks(1316)), 1.5);
    let again = engine
        .wait(&path, "the second pass", |report| broken(report).iter().any(|rule| rule.0 == "st0601.time"));
    let rules = again["rules"].as_array().expect("rules");
    let time = rules.iter().find(|rule| rule["id"] == "st0601.time").expect("the rule");
    assert_eq!((&time["last"]["pid"], &time["count"]), (&258.into(), &1.into()));
    assert_eq!(time["last"]["text"], "the time stamp goes back by 5.900 s");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("now").as_secs_f64();
    let when = time["last"]["time"].as_f64().expect("a wall-clock time");
    assert!((now - 60.0..now + 1.0).contains(&when), "{when} {now}");
    assert_eq!(engine.call("GET", "/api/inputs/99/ts-health", None).0, 404);
    let idle = engine.add_input("idle", &format!("udp://127.0.0.1:{}", free_port()));
    let idle = engine.get(&format!("/api/inputs/{idle}/ts-health"));
    assert!(idle.is_null() || broken(&idle).is_empty(), "{idle:#}");
}

/// Every KLV packet in a file, in hexadecimal, and its carriage.
fn klv(file: &Path) -> Vec<(String, String)> {
    let (_, text) = millrace(&["klv", "--raw", file.to_str().expect("UTF-8")]);
    let packets = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    packets.map(|packet| (text(&packet["raw"]), text(&packet["carriage"]))).collect()
}

/// Every packet is one of the source, and the one behind the one before it; where the source begins anew, too.
fn check_order(name: &str, found: &[(String, String)], source: &[(String, String)]) {
    let place = |raw: &str| source.iter().position(|packet| packet.0 == raw);
    let places: Vec<_> = found
        .iter()
        .map(|packet| place(&packet.0).unwrap_or_else(|| panic!("{name}: {}", packet.0)))
        .collect();
    for pair in places.windows(2) {
        assert_eq!((pair[0] + 1) % source.len(), pair[1], "{name}: {places:?}");
    }
}

/// Waits until a file holds so many packets of KLV, then stops its output.
fn recorded(engine: &Engine, output: &str, file: &str, packets: usize) -> Vec<(String, String)> {
    let path = engine.media().join(file);
    wait_for(file, || (klv(&path).len() >= packets).then_some(()));
    engine.order(output, "stop");
    engine.wait_state(output, "Idle");
    klv(&path)
}

/// Rules of ST 1402 that a file breaks.
fn carriage_faults(file: &Path) -> Vec<(String, u64)> {
    broken(&probed(file)).into_iter().filter(|rule| rule.0.starts_with("st1402.")).collect()
}

#[test]
fn carriage_stays_what_it_is_from_transport_stream_to_transport_stream() {
    for (name, carriage) in [("h264_sync.ts", "synchronous"), ("h264_async.ts", "asynchronous")] {
        let source = klv(&testdata("ts").join(name));
        assert_eq!(source.len(), 60);
        let engine = Engine::start();
        std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a stream");
        let port = free_port();
        let relay = engine.add_input("relay", &format!("srt://127.0.0.1:{port}?mode=listener"));
        let exact = engine.add_output(relay, "exact", "file:exact.ts");
        let filtered = engine.add_output(relay, "filtered", "file:filtered.ts?program=1");
        let input = engine.add_input("in", &format!("file:{name}?loop=true"));
        engine.add_output(input, "out", &format!("srt://127.0.0.1:{port}?streamid=publish:relay"));
        for (output, file) in [(exact, "exact.ts"), (filtered, "filtered.ts")] {
            let found = recorded(&engine, &output, file, 40);
            assert!(found.iter().all(|packet| packet.1 == carriage), "{name} {file}");
            check_order(file, &found, &source);
            let mut faults = carriage_faults(&engine.media().join(file));
            // the numbers of the cells begin anew with the file that is played
            faults.retain(|fault| fault.0 != "st1402.sequence");
            assert_eq!(faults, [], "{name} {file}");
        }
    }
}

#[test]
fn an_independent_verifier_finds_nothing_wrong_with_copies() {
    let engine = Engine::start();
    let sources = [
        ("h264_async.ts", ""),
        ("h264_sync.ts", ""),
        ("h264_multiprog.ts", "?program=1"),
        ("h264_multiprog.ts", "?program=2"),
    ];
    for (name, _) in sources {
        std::fs::copy(testdata("ts").join(name), engine.media().join(name)).expect("a stream");
    }
    let copies = sources.map(|(name, filter)| {
        let copy = format!("copy_{}_{name}", filter.trim_start_matches("?program="));
        // it plays when its output is there, and not before: from a file, of which no kernel drops anything
        let input = engine.add_input(&copy, &format!("udp://127.0.0.1:{}", free_port()));
        let path = format!("/api/inputs/{input}");
        engine.order(&path, "stop");
        let body = serde_json::json!({ "url": format!("file:{name}?loop=false") });
        let (status, answer) = engine.call("PATCH", &path, Some(&body));
        assert_eq!(status, 200, "{answer}");
        let output = engine.add_output(input, "copy", &format!("file:{copy}{filter}"));
        engine.wait_state(&output, "Starved");
        engine.order(&path, "start");
        (path, output, copy)
    });
    for (path, ..) in &copies {
        engine.wait(path, "the file's end", |input| {
            input["reason"].as_str().is_some_and(|reason| reason.contains("came to its end"))
        });
    }
    for ((_, output, copy), (name, filter)) in copies.iter().zip(sources) {
        let found = recorded(&engine, output, copy, 60);
        assert_eq!(found.len(), 60, "{copy}");
        let read = |path| std::fs::read(path).expect("a stream");
        let file = engine.media().join(copy);
        assert!(!filter.is_empty() || read(file.clone()) == read(testdata("ts").join(name)), "{copy}");
        let Some(errors) = verified(&file) else { return };
        assert_eq!(errors, [""; 0], "{copy}");
    }
}

#[test]
fn rtsp_keeps_every_byte_of_klv_whoever_dials() {
    let name = "h264_sync.ts";
    let source = klv(&testdata("ts").join(name));
    let (giver, taker) = (Engine::start(), Engine::start());
    std::fs::copy(testdata("ts").join(name), giver.media().join(name)).expect("a stream");
    let input = giver.add_input("in", &format!("file:{name}?loop=true"));
    // served and pulled
    let serves = free_port();
    let served = giver.add_output(input, "serves", &format!("rtsp://:{serves}/live/cam"));
    giver.wait(&served, "a port to listen on", |output| output["state"] != "Connecting");
    let pulled = taker.add_input("pulls", &format!("rtsp://127.0.0.1:{serves}/live/cam"));
    // pushed and published
    let listens = free_port();
    let published = taker.add_input("publish", &format!("rtsp://:{listens}/live/pub"));
    taker.wait(&format!("/api/inputs/{published}"), "a port to listen on", |input| {
        input["state"] != "Connecting"
    });
    giver.add_output(input, "pushes", &format!("rtsp://127.0.0.1:{listens}/live/pub"));
    for (input, file) in [(pulled, "pulled.ts"), (published, "published.ts")] {
        let output = taker.add_output(input, file, &format!("file:{file}"));
        let found = recorded(&taker, &output, file, 40);
        check_order(file, &found, &source);
        // what is muxed here is carried as the standard says, and the numbers of its cells run on
        assert_eq!(carriage_faults(&taker.media().join(file)), [], "{file}");
        // It was stopped somewhere: the last picture, which starts with a clock, may miss its end.
        let path = taker.media().join(file);
        let mut bytes = std::fs::read(&path).expect("a stream");
        let starts = |packet: &[u8]| {
            packet[1] & 0x40 != 0 && packet[3] & 0x30 == 0x30 && packet[4] > 0 && packet[5] & 0x10 != 0
        };
        let end = bytes.as_chunks::<188>().0.iter().rposition(|packet| starts(packet)).expect("a picture");
        bytes.truncate(end * 188);
        std::fs::write(&path, bytes).expect("a file");
        if let Some(mut errors) = verified(&path) {
            // the time of what is filmed begins anew with the file that is played
            errors.retain(|error| !error.starts_with("\"st0603.timestamp.order\""));
            assert_eq!(errors, [""; 0], "{file}");
        }
    }
}
