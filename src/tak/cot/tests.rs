//! Events against the rules of their schema, parsed back from both their forms; pace, framing, mesh and negotiation.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::inspect::geo::{Place, Scene};
use crate::wire::klv::{ST0601, Set, Special, Value};

const UTC: u64 = 1_795_000_000_000;

fn moment(milliseconds: u64) -> Moment {
    Moment { monotonic: Duration::from_millis(milliseconds), utc: UTC + milliseconds }
}

fn real(value: f64) -> Value<'static> {
    Value::Real(value)
}

/// A drone over Wyoming that looks at the ground to its north-east.
fn flight() -> Set<'static> {
    Set::new(&ST0601)
        .with(2, Value::Time((UTC - 500) * 1000))
        .with(5, real(45.0))
        .with(11, Value::Text("EO Nose".into()))
        .with(13, real(41.0))
        .with(14, real(-104.0))
        .with(16, real(20.0))
        .with(17, real(15.0))
        .with(18, real(10.0))
        .with(19, real(-40.0))
        .with(20, real(0.0))
        .with(23, real(41.02))
        .with(24, real(-103.98))
        .with(45, real(21.46))
        .with(46, real(16.45))
        .with(56, Value::Uint(46))
        .with(59, Value::Text("Firebird".into()))
        .with(75, real(3000.0))
        .with(78, real(1500.0))
        .with(90, real(1.0))
        .with(91, real(-2.0))
}

fn identity() -> Identity {
    Identity {
        uid: "8f6f6794-466d-4404-9b60-557511f9dab1".into(),
        video: Some(Video {
            uid: "video-1".into(),
            alias: "nose <1>".into(),
            url: "srt://cam.example:8890?streamid=read:nose&latency=200".into(),
        }),
        ..Identity::default()
    }
}

fn report(set: &Set<'_>) -> Vec<Event> {
    Reporter::new(identity()).report(set, &Scene::read(set, false), moment(0))
}

/// The limits of the event schema and of its sensor detail.
fn check(event: &Event) {
    assert!(!event.uid.is_empty() && !event.kind.is_empty());
    assert!(event.how.len() >= 3 && event.how.as_bytes()[1] == b'-');
    assert!(event.point.latitude.abs() <= 90.0 && event.point.longitude.abs() <= 180.0);
    assert!(event.start <= event.stale);
    let number = |element: &Element, name: &str| {
        element.attribute(name).map(|value| value.parse::<f64>().unwrap_or_else(|_| panic!("{name}={value}")))
    };
    for element in &event.detail {
        assert!(element.name != "sensor" || element.attribute("hideFov").is_none());
        if element.name == "sensor" {
            assert!(number(element, "azimuth").is_some_and(|a| a > 0.0 && a < 360.0), "{element:?}");
            for (name, low, high) in [
                ("elevation", -90.0, 90.0),
                ("roll", -180.0, 180.0),
                ("fov", 0.0, 359.99),
                ("vfov", 0.0, 359.99),
                ("range", 0.0, f64::MAX),
            ] {
                assert!(
                    number(element, name).is_none_or(|v| (low..=high).contains(&v)),
                    "{name} of {element:?}"
                );
            }
        }
    }
}

