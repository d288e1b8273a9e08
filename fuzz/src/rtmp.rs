//! RTMP and what it carries.

use millrace::media::Frame;
use millrace::mux::flv::{FlvConfig, FlvDemux, FlvMux};
use millrace::wire::flv::{read_audio, read_metadata, read_video};
use millrace::wire::rtmp::amf0::{Value, read_values, write_values};
use millrace::wire::rtmp::{
    ANSWERS_MOST, Client, ClientConfig, ClientEvent, Command, Control, Credentials, Limits, Message, Purpose,
    Reader, Server, ServerConfig, ServerEvent, Turned, data_message, kind,
};

/// Chunks of any bytes: what is held stays within its bounds, and the size of pieces changes nothing.
pub fn chunks(data: &[u8]) {
    let [piece, rest @ ..] = data else { return };
    let limits = Limits { media: 4096, data: 2048, other: 1024, held: 8192, streams: 5 };
    let whole = read_all(rest, rest.len().max(1), limits);
    let pieces = read_all(rest, usize::from(*piece) + 1, limits);
    assert_eq!(whole, pieces);
    for message in &whole.0 {
        let most = match message.kind {
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE => limits.media,
            kind::DATA | kind::DATA_AMF3 => limits.data,
            _ => limits.other,
        };
        assert!(message.payload.len() <= most);
    }
}

/// AMF0 of any bytes: what can be read can be written and read again.
pub fn amf0(data: &[u8]) {
    let (values, _) = read_values(data);
    let bytes = write_values(&values);
    let (again, why) = read_values(&bytes);
    assert_eq!(why, None);
    assert_eq!(write_values(&again), bytes);
    drop(read_metadata(&values));
}

