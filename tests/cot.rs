//! What metadata say leaves as KLV in datagrams and as Cursor-on-Target: a real engine, a real stream, and peers of the
//! test's own that speak the TAK protocol over UDP, multicast, TCP and TLS.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use millrace::media;
use millrace::mux::{Demuxer, DemuxerOptions, Muxer, MuxerOptions};
use millrace::tak::cot::{CotEvent, Event, Frame, TakControl, TakMessage, parse, parse_datagram, write_mesh};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use support::{
    Authority, Engine, Flow, Manner, Marti, Receiver, Sender, TakServer, free_port, loopable, require,
    testdata, wait_for,
};

const CLIP: &str = "h264_async.ts";
/// The clip at its own pace: six seconds a pass, ten KLV packets in each.
const MBPS: f64 = 0.633;

/// An engine with an input, and the stream that it gets.
struct Scene {
    engine: Engine,
    input: u64,
    port: u16,
}

impl Scene {
    fn new(configuration: &str) -> Self {
        let engine = Engine::with(configuration);
        let port = free_port();
        let input = engine.add_input("drone", &format!("udp://127.0.0.1:{port}"));
        Self { engine, input, port }
    }

    fn flow(&self) -> Flow {
        Flow::start((Ipv4Addr::LOCALHOST, self.port).into(), &loopable(CLIP), MBPS)
    }

    fn add(&self, name: &str, url: &str) -> String {
        self.engine.add_output(self.input, name, url)
    }

    fn wait(&self, output: &str, state: &str) -> Value {
        self.engine.wait(output, state, |answer| answer["state"] == state)
    }
}

/// The KLV packets of a PID, in their order, taken out by hand.
fn packets(ts: &[u8], pid: u16) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    for packet in ts.chunks(188) {
        if u16::from_be_bytes([packet[1] & 0x1f, packet[2]]) != pid || packet[3] & 0x10 == 0 {
            continue;
        }
        let at = if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 };
        if packet[1] & 0x40 != 0 {
            units.push(Vec::new());
        }
        if let Some(unit) = units.last_mut() {
            unit.extend_from_slice(&packet[at..]);
        }
    }
    let body = |unit: Vec<u8>| {
        let length = usize::from(u16::from_be_bytes([unit[4], unit[5]])) + 6;
        unit[9 + usize::from(unit[8])..length].to_vec()
    };
    units.into_iter().map(body).collect()
}

fn group(address: Ipv4Addr) -> (Receiver, SocketAddr) {
    let port = free_port();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    let addr = SocketAddr::from((address, port));
    socket.bind(&addr.into()).expect("a group");
    socket.join_multicast_v4(&address, &Ipv4Addr::LOCALHOST).expect("a group");
    (Receiver::on(UdpSocket::from(socket)), addr)
}

/// What a datagram says, and whether it is protobuf.
fn event(datagram: &[u8]) -> Option<(Event, bool)> {
    match parse_datagram(datagram).expect("a message") {
        Frame::Xml(xml) => Some((parse(&xml).expect("an event"), false)),
        Frame::Proto(message) => {
            message.event.as_ref().map(|event| (CotEvent::event(event).expect("an event"), true))
        }
    }
}

fn number(event: &Event, part: &str, attribute: &str) -> f64 {
    let value = event.part(part).and_then(|part| part.attribute(attribute));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{part} {attribute} in {event:?}"))
}

/// Holds an event of the clip against the rules of the schema and against where the flight is.
fn check(event: &Event) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_millis() as u64;
    assert!(event.time <= now && event.start <= event.stale, "{event:?}");
    assert!((now + 4_000..=now + 10_000).contains(&event.stale), "{} and {now}", event.stale);
    assert!((38.9..39.2).contains(&event.point.latitude), "{event:?}");
    assert!((-77.1..-76.9).contains(&event.point.longitude), "{event:?}");
    let Some(sensor) = event.part("sensor") else { return };
    assert_eq!((sensor.attribute("hideFov"), sensor.attribute("fovLabels")), (None, None));
    for (name, low, high) in [
        ("azimuth", 0.001, 359.999),
        ("elevation", -90.0, 0.0),
        ("fov", 0.01, 90.0),
        ("vfov", 0.01, 90.0),
        ("range", 100.0, 10_000.0),
    ] {
        let value = number(event, "sensor", name);
        assert!((low..=high).contains(&value), "{name} {value}");
    }
}

