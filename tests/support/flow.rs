//! A stream that goes on until it is told to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use super::udp::Sender;

/// Sends the same bytes again and again, on a thread of its own, in datagrams of 1316 bytes.
pub(crate) struct Flow {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Flow {
    /// From a socket of its own.
    pub(crate) fn start(to: SocketAddr, source: &[u8], mbps: f64) -> Self {
        Self::from(Sender::new(to), source, mbps)
    }

    /// `source` is whole datagrams long, see [`loopable`].
    pub(crate) fn from(mut sender: Sender, source: &[u8], mbps: f64) -> Self {
        assert_eq!(source.len() % DATAGRAM, 0);
        let stop = Arc::new(AtomicBool::new(false));
        let (told, source) = (Arc::clone(&stop), source.to_vec());
        let thread = std::thread::spawn(move || {
            let mut sent = 0;
            let endless = source.chunks(DATAGRAM).cycle().take_while(|_| !told.load(Relaxed));
            sender.send_all_paced(endless.inspect(|datagram| sent += datagram.len()), mbps);
            sent
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; how many bytes have been sent.
    pub(crate) fn stop(mut self) -> usize {
        self.stop.store(true, Relaxed);
        self.thread.take().expect("runs until here").join().expect("sends until here")
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A stream of `testdata/ts/` without its last packets, so that it is whole datagrams long.
pub(crate) fn loopable(name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(super::testdata("ts").join(name)).expect("a stream");
    bytes.truncate(bytes.len() / DATAGRAM * DATAGRAM);
    bytes
}

const DATAGRAM: usize = 1316;
