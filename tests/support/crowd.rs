//! Hundreds of receivers on one thread: each follows what was sent byte by byte, and keeps none of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use super::marks::is_mark;

/// Sockets that all expect the same bytes.
pub(crate) struct Crowd {
    addrs: Vec<SocketAddr>,
    followers: Arc<Mutex<Vec<Follower>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How far one of them has come.
#[derive(Clone, Copy, Default)]
struct Follower {
    /// A mark came.
    ready: bool,
    at: usize,
    /// Where the first datagram came that was not what was due.
    wrong: Option<usize>,
}

impl Crowd {
    /// So many sockets on 127.0.0.1, each of which shall get `source`, again and again, perhaps with marks
    /// between datagrams. `source` is whole datagrams long.
    pub(crate) fn new(count: usize, source: &[u8]) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), count, source)
    }

    /// The same on another address.
    pub(crate) fn on(address: IpAddr, count: usize, source: &[u8]) -> Self {
        let sockets: Vec<UdpSocket> = (0..count)
            .map(|_| {
                let socket = UdpSocket::bind((address, 0)).expect("a free port");
                super::udp::widen(&socket);
                socket.set_nonblocking(true).expect("O_NONBLOCK");
                socket
            })
            .collect();
        let addrs = sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        let followers = Arc::new(Mutex::new(vec![Follower::default(); count]));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (followers, stop, source) = (Arc::clone(&followers), Arc::clone(&stop), source.to_vec());
            move || {
                while !stop.load(Relaxed) {
                    sweep(&sockets, &mut followers.lock(), &source);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { addrs, followers, stop, thread: Some(thread) }
    }

    /// The addresses, in the order in which `strays` counts.
    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Whether every one has seen a mark.
    pub(crate) fn is_ready(&self) -> bool {
        self.followers.lock().iter().all(|follower| follower.ready)
    }

    /// The least that one of them has got, in bytes.
    pub(crate) fn least(&self) -> usize {
        self.followers.lock().iter().map(|follower| follower.at).min().unwrap_or(0)
    }

    /// Those that got something else than was due, and where.
    pub(crate) fn strays(&self) -> Vec<(usize, usize)> {
        let followers = self.followers.lock();
        followers.iter().enumerate().filter_map(|(i, follower)| Some((i, follower.wrong?))).collect()
    }

    /// Waits until every one has got `length` bytes, all of them right.
    pub(crate) fn expect(&self, length: usize) {
        super::wait_for_or("all to get all", || {
            let strays = self.strays();
            assert!(strays.is_empty(), "receiver and place: {strays:?}");
            (self.least() >= length).then_some(())
        })
        .unwrap_or_else(|why| {
            let short: Vec<(usize, usize)> = self
                .followers
                .lock()
                .iter()
                .map(|f| f.at)
                .enumerate()
                .filter(|(_, at)| *at < length)
                .collect();
            panic!("{why}; of {length} bytes these have less: {short:?}")
        });
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the crowd panicked");
        }
    }
}

fn sweep(sockets: &[UdpSocket], followers: &mut [Follower], source: &[u8]) {
    let mut buffer = [0; 2048];
    for (socket, follower) in sockets.iter().zip(followers) {
        // What came back (an ICMP error) is no datagram; the next call is.
        while let Ok(length) = socket.recv(&mut buffer) {
            let datagram = &buffer[..length];
            if is_mark(datagram) {
                follower.ready = true;
            } else if source.get(follower.at % source.len()..).is_some_and(|s| s.starts_with(datagram)) {
                follower.at += length;
            } else {
                follower.wrong.get_or_insert(follower.at);
            }
        }
    }
}