/// Platform, point of interest and footprint, once each.
fn trio(told: impl Fn() -> Vec<Event>) -> [Event; 3] {
    ["a-f-A-M-F-Q", "b-m-p-s-p-i", "u-d-f"]
        .map(|kind| wait_for(kind, || told().into_iter().find(|event| event.kind == kind)))
}

#[test]
fn klv_leaves_byte_for_byte_one_packet_in_a_datagram() {
    let scene = Scene::new("");
    let plain = Receiver::new();
    let (many, address) = group(Ipv4Addr::new(239, 77, 1, 1));
    let one = scene.add("rover", &format!("klv+udp://{}", plain.addr()));
    let two = scene.add("group", &format!("klv+udp://{address}?ttl=1&interface=lo"));
    for output in [&one, &two] {
        scene.wait(output, "Starved");
    }
    let clip = std::fs::read(testdata("ts").join(CLIP)).expect("a clip");
    let expected = packets(&clip, 0x102);
    assert_eq!(expected.len(), 60);
    Sender::new((Ipv4Addr::LOCALHOST, scene.port).into()).send_all_paced(clip.chunks(1316), 4.0);
    for receiver in [&plain, &many] {
        wait_for("60 packets", || (receiver.count() >= 60).then_some(()));
        assert_eq!(receiver.datagrams(), expected);
    }
    let answer = scene.engine.get(&one);
    assert_eq!((&answer["protocol"], &answer["stats"]["datagrams"]), (&"klv_udp".into(), &60.into()));
    assert_eq!(
        (&answer["stats"]["tak"]["packets"], &answer["stats"]["tak"]["oversize"]),
        (&60.into(), &0.into())
    );
    // nothing is left to tell, and the output says so
    let answer = scene.wait(&one, "Starved");
    assert_eq!(answer["reason"], "the input has no metadata with something to tell");
}

/// A transport stream with a KLV packet of each of these lengths, a picture before each.
fn stream_of(lengths: &[usize]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let picture = std::fs::read(testdata("ts").join(CLIP)).expect("a clip");
    let (mut demuxer, mut frames) = (Demuxer::new(DemuxerOptions::default()), Vec::new());
    demuxer.push(&picture, 0, &mut |frame| frames.push(frame));
    let pictures: Vec<media::Frame> = frames.into_iter().filter(|frame| frame.track == 0).collect();
    let packet = |length: usize| {
        let mut packet = b"\x06\x0e\x2b\x34\x02\x0b\x01\x01\x0e\x01\x03\x01\x01\x00\x00\x00\x83".to_vec();
        packet.extend_from_slice(&((length - 20) as u32).to_be_bytes()[1..]);
        packet.resize(length, 0);
        packet
    };
    let packets: Vec<Vec<u8>> = lengths.iter().map(|&length| packet(length)).collect();
    let (mut muxer, mut stream) = (Muxer::new(MuxerOptions::default()), Vec::new());
    let mut sink = |datagram: &[u8], _| stream.extend_from_slice(datagram);
    for (picture, packet) in pictures.iter().zip(&packets) {
        muxer.push(picture, &mut sink);
        muxer.push(&media::Frame { track: 1, data: packet.clone().into(), ..picture.clone() }, &mut sink);
    }
    muxer.flush(&mut sink);
    (stream, packets)
}

#[test]
fn a_packet_that_no_datagram_holds_is_counted_and_named_and_the_next_one_goes() {
    let scene = Scene::new("");
    let receiver = Receiver::new();
    let output = scene.add("rover", &format!("klv+udp://{}", receiver.addr()));
    scene.wait(&output, "Starved");
    // 65,507 bytes are the most that a datagram over IPv4 carries
    let (stream, packets) = stream_of(&[200, 65_508, 300, 65_508, 65_507, 100]);
    Sender::new((Ipv4Addr::LOCALHOST, scene.port).into()).send_all_paced(stream.chunks(1316), 8.0);
    let answer =
        scene.engine.wait(&output, "all six", |answer| answer["stats"]["tak"]["packets"].as_u64() >= Some(6));
    wait_for("four packets", || (receiver.count() >= 4).then_some(()));
    let fits: Vec<_> = packets.into_iter().filter(|packet| packet.len() <= 65_507).collect();
    assert!(
        receiver.datagrams() == fits,
        "{:?}",
        receiver.datagrams().iter().map(Vec::len).collect::<Vec<_>>()
    );
    let stats = &answer["stats"];
    assert_eq!((&stats["tak"]["packets"], &stats["tak"]["oversize"]), (&6.into(), &2.into()));
    assert_eq!(stats["send_errors"], 0);
    // said once, with what to make of it
    let logs = wait_for("a word of it", || {
        let logs = scene.engine.get(&format!("{output}/logs")).to_string();
        logs.contains("a KLV packet of 65508 bytes on track").then_some(logs)
    });
    assert_eq!(logs.matches("longer than a datagram").count(), 1, "{logs}");
}

