//! rml_rtmp as an independent peer, in memory: publishes to and plays from our server, and serves our client.

use bytes::Bytes;
use rml_rtmp::chunk_io::Packet;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
    ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
};
use rml_rtmp::time::RtmpTimestamp;

use super::*;
use crate::wire::rtmp::amf0::Value;

const CHUNK: u32 = 4096;

fn config(purpose: Purpose) -> ClientConfig {
    ClientConfig {
        purpose,
        application: "live".into(),
        tc_url: "rtmp://host/live".into(),
        stream: "cam?key=hunter2".into(),
        credentials: None,
        auth: None,
        chunk_size: CHUNK,
        digest: true,
        limits: Limits::default(),
    }
}

fn server() -> Server {
    Server::new(ServerConfig { chunk_size: CHUNK, limits: Limits::default() }, 0, [3; 16])
}

/// Media as an encoder sends them, across 2^24 milliseconds.
fn media(stream: u32) -> Vec<Message> {
    let message = |kind, timestamp, length: usize| Message {
        kind,
        timestamp,
        stream,
        payload: (0..length).map(|i| (i * 7) as u8).collect::<Vec<_>>().into(),
    };
    (0..40)
        .map(|i: u32| {
            let kind = if i.is_multiple_of(2) { kind::VIDEO } else { kind::AUDIO };
            message(kind, 0xFF_FF00 + i * 20, if i.is_multiple_of(10) { 50_000 } else { 300 })
        })
        .collect()
}

/// rml_rtmp's client behind its handshake.
struct RmlClient {
    handshake: Option<Handshake>,
    session: ClientSession,
    events: Vec<ClientSessionEvent>,
    out: Vec<u8>,
}

impl RmlClient {
    fn new() -> Self {
        let mut handshake = Handshake::new(PeerType::Client);
        let out = handshake.generate_outbound_p0_and_p1().unwrap();
        let (session, results) = ClientSession::new(ClientSessionConfig::new()).unwrap();
        let mut client = Self { handshake: Some(handshake), session, events: Vec::new(), out };
        client.take(results);
        client
    }

    fn take(&mut self, results: Vec<ClientSessionResult>) {
        for result in results {
            match result {
                ClientSessionResult::OutboundResponse(packet) => self.out.extend(packet.bytes),
                ClientSessionResult::RaisedEvent(event) => self.events.push(event),
                ClientSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes.to_vec();
        if let Some(handshake) = &mut self.handshake {
            match handshake.process_bytes(&rest).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    self.out.extend(response_bytes);
                    return;
                }
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    self.out.extend(response_bytes);
                    rest = remaining_bytes;
                    self.handshake = None;
                    let packet = self.session.request_connection("live".into()).unwrap();
                    self.take(vec![packet]);
                }
            }
        }
        let results = self.session.handle_input(&rest).unwrap();
        self.take(results);
    }

    fn saw(&self, wanted: fn(&ClientSessionEvent) -> bool) -> bool {
        self.events.iter().any(wanted)
    }
}

/// Carries bytes both ways until nobody has anything to say; answers our server's events.
fn settle(client: &mut RmlClient, server: &mut Server) -> Vec<ServerEvent> {
    let mut events = Vec::new();
    loop {
        let to_server = std::mem::take(&mut client.out);
        let mut input = to_server.as_slice();
        while let Some(event) = server.read(&mut input).unwrap() {
            if let ServerEvent::Request(_) = &event {
                server.accept().unwrap();
            }
            events.push(event);
        }
        let to_client = server.take_output();
        if !to_client.is_empty() {
            client.read(&to_client);
        }
        if to_client.is_empty() && client.out.is_empty() {
            return events;
        }
    }
}

