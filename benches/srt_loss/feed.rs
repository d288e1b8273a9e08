//! The feed: one stream, sent to every sender at once, datagram by datagram.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::stream::{DATAGRAM, Stream};
use crate::{Result, sys};

/// A feed that goes on until it is dropped.
pub(crate) struct Feed {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Feed {
    /// Starts to send.
    pub(crate) fn start(to: Vec<SocketAddrV4>) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = thread::spawn(move || send(&socket, &to, &counter, &stopped));
        Ok(Self { sent, stop, thread: Some(thread) })
    }

    /// The counter of the next datagram.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// The receivers of one moment are evenly spread over it.
fn send(socket: &UdpSocket, to: &[SocketAddrV4], sent: &AtomicU64, stop: &AtomicBool) {
    sys::sleep_precisely();
    let stream = Stream::new(MEGABITS_PER_SECOND, true);
    let step = stream.period() / to.len().max(1) as f64;
    let start = sys::now();
    let mut datagram = [0; DATAGRAM];
    for event in 0.. {
        let (counter, place) = (event / to.len() as u64, event as usize % to.len());
        let due = start + (event as f64 * step) as u64;
        thread::sleep(Duration::from_nanos(due.saturating_sub(sys::now())));
        if stop.load(Relaxed) {
            return;
        }
        stream.write(0, counter, sys::now(), &mut datagram);
        // A sender that is not there yet gets it later or never; all count from a common counter on.
        let _ = socket.send_to(&datagram, to[place]);
        sent.store(counter + 1, Relaxed);
    }
}

/// The rate of the stream.
pub(crate) const MEGABITS_PER_SECOND: f64 = 4.0;
