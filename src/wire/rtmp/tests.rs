//! Sessions against each other and against peers that mean ill: what is asked is answered, what is out of order ends,
//! and nothing grows.

use proptest::prelude::*;

use super::amf0::{Value, write_values};
use super::*;

fn client_config(purpose: Purpose) -> ClientConfig {
    ClientConfig {
        purpose,
        application: "live".into(),
        tc_url: "rtmp://host/live".into(),
        stream: "cam?key=hunter2".into(),
        credentials: None,
        auth: None,
        chunk_size: 60_000,
        digest: true,
        limits: Limits::default(),
    }
}

fn server() -> Server {
    Server::new(ServerConfig { chunk_size: 60_000, limits: Limits::default() }, 0, [3; 16])
}

/// What came of one side's bytes, the error that ended it last.
type Outcome<T> = Vec<Result<T, Error>>;

/// Carries bytes both ways, in pieces, until nobody has anything to say or somebody gives up. `decide` answers
/// requests.
fn settle(
    client: &mut Client,
    server: &mut Server,
    piece: usize,
    mut decide: impl FnMut(&mut Server),
) -> (Outcome<ClientEvent>, Outcome<ServerEvent>) {
    let (mut of_client, mut of_server) = (Vec::new(), Vec::new());
    loop {
        let there = client.take_output();
        for mut piece in there.chunks(piece) {
            loop {
                match server.read(&mut piece) {
                    Ok(Some(event)) => {
                        let asked = matches!(event, ServerEvent::Request(_));
                        of_server.push(Ok(event));
                        if asked {
                            decide(server);
                        }
                    }
                    Ok(None) => break,
                    Err(why) => {
                        of_server.push(Err(why));
                        return (of_client, of_server);
                    }
                }
            }
        }
        let back = server.take_output();
        for mut piece in back.chunks(piece) {
            loop {
                match client.read(&mut piece) {
                    Ok(Some(event)) => of_client.push(Ok(event)),
                    Ok(None) => break,
                    Err(why) => {
                        of_client.push(Err(why));
                        return (of_client, of_server);
                    }
                }
            }
        }
        if there.is_empty() && back.is_empty() {
            return (of_client, of_server);
        }
    }
}

/// Bytes of a client that shook hands.
fn greeted() -> Vec<u8> {
    [&[3][..], &[0; 3072]].concat()
}

fn command(name: &str, transaction: f64, object: Value, arguments: Vec<Value>) -> Message {
    Command::new(name, transaction, object, arguments).message(0)
}

fn connect() -> Message {
    let object = Value::Object(vec![("app".into(), "live".into())]);
    command("connect", 1.0, object, vec![])
}

/// What the server makes of these messages, up to its first error, and what it answered.
fn serve(messages: &[Message]) -> (Result<Vec<ServerEvent>, Error>, Vec<Message>) {
    let mut server = server();
    let mut bytes = greeted();
    messages.iter().for_each(|message| bytes.extend(message.chunked(3, CHUNK_SIZE)));
    let mut input = bytes.as_slice();
    let mut events = Vec::new();
    let result = loop {
        match server.read(&mut input) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break Ok(events),
            Err(why) => break Err(why),
        }
    };
    (result, messages_of(&server.take_output()[3073..]))
}

/// The messages of what a session sent behind its handshake.
fn messages_of(bytes: &[u8]) -> Vec<Message> {
    let mut reader = Reader::new(Limits::default());
    let mut input = bytes;
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input).unwrap() {
        if let Ok(Some(Control::ChunkSize(size))) = Control::read(&message) {
            reader.resize(size).unwrap();
        }
        messages.push(message);
    }
    messages
}

