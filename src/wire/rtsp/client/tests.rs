//! The client session: answers of servers enter, requests and events are held against RFC 2326.

use super::*;

const URL: &str = "rtsp://192.0.2.1/live";
const SECOND: u64 = 1_000_000_000;

const TWO: &str = "v=0\r\ns=-\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=control:trackID=0\r\nm=audio 0 RTP/AVP 0\r\na=control:trackID=1\r\n";

/// A client and what it says.
struct Bench {
    client: Client,
    now: u64,
}

impl Bench {
    fn new(role: Role) -> Self {
        let dial = Dial {
            url: URL.into(),
            credentials: Some(Credentials::new("ann", "pw")),
            user_agent: "test/1".into(),
            role,
        };
        Self { client: Client::new(dial, 0, [7; 16]), now: 0 }
    }

    fn pull() -> Self {
        Self::new(Role::Pull)
    }

    fn push() -> Self {
        Self::new(Role::Push(Description::parse(TWO.as_bytes()).unwrap()))
    }

    /// What it sent, all of it.
    fn sent(&mut self) -> Vec<Item> {
        let mut out = Vec::new();
        self.client.take_output(&mut out);
        let mut decoder = Decoder::default();
        decoder.push(&out);
        std::iter::from_fn(|| decoder.decode().unwrap()).collect()
    }

    /// The one request that it sent.
    fn asked(&mut self) -> Request {
        let sent = self.sent();
        let [Item::Request(request)] = sent.as_slice() else { panic!("expected one request: {sent:?}") };
        request.clone()
    }

    /// Expects a request, answers it, and returns it.
    fn answer(&mut self, method: &str, status: u16, headers: &str, body: &str) -> Request {
        let request = self.asked();
        assert_eq!(request.method, method);
        let cseq = request.headers.first("CSeq").unwrap();
        let head = format!("RTSP/1.0 {status} Words\r\nCSeq: {cseq}\r\n{headers}");
        self.bytes(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
        request
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.client.push(bytes, self.now);
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.client.next_event()).collect()
    }

    fn set_up(&mut self, transports: &[Transport]) {
        self.client.set_up(transports.iter().cloned().enumerate(), self.now);
    }

    /// Through to PLAY, with two tracks over TCP.
    fn play(&mut self, session: &str) {
        self.answer("OPTIONS", 200, "Public: DESCRIBE, GET_PARAMETER\r\n", "");
        self.answer(
            "DESCRIBE",
            200,
            "Content-Type: application/sdp\r\nContent-Base: rtsp://192.0.2.1/live/\r\n",
            TWO,
        );
        self.set_up(&[tcp(0), tcp(2)]);
        for channels in ["0-1", "2-3"] {
            let transport = format!("Transport: RTP/AVP/TCP;unicast;interleaved={channels}\r\n");
            self.answer("SETUP", 200, &format!("{transport}Session: {session}\r\n"), "");
        }
        self.answer("PLAY", 200, "RTP-Info: url=rtsp://192.0.2.1/live/trackID=0;seq=5;rtptime=6\r\n", "");
        assert!(self.client.is_started());
    }
}

fn tcp(channel: u8) -> Transport {
    Transport { interleaved: Some((channel, channel + 1)), ..Transport::default() }
}

fn udp(port: u16) -> Transport {
    Transport { lower: Lower::Udp, client_port: Some((port, port + 1)), ..Transport::default() }
}

fn kinds(events: &[Event]) -> Vec<&'static str> {
    let kind = |event: &Event| match event {
        Event::Described(_) => "described",
        Event::Announced => "announced",
        Event::SetUp { .. } => "set up",
        Event::TransportRefused { .. } => "transport refused",
        Event::Started(_) => "started",
        Event::Data { .. } => "data",
        Event::Redirected(_) => "redirected",
        Event::Failed(_) => "failed",
    };
    events.iter().map(kind).collect()
}

