//! Datagrams: a receiver that keeps all it hears, a sender that keeps a rate.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Listens on a socket, on a thread of its own, and keeps every datagram.
pub(crate) struct Receiver {
    addr: SocketAddr,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// On a free port of 127.0.0.1.
    pub(crate) fn new() -> Self {
        Self::on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    /// On a socket that is already bound, and joined to its groups.
    pub(crate) fn on(socket: UdpSocket) -> Self {
        // Root may exceed the kernel's limit; for others the default has to do.
        let wide = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
        if wide.is_err() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER).expect("SO_RCVBUF");
        }
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("SO_RCVTIMEO");
        let addr = socket.local_addr().expect("bound");
        let datagrams = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (datagrams, stop) = (Arc::clone(&datagrams), Arc::clone(&stop));
            move || {
                let mut buffer = vec![0; 65536];
                while !stop.load(Relaxed) {
                    if let Ok(length) = socket.recv(&mut buffer) {
                        datagrams.lock().push(buffer[..length].to_vec());
                    }
                }
            }
        });
        Self { addr, datagrams, stop, thread: Some(thread) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `udp://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("udp://{}", self.addr)
    }

    /// Every datagram so far.
    pub(crate) fn datagrams(&self) -> Vec<Vec<u8>> {
        self.datagrams.lock().clone()
    }

    /// How many datagrams have come so far.
    pub(crate) fn count(&self) -> usize {
        self.datagrams.lock().len()
    }

    /// Forgets what has come so far.
    pub(crate) fn clear(&self) {
        self.datagrams.lock().clear();
    }

    /// The payload in the order of arrival, once there are `length` bytes of it.
    pub(crate) fn payload(&self, length: usize) -> Vec<u8> {
        self.payload_behind(0, length)
    }

    /// The same behind a header of so many bytes in each datagram (12 for RTP without extensions).
    pub(crate) fn payload_behind(&self, header: usize, length: usize) -> Vec<u8> {
        let bytes = || -> Vec<u8> {
            self.datagrams.lock().iter().flat_map(|d| d.get(header..).unwrap_or_default()).copied().collect()
        };
        let total = || self.datagrams.lock().iter().map(|d| d.len().saturating_sub(header)).sum::<usize>();
        let what = format!("{length} bytes on {}", self.addr);
        super::wait_for(&what, || (total() >= length).then(bytes))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the receiver on {} panicked", self.addr);
        }
    }
}

/// Sends `bytes` to `to` in datagrams of `size` bytes at `mbps`, and returns when the last one has left.
pub(crate) fn send_paced(to: SocketAddr, bytes: &[u8], size: usize, mbps: f64) {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).expect("a free port");
    let start = Instant::now();
    let mut sent = 0;
    for datagram in bytes.chunks(size) {
        let due = start + Duration::from_secs_f64(sent as f64 * 8.0 / (mbps * 1e6));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // An ICMP error for an earlier datagram shows here; this one is still to be sent.
        if socket.send_to(datagram, to).is_err() {
            socket.send_to(datagram, to).expect("a datagram to leave");
        }
        sent += datagram.len();
    }
}

/// A UDP and TCP port of 127.0.0.1 that nobody uses now.
pub(crate) fn free_port() -> u16 {
    super::wait_for("a free port", || {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let port = udp.local_addr().ok()?.port();
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    })
}

const RECEIVE_BUFFER: usize = 8 << 20;
