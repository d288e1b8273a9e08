//! The REST contract, route by route, against a director that applies commands to a store and a board.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::server::{router, serve};
use super::{Board, Command, Control, commands};
use crate::store::{OutputSpec, RawUrl, Refusal, Roots, Rules, Store, reader_of};
use crate::telemetry::{Desired, Encryption, Level, Session, SrtStats, State, Status, Transport};
use crate::wire::ts::Analyzer;

struct Engine {
    router: Router,
    board: Arc<Board>,
    /// Aborts the director with the test.
    _director: JoinSet<()>,
}

/// 2024-01-01T12:00:00
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_110_400)
}

fn later() -> SystemTime {
    noon() + Duration::from_secs(90)
}

impl Engine {
    fn new() -> Self {
        Self::with(Rules::default())
    }

    fn with(rules: Rules) -> Self {
        let board = Arc::new(Board::default());
        let (commands, receiver) = commands(512);
        let mut director = JoinSet::new();
        director.spawn(direct(receiver, Store::new(rules, Roots::default()), board.clone()));
        let control = Control::new(board.clone(), commands, later);
        Self { router: router(control, LOOPBACK, Vec::new()), board, _director: director }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        read(self.send(method, path, body).await).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call("POST", path, body).await
    }

    async fn send(&self, method: &str, path: &str, body: Body) -> Response<Body> {
        send(self.router.clone(), method, path, body).await
    }

    /// Input 1 with output 1.
    async fn with_objects() -> Self {
        let engine = Self::new();
        assert_eq!(engine.post("/api/inputs", json!({"name": "Camera 1"})).await.0, 201);
        let output = json!({"name": "Wall", "url": "udp://10.0.0.1:6000"});
        assert_eq!(engine.post("/api/inputs/1/outputs", output).await.0, 201);
        engine
    }
}

async fn send(router: Router, method: &str, path: &str, body: Body) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
    router.oneshot(request.body(body).unwrap()).await.unwrap()
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
}

/// A director that starts nothing: what it stores is what the board shows.
async fn direct(mut receiver: Receiver<Command>, mut store: Store, board: Arc<Board>) {
    let missing = || Refusal::NotFound("not on the board".into());
    while let Some(command) = receiver.recv().await {
        let now = noon();
        match command {
            Command::CreateInput { draft, reply } => {
                let _ = reply.send(store.create_input(draft, now).map(|spec| {
                    let input = board.add_input(spec.clone(), now);
                    let reader = store.output(spec.id, reader_of(spec.id));
                    reader.into_iter().for_each(|reader| drop(board.add_output(reader.clone(), now)));
                    input.card.log(board.event(Level::Info, "created", now));
                    input
                }));
            }
            Command::PatchInput { id, patch, reply } => {
                let _ = reply.send(store.patch_input(id, patch, later()).and_then(|change| {
                    let input = board.input(id).ok_or_else(missing)?;
                    input.card.set_spec(change.after);
                    Ok(input)
                }));
            }
            Command::DeleteInput { id, reply } => {
                let _ = reply.send(store.delete_input(id).map(|_| drop(board.remove_input(id))));
            }
            Command::StartInput { id, reply } => {
                let _ = reply.send(set_input(&mut store, &board, id, Desired::Running));
            }
            Command::StopInput { id, reply } => {
                let _ = reply.send(set_input(&mut store, &board, id, Desired::Stopped));
            }
            Command::CreateOutput { input, draft, reply } => {
                let made = store.create_output(input, draft, now);
                let _ = reply.send(made.and_then(|spec| {
                    let output = board.add_output(spec, now).ok_or_else(missing)?;
                    output.log(board.event(Level::Info, "created", now));
                    output.log(board.event(Level::Warning, "peer refuses", later()));
                    Ok(output)
                }));
            }
            Command::PatchOutput { input, id, patch, reply } => {
                let _ = reply.send(store.patch_output(input, id, patch, later()).and_then(|change| {
                    let output = board.output(input, id).ok_or_else(missing)?;
                    output.set_spec(change.after);
                    Ok(output)
                }));
            }
            Command::DeleteOutput { input, id, reply } => {
                let gone = store.delete_output(input, id);
                let _ = reply.send(gone.map(|_| drop(board.remove_output(input, id))));
            }
            Command::StartOutput { input, id, reply } => {
                let _ = reply.send(set_output(&mut store, &board, input, id, Desired::Running));
            }
            Command::StopOutput { input, id, reply } => {
                let _ = reply.send(set_output(&mut store, &board, input, id, Desired::Stopped));
            }
        }
    }
}

fn set_input(store: &mut Store, board: &Board, id: u64, desired: Desired) -> Result<(), Refusal> {
    let change = store.set_input_desired(id, desired, later())?;
    board.input(id).into_iter().for_each(|input| input.card.set_spec(change.after.clone()));
    Ok(())
}

fn set_output(
    store: &mut Store,
    board: &Board,
    input: u64,
    id: u64,
    desired: Desired,
) -> Result<(), Refusal> {
    let change = store.set_output_desired(input, id, desired, later())?;
    board.output(input, id).into_iter().for_each(|output| output.set_spec(change.after.clone()));
    Ok(())
}

