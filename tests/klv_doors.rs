//! What the KLV of an input says, asked of an engine at work: a stream enters by UDP, the API answers what the stream is
//! known to hold, tells it as it comes, and shows its counts to Prometheus.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use prometheus_parse::{Scrape, Value as Figure};
use serde_json::{Value, json};
use support::{Engine, Flow, Sender, free_port, loopable, wait_for};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

/// An input that takes datagrams, and a sender to it.
fn serve(engine: &Engine) -> (u64, SocketAddr) {
    let port = free_port();
    let input = engine.add_input("drone", &format!("udp://127.0.0.1:{port}"));
    let path = format!("/api/inputs/{input}");
    engine.wait(&path, "its socket", |input| input["stats"]["rcvbuf_granted"].as_u64() > Some(0));
    (input, (Ipv4Addr::LOCALHOST, port).into())
}

fn stream(name: &str) -> Vec<u8> {
    std::fs::read(support::testdata("ts").join(name)).expect("a stream")
}

/// An item of a track or event.
fn item(of: &Value, tag: u32) -> Value {
    let items = of["items"].as_array().unwrap_or_else(|| panic!("items in {of}"));
    items.iter().find(|item| item["tag"] == tag).cloned().unwrap_or_default()
}

fn near(value: &Value, expected: f64) -> bool {
    value.as_f64().is_some_and(|value| (value - expected).abs() < 1e-6)
}

#[test]
fn an_input_tells_what_the_klv_in_it_says() {
    for (name, carriage, stream_type) in
        [("h264_async.ts", "asynchronous", 6), ("h265_sync.ts", "synchronous", 0x15)]
    {
        let engine = Engine::start();
        let (input, to) = serve(&engine);
        let path = format!("/api/inputs/{input}");
        let (status, said) = engine.call("GET", &format!("{path}/klv"), None);
        assert_eq!((status, &said["detail"]), (404, &json!("No KLV: nothing has been received yet")));
        Sender::new(to).send_paced(&stream(name), 1316, 8.0);
        let klv = engine.wait(&format!("{path}/klv"), "60 packets", |klv| klv["tracks"][0]["packets"] == 60);
        let track = &klv["tracks"][0];
        assert_eq!(track["carriage"], json!({"declared": carriage, "actual": carriage}));
        assert_eq!((&track["pid"], &track["stream_type"]), (&json!(0x102), &json!(stream_type)));
        assert_eq!(track["pts"].is_u64(), carriage == "synchronous");
        assert_eq!(
            (&track["set"], &track["checksum"], &track["checksum_errors"]),
            (&json!("ST 0601"), &json!("right"), &json!(0))
        );
        assert_eq!(track["timestamp_us"], 1_700_000_005_900_000_u64);
        assert!(track["age_ms"].as_u64() < Some(20_000) && track["rate"].as_f64() > Some(1.0), "{track}");
        // as the bytes of the last packet say by the formulas of ST 0601
        assert_eq!(item(track, 3)["value"], "GEN-0177");
        assert_eq!(
            item(track, 4),
            json!({"tag": 4, "name": "Platform Tail Number", "value": "TAIL42", "age_ms": item(track, 4)["age_ms"]})
        );
        for (tag, value) in [
            (5, 196.174_868_4),
            (13, 38.994_978_1),
            (14, -76.977_721_2),
            (15, 1_200.074_769_2),
            (18, 90.0),
            (23, 39.0),
        ] {
            assert!(near(&item(track, tag)["value"], value), "{tag}: {}", item(track, tag));
        }
        let counters = &klv["counters"];
        assert_eq!(
            (&counters["packets"], &counters["dropped"], &counters["damaged"]),
            (&json!(60), &json!(0), &json!(0))
        );

        let chosen = engine.get(&format!("{path}/klv?fields=13,platform_heading_angle"));
        assert_eq!(chosen["tracks"][0]["items"].as_array().map(Vec::len), Some(2));
        let map = engine.get(&format!("{path}/klv.geojson"));
        let feature = |role: &str| {
            let features = map["features"].as_array().expect("features");
            features
                .iter()
                .find(|f| f["properties"]["role"] == role)
                .unwrap_or_else(|| panic!("{role} in {map}"))
        };
        let platform = &feature("platform")["geometry"]["coordinates"];
        assert!(near(&platform[0], -76.977_721_2) && near(&platform[1], 38.994_978_1), "{platform}");
        let center = &feature("frame_center")["geometry"]["coordinates"];
        assert!(near(&center[0], -77.0) && near(&center[1], 39.0), "{center}");
        let way = feature("track")["geometry"]["coordinates"].as_array().expect("a line");
        // a place a second, over 5.9 s
        assert_eq!(way.len(), 6);
        assert!(near(&way[0][1], 39.018), "{}", way[0]);
        for role in ["sensor", "line_of_sight", "footprint"] {
            assert_eq!(feature(role)["properties"]["pid"], 0x102);
        }
    }
}

