//! Receivers of RTMP and RTSP that cost next to nothing, so that they leave the machine to what is measured: connections
//! that carry media come in or are dialled, what was heard and what was missing leaves. Never decodes.

use std::io::{self, ErrorKind, IoSlice};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;

use millrace::net::{ByteStream, Trust, client_config, server_config};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection as Tls, ServerConfig, ServerConnection};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::helper::{self, Requests};
use crate::plan::local;
use crate::rtmp_end::RtmpEnd;
use crate::rtsp_end::RtspEnd;
use crate::sink::{self, Arrivals, COMPARED, LOOK_AGAIN, RECEIVE_BUFFER, RESET, Report};
use crate::srt_sink::DIAL;
use crate::stream::Stream;
use crate::sys::{self, Epoll, Inbox};
use crate::tcp::{Identity, Protocol, SERVED};
use crate::units::{Kind, Layout, Stamp};

/// Where the receivers are.
#[derive(Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Bit rate of the stream, to know every byte of it.
    pub(crate) megabits_per_second: f64,
    /// The control flow and its address: plain UDP.
    pub(crate) control: (SocketAddrV4, u32),
    /// What is spoken, and who dials.
    pub(crate) protocol: Protocol,
    /// Receivers of the engine, of the other side, and of an output that comes late: where they listen or dial, and
    /// whether over TLS.
    pub(crate) sides: [(SocketAddrV4, bool); 3],
    /// Who the receivers say they are.
    pub(crate) identity: Identity,
    /// Readers ask for datagrams.
    pub(crate) datagrams: bool,
    /// Where the other side sends plain datagrams to; empty = it does not.
    pub(crate) against_datagrams: Vec<SocketAddrV4>,
}

/// Request: from now on one receiver of the engine in so many takes nothing; a space and the number follow. Answered with
/// `null`.
pub(crate) const STALL: &str = "stall";