#[test]
fn a_port_that_nobody_listens_at_is_told() {
    let scene = Scene::new("");
    let port = free_port();
    let output = scene.add("nobody", &format!("klv+udp://127.0.0.1:{port}"));
    let _flow = scene.flow();
    scene.engine.wait(&output, "an ICMP error", |answer| {
        answer["state"] == "Sending" && answer["reason"] == "peer refuses (ICMP)"
    });
}

#[test]
fn datagrams_tell_platform_interest_and_footprint() {
    let scene = Scene::new("");
    let receiver = Receiver::new();
    let output = scene.add("cot", &format!("cot+udp://{}?every_ms=500", receiver.addr()));
    let _flow = scene.flow();
    let told = || {
        receiver.datagrams().iter().filter_map(|datagram| event(datagram)).map(|(event, _)| event).collect()
    };
    let [platform, interest, footprint] = trio(told);
    for event in [&platform, &interest, &footprint] {
        check(event);
    }
    // item 15 says 1200 m above the sea, which lies 33.5 m below the ellipsoid there (EGM96)
    let hae = platform.point.hae.expect("a height");
    assert!((1166.0..1167.0).contains(&hae), "{hae}");
    let callsign = platform.part("contact").and_then(|contact| contact.attribute("callsign"));
    assert_eq!(callsign, Some("TAIL42"));
    assert!(platform.part("__video").is_none(), "nobody said where the picture is");
    assert_eq!(platform.uid.len(), 36, "{}", platform.uid);
    assert_eq!(interest.uid, format!("{}-spi", platform.uid));
    let link = interest.part("link").expect("a link");
    assert_eq!(
        (link.attribute("uid"), link.attribute("relation")),
        (Some(platform.uid.as_str()), Some("p-p"))
    );
    let corners: Vec<_> = footprint.detail.iter().filter_map(|part| part.attribute("point")).collect();
    assert!(corners.len() == 5 && corners.first() == corners.last(), "{corners:?}");
    let answer = scene.wait(&output, "Sending");
    assert_eq!(answer["protocol"], "cot_udp");
    // who the stream is stays: over a stop, and over an input that is made again
    scene.engine.order(&output, "stop");
    let installation = std::fs::read_to_string(scene.engine.folder().join("installation")).expect("a file");
    assert_eq!(installation.trim().len(), 32);
    scene.engine.order(&output, "start");
    receiver.clear();
    let told = || {
        receiver.datagrams().iter().filter_map(|datagram| event(datagram)).map(|(event, _)| event).collect()
    };
    let [again, ..] = trio(told);
    assert_eq!(again.uid, platform.uid);
    // once in half a second for each uid, whatever comes ten times a second
    receiver.clear();
    std::thread::sleep(Duration::from_secs(3));
    let events = receiver.count();
    assert!((10..=30).contains(&events), "{events} events in three seconds");
}

/// Uid, type and relation that a task to delete names.
fn deleted(event: &Event) -> Option<(String, String)> {
    let link = event.part("link").filter(|_| event.kind == "t-x-d-d")?;
    assert_eq!(link.attribute("relation"), Some("p-p"));
    assert!(event.part("__forcedelete").is_some() && event.stale > event.start, "{event:?}");
    Some((link.attribute("uid")?.to_owned(), link.attribute("type")?.to_owned()))
}