#[tokio::test]
async fn inputs_live_through_the_contract() {
    let engine = Engine::new();
    let (status, made) = engine.post("/api/inputs", json!({"name": "Camera 1", "udp_port": 5050})).await;
    let mut expected = json!({
        "id": 1,
        "name": "Camera 1",
        "udp_port": 5050,
        "mediamtx_path": "camera_1",
        "srt_port": null,
        "status": "inactive",
        "created_at": "2024-01-01T12:00:00",
        "updated_at": "2024-01-01T12:00:00",
        "output_count": 0,
        "url": "udp://0.0.0.0:5050",
        "state": "Idle",
        "reason": "",
        "desired": "running",
        "since": "2024-01-01T12:00:00",
        "started_at": null,
        "uptime_seconds": 0,
        "reconnect_count": 0,
        "last_error": null,
        "stats": {
            "datagrams": 0, "packets": 0, "bytes": 0, "bitrate_bps": 0, "last_packet_ms": 0, "last_packet": null,
            "kernel_drops": 0, "junk_bytes": 0, "resyncs": 0, "continuity_errors": 0, "flow": null,
            "foreign_datagrams": 0, "rtp_lost": 0, "rtp_reordered": 0, "rtp_discarded": 0, "rtp_ssrc_changes": 0, "rcvbuf_requested": 0,
            "rcvbuf_granted": 0, "srt": null, "links": [], "sessions": 0,
        },
    });
    assert_eq!((status, &made), (201, &expected));
    assert_eq!(engine.get("/api/inputs").await, (200, json!([expected])));
    let group = json!({"name": "Group", "url": "udp://@239.1.1.1:5000?interface=lo", "udp_port": null});
    let (status, group) = engine.post("/api/inputs", group).await;
    assert_eq!((status, &group["url"]), (201, &json!("udp://@239.1.1.1:5000?interface=lo")));
    assert_eq!((&group["udp_port"], &group["id"]), (&Value::Null, &json!(2)));

    let (status, patched) = engine.call("PATCH", "/api/inputs/1", json!({"name": "North"})).await;
    (expected["name"], expected["updated_at"]) = (json!("North"), json!("2024-01-01T12:01:30"));
    assert_eq!((status, &patched), (200, &expected));
    let (status, patched) = engine.call("PATCH", "/api/inputs/1", json!({"url": "rtp://:5050"})).await;
    assert_eq!((status, &patched["url"], &patched["udp_port"]), (200, &json!("rtp://:5050"), &Value::Null));

    assert_eq!(engine.post("/api/inputs/1/outputs", json!({"name": "o", "url": "udp://h:1"})).await.0, 201);
    let (_, detail) = engine.get("/api/inputs/1").await;
    let (_, output) = engine.get("/api/inputs/1/outputs/1").await;
    assert_eq!((&detail["output_count"], &detail["outputs"]), (&json!(1), &json!([output])));
    assert_eq!((&detail["name"], &detail["stats"]["packets"]), (&json!("North"), &json!(0)));

    let done = |message: &str| (200, json!({"success": true, "message": message, "data": null}));
    assert_eq!(engine.post("/api/inputs/1/stop", Value::Null).await, done("Input 1 stopped"));
    assert_eq!(engine.get("/api/inputs/1").await.1["desired"], "stopped");
    assert_eq!(engine.post("/api/inputs/1/stop", Value::Null).await, done("Input 1 stopped"));
    assert_eq!(engine.post("/api/inputs/1/start", Value::Null).await, done("Input 1 started"));
    assert_eq!(engine.get("/api/inputs/1").await.1["desired"], "running");
    assert_eq!(engine.call("DELETE", "/api/inputs/1", Value::Null).await, done("Input 1 deleted"));
    assert_eq!(engine.get("/api/inputs/1").await, (404, json!({"detail": "Input not found"})));
    assert_eq!(engine.get("/api/inputs/1/outputs/1").await, (404, json!({"detail": "Output not found"})));
}

#[tokio::test]
async fn outputs_live_through_the_contract() {
    let engine = Engine::with_objects().await;
    let body = json!({
        "name": "File", "url": "rtp://[2001:db8::1]:7000?klv=strip", "protocol": "rtp",
        "auto_reconnect": false, "reconnect_delay": 300, "max_reconnect_attempts": 4,
    });
    let (status, made) = engine.post("/api/inputs/1/outputs", body).await;
    let mut expected = json!({
        "id": 2,
        "input_id": 1,
        "name": "File",
        "url": "rtp://[2001:db8::1]:7000?klv=strip",
        "protocol": "rtp",
        "auto_reconnect": false,
        "reconnect_delay": 300,
        "max_reconnect_attempts": 4,
        "status": "starting",
        "reconnect_count": 0,
        "last_error": null,
        "process_id": null,
        "started_at": null,
        "created_at": "2024-01-01T12:00:00",
        "updated_at": "2024-01-01T12:00:00",
        "state": "Idle",
        "reason": "",
        "desired": "running",
        "since": "2024-01-01T12:00:00",
        "uptime_seconds": 0,
        "dropped_tracks": [],
        "stats": {
            "datagrams": 0, "packets": 0, "bytes": 0, "bitrate_bps": 0, "send_errors": 0, "skipped": 0, "skips": 0, "flow": null,
            "icmp_errors": 0, "last_sent_ms": 0, "last_sent": null, "acknowledged": 0, "last_icmp_ms": 0,
            "packets_per_datagram": 0, "srt": null, "tak": null, "links": [], "sessions": 0,
        },
    });
    assert_eq!((status, &made), (201, &expected));
    let (_, list) = engine.get("/api/inputs/1/outputs").await;
    assert_eq!((list.as_array().map(Vec::len), &list[1]), (Some(2), &expected));
    assert_eq!(engine.get("/api/inputs/9/outputs").await, (200, json!([])));

    let patch =
        json!({"url": "udp://10.0.0.9:1", "auto_reconnect": true, "reconnect_delay": 1, "name": null});
    let (status, patched) = engine.call("PATCH", "/api/inputs/1/outputs/2", patch).await;
    for (field, value) in [
        ("url", json!("udp://10.0.0.9:1")),
        ("protocol", json!("udp")),
        ("auto_reconnect", json!(true)),
        ("reconnect_delay", json!(1)),
        ("updated_at", json!("2024-01-01T12:01:30")),
    ] {
        expected[field] = value;
    }
    assert_eq!((status, &patched), (200, &expected));

    let done = |message: &str| (200, json!({"success": true, "message": message, "data": null}));
    let path = "/api/inputs/1/outputs/2";
    for _ in 0..2 {
        assert_eq!(engine.post(&format!("{path}/stop"), Value::Null).await, done("Output 2 stopped"));
        assert_eq!(engine.get(path).await.1["status"], "stopped");
    }
    for _ in 0..2 {
        assert_eq!(engine.post(&format!("{path}/start"), Value::Null).await, done("Output 2 started"));
        assert_eq!(engine.get(path).await.1["status"], "starting");
    }
    assert_eq!(engine.call("DELETE", path, Value::Null).await, done("Output 2 deleted"));
    assert_eq!(engine.get("/api/inputs/1").await.1["output_count"], 1);
}

