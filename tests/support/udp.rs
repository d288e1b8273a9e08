//! Datagrams: a receiver that keeps all it hears, a sender that keeps a rate.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::marks::{holds, knock};

/// Listens on a socket, on a thread of its own, and keeps every datagram.
pub(crate) struct Receiver {
    addr: SocketAddr,
    /// Bytes in front of the payload of each datagram.
    header: usize,
    datagrams: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// On a free port of 127.0.0.1.
    pub(crate) fn new() -> Self {
        Self::on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
    }

    /// The same, for RTP without extensions.
    pub(crate) fn rtp() -> Self {
        Self::new().of_rtp()
    }

    /// The same receiver, for RTP without extensions.
    pub(crate) fn of_rtp(mut self) -> Self {
        self.header = RTP_HEADER;
        self
    }

    /// On a socket that is already bound, and joined to its groups.
    pub(crate) fn on(socket: UdpSocket) -> Self {
        widen(&socket);
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
        Self { addr, header: 0, datagrams, stop, thread: Some(thread) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `udp://127.0.0.1:PORT`, or `rtp://…`
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.header == 0 { "udp" } else { "rtp" }, self.addr)
    }

    /// The payload so far, in the order of arrival.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        payload(&self.datagrams.lock(), self.header)
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
        let bytes = || payload(&self.datagrams.lock(), header);
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

/// Sends from one socket, so that all it sends comes from one sender.
pub(crate) struct Sender {
    socket: UdpSocket,
    to: SocketAddr,
    rtp: Option<Rtp>,
}

/// What an RTP sender counts (RFC 3550, 5.1).
struct Rtp {
    ssrc: u32,
    sequence: u16,
}

impl Sender {
    pub(crate) fn new(to: SocketAddr) -> Self {
        let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        Self::on(UdpSocket::bind(any).expect("a free port"), to)
    }

    /// From a socket that is already bound.
    pub(crate) fn on(socket: UdpSocket, to: SocketAddr) -> Self {
        Self { socket, to, rtp: None }
    }

    /// Puts an RTP header of payload type 33 in front of each datagram; the sequence wraps soon.
    pub(crate) fn rtp(to: SocketAddr, ssrc: u32) -> Self {
        Self { rtp: Some(Rtp { ssrc, sequence: 65_500 }), ..Self::new(to) }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.socket.local_addr().expect("bound")
    }

    /// Sends one datagram.
    pub(crate) fn send(&mut self, payload: &[u8]) {
        let datagram = self.wrap(payload);
        self.send_raw(&datagram);
    }

    /// What `send` would send; the next one has the next number.
    pub(crate) fn wrap(&mut self, payload: &[u8]) -> Vec<u8> {
        let Some(rtp) = &mut self.rtp else { return payload.to_vec() };
        let mut datagram = vec![0x80, 33];
        datagram.extend(rtp.sequence.to_be_bytes());
        datagram.extend((u32::from(rtp.sequence) * 900).to_be_bytes());
        datagram.extend(rtp.ssrc.to_be_bytes());
        datagram.extend(payload);
        rtp.sequence = rtp.sequence.wrapping_add(1);
        datagram
    }

    /// Sends these bytes and nothing else.
    pub(crate) fn send_raw(&self, datagram: &[u8]) {
        // An ICMP error for an earlier datagram shows here; this one is still to be sent.
        if self.socket.send_to(datagram, self.to).is_err() {
            self.socket.send_to(datagram, self.to).expect("a datagram to leave");
        }
    }

    /// Sends `bytes` in datagrams of `size` bytes at `mbps`, and returns when the last one has left.
    pub(crate) fn send_paced(&mut self, bytes: &[u8], size: usize, mbps: f64) {
        self.send_all_paced(bytes.chunks(size), mbps);
    }

    /// Sends these datagrams at `mbps`, and returns when the last one has left.
    pub(crate) fn send_all_paced<'a>(&mut self, datagrams: impl IntoIterator<Item = &'a [u8]>, mbps: f64) {
        pace(datagrams, mbps, |datagram| self.send(datagram));
    }

    /// Sends `body` at `mbps` in datagrams of `size` bytes, with mark `2 * turn` in front and the next one behind,
    /// and returns when both marks are at every receiver.
    pub(crate) fn send_marked(&mut self, turn: u16, body: &[u8], size: usize, mbps: f64, at: &[&Receiver]) {
        let (first, last) = (2 * turn, 2 * turn + 1);
        let all_hold = |number| move || at.iter().all(|receiver| holds(number, &receiver.bytes()));
        knock(first, |mark| self.send(mark), all_hold(first));
        self.send_paced(body, size, mbps);
        knock(last, |mark| self.send(mark), all_hold(last));
    }
}

/// Sends `bytes` to `to` in datagrams of `size` bytes at `mbps`, and returns when the last one has left.
pub(crate) fn send_paced(to: SocketAddr, bytes: &[u8], size: usize, mbps: f64) {
    Sender::new(to).send_paced(bytes, size, mbps);
}

/// Hands these datagrams over at `mbps`, and returns after the last one.
pub(crate) fn pace<'a>(
    datagrams: impl IntoIterator<Item = &'a [u8]>,
    mbps: f64,
    mut send: impl FnMut(&'a [u8]),
) {
    let start = Instant::now();
    let mut sent = 0;
    for datagram in datagrams {
        let due = start + Duration::from_secs_f64(sent as f64 * 8.0 / (mbps * 1e6));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        send(datagram);
        sent += datagram.len();
    }
}

/// A UDP and TCP port of 127.0.0.1 that nobody uses now, and that neither the kernel nor another test gives away before
/// it is used: from below the range of ephemeral ports, in which every socket without a port of its own lands.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run side by side begin far from each other.
    let start = std::process::id().wrapping_mul(997);
    super::wait_for("a free port", || {
        let step = u32::from(NEXT.fetch_add(1, Relaxed));
        let port = PORTS.start + (start.wrapping_add(step) % PORTS.len() as u32) as u16;
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok().map(|_| port)
    })
}

/// Room for seconds of a stream, so that a busy machine loses nothing at the receiver.
pub(crate) fn widen(socket: &UdpSocket) {
    // Root may exceed the kernel's limit; for others the default has to do.
    let wide = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER);
    if wide.is_err() {
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER).expect("SO_RCVBUF");
    }
}

fn payload(datagrams: &[Vec<u8>], header: usize) -> Vec<u8> {
    datagrams.iter().flat_map(|d| d.get(header..).unwrap_or_default()).copied().collect()
}

const RECEIVE_BUFFER: usize = 8 << 20;
const RTP_HEADER: usize = 12;
/// Where [`free_port`] looks.
const PORTS: Range<u16> = 22_000..32_000;