#[test]
fn wrong_checksums_are_counted_and_not_believed() {
    let engine = Engine::start();
    let (input, to) = serve(&engine);
    Sender::new(to).send_paced(&stream("h264_badsum.ts"), 1316, 8.0);
    let path = format!("/api/inputs/{input}/klv");
    let klv = engine.wait(&path, "60 packets", |klv| klv["tracks"][0]["packets"] == 60);
    assert_eq!(
        (&klv["tracks"][0]["checksum_errors"], &klv["tracks"][0]["issues"]["checksum"]),
        (&json!(12), &json!(12))
    );
}

#[test]
fn klv_that_nobody_decodes_is_not_there_but_passes() {
    let engine = Engine::with("klv: {decode: false}\n");
    let (input, to) = serve(&engine);
    let receiver = support::Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let flow = Flow::start(to, &loopable("h264_async.ts"), 4.0);
    wait_for("packets", || (receiver.count() > 50).then_some(()));
    let (status, _) = engine.call("GET", &format!("/api/inputs/{input}/klv"), None);
    assert_eq!(status, 404);
    flow.stop();
}

fn tokio() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

type Socket = tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn dial(engine: &Engine, path: &str) -> Socket {
    let url = format!("ws://{}{path}", engine.address());
    tokio_tungstenite::connect_async(url).await.expect("a WebSocket").0
}

/// The next event; none when the server closes.
async fn event(socket: &mut Socket) -> Option<Value> {
    loop {
        let heard =
            tokio::time::timeout(support::PATIENCE, socket.next()).await.expect("an event in time")?;
        match heard.expect("a message") {
            Message::Text(text) => return Some(serde_json::from_str(&text).expect("JSON")),
            Message::Close(frame) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(1001));
                return None;
            }
            _ => {}
        }
    }
}

/// Lines of JSON over plain HTTP, from behind the head of the answer on.
fn lines(engine: &Engine, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(engine.address()).expect("a connection");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a timeout");
    // HTTP/1.0, so that lines come as they are and not in chunks
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").expect("a request");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a status");
    assert!(line.contains(" 200 "), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a header");
    }
    reader
}

fn next_line(reader: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).expect("a line") == 0 {
            return None;
        }
        if line != "\n" {
            return Some(serde_json::from_str(&line).expect("JSON"));
        }
    }
}

#[test]
fn every_packet_is_an_event_over_a_websocket_and_as_a_line() {
    let engine = Engine::start();
    let (input, to) = serve(&engine);
    let path = format!("/api/inputs/{input}/klv/stream");
    tokio().block_on(async {
        let mut all = dial(&engine, &format!("{path}?max_rate=0")).await;
        let mut some = dial(&engine, &format!("{path}?fields=2,Sensor%20Latitude")).await;
        let mut few = dial(&engine, &format!("{path}?max_rate=2&fields=2")).await;
        let mut plain = lines(&engine, &format!("{path}?fields=2"));
        let bytes = stream("h264_async.ts");
        // 4 s, so that events follow one another as they do in the field
        let sending = std::thread::spawn(move || Sender::new(to).send_paced(&bytes, 1316, 1.0));
        for number in 0..60_u64 {
            let whole = event(&mut all).await.expect("an event");
            assert_eq!(
                (&whole["number"], &whole["dropped"], &whole["type"]),
                (&json!(number), &json!(0), &json!("klv"))
            );
            assert_eq!(whole["input_id"], input);
            assert_eq!(item(&whole, 2)["value"], 1_700_000_000_000_000 + number * 100_000);
            assert_eq!(item(&whole, 2)["age_ms"], 0);
            assert!(whole["items"].as_array().is_some_and(|items| items.len() > 20));
            let part = event(&mut some).await.expect("an event");
            assert_eq!((&part["number"], part["items"].as_array().map(Vec::len)), (&json!(number), Some(2)));
            let line = next_line(&mut plain).expect("a line");
            assert_eq!((&line["number"], line["items"].as_array().map(Vec::len)), (&json!(number), Some(1)));
        }
        sending.join().expect("sends until here");
        // the last packet is heard at any rate, and no more than twice a second before
        let mut numbers = Vec::new();
        while numbers.last() != Some(&59) {
            numbers.push(event(&mut few).await.expect("an event")["number"].as_u64().expect("a number"));
        }
        assert!((7..=11).contains(&numbers.len()) && numbers.is_sorted(), "{numbers:?}");

        engine.delete(&format!("/api/inputs/{input}"));
        assert_eq!(event(&mut all).await, None);
        assert_eq!(next_line(&mut plain), None);
    });
}

