//! Handshakes and packets that libsrt peers sent each other (testdata/srt), read and answered.

use super::body::{Body, Extensions, Kind, MAGIC};
use super::tests::{dial, packet, passphrase};
use super::*;
use crate::wire::srt::crypto::{Cipher, KeyLength, KeyMaterial, KeyState, RefreshPlan, derive};
use crate::wire::srt::{Control, ControlPacket, HEADER, Packet, Reject, Seq, SocketId, StreamId};

macro_rules! captured {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/srt/libsrt-", $name, ".bin")).as_slice()
    };
}

fn read(datagram: &[u8]) -> (Body, Extensions<'_>) {
    let Packet::Control(ControlPacket { control: Control::Handshake(bytes), .. }) = packet(datagram) else {
        panic!("no handshake");
    };
    let (body, rest) = Body::parse(bytes).unwrap();
    (
        body,
        if body.kind == Kind::Conclusion { Extensions::parse(rest).unwrap() } else { Extensions::default() },
    )
}

#[test]
fn the_four_steps_of_libsrt_are_read() {
    let (induction, _) = read(captured!("1.5.1-induction"));
    assert_eq!((induction.version, induction.extension, induction.kind), (4, 2, Kind::Induction));
    let (induced, _) = read(captured!("1.5.1-induced"));
    assert_eq!((induced.version, induced.extension, induced.kind), (5, MAGIC, Kind::Induction));
    let (conclusion, all) = read(captured!("1.5.1-conclusion"));
    assert_eq!((conclusion.kind, conclusion.extension), (Kind::Conclusion, all.field()));
    assert_eq!((conclusion.cookie, conclusion.first), (induced.cookie, induction.first));
    let hello = all.request.unwrap();
    assert_eq!((hello.version.to_string().as_str(), hello.flags.0), ("1.5.1", 0xBF));
    assert_eq!((hello.receive_latency, hello.send_latency), (250, 250));
    assert_eq!(all.stream_id, StreamId::new(b"cam/x").ok());
    let (accepted, all) = read(captured!("1.5.1-accepted"));
    assert_eq!((accepted.kind, accepted.first), (Kind::Conclusion, conclusion.first));
    let hello = all.response.unwrap();
    assert_eq!((hello.receive_latency, hello.send_latency), (300, 300));
}

#[test]
fn this_caller_asks_as_libsrt_does() {
    let theirs = captured!("1.5.1-induction");
    let (body, _) = read(theirs);
    let mut dial = dial();
    dial.local = Local { socket: body.socket, first: Seq::new(body.first), started: 0 };
    dial.to = "127.0.0.1".parse().unwrap();
    dial.settings = Settings { receive_latency: 250, send_latency: 250, ..Settings::default() };
    dial.stream_id = StreamId::new(b"cam/x").ok();
    let mut caller = Caller::new(dial, 0);
    let ours = caller.poll(0).unwrap();
    assert_eq!(without_time(&ours), without_time(theirs));
    let Progress::Waiting = caller.handle(&packet(captured!("1.5.1-induced")), 0) else { panic!() };
    let mut ours = caller.poll(0).unwrap();
    let theirs = captured!("1.5.1-conclusion");
    // the versions differ, and this side knows no packet filters
    ours[HEADER + 52..HEADER + 60].copy_from_slice(&theirs[HEADER + 52..HEADER + 60]);
    assert_eq!(without_time(&ours), without_time(theirs));
    let Progress::Connected(agreed) = caller.handle(&packet(captured!("1.5.1-accepted")), 0) else {
        panic!()
    };
    assert_eq!((agreed.receive_latency, agreed.send_latency), (300, 300));
    assert_eq!((agreed.mss, agreed.peer_window, agreed.peer_version), (1500, 8192, Version(0x0001_0501)));
}

fn without_time(datagram: &[u8]) -> Vec<u8> {
    [&datagram[..8], &datagram[12..]].concat()
}

#[test]
fn rejections_and_failed_keys_are_read() {
    let (rejected, _) = read(captured!("1.5.1-rejected"));
    assert_eq!(rejected.kind, Kind::Rejection(Reject::BAD_SECRET));
    let (_, accepted) = read(captured!("1.5.1-nosecret-accepted"));
    assert_eq!(accepted.key_response.and_then(KeyState::parse), Some(KeyState::NoSecret));
    assert_eq!(accepted.key_response, Some(&KeyState::NoSecret.to_bytes()[..]));
    let (_, accepted) = read(captured!("1.5.1-aes128-accepted"));
    let (_, conclusion) = read(captured!("1.5.1-aes128-conclusion"));
    assert_eq!(accepted.key_response, conclusion.key_request);
}

#[test]
fn a_group_of_libsrt_is_read() {
    let (_, all) = read(captured!("1.5.5-backup-conclusion"));
    let group = all.group.unwrap();
    assert_eq!((group.kind, group.flags, group.weight, group.id >> 30), (GroupKind::Backup, 0, 50, 1));
}

#[test]
fn payload_that_libsrt_encrypted_opens() {
    use {Cipher::*, KeyLength::*};
    let clear: Vec<u8> = std::iter::once(0x47).chain(0..187).collect();
    for (conclusion, data, cipher, length) in [
        (captured!("1.5.1-aes128-conclusion"), captured!("1.5.1-aes128-data"), Ctr, Aes128),
        (captured!("1.5.1-aes192-conclusion"), captured!("1.5.1-aes192-data"), Ctr, Aes192),
        (captured!("1.5.1-aes256-conclusion"), captured!("1.5.1-aes256-data"), Ctr, Aes256),
        (captured!("1.5.5-gcm128-conclusion"), captured!("1.5.5-gcm128-data"), Gcm, Aes128),
        (captured!("1.5.5-gcm256-conclusion"), captured!("1.5.5-gcm256-data"), Gcm, Aes256),
        (captured!("1.5.3-gcm128-conclusion"), captured!("1.5.3-gcm128-data"), Gcm, Aes128),
    ] {
        let (_, all) = read(conclusion);
        let message = all.key_request.unwrap();
        let material = KeyMaterial::parse(message).unwrap();
        assert_eq!((material.cipher, material.length), (cipher, length));
        let kek = derive(&passphrase("opensesame!"), material.salt);
        let legacy = all.request.unwrap().version <= Version::LAST_LEGACY_GCM;
        let (sender, receiver) = material.keys(&kek, RefreshPlan::default(), legacy).unwrap();

        let Packet::Data(header, payload) = packet(data) else { panic!() };
        assert_ne!(header.destination, SocketId(0));
        let mut payload = payload.to_vec();
        let bytes = data.first_chunk().unwrap();
        assert_eq!(receiver.open(bytes, header.key, &mut payload), Some(188), "{cipher:?} {length:?}");
        assert_eq!(payload[..188], clear);
        // and this side would have sent the same bytes
        let mut sealed = vec![0; payload.len()];
        let count = sender.key(header.key).unwrap().seal(bytes, &clear, &mut sealed);
        assert_eq!((count, sealed.as_slice()), (Some(sealed.len()), &data[HEADER..]));
        let other = derive(&passphrase("openbarley!"), material.salt);
        assert!(material.keys(&other, RefreshPlan::default(), legacy).is_err());
    }
}