#[test]
fn a_pull_goes_through_its_steps() {
    let mut bench = Bench::pull();
    bench.answer("OPTIONS", 200, "Public: DESCRIBE\r\n", "");
    let describe = bench.answer("DESCRIBE", 200, "Content-Base: rtsp://192.0.2.1/live/\r\n", TWO);
    assert_eq!((describe.uri.as_str(), describe.headers.first("Accept")), (URL, Some(SDP)));
    let Event::Described(description) = &bench.events()[0] else { panic!() };
    assert_eq!(description.media.len(), 2);
    bench.set_up(&[udp(5000), udp(5002)]);
    let setup = bench.answer(
        "SETUP",
        200,
        "Transport: RTP/AVP;unicast;client_port=5000-5001;server_port=7000-7001\r\nSession: 12;timeout=30\r\n",
        "",
    );
    assert_eq!(setup.uri, "rtsp://192.0.2.1/live/trackID=0");
    assert_eq!(setup.headers.first("Transport"), Some("RTP/AVP;unicast;client_port=5000-5001"));
    assert_eq!(setup.headers.first("Session"), None);
    let setup = bench.answer(
        "SETUP",
        200,
        "Transport: RTP/AVP;server_port=7002-7003\r\nSession: 12;timeout=30\r\n",
        "",
    );
    assert_eq!(
        (setup.headers.first("Session"), setup.uri.as_str()),
        (Some("12"), "rtsp://192.0.2.1/live/trackID=1")
    );
    let play = bench.answer("PLAY", 200, "Session: 12\r\n", "");
    assert_eq!(
        (play.uri.as_str(), play.headers.first("Range")),
        ("rtsp://192.0.2.1/live/", Some("npt=0.000-"))
    );
    let events = bench.events();
    assert_eq!(kinds(&events), ["set up", "set up", "started"]);
    let Event::SetUp { track: 0, transport } = &events[0] else { panic!() };
    assert_eq!(transport.server_port, Some((7000, 7001)));
    // PLAY's answer names the session without its timeout: 30 s are still known
    assert_eq!(bench.client.deadline(), 15 * SECOND);
}

#[test]
fn a_push_announces_and_records() {
    let mut bench = Bench::push();
    bench.answer("OPTIONS", 200, "", "");
    let announce = bench.answer("ANNOUNCE", 200, "", "");
    assert_eq!(announce.headers.first("Content-Type"), Some(SDP));
    assert!(announce.body.starts_with(b"v=0\r\n"));
    assert_eq!(bench.events(), [Event::Announced]);
    bench.set_up(&[tcp(0), tcp(2)]);
    let setup = bench.answer("SETUP", 200, "Transport: RTP/AVP/TCP;interleaved=0-1\r\nSession: 1\r\n", "");
    assert_eq!(setup.headers.first("Transport"), Some("RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"));
    bench.answer("SETUP", 200, "Session: 1\r\n", "");
    let record = bench.answer("RECORD", 200, "", "");
    assert_eq!(record.uri, URL);
    let events = bench.events();
    assert_eq!(kinds(&events), ["set up", "set up", "started"]);
    // no Transport in the answer: what was asked for
    assert_eq!(events[1], Event::SetUp { track: 1, transport: Transport { record: true, ..tcp(2) } });
    bench.client.close(0);
    assert_eq!(bench.asked().method, "TEARDOWN");
}

#[test]
fn answers_without_cseq_are_taken() {
    let mut bench = Bench::push();
    for (method, rest) in [("OPTIONS", ""), ("ANNOUNCE", "")] {
        assert_eq!(bench.asked().method, method);
        bench.bytes(format!("RTSP/1.0 200 OK\r\n{rest}\r\n").as_bytes());
    }
    assert_eq!(bench.events(), [Event::Announced]);
    // an answer to something else is passed over
    bench.bytes(b"RTSP/1.0 404 No\r\nCSeq: 77\r\n\r\n");
    assert_eq!(bench.events(), []);
}