/// What the end of a connection hears.
pub(crate) enum Heard<'a> {
    /// What the sender calls its stream.
    Name(&'a str),
    /// Media is wanted from now on.
    Begun,
    /// An access unit: its first [`HEAD`] bytes at the least.
    Unit(Kind, &'a [u8]),
    /// Packets left out before this one.
    Missing(u64),
    /// A packet that had come, or that comes too late.
    Repeated,
}

/// One end of one connection.
pub(crate) trait End {
    /// Takes what came; answers go behind `out`.
    ///
    /// # Errors
    /// It is not what it should be: the connection is of no more use.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>, hear: &mut dyn FnMut(Heard<'_>)) -> Result<()>;

    /// Takes a packet of a media that came beside the connection.
    ///
    /// # Errors
    /// As above.
    fn take_datagram(
        &mut self,
        _media: usize,
        _datagram: &[u8],
        _hear: &mut dyn FnMut(Heard<'_>),
    ) -> Result<()> {
        Ok(())
    }

    /// From now on units are wanted whole.
    fn keep_whole(&mut self);

    /// Says what has to be said from time to time.
    fn tick(&mut self, _now: u64, _out: &mut Vec<u8>) {}
}

/// How much of a unit is kept where it is not compared.
pub(crate) const HEAD: usize = 512;

struct Group {
    address: SocketAddrV4,
    tls: bool,
    listener: Option<Socket>,
    /// When to dial, the next one last.
    dials: Vec<u64>,
    dialled: usize,
    places: Vec<Place>,
    /// One in so many takes nothing; 0 = all take.
    stalled: usize,
    arrivals: Arrivals,
}

/// Where one output sends to, whichever connection it uses.
#[derive(Default)]
struct Place {
    open: bool,
    heard: bool,
    /// The lowest numbers that are still to come.
    next: [u64; 2],
    /// The last unit of each kind, and when it came.
    last: [Option<(u64, u64)>; 2],
}

struct Connection {
    group: usize,
    /// Known once the sender said its name.
    place: Option<usize>,
    socket: ByteStream,
    end: Box<dyn End>,
    out: Vec<u8>,
    /// Where the packets of each media come, if not over the connection.
    legs: Option<[Leg; 2]>,
}

/// A pair of neighbouring ports.
struct Leg {
    rtp: Socket,
    /// Nobody reads it, but where nobody listened the sender would stop.
    _rtcp: Socket,
}

struct Sink {
    protocol: Protocol,
    datagrams: bool,
    groups: Vec<Group>,
    connections: Vec<Option<Connection>>,
    epoll: Epoll,
    layout: Layout,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    buffer: Vec<u8>,
    inbox: Inbox,
}

/// Runs the receivers until their requests end.
pub(crate) fn run(setup: &Setup, mut requests: Requests) -> Result<()> {
    let stream = Stream::new(setup.megabits_per_second, true);
    let mut control = sink::Group::open(&[setup.control])?;
    let Identity { certificate, key } = &setup.identity;
    let mut sink = Sink {
        protocol: setup.protocol,
        datagrams: setup.datagrams,
        groups: Vec::new(),
        connections: Vec::new(),
        epoll: Epoll::new()?,
        layout: Layout::new(setup.megabits_per_second),
        client: client_config(&Trust::Anybody)?,
        server: server_config(certificate.as_bytes(), key.as_bytes())?,
        buffer: vec![0; READ],
        inbox: Inbox::new(),
    };
    let against: Vec<_> = setup.against_datagrams.iter().map(|address| (*address, 0)).collect();
    let mut against = sink::Group::open(&against)?;
    for (number, (address, tls)) in setup.sides.into_iter().enumerate() {
        let group = Group::open(address, tls, setup.protocol != Protocol::RtspServe)?;
        if let Some(listener) = &group.listener {
            sink.epoll.add(listener, LISTENER + number)?;
        }
        sink.groups.push(group);
    }
    let mut orders = Epoll::new()?;
    orders.add(&io::stdin(), 0)?;
    let mut ticked_at = 0;
    helper::ready()?;
    loop {
        control.receive(0, &mut sink.inbox, &stream)?;
        for index in 0..setup.against_datagrams.len() {
            against.receive(index, &mut sink.inbox, &stream)?;
        }
        let ready: Vec<usize> = sink.epoll.wait_at_most(0)?.collect();
        for token in ready {
            match token {
                LEG.. => sink.receive_datagrams((token - LEG) / 2, (token - LEG) % 2)?,
                LISTENER.. => sink.accept(token - LISTENER)?,
                _ => sink.receive(token),
            }
        }
        let now = sys::now();
        sink.dial(now)?;
        if now > ticked_at + TICK {
            ticked_at = now;
            sink.tick(now);
        }
        if orders.wait_at_most(0)?.count() > 0 {
            let Some(request) = requests.next() else { return Ok(()) };
            sink.obey(&request?, &mut control, &mut against)?;
        }
        // Sockets that nobody sleeps on, as at the other sinks.
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Sink {
    fn obey(&mut self, request: &str, control: &mut sink::Group, datagrams: &mut sink::Group) -> Result<()> {
        let numbers = |rest: &str| -> Result<Vec<usize>> {
            Ok(rest.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
        };
        if let Some(order) = request.strip_prefix(DIAL) {
            let [group, count, milliseconds] = numbers(order)?[..] else { return Err("dial what?".into()) };
            let (now, spread) = (sys::now(), milliseconds as u64 * 1_000_000);
            let at = |number: usize| now + spread * number as u64 / count.max(1) as u64;
            self.groups[group].dials = (0..count).rev().map(at).collect();
            return helper::answer(&Ok(()));
        }
        if let Some(order) = request.strip_prefix(STALL) {
            let [one_in] = numbers(order)?[..] else { return Err("stall what?".into()) };
            self.groups[0].stalled = one_in;
            for index in 0..self.connections.len() {
                self.rest_if_stalled(index);
            }
            return helper::answer(&Ok(()));
        }
        let mut arrivals = self.groups.iter().map(Group::report);
        let mut next = || arrivals.next().unwrap_or_default();
        let mut report = Report { engine: next(), against: next(), late: next(), control: control.report()? };
        if !datagrams.is_empty() {
            report.against = datagrams.report()?;
        }
        if request == RESET {
            control.reset()?;
            datagrams.reset()?;
            self.groups.iter_mut().for_each(Group::reset);
        }
        helper::answer(&Ok(report))
    }

    fn accept(&mut self, group: usize) -> Result<()> {
        while let Some(listener) = &self.groups[group].listener {
            let socket = match listener.accept() {
                Ok((socket, _)) => TcpStream::from(socket),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Gone before it was taken.
                Err(_) => continue,
            };
            let tls = if self.groups[group].tls {
                Some(Tls::from(ServerConnection::new(Arc::clone(&self.server))?))
            } else {
                None
            };
            let end: Box<dyn End> = match self.protocol {
                Protocol::Rtmp => Box::new(RtmpEnd::new()),
                _ => Box::new(RtspEnd::recording()),
            };
            self.add(Connection {
                group,
                place: None,
                socket: ByteStream::new(socket, tls)?,
                end,
                out: Vec::new(),
                legs: None,
            })?;
        }
        Ok(())
    }

    /// Dials whom it is time for.
    fn dial(&mut self, now: u64) -> Result<()> {
        for group in 0..self.groups.len() {
            while self.groups[group].dials.last().is_some_and(|due| *due <= now) {
                let Group { address, tls, dials, dialled, places, .. } = &mut self.groups[group];
                dials.pop();
                let place = *dialled;
                *dialled += 1;
                places.resize_with(places.len().max(place + 1), Place::default);
                places[place].open = true;
                let (scheme, session) = if *tls {
                    let name = ServerName::try_from("localhost")?;
                    ("rtsps", Some(Tls::from(ClientConnection::new(Arc::clone(&self.client), name)?)))
                } else {
                    ("rtsp", None)
                };
                let url = format!("{scheme}://{address}/{SERVED}");
                let socket = TcpStream::connect(*address).map_err(|error| format!("{url}: {error}"))?;
                let mut out = Vec::new();
                let legs = if self.datagrams { Some([Leg::open()?, Leg::open()?]) } else { None };
                let ports = match &legs {
                    Some([pictures, sound]) => Some([pictures.port()?, sound.port()?]),
                    None => None,
                };
                let mut end = RtspEnd::reading(&url, ports, now, &mut out);
                if place < COMPARED && group == 0 {
                    end.keep_whole();
                }
                let socket = ByteStream::new(socket, session)?;
                self.add(Connection { group, place: Some(place), socket, end: Box::new(end), out, legs })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, mut connection: Connection) -> Result<()> {
        // Also begins a handshake.
        connection.flush();
        let index = self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        self.epoll.add(&connection.socket, index)?;
        for (media, leg) in connection.legs.iter().flatten().enumerate() {
            self.epoll.add(&leg.rtp, LEG + 2 * index + media)?;
        }
        if index == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[index] = Some(connection);
        }
        Ok(())
    }

    /// Takes what waits at a connection.
    fn receive(&mut self, index: usize) {
        let Self { groups, connections, layout, buffer, .. } = self;
        let Some(Some(connection)) = connections.get_mut(index) else { return };
        let Connection { group: number, place, socket, end, out, .. } = connection;
        let group = &mut groups[*number];
        let named = place.is_some();
        let mut delivered = false;
        let over = loop {
            let count = match socket.read(buffer) {
                Ok(0) => break true,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            };
            group.arrivals.bytes += count as u64;
            group.arrivals.deliveries += u64::from(!delivered);
            delivered = true;
            let now = sys::now();
            let mut hear = |heard: Heard<'_>| group.hear(heard, place, now, layout, *number == 0);
            if let Err(error) = end.take(&buffer[..count], out, &mut hear) {
                eprintln!("density: a receiver gave up: {error}");
                break true;
            }
            if count < buffer.len() && !socket.is_encrypted() {
                break false;
            }
        };
        if !named && *number == 0 && place.is_some_and(|place| place < COMPARED) {
            end.keep_whole();
        }
        connection.flush();
        if over {
            self.remove(index);
        } else if !named {
            self.rest_if_stalled(index);
        }
    }

    /// Takes what waits beside a connection.
    fn receive_datagrams(&mut self, index: usize, media: usize) -> Result<()> {
        let Self { groups, connections, layout, inbox, .. } = self;
        let Some(Some(connection)) = connections.get_mut(index) else { return Ok(()) };
        let Connection { group: number, place, end, legs: Some(legs), .. } = connection else {
            return Ok(());
        };
        let (group, now) = (&mut groups[*number], sys::now());
        let mut heard = Ok(());
        inbox.drain(&legs[media].rtp, |delivery, size| {
            group.arrivals.bytes += delivery.len() as u64;
            group.arrivals.deliveries += 1;
            for datagram in delivery.chunks(size.max(1)) {
                let mut hear = |heard: Heard<'_>| group.hear(heard, place, now, layout, *number == 0);
                if let Err(error) = end.take_datagram(media, datagram, &mut hear) {
                    heard = Err(error);
                }
            }
        })?;
        heard
    }

    fn remove(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index).map(Option::take) else { return };
        // It is closed: the set forgets it by itself, too.
        let _ = self.epoll.remove(&connection.socket);
        if let Some(place) = connection.place {
            self.groups[connection.group].places[place].open = false;
        }
    }

    /// Reads no more from one that shall take nothing.
    fn rest_if_stalled(&mut self, index: usize) {
        let Some(Some(Connection { group: 0, place: Some(place), socket, .. })) = self.connections.get(index)
        else {
            return;
        };
        let one_in = self.groups[0].stalled;
        if is_stalled(*place, one_in) {
            // It is not in the set when it rests already.
            let _ = self.epoll.remove(socket);
        }
    }

    fn tick(&mut self, now: u64) {
        for connection in self.connections.iter_mut().flatten() {
            connection.end.tick(now, &mut connection.out);
            connection.flush();
        }
    }
}

/// Whether a place takes nothing when one in so many does.
pub(crate) fn is_stalled(place: usize, one_in: usize) -> bool {
    one_in > 0 && place % one_in == one_in - 1
}

impl Leg {
    /// Two neighbours, wherever there are some.
    fn open() -> Result<Self> {
        for _ in 0..PAIR_TRIES {
            let rtp = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
            rtp.bind(&local(0).into())?;
            let leg = Self { rtp, _rtcp: Socket::new(Domain::IPV4, Type::DGRAM, None)? };
            let Some(next) = leg.port()?.checked_add(1) else { continue };
            if leg._rtcp.bind(&local(next).into()).is_ok() {
                sys::grow_receive_buffer(&leg.rtp, RECEIVE_BUFFER)?;
                sys::merge_receives(&leg.rtp)?;
                return Ok(leg);
            }
        }
        Err("no two neighbouring ports are free".into())
    }

    fn port(&self) -> Result<u16> {
        let address = self.rtp.local_addr()?.as_socket_ipv4();
        Ok(address.ok_or("a socket without an address")?.port())
    }
}

impl Connection {
    /// Sends what is to be said, as far as it goes: it is little, and whoever takes none of it is about to be lost.
    fn flush(&mut self) {
        if let Ok(written) = self.socket.write(&[IoSlice::new(&self.out)]) {
            self.out.drain(..written);
        }
    }
}

impl Group {
    fn open(address: SocketAddrV4, tls: bool, listens: bool) -> Result<Self> {
        let listen = || -> Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket
                .bind(&address.into())
                .map_err(|error| format!("the sink cannot bind {address}: {error}"))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            address,
            tls,
            listener: if listens { Some(listen()?) } else { None },
            dials: Vec::new(),
            dialled: 0,
            places: Vec::new(),
            stalled: 0,
            arrivals: Arrivals::default(),
        })
    }

    /// The place of a sender whose name ends in its number.
    fn open_place(&mut self, name: &str) -> Option<usize> {
        let name = name.split('?').next().unwrap_or_default();
        let digits = name.trim_end_matches('/').rsplit("out").next().unwrap_or_default();
        let place: usize = digits.parse().ok().filter(|place| *place < PLACES)?;
        self.places.resize_with(self.places.len().max(place + 1), Place::default);
        self.places[place].open = true;
        Some(place)
    }

    fn hear(
        &mut self,
        heard: Heard<'_>,
        place: &mut Option<usize>,
        now: u64,
        layout: &Layout,
        of_engine: bool,
    ) {
        match heard {
            Heard::Name(name) => *place = self.open_place(name).or(*place),
            Heard::Unit(kind, unit) => {
                if let Some(place) = *place {
                    let compared = of_engine && place < COMPARED;
                    self.count(place, kind, unit, now, compared.then_some(layout));
                }
            }
            Heard::Begun => {}
            Heard::Missing(count) => self.arrivals.connections.missing += count,
            Heard::Repeated => self.arrivals.connections.repeated += 1,
        }
    }

    fn count(&mut self, place: usize, kind: Kind, unit: &[u8], now: u64, compare: Option<&Layout>) {
        let Self { places, arrivals, .. } = self;
        let place = &mut places[place];
        arrivals.datagrams += 1;
        let Some(stamp) = Stamp::find(unit).filter(|stamp| stamp.number >= place.next[kind as usize]) else {
            arrivals.stray += 1;
            return;
        };
        arrivals.heard += usize::from(!place.heard);
        if !place.heard {
            arrivals.connections.last_begun = Some(now);
        }
        place.heard = true;
        place.next[kind as usize] = stamp.number + 1;
        arrivals.in_order += 1;
        arrivals.pictures += u64::from(kind == Kind::Picture);
        if let Some((number, came)) = place.last[kind as usize].replace((stamp.number, now)) {
            if number + 1 == stamp.number {
                arrivals.delay.record(came.saturating_sub(stamp.before_left_at));
            } else {
                arrivals.connections.missing += stamp.number - number - 1;
            }
        }
        if let Some(layout) = compare {
            arrivals.compared += 1;
            arrivals.changed += u64::from(layout.unit(kind, stamp) != unit);
        }
    }

    fn report(&self) -> Arrivals {
        let mut arrivals = self.arrivals.clone();
        arrivals.connections.open = self.places.iter().filter(|place| place.open).count();
        arrivals
    }

    fn reset(&mut self) {
        self.arrivals = Arrivals::default();
        for place in &mut self.places {
            // Numbers go on.
            (place.heard, place.last) = (false, [None; 2]);
        }
    }
}

/// Tokens from here on are listeners of groups.
const LISTENER: usize = 1 << 32;
/// Tokens from here on are media of connections, two of each.
const LEG: usize = 1 << 33;
const PAIR_TRIES: u32 = 1000;
const BACKLOG: i32 = 4096;
const PLACES: usize = 10_000;
/// Read at once: half a second of 4 Mb/s.
const READ: usize = 256 << 10;
/// Nanoseconds.
const TICK: u64 = 1_000_000_000;