/// A client of any bytes: a server holds no more than it may, and answers no more than it was asked.
pub fn server(data: &[u8]) {
    let [flags, piece, rest @ ..] = data else { return };
    let mut server = Server::new(ServerConfig { chunk_size: 4096, limits: limits() }, 0, [7; 16]);
    let mut asked = 0;
    let (mut fed, mut answered) = (0, 0);
    let greeting = if flags & 1 == 0 { greeting() } else { Vec::new() };
    for part in greeting.chunks(4096).chain(rest.chunks(usize::from(*piece) + 1)) {
        let mut input = part;
        fed += part.len();
        loop {
            match server.read(&mut input) {
                Ok(Some(ServerEvent::Request(request))) => {
                    asked += 1;
                    drop(format!("{request:?}"));
                    if flags & 2 == 0 {
                        assert!(!matches!(server.accept(), Ok(None)), "who asks is not accepted");
                    } else {
                        drop(server.turn_away(Turned::Denied, "no"));
                    }
                }
                Ok(Some(ServerEvent::Media(message))) => assert!(asked > 0 && !message.payload.is_empty()),
                Ok(Some(ServerEvent::Ended)) => assert!(asked > 0),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(input.is_empty());
        let output = server.take_output().len();
        assert!(output < ANSWERS_MOST + 4096);
        answered += output;
        // A short command has an answer with a description; connect has a long one, once.
        assert!(answered < 3073 + 2048 + 16 * fed);
    }
}

/// A server of any bytes, to a publisher and to a player.
pub fn client(data: &[u8]) {
    let [flags, piece, rest @ ..] = data else { return };
    let config = ClientConfig {
        purpose: if flags & 1 == 0 { Purpose::Publish } else { Purpose::Play },
        application: "live".into(),
        tc_url: "rtmp://host/live".into(),
        stream: "cam?key=hunter2".into(),
        credentials: (flags & 2 == 0)
            .then(|| Credentials { user: "joe".into(), password: "correct horse".into() }),
        auth: None,
        chunk_size: 4096,
        digest: flags & 4 == 0,
        limits: limits(),
    };
    let mut client = Client::new(config, 0, [7; 16]);
    for part in greeting().chunks(4096).chain(rest.chunks(usize::from(*piece) + 1)) {
        let mut input = part;
        loop {
            match client.read(&mut input) {
                Ok(Some(ClientEvent::Media(message))) => {
                    assert!(flags & 1 == 1 && !message.payload.is_empty());
                }
                Ok(Some(ClientEvent::Redial(query))) => {
                    assert!(!query.as_str().contains("correct horse"));
                    return;
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(why) => {
                    let why = why.to_string();
                    assert!(!why.contains("hunter2") && !why.contains(char::is_control));
                    return;
                }
            }
        }
        assert!(client.take_output().len() < ANSWERS_MOST + 4096);
    }
    client.close();
}

/// Tags of any bytes, and what a demultiplexer and a multiplexer make of a sequence of them.
pub fn flv(data: &[u8]) {
    let body = bytes::Bytes::copy_from_slice(data);
    drop((read_video(&body), read_audio(&body)));
    let mut demux = FlvDemux::new();
    let mut mux = FlvMux::new(FlvConfig { chunk_size: 128, stream: 1 });
    let mut messages = Vec::new();
    let mut rest = data;
    // Each message: type, milliseconds since the last one, length, body.
    let mut timestamp = 0xFFFF_FF00u32;
    while let [what, step, length, behind @ ..] = rest {
        let (payload, behind) = behind.split_at(behind.len().min((*length).into()));
        rest = behind;
        timestamp = timestamp.wrapping_add(u32::from(*step)).wrapping_sub(40);
        let kind = [kind::VIDEO, kind::AUDIO, kind::DATA][usize::from(*what) % 3];
        let message = Message { kind, timestamp, stream: 1, payload: payload.to_vec().into() };
        let Ok(Some(frame)) = demux.push(&message, 0) else { continue };
        sound(&frame);
        mux.push(&frame, &mut messages);
        assert!(messages.len() < 5);
        messages.clear();
    }
}

fn sound(frame: &Frame) {
    assert!(frame.dts <= frame.pts && !frame.data.is_empty());
    assert!(frame.track().is_some() && frame.tracks.0.len() <= 2);
}

fn read_all(bytes: &[u8], piece: usize, limits: Limits) -> (Vec<Message>, bool) {
    let mut reader = Reader::new(limits);
    let mut messages = Vec::new();
    for mut piece in bytes.chunks(piece) {
        loop {
            match reader.read(&mut piece) {
                Ok(Some(message)) => {
                    match Control::read(&message) {
                        Ok(Some(Control::ChunkSize(size))) if reader.resize(size).is_err() => {
                            return (messages, false);
                        }
                        Ok(Some(Control::Abort(stream))) => reader.abort(stream),
                        _ => {}
                    }
                    messages.push(message);
                }
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
            assert!(reader.held() <= limits.held);
        }
        assert!(piece.is_empty());
    }
    (messages, true)
}

fn limits() -> Limits {
    Limits { media: 16 << 10, data: 8 << 10, other: 8 << 10, held: 32 << 10, streams: 8 }
}

/// What either side says before its chunks.
fn greeting() -> Vec<u8> {
    [&[3][..], &[0; 3072]].concat()
}

/// The chunks of a publisher, of the server of a publisher, and of a server that wants to know who publishes: for
/// others to damage.
pub fn samples() -> [Vec<u8>; 3] {
    let object = |fields: &[(&str, Value)]| {
        Value::Object(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
    };
    let command = |name: &str, transaction, object, arguments| {
        Command::new(name, transaction, object, arguments).message(0).chunked(3, 128)
    };
    let status = |code: &str| object(&[("level", "status".into()), ("code", code.into())]);
    let connect = object(&[("app", "live".into()), ("fourCcList", Value::StrictArray(vec!["hvc1".into()]))]);
    let media = |kind, payload: &[u8]| {
        Message { kind, timestamp: 0x0100_0000, stream: 1, payload: payload.to_vec().into() }.chunked(6, 128)
    };
    let publisher = [
        command("connect", 1.0, connect, vec![]),
        command("createStream", 2.0, Value::Null, vec![]),
        command("publish", 3.0, Value::Null, vec!["cam".into(), "live".into()]),
        data_message(1, 0, &["@setDataFrame".into(), "onMetaData".into(), Value::EcmaArray(vec![])])
            .chunked(4, 128),
        media(kind::VIDEO, &[0x17; 300]),
        media(kind::AUDIO, &[0xAF; 20]),
        Control::Abort(6).message().chunked(2, 128),
        command("deleteStream", 4.0, Value::Null, vec![1.0.into()]),
    ];
    let server = [
        Control::Window(5000).message().chunked(2, 128),
        Control::ChunkSize(128).message().chunked(2, 128),
        command("_result", 1.0, Value::Null, vec![status("NetConnection.Connect.Success")]),
        command("onBWDone", 0.0, Value::Null, vec![]),
        command("_result", 4.0, Value::Null, vec![1.0.into()]),
        command("onStatus", 0.0, Value::Null, vec![status("NetStream.Publish.Start")]),
        command("onStatus", 0.0, Value::Null, vec![status("NetStream.Play.Start")]),
        media(kind::VIDEO, &[0x17; 300]),
        media(kind::AGGREGATE, &[9, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 12]),
    ];
    let challenge = "[ authmod=adobe ] : ?reason=needauth&user=joe&salt=aa&challenge=bb&opaque=cc";
    let refusal = object(&[("level", "error".into()), ("description", challenge.into())]);
    [publisher.concat(), server.concat(), command("_error", 1.0, Value::Null, vec![refusal]).to_vec()]
}
