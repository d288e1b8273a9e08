//! Peers that dial in: connections enter; those that read leave to a shard, and of those that publish packets go into the
//! stream that they have the name, user and password of. Who asks for anything else is told so.

mod ways;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::intake::{Intake, wanted};
use super::pairs::{Berth, Pairs};
use super::udp::Ears;
use super::{AGENT, known, made_of};
use crate::app::servers::{News, Owner, Publish, Read, Visitor};
use crate::app::socket::Socket;
use crate::egress::{Leg, Link, RtspReader};
use crate::mux::rtp::{Numbers, describe, describe_transport, positions};
use crate::net::{accept_tls, clock, random};
use crate::store::Payload;
use crate::telemetry::{self, FlowStats, Session, next_session};
use crate::wire::rtsp::server::{Action, Ask, Event, Server, Settings};
use crate::wire::rtsp::{Description, Presented, Status};

/// Takes care of one connection.
pub(super) fn handle(visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let peer = visitor.peer;
        if let Err(why) = visit(visitor).await {
            tracing::debug!(%peer, %why, "an RTSP peer was let go");
        }
    })
}

type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Who a peer turned out to be.
enum Found {
    Reader(Arc<Read>),
    Publisher(Arc<Publish>, Description),
}

struct Visit {
    socket: Socket,
    server: Server,
    visitor: Remains,
    found: Option<Found>,
    /// It named a wrong user or password, and that was told.
    denied: bool,
    user_agent: String,
    /// Tracks of the stream that are set up, one bit each.
    tracks: u32,
    /// Where a reader wants its tracks sent to, if not over the connection.
    legs: Vec<Leg>,
    /// Where they leave.
    berth: Option<Berth>,
    /// A reader listens to the group.
    grouped: bool,
    /// Media that a publisher set up, and the way that they come.
    media: Vec<(usize, Way)>,
    ears: Ears,
    buffer: Vec<u8>,
}

/// How a media comes.
#[derive(Clone, Copy)]
enum Way {
    /// On these channels of the connection.
    Channels(u8, u8),
    /// As datagrams; reports go to this port.
    Datagrams(u16),
}

/// What is left of a visitor without its socket.
struct Remains {
    peer: SocketAddr,
    local: SocketAddr,
    pairs: Arc<Pairs>,
    routes: Arc<crate::app::servers::Routes>,
    news: tokio::sync::mpsc::Sender<News>,
    numbers: Numbers,
    encrypted: bool,
    stranger: Option<tokio::sync::OwnedSemaphorePermit>,
}

async fn visit(visitor: Visitor) -> Done {
    let Visitor { socket, peer, tls, routes, news, marks, stranger } = visitor;
    #[expect(
        clippy::disallowed_methods,
        reason = "a bound on how long a stranger may take, on its own runtime"
    )]
    let deadline = Instant::now() + STRANGER;
    socket.set_nodelay(true)?;
    let local = socket.local_addr()?;
    let encrypted = tls.is_some();
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => Socket::Server(Box::new(timeout_at(deadline, accept_tls(socket, tls)).await??)),
    };
    // Basic shows the password to whoever listens: only where nobody can.
    let settings = Settings { nonces: marks.nonces, name: AGENT.into(), basic: encrypted };
    let address = match peer.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let visit = Visit {
        socket,
        server: Server::new(settings, &address, clock::now(), random()),
        visitor: Remains {
            peer,
            local,
            pairs: marks.pairs,
            routes,
            news,
            numbers: marks.numbers,
            encrypted,
            stranger,
        },
        found: None,
        denied: false,
        user_agent: String::new(),
        tracks: 0,
        legs: Vec::new(),
        berth: None,
        grouped: false,
        media: Vec::new(),
        ears: Ears::new(),
        buffer: vec![0; READ],
    };
    visit.converse().await
}

/// What follows a conversation.
enum Turn {
    Play(Vec<(usize, u16, u32)>),
    Record,
}