#[test]
fn what_was_shown_is_taken_back_when_output_or_input_end_and_not_when_a_source_is_away() {
    let scene = Scene::new("");
    let (plain, server) = (Receiver::new(), TakServer::start(Manner::Agrees, None));
    let one = scene.add("one", &format!("cot+udp://{}?uid=eye", plain.addr()));
    scene.add("two", &format!("cot+tcp://{}?uid=spy", server.addr()));
    let of_plain = || -> Vec<Event> {
        plain.datagrams().iter().filter_map(|datagram| event(datagram)).map(|(event, _)| event).collect()
    };
    let of_server = || server.told().into_iter().map(|told| told.event).collect::<Vec<_>>();
    let parts = |uid: &str| {
        let parts = [("-footprint", "u-d-f"), ("-spi", "b-m-p-s-p-i"), ("", "a-f-A-M-F-Q")];
        parts.map(|(part, kind)| (format!("{uid}{part}"), kind.to_owned())).to_vec()
    };
    let all_deleted = |told: &dyn Fn() -> Vec<Event>, uid: &str| {
        wait_for("that it is taken back", || {
            let gone: Vec<_> = told().iter().filter_map(deleted).collect();
            (gone.len() >= 3).then(|| assert_eq!(gone, parts(uid)))
        });
    };
    let flow = scene.flow();
    trio(of_plain);
    trio(of_server);
    // a source that is away comes back: what was told goes stale, and nothing more
    flow.stop();
    scene.engine.wait(&one, "that it has nothing to tell", |answer| answer["state"] == "Starved");
    assert!(of_plain().iter().chain(&of_server()).all(|event| deleted(event).is_none()));
    // the input is stopped: both take back, and go on
    let input = format!("/api/inputs/{}", scene.input);
    scene.engine.order(&input, "stop");
    all_deleted(&of_plain, "eye");
    all_deleted(&of_server, "spy");
    assert_eq!(server.connections(), 1);
    // one output is stopped: that one takes back
    plain.clear();
    scene.engine.order(&input, "start");
    let _flow = scene.flow();
    trio(of_plain);
    scene.engine.order(&one, "stop");
    all_deleted(&of_plain, "eye");
    wait_for("all of it at the server anew", || {
        let told = of_server();
        let anew = || told.iter().rev().take_while(|event| deleted(event).is_none());
        ["a-f-A-M-F-Q", "b-m-p-s-p-i", "u-d-f"]
            .iter()
            .all(|kind| anew().any(|event| event.kind == *kind))
            .then_some(())
    });
    // the input is deleted: so does the other
    let before = of_server().iter().filter(|event| deleted(event).is_some()).count();
    assert_eq!(before, 3);
    scene.engine.call("DELETE", &input, None);
    wait_for("that it is taken back, too", || {
        let gone: Vec<_> = of_server().iter().filter_map(deleted).skip(before).collect();
        (gone.len() >= 3).then(|| assert_eq!(gone, parts("spy")))
    });
}

#[test]
fn what_was_shown_of_a_file_is_taken_back_behind_its_end() {
    let scene = Scene::new("");
    std::fs::copy(testdata("ts").join(CLIP), scene.engine.media().join(CLIP)).expect("a clip");
    let receiver = Receiver::new();
    let input = scene.engine.add_input("film", &format!("file:{CLIP}?loop=false"));
    scene.engine.add_output(input, "cot", &format!("cot+udp://{}?uid=eye", receiver.addr()));
    // the output may have come behind the file's end: it is played once more
    scene.engine.order(&format!("/api/inputs/{input}"), "stop");
    scene.engine.order(&format!("/api/inputs/{input}"), "start");
    let told = || -> Vec<Event> {
        receiver.datagrams().iter().filter_map(|datagram| event(datagram)).map(|(event, _)| event).collect()
    };
    trio(told);
    let ended = scene.engine.wait(&format!("/api/inputs/{input}"), "the file's end", |input| {
        input["reason"].as_str().is_some_and(|reason| reason.contains("came to its end"))
    });
    assert_eq!(ended["state"], "Idle");
    let gone = wait_for("that it is taken back", || {
        let gone: Vec<_> = told().iter().filter_map(deleted).map(|gone| gone.0).collect();
        gone.iter().any(|uid| uid == "eye").then_some(gone)
    });
    assert!(gone.ends_with(&["eye-footprint", "eye-spi", "eye"].map(str::to_owned)), "{gone:?}");
    // nothing is told of it any more
    assert!(told().last().is_some_and(|event| event.kind == "t-x-d-d"));
}

