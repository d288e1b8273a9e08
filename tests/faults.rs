//! What breaks around the engine stays where it breaks: outputs that are slow or dead, paths that narrow, senders
//! that mix, interfaces and sources that vanish and return.
#![allow(clippy::disallowed_methods, reason = "tests run in real time")]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::{
    Crowd, Engine, Flow, Netns, Receiver, Sender, between, connect, free_port, holds, knock, loopable, mark,
    require, wait_for,
};

/// Adds an output for every socket of the crowd and waits until all are served.
fn serve(engine: &Engine, input: u64, crowd: &Crowd, sender: &mut Sender) {
    for addr in crowd.addrs() {
        engine.add_output(input, &addr.to_string(), &format!("udp://{addr}"));
    }
    knock(0, |mark| sender.send(mark), || crowd.is_ready());
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn messages(engine: &Engine, path: &str) -> Vec<String> {
    let logs = engine.get(&format!("{path}/logs"));
    let entries = logs.as_array().expect("a list").iter();
    entries.map(|entry| entry["message"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn a_closed_port_says_so_and_costs_nobody_a_datagram() {
    let engine = Engine::start();
    let (port, source) = (free_port(), loopable("h264_sync.ts"));
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let crowd = Crowd::new(200, &source);
    // Nobody else binds to this address of loopback.
    let closed: SocketAddr = ([127, 7, 7, 7], free_port()).into();
    let refused = engine.add_output(input, "closed", &format!("udp://{closed}"));
    let mut sender = Sender::new(local(port));
    serve(&engine, input, &crowd, &mut sender);
    let flow = Flow::from(sender, &source, 2.0);
    let told = engine.wait(&refused, "the refusal", |o| o["reason"] == "peer refuses (ICMP)");
    assert_eq!((&told["state"], &told["status"]), (&json!("Sending"), &json!("running")));
    let counts = |o: &Value| o["stats"]["icmp_errors"].as_u64() > Some(0);
    engine.wait(&refused, "ICMP errors", counts);
    // Whoever opens the port at last is served at once.
    let late = Receiver::on(UdpSocket::bind(closed).expect("a port of 127.7.7.7"));
    wait_for("datagrams at the late one", || (late.count() > 100).then_some(()));
    engine.wait(&refused, "no refusal", |o| o["state"] == "Sending" && o["reason"] == "");
    crowd.expect(flow.stop());
    assert_eq!(engine.get(&refused)["reconnect_count"], 0);
}

#[test]
fn slow_and_dead_outputs_harm_no_other() {
    require!("ip", "tc");
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect(&here, &there, 1);
    connect(&here, &there, 2);
    let shaped = here
        .command("tc")
        .args("qdisc add dev veth1 root tbf rate 300kbit burst 5kb limit 20kb".split(' '))
        .status();
    assert!(shaped.expect("tc").success());
    here.ip("route add unreachable 198.51.100.0/24");
    here.ip("route add 203.0.113.0/24 via 10.77.2.2");
    let source = loopable("h264_sync.ts");
    let far = there.run(|| Crowd::on(IpAddr::from([10, 77, 2, 2]), 20, &source));
    let slow = there.run(|| Receiver::on(UdpSocket::bind("10.77.1.2:0").expect("a port")));
    here.run(|| {
        let engine = Engine::with("reconnect: {delay_s: 1}\n");
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let near = Crowd::new(180, &source);
        let add = |name: &str, to: &str| engine.add_output(input, name, &format!("udp://{to}"));
        let narrow = add("slow", &slow.addr().to_string());
        let nobody = add("nobody answers on the link", "10.77.2.99:5000");
        let closed = add("closed beyond the link", "10.77.2.2:9");
        let unreachable = add("unreachable", "198.51.100.1:5000");
        let no_route = add("no route", "192.0.2.1:5000");
        let lost = add("the route goes", "203.0.113.1:5000");
        let mut sender = Sender::new(local(port));
        serve(&engine, input, &near, &mut sender);
        serve(&engine, input, &far, &mut sender);
        let flow = Flow::from(sender, &source, 2.0);
        for path in [&unreachable, &no_route] {
            let output = engine.wait(path, "retries", |o| o["reconnect_count"].as_u64() > Some(0));
            assert_eq!(output["status"], "reconnecting", "{output}");
            let error = output["last_error"].as_str().expect("an error");
            assert!(error.starts_with("no route to "), "{error}");
        }
        for path in [&nobody, &closed] {
            let refused = |o: &Value| o["state"] == "Sending" && o["reason"] == "peer refuses (ICMP)";
            engine.wait(path, "the refusal", refused);
        }
        engine.wait(&lost, "the way", |o| o["state"] == "Sending");
        here.ip("route del 203.0.113.0/24");
        engine.wait(&lost, "the end of the way", |o| o["status"] == "reconnecting");
        engine.wait(&narrow, "losses at the slow one", |o| o["stats"]["send_errors"].as_u64() > Some(100));
        assert!(messages(&engine, &narrow).iter().any(|m| m.starts_with("the kernel refuses to send")));
        // More than one round of the source.
        wait_for("a whole round", || (near.least() > source.len()).then_some(()));
        let sent = flow.stop();
        near.expect(sent);
        far.expect(sent);
        assert!(slow.count() > 0 && slow.bytes().len() < sent);
    });
}

#[test]
fn a_path_that_carries_less_gets_smaller_datagrams_and_loses_nothing() {
    require!("ip");
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect(&here, &there, 1);
    here.ip("link set veth1 mtu 1000");
    there.ip("link set veth1 mtu 1000");
    let source = loopable("h265_sync.ts");
    let bind = || UdpSocket::bind("10.77.1.2:0").expect("a port");
    let (udp, rtp, late) = there.run(|| (Receiver::on(bind()), Receiver::on(bind()), Receiver::on(bind())));
    here.run(|| {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let crowd = Crowd::new(50, &source);
        // The header takes the place of nothing here: 5 × 188 + 12 + 28 = 980.
        let outputs = [
            engine.add_output(input, "udp", &format!("{}?delay_ms=0", udp.url())),
            engine.add_output(input, "rtp", &format!("rtp://{}", rtp.addr())),
            engine.add_output(input, "late", &format!("{}?delay_ms=40", late.url())),
        ];
        let mut sender = Sender::new(local(port));
        serve(&engine, input, &crowd, &mut sender);
        let heard = || [&udp, &rtp, &late].iter().all(|r| r.count() > 0);
        knock(0, |mark| sender.send(mark), heard);
        sender.send_paced(&source, 1316, 4.0);
        knock(1, |mark| sender.send(mark), || holds(1, &udp.bytes()) && holds(1, &late.bytes()));
        let payload = || -> Vec<u8> { rtp.datagrams().iter().flat_map(|d| d[12..].to_vec()).collect() };
        wait_for("the end", || holds(1, &payload()).then_some(()));
        for (name, bytes) in [("udp", udp.bytes()), ("rtp", payload()), ("late", late.bytes())] {
            let got = between(0, 1, &bytes).expect("both marks");
            assert!(got == source, "{name}: {} of {} bytes, or others", got.len(), source.len());
        }
        assert!(udp.datagrams().iter().all(|d| d.len() <= 5 * 188));
        crowd.expect(source.len());
        let flow = Flow::from(sender, &source, 2.0);
        for path in outputs {
            let why = "5 packets per datagram: the path carries no more";
            let output = engine.wait(&path, "the reason", |o| o["reason"] == why);
            assert_eq!(output["stats"]["packets_per_datagram"], 5);
            assert_eq!(output["stats"]["send_errors"], 0);
            let logged = messages(&engine, &path);
            assert!(logged.iter().any(|m| m.contains("smaller datagrams: 5 packets in each")), "{logged:?}");
        }
        crowd.expect(source.len() + flow.stop());
    });
}

#[test]
fn a_router_that_carries_less_is_believed() {
    require!("ip");
    let (Some(here), Some(router), Some(there)) = (Netns::new(), Netns::new(), Netns::new()) else { return };
    connect(&here, &router, 1);
    connect(&router, &there, 2);
    router.ip("link set veth2 mtu 800");
    let forward = router.command("sh").args(["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]).status();
    assert!(forward.expect("sh").success());
    here.ip("route add default via 10.77.1.2");
    there.ip("route add default via 10.77.2.1");
    let source = loopable("h265_sync.ts");
    let far = there.run(|| Receiver::on(UdpSocket::bind("10.77.2.2:0").expect("a port")));
    here.run(|| {
        let engine = Engine::start();
        let port = free_port();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
        let output = engine.add_output(input, "far", &far.url());
        let mut sender = Sender::new(local(port));
        knock(0, |mark| sender.send(mark), || far.count() > 0);
        // What is under way when the router refuses is lost; then the path is known.
        sender.send_paced(&source, 1316, 4.0);
        engine.wait(&output, "four packets", |o| o["stats"]["packets_per_datagram"] == 4);
        knock(2, |mark| sender.send(mark), || holds(2, &far.bytes()));
        sender.send_paced(&source, 1316, 4.0);
        knock(3, |mark| sender.send(mark), || holds(3, &far.bytes()));
        assert!(between(2, 3, &far.bytes()).expect("both marks") == source);
    });
}

#[test]
fn more_neighbours_than_the_kernel_remembers_are_named() {
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect(&here, &there, 1);
    here.ip("addr add 10.78.0.1/16 dev veth1");
    here.run(|| {
        let limit = millrace::net::neighbour_limit(false);
        if limit > 4096 {
            return support::skipped(&format!("the table holds {limit} neighbours"));
        }
        let engine = Engine::start();
        let input = engine.add_input("in", &format!("udp://127.0.0.1:{}", free_port()));
        let address = |i: usize| format!("10.78.{}.{}", 1 + i / 250, 1 + i % 250);
        let warned = || engine.log().matches("on-link neighbours").count();
        let add = |i: usize| engine.add_output(input, &format!("{i}"), &format!("udp://{}:5000", address(i)));
        let outputs: Vec<String> = (0..limit).map(add).collect();
        // A second output to a neighbour, or one beyond a router, takes no place.
        engine.add_output(input, "again", &format!("udp://{}:5001", address(0)));
        let loopback = engine.add_output(input, "loopback", "udp://127.0.0.1:5001");
        outputs.iter().chain([&loopback]).for_each(|output| drop(engine.wait_state(output, "Starved")));
        assert_eq!(warned(), 0);
        // One that leaves makes room for another.
        engine.delete(&outputs[7]);
        let next = add(limit);
        engine.wait_state(&next, "Starved");
        assert_eq!(warned(), 0);
        (limit + 1..limit + 4).for_each(|i| drop(engine.wait_state(&add(i), "Starved")));
        assert_eq!(warned(), 1, "once, and not for each");
        assert!(engine.log().contains("gc_thresh3"));
    });
}

#[test]
fn what_is_missing_in_the_stream_is_counted_for_its_input() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let mut sender = Sender::new(local(port));
    sender.send_marked(0, &loopable("h264_cc_loss.ts"), 1316, 20.0, &[&receiver]);
    let path = format!("/api/inputs/{input}");
    let counted = engine.wait(&path, "continuity errors", |i| i["stats"]["continuity_errors"] != 0);
    assert_eq!(counted["stats"]["continuity_errors"], 12);
    assert_eq!(engine.get(&format!("{path}/report"))["stream"]["continuity_errors"], 12);
}

#[test]
fn two_groups_on_one_port_do_not_mix() {
    let engine = Engine::start();
    let port = free_port();
    let groups = [Ipv4Addr::new(239, 255, 18, 1), Ipv4Addr::new(239, 255, 18, 2)];
    let streams = [loopable("h264_async.ts"), loopable("h265_async.ts")];
    let receivers = [Receiver::new(), Receiver::new()];
    let mut senders = Vec::new();
    for (group, receiver) in groups.iter().zip(&receivers) {
        let input = engine.add_input(&group.to_string(), &format!("udp://{group}:{port}?interface=lo"));
        engine.add_output(input, "out", &receiver.url());
        senders.push(Sender::on(multicaster(Ipv4Addr::LOCALHOST), (*group, port).into()));
    }
    std::thread::scope(|scope| {
        for ((mut sender, stream), receiver) in senders.into_iter().zip(&streams).zip(&receivers) {
            scope.spawn(move || sender.send_marked(0, stream, 1316, 4.0, &[receiver]));
        }
    });
    for (receiver, stream) in receivers.iter().zip(&streams) {
        assert!(between(0, 1, &receiver.bytes()).expect("both marks") == stream);
    }
}

#[test]
fn a_second_sender_is_refused_and_named_until_the_first_is_silent() {
    let engine = Engine::start();
    let (port, source) = (free_port(), loopable("h265_sync.ts"));
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}?stall_after=1"));
    let path = format!("/api/inputs/{input}");
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let (mut first, mut second) = (Sender::new(local(port)), Sender::new(local(port)));
    let (one, other) = (first.addr().port(), second.addr().port());
    knock(0, |mark| first.send(mark), || receiver.count() > 0);
    let flow = Flow::from(first, &source, 2.0);
    for _ in 0..40 {
        second.send(&mark(5));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    engine.wait(&path, "all of them counted", |i| i["stats"]["foreign_datagrams"] == 40);
    let senders = json!({
        "current": format!("127.0.0.1:{one}"),
        "foreign": [{"address": format!("127.0.0.1:{other}"), "count": 40}],
    });
    engine.wait(&format!("{path}/report"), "the names", |report| report["senders"] == senders);
    let sent = flow.stop();
    wait_for("what the first one sent", || (receiver.bytes().len() >= sent + 188).then_some(()));
    assert!(!holds(5, &receiver.bytes()));
    engine.wait_state(&path, "Stalled");
    second.send(&mark(6));
    wait_for("what the second one sends", || holds(6, &receiver.bytes()).then_some(()));
    engine.wait_state(&path, "Live");
    let now = format!("127.0.0.1:{other}");
    engine.wait(&format!("{path}/report"), "the second", |report| report["senders"]["current"] == now);
}

#[test]
fn a_sender_that_is_named_is_the_only_one() {
    let engine = Engine::start();
    let port = free_port();
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}?source=127.0.0.3"));
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let from =
        |ip: [u8; 4]| Sender::on(UdpSocket::bind((Ipv4Addr::from(ip), 0)).expect("a port"), local(port));
    let (mut stranger, mut named) = (from([127, 0, 0, 2]), from([127, 0, 0, 3]));
    let both = |bytes: &[u8]| {
        stranger.send(&mark(7));
        named.send(bytes);
    };
    knock(0, both, || holds(0, &receiver.bytes()));
    assert!(!holds(7, &receiver.bytes()));
    let counted = |i: &Value| i["stats"]["foreign_datagrams"].as_u64() > Some(0);
    engine.wait(&format!("/api/inputs/{input}"), "the stranger counted", counted);
}

/// A socket that sends groups out by the interface that has this address.
fn multicaster(interface: Ipv4Addr) -> UdpSocket {
    let socket = UdpSocket::bind((interface, 0)).expect("a port");
    SockRef::from(&socket).set_multicast_if_v4(&interface).expect("IP_MULTICAST_IF");
    socket
}

/// A socket that gets this group from the interface that has this address.
fn join(group: Ipv4Addr, port: u16, interface: Ipv4Addr) -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    socket.bind(&SocketAddr::from((group, port)).into()).expect("the port of the group");
    socket.join_multicast_v4(&group, &interface).expect("a group");
    socket.into()
}

const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

#[test]
fn source_specific_multicast_hears_one_source() {
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect(&here, &there, 1);
    there.ip("addr add 10.77.1.3/24 dev veth1");
    let (group, port) = (Ipv4Addr::new(232, 1, 1, 1), 5000);
    here.run(|| {
        let engine = Engine::start();
        let url = format!("udp://{group}:{port}?interface=veth1&source={THERE}");
        let input = engine.add_input("in", &url);
        let receiver = Receiver::new();
        engine.add_output(input, "out", &receiver.url());
        let from = |ip: Ipv4Addr| there.run(|| Sender::on(multicaster(ip), (group, port).into()));
        let (mut wanted, mut other) = (from(THERE), from(Ipv4Addr::new(10, 77, 1, 3)));
        let both = |bytes: &[u8]| {
            other.send(&mark(9));
            wanted.send(bytes);
        };
        knock(0, both, || holds(0, &receiver.bytes()));
        assert!(!holds(9, &receiver.bytes()));
    });
}

#[test]
fn an_interface_that_is_made_again_is_used_again() {
    let (Some(here), Some(there)) = (Netns::new(), Netns::new()) else { return };
    connect(&here, &there, 1);
    let (inward, outward, port) = (Ipv4Addr::new(239, 1, 2, 3), Ipv4Addr::new(239, 1, 2, 4), 5000);
    let send = || there.run(|| Sender::on(multicaster(THERE), (inward, port).into()));
    let listen = || there.run(|| Receiver::on(join(outward, port, THERE)));
    here.run(|| {
        let engine = Engine::with("reconnect: {delay_s: 1}\ninput: {stall_after_s: 0.5}\n");
        let input = engine.add_input("group", &format!("udp://{inward}:{port}?interface=veth1"));
        let path = format!("/api/inputs/{input}");
        let receiver = Receiver::new();
        let steady = engine.add_output(input, "steady", &receiver.url());
        let back = engine.add_output(input, "back", &format!("udp://{outward}:{port}?interface=veth1"));
        let (mut sender, mut far) = (send(), listen());
        for round in 0..3 {
            let all = || holds(round, &receiver.bytes()) && holds(round, &far.bytes());
            knock(round, |mark| sender.send(mark), all);
            engine.wait_state(&path, "Live");
            here.ip("link del veth1");
            let gone = engine.wait(&path, "its loss", |i| i["status"] == "error");
            assert_eq!(gone["desired"], "running");
            // The steady one waits, connected; the other one may have noticed nothing: nothing is sent.
            engine.wait_state(&steady, "Starved");
            connect(&here, &there, 1);
            (sender, far) = (send(), listen());
        }
        knock(9, |mark| sender.send(mark), || holds(9, &receiver.bytes()) && holds(9, &far.bytes()));
        assert_eq!(engine.get(&steady)["reconnect_count"], 0);
        engine.wait_state(&back, "Sending");
    });
}

#[test]
fn outputs_wait_for_a_lost_input_and_go_on_with_its_first_packet() {
    let engine = Engine::with("input: {stall_after_s: 0.5}\n");
    let (port, source) = (free_port(), loopable("h264_sync.ts"));
    let input = engine.add_input("in", &format!("udp://127.0.0.1:{port}"));
    let path = format!("/api/inputs/{input}");
    let crowd = Crowd::new(20, &source);
    let receivers = [Receiver::new(), Receiver::rtp()];
    let outputs = receivers.each_ref().map(|r| engine.add_output(input, &r.url(), &r.url()));
    let fresh = engine.wait(&path, "a socket", |i| i["reason"] == "waiting for the first packet");
    assert_eq!((&fresh["state"], &fresh["status"]), (&json!("Idle"), &json!("inactive")));
    let mut sender = Sender::new(local(port));
    serve(&engine, input, &crowd, &mut sender);
    knock(0, |mark| sender.send(mark), || receivers.iter().all(|r| r.count() > 0));
    let third = source.len() / 1316 / 3 * 1316;
    let mut sent = 0;
    for part in [&source[..third], &source[third..2 * third], &source[2 * third..]] {
        sender.send_paced(part, 1316, 4.0);
        let live = engine.wait_state(&path, "Live");
        assert_eq!(live["status"], "active");
        outputs.iter().for_each(|output| drop(engine.wait_state(output, "Sending")));
        sent += part.len();
        crowd.expect(sent);
        let lost = engine.wait_state(&path, "Stalled");
        assert_eq!(lost["status"], "error");
        assert!(lost["reason"].as_str().is_some_and(|r| r.starts_with("no packet for ")), "{lost}");
        for output in &outputs {
            let waiting = engine.wait_state(output, "Starved");
            assert_eq!((&waiting["status"], &waiting["reconnect_count"]), (&json!("running"), &json!(0)));
        }
    }
    knock(1, |mark| sender.send(mark), || receivers.iter().all(|r| holds(1, &r.bytes())));
    for receiver in &receivers {
        assert!(between(0, 1, &receiver.bytes()).expect("both marks") == source);
    }
}

#[test]
fn a_group_that_was_silent_is_heard_again() {
    let engine = Engine::with("input: {stall_after_s: 0.2}\n");
    let (port, group, source) = (free_port(), Ipv4Addr::new(239, 255, 18, 3), loopable("h264_sync.ts"));
    let input = engine.add_input("in", &format!("udp://{group}:{port}?interface=lo"));
    let path = format!("/api/inputs/{input}");
    let receiver = Receiver::new();
    engine.add_output(input, "out", &receiver.url());
    let send = || Sender::on(multicaster(Ipv4Addr::LOCALHOST), (group, port).into());
    let mut sender = send();
    knock(0, |mark| sender.send(mark), || receiver.count() > 0);
    engine.wait(&path, "several joins", |i| i["reconnect_count"].as_u64() > Some(2));
    receiver.clear();
    let flow = Flow::from(send(), &source, 2.0);
    wait_for("half a round", || (receiver.bytes().len() > source.len() / 2).then_some(()));
    engine.wait_state(&path, "Live");
    let sent = flow.stop();
    // It came back in the middle of something, and from there on nothing is missing.
    let all: Vec<u8> = source.iter().copied().cycle().take(sent).collect();
    wait_for("the end", || all.ends_with(&receiver.bytes()).then_some(()));
}
