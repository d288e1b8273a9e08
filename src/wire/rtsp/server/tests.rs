//! The server session: requests of clients enter, answers and events are held against RFC 2326.

use super::*;
use crate::wire::rtsp::client::{self, Client, Dial, Role};
use crate::wire::rtsp::{Credentials, Format, Media};

const SECOND: u64 = 1_000_000_000;
const URL: &str = "rtsp://192.0.2.1:8554/live/cam";

/// A server, and what it says.
struct Bench {
    server: Server,
    now: u64,
    cseq: u32,
}

impl Bench {
    fn new() -> Self {
        let settings = Settings { nonces: Nonces::new([3; 32], "millrace"), name: "m".into(), basic: true };
        Self { server: Server::new(settings, &[192, 0, 2, 9], SECOND, [0xab; 16]), now: SECOND, cseq: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.server.push(bytes, self.now);
    }

    fn ask(&mut self, method: &str, uri: &str, headers: &str) {
        self.cseq += 1;
        let request = format!("{method} {uri} RTSP/1.0\r\nCSeq: {}\r\n{headers}\r\n", self.cseq);
        self.bytes(request.as_bytes());
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.server.next_event()).collect()
    }

    /// The one question.
    fn question(&mut self) -> Ask {
        let events = self.events();
        let [Event::Ask(ask)] = events.as_slice() else { panic!("expected a question: {events:?}") };
        ask.clone()
    }

    fn answers(&mut self) -> Vec<Response> {
        let mut out = Vec::new();
        self.server.take_output(&mut out);
        let mut decoder = Decoder::default();
        decoder.push(&out);
        let mut answers = Vec::new();
        while let Some(item) = decoder.decode().unwrap() {
            let Item::Response(response) = item else { panic!("{item:?}") };
            answers.push(response);
        }
        answers
    }

    /// The one answer.
    fn answer(&mut self) -> Response {
        let answers = self.answers();
        let [response] = answers.as_slice() else { panic!("expected one answer: {answers:?}") };
        response.clone()
    }

    /// Asks what needs no owner.
    fn status(&mut self, method: &str, uri: &str, headers: &str) -> u16 {
        self.ask(method, uri, headers);
        self.answer().status.0
    }

    fn set_up(&mut self, track: usize, transport: &str) -> Response {
        self.ask("SETUP", &format!("{URL}/trackID={track}"), &format!("Transport: {transport}\r\n"));
        let Action::SetUp { transports, track: asked, .. } = self.question().action else { panic!() };
        assert_eq!(asked, Some(track));
        self.server.set_up(&transports[0]);
        self.answer()
    }

    fn session(&self) -> String {
        format!("Session: {}\r\n", self.server.session())
    }

    fn play(&mut self) {
        self.set_up(0, "RTP/AVP/TCP;unicast;interleaved=0-1");
        self.ask("PLAY", URL, &self.session());
        assert_eq!(self.question().action, Action::Play);
        self.server.play(&[(0, 5, 6)]);
        self.answer();
    }

