//! The count: which datagrams of the stream come out behind each receiver.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use crate::stream::Stamp;
use crate::{Result, sys};

/// One socket for each receiver, all read by one thread, until it is dropped.
pub(crate) struct Count {
    seen: Arc<Mutex<Vec<Vec<bool>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Count {
    /// Binds these addresses and starts to read.
    pub(crate) fn start(addresses: &[SocketAddrV4]) -> Result<Self> {
        let open = |address: &SocketAddrV4| -> Result<UdpSocket> {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            sys::grow_receive_buffer(&socket, RECEIVE_BUFFER)?;
            Ok(socket)
        };
        let sockets: Vec<UdpSocket> = addresses.iter().map(open).collect::<Result<_>>()?;
        let seen = Arc::new(Mutex::new(vec![Vec::new(); sockets.len()]));
        let stop = Arc::new(AtomicBool::new(false));
        let (counted, stopped) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Relaxed) {
                read(&sockets, &mut counted.lock());
                thread::sleep(LOOK_AGAIN);
            }
        });
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// Receivers behind which nothing has come out yet.
    pub(crate) fn silent(&self) -> Vec<usize> {
        let seen = self.seen.lock();
        (0..seen.len()).filter(|&place| seen[place].is_empty()).collect()
    }

    /// How many datagrams with these counters never came out behind a receiver.
    pub(crate) fn missing(&self, place: usize, first: u64, count: u64) -> u64 {
        let seen = &self.seen.lock()[place];
        let came =
            (first..first + count).filter(|&counter| seen.get(counter as usize).is_some_and(|came| *came));
        count - came.count() as u64
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn read(sockets: &[UdpSocket], seen: &mut [Vec<bool>]) {
    let mut buffer = [0; 2048];
    for (socket, seen) in sockets.iter().zip(seen) {
        while let Ok(length) = socket.recv(&mut buffer) {
            let Some(stamp) = Stamp::read(&buffer[..length]) else { continue };
            let counter = stamp.counter as usize;
            if seen.len() <= counter {
                seen.resize(counter + 1, false);
            }
            seen[counter] = true;
        }
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);
const RECEIVE_BUFFER: usize = 4 << 20;