#[tokio::test]
async fn secrets_that_come_back_hidden_are_kept() {
    let engine = Engine::with_objects().await;
    let url = "srt://partner.example:9000?passphrase=correct%20horse&streamid=publish:cam:bob:Zebra";
    let body = json!({"name": "Partner", "url": url, "protocol": "srt_caller"});
    let (status, made) = engine.post("/api/inputs/1/outputs", body).await;
    let shown = "srt://partner.example:9000?passphrase=***&streamid=publish:cam:bob:***";
    assert_eq!((status, &made["url"], &made["protocol"]), (201, &json!(shown), &json!("srt_caller")));
    let stored = || engine.board.output(1, 2).unwrap().spec().raw_url.clone();

    // All that may be written is written back as it was read.
    let path = "/api/inputs/1/outputs/2";
    let names = ["name", "url", "protocol", "auto_reconnect", "reconnect_delay", "max_reconnect_attempts"];
    let whole = |made: &Value| Value::from_iter(names.map(|name| (name, made[name].clone())));
    assert_eq!(engine.call("PATCH", path, whole(&made)).await, (200, made.clone()));
    assert_eq!(stored().reveal(), url);
    let mut changed = whole(&made);
    changed["url"] = json!(shown.replace("9000", "9001"));
    let (status, answer) = engine.call("PATCH", path, changed).await;
    assert_eq!((status, answer["url"].as_str()), (200, Some(&*shown.replace("9000", "9001"))));
    assert_eq!(stored().reveal(), url.replace("9000", "9001"));

    // What was never stored cannot be meant.
    for (method, path, body) in [
        ("PATCH", path, json!({"url": "srt://bob:***@:9000"})),
        ("PATCH", "/api/inputs/1/outputs/1", json!({"url": shown})),
        ("POST", "/api/inputs/1/outputs", json!({"name": "Copy", "url": shown})),
        ("POST", "/api/inputs", json!({"name": "Copy", "url": "srt://:9000?passphrase=***"})),
        ("PATCH", "/api/inputs/1", json!({"url": "srt://:9000?passphrase=***"})),
    ] {
        let (status, answer) = engine.call(method, path, body).await;
        let wrong = &answer["detail"][0];
        assert_eq!((status, &wrong["loc"]), (422, &json!(["body", "url"])), "{method} {path}: {answer}");
        assert!(wrong["msg"].as_str().is_some_and(|m| m.contains("*** stands for a secret")), "{answer}");
        assert!(!answer.to_string().contains("Zebra"), "{answer}");
    }
    assert_eq!(stored().reveal(), url.replace("9000", "9001"));

    let input = json!({"url": "srt://bob:Zebra@:9002?mode=listener"});
    assert_eq!(
        engine.call("PATCH", "/api/inputs/1", input).await.1["url"],
        "srt://bob:***@:9002?mode=listener"
    );
    let input = json!({"url": "srt://bob:***@:9003?mode=listener"});
    assert_eq!(engine.call("PATCH", "/api/inputs/1", input).await.0, 200);
    let spec = engine.board.input(1).unwrap().card.spec();
    assert_eq!(spec.raw_url.reveal(), "srt://bob:Zebra@:9003?mode=listener");
}

#[tokio::test]
async fn an_srt_port_is_answered_while_it_is_open() {
    let engine = Engine::with(Rules { srt_ports: Some(8891..=8990), ..Rules::default() });
    let (status, made) = engine.post("/api/inputs", json!({"name": "Camera 1"})).await;
    let ports = (status, &made["udp_port"], &made["srt_port"], &made["output_count"]);
    assert_eq!(ports, (201, &json!(5000), &json!(8891), &json!(0)));
    let (_, own) = engine.post("/api/inputs", json!({"name": "b", "url": "udp://:5001"})).await;
    assert_eq!((&own["udp_port"], &own["srt_port"]), (&Value::Null, &Value::Null));
    let (_, detail) = engine.get("/api/inputs/1").await;
    assert_eq!((&detail["srt_port"], &detail["outputs"]), (&json!(8891), &json!([])));
    assert_eq!(engine.get("/api/inputs/1/outputs").await, (200, json!([])));
    assert_eq!(engine.get(&format!("/api/inputs/1/outputs/{}", reader_of(1))).await.0, 404);

    let reader = engine.board.output(1, reader_of(1)).unwrap();
    for (state, port) in [
        (State::Sending, json!(8891)),
        (State::Starved, json!(8891)),
        (State::Failed, Value::Null),
        (State::Backoff, Value::Null),
    ] {
        reader.set_status(Status { state, ..reader.status() });
        assert_eq!(engine.get("/api/inputs/1").await.1["srt_port"], port, "{state:?}");
        assert_eq!(engine.get("/api/inputs/1/status").await.1["srt_port"], port, "{state:?}");
    }
    assert_eq!(engine.get("/api/system/status").await.1["outputs_count"], 0);
    let (status, taken) = engine.post("/api/inputs", json!({"name": "c", "url": "udp://:8891"})).await;
    assert_eq!((status, &taken["detail"][0]["loc"]), (422, &json!(["body", "url"])));
}