    fn announce(&mut self, body: &str) {
        self.cseq += 1;
        let head =
            format!("ANNOUNCE {URL} RTSP/1.0\r\nCSeq: {}\r\nContent-Type: application/sdp\r\n", self.cseq);
        self.bytes(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    }
}

fn description() -> Description {
    let media = |format, payload_type, clock_rate| Media {
        format,
        payload_type,
        clock_rate,
        control: None,
        group: None,
    };
    Description {
        control: None,
        media: vec![media(Format::Klv, 98, 90_000), media(Format::Mp2t, 33, 90_000)],
    }
}

#[test]
fn a_reader_goes_through_its_steps() {
    let mut bench = Bench::new();
    bench.ask("OPTIONS", "*", "");
    assert!(bench.answer().headers.first("Public").unwrap().contains("ANNOUNCE"));
    bench.ask("DESCRIBE", &format!("{URL}/?user=a"), "User-Agent: VLC\r\n");
    let ask = bench.question();
    assert_eq!(
        (ask.path.as_str(), ask.query.as_str(), ask.user_agent.as_str()),
        ("live/cam", "user=a", "VLC")
    );
    assert_eq!(ask.presented, Presented::Nobody);
    bench.server.describe(description(), "cam");
    let answer = bench.answer();
    assert_eq!(answer.headers.first("Content-Base"), Some(&*format!("{URL}/?user=a/")));
    let read = Description::parse(&answer.body).unwrap();
    assert_eq!(read.media[1].control.as_deref(), Some("trackID=1"));
    // with the query in the middle, as clients put it
    bench.ask(
        "SETUP",
        &format!("{URL}/?user=a/trackID=1"),
        "Transport: RTP/AVP;unicast;client_port=5000-5001\r\n",
    );
    let ask = bench.question();
    assert_eq!((ask.path.as_str(), ask.query.as_str()), ("live/cam", "user=a"));
    let Action::SetUp { track: Some(1), transports, publish: false } = ask.action else { panic!() };
    assert_eq!(transports[0].client_port, Some((5000, 5001)));
    bench.server.set_up(&Transport { server_port: Some((6, 7)), ssrc: Some(5), ..transports[0].clone() });
    let answer = bench.answer();
    let id = "ab".repeat(16);
    assert_eq!(answer.headers.first("Session"), Some(&*format!("{id};timeout=60")));
    assert!(answer.headers.first("Transport").unwrap().contains("server_port=6-7;ssrc=00000005"));
    bench.ask("PLAY", URL, &bench.session());
    assert_eq!(bench.question().action, Action::Play);
    bench.server.play(&[(1, 100, 900)]);
    let answer = bench.answer();
    assert_eq!(
        answer.headers.first("RTP-Info").unwrap(),
        &format!("url={URL}/?user=a/trackID=1;seq=100;rtptime=900")
    );
    assert_eq!(answer.headers.first("Range"), Some("npt=0-"));
    assert!(bench.server.is_playing());
    assert_eq!(bench.status("GET_PARAMETER", URL, &bench.session()), 200);
    assert_eq!(bench.status("PAUSE", URL, &bench.session()), 200);
    assert_eq!(bench.events(), [Event::Paused]);
    assert!(!bench.server.is_playing());
    assert_eq!(bench.status("TEARDOWN", URL, &bench.session()), 200);
    assert_eq!(bench.events(), [Event::TornDown]);
    // the connection is as new
    bench.ask("DESCRIBE", "rtsp://h/other", "");
    assert_eq!(bench.question().path, "other");
}

#[test]
fn a_publisher_goes_through_its_steps() {
    let mut bench = Bench::new();
    bench.announce(
        "v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n\
         m=video 0 RTP/AVP 33\r\na=control:rtsp://encoder/live/cam/mux\r\n",
    );
    let ask = bench.question();
    let Action::Announce(announced) = ask.action else { panic!() };
    assert_eq!((announced.media.len(), ask.path.as_str()), (2, "live/cam"));
    bench.server.accept();
    assert_eq!(bench.answer().status, Status::OK);
    for (uri, track) in [("rtsp://other:1/live/cam/streamid=0", 0), ("rtsp://encoder/live/cam/mux", 1)] {
        let transport =
            format!("Transport: RTP/AVP/TCP;interleaved={}-{};mode=record\r\n", 2 * track, 2 * track + 1);
        bench.ask("SETUP", uri, &transport);
        let Action::SetUp { track: Some(asked), transports, publish: true } = bench.question().action else {
            panic!()
        };
        assert_eq!(asked, track);
        bench.server.set_up(&transports[0]);
        assert!(bench.answer().headers.first("Transport").unwrap().ends_with(";mode=record"));
    }
    bench.ask("SETUP", &format!("{URL}/streamid=9"), "Transport: RTP/AVP/TCP\r\n");
    assert_eq!(bench.answer().status, Status::NOT_FOUND);
    assert_eq!(bench.status("PLAY", URL, ""), 455);
    bench.ask("RECORD", &format!("{URL}/"), &bench.session());
    assert_eq!(bench.question().action, Action::Record);
    bench.server.accept();
    assert_eq!(bench.answer().status, Status::OK);
    assert!(bench.server.is_recording());
    bench.bytes(b"$\x02\x00\x02hi$\x09\x00\x01x");
    assert_eq!(bench.events(), [Event::Data { channel: 2, bytes: Bytes::from_static(b"hi") }]);
    // GStreamer's rtspclientsink pauses before it leaves; RFC 2326 A.2 knows both while recording.
    assert_eq!(bench.status("PAUSE", URL, &bench.session()), 200);
    assert_eq!(bench.status("RECORD", URL, &bench.session()), 200);
    bench.bytes(b"$\x02\x00\x02ho");
    assert_eq!(bench.events(), [Event::Data { channel: 2, bytes: Bytes::from_static(b"ho") }]);
    assert_eq!(bench.status("PLAY", URL, &bench.session()), 455);
    assert_eq!(bench.status("TEARDOWN", URL, &bench.session()), 200);
}

#[test]
fn requests_out_of_place_are_refused_by_name() {
    let mut bench = Bench::new();
    assert_eq!(bench.status("PLAY", URL, ""), 455);
    assert_eq!(bench.status("RECORD", URL, ""), 455);
    assert_eq!(bench.status("PAUSE", URL, ""), 455);
    assert_eq!(bench.status("TEARDOWN", URL, ""), 455);
    assert_eq!(bench.status("PLAY", URL, "Session: foreign\r\n"), 454);
    assert_eq!(bench.status("DESCRIBE", URL, "Require: play.scale\r\n"), 551);
    assert_eq!(bench.status("FROBNICATE", URL, ""), 501);
    assert_eq!(bench.status("SETUP", URL, ""), 461);
    assert_eq!(bench.status("SETUP", URL, "Transport: RTP/SAVP;unicast\r\n"), 461);
    assert_eq!(bench.status("ANNOUNCE", URL, "Content-Type: text/plain\r\n"), 415);
    assert_eq!(bench.status("ANNOUNCE", URL, ""), 400);
    bench.play();
    assert_eq!(bench.status("SETUP", &format!("{URL}/trackID=1"), "Transport: RTP/AVP/TCP\r\n"), 455);
    assert_eq!(bench.status("ANNOUNCE", URL, ""), 455);
    // again is a keepalive
    assert_eq!(bench.status("PLAY", URL, &bench.session()), 200);
    assert!(bench.events().is_empty());
}

#[test]
fn one_session_is_for_one_path() {
    let mut bench = Bench::new();
    bench.set_up(0, "RTP/AVP/TCP;interleaved=0-1");
    assert_eq!(bench.status("SETUP", "rtsp://h/other/trackID=1", "Transport: RTP/AVP/TCP\r\n"), 455);
    assert_eq!(bench.status("DESCRIBE", "rtsp://h/other", ""), 455);
    bench.set_up(1, "RTP/AVP/TCP;interleaved=2-3");
    assert_eq!(bench.status("PLAY", &format!("{URL}/trackID=0"), &bench.session()), 459);
    assert_eq!(bench.server.channels().collect::<Vec<_>>(), [(0, (0, 1)), (1, (2, 3))]);
}

#[test]
fn paths_that_are_none_are_refused() {
    let mut bench = Bench::new();
    let long = format!("rtsp://h/{}", "a".repeat(513));
    for uri in [
        "*",
        "rtsp://h",
        "rtsp://h/",
        "http://h/a",
        "rtsp://h/a/../b",
        "rtsp://h/%00",
        "rtsp://h/%zz",
        "rtsp://h/a//b",
        &long,
    ] {
        assert_eq!(bench.status("DESCRIBE", uri, ""), 400, "{uri}");
    }
    for (uri, path) in [("rtsps://h/a%20b/", "a b"), ("/a/b", "a/b"), ("rtsp://h:1/ü", "ü")] {
        bench.ask("DESCRIBE", uri, "");
        assert_eq!(bench.question().path, path);
        bench.server.refuse(Status::NOT_FOUND, 0);
        assert_eq!(bench.answer().status, Status::NOT_FOUND);
    }
}

#[test]
fn credentials_are_asked_for_and_handed_on() {
    let mut bench = Bench::new();
    bench.ask("DESCRIBE", URL, "");
    assert_eq!(bench.question().presented, Presented::Nobody);
    bench.server.refuse(Status::UNAUTHORIZED, bench.now);
    let answer = bench.answer();
    let mut responder = crate::wire::rtsp::Responder::new(Credentials::new("ann", "pw"));
    responder.challenge(&answer.headers).unwrap();
    let value = responder.authorize("DESCRIBE", URL, [0; 16]).unwrap();
    bench.ask("DESCRIBE", URL, &format!("Authorization: {value}\r\n"));
    let presented = bench.question().presented;
    assert!(presented.proves("ann", "pw") && !presented.proves("ann", "other"));
    bench.server.describe(description(), "");
    assert_eq!(bench.answer().status, Status::OK);
    // too old: asked again, and told why
    bench.now += 400 * SECOND;
    bench.ask("DESCRIBE", URL, &format!("Authorization: {value}\r\n"));
    assert_eq!(bench.question().presented, Presented::Stale);
    bench.server.refuse(Status::UNAUTHORIZED, bench.now);
    assert!(bench.answer().headers.all("WWW-Authenticate").any(|value| value.contains("stale=true")));
}

#[test]
fn a_guesser_is_shown_the_door() {
    let mut bench = Bench::new();
    for _ in 0..UNAUTHORIZED_MOST {
        bench.ask("DESCRIBE", URL, "Authorization: Basic YTpi\r\n");
        bench.question();
        bench.server.refuse(Status::UNAUTHORIZED, bench.now);
    }
    assert_eq!(bench.events(), [Event::Closed(Close::Unauthorized)]);
    bench.answers();
    bench.ask("OPTIONS", URL, "");
    assert!(bench.answers().is_empty());
}

#[test]
fn silence_ends_what_it_should_and_nothing_else() {
    let mut bench = Bench::new();
    assert_eq!(bench.server.deadline(), 31 * SECOND);
    bench.server.tick(30 * SECOND);
    assert!(bench.events().is_empty());
    bench.server.tick(31 * SECOND);
    assert_eq!(bench.events(), [Event::Closed(Close::Silent(30))]);
    // a reader over TCP is held by its connection, one over UDP by its reports
    let mut bench = Bench::new();
    bench.play();
    assert_eq!(bench.server.deadline(), u64::MAX);
    let mut bench = Bench::new();
    bench.set_up(0, "RTP/AVP;client_port=5-6");
    bench.ask("PLAY", URL, "");
    bench.question();
    bench.server.play(&[]);
    bench.server.touch(50 * SECOND);
    bench.server.tick(139 * SECOND);
    assert!(bench.events().is_empty());
    bench.server.tick(140 * SECOND);
    assert_eq!(bench.events(), [Event::Closed(Close::Silent(90))]);
}

#[test]
fn requests_wait_for_the_owner_and_floods_do_not() {
    let mut bench = Bench::new();
    bench.ask("DESCRIBE", URL, "");
    bench.ask("OPTIONS", "*", "");
    bench.question();
    assert!(bench.answers().is_empty());
    bench.server.describe(description(), "");
    assert!(bench.server.is_backed_up());
    bench.server.read(bench.now);
    assert_eq!(bench.answers().len(), 2);
    // an answer that was not asked for changes nothing
    bench.server.describe(description(), "");
    bench.server.accept();
    bench.server.play(&[]);
    assert!(bench.answers().is_empty());
    bench.ask("DESCRIBE", URL, "");
    bench.question();
    bench.bytes(&b"OPTIONS * RTSP/1.0\r\n\r\n".repeat(20_000));
    assert_eq!(bench.events(), [Event::Closed(Close::Flood)]);
    let mut bench = Bench::new();
    bench.bytes(&b"OPTIONS * RTSP/1.0\r\n\r\n".repeat(5000));
    assert_eq!(bench.events(), [Event::Closed(Close::Flood)]);
}

#[test]
fn what_is_no_rtsp_is_closed() {
    let mut bench = Bench::new();
    bench.bytes(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(bench.events(), [Event::Closed(Close::Malformed)]);
    assert!(bench.answers().is_empty());
}

/// Our client and our server, joined.
fn join(role: Role) -> (Client, Bench) {
    let dial = Dial {
        url: URL.into(),
        credentials: Some(Credentials::new("ann", "pw")),
        user_agent: "t".into(),
        role,
    };
    let mut client = Client::new(dial, SECOND, [5; 16]);
    let mut bench = Bench::new();
    for _ in 0..20 {
        let mut bytes = Vec::new();
        client.take_output(&mut bytes);
        bench.bytes(&bytes);
        for event in bench.events() {
            let Event::Ask(ask) = event else { panic!("{event:?}") };
            if !ask.presented.proves("ann", "pw") {
                bench.server.refuse(Status::UNAUTHORIZED, SECOND);
                continue;
            }
            bench.server.recognise();
            match ask.action {
                Action::Describe => bench.server.describe(description(), "t"),
                Action::Announce(_) | Action::Record => bench.server.accept(),
                Action::SetUp { transports, .. } => bench.server.set_up(&transports[0]),
                Action::Play => bench.server.play(&[(0, 1, 2), (1, 3, 4)]),
            }
        }
        bytes.clear();
        bench.server.take_output(&mut bytes);
        client.push(&bytes, SECOND);
        while let Some(event) = client.next_event() {
            match event {
                client::Event::Described(_) | client::Event::Announced => {
                    let tcp = |i: usize| {
                        let channel = 2 * i as u8;
                        (i, Transport { interleaved: Some((channel, channel + 1)), ..Transport::default() })
                    };
                    client.set_up((0..2).map(tcp), SECOND);
                }
                client::Event::SetUp { .. } | client::Event::Started(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    (client, bench)
}

#[test]
fn our_client_and_our_server_understand_each_other() {
    let (client, mut bench) = join(Role::Pull);
    assert!(client.is_started() && bench.server.is_playing());
    let mut announced = description();
    for (i, media) in announced.media.iter_mut().enumerate() {
        media.control = Some(format!("trackID={i}"));
    }
    let (mut client, server) = join(Role::Push(announced));
    bench = server;
    assert!(client.is_started() && bench.server.is_recording());
    client.close(SECOND);
    let mut bytes = Vec::new();
    client.take_output(&mut bytes);
    bench.bytes(&bytes);
    assert_eq!(bench.events(), [Event::TornDown]);
}