#[test]
fn a_flight_is_told_as_platform_interest_and_footprint() {
    let events = report(&flight());
    assert_eq!(
        events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(),
        ["a-f-A-M-F-Q", "b-m-p-s-p-i", "u-d-f"]
    );
    events.iter().for_each(check);
    let [platform, interest, footprint] = &events[..] else { panic!("{events:?}") };
    assert_eq!((platform.time, platform.start, platform.stale), (UTC - 500, UTC - 500, UTC + 10_000));
    assert_eq!(
        platform.point,
        Point { latitude: 41.0, longitude: -104.0, hae: Some(3000.0), ce: None, le: None }
    );
    assert_eq!(platform.part("contact").and_then(|c| c.attribute("callsign")), Some("Firebird"));
    let track = platform.part("track").expect("a track");
    assert_eq!((track.attribute("course"), track.attribute("speed")), (Some("45.00"), Some("46.00")));
    let sensor = platform.part("sensor").expect("a sensor");
    // the bearing to the frame centre, not heading plus relative azimuth
    assert_eq!(sensor.attribute("azimuth"), Some("37.14"));
    assert_eq!((sensor.attribute("fov"), sensor.attribute("vfov")), (Some("20.00"), Some("15.00")));
    assert_eq!(sensor.attribute("model"), Some("EO Nose"));
    assert!(sensor.attribute("range").is_some_and(|range| range.starts_with("3165.")), "{sensor:?}");

    assert_eq!(interest.uid, format!("{}-spi", platform.uid));
    assert_eq!((interest.point.latitude, interest.point.hae), (41.02, Some(1500.0)));
    assert!(
        (interest.point.ce.expect("ce") - 10.0).abs() < 1e-9
            && (interest.point.le.expect("le") - 10.0).abs() < 1e-9
    );
    let link = interest.part("link").expect("a link");
    assert_eq!(
        (link.attribute("relation"), link.attribute("uid"), link.attribute("type")),
        (Some("p-p"), Some(platform.uid.as_str()), Some("a-f-A-M-F-Q"))
    );

    let corners: Vec<&str> =
        footprint.detail.iter().filter_map(|element| element.attribute("point")).collect();
    assert_eq!(corners.len(), 5);
    assert_eq!(corners.first(), corners.last());
}

#[test]
fn what_was_told_is_taken_back_once_and_told_anew_behind_that() {
    let set = flight();
    let mut reporter = Reporter::new(identity());
    let withdrawn = |events: &[Event]| -> Vec<(String, String)> {
        events.iter().for_each(check);
        assert!(events.iter().all(|event| event.kind == "t-x-d-d" && event.stale == UTC + 60_000));
        assert!(events.iter().all(|event| event.part("__forcedelete").is_some()));
        let link = |event: &Event, name: &str| {
            let link = event.part("link").expect("a link");
            assert_eq!(link.attribute("relation"), Some("p-p"));
            link.attribute(name).expect("an attribute").to_owned()
        };
        events.iter().map(|event| (link(event, "uid"), link(event, "type"))).collect()
    };
    assert!(reporter.withdraw(UTC).is_empty());
    let told = reporter.report(&set, &Scene::read(&set, false), moment(0));
    // another url of the picture makes nothing of it unsaid
    reporter.change(Identity { video: None, ..identity() });
    let mut expected: Vec<_> = told.into_iter().map(|event| (event.uid, event.kind)).collect();
    expected.reverse();
    assert_eq!(withdrawn(&reporter.withdraw(UTC)), expected);
    assert!(reporter.withdraw(UTC).is_empty());
    // nothing but the platform
    let mut set = set;
    set.items.retain(|item| [2, 13, 14, 75].contains(&item.tag));
    assert_eq!(reporter.report(&set, &Scene::read(&set, false), moment(1)).len(), 1);
    assert_eq!(withdrawn(&reporter.withdraw(UTC)), expected[2..]);
}

#[test]
fn an_event_is_of_the_metadata_s_time_but_never_of_the_future() {
    let told = |micros| {
        let mut set = flight();
        set.items.retain(|item| item.tag != 2);
        let event = report(&set.with(2, Value::Time(micros))).remove(0);
        (event.time, event.stale)
    };
    // a replay of 2009, and a clock in MISP time
    assert_eq!(told(1_245_257_585_099_653), (1_245_257_585_099, UTC + 10_000));
    assert_eq!(told((UTC + 27_000) * 1000), (UTC, UTC + 10_000));
}