#[tokio::test]
async fn sessions_are_listed_and_kicked() {
    let engine = Engine::with(Rules { srt_ports: Some(8891..=8990), ..Rules::default() });
    engine.post("/api/inputs", json!({"name": "Camera 1"})).await;
    let output = json!({"name": "Serve", "url": "srt://:8890?max_sessions=2", "protocol": "srt_listener"});
    assert_eq!(engine.post("/api/inputs/1/outputs", output).await.0, 201);
    let session = |id, user: Option<&str>, stream_id: &str| {
        let peer = "[2001:db8::7]:40000".parse().unwrap();
        let stats = Arc::<SrtStats>::default();
        let transport = Transport::Srt(Arc::clone(&stats));
        let (user, stream_id) = (user.map(Into::into), stream_id.into());
        (Session::new(id, peer, user, stream_id, "srt_listener", noon(), transport), stats)
    };
    let input = engine.board.input(1).unwrap();
    let (publisher, _) = session(1, Some("bob"), "publish:camera_1:bob:Zebra");
    let publisher = input.card.stats().sessions.add(publisher, 1).unwrap();
    let reader =
        input.reader().unwrap().stats().sessions.add(session(2, None, "read:camera_1").0, 9).unwrap();
    let output = engine.board.output(1, 1).unwrap();
    let (first, stats) = session(3, None, "#!::r=camera_1,s=Zebra");
    let first = output.stats().sessions.add(first, 2).unwrap();
    stats.encryption.store(Encryption::Aes128Ctr);
    stats.peer_version.store(0x01_0501);
    stats.rtt_us.set(1000, 900, 1100, 1200);

    let (status, listed) = engine.get("/api/inputs/1/outputs/1/sessions").await;
    let zero = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), json!(0))).collect::<serde_json::Map<_, _>>()
    };
    let mut srt = zero(&[
        "packets",
        "bytes",
        "unique_packets",
        "unique_bytes",
        "retransmitted",
        "retransmitted_bytes",
        "lost",
        "dropped",
        "skipped",
        "discarded",
        "undecryptable",
        "acknowledged",
        "acks",
        "naks",
        "rate_bps",
        "capacity_bps",
        "since_ms",
        "last_ack_ms",
        "rtt_var_us",
        "in_flight",
        "window",
        "latency_ms",
        "drift_us",
        "key_refreshes",
    ]);
    srt.insert("rtt_us".into(), json!({"last": 1000, "min": 900, "avg": 1100, "max": 1200}));
    srt.insert("buffer_ms".into(), json!({"last": 0, "min": 0, "avg": 0, "max": 0}));
    srt.insert("encryption".into(), json!("aes_128_ctr"));
    srt.insert("peer_version".into(), json!("1.5.1"));
    let expected = json!([{
        "id": 3, "role": "read", "protocol": "srt_listener", "peer": "[2001:db8::7]:40000", "user": null,
        "stream_id": "#!::r=camera_1,s=***", "since": "2024-01-01T12:00:00", "uptime_seconds": 90, "kicked": false,
        "srt": srt,
    }]);
    assert_eq!((status, listed), (200, expected));
    assert_eq!(engine.get("/api/inputs/1/outputs/1/stats").await.1["stats"]["sessions"], 1);
    let (_, listed) = engine.get("/api/inputs/1/sessions").await;
    let brief: Vec<_> =
        listed.as_array().unwrap().iter().map(|s| (&s["id"], &s["role"], &s["user"])).collect();
    let expected = [(&json!(1), &json!("publish"), &json!("bob")), (&json!(2), &json!("read"), &Value::Null)];
    assert_eq!(brief, expected);
    assert!(!listed.to_string().contains("Zebra"));

    let missing = (404, json!({"detail": "Session not found"}));
    let kick = async |path: &str| engine.call("DELETE", path, Value::Null).await;
    // A session is found where it is, and nowhere else.
    for path in ["inputs/1/sessions/3", "inputs/1/outputs/1/sessions/1", "inputs/1/sessions/9"] {
        assert_eq!(kick(&format!("/api/{path}")).await, missing, "{path}");
    }
    assert!(!publisher.is_kicked() && !reader.is_kicked() && !first.is_kicked());
    for (path, session, id) in [
        ("inputs/1/sessions/1", &publisher, 1),
        ("inputs/1/sessions/2", &reader, 2),
        ("inputs/1/outputs/1/sessions/3", &first, 3),
    ] {
        let done = json!({"success": true, "message": format!("Session {id} kicked"), "data": null});
        assert_eq!(kick(&format!("/api/{path}")).await, (200, done));
        assert!(session.is_kicked(), "{path}");
    }
    assert_eq!(engine.get("/api/inputs/1/outputs/1/sessions").await.1[0]["kicked"], true);
    output.stats().sessions.remove(3);
    assert_eq!(kick("/api/inputs/1/outputs/1/sessions/3").await, missing);
    assert_eq!(kick("/api/inputs/1/sessions/x").await.0, 422);
    for path in ["/api/inputs/9/sessions", "/api/inputs/1/outputs/9/sessions"] {
        assert_eq!(engine.get(path).await.0, 404);
        assert_eq!(kick(&format!("{path}/1")).await.0, 404);
    }
}

#[tokio::test]
async fn a_connection_is_shown_while_there_is_one() {
    let engine = Engine::with_objects().await;
    let (input, output) = (engine.board.input(1).unwrap(), engine.board.output(1, 1).unwrap());
    let sent = output.stats().srt.open();
    sent.acknowledged.store(7, Relaxed);
    input.card.stats().srt.open().lost.store(3, Relaxed);
    assert_eq!(engine.get("/api/inputs/1/outputs/1").await.1["stats"]["srt"]["acknowledged"], 7);
    assert_eq!(engine.get("/api/inputs/1/outputs/1/stats").await.1["stats"]["srt"]["acknowledged"], 7);
    assert_eq!(engine.get("/api/inputs/1").await.1["stats"]["srt"]["lost"], 3);
    output.stats().srt.show(None);
    assert_eq!(engine.get("/api/inputs/1/outputs/1").await.1["stats"]["srt"], Value::Null);
}