#[test]
fn rml_rtmp_publishes_to_our_server() {
    let (mut client, mut server) = (RmlClient::new(), server());
    assert_eq!(settle(&mut client, &mut server), []);
    assert!(client.saw(|e| matches!(e, ClientSessionEvent::ConnectionRequestAccepted)));
    let request =
        client.session.request_publishing("cam?key=hunter2".into(), PublishRequestType::Live).unwrap();
    client.take(vec![request]);
    let events = settle(&mut client, &mut server);
    let [ServerEvent::Request(request)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(request.purpose, Purpose::Publish);
    assert_eq!((request.application.as_str(), request.stream.as_str()), ("live", "cam"));
    assert_eq!(request.query, "key=hunter2");
    assert!(!format!("{request:?}").contains("hunter2"));
    assert!(client.saw(|e| matches!(e, ClientSessionEvent::PublishRequestAccepted)));

    let mut want = Vec::new();
    for message in media(1) {
        let timestamp = RtmpTimestamp::new(message.timestamp);
        let data = message.payload.clone();
        let sent = match message.kind {
            kind::VIDEO => client.session.publish_video_data(data, timestamp, false).unwrap(),
            _ => client.session.publish_audio_data(data, timestamp, false).unwrap(),
        };
        client.take(vec![sent]);
        want.push(ServerEvent::Media(message));
    }
    let got = settle(&mut client, &mut server);
    assert!(got == want, "media differ");
    let stop = client.session.stop_publishing().unwrap();
    client.take(stop);
    assert_eq!(settle(&mut client, &mut server), [ServerEvent::Ended]);
}

#[test]
fn rml_rtmp_plays_from_our_server_what_was_chunked_once() {
    let (mut client, mut server) = (RmlClient::new(), server());
    settle(&mut client, &mut server);
    let request = client.session.request_playback("cam".into()).unwrap();
    client.take(vec![request]);
    let events = settle(&mut client, &mut server);
    assert!(
        matches!(events.as_slice(), [ServerEvent::Request(r)] if r.purpose == Purpose::Play),
        "{events:?}"
    );
    assert!(client.saw(|e| matches!(e, ClientSessionEvent::PlaybackRequestAccepted)));
    let sent = media(1);
    for message in &sent {
        client.read(&message.chunked(if message.kind == kind::VIDEO { 6 } else { 4 }, CHUNK));
    }
    let got: Vec<(u32, Bytes)> = client
        .events
        .drain(..)
        .filter_map(|event| match event {
            ClientSessionEvent::VideoDataReceived { timestamp, data }
            | ClientSessionEvent::AudioDataReceived { timestamp, data } => Some((timestamp.value, data)),
            _ => None,
        })
        .collect();
    let want: Vec<(u32, Bytes)> = sent.into_iter().map(|m| (m.timestamp, m.payload)).collect();
    assert!(got == want, "media differ");
}

/// rml_rtmp's server, which accepts everybody.
struct RmlServer {
    handshake: Option<Handshake>,
    session: Option<ServerSession>,
    events: Vec<ServerSessionEvent>,
    out: Vec<u8>,
}

impl RmlServer {
    fn new() -> Self {
        let handshake = Some(Handshake::new(PeerType::Server));
        Self { handshake, session: None, events: Vec::new(), out: Vec::new() }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes.to_vec();
        if let Some(handshake) = &mut self.handshake {
            match handshake.process_bytes(&rest).unwrap() {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    self.out.extend(response_bytes);
                    return;
                }
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    self.out.extend(response_bytes);
                    rest = remaining_bytes;
                    self.handshake = None;
                    let (session, results) = ServerSession::new(ServerSessionConfig::new()).unwrap();
                    self.session = Some(session);
                    self.take(results);
                }
            }
        }
        let results = self.session.as_mut().unwrap().handle_input(&rest).unwrap();
        self.take(results);
    }

    fn take(&mut self, results: Vec<ServerSessionResult>) {
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => self.out.extend(packet.bytes),
                ServerSessionResult::UnhandleableMessageReceived(_) => {}
                ServerSessionResult::RaisedEvent(event) => {
                    if let ServerSessionEvent::ConnectionRequested { request_id, .. }
                    | ServerSessionEvent::PublishStreamRequested { request_id, .. }
                    | ServerSessionEvent::PlayStreamRequested { request_id, .. } = &event
                    {
                        let id = *request_id;
                        let results = self.session.as_mut().unwrap().accept_request(id).unwrap();
                        self.take(results);
                    }
                    self.events.push(event);
                }
            }
        }
    }
}