fn commands_of(messages: &[Message]) -> Vec<Command> {
    messages.iter().filter(|m| m.kind == kind::COMMAND).map(|m| Command::read(m).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn a_client_publishes_whatever_the_pieces(piece in 1usize..5000, digest: bool) {
        let config = ClientConfig { digest, ..client_config(Purpose::Publish) };
        let mut client = Client::new(config, 0, [9; 16]);
        let mut server = server();
        let (of_client, of_server) = settle(&mut client, &mut server, piece, |s| drop(s.accept()));
        prop_assert_eq!(of_client, vec![Ok(ClientEvent::Publishing(1))]);
        let [Ok(ServerEvent::Request(request))] = of_server.as_slice() else { panic!("{of_server:?}") };
        prop_assert_eq!(request.stream.as_str(), "cam");
        prop_assert!(request.codecs.has("hvc1"));
        prop_assert!(client.peer().has("hvc1"));
    }
}

#[test]
fn media_pass_from_client_to_server_and_back_with_aggregates() {
    let mut publisher = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
    let mut ingest = server();
    settle(&mut publisher, &mut ingest, 4096, |s| drop(s.accept()));
    let sent =
        Message { kind: kind::VIDEO, timestamp: 0x0123_4567, stream: 1, payload: vec![7; 200_000].into() };
    let bytes = sent.chunked(6, 60_000);
    let mut input = &bytes[..];
    assert_eq!(ingest.read(&mut input), Ok(Some(ServerEvent::Media(sent.clone()))));

    let mut player = Client::new(client_config(Purpose::Play), 0, [8; 16]);
    let mut serve = server();
    let (events, _) = settle(&mut player, &mut serve, 4096, |s| drop(s.accept()));
    assert!(events.contains(&Ok(ClientEvent::Playing(1))), "{events:?}");
    let part = |time: u8, text: &[u8]| {
        [&[9, 0, 0, text.len() as u8, 0, 0, time, 0, 0, 0, 0][..], text, &[0, 0, 0, 12]].concat()
    };
    let payload = [part(0, b"a"), part(40, b"b")].concat();
    let aggregate = Message { kind: kind::AGGREGATE, timestamp: 1000, stream: 1, payload: payload.into() };
    let bytes = aggregate.chunked(6, 60_000);
    let mut input = &bytes[..];
    for (timestamp, text) in [(1000, "a"), (1040, "b")] {
        let want = Message { kind: kind::VIDEO, timestamp, stream: 1, payload: text.into() };
        assert_eq!(player.read(&mut input), Ok(Some(ClientEvent::Media(want))));
    }
    assert_eq!(player.read(&mut input), Ok(None));
    serve.end().unwrap();
    let (events, _) = settle(&mut player, &mut serve, 4096, |_| {});
    assert_eq!(events, [Ok(ClientEvent::Ended)]);
}

#[test]
fn who_is_turned_away_hears_why_and_no_secret_shows() {
    for (purpose, why, code) in [
        (Purpose::Publish, Turned::Denied, "NetStream.Publish.Denied"),
        (Purpose::Publish, Turned::Busy, "NetStream.Publish.BadName"),
        (Purpose::Play, Turned::Unknown, "NetStream.Play.StreamNotFound"),
        (Purpose::Play, Turned::Busy, "NetStream.Play.Failed"),
    ] {
        let mut client = Client::new(client_config(purpose), 0, [9; 16]);
        let (events, _) = settle(&mut client, &mut server(), 4096, |s| {
            s.turn_away(why, "not cam?key=hunter2\r\nplease").unwrap();
        });
        let want = Error::Refused { code: code.into(), description: "not ***  please".into() };
        assert_eq!(events.last(), Some(&Err(want)));
    }
}

#[test]
fn a_publisher_takes_leave_and_the_server_hears_it() {
    let mut client = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
    let mut server = server();
    settle(&mut client, &mut server, 4096, |s| drop(s.accept()));
    client.close();
    let (_, of_server) = settle(&mut client, &mut server, 4096, |_| {});
    assert_eq!(of_server, [Ok(ServerEvent::Ended)]);
}

#[test]
fn a_publisher_may_take_leave_in_several_words() {
    let mut server = server();
    let mut say = |messages: &[Message], mut bytes: Vec<u8>| {
        messages.iter().for_each(|message| bytes.extend(message.chunked(3, CHUNK_SIZE)));
        let mut input = bytes.as_slice();
        let mut events = 0;
        while server.read(&mut input).unwrap().is_some() {
            events += 1;
            server.accept().unwrap();
        }
        (events, server.take_output())
    };
    let ask = |name: &str, transaction| command(name, transaction, Value::Null, vec!["cam".into()]);
    let hello = [connect(), ask("createStream", 4.0), ask("publish", 5.0)];
    let (events, mut answers) = say(&hello, greeted());
    assert_eq!(events, 1);
    // What it says behind the first word ends nothing again, and not the connection.
    for (word, ends) in
        [(ask("FCUnpublish", 6.0), 1), (ask("deleteStream", 7.0), 0), (ask("closeStream", 0.0), 0)]
    {
        let (events, more) = say(&[word], Vec::new());
        assert_eq!(events, ends);
        answers.extend(more);
    }
    let commands = commands_of(&messages_of(&answers[3073..]));
    let said: Vec<&str> = commands.iter().map(|command| command.name.as_str()).collect();
    assert_eq!(said.get(said.len() - 3..), Some(&["_result", "onFCUnpublish", "onStatus"][..]));
}

/// A server of Adobe's that refuses `connect` with this.
fn refuse(client: &mut Client, info: Value) -> Result<Option<ClientEvent>, Error> {
    let mut bytes = greeted();
    bytes.extend(command("_error", 1.0, Value::Null, vec![info]).chunked(3, CHUNK_SIZE));
    client.read(&mut bytes.as_slice())
}

fn info(description: &str) -> Value {
    Value::Object(vec![
        ("level".into(), "error".into()),
        ("code".into(), "NetConnection.Connect.Rejected".into()),
        ("description".into(), description.into()),
    ])
}

#[test]
fn a_challenge_is_answered_with_a_new_connection() {
    let credentials = Some(Credentials { user: "joe".into(), password: "hunter2".into() });
    let config = ClientConfig { credentials, ..client_config(Purpose::Publish) };
    let mut client = Client::new(config.clone(), 0, [9; 16]);
    let need = info("[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ");
    let Ok(Some(ClientEvent::Redial(auth))) = refuse(&mut client, need.clone()) else { panic!() };
    assert_eq!(auth.as_str(), "?authmod=adobe&user=joe");
    let mut client = Client::new(ClientConfig { auth: Some(auth), ..config.clone() }, 0, [9; 16]);
    let challenge = "[ authmod=adobe ] : ?reason=needauth&user=joe&salt=aa&challenge=bb&opaque=cc";
    let Ok(Some(ClientEvent::Redial(auth))) = refuse(&mut client, info(challenge)) else { panic!() };
    assert!(
        auth.as_str().starts_with("?authmod=adobe&user=joe&challenge=")
            && auth.as_str().ends_with("&opaque=cc")
    );
    let mut client = Client::new(ClientConfig { auth: Some(auth.clone()), ..config }, 0, [9; 16]);
    assert_eq!(refuse(&mut client, info(challenge)), Err(Error::Auth(BadAuth::Wrong("adobe"))));
    let sent = client.take_output();
    let connect = commands_of(&messages_of(&sent[3073..])).remove(0);
    let app = connect.object.property("app").and_then(Value::as_text).unwrap();
    assert_eq!(app, format!("live{}", auth.as_str()));
    let mut client = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
    assert_eq!(refuse(&mut client, need), Err(Error::Auth(BadAuth::Missing("adobe"))));
}

#[test]
fn a_redirect_is_refused_by_name_without_its_path() {
    let ex =
        vec![("code".into(), 302.0.into()), ("redirect".into(), "rtmp://u:p@other:1936/live/secret".into())];
    let mut object = info("").properties().to_vec();
    object.push(("ex".into(), Value::Object(ex)));
    let mut client = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
    let want = Error::Redirected("rtmp://other:1936".into());
    assert_eq!(refuse(&mut client, Value::Object(object)), Err(want));
}

#[test]
fn a_client_says_all_that_servers_look_for() {
    let mut client = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
    let mut server = server();
    let mut sent = Vec::new();
    loop {
        let there = client.take_output();
        sent.extend(&there);
        let mut input = there.as_slice();
        while let Some(event) = server.read(&mut input).unwrap() {
            assert!(matches!(event, ServerEvent::Request(_)));
            server.accept().unwrap();
        }
        let back = server.take_output();
        let mut input = back.as_slice();
        while client.read(&mut input).unwrap().is_some() {}
        if there.is_empty() && back.is_empty() {
            break;
        }
    }
    let commands = commands_of(&messages_of(&sent[3073..]));
    let names: Vec<&str> = commands.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["connect", "releaseStream", "FCPublish", "createStream", "_checkbw", "publish"]);
    for name in ["app", "type", "flashVer", "swfUrl", "tcUrl", "fourCcList", "videoFourCcInfoMap", "capsEx"] {
        assert!(commands[0].object.property(name).is_some(), "{name}");
    }
    assert_eq!(commands[1].text(0), "cam", "without its query");
    assert_eq!((commands[5].text(0), commands[5].text(1)), ("cam?key=hunter2", "live"));
}

