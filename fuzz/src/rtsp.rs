//! RTSP: messages, headers, descriptions, credentials, and both ends of a session.

use millrace::wire::rtsp::client::{self, Client, Dial, Role};
use millrace::wire::rtsp::server::{self, Action, Server, Settings};
use millrace::wire::rtsp::{
    Credentials, Decoder, Description, Format, Headers, Item, Lower, Nonces, Presented, Responder, RtpInfo,
    Session, Status, Transport, resolve,
};

/// Any bytes of a connection in two pieces: what is read is written and read as it was, and nothing is held beyond a
/// head, a body and an interleaved packet.
pub fn messages(data: &[u8]) {
    let [cut, rest @ ..] = data else { return };
    let mut decoder = Decoder::default();
    decoder.open_channel(0);
    let (first, second) = rest.split_at(rest.len().min((*cut).into()));
    for piece in [first, second] {
        decoder.push(piece);
        loop {
            let mut out = Vec::new();
            let item = match decoder.decode() {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(item)) => item,
            };
            match &item {
                Item::Request(request) => request.write(&mut out),
                Item::Response(response) => response.write(&mut out),
                Item::Data { channel, .. } => {
                    assert_eq!(*channel, 0);
                    continue;
                }
            }
            let mut again = Decoder::default();
            again.push(&out);
            // A header may have become too long by what stood in for bytes that are no UTF-8.
            if let Ok(again) = again.decode() {
                let again = again.expect("a whole message");
                match (&item, &again) {
                    (Item::Request(a), Item::Request(b)) => assert_eq!((&a.uri, &a.body), (&b.uri, &b.body)),
                    (Item::Response(a), Item::Response(b)) => {
                        assert_eq!((a.status, &a.body), (b.status, &b.body))
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

/// Any text as the value of each header.
pub fn headers(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for transport in Transport::parse_all(&text) {
        assert_eq!(Transport::parse_all(&transport.write()), [transport]);
    }
    let _ = Session::parse(&text);
    assert!(RtpInfo::parse_all(&text).len() <= 32);
    let nonces = Nonces::new([1; 32], "realm");
    let presented = nonces.read(Some(&text), "PLAY", "rtsp://h/a", b"peer", 0);
    assert!(!presented.proves("user", "a password that nobody guesses"));
    assert!(!matches!(presented, Presented::Nobody));
    let mut challenge = Headers::default();
    challenge.push("WWW-Authenticate", text.as_ref());
    let mut responder = Responder::new(Credentials::new("u", "p"));
    if responder.challenge(&challenge).is_ok() {
        let _ = responder.authorize("PLAY", "rtsp://h/a", [0; 16]);
    }
}

/// Any bytes as a description: what is read is written and read as it was, but for what is not read at all.
pub fn description(data: &[u8]) {
    let Ok(description) = Description::parse(data) else { return };
    for media in &description.media {
        let _ = resolve("rtsp://h/a?b=c", media.control.as_deref());
    }
    let text = description.write("name");
    let again = Description::parse(text.as_bytes()).expect("a description of our own");
    assert_eq!(again.media.len(), description.media.len());
    for (before, after) in description.media.iter().zip(&again.media) {
        assert!(matches!(before.format, Format::Other(_)) || before.format.name() == after.format.name());
    }
}

/// Any bytes as what a server sends, from the handshake on (`data[0]` chooses how far it went).
pub fn client(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    let role = if choice & 1 == 0 {
        Role::Pull
    } else {
        Role::Push(Description::parse(SDP.as_bytes()).expect("a description"))
    };
    let dial = Dial {
        url: "rtsp://192.0.2.1/a".into(),
        credentials: Some(Credentials::new("u", "p")),
        user_agent: "f".into(),
        role,
    };
    let mut client = Client::new(dial, 0, [1; 16]);
    let mut now = 0;
    for _ in 0..choice >> 1 & 7 {
        let body = if choice & 1 == 0 { SDP } else { "" };
        let head = "RTSP/1.0 200 OK\r\nSession: 1;timeout=2\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        feed_client(&mut client, answer.as_bytes(), now);
    }
    for piece in rest.split(|byte| *byte == 0xff) {
        now += 500_000_000;
        feed_client(&mut client, piece, now);
        client.tick(now);
    }
    client.close(now);
    let mut out = Vec::new();
    client.take_output(&mut out);
    assert!(out.len() < 1 << 20);
}

fn feed_client(client: &mut Client, bytes: &[u8], now: u64) {
    client.push(bytes, now);
    loop {
        while let Some(event) = client.next_event() {
            if let client::Event::Described(_) | client::Event::Announced = event {
                let udp = Transport { lower: Lower::Udp, client_port: Some((1, 2)), ..Transport::default() };
                let tcp = Transport { interleaved: Some((0, 1)), ..Transport::default() };
                client.set_up([(0, tcp), (1, udp), (99, Transport::default())], now);
            }
        }
        if !client.is_backed_up() {
            break;
        }
        let before = client.buffer().len();
        client.read(now);
        if client.buffer().len() == before {
            break;
        }
    }
}

/// Any bytes as what a client sends; the owner answers as `data[0]` chooses. Whoever proves nothing plays nothing.
pub fn server(data: &[u8]) {
    let [choice, rest @ ..] = data else { return };
    let settings = Settings { nonces: Nonces::new([2; 32], "r"), name: "f".into(), basic: choice & 1 == 0 };
    let mut server = Server::new(settings, &[192, 0, 2, 1], 0, [3; 16]);
    let locked = choice & 2 != 0;
    let mut now = 0;
    let mut sent = Vec::new();
    for piece in rest.split(|byte| *byte == 0xff) {
        now += 500_000_000;
        server.push(piece, now);
        for _ in 0..64 {
            while let Some(event) = server.next_event() {
                let server::Event::Ask(ask) = event else { continue };
                assert!(!ask.path.is_empty() && !ask.path.contains(".."));
                if locked {
                    assert!(!ask.presented.proves("user", "a password that nobody guesses"));
                    server.refuse(Status::UNAUTHORIZED, now);
                    continue;
                }
                match ask.action {
                    Action::Describe => {
                        server.describe(Description::parse(SDP.as_bytes()).expect("a description"), "n");
                    }
                    Action::Announce(_) | Action::Record => server.accept(),
                    Action::SetUp { transports, .. } => server.set_up(&transports[0]),
                    Action::Play => server.play(&[(0, 1, 2)]),
                }
            }
            if !server.is_backed_up() {
                break;
            }
            server.read(now);
        }
        server.tick(now);
        server.take_output(&mut sent);
        assert!(sent.len() <= 2 << 20);
        sent.clear();
    }
    assert!(!locked || !server.is_playing() && !server.is_recording());
}

/// Requests to damage, each a whole session.
pub fn sessions() -> [Vec<u8>; 2] {
    let request = |method: &str, rest: &str| format!("{method} rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n{rest}\r\n");
    let announce = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
    let transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n";
    let read =
        [request("OPTIONS", ""), request("DESCRIBE", ""), request("SETUP", transport), request("PLAY", "")];
    let push = [
        request("ANNOUNCE", &announce).trim_end().to_owned() + "\r\n",
        request("SETUP", transport).replace("rtsp://h/a", "rtsp://h/a/trackID=0"),
        request("RECORD", ""),
        "$\0\0\x04abcd".into(),
        request("TEARDOWN", ""),
    ];
    [read.concat().into_bytes(), push.concat().into_bytes()]
}

/// A description with a track of each kind.
pub const SDP: &str = "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nc=IN IP4 239.0.0.1/4\r\na=control:*\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAKeKQFAe2AtwEBAaQeJEV,aM48gA==\r\na=control:trackID=0\r\n\
    m=audio 0 RTP/AVP 97\r\na=rtpmap:97 mpeg4-generic/48000/2\r\n\
    a=fmtp:97 mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190\r\na=control:trackID=1\r\n\
    m=application 0 RTP/AVP 98\r\na=rtpmap:98 SMPTE336M/90000\r\na=control:trackID=2\r\n";