fn settle_client(client: &mut Client, server: &mut RmlServer) -> Vec<ClientEvent> {
    let mut events = Vec::new();
    loop {
        let to_server = client.take_output();
        if !to_server.is_empty() {
            server.read(&to_server);
        }
        let to_client = std::mem::take(&mut server.out);
        let mut input = to_client.as_slice();
        while let Some(event) = client.read(&mut input).unwrap() {
            events.push(event);
        }
        if to_server.is_empty() && to_client.is_empty() {
            return events;
        }
    }
}

#[test]
fn our_client_publishes_to_rml_rtmp() {
    for digest in [true, false] {
        let mut client = Client::new(ClientConfig { digest, ..config(Purpose::Publish) }, 0, [9; 16]);
        let mut server = RmlServer::new();
        assert_eq!(settle_client(&mut client, &mut server), [ClientEvent::Publishing(1)]);
        assert!(server.events.iter().any(|e| matches!(
            e,
            ServerSessionEvent::PublishStreamRequested { app_name, stream_key, .. }
                if app_name == "live" && stream_key == "cam?key=hunter2"
        )));
        let metadata = vec![("width".to_owned(), Value::Number(1280.0))];
        let values = [Value::text("@setDataFrame"), Value::text("onMetaData"), Value::Object(metadata)];
        server.read(&data_message(1, 0, &values).chunked(4, CHUNK));
        let sent = media(1);
        for message in &sent {
            server.read(&message.chunked(if message.kind == kind::VIDEO { 6 } else { 4 }, CHUNK));
        }
        let got: Vec<(u32, Bytes)> = server
            .events
            .iter()
            .filter_map(|event| match event {
                ServerSessionEvent::VideoDataReceived { timestamp, data, .. }
                | ServerSessionEvent::AudioDataReceived { timestamp, data, .. } => {
                    Some((timestamp.value, data.clone()))
                }
                _ => None,
            })
            .collect();
        let want: Vec<(u32, Bytes)> = sent.into_iter().map(|m| (m.timestamp, m.payload)).collect();
        assert!(got == want, "media differ");
        assert!(server.events.iter().any(|e| matches!(
            e,
            ServerSessionEvent::StreamMetadataChanged { metadata, .. } if metadata.video_width == Some(1280)
        )));
        client.close();
        settle_client(&mut client, &mut server);
        assert!(server.events.iter().any(|e| matches!(e, ServerSessionEvent::PublishStreamFinished { .. })));
    }
}

#[test]
fn our_client_plays_from_rml_rtmp() {
    let mut client = Client::new(config(Purpose::Play), 0, [9; 16]);
    let mut server = RmlServer::new();
    let events = settle_client(&mut client, &mut server);
    assert!(events.contains(&ClientEvent::Playing(1)), "{events:?}");
    let sent = media(1);
    for message in &sent {
        let session = server.session.as_mut().unwrap();
        let timestamp = RtmpTimestamp::new(message.timestamp);
        let data = message.payload.clone();
        let Packet { bytes, .. } = match message.kind {
            kind::VIDEO => session.send_video_data(1, data, timestamp, false).unwrap(),
            _ => session.send_audio_data(1, data, timestamp, false).unwrap(),
        };
        server.out.extend(bytes);
    }
    let got = settle_client(&mut client, &mut server);
    let want: Vec<ClientEvent> = sent.into_iter().map(ClientEvent::Media).collect();
    assert!(got == want, "media differ");
}