#[test]
fn a_keepalive_goes_out_at_half_the_timeout_and_finds_what_the_server_knows() {
    let mut bench = Bench::pull();
    bench.play("abc ; timeout = 8;x=y");
    assert_eq!(bench.client.deadline(), 4 * SECOND);
    bench.client.tick(3 * SECOND);
    assert!(bench.sent().is_empty());
    bench.now = 4 * SECOND;
    bench.client.tick(bench.now);
    let alive = bench.answer("GET_PARAMETER", 501, "", "");
    assert_eq!(alive.headers.first("Session"), Some("abc"));
    bench.now = 8 * SECOND;
    bench.client.tick(bench.now);
    bench.answer("OPTIONS", 200, "", "");
    // silence in both directions ends it
    for beat in 3..7 {
        bench.client.tick(beat * 4 * SECOND);
    }
    assert_eq!(bench.events().last(), Some(&Event::Failed(Failure::Timeout("keepalive"))));
}

#[test]
fn a_keepalive_without_an_answer_is_forgiven_while_packets_come() {
    let mut bench = Bench::pull();
    bench.play("abc;timeout=8");
    bench.events();
    for beat in 1..20 {
        bench.now = beat * 4 * SECOND;
        bench.bytes(&[b'$', 0, 0, 1, 9]);
        bench.client.tick(bench.now);
    }
    assert!(bench.events().iter().all(|event| matches!(event, Event::Data { channel: 0, .. })));
    assert_eq!(bench.sent().len(), 19);
}

