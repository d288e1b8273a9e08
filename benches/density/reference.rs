//! What the engine is compared with when no tool of a user is: the same streams copied the plain way, and
//! the least that sending can cost.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::Result;
use crate::helper::{self, Requests};
use crate::stream::{DATAGRAM, Stream};
use crate::sys::{self, Epoll, Inbox, Walk};

/// What a reference reads and where it copies it to.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// One address to listen on for each stream.
    pub(crate) inputs: Vec<SocketAddrV4>,
    /// The outputs, as many of them for each input in turn.
    pub(crate) outputs: Vec<SocketAddrV4>,
}

/// Request: how many datagrams were sent? Answered with a number.
pub(crate) const REPORT: &str = "report";
/// Request to the limit: rest.
pub(crate) const PAUSE: &str = "pause";
/// Request to the limit: run; followed by a space and the mean number of datagrams per send.
pub(crate) const RUN: &str = "run";

/// Datagrams sent by this process.
static SENT: AtomicU64 = AtomicU64::new(0);
/// Mean batch of the limit, as the bits of a float; zero = rest.
static BATCH: AtomicU64 = AtomicU64::new(0);

impl Setup {
    fn outputs_of(&self, input: usize) -> &[SocketAddrV4] {
        let each = self.outputs.len() / self.inputs.len().max(1);
        &self.outputs[input * each..(input + 1) * each]
    }
}

/// One thread, one unconnected socket, one `sendto` per datagram and output.
pub(crate) fn run_sendto(setup: &Setup, requests: Requests) -> Result<()> {
    let mut epoll = Epoll::new()?;
    let mut inputs = Vec::new();
    for (index, address) in setup.inputs.iter().enumerate() {
        let socket = listen(*address)?;
        epoll.add(&socket, index)?;
        let outputs: Vec<SockAddr> = setup.outputs_of(index).iter().map(|&output| output.into()).collect();
        inputs.push((socket, outputs));
    }
    let sender = sender()?;
    let copy = move || -> Result<()> {
        let mut inbox = Inbox::new();
        loop {
            for ready in epoll.wait()? {
                let (socket, outputs) = &inputs[ready];
                inbox.drain(socket, |datagram, _| {
                    let sent =
                        outputs.iter().filter(|output| sender.send_to(datagram, output).is_ok()).count();
                    SENT.fetch_add(sent as u64, Relaxed);
                })?;
            }
        }
    };
    work(copy, requests)
}

/// A task with a connected socket for each output, fed through a broadcast channel by a task for each input,
/// all on one thread.
pub(crate) fn run_tokio(setup: &Setup, requests: Requests) -> Result<()> {
    let mut inputs = Vec::new();
    for (index, address) in setup.inputs.iter().enumerate() {
        let mut outputs = Vec::new();
        for output in setup.outputs_of(index) {
            let socket = sender()?;
            socket.connect(&(*output).into())?;
            socket.set_nonblocking(true)?;
            outputs.push(socket);
        }
        let socket = listen(*address)?;
        socket.set_nonblocking(true)?;
        inputs.push((socket, outputs));
    }
    let copy = move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (socket, outputs) in inputs {
                let (packets, _) = broadcast::channel(CHANNEL);
                for output in outputs {
                    tasks.spawn(copy_to(UdpSocket::from_std(output.into())?, packets.subscribe()));
                }
                tasks.spawn(copy_from(UdpSocket::from_std(socket.into())?, packets));
            }
            while tasks.join_next().await.is_some() {}
            Ok(())
        })
    };
    work(copy, requests)
}

async fn copy_from(socket: UdpSocket, packets: broadcast::Sender<Bytes>) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok(length) = socket.recv(&mut buffer).await {
            // Fails only when the stream has no output.
            let _ = packets.send(Bytes::copy_from_slice(&buffer[..length]));
        }
    }
}

async fn copy_to(socket: UdpSocket, mut packets: broadcast::Receiver<Bytes>) {
    loop {
        match packets.recv().await {
            Ok(packet) => SENT.fetch_add(u64::from(socket.send(&packet).await.is_ok()), Relaxed),
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
    }
}

/// Walks over the outputs without a pause, each send as many datagrams as the engine's on average.
pub(crate) fn run_limit(setup: &Setup, requests: Requests) -> Result<()> {
    let stream = Stream::new(1.0, true);
    let mut payload = vec![0; LIMIT_RING * DATAGRAM];
    for (counter, datagram) in payload.as_chunks_mut().0.iter_mut().enumerate() {
        stream.write(u32::MAX, counter as u64, 0, datagram);
    }
    let sender = sender()?;
    sys::segment_sends(&sender, DATAGRAM)
        .map_err(|error| format!("this kernel cannot cut sends into datagrams (UDP_SEGMENT): {error}"))?;
    let mut walk = Walk::new(&setup.outputs);
    let run = move || -> Result<()> {
        let (mut position, mut owed) = (0, 0.0);
        loop {
            let batch = f64::from_bits(BATCH.load(Relaxed));
            if batch == 0.0 {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            // A mean of 3.8 is made of walks with 4 and with 3.
            owed += batch;
            let count = (owed as usize).clamp(1, MAX_BATCH);
            owed -= count as f64;
            position = if position + count > LIMIT_RING { 0 } else { position };
            let bytes = &payload[position * DATAGRAM..(position + count) * DATAGRAM];
            SENT.fetch_add(walk.send(&sender, bytes) * count as u64, Relaxed);
            position += count;
        }
    };
    work(run, requests)
}

/// Whether something that is told to run shall run now.
pub(crate) fn is_running() -> bool {
    f64::from_bits(BATCH.load(Relaxed)) > 0.0
}

/// Books datagrams as sent.
pub(crate) fn count(datagrams: u64) {
    SENT.fetch_add(datagrams, Relaxed);
}

/// Copies on a thread of its own and answers requests until they end; the thread ends with the process.
pub(crate) fn work(copy: impl FnOnce() -> Result<()> + Send + 'static, requests: Requests) -> Result<()> {
    thread::spawn(move || {
        if let Err(error) = copy() {
            eprintln!("density: the reference stopped: {error}");
        }
    });
    helper::ready()?;
    for request in requests {
        let request = request?;
        match request.split_once(' ') {
            Some((RUN, batch)) => BATCH.store(batch.parse::<f64>()?.to_bits(), Relaxed),
            _ if request == PAUSE => BATCH.store(0, Relaxed),
            _ => {}
        }
        helper::answer(&Ok(SENT.load(Relaxed)))?;
    }
    Ok(())
}

fn listen(address: SocketAddrV4) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    sys::grow_receive_buffer(&socket, 4 << 20)?;
    socket.bind(&address.into()).map_err(|error| format!("the reference cannot bind {address}: {error}"))?;
    Ok(socket)
}

fn sender() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_send_buffer_size(4 << 20)?;
    sys::forbid_fragments(&socket)?;
    Ok(socket)
}

/// Packets that a slow task may lag behind.
const CHANNEL: usize = 1024;
/// Datagrams in the limit's ring: half a megabyte, as large as the part of the engine's that is in use.
const LIMIT_RING: usize = 384;
/// Datagrams that fit in one send (64 KiB).
const MAX_BATCH: usize = 44;