impl Visit {
    /// Answers until the peer reads or publishes.
    async fn converse(mut self) -> Done {
        loop {
            let mut turn = None;
            while let Some(event) = self.server.next_event() {
                match event {
                    Event::Ask(ask) => turn = self.answer(ask).await?.or(turn),
                    Event::TornDown => {
                        (self.found, self.tracks, self.berth, self.grouped) = (None, 0, None, false);
                        self.media.clear();
                        self.legs.clear();
                        self.ears = Ears::new();
                    }
                    Event::Closed(why) => {
                        self.flush().await?;
                        return Err(why.into());
                    }
                    Event::Data { .. } | Event::Paused => {}
                }
            }
            match (turn, self.found.take()) {
                (Some(Turn::Play(start)), Some(Found::Reader(read))) => return self.read(read, &start).await,
                (Some(Turn::Record), Some(Found::Publisher(publish, description))) => {
                    return self.publish(publish, description).await;
                }
                (_, found) => self.found = found,
            }
            if self.server.is_backed_up() {
                let before = self.server.buffer().len();
                self.server.read(clock::now());
                if self.server.buffer().len() != before {
                    continue;
                }
            }
            self.flush().await?;
            self.receive().await?;
        }
    }

    /// Decides about one question.
    async fn answer(&mut self, ask: Ask) -> Done<Option<Turn>> {
        if !ask.user_agent.is_empty() {
            self.user_agent.clone_from(&ask.user_agent);
        }
        match &ask.action {
            Action::Describe => {
                let Some(read) = self.reader(&ask).await else { return Ok(None) };
                let description = match read.payload {
                    Payload::Transport => Ok(describe_transport()),
                    Payload::Tracks => known(read.tracks.clone()).await.map(|tracks| describe(&tracks).0),
                };
                match description {
                    Ok(description) => self.server.describe(description, &ask.path),
                    Err(_) => self.server.refuse(Status::UNAVAILABLE, clock::now()),
                }
            }
            Action::Announce(description) => {
                let Some(publish) = self.publisher(&ask).await else { return Ok(None) };
                if wanted(description).is_empty() {
                    self.server.refuse(Status::UNSUPPORTED_MEDIA, clock::now());
                    return Ok(None);
                }
                self.found = Some(Found::Publisher(publish, description.clone()));
                self.server.accept();
            }
            Action::SetUp { track, transports, publish } => {
                let allowed = if *publish {
                    matches!(self.found, Some(Found::Publisher(..)))
                } else {
                    match self.reader(&ask).await {
                        Some(read) => {
                            self.found = Some(Found::Reader(read));
                            true
                        }
                        None => return Ok(None),
                    }
                };
                if !allowed {
                    self.server.refuse(Status::INVALID_STATE, clock::now());
                    return Ok(None);
                }
                self.set_up(track.unwrap_or(0), transports, *publish);
            }
            Action::Play => {
                let Some(Found::Reader(read)) = &self.found else {
                    self.server.refuse(Status::INVALID_STATE, clock::now());
                    return Ok(None);
                };
                // A group goes on where it is, whoever comes; and who leaves tracks out has a lane with other numbers.
                let all = whole(read);
                let lane = read.lane.as_ref().filter(|_| !self.grouped && self.tracks & all == all);
                let start = lane.map(|lane| positions(lane)).unwrap_or_default();
                let start = start.into_iter().filter(|(track, ..)| self.tracks >> (track & 31) & 1 == 1);
                return Ok(Some(Turn::Play(start.collect())));
            }
            Action::Record => {
                if self.media.is_empty() {
                    self.server.refuse(Status::INVALID_STATE, clock::now());
                    return Ok(None);
                }
                return Ok(Some(Turn::Record));
            }
        }
        Ok(None)
    }