#[test]
fn who_a_stream_is_can_be_said() {
    let scene = Scene::new("");
    let receiver = Receiver::new();
    let url = format!(
        "cot+udp://{}?uid=eye&callsign=%3CEye%3E%201&affiliation=hostile&type=A-C-F-q",
        receiver.addr()
    );
    scene.add("cot", &url);
    let mission = Receiver::new();
    scene.add("mission", &format!("cot+udp://{}?uid_from=mission", mission.addr()));
    let _flow = scene.flow();
    let first = |receiver: &Receiver, kind: &str| {
        wait_for(kind, || {
            receiver.datagrams().iter().filter_map(|d| event(d)).map(|(e, _)| e).find(|e| e.kind == kind)
        })
    };
    let platform = first(&receiver, "a-h-A-C-F-q");
    assert_eq!(platform.uid, "eye");
    assert_eq!(platform.part("contact").and_then(|c| c.attribute("callsign")), Some("<Eye> 1"));
    let named = first(&mission, "a-f-A-M-F-Q");
    assert!(named.uid.starts_with("GENUAS_GEN-"), "{}", named.uid);
}

#[test]
fn a_mesh_is_spoken_to_in_what_all_of_it_speak() {
    let scene = Scene::new("");
    let (receiver, address) = group(Ipv4Addr::new(239, 77, 2, 3));
    let output = scene.add("mesh", &format!("cot+udp://{address}?interface=lo&every_ms=200"));
    let _flow = scene.flow();
    let peer = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let control = TakControl { min_version: 1, max_version: 1, contact_uid: "peer-1".into() };
    let speaks = write_mesh(&TakMessage { control: Some(control), ..TakMessage::default() });
    // what the peer says comes here too
    let newest = || {
        let datagrams = receiver.datagrams();
        let told = datagrams.iter().rev().filter(|datagram| parse_datagram(datagram).is_ok());
        told.filter_map(|datagram| event(datagram)).find(|(event, _)| event.uid != "old")
    };
    let (_, proto) = wait_for("an event", newest);
    assert!(!proto, "nobody else is heard: XML");
    // what this end speaks is said beside the XML
    let said = wait_for("what it speaks", || {
        receiver.datagrams().iter().find_map(|datagram| match parse_datagram(datagram) {
            Ok(Frame::Proto(message)) => message.control.clone(),
            _ => None,
        })
    });
    assert_eq!((said.min_version, said.max_version), (1, 1));
    wait_for("protobuf", || {
        peer.send_to(&speaks, address).expect("a datagram");
        newest().filter(|(_, proto)| *proto)
    });
    let (event, _) = newest().expect("an event");
    check(&event);
    let answer = scene.engine.wait(&output, "a peer", |answer| answer["stats"]["tak"]["peers"] == 1);
    assert_eq!(answer["stats"]["tak"]["version"], 1);
    // somebody who speaks XML only, and somebody who speaks nonsense
    let old = "<event version='2.0' uid='old' type='a-f-G' how='m-g' time='2026-01-01T00:00:00Z' \
               start='2026-01-01T00:00:00Z' stale='2026-01-01T00:00:00Z'><point lat='1' lon='2' hae='3' ce='4' le='5'/>\
               <detail/></event>";
    wait_for("XML", || {
        peer.send_to(old.as_bytes(), address).expect("a datagram");
        peer.send_to(&[0xbf, 0x01, 0xbf, 0xff], address).expect("a datagram");
        newest().filter(|(_, proto)| !*proto)
    });
    scene.engine.wait(&output, "nonsense", |answer| answer["stats"]["tak"]["malformed"].as_u64() > Some(0));
}

