//! The least that sending over connections can cost: the buffers that the engine would send, at the instants at which it
//! would send them, by one non-blocking `send` for each socket. Reads no stream: everything is made before.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use millrace::media::Frame;
use millrace::mux::flv::{CHUNK_SIZE, FlvConfig, FlvKind, FlvMux};
use millrace::mux::rtp::{Numbers, Packer, describe};
use millrace::mux::{Demuxer, DemuxerOptions};
use millrace::wire::rtmp::{self, ClientEvent};
use millrace::wire::rtp::Packets;
use millrace::wire::rtsp::client::{self, Dial, Role};
use millrace::wire::rtsp::{Description, Transport};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::helper::Requests;
use crate::rtsp_end::RtspEnd;
use crate::stream::{DATAGRAM, PICTURE, PICTURES, Stream};
use crate::tcp::Protocol;
use crate::tcp_sink::{End, Heard};
use crate::units::{Layout, UnitStream};
use crate::{Result, reference, sys};

/// What is sent, and where to.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// What is spoken, and who dials.
    pub(crate) protocol: Protocol,
    /// Bit rate of the stream.
    pub(crate) megabits_per_second: f64,
    /// Delay class in milliseconds.
    pub(crate) delay: u64,
    /// How many sockets.
    pub(crate) outputs: usize,
    /// Where receivers listen, or where they dial.
    pub(crate) address: SocketAddrV4,
}

/// A stretch of the stream that is sent again and again.
struct Loop {
    description: Description,
    bytes: Vec<u8>,
    /// When each message could leave, in nanoseconds, and where it ends in `bytes`.
    messages: Vec<(u64, usize)>,
    datagrams: u64,
    length: u64,
}

/// What one group of sockets sends at one moment.
struct Batch {
    at: u64,
    slot: usize,
    start: usize,
    end: usize,
    /// Datagrams of the stream that came since the batch before.
    datagrams: u64,
}

struct Out {
    socket: TcpStream,
    /// What a full socket did not take.
    rest: Vec<u8>,
}

/// Sends until the requests end.
pub(crate) fn run(setup: &Setup, requests: Requests) -> Result<()> {
    let made = Loop::make(setup)?;
    let outs: Arc<Mutex<Vec<Out>>> = Arc::default();
    if setup.protocol == Protocol::RtspServe {
        let listener = TcpListener::bind(setup.address)?;
        let (outs, description) = (Arc::clone(&outs), made.description.write("served"));
        // Ends with the process.
        thread::spawn(move || {
            for socket in listener.incoming() {
                match socket.map_err(Into::into).and_then(|socket| serve(socket, &description)) {
                    Ok(out) => outs.lock().push(out),
                    Err(error) => eprintln!("density: a reader of the floor was lost: {error}"),
                }
            }
        });
    } else {
        for place in 0..setup.outputs {
            let out = dial(setup, place, &made.description)?;
            outs.lock().push(out);
        }
    }
    let batches = made.batches(setup);
    reference::work(move || play(&made, &batches, &outs), requests)
}

fn play(made: &Loop, batches: &[Batch], outs: &Mutex<Vec<Out>>) -> Result<()> {
    sys::sleep_precisely();
    // Without a delay all groups send at the same moments.
    let turns = if batches.iter().any(|batch| batch.slot > 0) { SLOTS } else { 1 };
    // It goes on where it was: numbers that jump back a little would be packets that come twice.
    let mut next = 0;
    loop {
        if !reference::is_running() {
            thread::sleep(Duration::from_millis(1));
            continue;
        }
        let mut outs = outs.lock();
        let (begun, skipped, mut rounds) = (sys::now(), batches[next].at, 0);
        while reference::is_running() {
            let batch = &batches[next];
            let due = begun + rounds * made.length + batch.at - skipped;
            let now = sys::now();
            if due > now {
                thread::sleep(Duration::from_nanos(due - now));
            }
            let bytes = &made.bytes[batch.start..batch.end];
            let mut sent = 0;
            for group in outs.chunks_mut(GROUP).skip(batch.slot).step_by(turns) {
                for out in group {
                    out.send(bytes)?;
                    sent += 1;
                }
            }
            reference::count(sent * batch.datagrams);
            next = (next + 1) % batches.len();
            rounds += u64::from(next == 0);
        }
    }
}