    /// The output that a peer may read.
    async fn reader(&mut self, ask: &Ask) -> Option<Arc<Read>> {
        let read = self.visitor.routes.read(&ask.path);
        let login = read.as_ref().map(|read| read.login.clone());
        let owner = read.as_ref().map(|read| (Owner::Output(read.output), read.attempt));
        self.admit(ask, login, owner).await.then_some(read).flatten()
    }

    /// The input that a peer may publish to.
    async fn publisher(&mut self, ask: &Ask) -> Option<Arc<Publish>> {
        let publish = self.visitor.routes.publish(&ask.path);
        let login = publish.as_ref().map(|publish| publish.login.clone());
        let owner = publish.as_ref().map(|publish| (Owner::Input(publish.input), publish.attempt));
        self.admit(ask, login, owner).await.then_some(publish).flatten()
    }

    /// Whether a peer may have what it asks for; it is told when not. Without a place there is nothing to guess.
    /// `owner` hears of wrong words, once for each connection.
    async fn admit(
        &mut self,
        ask: &Ask,
        login: Option<Option<(Box<str>, Box<str>)>>,
        owner: Option<(Owner, u32)>,
    ) -> bool {
        let status = match login {
            None => Status::NOT_FOUND,
            Some(None) => return true,
            Some(Some((user, password))) if ask.presented.proves(&user, &password) => {
                self.server.recognise();
                return true;
            }
            Some(Some(_)) => Status::UNAUTHORIZED,
        };
        let guessed = matches!(ask.presented, Presented::Basic(_) | Presented::Digest(_));
        if status == Status::NOT_FOUND || guessed {
            // Wrong ones are not answered at once: guessing takes time.
            tokio::time::sleep(WRONG).await;
        }
        if let Some((owner, attempt)) = owner.filter(|_| guessed)
            && !std::mem::replace(&mut self.denied, true)
        {
            let peer = self.visitor.peer;
            tracing::info!(%peer, "an RTSP peer gave a wrong user or password");
            let text = format!("{peer} was turned away: its user or password is wrong");
            // A full queue loses words.
            let _ = self.visitor.news.try_send(News::Word { owner, attempt, text });
        }
        self.server.refuse(status, clock::now());
        false
    }

    /// Leaves a reader to a shard.
    async fn read(mut self, read: Arc<Read>, start: &[(usize, u16, u32)]) -> Done {
        let (flow, now) = (Arc::<FlowStats>::default(), clock::now());
        let session = self.card("rtsp_listener", read.login.as_ref().map(|(user, _)| user.clone()), &flow);
        let Ok(session) = read.enter(session) else {
            self.server.refuse(Status::NOT_ENOUGH_BANDWIDTH, now);
            self.flush().await?;
            return Err("there are as many readers as may be".into());
        };
        self.server.play(start);
        let mut greeting = Vec::new();
        self.server.take_output(&mut greeting);
        let whole = whole(&read);
        // Whoever reads everything shares one lane, and a group is sent everything.
        let tracks = if self.grouped || self.tracks & whole == whole { u32::MAX } else { self.tracks };
        let mut shard = self.berth.map(|berth| berth.shard);
        if let Some(group) = read.group.as_ref().filter(|_| self.grouped) {
            let channels = (0..16u8).filter(|track| whole >> track & 1 == 1).map(|track| 2 * track);
            self.legs = channels.map(|channel| group.leg(channel)).collect();
            shard = Some(group.berth.shard);
        }
        let id = session.id;
        let link = Link {
            key: (read.output, Some(id)),
            attempt: read.attempt,
            stream: read.stream,
            local: false,
            lane: match &read.lane {
                Some(lane) => Arc::clone(lane),
                None => return Err("there is no lane".into()),
            },
            delay: read.delay,
            socket: self.socket.into_bytes()?,
            legs: self.legs,
            greeting,
            peer: Box::new(RtspReader::new(self.server)),
            lag: read.lag,
            stats: Arc::clone(&read.stats),
            flow,
            kicked: Some(session),
        };
        let numbers = Numbers { tracks, ..self.visitor.numbers };
        let join = News::Join {
            stream: read.stream,
            derivation: made_of(read.payload, numbers),
            link: Box::new(link),
            shard,
        };
        drop(self.visitor.stranger);
        if self.visitor.news.send(join).await.is_err() {
            read.sessions().remove(id);
        }
        Ok(())
    }