#[test]
fn a_server_gets_protobuf_where_it_offers_it_and_a_new_connection_when_it_comes_back() {
    let scene = Scene::new("");
    let server = TakServer::start(Manner::Agrees, None);
    let addr = server.addr();
    let body = serde_json::json!({"name": "tak", "url": format!("cot+tcp://{addr}"), "reconnect_delay": 1});
    let made = scene.engine.post(&format!("/api/inputs/{}/outputs", scene.input), body);
    let output = format!("/api/inputs/{}/outputs/{}", scene.input, made["id"]);
    let _flow = scene.flow();
    let platform = server.wait("protobuf", |told| told.proto && told.event.kind == "a-f-A-M-F-Q");
    check(&platform.event);
    let answer = scene.wait(&output, "Live");
    assert_eq!((&answer["protocol"], &answer["stats"]["tak"]["version"]), (&"cot_tcp".into(), &1.into()));
    // between the question and the answer nothing is said
    let told = server.end();
    let question = told.iter().position(|told| told.event.kind == "t-x-takp-q").expect("a question");
    assert!(told[question + 1..].iter().all(|told| told.proto));
    assert!(told[..question].iter().all(|told| !told.proto));
    scene.engine.wait(&output, "that it is gone", |answer| {
        answer["state"] == "Backoff"
            && answer["last_error"].as_str().is_some_and(|e| e.contains("connection"))
    });
    let again = wait_for("the port", || TcpListener::bind(addr).ok());
    let server = TakServer::on(again, Manner::Refuses, None);
    let told = server.wait("XML", |told| told.event.kind == "a-f-A-M-F-Q");
    assert!(!told.proto);
    let answer = scene.wait(&output, "Live");
    assert_eq!(answer["stats"]["tak"]["version"], 0);
    assert!(answer["reconnect_count"].as_u64() >= Some(1));
}

#[test]
fn a_server_that_does_not_answer_is_left_after_a_minute_and_spoken_to_in_xml() {
    let scene = Scene::new("");
    let server = TakServer::start(Manner::Mute, None);
    let output = scene.add("tak", &format!("cot+tcp://{}", server.addr()));
    let _flow = scene.flow();
    let question = server.wait("a question", |told| told.event.kind == "t-x-takp-q");
    let deadline = Instant::now() + Duration::from_secs(100);
    while server.connections() < 2 {
        assert!(Instant::now() < deadline, "it still waits for an answer");
        std::thread::sleep(Duration::from_millis(100));
    }
    let waited = question.at.elapsed();
    assert!(waited >= Duration::from_secs(60), "{waited:?}");
    let told = server.wait("XML", |told| told.connection == 1 && told.event.kind == "a-f-A-M-F-Q");
    assert!(
        !told.proto
            && !server.told().iter().any(|told| told.connection == 1 && told.event.kind == "t-x-takp-q")
    );
    let silent = |told: &support::Told| told.connection == 0 && told.at > question.at;
    assert!(!server.told().iter().any(silent), "something was said while an answer was awaited");
    let answer = scene.wait(&output, "Live");
    assert_eq!(answer["stats"]["tak"]["negotiation_timeouts"], 1);
}

#[test]
fn a_connection_without_metadata_is_kept_and_says_so() {
    let scene = Scene::new("");
    let server = TakServer::start(Manner::Quiet, None);
    let output = scene.add("tak", &format!("cot+tcp://{}", server.addr()));
    let answer = scene.wait(&output, "Starved");
    assert_eq!(answer["reason"], "the input has no metadata with something to tell");
    let ping = server.wait("a ping", |told| told.event.kind == "t-x-c-t");
    assert!(ping.event.uid.ends_with("-ping"));
    let flow = scene.flow();
    scene.wait(&output, "Live");
    flow.stop();
    scene.wait(&output, "Starved");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_over_tls_is_shown_a_certificate() {
    let scene = Scene::new("");
    let authority = Authority::new("TAK");
    let tls = authority.server(&authority.issue("tak", Some("localhost"), 365));
    let server = TakServer::start(Manner::Agrees, Some(tls));
    let media = scene.engine.media();
    std::fs::write(media.join("ca.pem"), authority.pem()).expect("a file");
    authority.issue("eye", None, 365).put(&media, "eye");
    Authority::new("another").issue("mallory", None, 365).put(&media, "mallory");
    let port = server.addr().port();
    let good = scene
        .add("good", &format!("cot+tls://localhost:{port}?tls_ca=ca.pem&tls_cert=eye.pem&tls_key=eye.key"));
    // the certificate is for another name than this address
    let named = format!("cot+tls://127.0.0.1:{port}?tls_ca=ca.pem&tls_cert=eye.pem&tls_key=eye.key");
    let wrong = scene.add("wrong name", &named);
    let lenient = scene.add("any name", &format!("{named}&tls_name=any"));
    let mallory = scene.add(
        "mallory",
        &format!("cot+tls://localhost:{port}?tls_ca=ca.pem&tls_cert=mallory.pem&tls_key=mallory.key"),
    );
    // several, because whether writing fails before the refusal is read is chance
    let bare: Vec<_> = (0..6)
        .map(|n| scene.add(&format!("bare {n}"), &format!("cot+tls://localhost:{port}?tls_ca=ca.pem")))
        .collect();
    let _flow = scene.flow();
    for output in [&good, &lenient] {
        let answer = scene.wait(output, "Live");
        assert_eq!(
            (&answer["protocol"], &answer["stats"]["flow"]["encrypted"]),
            (&"cot_tls".into(), &true.into())
        );
        assert_eq!(answer["reason"], "");
    }
    server.wait("protobuf", |told| told.proto && told.event.kind == "a-f-A-M-F-Q");
    for output in [&wrong, &mallory] {
        let answer = scene.wait(output, "Failed");
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.contains("certificate")), "{answer}");
    }
    for output in &bare {
        let answer = scene.wait(output, "Failed");
        let reason = answer["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("asks for a client certificate"), "{answer}");
    }
}