impl Out {
    fn new(socket: TcpStream) -> Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, rest: Vec::new() })
    }

    /// One send, as long as the socket is not full.
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.rest.is_empty() {
            let written = Self::write(&self.socket, &self.rest)?;
            self.rest.drain(..written);
            if !self.rest.is_empty() {
                if self.rest.len() > BEHIND {
                    return Err("a receiver of the floor takes nothing".into());
                }
                self.rest.extend_from_slice(bytes);
                return Ok(());
            }
        }
        let written = Self::write(&self.socket, bytes)?;
        self.rest.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    fn write(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize> {
        match socket.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            result => Ok(result?),
        }
    }
}

impl Loop {
    /// Takes the stream apart and packs it as the engine does.
    fn make(setup: &Setup) -> Result<Self> {
        let rate = setup.megabits_per_second;
        let (mut stream, period) = (UnitStream::new(rate), Stream::new(rate, true).period());
        let mut demuxer = Demuxer::new(DemuxerOptions::default());
        let mut packing = Packing::new(setup.protocol);
        let datagrams = GROUPS * PICTURES * PICTURE;
        let (mut bytes, mut messages, mut datagram) = (Vec::new(), Vec::new(), [0; DATAGRAM]);
        for number in 0..datagrams {
            let now = (number as f64 * period) as u64;
            stream.write(number, now, &mut datagram);
            let mut frames = Vec::new();
            demuxer.push(&datagram, now, &mut |frame| frames.push(frame));
            for frame in frames {
                packing.pack(&frame, &mut bytes);
                messages.push((now, bytes.len()));
            }
        }
        let [pictures, sounds] = Layout::new(rate).units_before(datagrams);
        if packing.units != pictures + sounds {
            let units = packing.units;
            return Err(
                format!("{units} units came of {pictures} pictures and {sounds} frames of sound").into()
            );
        }
        let (description, _) = describe(demuxer.tracks());
        Ok(Self { description, bytes, messages, datagrams, length: (datagrams as f64 * period) as u64 })
    }

    /// What leaves when: groups of sockets take turns, as lines of the engine do.
    fn batches(&self, setup: &Setup) -> Vec<Batch> {
        let delay = setup.delay * 1_000_000;
        let slots = if delay == 0 { 1 } else { setup.outputs.div_ceil(GROUP).min(SLOTS) };
        let period = self.length as f64 / self.datagrams as f64;
        let mut batches: Vec<Batch> = Vec::new();
        for slot in 0..slots {
            let offset = delay / SLOTS as u64 * slot as u64;
            let (mut start, mut counted, first) = (0, 0, batches.len());
            for &(ready, end) in &self.messages {
                let moment = match delay {
                    0 => ready,
                    _ => (ready.saturating_sub(offset) / delay + 1) * delay + offset,
                };
                let datagrams = ((moment as f64 / period) as u64 + 1).min(self.datagrams) - counted;
                match batches[first..].last_mut().filter(|batch| batch.at == moment) {
                    Some(batch) => batch.end = end,
                    None => {
                        batches.push(Batch { at: moment, slot, start, end, datagrams });
                        counted += datagrams;
                    }
                }
                start = end;
            }
            if let Some(last) = batches[first..].last_mut() {
                last.datagrams += self.datagrams - counted;
            }
        }
        batches.sort_by_key(|batch| batch.at);
        batches
    }
}

/// Makes messages of frames.
struct Packing {
    flv: Option<FlvMux>,
    packer: Option<Packer>,
    packets: Packets,
    /// Frames that came out.
    units: u64,
}

impl Packing {
    fn new(protocol: Protocol) -> Self {
        let config = FlvConfig { chunk_size: CHUNK_SIZE, stream: MESSAGE_STREAM };
        let flv = (protocol == Protocol::Rtmp).then(|| FlvMux::new(config));
        Self { flv, packer: None, packets: Packets::default(), units: 0 }
    }

