//! What the store keeps secret, what it keeps apart, and what it serves by itself.

use std::time::{Duration, SystemTime};

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn input(name: &str, url: &str) -> InputDraft {
    InputDraft { name: name.into(), url: Some(url.into()), udp_port: None }
}

fn output(name: &str, url: &str) -> OutputDraft {
    OutputDraft {
        name: name.into(),
        url: url.into(),
        protocol: None,
        auto_reconnect: None,
        reconnect_delay: None,
        max_reconnect_attempts: None,
    }
}

fn patch(url: &str) -> OutputPatch {
    OutputPatch { url: Some(url.into()), ..OutputPatch::default() }
}

/// What a write is refused for: always the url, always by value.
fn refused<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    match result.unwrap_err() {
        Refusal::Invalid(errors) => {
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert_eq!((&*errors[0].field, errors[0].kind), ("url", "value_error"));
            errors[0].msg.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hidden_secret_that_is_written_back_is_kept() {
    let mut store = Store::default();
    let url = "srt://bob:geheim@:8890?passphrase=correct%20horse&latency=200&streamid=cam";
    let made = store.create_input(input("a", url), NOW).unwrap();
    let shown = made.raw_url.to_string();
    assert_eq!(shown, "srt://bob:***@:8890?passphrase=***&latency=200&streamid=cam");
    let write = |url: &str| InputPatch { name: Some("a".into()), url: Some(url.into()) };

    // Everything written back as it was shown changes nothing.
    let change = store.patch_input(1, write(&shown), NOW + Duration::from_secs(9)).unwrap();
    assert_eq!((change.after.updated_at, change.after.raw_url.reveal()), (NOW, url));
    // Options change, move and go around the secrets.
    let after =
        store.patch_input(1, write("srt://bob:***@:8891?latency=300&passphrase=***"), NOW).unwrap().after;
    assert_eq!(after.raw_url.reveal(), "srt://bob:geheim@:8891?latency=300&passphrase=correct%20horse");
    // One secret changes, the other stays.
    let after = store.patch_input(1, write("srt://bob:neu@:8891?passphrase=***"), NOW).unwrap().after;
    assert_eq!(after.raw_url.reveal(), "srt://bob:neu@:8891?passphrase=correct%20horse");
    // A secret that was taken out is gone for good.
    store.patch_input(1, write("srt://bob:***@:8891"), NOW).unwrap();
    let msg = refused(store.patch_input(1, write("srt://bob:***@:8891?passphrase=***"), NOW));
    assert_eq!(msg, "*** stands for a secret that is stored, and no passphrase is: write it out");
    assert_eq!(store.input(1).unwrap().raw_url.reveal(), "srt://bob:neu@:8891");
}

#[test]
fn secrets_of_outputs_are_kept_in_each_place() {
    let mut store = Store::default();
    store.create_input(input("a", "udp://:5000"), NOW).unwrap();
    for (url, shown) in [
        (
            "srt://h:9000?passphrase=0123456789&streamid=publish:cam:bob:geheim",
            "srt://h:9000?passphrase=***&streamid=publish:cam:bob:***",
        ),
        (
            "srt://h:9000?streamid=%23!::u=bob,s=geheim,r=cam&pbkeylen=16&passphrase=0123456789",
            "srt://h:9000?streamid=%23!::u=bob,s=***,r=cam&pbkeylen=16&passphrase=***",
        ),
    ] {
        let made = store.create_output(1, output("o", url), NOW).unwrap();
        assert_eq!(made.raw_url.to_string(), shown);
        let moved = shown.replace("h:9000", "other:9001");
        let after = store.patch_output(1, made.id, patch(&moved), NOW).unwrap().after;
        assert_eq!(after.raw_url.reveal(), url.replace("h:9000", "other:9001"));
        let same = store.patch_output(1, made.id, patch(&moved), NOW + Duration::from_secs(9)).unwrap();
        assert_eq!(same.after.updated_at, NOW);
        store.delete_output(1, made.id).unwrap();
    }
}

#[test]
fn a_hidden_secret_that_was_never_set_is_refused() {
    let mut store = Store::default();
    store.create_input(input("a", "udp://:5000"), NOW).unwrap();
    for url in [
        "srt://h:1?passphrase=***",
        "srt://bob:***@:1",
        "srt://h:1?streamid=read:cam:bob:***",
        "udp://h:1?token=***",
        "rtmp://h/live/***",
    ] {
        assert!(refused(store.create_input(input("b", url), NOW)).starts_with("*** stands for"), "{url}");
        assert!(
            refused(store.create_output(1, output("o", url), NOW)).starts_with("*** stands for"),
            "{url}"
        );
    }
    store.create_output(1, output("o", "srt://h:1?passphrase=0123456789"), NOW).unwrap();
    // The passphrase is no password.
    let msg = refused(store.patch_output(1, 1, patch("srt://bob:***@:1?passphrase=***"), NOW));
    assert!(msg.contains("no password is"), "{msg}");
    let msg = refused(store.patch_output(1, 1, patch("srt://h:1?streamid=read:cam:bob:***"), NOW));
    assert!(msg.contains("no password in the stream id is"), "{msg}");
    assert_eq!(store.output(1, 1).unwrap().raw_url.reveal(), "srt://h:1?passphrase=0123456789");
}

#[test]
fn a_latency_must_fit_into_what_is_kept() {
    let mut store = Store::new(Rules { lane: Duration::from_secs(4), ..Rules::default() }, Roots::default());
    store.create_input(input("a", "srt://h:1?latency=3000"), NOW).unwrap();
    store.create_output(1, output("o", "srt://h:1?peerlatency=3000"), NOW).unwrap();
    for url in ["srt://h:1?latency=3001", "srt://h:1?peerlatency=3001", "srt://h:1?rcvlatency=3001&latency=0"]
    {
        let msg = refused(store.create_input(input("b", url), NOW));
        assert!(
            msg.starts_with("a latency of 3001 ms and 1 s for retransmits do not fit into the 4 s"),
            "{msg}"
        );
        assert_eq!(refused(store.patch_output(1, 1, patch(url), NOW)), msg);
    }
    assert_eq!(store.output(1, 1).unwrap().raw_url.reveal(), "srt://h:1?peerlatency=3000");
}

#[test]
fn what_a_stream_id_could_not_tell_apart_is_refused() {
    let mut store = Store::default();
    store.create_input(input("Drone 1", "srt://:8890"), NOW).unwrap();
    store.create_input(input("b", "udp://:5000"), NOW).unwrap();
    assert_eq!(store.input(1).unwrap().publish_name(), Some("drone_1"));
    let wall = store.create_output(1, output("wall", "srt://:8890"), NOW).unwrap();
    assert_eq!(store.input(1).unwrap().read_name(&wall), Some("drone_1"));
    let msg = refused(store.create_output(2, output("x", "srt://:8890?streamid=drone_1"), NOW));
    assert!(msg.starts_with("output 'wall' of input 'Drone 1' has the name 'drone_1' on port 8890"), "{msg}");
    let msg = refused(store.create_input(input("c", "srt://:8890?streamid=drone_1"), NOW));
    assert!(msg.starts_with("input 'Drone 1' has the name 'drone_1' on port 8890"), "{msg}");
    let msg = refused(store.create_input(input("c", "udp://:8890"), NOW));
    assert_eq!(msg, "port 8890 is used by input 'Drone 1': use another");

    let other = store.create_output(2, output("x", "srt://:8890"), NOW).unwrap();
    assert_eq!(store.input(2).unwrap().read_name(&other), Some("b"));
    let msg = refused(store.patch_output(2, other.id, patch("srt://:8890?streamid=drone_1"), NOW));
    assert!(msg.contains("output 'wall'"), "{msg}");
    // An object is in nobody's way but others'.
    store.patch_output(2, other.id, patch("srt://:8890?streamid=b&latency=200"), NOW).unwrap();
    let same = InputPatch { url: Some("srt://:8890?latency=200".into()), name: None };
    store.patch_input(1, same, NOW).unwrap();
    let taken = InputPatch { url: Some("rtp://:8890".into()), name: None };
    assert!(refused(store.patch_input(2, taken, NOW)).contains("port 8890 is used by"));
    store.delete_output(1, wall.id).unwrap();
    store.patch_output(2, other.id, patch("srt://:8890?streamid=drone_1"), NOW).unwrap();
}

#[test]
fn two_outputs_never_write_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::new(Rules::default(), Roots::new(vec![folder.path().into()]));
    for name in ["a", "b"] {
        store.create_input(input(name, "udp://:5000"), NOW).unwrap();
    }
    store.create_output(1, output("tape", "file:a.ts"), NOW).unwrap();
    store.create_output(2, output("other", "file:b.ts"), NOW).unwrap();
    let absolute = format!("file:{}/./a.ts", folder.path().display());
    for url in ["file:a.ts", "file:./a.ts?rotate_s=60", &absolute] {
        let msg = refused(store.create_output(2, output("x", url), NOW));
        assert_eq!(msg, "output 'tape' of input 'a' writes the same file: give each its own");
        assert_eq!(refused(store.patch_output(2, 2, patch(url), NOW)), msg);
    }
    store.patch_output(1, 1, patch("file:a.ts?rotate_s=60"), NOW).unwrap();
    store.delete_output(1, 1).unwrap();
    store.patch_output(2, 2, patch("file:a.ts"), NOW).unwrap();
}

#[test]
fn an_input_without_a_url_is_served_on_a_port_of_its_own() {
    let rules = Rules { srt_ports: Some(8891..=8893), max_outputs_per_input: Some(1), ..Rules::default() };
    let mut store = Store::new(rules, Roots::default());
    let bare = |name: &str| InputDraft { name: name.into(), ..InputDraft::default() };
    let taken = store.create_input(input("taken", "srt://10.0.0.1:8892?mode=listener"), NOW).unwrap();
    assert_eq!((taken.srt_port, store.outputs(1).count()), (None, 0));
    let made = store.create_input(bare("Cam 1"), NOW).unwrap();
    assert_eq!((made.udp_port, made.srt_port), (Some(5000), Some(8891)));
    let reader = store.output(made.id, reader_of(made.id)).unwrap().clone();
    assert_eq!(reader.raw_url.reveal(), "srt://0.0.0.0:8891?mode=listener");
    assert_eq!((made.read_name(&reader), is_reader(reader.id)), (Some("cam_1"), true));
    assert_eq!(store.create_input(bare("c"), NOW).unwrap().srt_port, Some(8893));
    let none = Refusal::Conflict("No available SRT ports in configured range".into());
    assert_eq!(store.create_input(bare("d"), NOW).unwrap_err(), none);

    // It is nobody's to change, and takes nobody's place.
    assert_eq!(store.create_output(2, output("SRT port 8891", "udp://h:1"), NOW).unwrap().id, 1);
    let missing = Refusal::NotFound("Output not found".into());
    assert_eq!(store.patch_output(2, reader.id, patch("udp://h:1"), NOW).unwrap_err(), missing);
    assert_eq!(store.delete_output(2, reader.id).unwrap_err(), missing);
    let stopped = crate::telemetry::Desired::Stopped;
    assert_eq!(store.set_output_desired(2, reader.id, stopped, NOW).unwrap_err(), missing);
    let msg = refused(store.create_input(input("e", "udp://:8891"), NOW));
    assert_eq!(msg, "port 8891 is used by output 'SRT port 8891' of input 'Cam 1': use another");

    // It goes with the ports that its input was given.
    let named = InputPatch { name: Some("North".into()), url: None };
    assert_eq!(store.patch_input(2, named, NOW).unwrap().after.srt_port, Some(8891));
    let moved = InputPatch { name: None, url: Some("udp://:5000".into()) };
    let change = store.patch_input(2, moved, NOW).unwrap();
    assert_eq!((change.before.srt_port, change.after.srt_port), (Some(8891), None));
    assert!(store.output(2, reader.id).is_none());
    assert_eq!(store.delete_input(3).unwrap().1[0].id, reader_of(3));
    assert_eq!(store.create_input(bare("d"), NOW).unwrap().srt_port, Some(8891));
}