#[test]
fn paths_outside_the_media_folder_are_refused_and_passwords_are_masked() {
    let scene = Scene::new("");
    let outputs = format!("/api/inputs/{}/outputs", scene.input);
    for url in [
        "cot+tls://h?tls_cert=/etc/passwd",
        "cot+tls://h?tls_cert=../millrace.yaml",
        "cot+tls://h?package=/etc/passwd",
        "cot+tls://h?tls_cert=a.pem&tls_key=/etc/shadow",
    ] {
        let body = serde_json::json!({"name": "out", "url": url});
        let (status, answer) = scene.engine.call("POST", &outputs, Some(&body));
        assert_eq!(status, 422, "{url}: {answer}");
    }
    let output = scene.add("out", "cot+tls://127.0.0.1:9?package=eye.zip&password=Zebra7");
    let answer = scene.wait(&output, "Backoff");
    assert_eq!(answer["url"], "cot+tls://127.0.0.1:9?package=eye.zip&password=***");
    assert!(!scene.engine.get(&format!("{output}/logs")).to_string().contains("Zebra7"));
    assert!(!scene.engine.log().contains("Zebra7"));
}

/// A data package as TAK Server's scripts make it: PKCS#12 with RC2 and triple DES.
fn package(authority: &Authority, days: i64, server: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    authority.issue("eye", None, days).put(folder.path(), "eye");
    std::fs::write(at("ca.pem"), authority.pem()).expect("a file");
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.current_dir(folder.path()).args([
            "pkcs12",
            "-legacy",
            "-export",
            "-passout",
            "pass:atakatak",
        ]);
        assert!(command.args(arguments).status().expect("openssl").success());
    };
    openssl(&[
        "-in",
        "eye.pem",
        "-inkey",
        "eye.key",
        "-certfile",
        "ca.pem",
        "-name",
        "eye",
        "-out",
        "eye.p12",
    ]);
    openssl(&["-nokeys", "-in", "ca.pem", "-caname", "ca", "-out", "truststore.p12"]);
    let pref = format!(
        "<?xml version='1.0'?><preferences><preference version=\"1\" name=\"cot_streams\">\
         <entry key=\"description0\">Test</entry><entry key=\"enabled0\">true</entry>\
         <entry key=\"connectString0\">{server}:ssl</entry></preference><preference name=\"com.atakmap.app_preferences\">\
         <entry key=\"caLocation\">cert/truststore.p12</entry><entry key=\"caPassword\">atakatak</entry>\
         <entry key=\"certificateLocation\">cert/eye.p12</entry><entry key=\"clientPassword\">atakatak</entry>\
         </preference></preferences>"
    );
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let read = |name: &str| std::fs::read(at(name)).expect("a file");
    for (name, bytes) in [
        ("certs/a.pref", pref.into_bytes()),
        ("certs/eye.p12", read("eye.p12")),
        ("certs/truststore.p12", read("truststore.p12")),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).expect("a file");
        zip.write_all(&bytes).expect("memory");
    }
    zip.finish().expect("an archive").into_inner()
}