#[test]
fn requests_of_the_server_are_answered_at_once() {
    let mut bench = Bench::pull();
    bench.play("abc");
    bench.events();
    bench.bytes(b"$\x00\x00\x01aOPTIONS rtsp://192.0.2.1/x RTSP/1.0\r\nCSeq: 7\r\n\r\n$\x02\x00\x01b");
    let sent = bench.sent();
    let [Item::Response(answer)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!((answer.status, answer.headers.first("CSeq")), (Status::OK, Some("7")));
    assert_eq!(kinds(&bench.events()), ["data", "data"]);
    bench.bytes(b"ANNOUNCE * RTSP/1.0\r\nCSeq: 8\r\n\r\nTEARDOWN * RTSP/1.0\r\nCSeq: 9\r\n\r\n");
    let statuses: Vec<_> = bench
        .sent()
        .into_iter()
        .map(|item| if let Item::Response(response) = item { response.status.0 } else { 0 })
        .collect();
    assert_eq!(statuses, [501, 200]);
    assert_eq!(bench.events(), [Event::Failed(Failure::Ended)]);
}

#[test]
fn a_server_that_asks_without_reading_is_left() {
    let mut bench = Bench::pull();
    bench.play("abc");
    bench.events();
    bench.bytes(&b"OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\n".repeat(3000));
    assert_eq!(bench.events(), [Event::Failed(Failure::Flood)]);
    assert!(bench.client.out.len() < 2 * OUT_MOST);
}

#[test]
fn a_challenge_is_answered_and_a_stale_nonce_in_mid_session_too() {
    let mut bench = Bench::pull();
    bench.answer("OPTIONS", 401, "WWW-Authenticate: Digest realm=\"r\", nonce=\"n1\"\r\n", "");
    let again = bench.answer("OPTIONS", 200, "Public: GET_PARAMETER\r\n", "");
    assert!(again.headers.first("Authorization").unwrap().contains("nonce=\"n1\""));
    bench.answer("DESCRIBE", 200, "", TWO);
    bench.events();
    bench.set_up(&[tcp(0)]);
    bench.answer("SETUP", 200, "Session: 1;timeout=4\r\n", "");
    bench.answer("PLAY", 200, "", "");
    for (beat, nonce) in [(1, "n2"), (2, "n3"), (3, "n4")] {
        bench.client.tick(beat * 2 * SECOND);
        let challenge = format!("WWW-Authenticate: Digest realm=\"r\", nonce=\"{nonce}\", stale=true\r\n");
        bench.answer("GET_PARAMETER", 401, &challenge, "");
        let again = bench.answer("GET_PARAMETER", 200, "", "");
        assert!(again.headers.first("Authorization").unwrap().contains(nonce));
    }
    assert_eq!(kinds(&bench.events()), ["set up", "started"]);
}

#[test]
fn wrong_credentials_fail_and_so_do_none() {
    let challenge = "WWW-Authenticate: Basic realm=\"r\"\r\n";
    let mut bench = Bench::pull();
    bench.answer("OPTIONS", 401, challenge, "");
    bench.answer("OPTIONS", 401, challenge, "");
    assert_eq!(bench.events(), [Event::Failed(Failure::Unauthorized(Unanswerable::Refused))]);
    let mut bench = Bench::pull();
    bench.client.responder = None;
    bench.answer("OPTIONS", 401, challenge, "");
    assert_eq!(bench.events(), [Event::Failed(Failure::NoCredentials)]);
}

#[test]
fn a_refused_transport_may_be_followed_by_another() {
    let mut bench = Bench::pull();
    bench.answer("OPTIONS", 200, "", "");
    bench.answer("DESCRIBE", 200, "Content-Type: application/sdp; charset=utf-8\r\n", TWO);
    bench.events();
    bench.set_up(&[udp(5000), udp(5002)]);
    bench.answer("SETUP", 461, "", "");
    assert_eq!(bench.events(), [Event::TransportRefused { track: 0 }]);
    bench.set_up(&[tcp(0)]);
    bench.answer("SETUP", 200, "Transport: RTP/AVP/TCP;interleaved=0-1\r\nSession: 1\r\n", "");
    bench.answer("PLAY", 200, "", "");
    assert_eq!(kinds(&bench.events()), ["set up", "started"]);
}

#[test]
fn answers_that_lack_something_fail_by_name() {
    let failure = |method: &str, status: u16, headers: &str, body: &str| {
        let mut bench = Bench::pull();
        bench.answer("OPTIONS", 200, "", "");
        if method == "SETUP" {
            bench.answer("DESCRIBE", 200, "", TWO);
            bench.events();
            bench.set_up(&[udp(5000)]);
        }
        bench.answer(method, status, headers, body);
        let Some(Event::Failed(failure)) = bench.events().pop() else { panic!("no failure") };
        failure.to_string()
    };
    assert_eq!(failure("DESCRIBE", 404, "", ""), "DESCRIBE was answered with 404 Words");
    assert_eq!(
        failure("DESCRIBE", 200, "Content-Type: text/html\r\n", "<p>"),
        "DESCRIBE was answered with \"text/html\", expected application/sdp"
    );
    assert_eq!(
        failure("SETUP", 200, "Transport: RTP/AVP\r\n", ""),
        "SETUP was answered without a usable Session header"
    );
    assert_eq!(
        failure("SETUP", 200, "Session: 1\r\n", ""),
        "SETUP was answered without a usable Transport header"
    );
    let mut bench = Bench::pull();
    bench.client.tick(11 * SECOND);
    assert_eq!(bench.events(), [Event::Failed(Failure::Timeout("OPTIONS"))]);
    assert_eq!(bench.client.deadline(), u64::MAX);
}

#[test]
fn a_redirect_is_named_not_followed() {
    let mut bench = Bench::pull();
    bench.answer("OPTIONS", 200, "", "");
    bench.answer("DESCRIBE", 302, "Location: rtsp://192.0.2.2/b\r\n", "");
    assert_eq!(bench.events(), [Event::Redirected("rtsp://192.0.2.2/b".into())]);
}

#[test]
fn many_packets_at_once_are_taken_in_turns() {
    let mut bench = Bench::pull();
    bench.play("1");
    bench.events();
    bench.bytes(&[b'$', 0, 0, 1, 9].repeat(3 * EVENTS_MOST));
    let mut seen = 0;
    loop {
        seen += bench.events().len();
        if !bench.client.is_backed_up() {
            break;
        }
        bench.client.read(0);
    }
    assert_eq!(seen, 3 * EVENTS_MOST);
}
