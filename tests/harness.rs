//! Tests of the test support itself: a sender, a receiver or a namespace that lies would make others lie.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::UdpSocket;

use support::{Engine, Netns, Receiver, connect, missing, send_paced, sha256, streams};

#[test]
fn what_is_sent_is_received_byte_for_byte() {
    let streams = streams();
    assert_eq!(streams.len(), 14);
    for (name, bytes) in streams {
        let receiver = Receiver::new();
        send_paced(receiver.addr(), &bytes, 1316, 100.0);
        let payload = receiver.payload(bytes.len());
        assert_eq!(sha256(&payload), sha256(&bytes), "{name}");
        let sizes: Vec<usize> = receiver.datagrams().iter().map(Vec::len).collect();
        assert_eq!(sizes, bytes.chunks(1316).map(<[u8]>::len).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn the_digest_is_sha256() {
    // FIPS 180-2, appendix B.1.
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[test]
fn a_header_of_each_datagram_can_be_left_out() {
    let receiver = Receiver::new();
    send_paced(receiver.addr(), b"12ab12cd12e", 4, 100.0);
    assert_eq!(receiver.payload_behind(2, 5), b"abcde");
    receiver.clear();
    assert_eq!(receiver.count(), 0);
}

#[test]
fn a_missing_program_is_found_missing() {
    assert_eq!(missing(&["sh", "no-such-program"]), ["no-such-program"]);
}

#[test]
fn a_namespace_has_ports_of_its_own_and_leaves_with_its_owner() {
    let (Some(a), Some(b)) = (Netns::new(), Netns::new()) else { return };
    let outside = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let same = outside.local_addr().expect("bound");
    assert!(UdpSocket::bind(same).is_err());
    a.run(|| UdpSocket::bind(same).expect("the port is free in here"));

    connect(&a, &b, 1);
    let receiver = b.run(|| Receiver::on(UdpSocket::bind("10.77.1.2:0").expect("the address is there")));
    a.run(|| send_paced(receiver.addr(), b"across", 6, 1.0));
    assert_eq!(receiver.payload(6), b"across");

    let path = std::path::PathBuf::from(format!("/run/netns/{}", a.name()));
    assert!(path.exists());
    drop(a);
    assert!(!path.exists());
}

#[test]
fn an_engine_that_does_not_start_is_told_apart_from_one_that_does() {
    assert!(Engine::try_with("no_such_key: 1\n").is_err());
}