    /// Takes packets until the peer, the place or an operator ends it.
    async fn publish(mut self, publish: Arc<Publish>, description: Description) -> Done {
        let flow = Arc::<FlowStats>::default();
        let user = publish.login.as_ref().map(|(user, _)| user.clone());
        let Ok(session) = publish.enter(self.card("rtsp", user, &flow)) else {
            self.server.refuse(Status::NOT_ENOUGH_BANDWIDTH, clock::now());
            self.flush().await?;
            return Err("somebody publishes it already".into());
        };
        self.server.accept();
        self.flush().await?;
        drop(self.visitor.stranger.take());
        publish.stats.flow.show(Some(Arc::clone(&flow)));
        let owner = Owner::Input(publish.input);
        let (news, peer, attempt) = (self.visitor.news.clone(), self.visitor.peer, publish.attempt);
        let agent = if self.user_agent.is_empty() { "a publisher" } else { self.user_agent.as_str() };
        // A full queue loses words, never media.
        let _ = news.try_send(News::Word { owner, attempt, text: format!("{peer} publishes: {agent}") });
        let chosen: Vec<usize> = {
            let wanted = wanted(&description);
            self.media.iter().map(|(media, _)| *media).filter(|media| wanted.contains(media)).collect()
        };
        let encrypted = self.visitor.encrypted;
        let feed = publish.feed.clone();
        let datagrams = self.media.iter().any(|(_, way)| matches!(way, Way::Datagrams(_)));
        let window = if datagrams { WINDOW } else { Duration::ZERO };
        let intake = Intake::new(&description, &chosen, window, feed, Arc::clone(&flow), encrypted);
        let ended = self.record(intake, &session, publish.closed.subscribe()).await;
        publish.stats.sessions.remove(session.id);
        if publish.stats.flow.stats().is_some_and(|shown| Arc::ptr_eq(&shown, &flow)) {
            publish.stats.flow.show(None);
        }
        let why = match &ended {
            Ok(why) => (*why).to_owned(),
            Err(why) => why.to_string(),
        };
        let _ = news.try_send(News::Word { owner, attempt, text: format!("{peer} left: {why}") });
        ended.map(|_| ())
    }