#[test]
fn a_server_answers_every_question_of_a_client() {
    let question = |name: &str, transaction| command(name, transaction, Value::Null, vec!["cam".into()]);
    let (events, answers) = serve(&[
        connect(),
        question("releaseStream", 2.0),
        question("FCPublish", 3.0),
        question("createStream", 4.0),
        question("_checkbw", 5.0),
        question("getStreamLength", 6.0),
        question("nonsense", 7.0),
        question("silent", 0.0),
        command("x", 8.0, Value::Null, vec![]),
    ]);
    assert_eq!(events, Ok(vec![]));
    let commands = commands_of(&answers);
    let said: Vec<(&str, f64)> = commands.iter().map(|c| (c.name.as_str(), c.transaction)).collect();
    let want = [
        ("_result", 1.0),
        ("onBWDone", 0.0),
        ("_result", 2.0),
        ("_result", 3.0),
        ("onFCPublish", 0.0),
        ("_result", 4.0),
        ("_result", 5.0),
        ("_result", 6.0),
        ("_error", 7.0),
        ("_error", 8.0),
    ];
    assert_eq!(said, want);
    assert_eq!(commands[5].number(0), Some(1.0));
    let controls: Vec<Control> = answers.iter().filter_map(|m| Control::read(m).unwrap()).collect();
    assert!(matches!(
        controls.as_slice(),
        [
            Control::Window(_),
            Control::Bandwidth(_),
            Control::User(User::Begin(0)),
            Control::ChunkSize(60_000)
        ]
    ));
}