#[test]
fn who_is_slow_loses_events_and_is_told_and_nobody_else_is() {
    let engine = Engine::start();
    let (input, to) = serve(&engine);
    let path = format!("/api/inputs/{input}/klv/stream");
    let mut slow = lines(&engine, &path);
    socket2::SockRef::from(slow.get_ref()).set_recv_buffer_size(4096).expect("a smaller buffer");
    let mut fast = lines(&engine, &format!("{path}?fields=2"));
    let mut twin = lines(&engine, &path);
    // 150 packets a second, each an event of some kilobytes
    let flow = Flow::start(to, &loopable("h264_async.ts"), 10.0);
    let until = Instant::now() + Duration::from_secs(6);
    let watch = std::thread::spawn(move || {
        let mut count = 0;
        while Instant::now() < until {
            for reader in [&mut fast, &mut twin] {
                assert_eq!(next_line(reader).expect("a line")["dropped"], 0);
            }
            count += 1;
        }
        count
    });
    // reads nothing for all that time, longer than all buffers between hold
    let heard = watch.join().expect("two who lost nothing");
    assert!(heard > 400, "{heard} events");
    let (mut dropped, mut numbers) = (0, Vec::new());
    while dropped == 0 {
        let line = next_line(&mut slow).expect("a line");
        dropped = line["dropped"].as_u64().expect("a count");
        numbers.push(line["number"].as_u64().expect("a number"));
    }
    let last = numbers.len() - 1;
    assert_eq!(numbers[last] - numbers[last - 1] - 1, dropped, "exactly as many as are missing");
    assert!(numbers[..last].is_sorted());
    flow.stop();
}

#[test]
fn streams_of_events_are_limited() {
    let engine = Engine::start();
    let (input, _) = serve(&engine);
    let path = format!("/api/inputs/{input}/klv/stream");
    let mut open: Vec<_> = (0..256).map(|_| lines(&engine, &path)).collect();
    let (status, said) = engine.call("GET", &path, None);
    assert_eq!((status, &said["detail"]), (503, &json!("there are 256 streams of events already")));
    let refused =
        tokio().block_on(tokio_tungstenite::connect_async(format!("ws://{}{path}", engine.address())));
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 503));
    assert_eq!(engine.call("GET", "/api/inputs", None).0, 200, "everything else goes on");
    open.pop();
    wait_for("room for another", || {
        let mut stream = TcpStream::connect(engine.address()).expect("a connection");
        write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").expect("a request");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("a status");
        head.ends_with(b"200").then_some(())
    });
    // an engine that ends does not wait for those who only listen
    let begun = Instant::now();
    assert!(engine.terminate().0.success());
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn a_page_of_another_origin_hears_nothing() {
    let engine = Engine::start();
    let (input, _) = serve(&engine);
    let url = format!("ws://{}/api/inputs/{input}/klv/stream", engine.address());
    let with_origin = |origin: &str| {
        let mut request = url.as_str().into_client_request().expect("a request");
        request.headers_mut().insert("origin", origin.parse().expect("an origin"));
        tokio().block_on(tokio_tungstenite::connect_async(request))
    };
    assert!(matches!(with_origin("http://evil.example"), Err(Error::Http(r)) if r.status() == 403));
    assert!(with_origin(&format!("http://{}", engine.address())).is_ok());
}