#[test]
fn a_data_package_is_all_that_is_needed_and_its_end_is_told_before() {
    require!("openssl");
    let scene = Scene::new("");
    let authority = Authority::new("TAK");
    // the name in the certificate is another one, as it is on TAK Servers
    let tls = authority.server(&authority.issue("takserver", Some("takserver"), 365));
    let server = TakServer::start(Manner::Quiet, Some(tls));
    let bytes = package(&authority, 10, &server.addr().to_string());
    let path = scene.engine.media().join("eye.zip");
    std::fs::write(&path, &bytes).expect("a file");
    let output = scene.add("tak", "cot+tls://?package=eye.zip");
    let _flow = scene.flow();
    server.wait("an event", |told| told.event.kind == "a-f-A-M-F-Q");
    let answer = scene.wait(&output, "Live");
    let warning = "the certificate of CN=eye expires in 10 days";
    assert_eq!(
        (&answer["reason"], &answer["stats"]["tak"]["warnings"][0]),
        (&warning.into(), &warning.into())
    );
    assert!(answer["stats"]["tak"]["certificate_expires"].as_u64() > Some(1_700_000_000));
    assert!(scene.engine.log().contains(warning));

    let shown =
        Command::new(env!("CARGO_BIN_EXE_millrace")).arg("tak").arg(&path).output().expect("millrace");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{text}");
    for part in [&server.addr().to_string(), "CN=eye", "CN=TAK", warning, "certs/eye.p12"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("atakatak"));
    let shown = Command::new(env!("CARGO_BIN_EXE_millrace")).args(["tak", "--json"]).arg(&path).output();
    let facts: Value = serde_json::from_slice(&shown.expect("millrace").stdout).expect("JSON");
    assert_eq!(facts["client"][0]["subject"], "CN=eye");
    let wrong = Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(["tak", "--password", "another"])
        .arg(&path)
        .output()
        .expect("millrace");
    assert!(!wrong.status.success());
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("password"));
}

#[test]
fn the_picture_is_told_without_credentials_and_stands_in_the_list_while_there_is_one() {
    for told in [false, true] {
        let scene = Scene::new(&format!(
            "public: {{host: cam.example}}\ncot: {{include_read_credentials: {told}}}\n"
        ));
        let authority = Authority::new("TAK");
        let tls = authority.server(&authority.issue("tak", Some("localhost"), 365));
        let (server, marti) = (TakServer::start(Manner::Quiet, Some(tls.clone())), Marti::start(tls));
        let media = scene.engine.media();
        std::fs::write(media.join("ca.pem"), authority.pem()).expect("a file");
        authority.issue("eye", None, 365).put(&media, "eye");
        let rtsp = free_port();
        scene.add("players", &format!("rtsp://reader:geheim@:{rtsp}/eye"));
        let login = if told { "reader:geheim@" } else { "" };
        let url = format!("rtsp://{login}cam.example:{rtsp}/eye");
        let output = scene.add(
            "tak",
            &format!(
                "cot+tls://localhost:{}?tls_ca=ca.pem&tls_cert=eye.pem&tls_key=eye.key&uid=eye&register=true\
                 &register_port={}",
                server.addr().port(),
                marti.port()
            ),
        );
        let flow = scene.flow();
        let platform = server.wait("a picture", |told| told.event.part("__video").is_some());
        let video = platform.event.part("__video").expect("a video");
        assert_eq!((video.attribute("url"), video.attribute("uid")), (Some(url.as_str()), Some("eye-video")));
        let entry = video.child("ConnectionEntry").expect("an entry");
        assert_eq!(
            (entry.attribute("protocol"), entry.attribute("address")),
            (Some("raw"), Some(url.as_str()))
        );
        let (line, body) = wait_for("an entry", || marti.requests().first().cloned());
        assert_eq!(line, "POST /Marti/api/video HTTP/1.1");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["videoConnections"][0]["feeds"][0]["url"], url);
        scene
            .engine
            .wait(&output, "that it is entered", |answer| answer["stats"]["tak"]["registered"] == true);
        let withdrawn = || marti.requests().last().filter(|(line, _)| line.starts_with("DELETE")).cloned();
        // once by the end of the stream, once by the end of the output
        if told {
            scene.engine.order(&output, "stop");
        } else {
            flow.stop();
        }
        let (line, _) = wait_for("that it is withdrawn", withdrawn);
        assert_eq!(line, "DELETE /Marti/api/video/eye-video HTTP/1.1");
    }
}