    fn pack(&mut self, frame: &Frame, bytes: &mut Vec<u8>) {
        if let Some(flv) = &mut self.flv {
            let mut made = Vec::new();
            flv.push(frame, &mut made);
            self.units += made.iter().filter(|message| message.kind != FlvKind::Setup).count() as u64;
            made.iter().for_each(|message| bytes.extend_from_slice(&message.bytes));
            return;
        }
        let numbers = Numbers { tracks: u32::MAX, seed: 1, wall: 0 };
        let packer = self.packer.get_or_insert_with(|| Packer::new(&frame.tracks, numbers, PACKET));
        if *packer.shape() != *frame.tracks {
            packer.follow(&frame.tracks);
        }
        self.packets.clear();
        self.units += u64::from(packer.pack(frame, &mut self.packets));
        bytes.extend_from_slice(self.packets.framed());
    }
}

/// A connection on which media may flow.
fn dial(setup: &Setup, place: usize, description: &Description) -> Result<Out> {
    let mut socket = TcpStream::connect(setup.address)?;
    let mut buffer = vec![0; 64 << 10];
    if setup.protocol == Protocol::Rtmp {
        let application = "live".to_owned();
        let config = rtmp::ClientConfig {
            purpose: rtmp::Purpose::Publish,
            tc_url: format!("rtmp://{}/{application}", setup.address),
            application,
            stream: format!("out{place}"),
            credentials: None,
            auth: None,
            chunk_size: CHUNK_SIZE,
            digest: false,
            limits: rtmp::Limits::default(),
        };
        let mut client = rtmp::Client::new(config, 0, [place as u8; 16]);
        loop {
            socket.write_all(&client.take_output())?;
            let count = socket.read(&mut buffer)?;
            let mut came = buffer.get(..count).filter(|came| !came.is_empty()).ok_or("a receiver left")?;
            while let Some(event) = client.read(&mut came)? {
                if event == ClientEvent::Publishing(MESSAGE_STREAM) {
                    socket.write_all(&client.take_output())?;
                    return Out::new(socket);
                }
            }
        }
    }
    let url = format!("rtsp://{}/out{place}", setup.address);
    let role = Role::Push(description.clone());
    let dial = Dial { url, credentials: None, user_agent: "floor".into(), role };
    let mut client = client::Client::new(dial, 0, [place as u8; 16]);
    let mut out = Vec::new();
    loop {
        while let Some(event) = client.next_event() {
            match event {
                client::Event::Announced => {
                    let channels = |track: usize| (2 * track as u8, 2 * track as u8 + 1);
                    let over =
                        |track| Transport { interleaved: Some(channels(track)), ..Transport::default() };
                    client.set_up((0..description.media.len()).map(|track| (track, over(track))), 0);
                }
                client::Event::Failed(why) => return Err(why.into()),
                _ => {}
            }
        }
        client.take_output(&mut out);
        socket.write_all(&out)?;
        out.clear();
        if client.is_started() {
            return Out::new(socket);
        }
        let count = socket.read(&mut buffer)?;
        client.push(&buffer[..count], 0);
    }
}

/// A reader that was told what it asked for.
fn serve(mut socket: TcpStream, description: &str) -> Result<Out> {
    let mut end = RtspEnd::serving(description);
    let (mut buffer, mut out, mut begun) = (vec![0; 16 << 10], Vec::new(), false);
    while !begun {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Err("it left".into());
        }
        end.take(&buffer[..count], &mut out, &mut |heard| begun |= matches!(heard, Heard::Begun))?;
        socket.write_all(&out)?;
        out.clear();
    }
    Out::new(socket)
}

/// What the receivers give every publisher.
const MESSAGE_STREAM: u32 = 1;
/// Longest packet, as the engine makes them.
const PACKET: usize = 1400;
/// Sockets that send one after the other, and the moments of a delay class that groups of them take turns at.
const GROUP: usize = 64;
const SLOTS: usize = 4;
/// Groups of pictures in the loop: 2.5 s of 4 Mb/s.
const GROUPS: u64 = 2;
/// Bytes that a receiver may be behind.
const BEHIND: usize = 8 << 20;
