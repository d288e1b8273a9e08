//! Errors that come back to the sockets of a shard, on a real socket and simulated time.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::net::{Poller, PortOptions, SendOptions};

const MS: Nanos = 1_000_000;

#[test]
fn an_error_that_came_back_wakes_the_thread_once() {
    let mut poller = Poller::new().unwrap();
    let wakes = Wakes { bell: poller.doorbell(), sockets: poller.sockets().clone() };
    let (notices, _told) = mpsc::channel(8);
    let mut ports = Ports::new(wakes, notices, Arc::default());
    let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let options = PortOptions { local, way: SendOptions::default(), buffer: 1 << 20 };
    let port = ports.port(options, MS).unwrap();
    let closed = UdpSocket::bind(local).unwrap().local_addr().unwrap();
    let mut woken = 0;
    for step in 1..=200 {
        let now = step * 10 * MS;
        if step % 40 == 1 {
            ports.reply(port, closed, b"is anybody there?");
        }
        poller.wait(Some(Duration::ZERO), |token| {
            woken += 1;
            ports.readable(token, now);
        });
        ports.walk(now, &mut |_| 0);
    }
    assert!((1..=10).contains(&woken), "woken {woken} times for five errors");
    // It still hears.
    let of_port = ports.ports[port].as_ref().unwrap().socket.local_addr();
    UdpSocket::bind(local).unwrap().send_to(b"data", of_port).unwrap();
    let before = woken;
    poller.wait(Some(Duration::from_secs(5)), |_| woken += 1);
    assert_eq!(woken, before + 1);
}
