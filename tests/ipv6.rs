//! IPv6 on real links: unicast and groups across an interface, and paths that carry less than a full datagram.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use millrace::net::interface_index;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::{
    Engine, Netns, Receiver, Sender, between, connect, free_port, holds, knock, loopable, require, wait_for,
};

/// Joins two namespaces; `a` is fd77:{net}::1, `b` is fd77:{net}::2.
fn connect_v6(a: &Netns, b: &Netns, net: u8) {
    connect(a, b, net);
    for (netns, host) in [(a, 1), (b, 2)] {
        netns.ip(&format!("addr add fd77:{net}::{host}/64 dev veth{net} nodad"));
    }
}

fn address(net: u16, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, net, 0, 0, 0, 0, 0, host)
}

fn bind(net: u16, host: u16) -> Receiver {
    Receiver::on(UdpSocket::bind((address(net, host), 0)).expect("a port"))
}

fn veth1() -> u32 {
    interface_index("veth1").expect("an interface")
}

/// A socket that sends groups out by `veth1`.
fn multicaster(source: Ipv6Addr) -> UdpSocket {
    let socket = UdpSocket::bind((source, 0)).expect("a port");
    SockRef::from(&socket).set_multicast_if_v6(veth1()).expect("IPV6_MULTICAST_IF");
    socket
}

/// A socket that gets this group from `veth1`.
fn join(group: Ipv6Addr, port: u16) -> UdpSocket {
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&SocketAddr::from((group, port)).into()).expect("the port of the group");
    socket.join_multicast_v6(&group, veth1()).expect("a group");
    socket.into()
}

/// Payload behind the RTP headers.
fn payload(receiver: &Receiver) -> Vec<u8> {
    receiver.datagrams().iter().flat_map(|d| d[12..].to_vec()).collect()
}

#[test]
fn unicast_crosses_a_link_both_ways() {
    require!("ip");
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect_v6(&here, &there, 1);
    let source = loopable("h264_sync.ts");
    let (udp, rtp) = there.run(|| (bind(1, 2), bind(1, 2)));
    here.run(|| {
        let engine = Engine::start();
        let port = free_port();
        // On every address, as most encoders are configured.
        let input = engine.add_input("in", &format!("udp://[::]:{port}"));
        let outputs = [
            engine.add_output(input, "udp", &format!("{}?ttl=3&dscp=34", udp.url())),
            engine.add_output(input, "rtp", &format!("rtp://{}?interface=veth1", rtp.addr())),
        ];
        let mut sender = there.run(|| Sender::new((address(1, 1), port).into()));
        let rtp_holds = |number| holds(number, &payload(&rtp));
        knock(0, |mark| sender.send(mark), || holds(0, &udp.bytes()) && rtp_holds(0));
        sender.send_paced(&source, 1316, 8.0);
        knock(1, |mark| sender.send(mark), || holds(1, &udp.bytes()) && rtp_holds(1));
        assert!(between(0, 1, &udp.bytes()).expect("both marks") == source);
        assert!(between(0, 1, &payload(&rtp)).expect("both marks") == source);
        outputs.iter().for_each(|output| drop(engine.wait_state(output, "Sending")));
        let report = engine.get(&format!("/api/inputs/{input}/report"));
        let from = report["senders"]["current"].as_str().expect("a sender");
        assert!(from.parse::<SocketAddr>().is_ok_and(|from| from.ip() == address(1, 2)), "{from}");
    });
}

#[test]
fn groups_cross_a_link_both_ways() {
    require!("ip");
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect_v6(&here, &there, 1);
    there.ip("addr add fd77:1::3/64 dev veth1 nodad");
    let source = loopable("h265_sync.ts");
    let group = |last| Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0x77, last);
    let selective = Ipv6Addr::new(0xff35, 0, 0, 0, 0, 0, 0x77, 1);
    let port = 5000;
    here.run(|| {
        let engine = Engine::start();
        let input = engine.add_input("any", &format!("udp://[{}]:{port}?interface=veth1", group(1)));
        // The same port: what belongs to one group must not come in by the other.
        let other = engine.add_input("other", &format!("udp://[{}]:{port}?interface=veth1", group(2)));
        let one = format!("udp://[{selective}]:{port}?interface=veth1&source={}", address(1, 2));
        let one = engine.add_input("one source", &one);
        let (near, beside, selected) = (Receiver::new(), Receiver::new(), Receiver::new());
        engine.add_output(input, "near", &near.url());
        engine.add_output(other, "beside", &beside.url());
        engine.add_output(one, "selected", &selected.url());
        let out = group(9);
        engine.add_output(input, "group", &format!("udp://[{out}]:{port}?interface=veth1&ttl=2"));
        let far = there.run(|| Receiver::on(join(out, port)));
        let from =
            |host, to: Ipv6Addr| there.run(|| Sender::on(multicaster(address(1, host)), (to, port).into()));
        let mut sender = from(2, group(1));
        knock(0, |mark| sender.send(mark), || holds(0, &near.bytes()) && holds(0, &far.bytes()));
        sender.send_paced(&source, 1316, 8.0);
        knock(1, |mark| sender.send(mark), || holds(1, &near.bytes()) && holds(1, &far.bytes()));
        assert!(between(0, 1, &near.bytes()).expect("both marks") == source);
        assert!(between(0, 1, &far.bytes()).expect("both marks") == source);
        let mut second = from(2, group(2));
        knock(2, |mark| second.send(mark), || holds(2, &beside.bytes()));
        assert!(!holds(0, &beside.bytes()) && !holds(2, &near.bytes()));
        let (mut wanted, mut stranger) = (from(2, selective), from(3, selective));
        let both = |bytes: &[u8]| {
            stranger.send(&support::mark(9));
            wanted.send(bytes);
        };
        knock(3, both, || holds(3, &selected.bytes()));
        assert!(!holds(9, &selected.bytes()));
    });
}