#[test]
fn what_is_out_of_order_ends_the_connection() {
    let order = |messages: &[Message]| serve(messages).0.unwrap_err().to_string();
    let publish = || command("publish", 5.0, Value::Null, vec!["cam".into()]);
    let create = || command("createStream", 4.0, Value::Null, vec![]);
    let video = || Message { kind: kind::VIDEO, timestamp: 0, stream: 1, payload: vec![0x17; 9].into() };
    assert_eq!(order(&[publish()]), "the peer sends a command before `connect`");
    assert_eq!(order(&[connect(), connect()]), "the peer sends `connect` twice");
    assert_eq!(order(&[connect(), publish()]), "the peer sends `publish` before `createStream`");
    assert_eq!(order(&[connect(), create(), publish(), publish()]), "the peer sends `publish` twice");
    assert_eq!(order(&[video()]), "the peer sends media before `publish`");
    assert_eq!(order(&[connect(), create(), video()]), "the peer sends media before `publish`");
    let many: Vec<Message> = std::iter::once(connect()).chain((0..100).map(|_| create())).collect();
    assert_eq!(order(&many), "the peer sends too many commands before it publishes or plays");
}

#[test]
fn media_before_a_publisher_is_accepted_are_not_kept() {
    let video = Message { kind: kind::VIDEO, timestamp: 0, stream: 1, payload: vec![0x17; 9].into() };
    let mut bytes = greeted();
    for message in [
        connect(),
        command("createStream", 4.0, Value::Null, vec![]),
        command("publish", 5.0, Value::Null, vec!["cam".into()]),
        video.clone(),
    ] {
        bytes.extend(message.chunked(3, CHUNK_SIZE));
    }
    let mut server = server();
    let mut input = bytes.as_slice();
    assert!(matches!(server.read(&mut input), Ok(Some(ServerEvent::Request(_)))));
    assert_eq!(server.read(&mut input), Ok(None));
    assert_eq!(server.early(), 1);
    assert_eq!(server.accept(), Ok(Some(1)));
    assert_eq!(server.read(&mut &video.chunked(3, CHUNK_SIZE)[..]), Ok(Some(ServerEvent::Media(video))));
}