#[test]
fn the_video_keeps_its_whole_url() {
    let events = report(&flight());
    let video = events[0].part("__video").expect("a video");
    assert_eq!(video.attribute("spi"), Some("8f6f6794-466d-4404-9b60-557511f9dab1-spi"));
    let entry = video.child("ConnectionEntry").expect("an entry");
    let says = |name| entry.attribute(name).unwrap_or("none");
    assert_eq!(says("address"), "srt://cam.example:8890?streamid=read:nose&latency=200");
    assert_eq!((says("protocol"), says("port"), says("alias")), ("raw", "-1", "nose <1>"));
    let plain = Video { url: "rtsp://cam.example:8554/nose".into(), ..identity().video.expect("a video") };
    let mut reporter = Reporter::new(Identity { video: Some(plain), ..identity() });
    let set = flight();
    let events = reporter.report(&set, &Scene::read(&set, false), moment(0));
    let entry = events[0].part("__video").and_then(|video| video.child("ConnectionEntry")).expect("an entry");
    assert_eq!(entry.attribute("port"), Some("8554"));
    let mut reporter = Reporter::new(Identity { video: None, ..identity() });
    let events = reporter.report(&set, &Scene::read(&set, false), moment(0));
    assert!(events[0].part("__video").is_none());
}

#[test]
fn an_azimuth_of_nothing_is_sent_as_a_hundredth() {
    for (azimuth, sent) in
        [(0.0, "0.01"), (0.001, "0.01"), (359.999, "359.99"), (359.994, "359.99"), (90.0, "90.00")]
    {
        let set = Set::new(&ST0601)
            .with(5, real(0.0))
            .with(13, real(41.0))
            .with(14, real(-104.0))
            .with(18, real(azimuth));
        let events = report(&set);
        assert_eq!(events[0].part("sensor").and_then(|s| s.attribute("azimuth")), Some(sent), "{azimuth}");
        events.iter().for_each(check);
    }
}

#[test]
fn an_error_code_is_no_position() {
    let nowhere = Value::Special(Special::Reserved);
    let set = flight().with(13, nowhere.clone()).with(14, nowhere);
    let events = report(&set);
    assert_eq!(events.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["b-m-p-s-p-i"]);
    let off = Value::Special(Special::OffEarth);
    let events = report(&flight().with(23, off.clone()).with(24, off));
    assert!(!events.iter().any(|event| event.kind == "b-m-p-s-p-i"));
    assert_eq!(report(&Set::new(&ST0601)), []);
}