    async fn record(
        &mut self,
        mut intake: Intake,
        session: &Session,
        mut closed: tokio::sync::watch::Receiver<bool>,
    ) -> Done<&'static str> {
        let mut packet_at = clock::now();
        loop {
            let now = clock::now();
            if session.is_kicked() {
                return Ok("it was kicked, or another publisher took its place");
            }
            while let Some(event) = self.server.next_event() {
                match event {
                    Event::Data { channel, bytes } => {
                        packet_at = now;
                        for (media, way) in &self.media {
                            match way {
                                Way::Channels(rtp, _) if channel == *rtp => intake.rtp(*media, &bytes, now),
                                Way::Channels(_, rtcp) if channel == *rtcp => {
                                    intake.rtcp(*media, &bytes, now)
                                }
                                _ => {}
                            }
                        }
                    }
                    Event::Ask(_) => self.server.refuse(Status::INVALID_STATE, now),
                    Event::TornDown => {
                        intake.ring();
                        self.flush().await?;
                        return Ok("it stopped publishing");
                    }
                    Event::Closed(why) => return Err(why.into()),
                    Event::Paused => {}
                }
            }
            intake.expire(now);
            intake.ring();
            let mut reports = Vec::new();
            for (media, report) in intake.reports(now) {
                let way = self.media.iter().find(|(known, _)| *known == media).map(|(_, way)| *way);
                match (way, u16::try_from(report.len())) {
                    (Some(Way::Channels(_, channel)), Ok(length)) => {
                        let [l0, l1] = length.to_be_bytes();
                        reports.extend_from_slice(&[b'$', channel, l0, l1]);
                        reports.extend_from_slice(&report);
                    }
                    (Some(Way::Datagrams(port)), _) => {
                        if let Some(pair) = self.ears.pair(media) {
                            pair.report(&report, (self.visitor.peer.ip(), port).into());
                        }
                    }
                    _ => {}
                }
            }
            self.socket.write(&reports).await?;
            self.flush().await?;
            if now.saturating_sub(packet_at) > SILENCE.as_nanos() as u64 {
                return Ok("nothing came for too long");
            }
            if self.server.is_backed_up() {
                let before = self.server.buffer().len();
                self.server.read(now);
                if self.server.buffer().len() != before {
                    continue;
                }
            }
            let due = intake.deadline().saturating_sub(now);
            tokio::select! {
                received = receive(&mut self.socket, &mut self.server, &mut self.buffer) => received?,
                Some(datagram) = self.ears.next() => {
                    packet_at = datagram.arrival;
                    self.server.touch(datagram.arrival);
                    datagram.put(&mut intake);
                    for _ in 0..BATCH {
                        let Some(datagram) = self.ears.ready() else { break };
                        datagram.put(&mut intake);
                    }
                }
                () = tokio::time::sleep(LOOK.min(Duration::from_nanos(due))) => {}
                _ = closed.changed() => {}
            }
            if *closed.borrow() {
                return Ok("the input was stopped");
            }
        }
    }

    fn card(&self, protocol: &'static str, user: Option<Box<str>>, flow: &Arc<FlowStats>) -> Session {
        Session::new(
            next_session(),
            self.visitor.peer,
            user,
            self.user_agent.as_str().into(),
            protocol,
            clock::wall(),
            telemetry::Transport::Flow(Arc::clone(flow)),
        )
    }

    async fn flush(&mut self) -> Done {
        let mut out = Vec::new();
        self.server.take_output(&mut out);
        Ok(self.socket.write(&out).await?)
    }

    async fn receive(&mut self) -> Done {
        receive(&mut self.socket, &mut self.server, &mut self.buffer).await
    }
}

/// The tracks that an output has, one bit each.
fn whole(read: &Read) -> u32 {
    let described = match read.payload {
        Payload::Tracks => describe(&read.tracks.borrow()).0,
        Payload::Transport => describe_transport(),
    };
    described.media.iter().fold(0u32, |all, media| {
        let control = media.control.as_deref();
        let number: Option<u32> = control.and_then(|control| control.strip_prefix("trackID=")?.parse().ok());
        all | number.map_or(0, |number| 1u32 << (number & 31))
    })
}

/// Waits for bytes, or for the time that the peer has.
async fn receive(socket: &mut Socket, server: &mut Server, buffer: &mut [u8]) -> Done {
    let wait = Duration::from_nanos(server.deadline().saturating_sub(clock::now()));
    match tokio::time::timeout(wait.min(WAIT_MOST), socket.read(buffer)).await {
        Ok(read) => match read? {
            0 => Err("it closed the connection".into()),
            count => {
                server.push(buffer.get(..count).unwrap_or_default(), clock::now());
                Ok(())
            }
        },
        Err(_) => {
            server.tick(clock::now());
            Ok(())
        }
    }
}

/// How long a peer may take for the TLS handshake.
const STRANGER: Duration = Duration::from_secs(10);
/// How long a wrong answer takes.
const WRONG: Duration = Duration::from_millis(300);
/// How often somebody who says nothing is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A publisher that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a gap in the sequence of datagrams is waited for.
const WINDOW: Duration = Duration::from_millis(50);
/// Datagrams taken in one turn.
const BATCH: usize = 256;
const WAIT_MOST: Duration = Duration::from_secs(60);
const READ: usize = 64 << 10;