#[tokio::test]
async fn what_the_engine_tells_is_shown() {
    let engine = Engine::with_objects().await;
    let (input, output) = (engine.board.input(1).unwrap(), engine.board.output(1, 1).unwrap());
    let live = |state| Status {
        state,
        reason: "peer refuses (ICMP)".into(),
        since: noon(),
        started_at: Some(noon()),
        reconnect_count: 3,
        last_error: Some("no route to host".into()),
    };
    input.card.set_status(live(State::Live));
    input.card.stats().last_packet_ms.store(1_704_110_400_999, Relaxed);
    output.set_status(live(State::Sending));
    output.stats().bytes.store(188 * 10_000, Relaxed);
    output.stats().bitrate_bps.store(4_000_500, Relaxed);
    output.stats().skipped.store(2, Relaxed);
    output.stats().send_errors.store(1, Relaxed);

    let (_, shown) = engine.get("/api/inputs/1").await;
    assert_eq!((&shown["status"], &shown["state"]), (&json!("active"), &json!("Live")));
    assert_eq!(
        (&shown["uptime_seconds"], &shown["stats"]["last_packet"]),
        (&json!(90), &json!("2024-01-01T12:00:00"))
    );
    let short = json!({
        "id": 1, "name": "Camera 1", "status": "active", "udp_port": 5000, "srt_port": null, "output_count": 1,
        "active_outputs": 1, "created_at": "2024-01-01T12:00:00", "state": "Live", "reason": "peer refuses (ICMP)",
        "since": "2024-01-01T12:00:00",
    });
    assert_eq!(engine.get("/api/inputs/1/status").await, (200, short));
    let (_, shown) = engine.get("/api/inputs/1/outputs/1").await;
    for (field, value) in [
        ("status", json!("running")),
        ("state", json!("Sending")),
        ("reason", json!("peer refuses (ICMP)")),
        ("reconnect_count", json!(3)),
        ("last_error", json!("no route to host")),
        ("started_at", json!("2024-01-01T12:00:00")),
        ("uptime_seconds", json!(90)),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(shown["stats"]["packets"], 10_000);
    let stats = json!({
        "id": 1, "name": "Wall", "status": "running", "reconnect_count": 3, "last_error": "no route to host",
        "process_stats": {
            "running": true, "pid": null, "reconnect_count": 3, "uptime_seconds": 90, "cpu_percent": null,
            "memory_mb": null,
        },
        "progress": {
            "bitrate_kbit": 4000.5, "fps": null, "frame": null, "packet": 10_000, "drop": 3, "dup": null,
            "size_kb": 1835, "speed": null, "time": 90,
        },
        "stats": shown["stats"],
        "created_at": "2024-01-01T12:00:00",
    });
    assert_eq!(engine.get("/api/inputs/1/outputs/1/stats").await, (200, stats));

    assert_eq!(engine.get("/api/inputs/1/report").await, (200, Value::Null));
    input.health().report(Analyzer::new().report(0));
    let (code, report) = engine.get("/api/inputs/1/report").await;
    assert_eq!((code, report["stream"].is_object()), (200, true), "{report}");

    let (_, status) = engine.get("/api/system/status").await;
    for (field, value) in [
        ("healthy", json!(true)),
        ("version", json!(env!("CARGO_PKG_VERSION"))),
        ("uptime_seconds", json!(0)),
        ("inputs_count", json!(1)),
        ("outputs_count", json!(1)),
        ("active_outputs", json!(1)),
        ("mediamtx_healthy", json!(false)),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
    assert!(status["cpu_percent"].is_f64() && status["memory_percent"].is_f64(), "{status}");
    set_stopped(&engine).await;
    assert_eq!(engine.get("/api/system/status").await.1["active_outputs"], 0);
}

async fn set_stopped(engine: &Engine) {
    assert_eq!(engine.post("/api/inputs/1/outputs/1/stop", Value::Null).await.0, 200);
}

#[tokio::test]
async fn logs_are_newest_first() {
    let engine = Engine::with_objects().await;
    let entry = |id: u64, level: &str, message: &str, timestamp: &str| {
        json!({
            "id": id, "entity_type": "output", "entity_id": 1, "input_id": 1, "output_id": 1, "level": level,
            "message": message, "timestamp": timestamp,
        })
    };
    let newest = entry(3, "warning", "peer refuses", "2024-01-01T12:01:30");
    let oldest = entry(2, "info", "created", "2024-01-01T12:00:00");
    let path = "/api/inputs/1/outputs/1/logs";
    assert_eq!(engine.get(path).await, (200, json!([newest, oldest])));
    assert_eq!(engine.get(&format!("{path}?limit=1")).await, (200, json!([newest])));
    let of_input = json!([{
        "id": 1, "entity_type": "input", "entity_id": 1, "input_id": 1, "output_id": null, "level": "info",
        "message": "created", "timestamp": "2024-01-01T12:00:00",
    }]);
    assert_eq!(engine.get("/api/inputs/1/logs?limit=1000").await, (200, of_input));
}

#[tokio::test]
async fn inputs_are_listed_in_pages() {
    let engine = Engine::new();
    for n in 1..=101 {
        assert_eq!(engine.post("/api/inputs", json!({"name": format!("i{n}")})).await.0, 201);
    }
    let full = json!({"detail": "No available UDP ports in configured range"});
    assert_eq!(engine.post("/api/inputs", json!({"name": "more"})).await, (400, full));
    for (query, first, count) in [
        ("", 1, 100),
        ("?skip=100", 101, 1),
        ("?limit=2&skip=5", 6, 2),
        ("?limit=9&limit=1", 1, 1),
        ("?x=1", 1, 100),
    ] {
        let (_, page) = engine.get(&format!("/api/inputs{query}")).await;
        assert_eq!((page.as_array().map(Vec::len), &page[0]["id"]), (Some(count), &json!(first)), "{query}");
    }
    assert_eq!(engine.get("/api/inputs?skip=18446744073709551615").await, (200, json!([])));
}

#[tokio::test]
async fn every_route_answers_with_and_without_slash() {
    let engine = Engine::with_objects().await;
    for (method, path, status) in [
        ("GET", "/api/health", 200),
        ("GET", "/api/system/status", 200),
        ("GET", "/api/system/mediamtx/status", 200),
        ("POST", "/api/system/mediamtx/restart", 200),
        ("GET", "/api/inputs", 200),
        ("GET", "/api/inputs/1", 200),
        ("GET", "/api/inputs/1/status", 200),
        ("GET", "/api/inputs/1/report", 200),
        ("GET", "/api/inputs/1/logs", 200),
        ("GET", "/api/inputs/1/sessions", 200),
        ("DELETE", "/api/inputs/1/sessions/1", 404),
        ("GET", "/api/inputs/1/outputs/1/sessions", 200),
        ("DELETE", "/api/inputs/1/outputs/1/sessions/1", 404),
        ("GET", "/api/inputs/1/sessions/1", 405),
        ("POST", "/api/inputs/1/start", 200),
        ("POST", "/api/inputs/1/stop", 200),
        ("GET", "/api/inputs/1/outputs", 200),
        ("GET", "/api/inputs/1/outputs/1", 200),
        ("GET", "/api/inputs/1/outputs/1/stats", 200),
        ("GET", "/api/inputs/1/outputs/1/logs", 200),
        ("POST", "/api/inputs/1/outputs/1/start", 200),
        ("POST", "/api/inputs/1/outputs/1/stop", 200),
        // Wrong bodies reach the handler.
        ("POST", "/api/inputs", 422),
        ("PATCH", "/api/inputs/1", 422),
        ("POST", "/api/inputs/1/outputs", 422),
        ("PATCH", "/api/inputs/1/outputs/1", 422),
        ("GET", "/", 404),
        ("GET", "/api", 404),
        ("GET", "/api/inputs/1/nope", 404),
        ("GET", "/api/inputs/1/start", 405),
        ("PUT", "/api/inputs", 405),
        ("DELETE", "/api/health", 405),
    ] {
        for path in [path.to_owned(), format!("{path}/")] {
            assert_eq!(engine.call(method, &path, Value::Null).await.0, status, "{method} {path}");
        }
    }
    for path in ["/api/inputs/1/outputs/1/", "/api/inputs/1/"] {
        assert_eq!(engine.call("DELETE", path, Value::Null).await.0, 200, "{path}");
    }
    let health = json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")});
    assert_eq!(engine.get("/api/health").await.1, health);
    assert_eq!(engine.get("/nope").await.1, json!({"detail": "Not Found"}));
    let response = engine.send("PUT", "/api/inputs", Body::empty()).await;
    let allow = response.headers()["allow"].to_str().unwrap().to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    assert_eq!(read(response).await.1, json!({"detail": "Method Not Allowed"}));
    let mediamtx = json!({"healthy": false, "api_available": false, "paths_count": 0});
    assert_eq!(engine.get("/api/system/mediamtx/status").await.1, mediamtx);
    let restart = engine.post("/api/system/mediamtx/restart", Value::Null).await.1;
    assert_eq!((&restart["success"], &restart["data"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn unknown_objects_are_not_found() {
    let engine = Engine::with_objects().await;
    assert_eq!(engine.post("/api/inputs", json!({"name": "Other"})).await.0, 201);
    let output = json!({"name": "o", "url": "udp://h:1"});
    for id in ["9", "0", "-1", "99999999999999999999999"] {
        for (method, rest, body) in [
            ("GET", "", Value::Null),
            ("PATCH", "", json!({})),
            ("DELETE", "", Value::Null),
            ("GET", "/status", Value::Null),
            ("GET", "/report", Value::Null),
            ("GET", "/logs", Value::Null),
            ("POST", "/start", Value::Null),
            ("POST", "/stop", Value::Null),
        ] {
            let answer = engine.call(method, &format!("/api/inputs/{id}{rest}"), body).await;
            assert_eq!(answer, (404, json!({"detail": "Input not found"})), "{method} {id}{rest}");
        }
        assert_eq!(engine.post(&format!("/api/inputs/{id}/outputs"), output.clone()).await.0, 400);
    }
    let none = (400, json!({"detail": "Input 9 not found"}));
    assert_eq!(engine.post("/api/inputs/9/outputs", output).await, none);
    // Output 1 belongs to input 1.
    for path in ["/api/inputs/2/outputs/1", "/api/inputs/1/outputs/9", "/api/inputs/9/outputs/1"] {
        for (method, rest, body) in [
            ("GET", "", Value::Null),
            ("PATCH", "", json!({})),
            ("DELETE", "", Value::Null),
            ("GET", "/stats", Value::Null),
            ("GET", "/logs", Value::Null),
            ("POST", "/start", Value::Null),
            ("POST", "/stop", Value::Null),
        ] {
            let answer = engine.call(method, &format!("{path}{rest}"), body).await;
            assert_eq!(answer, (404, json!({"detail": "Output not found"})), "{method} {path}{rest}");
        }
    }
    assert_eq!(engine.get("/api/inputs/1/outputs/1").await.0, 200);
}

#[tokio::test]
async fn wrong_fields_are_named_and_change_nothing() {
    let engine = Engine::with_objects().await;
    let before = (engine.get("/api/inputs/1").await, engine.get("/api/inputs").await);
    let (inputs, input) = ("/api/inputs", "/api/inputs/1");
    let (outputs, output) = ("/api/inputs/1/outputs", "/api/inputs/1/outputs/1");
    for (method, path, body, wrong) in [
        ("POST", inputs, json!([1]), json!([["body"], "model_attributes_type"])),
        ("POST", inputs, json!({}), json!([["body", "name"], "missing"])),
        ("POST", inputs, json!({"name": null}), json!([["body", "name"], "missing"])),
        ("POST", inputs, json!({"name": 7}), json!([["body", "name"], "string_type", 7])),
        ("POST", inputs, json!({"name": ""}), json!([["body", "name"], "string_too_short", ""])),
        ("POST", inputs, json!({"name": {"a": "b"}}), json!([["body", "name"], "string_type"])),
        (
            "POST",
            inputs,
            json!({"name": "a", "udp_port": "5000"}),
            json!([["body", "udp_port"], "int_type", "5000"]),
        ),
        (
            "POST",
            inputs,
            json!({"name": "a", "udp_port": 1.5}),
            json!([["body", "udp_port"], "int_type", 1.5]),
        ),
        (
            "POST",
            inputs,
            json!({"name": "a", "udp_port": 80}),
            json!([["body", "udp_port"], "greater_than_equal", 80]),
        ),
        ("POST", inputs, json!({"name": "a", "url": "udp://h"}), json!([["body", "url"], "value_error"])),
        ("POST", inputs, json!({"name": "a", "url": ""}), json!([["body", "url"], "value_error"])),
        ("POST", inputs, json!({"name": "a", "url": "file:../x"}), json!([["body", "url"], "value_error"])),
        ("POST", inputs, json!({"name": "a", "pass": "Zebra"}), json!([["body", "pass"], "extra_forbidden"])),
        ("PATCH", input, json!({"udp_port": 5001}), json!([["body", "udp_port"], "extra_forbidden"])),
        (
            "PATCH",
            input,
            json!({"url": "srt://h:1?passphrase=Zebra"}),
            json!([["body", "url"], "value_error"]),
        ),
        ("POST", outputs, json!({"name": "o"}), json!([["body", "url"], "missing"])),
        (
            "POST",
            outputs,
            json!({"name": "o", "url": "udp://u:Zebra@h:1"}),
            json!([["body", "url"], "value_error"]),
        ),
        (
            "POST",
            outputs,
            json!({"name": "o", "url": "udp://h:1", "protocol": "rtp"}),
            json!([["body", "protocol"], "value_error", "rtp"]),
        ),
        (
            "POST",
            outputs,
            json!({"name": "o", "url": "udp://h:1", "protocol": "rtmp://h/live/Zebra"}),
            json!([["body", "protocol"], "enum", "rtmp://h/live/***"]),
        ),
        (
            "PATCH",
            output,
            json!({"reconnect_delay": 0}),
            json!([["body", "reconnect_delay"], "greater_than_equal", 0]),
        ),
        (
            "PATCH",
            output,
            json!({"reconnect_delay": 301}),
            json!([["body", "reconnect_delay"], "less_than_equal", 301]),
        ),
        ("PATCH", output, json!({"auto_reconnect": 1}), json!([["body", "auto_reconnect"], "bool_type", 1])),
        ("PATCH", output, json!({"status": "running"}), json!([["body", "status"], "extra_forbidden"])),
    ] {
        let (status, answer) = engine.call(method, path, body.clone()).await;
        let detail = answer["detail"].as_array().expect("a list");
        let shown: Vec<Value> = detail
            .iter()
            .flat_map(|e| [Some(&e["loc"]), Some(&e["type"]), e.get("input")].into_iter().flatten().cloned())
            .collect();
        assert_eq!((status, json!(shown)), (422, wrong), "{method} {path} {body}");
        assert!(detail.iter().all(|e| e["msg"].as_str().is_some_and(|m| !m.is_empty())));
        assert!(!answer.to_string().contains("Zebra"), "{answer}");
    }
    let all = json!({"name": "", "url": "x", "reconnect_delay": 0, "max_reconnect_attempts": -1});
    assert_eq!(engine.post(outputs, all).await.1["detail"].as_array().map(Vec::len), Some(4));
    for (method, path, body, detail) in [
        ("POST", inputs, json!({"name": "Camera 1"}), "Input with name 'Camera 1' already exists"),
        ("POST", inputs, json!({"name": "a", "udp_port": 5000}), "Port 5000 is already in use"),
        (
            "POST",
            outputs,
            json!({"name": "Wall", "url": "udp://h:1"}),
            "Output with name 'Wall' already exists for this input",
        ),
    ] {
        assert_eq!(engine.call(method, path, body).await, (400, json!({"detail": detail})));
    }
    assert_eq!((engine.get("/api/inputs/1").await, engine.get("/api/inputs").await), before);
}

#[tokio::test]
async fn limits_of_the_rules_are_kept() {
    let engine = Engine::with(Rules { max_outputs_per_input: Some(1), ..Rules::default() });
    engine.post("/api/inputs", json!({"name": "a"})).await;
    let output = |name: &str| json!({"name": name, "url": "udp://h:1"});
    assert_eq!(engine.post("/api/inputs/1/outputs", output("a")).await.0, 201);
    let full = json!({"detail": "Maximum 1 outputs per input reached"});
    assert_eq!(engine.post("/api/inputs/1/outputs", output("b")).await, (400, full));
}

#[tokio::test]
async fn broken_requests_are_told_why() {
    let engine = Engine::with_objects().await;
    for (body, loc, kind) in [
        ("", json!(["body"]), "missing"),
        ("{", json!(["body", 0]), "json_invalid"),
        ("{\"name\":\n \"a\",}", json!(["body", 14]), "json_invalid"),
        ("name=a", json!(["body", 1]), "json_invalid"),
        ("{\"name\": \"\u{7f}\\ud800\"}", json!(["body", 17]), "json_invalid"),
    ] {
        let (status, answer) = read(engine.send("POST", "/api/inputs", Body::from(body)).await).await;
        let wrong = &answer["detail"][0];
        assert_eq!(
            (status, &wrong["loc"], wrong["type"].as_str()),
            (422, &loc, Some(kind)),
            "{body}: {answer}"
        );
    }
    let (status, _) =
        read(engine.send("POST", "/api/inputs", Body::from(&b"{\"name\": \"\xff\"}"[..])).await).await;
    assert_eq!(status, 422);
    let deep = "[".repeat(60_000);
    assert_eq!(read(engine.send("POST", "/api/inputs", Body::from(deep)).await).await.0, 422);

    let fits = format!("{{\"name\": \"{}\"}}", "a".repeat(64 * 1024 - 12));
    assert_eq!(read(engine.send("POST", "/api/inputs", Body::from(fits.clone())).await).await.0, 422);
    let large = (413, json!({"detail": "Request body too large"}));
    assert_eq!(read(engine.send("POST", "/api/inputs", Body::from(fits + " ")).await).await, large);

    for (path, loc, kind, input) in [
        ("/api/inputs/abc", ["path", "input_id"], "int_parsing", "abc"),
        ("/api/inputs/1.0/outputs", ["path", "input_id"], "int_parsing", "1.0"),
        ("/api/inputs/1/outputs/x/logs", ["path", "output_id"], "int_parsing", "x"),
        ("/api/inputs?skip=-1", ["query", "skip"], "greater_than_equal", "-1"),
        ("/api/inputs?skip=", ["query", "skip"], "int_parsing", ""),
        ("/api/inputs?limit=0", ["query", "limit"], "greater_than_equal", "0"),
        ("/api/inputs?limit=1001", ["query", "limit"], "less_than_equal", "1001"),
        ("/api/inputs?limit=ten", ["query", "limit"], "int_parsing", "ten"),
        ("/api/inputs/1/logs?limit=1001", ["query", "limit"], "less_than_equal", "1001"),
        ("/api/inputs/1/outputs/1/logs?limit=0", ["query", "limit"], "greater_than_equal", "0"),
        (
            "/api/inputs/1/logs?limit=99999999999999999999999",
            ["query", "limit"],
            "less_than_equal",
            "99999999999999999999999",
        ),
    ] {
        let (status, answer) = engine.get(path).await;
        let wrong = &answer["detail"][0];
        assert_eq!(
            (status, &wrong["loc"], &wrong["type"], &wrong["input"]),
            (422, &json!(loc), &json!(kind), &json!(input)),
            "{path}"
        );
    }
    assert_eq!(engine.get("/api/inputs/%ff").await.0, 404);
}

#[tokio::test]
async fn foreign_pages_are_refused_before_anything_happens() {
    let engine = Engine::with_objects().await;
    for (host, origin, method, status) in [
        ("evil.example", None, Method::GET, 403),
        ("localhost:8080", Some("http://evil.example"), Method::DELETE, 403),
        ("localhost:8080", Some("http://evil.example"), Method::GET, 200),
        ("localhost:8080", Some("http://localhost:8080"), Method::DELETE, 200),
    ] {
        let mut request = Request::builder().method(&method).uri("/api/inputs/1").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let response = engine.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert!(!response.headers().contains_key("access-control-allow-origin"));
        assert_eq!(read(response).await.0, status, "{method} {host} {origin:?}");
    }
}

#[tokio::test]
async fn a_full_queue_asks_to_come_again_and_reads_go_on() {
    let board = Arc::new(Board::default());
    let (commands, receiver) = commands(1);
    let router = router(Control::new(board, commands, later), LOOPBACK, Vec::new());
    let create = |name: &str| Body::from(json!({ "name": name }).to_string());
    let mut waiting = JoinSet::new();
    waiting.spawn(send(router.clone(), "POST", "/api/inputs", create("first")));
    while receiver.is_empty() {
        tokio::task::yield_now().await;
    }
    let response = send(router.clone(), "POST", "/api/inputs", create("second")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(read(response).await, (503, json!({"detail": "too many writes are waiting"})));
    assert_eq!(
        send(router.clone(), "GET", "/api/system/status", Body::empty()).await.status(),
        StatusCode::OK
    );
    drop(receiver);
    let closed = (503, json!({"detail": "the engine is shutting down"}));
    assert_eq!(read(waiting.join_next().await.unwrap().unwrap()).await, closed);
    assert_eq!(read(send(router, "DELETE", "/api/inputs/1", Body::empty()).await).await, closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_get_along() {
    let engine = Engine::new();
    engine.post("/api/inputs", json!({"name": "a"})).await;
    let mut writers = JoinSet::new();
    for n in 0..300 {
        let router = engine.router.clone();
        writers.spawn(async move {
            // Every name is asked for three times.
            let body = json!({"name": format!("o{}", n % 100), "url": "udp://h:1"}).to_string();
            let made = send(router.clone(), "POST", "/api/inputs/1/outputs", Body::from(body)).await.status();
            let listed = send(router, "GET", "/api/inputs/1/outputs", Body::empty()).await.status();
            (made, listed)
        });
    }
    let answers = writers.join_all().await;
    assert!(answers.iter().all(|(_, listed)| *listed == StatusCode::OK));
    let made = |status| answers.iter().filter(|(made, _)| *made == status).count();
    assert_eq!((made(StatusCode::CREATED), made(StatusCode::BAD_REQUEST)), (100, 200));
    assert_eq!(engine.get("/api/inputs/1").await.1["output_count"], 100);
}

#[tokio::test]
async fn secrets_in_urls_are_not_shown() {
    let engine = Engine::with_objects().await;
    let card = engine.board.output(1, 1).unwrap();
    let spec = OutputSpec::clone(&card.spec());
    card.set_spec(Arc::new(OutputSpec {
        raw_url: RawUrl::from("rtmp://u:Zebra@host/live/Zebra?token=Zebra"),
        ..spec
    }));
    for path in
        ["/api/inputs/1/outputs/1", "/api/inputs/1/outputs", "/api/inputs/1", "/api/inputs/1/outputs/1/stats"]
    {
        assert!(!engine.get(path).await.1.to_string().contains("Zebra"), "{path}");
    }
    assert_eq!(engine.get("/api/inputs/1/outputs/1").await.1["url"], "rtmp://u:***@host/live/***?token=***");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_answers_real_clients_and_drains() {
    let engine = Engine::new();
    let (commands, receiver) = commands(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(direct(receiver, Store::default(), engine.board.clone()));
    let control = Control::new(engine.board.clone(), commands, later);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut server = JoinSet::new();
    server.spawn(serve(listener, control, Vec::new(), async { drop(stopped.await) }));
    let client = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build(),
        );
        let made =
            agent.post(format!("http://{address}/api/inputs/")).send_json(json!({"name": "a"})).unwrap();
        let listed = agent.get(format!("http://{address}/api/inputs")).call().unwrap();
        let foreign =
            agent.get(format!("http://{address}/api/inputs")).header("host", "evil.example").call().unwrap();
        (made.status(), listed.into_body().read_json::<Value>().unwrap(), foreign.status())
    });
    let (made, listed, foreign) = client.await.unwrap();
    assert_eq!(
        (made, listed[0]["name"].as_str(), foreign),
        (StatusCode::CREATED, Some("a"), StatusCode::FORBIDDEN)
    );
    stop.send(()).unwrap();
    server.join_next().await.unwrap().unwrap().unwrap();
}

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