#[test]
fn affiliation_callsign_and_height_are_as_they_are_known() {
    let hostile = Identity {
        affiliation: Affiliation::Hostile,
        platform: "A-C-F-q".into(),
        callsign: Some("Eye".into()),
        video: None,
        ..identity()
    };
    // only above mean sea level: brought to the ellipsoid
    let set = Set::new(&ST0601).with(13, real(41.0)).with(14, real(-104.0)).with(15, real(3000.0));
    let events = Reporter::new(hostile.clone()).report(&set, &Scene::read(&set, false), moment(0));
    assert_eq!(events[0].kind, "a-h-A-C-F-q");
    assert_eq!(events[0].part("contact").and_then(|c| c.attribute("callsign")), Some("Eye"));
    let hae = events[0].point.hae.expect("a height");
    assert!((hae - 2983.5).abs() < 2.0, "{hae}");
    assert_eq!(events[0].part("precisionlocation").and_then(|p| p.attribute("altsrc")), Some("EGM96"));
    // no height at all is not a height of nothing
    let set = Set::new(&ST0601).with(13, real(41.0)).with(14, real(-104.0));
    let events = Reporter::new(hostile).report(&set, &Scene::read(&set, false), moment(0));
    assert_eq!(events[0].point.hae, None);
    assert!(write(&events[0], false).contains(r#"hae="9999999""#));
}

#[test]
fn events_come_back_from_xml_and_from_protobuf() {
    for event in report(&flight()) {
        let xml = write(&event, true);
        assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<event "));
        assert!(xml.ends_with("</event>"));
        assert_eq!(parse(&xml), Ok(event.clone()));
        let message = CotEvent::from(&event);
        let mut back = message.event().expect("an event");
        let mut expected = event.clone();
        // typed parts stand behind the others
        back.detail.sort_by(|a, b| a.name.cmp(&b.name));
        expected.detail.sort_by(|a, b| a.name.cmp(&b.name));
        let movement = |element: &mut Element| {
            if element.name == "track" {
                element.attributes.sort();
                element
                    .attributes
                    .iter_mut()
                    .for_each(|(_, value)| *value = value.parse::<f64>().expect("a number").to_string());
            }
        };
        back.detail.iter_mut().chain(&mut expected.detail).for_each(movement);
        assert_eq!(back, expected);
    }
}

#[test]
fn what_a_typed_field_cannot_say_travels_as_xml() {
    let mut event = report(&flight()).remove(0);
    event.detail = vec![
        Element::new("contact").with("callsign", "a").with("phone", "1"),
        Element::new("track").with("course", "10"),
        Element::new("status").with("battery", "half"),
        Element::new("__group").with("name", "Cyan").with("role", "HQ"),
        Element::new("takv").with("os", "linux"),
        Element::new("remarks"),
    ];
    event.detail[5].text = "<b> & \"c\"".into();
    let message = CotEvent::from(&event);
    let detail = message.detail.as_ref().expect("a detail");
    assert!(detail.contact.is_none() && detail.track.is_none() && detail.status.is_none());
    assert_eq!(detail.group.as_ref().map(|group| group.role.as_str()), Some("HQ"));
    assert!(detail.xml.contains("phone=\"1\"") && detail.xml.contains("&lt;b&gt; &amp;"));
    let back = message.event().expect("an event");
    assert_eq!(back.part("remarks").map(|remarks| remarks.text.as_str()), Some("<b> & \"c\""));
    assert_eq!(back.part("contact").and_then(|c| c.attribute("phone")), Some("1"));
}

proptest! {
    #[test]
    fn whatever_a_string_holds_it_is_text(text in "\\PC*|[\\x00-\\x7f]*", name in "[\\x00-\\x20<>&'\"a-z]{0,40}") {
        let mut event = report(&flight()).remove(0);
        event.uid.clone_from(&name);
        event.detail = vec![Element::new("contact").with("callsign", &text)];
        let xml = write(&event, false);
        match parse(&xml) {
            Ok(back) => {
                let said = back.part("contact").and_then(|c| c.attribute("callsign")).expect("a callsign");
                let clean = event.detail[0].attribute("callsign").expect("a callsign");
                prop_assert_eq!(said, clean);
                prop_assert_eq!(back.detail.len(), 1);
            }
            Err(error) => prop_assert!(name.is_empty(), "{error}: {xml}"),
        }
    }

    #[test]
    fn any_scene_makes_events_within_the_schema(
        place in (-90.0..=90.0_f64, -180.0..=180.0_f64, -900.0..19_000.0_f64),
        angles in (0.0..=360.0_f64, -20.0..20.0_f64, -50.0..50.0_f64, 0.0..=360.0_f64, -180.0..=180.0_f64, 0.0..=360.0_f64),
        view in (0.0..=180.0_f64, 0.0..=180.0_f64),
        center in prop::option::of((-90.0..=90.0_f64, -180.0..=180.0_f64)),
    ) {
        let (heading, pitch, roll, azimuth, elevation, turned) = angles;
        let mut set = Set::new(&ST0601)
            .with(2, Value::Time(UTC * 1000))
            .with(5, real(heading)).with(6, real(pitch)).with(7, real(roll))
            .with(13, real(place.0)).with(14, real(place.1)).with(75, real(place.2))
            .with(16, real(view.0)).with(17, real(view.1))
            .with(18, real(azimuth)).with(19, real(elevation)).with(20, real(turned));
        if let Some((latitude, longitude)) = center {
            set = set.with(23, real(latitude)).with(24, real(longitude)).with(25, real(0.0));
        }
        let events = report(&set);
        prop_assert!(!events.is_empty());
        for event in events {
            check(&event);
            prop_assert!(parse(&write(&event, false)).is_ok());
        }
    }

    #[test]
    fn moments_come_back(milliseconds in 0..253_402_300_799_999_u64) {
        prop_assert_eq!(parse_stamp(&write_stamp(milliseconds)), Some(milliseconds));
    }

    #[test]
    fn bytes_of_a_peer_break_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1..50_usize) {
        for proto in [false, true] {
            let mut framer = Framer::default();
            if proto { framer.switch() }
            for chunk in bytes.chunks(cut) {
                if framer.push(chunk).is_err() { break }
                while let Ok(Some(_)) = framer.next() {}
            }
        }
        let _ = parse_datagram(&bytes);
    }
}

#[test]
fn moments_are_read_in_every_usual_form() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:34:56.5Z", 951_827_696_500),
        ("2000-02-29T12:34:56.123456Z", 951_827_696_123),
        ("2000-02-29T14:34:56+02:00", 951_827_696_000),
        ("2000-02-29T07:34:56.000-0500", 951_827_696_000),
        ("2000-02-29T12:34:56", 951_827_696_000),
    ] {
        assert_eq!(parse_stamp(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "now",
        "2000-13-01T00:00:00Z",
        "2000-01-01T25:00:00Z",
        "2000-01-01T00:00:00Zulu",
        "1969-12-31T00:00:00Z",
        "-1-1-1T1:1:1",
        "2000-01-01T00:00:99999999999Z",
        "2000-01-01T00:00:00+é",
    ] {
        assert_eq!(parse_stamp(text), None, "{text}");
    }
    assert_eq!(write_stamp(951_827_696_005), "2000-02-29T12:34:56.005Z");
}

#[test]
fn hostile_xml_is_refused() {
    let event = |inside: &str| {
        format!(
            r#"<event version="2.0" uid="u" type="t" how="m-g" time="2026-01-01T00:00:00Z" start="2026-01-01T00:00:00Z" stale="2026-01-01T00:00:00Z"><point lat="1" lon="2" hae="3" ce="4" le="5"/><detail>{inside}</detail></event>"#
        )
    };
    assert!(parse(&event("<remarks>&amp;&#65;</remarks>")).is_ok_and(|e| e.detail[0].text == "&A"));
    let bomb = format!("<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]>{}", event("&b;"));
    assert_eq!(parse(&bomb), Err(XmlError::DocumentType));
    assert!(matches!(parse(&event("<r>&b;</r>")), Err(XmlError::Malformed(_))));
    assert_eq!(parse(&event(&("<a>".repeat(100) + &"</a>".repeat(100)))), Err(XmlError::TooMuch));
    assert_eq!(parse(&event(&"<a/>".repeat(5000))), Err(XmlError::TooMuch));
    assert_eq!(parse(&" ".repeat(MESSAGE_MAX + 1)), Err(XmlError::TooMuch));
    assert!(matches!(parse(&event("<a></b>")), Err(XmlError::Malformed(_))));
    assert_eq!(parse("<html/>"), Err(XmlError::NoEvent));
    assert_eq!(parse(""), Err(XmlError::NoEvent));
    let nowhere = event("").replace("lat=\"1\"", "lat=\"NaN\"");
    assert_eq!(parse(&nowhere), Err(XmlError::Attribute { element: "point", attribute: "lat" }));
}

#[test]
fn a_uid_is_told_once_a_second_and_at_once_on_a_large_change() {
    let at = |latitude| Place::new(latitude, 10.0, 0.0).expect("a place");
    let due = |pace: &mut Pace, ms, latitude, azimuth| {
        pace.is_due(Duration::from_millis(ms), at(latitude), azimuth)
    };
    let mut pace = Pace::new(Duration::from_secs(1));
    assert!(due(&mut pace, 0, 0.0, Some(0.0)));
    assert!(!due(&mut pace, 500, 0.0001, Some(5.0)));
    assert!(due(&mut pace, 1000, 0.0001, Some(5.0)));
    // 111 m
    assert!(!due(&mut pace, 1150, 0.0011, Some(5.0)), "five times a second at most");
    assert!(due(&mut pace, 1200, 0.0011, Some(5.0)));
    assert!(due(&mut pace, 1400, 0.0011, Some(355.0)));
    assert!(!due(&mut pace, 1600, 0.0011, Some(350.0)));
    let mut count = 0;
    for ms in (2000..12_000).step_by(16) {
        count += usize::from(due(&mut pace, ms, f64::from(ms as u32) / 1000.0, None));
    }
    assert!((45..=50).contains(&count), "{count} in ten seconds of flying fast");
    let set = flight();
    let mut reporter = Reporter::new(identity());
    let told: usize = (0..300)
        .map(|frame| reporter.report(&set, &Scene::read(&set, false), moment(frame * 33)).len())
        .sum();
    assert_eq!(told, 30, "three uids, ten seconds at 30 packets a second");
}

#[test]
fn streams_are_cut_into_messages_wherever_they_are_split() {
    let events = report(&flight());
    let xml: Vec<u8> = events.iter().flat_map(|event| write(event, true).into_bytes()).collect();
    let proto: Vec<u8> = events
        .iter()
        .flat_map(|event| write_stream(&TakMessage { event: Some(event.into()), ..TakMessage::default() }))
        .collect();
    for (bytes, is_proto) in [(&xml, false), (&proto, true)] {
        for cut in [1, 7, 100, bytes.len()] {
            let mut framer = Framer::default();
            if is_proto {
                framer.switch();
            }
            let mut found = Vec::new();
            for chunk in bytes.chunks(cut) {
                framer.push(chunk).expect("room");
                while let Some(frame) = framer.next().expect("a message") {
                    found.push(match frame {
                        Frame::Xml(xml) => parse(&xml).expect("an event").uid,
                        Frame::Proto(message) => message.event.expect("an event").uid,
                    });
                }
            }
            assert_eq!(found, events.iter().map(|event| event.uid.clone()).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_stream_that_is_none_ends() {
    let mut framer = Framer::default();
    framer.push(&[b' '; MESSAGE_MAX + 1]).expect("room");
    assert_eq!(framer.next(), Err(FrameError::TooLong));
    let mut framer = Framer::default();
    framer.switch();
    framer.push(b"<event/>").expect("room");
    assert_eq!(framer.next(), Err(FrameError::Start(b'<')));
    let mut framer = Framer::default();
    framer.switch();
    framer.push(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0x0f]).expect("room");
    assert_eq!(framer.next(), Err(FrameError::TooLong));
    let mut framer = Framer::default();
    framer.push(&[0; 2 * MESSAGE_MAX]).expect("room");
    assert_eq!(framer.push(&[0]), Err(FrameError::TooLong));
}

#[test]
fn datagrams_of_the_mesh_are_told_apart() {
    let event = report(&flight()).remove(0);
    let message = TakMessage {
        event: Some((&event).into()),
        control: Some(TakControl { min_version: 1, max_version: 1, contact_uid: String::new() }),
        ..TakMessage::default()
    };
    let datagram = write_mesh(&message);
    assert_eq!(datagram[..3], [0xbf, 1, 0xbf]);
    assert_eq!(parse_datagram(&datagram), Ok(Frame::Proto(Box::new(message))));
    let xml = write(&event, false);
    assert_eq!(parse_datagram(xml.as_bytes()), Ok(Frame::Xml(xml)));
    assert_eq!(parse_datagram(&[0xbf, 2, 0xbf]), Err(FrameError::Version(2)));
    assert_eq!(parse_datagram(&[0xbf, 1, 0xbe]), Err(FrameError::Start(0xbe)));
    assert_eq!(parse_datagram(&[0xbf]), Err(FrameError::Malformed));
    assert_eq!(parse_datagram(&[0xbf, 1, 0xbf, 0xff, 0xff]), Err(FrameError::Malformed));
}

#[test]
fn a_mesh_speaks_what_all_of_it_understands() {
    let at = Duration::from_secs;
    let spoken = |uid: &str, version| TakMessage {
        control: Some(TakControl { min_version: 1, max_version: version, contact_uid: uid.into() }),
        ..TakMessage::default()
    };
    let mut mesh = Mesh::default();
    assert_eq!(mesh.version(at(0)), 0, "nobody is there to understand more");
    mesh.hear_message(&spoken("a", 1), at(0));
    mesh.hear_message(&spoken("b", 7), at(0));
    assert_eq!(mesh.version(at(1)), 1);
    mesh.hear_xml("c", at(10));
    assert_eq!(mesh.version(at(10)), 0);
    // who sent both is no old peer
    mesh.hear_xml("a", at(60));
    mesh.hear_message(&spoken("b", 1), at(60));
    assert_eq!(mesh.version(at(131)), 1, "c was not heard for two minutes");
    assert!(mesh.control("me", at(0)).is_some());
    assert_eq!(mesh.control("me", at(30)), None);
    assert_eq!(mesh.control("me", at(55)).map(|control| control.contact_uid), Some("me".into()));
    for peer in 0..5000 {
        mesh.hear_xml(&peer.to_string(), at(140));
    }
    assert_eq!(mesh.version(at(140)), 0);
}

/// What a TAK Server sends, as it is on the wire.
fn word(kind: &str, inside: &str) -> Event {
    parse(&format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<event version="2.0" uid="protouid" type="{kind}" time="2026-01-01T00:00:00Z" start="2026-01-01T00:00:00Z" stale="2026-01-01T00:01:00Z" how="m-g"><point lat="0.0" lon="0.0" hae="0.0" ce="999999" le="999999"/><detail><TakControl>{inside}</TakControl></detail></event>"#
    ))
    .expect("an event")
}

#[test]
fn protobuf_is_asked_for_where_it_is_offered() {
    let at = Duration::from_secs;
    let offer = word(
        "t-x-takp-v",
        r#"<TakProtocolSupport version="2"/><TakProtocolSupport version="1"/><TakServerVersionInfo serverVersion="5.2" apiVersion="3"/>"#,
    );
    let mut negotiation = Negotiation::default();
    assert!(negotiation.may_send() && !negotiation.is_proto());
    assert_eq!(negotiation.take(&report(&flight())[0], at(0), UTC, "me"), Step::None);
    let Step::Ask(request) = negotiation.take(&offer, at(1), UTC, "me") else { panic!("no request") };
    assert_eq!(request.kind, "t-x-takp-q");
    let xml = write(&request, true);
    assert!(xml.contains(r#"<detail><TakControl><TakRequest version="1"/></TakControl></detail>"#), "{xml}");
    assert!(!negotiation.may_send());
    assert_eq!(negotiation.deadline(), Some(at(61)));
    // others' events come in between; a second offer is none
    assert_eq!(negotiation.take(&report(&flight())[0], at(2), UTC, "me"), Step::None);
    assert_eq!(negotiation.take(&offer, at(2), UTC, "me"), Step::None);
    assert_eq!(negotiation.wait(at(60)), Step::None);
    let yes = word("t-x-takp-r", r#"<TakResponse status="true"/>"#);
    assert_eq!(negotiation.take(&yes, at(3), UTC, "me"), Step::Switch);
    assert!(negotiation.may_send() && negotiation.is_proto());
    assert_eq!(negotiation.wait(at(1000)), Step::None);
}

#[test]
fn a_server_that_says_no_or_nothing_is_not_waited_for() {
    let at = Duration::from_secs;
    let offer = word("t-x-takp-v", r#"<TakProtocolSupport version="1"/>"#);
    let mut negotiation = Negotiation::default();
    assert!(matches!(negotiation.take(&offer, at(0), UTC, "me"), Step::Ask(_)));
    let no = word("t-x-takp-r", r#"<TakResponse status="false"/>"#);
    assert_eq!(negotiation.take(&no, at(3), UTC, "me"), Step::Stay);
    assert!(negotiation.may_send() && !negotiation.is_proto());
    assert_eq!(negotiation.take(&offer, at(4), UTC, "me"), Step::None);
    let mut negotiation = Negotiation::default();
    assert!(matches!(negotiation.take(&offer, at(0), UTC, "me"), Step::Ask(_)));
    assert_eq!(negotiation.wait(at(60)), Step::Disconnect);
    // an offer of other versions, and an answer that was not asked for
    let mut negotiation = Negotiation::default();
    let other = word("t-x-takp-v", r#"<TakProtocolSupport version="2"/>"#);
    assert_eq!(negotiation.take(&other, at(0), UTC, "me"), Step::None);
    assert_eq!(
        negotiation.take(&word("t-x-takp-r", r#"<TakResponse status="true"/>"#), at(0), UTC, "me"),
        Step::None
    );
    assert!(!negotiation.is_proto());
}