#[test]
fn a_stranger_may_not_make_us_hold_much() {
    let long = |kind, length| Message { kind, timestamp: 0, stream: 0, payload: vec![5; length].into() };
    for message in [long(kind::COMMAND, 70_000), long(kind::VIDEO, 70_000), long(kind::DATA, 70_000)] {
        assert!(matches!(serve(&[message]).0, Err(Error::Chunk(BadChunk::Long { .. }))));
    }
    // objects in objects, as large as a command may be
    let bomb = [&[2, 0, 7][..], b"connect", &[0; 9], &[3, 0, 1, b'a'].repeat(16_000)].concat();
    let bomb = Message { kind: kind::COMMAND, timestamp: 0, stream: 0, payload: bomb.into() };
    assert_eq!(serve(&[bomb]).0, Ok(vec![]));
}

#[test]
fn commands_that_lack_values_break_nothing() {
    for values in
        [vec![], vec![Value::Null], vec![Value::text("connect")], vec![Value::text("connect"), Value::Null]]
    {
        let payload = write_values(&values);
        for kind in [kind::COMMAND, kind::COMMAND_AMF3, kind::DATA, kind::DATA_AMF3] {
            let message = Message { kind, timestamp: 0, stream: 0, payload: payload.clone().into() };
            let (result, _) = serve(&[message]);
            assert!(!matches!(result, Ok(events) if !events.is_empty()));
        }
    }
}

#[test]
fn who_does_not_read_its_answers_is_left() {
    let mut server = server();
    let mut bytes = greeted();
    bytes.extend(connect().chunked(3, CHUNK_SIZE));
    let pings = Control::User(User::Ping(7)).message().chunked(2, CHUNK_SIZE);
    let mut input = bytes.as_slice();
    assert_eq!(server.read(&mut input), Ok(None));
    let end = (0..10_000).find_map(|_| server.read(&mut &pings[..]).err());
    assert_eq!(end, Some(Error::Deaf));
    let held = server.take_output().len();
    assert!(held < ANSWERS_MOST + 5000, "{held}");
}

#[test]
fn acknowledgements_say_the_total_and_tiny_windows_do_not_multiply_them() {
    for (window, most) in [(100_000, 21), (1, 260)] {
        let mut client = Client::new(client_config(Purpose::Publish), 0, [9; 16]);
        client.read(&mut greeted().as_slice()).unwrap();
        client.take_output();
        let filler = Message { kind: 99, timestamp: 0, stream: 0, payload: vec![0; 10_000].into() };
        let mut bytes = Control::Window(window).message().chunked(2, CHUNK_SIZE).to_vec();
        (0..100).for_each(|_| bytes.extend(filler.chunked(3, CHUNK_SIZE)));
        let mut totals = Vec::new();
        for mut piece in bytes.chunks(1000) {
            client.read(&mut piece).unwrap();
            for message in messages_of(&client.take_output()) {
                let Ok(Some(Control::Acknowledged(total))) = Control::read(&message) else { continue };
                totals.push(total);
            }
        }
        assert!(!totals.is_empty() && totals.len() <= most, "{}", totals.len());
        assert!(totals.is_sorted() && *totals.last().unwrap() > 900_000, "{totals:?}");
    }
}

#[test]
fn chunk_sizes_of_zero_end_the_connection() {
    let zero = Control::ChunkSize(0).message();
    assert_eq!(serve(&[zero]).0, Err(Error::Chunk(BadChunk::ChunkSize(0))));
}

#[test]
fn unknown_control_and_bandwidth_are_taken_in_stride() {
    let verify = Control::User(User::Other(26)).message();
    let buffer_ready = Control::User(User::Other(32)).message();
    let (result, answers) = serve(&[
        verify,
        buffer_ready,
        Control::Bandwidth(9).message(),
        Control::User(User::Ping(77)).message(),
    ]);
    assert_eq!(result, Ok(vec![]));
    let controls: Vec<Control> = answers.iter().filter_map(|m| Control::read(m).unwrap()).collect();
    assert_eq!(controls, [Control::Window(9), Control::User(User::Pong(77))]);
}
