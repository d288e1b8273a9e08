//! Tests of the test support itself: a sender, a receiver or a namespace that lies would make others lie.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use support::{
    End, Engine, Netns, NetworkPath, Proxy, Receiver, Sender, Tool, between, connect, free_port, holds,
    knock, loopable, missing, peers, send_paced, sha256, streams,
};

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

/// `giver` sends to `taker` on a path, and everything comes out.
fn connect_over_srt(giver: Tool, taker: Tool, path: NetworkPath, body: &[u8]) -> Proxy {
    let at = (Ipv4Addr::LOCALHOST, free_port()).into();
    let secret =
        |end: End| if path.first_sequence.is_some() { end } else { end.locked("a secret of tests", 24) };
    let taker = taker.take(&secret(End::listener(at)));
    let proxy = Proxy::start(at, path);
    // ffmpeg dials once.
    std::thread::sleep(Duration::from_millis(500));
    let mut giver = giver.give(&secret(End::caller(proxy.addr()).with("streamid", "#!::r=cam,m=publish")));
    knock(0, |mark| giver.send(mark), || holds(0, &taker.bytes()));
    giver.send_paced(body, 2.0);
    knock(1, |mark| giver.send(mark), || holds(1, &taker.bytes()));
    assert_eq!(sha256(between(0, 1, &taker.bytes()).expect("both marks")), sha256(body));
    proxy
}

#[test]
fn programs_over_srt_give_and_take_byte_for_byte() {
    let body = &loopable("h264_sync.ts");
    std::thread::scope(|scope| {
        let tools = [(Tool::Transmit, Tool::Ffmpeg), (Tool::Ffmpeg, Tool::Gst), (Tool::Gst, Tool::Transmit)];
        for (giver, taker) in tools {
            if peers(giver.programs()) && peers(taker.programs()) {
                scope.spawn(move || connect_over_srt(giver, taker, NetworkPath::default(), body));
            }
        }
    });
}

#[test]
fn a_bad_network_loses_and_srt_mends_while_its_numbers_wrap() {
    if !peers(Tool::Transmit.programs()) {
        return;
    }
    let path = NetworkPath {
        loss: 0.05,
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(5),
        seed: 1,
        first_sequence: Some(0x8000_0000 - 300),
        ahead: 0u32.wrapping_sub(4_000_000),
    };
    let body = loopable("h264_sync.ts").repeat(3);
    let proxy = connect_over_srt(Tool::Transmit, Tool::Transmit, path, &body);
    let [data, lost, repeats] = {
        let traffic = proxy.traffic();
        [&traffic.data, &traffic.data_lost, &traffic.repeats].map(|count| count.load(Relaxed))
    };
    assert!(data as usize > body.len() / 1316, "{data}");
    assert!((data / 50..data / 10).contains(&lost), "{lost} of {data}");
    assert!(repeats >= lost / 2, "{repeats} repeats for {lost} lost");
}

#[test]
fn a_network_repeats_itself_and_can_be_cut() {
    let fates = |seed| -> Vec<u8> {
        let receiver = Receiver::new();
        let path = NetworkPath { loss: 0.5, seed, ..NetworkPath::default() };
        let proxy = Proxy::start(receiver.addr(), path);
        let mut sender = Sender::new(proxy.addr());
        (0..100).for_each(|number| sender.send(&[number; 20]));
        support::wait_for("all", || (proxy.traffic().data.load(Relaxed) == 100).then_some(()));
        proxy.cut(true);
        sender.send(&[100; 20]);
        support::wait_for("one more", || (proxy.traffic().data.load(Relaxed) == 101).then_some(()));
        receiver.datagrams().iter().map(|datagram| datagram[0]).collect()
    };
    let first = fates(1);
    assert!((25..75).contains(&first.len()) && !first.contains(&100), "{first:?}");
    assert_eq!(first, fates(1));
    assert_ne!(first, fates(2));
}