#[test]
fn a_link_that_carries_less_gets_smaller_datagrams_and_loses_nothing() {
    require!("ip");
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect_v6(&here, &there, 1);
    // The least that IPv6 allows (RFC 8200, 5): 6 × 188 + 12 + 48 = 1188.
    [&here, &there].iter().for_each(|netns| netns.ip("link set veth1 mtu 1280"));
    let source = loopable("h265_sync.ts");
    let (udp, rtp, late) = there.run(|| (bind(1, 2), bind(1, 2), bind(1, 2)));
    here.run(|| {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let outputs = [
            engine.add_output(input, "udp", &format!("{}?delay_ms=0", udp.url())),
            engine.add_output(input, "rtp", &format!("rtp://{}", rtp.addr())),
            engine.add_output(input, "late", &format!("{}?delay_ms=40", late.url())),
        ];
        let mut sender = Sender::new(([127, 0, 0, 1], port).into());
        let all_hold = |number| {
            holds(number, &udp.bytes()) && holds(number, &payload(&rtp)) && holds(number, &late.bytes())
        };
        knock(0, |mark| sender.send(mark), || all_hold(0));
        sender.send_paced(&source, 1316, 4.0);
        knock(1, |mark| sender.send(mark), || all_hold(1));
        for (name, bytes) in [("udp", udp.bytes()), ("rtp", payload(&rtp)), ("late", late.bytes())] {
            let got = between(0, 1, &bytes).expect("both marks");
            assert!(got == source, "{name}: {} of {} bytes, or others", got.len(), source.len());
        }
        assert!(udp.datagrams().iter().all(|d| d.len() <= 6 * 188));
        for path in outputs {
            let output = engine.wait(&path, "six packets", |o| o["stats"]["packets_per_datagram"] == 6);
            assert_eq!(output["stats"]["send_errors"], 0);
        }
    });
}

#[test]
fn a_router_that_carries_less_is_believed() {
    require!("ip");
    let (Some(here), Some(router), Some(there)) = (Netns::new(), Netns::new(), Netns::new()) else { return };
    connect_v6(&here, &router, 1);
    connect_v6(&router, &there, 2);
    router.ip("link set veth2 mtu 1280");
    let forward =
        router.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]).status();
    assert!(forward.expect("sh").success());
    here.ip("-6 route add default via fd77:1::2");
    there.ip("-6 route add default via fd77:2::1");
    let source = loopable("h265_sync.ts");
    let far = there.run(|| Receiver::on(UdpSocket::bind((address(2, 2), 0)).expect("a port")));
    here.run(|| {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let output = engine.add_output(input, "far", &far.url());
        let mut sender = Sender::new(([127, 0, 0, 1], port).into());
        knock(0, |mark| sender.send(mark), || far.count() > 0);
        // What is under way when the router refuses (ICMPv6 Packet Too Big) is lost; then the path is known.
        wait_for("six packets in each", || {
            sender.send_paced(&source[..1316 * 40], 1316, 4.0);
            (engine.get(&output)["stats"]["packets_per_datagram"] == 6).then_some(())
        });
        knock(2, |mark| sender.send(mark), || holds(2, &far.bytes()));
        sender.send_paced(&source, 1316, 4.0);
        knock(3, |mark| sender.send(mark), || holds(3, &far.bytes()));
        assert!(between(2, 3, &far.bytes()).expect("both marks") == source);
        assert!(far.datagrams().iter().all(|d| d.len() <= 6 * 188));
    });
}
