//! The routes of KLV against a board whose input is shown packets by hand, and the clients of its events.

use std::net::IpAddr;
use std::time::SystemTime;

use axum::Router;
use axum::body::to_bytes;
use axum::http::Request;
use tower::ServiceExt;

use super::*;
use crate::control::server::router;
use crate::control::{Board, commands};
use crate::inspect::InputHealth;
use crate::inspect::klv::{Carriage, Decoder, Metadata, Sighting};
use crate::store::{InputDraft, Store};
use crate::wire::klv::{Label, Set, Value as Klv, write_packet};
use crate::wire::ts::Analyzer;

const SECOND: u64 = 1_000_000_000;

/// 100 s after the epoch.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(100)
}

struct Engine {
    router: Router,
    board: Arc<Board>,
    decoder: Decoder,
}

impl Engine {
    fn new() -> Self {
        let board = Arc::new(Board::default());
        let draft = InputDraft { name: "drone".into(), ..InputDraft::default() };
        board.add_input(Store::default().create_input(draft, now()).unwrap(), now());
        let control = Control::new(Arc::clone(&board), commands(1).0, now);
        let router = router(control, IpAddr::from([127, 0, 0, 1]), Vec::new());
        Self { router, board, decoder: Decoder::default() }
    }

    fn health(&self) -> Arc<InputHealth> {
        Arc::clone(self.board.input(1).unwrap().health())
    }