/// Where the engine says that its figures are.
fn metrics(engine: &Engine) -> String {
    let log = engine.log();
    let line =
        log.lines().find(|line| line.contains("figures for Prometheus")).expect("the line of the figures");
    let address = line.rsplit_once("127.0.0.1:").expect("an address").1;
    let port: String = address.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}")
}

fn http(address: &str, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n").expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn prometheus_reads_states_and_counts_and_no_secret() {
    let engine = Engine::start();
    let (input, to) = serve(&engine);
    engine.add_output(input, "wall \"4\" \\ north", "udp://127.0.0.1:9");
    engine.add_output(input, "channel", "rtmp://127.0.0.1:9/live/ZEBRA");
    // slow enough that every sample for the rules holds all that it should
    Sender::new(to).send_paced(&stream("h264_badsum.ts"), 1316, 1.5);
    let klv = format!("/api/inputs/{input}/klv");
    engine.wait(&klv, "60 packets", |klv| klv["tracks"][0]["packets"] == 60);
    engine.wait(&format!("/api/inputs/{input}/ts-health"), "what is wrong with them", |health| {
        let mut rules = health["rules"].as_array().into_iter().flatten();
        rules.any(|rule| rule["id"] == "st0601.checksum" && rule["count"] == 12)
    });
    // counters of shards are published a few times a second
    let bytes = engine.get(&format!("/api/inputs/{input}"))["stats"]["bytes"].as_u64().expect("a count");
    let address = metrics(&engine);
    let answer = http(&address, "/metrics", "localhost");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(!body.contains("ZEBRA") && !body.contains("://"));
    let scrape = Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).expect("the text format");
    let value = |name: &str, label: (&str, &str)| {
        let found =
            scrape.samples.iter().find(|s| s.metric == name && s.labels.get(label.0) == Some(label.1));
        match found.unwrap_or_else(|| panic!("{name} {label:?} in {body}")).value {
            Figure::Counter(value) | Figure::Gauge(value) => value,
            ref other => panic!("{other:?}"),
        }
    };
    let of = ("input", &*input.to_string());
    assert_eq!(value("millrace_klv_packets_total", of), 60.0);
    assert_eq!(value("millrace_klv_checksum_errors_total", ("pid", "258")), 12.0);
    assert_eq!(value("millrace_klv_issues_total", ("issue", "checksum")), 12.0);
    assert_eq!(value("millrace_klv_dropped_total", of), 0.0);
    assert_eq!(value("millrace_input_bytes_total", of), bytes as f64);
    let violations = "millrace_input_rule_violations_total";
    assert_eq!(value(violations, ("rule", "st0601.checksum")), 12.0);
    // a rule that is kept is there from 0 on, one that has nothing to judge is not
    assert_eq!(value(violations, ("rule", "tr101290.continuity_count_error")), 0.0);
    let of_rule = |rule: &str| {
        let mut samples = scrape.samples.iter().filter(|sample| sample.metric == violations);
        samples.find(|sample| sample.labels.get("rule") == Some(rule))
    };
    assert!(of_rule("tr101290.cat_error").is_none());
    let checksum = of_rule("st0601.checksum").expect("the rule");
    assert_eq!((checksum.labels.get("input"), checksum.labels.get("priority")), (Some(of.1), Some("1")));
    assert_eq!(value("millrace_input_state", ("state", "Live")), 1.0);
    assert_eq!(value("millrace_output_desired", ("name", "channel")), 1.0);
    assert!(body.contains(r#"name="wall \"4\" \\ north""#));
    let memory = scrape.samples.iter().find(|sample| sample.metric == "process_resident_memory_bytes");
    assert!(memory.is_some_and(|sample| matches!(sample.value, Figure::Gauge(bytes) if bytes > 1e6)));
    // whoever calls a loopback address by a name that is none of ours is a page that had it rebound
    assert!(http(&address, "/metrics", "evil.example").starts_with("HTTP/1.0 403 "));
    assert!(http(&address, "/api/inputs", "localhost").starts_with("HTTP/1.0 404 "));
}