    /// Shows the input a packet that came so many seconds after the epoch.
    fn show(&mut self, track: u16, seconds: u64, items: &[(u32, Klv<'static>)]) {
        let observation = self.decoder.take(sighting(track, seconds * SECOND, items));
        self.health().klv().show(observation);
    }

    async fn send(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri(format!("/api/inputs/{path}")).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.send(path, &[]).await;
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }
}

fn sighting(track: u16, arrival: u64, items: &[(u32, Klv<'static>)]) -> Sighting {
    let set =
        items.iter().fold(Set::new(Label::Uas.spec()), |set, (tag, value)| set.with(*tag, value.clone()));
    Sighting {
        bytes: write_packet(Label::Uas, &set).unwrap().into(),
        arrival,
        wall: SystemTime::UNIX_EPOCH + Duration::from_nanos(arrival),
        pts: Some(9),
        track,
        program: Some(1),
        stream_type: Some(6),
        stream_id: Some(0xbd),
        declared: Some(Carriage::Asynchronous),
        carriage: Carriage::Asynchronous,
        source: 1,
    }
}

fn place(time: u64, latitude: f64) -> Vec<(u32, Klv<'static>)> {
    vec![
        (2, Klv::Time(time)),
        (13, Klv::Real(latitude)),
        (14, Klv::Real(8.0)),
        (23, Klv::Real(latitude + 0.01)),
        (24, Klv::Real(8.0)),
    ]
}

#[tokio::test]
async fn an_input_without_klv_says_why() {
    let engine = Engine::new();
    for path in ["1/klv", "1/klv.geojson"] {
        let (status, body) = engine.get(path).await;
        assert_eq!((status, &body["detail"]), (404, &json!("No KLV: nothing has been received yet")));
    }
    engine.health().report(Analyzer::new().report(0));
    assert_eq!(engine.get("1/klv").await.1["detail"], "No KLV: nothing has been received yet");
    let mut analyzer = Analyzer::new();
    let mut packet = [0xff; 188];
    packet[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10]);
    analyzer.datagram(0, &packet, 0);
    engine.health().report(analyzer.report(0));
    let (status, body) = engine.get("1/klv").await;
    assert_eq!(
        (status, &body["detail"]),
        (404, &json!("No KLV: the stream declares none, and none was found"))
    );
    for path in ["2/klv", "2/klv.geojson", "2/klv/stream"] {
        let (status, body) = engine.get(path).await;
        assert_eq!((status, &body["detail"]), (404, &json!("Input not found")), "{path}");
    }
}

#[tokio::test]
async fn the_document_says_what_holds_and_how_old_it_is() {
    let mut engine = Engine::new();
    engine.show(258, 60, &[(2, Klv::Time(60_000_000)), (10, Klv::Text("gone".into()))]);
    engine.show(258, 80, &[(2, Klv::Time(80_000_000)), (3, Klv::Text("Mission 1".into()))]);
    engine.show(258, 95, &[(2, Klv::Time(95_000_000)), (5, Klv::Real(90.0))]);
    engine.show(300, 90, &[(2, Klv::Time(90_000_000))]);
    let (status, body) = engine.get("1/klv").await;
    assert_eq!((status, &body["input_id"], body["tracks"].as_array().unwrap().len()), (200, &json!(1), 2));
    let track = &body["tracks"][0];
    assert_eq!(track["carriage"], json!({"declared": "asynchronous", "actual": "asynchronous"}));
    let head = [
        "pid",
        "program",
        "stream_type",
        "stream_id",
        "pts",
        "received_us",
        "timestamp_us",
        "age_ms",
        "packets",
    ];
    let values = [258, 1, 6, 0xbd, 9, 95_000_000, 95_000_000, 5_000, 3];
    for (name, value) in head.iter().zip(values) {
        assert_eq!(track[name], value, "{name}");
    }
    assert_eq!(
        (&track["set"], &track["checksum"], &track["accepted"]),
        (&json!("ST 0601"), &json!("right"), &json!(true))
    );
    let item = |tag: u32| {
        track["items"].as_array().unwrap().iter().find(|item| item["tag"] == tag).cloned().unwrap_or_default()
    };
    assert_eq!(item(3), json!({"tag": 3, "name": "Mission ID", "value": "Mission 1", "age_ms": 20_000}));
    assert_eq!((&item(5)["age_ms"], &item(5)["unit"]), (&json!(5_000), &json!("deg")));
    assert!((item(5)["value"].as_f64().unwrap() - 90.0).abs() < 0.01);
    assert_eq!(item(10), Value::Null, "not repeated for 30 s");
    assert_eq!(body["counters"]["dropped"], 0);

    let (_, body) = engine.get("1/klv?pid=300&fields=2,mission_id").await;
    assert_eq!(body["tracks"].as_array().unwrap().len(), 1);
    assert_eq!(body["tracks"][0]["pid"], 300);
    let (_, body) = engine.get("1/klv?fields=Mission%20ID&pid=0x102").await;
    assert_eq!(body["tracks"][0]["items"].as_array().unwrap().len(), 1);
    assert_eq!(engine.get("1/klv?pid=7").await, (404, json!({"detail": "No KLV on PID 7"})));
}

#[tokio::test]
async fn what_is_wrong_in_a_query_is_named() {
    let engine = Engine::new();
    for (query, place, word) in [
        ("max_rate=fast", "max_rate", "fast"),
        ("max_rate=-1", "max_rate", "-1"),
        ("max_rate=NaN", "max_rate", "NaN"),
        ("max_rate=1e9", "max_rate", "1e9"),
        ("max_rate=0.0000001", "max_rate", "0.0000001"),
        ("fields=2,99999", "fields", "99999"),
        ("fields=Sensor%20Lattitude", "fields", "Sensor Lattitude"),
        ("fields=,", "fields", ","),
        ("pid=x", "pid", "x"),
        ("pid=65536", "pid", "65536"),
        ("maxrate=1", "maxrate", "max_rate"),
    ] {
        let (status, body) = engine.get(&format!("1/klv/stream?{query}")).await;
        let wrong = &body["detail"][0];
        assert_eq!((status, &wrong["loc"]), (422, &json!(["query", place])), "{query}: {body}");
        assert!(wrong.to_string().contains(word), "{query}: {wrong}");
    }
    let (_, body) = engine.get("1/klv/stream?max_rate=x&fields=x&pid=x").await;
    assert_eq!(body["detail"].as_array().unwrap().len(), 3);
    assert_eq!(engine.get("1/klv.geojson?max_rate=1").await.0, 422);
    // everything that an item is called is known
    for fields in ["2", "precision_time_stamp", "PRECISION%20TIME%20STAMP", "13,14,Sensor%20Latitude"] {
        assert_eq!(engine.get(&format!("1/klv?fields={fields}")).await.0, 404, "{fields}");
    }
}

#[tokio::test]
async fn places_are_drawn_while_they_are_known_and_the_way_for_longer() {
    let mut engine = Engine::new();
    for second in 0..5 {
        engine.show(258, 90 + second, &place((90 + second) * 1_000_000, 50.0 + second as f64 * 1e-3));
    }
    let response = engine.send("1/klv.geojson", &[]).await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/geo+json");
    let (_, body) = engine.get("1/klv.geojson").await;
    let roles = |body: &Value| -> Vec<String> {
        let features = body["features"].as_array().unwrap();
        assert!(features.iter().all(|feature| feature["properties"]["pid"] == 258));
        features.iter().map(|f| f["properties"]["role"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(roles(&body), ["platform", "sensor", "frame_center", "line_of_sight", "track"]);
    let platform = &body["features"][0]["geometry"]["coordinates"];
    assert!((platform[0].as_f64().unwrap() - 8.0).abs() < 1e-6);
    assert!((platform[1].as_f64().unwrap() - 50.004).abs() < 1e-6);
    assert_eq!(body["features"][4]["geometry"]["coordinates"].as_array().unwrap().len(), 5);

    let mut engine = Engine::new();
    engine.show(258, 50, &place(50_000_000, 50.0));
    engine.show(258, 52, &place(52_000_000, 50.001));
    assert_eq!(roles(&engine.get("1/klv.geojson").await.1), ["track"]);
}

/// A client of input 1, and how observations come to it.
fn client(streams: &Streams, metadata: &Metadata, query: &str) -> Client {
    let choice = Choice::read(Some(query), &["pid", "fields", "max_rate"]).unwrap();
    streams.join(1, metadata, choice).unwrap()
}

async fn event(client: &mut Client) -> Value {
    match client.next().await {
        Next::Event(line) => {
            assert!(line.ends_with(b"}\n"));
            serde_json::from_slice(&line).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn shower(metadata: &Metadata) -> impl FnMut(u16, u64) {
    let mut decoder = Decoder::default();
    move |track, arrival| metadata.show(decoder.take(sighting(track, arrival, &place(arrival / 1000, 50.0))))
}

#[tokio::test]
async fn an_event_is_encoded_once_for_all_who_chose_the_same() {
    let (streams, metadata) = (Streams::default(), Metadata::default());
    let mut show = shower(&metadata);
    let mut a = client(&streams, &metadata, "fields=13,2");
    let mut b = client(&streams, &metadata, "fields=2,sensor_latitude");
    let mut c = client(&streams, &metadata, "fields=2");
    show(258, SECOND);
    let (Next::Event(a), Next::Event(b), Next::Event(c)) = (a.next().await, b.next().await, c.next().await)
    else {
        panic!("three events")
    };
    assert_eq!(a.as_ptr(), b.as_ptr(), "the same bytes");
    assert_ne!(a, c);
    let event: Value = serde_json::from_slice(&a).unwrap();
    assert_eq!((&event["type"], &event["input_id"], &event["number"]), (&json!("klv"), &json!(1), &json!(0)));
    let tags: Vec<u64> =
        event["items"].as_array().unwrap().iter().map(|i| i["tag"].as_u64().unwrap()).collect();
    assert_eq!(tags, [2, 13]);
}

#[tokio::test]
async fn a_slow_client_is_told_how_many_it_lost() {
    let (streams, metadata) = (Streams::default(), Metadata::default());
    let mut show = shower(&metadata);
    let mut slow = client(&streams, &metadata, "");
    (1..=300).for_each(|n| show(258, n * SECOND));
    let first = event(&mut slow).await;
    assert_eq!((&first["dropped"], &first["number"]), (&json!(44), &json!(44)));
    let second = event(&mut slow).await;
    assert_eq!((&second["dropped"], &second["number"]), (&json!(0), &json!(45)));
    assert_eq!(first.as_object().unwrap().len(), second.as_object().unwrap().len());
}

#[tokio::test]
async fn a_rate_lets_the_newest_through_for_each_track() {
    let (streams, metadata) = (Streams::default(), Metadata::default());
    let mut show = shower(&metadata);
    let mut client = client(&streams, &metadata, "max_rate=10");
    // 5 packets within 40 ms on two tracks
    for step in 0..5 {
        show(1, SECOND + step * SECOND / 100);
        show(2, SECOND + step * SECOND / 100);
    }
    let mut heard = Vec::new();
    for _ in 0..4 {
        let event = event(&mut client).await;
        heard.push((event["pid"].as_u64().unwrap(), event["received_us"].as_u64().unwrap() / 1000));
    }
    assert_eq!(heard, [(1, 1000), (2, 1000), (1, 1040), (2, 1040)]);
    show(1, SECOND + SECOND / 2);
    assert_eq!(event(&mut client).await["received_us"], 1_500_000);
}

#[tokio::test]
async fn only_the_track_that_was_asked_for_is_heard() {
    let (streams, metadata) = (Streams::default(), Metadata::default());
    let mut show = shower(&metadata);
    let mut client = client(&streams, &metadata, "pid=2");
    show(1, SECOND);
    show(2, SECOND);
    assert_eq!(event(&mut client).await["pid"], 2);
}

#[tokio::test]
async fn clients_are_limited_and_hear_of_the_end() {
    let (streams, metadata) = (Streams::default(), Metadata::default());
    let mut all: Vec<Client> = (0..stream::CLIENTS).map(|_| client(&streams, &metadata, "")).collect();
    assert!(streams.join(1, &metadata, Choice::default()).is_none());
    drop(all.pop());
    let mut last = streams.join(1, &metadata, Choice::default()).expect("the room of who left");
    metadata.close();
    assert_eq!(last.next().await, Next::Gone("the input is gone"));
    drop(all);
    let other = Metadata::default();
    let mut late = client(&streams, &other, "");
    streams.close();
    assert_eq!(late.next().await, Next::Gone("the engine stops"));
    assert_eq!(client(&streams, &other, "").next().await, Next::Gone("the engine stops"));
}

#[tokio::test]
async fn lines_of_json_leave_as_packets_come() {
    use futures_util::StreamExt;
    let mut engine = Engine::new();
    let response = engine.send("1/klv/stream?fields=2", &[]).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()[header::CONTENT_TYPE]),
        (200, &"application/x-ndjson".parse().unwrap())
    );
    let mut lines = response.into_body().into_data_stream();
    for second in [1, 2] {
        engine.show(258, second, &[(2, Klv::Time(second * 1_000_000))]);
        let line = lines.next().await.unwrap().unwrap();
        let event: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(event["timestamp_us"], second * 1_000_000);
    }
    engine.health().klv().close();
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn an_upgrade_that_is_none_is_refused_and_so_is_one_of_a_foreign_page() {
    let engine = Engine::new();
    let half = engine.send("1/klv/stream", &[("upgrade", "websocket")]).await;
    assert!(half.status().is_client_error());
    let foreign = [("upgrade", "websocket"), ("connection", "upgrade"), ("origin", "http://evil.example")];
    assert_eq!(engine.send("1/klv/stream", &foreign).await.status(), StatusCode::FORBIDDEN);
}
