//! Cursor-on-Target over a connection to a TAK Server, encrypted or not: XML at first, protobuf where the server offers
//! it. What the server says is read for the negotiation alone. Never sends while an answer is awaited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Desk;
use super::files::papers;
use super::narrator::{Narrator, Persona};
use super::register::{self, Registry};
use crate::app::dial::{DialError, connect};
use crate::app::director::Defaults;
use crate::app::feeders::Ending;
use crate::app::socket::Socket;
use crate::net::{clock, connect_tls, mutual_config, prepare};
use crate::store::{CotDial, CotTls};
use crate::tak::cot::{
    CotEvent, Event, Frame, FrameError, Framer, Negotiation, Step, TakMessage, Video, parse, write,
    write_stream,
};
use crate::telemetry::{FlowStats, Rate, TakStats};

/// A server that is connected.
pub(super) struct Server {
    socket: Socket,
    xml_only: bool,
    registry: Option<Registry>,
}

/// Connects without TLS, or with `tls`.
pub(super) async fn dial(
    dial: &CotDial,
    tls: Option<Arc<ClientConfig>>,
    xml_only: bool,
    defaults: &Defaults,
) -> Result<Server, DialError> {
    let connecting = async {
        let (socket, address) = connect(&dial.host, dial.port, &defaults.policy).await?;
        prepare(&socket).map_err(|source| DialError::Connect { address, source })?;
        let socket = match tls {
            None => Socket::Plain(socket),
            Some(tls) => Socket::Client(Box::new(connect_tls(socket, &dial.host, tls).await?)),
        };
        Ok::<_, DialError>(socket)
    };
    let socket = match tokio::time::timeout(dial.timeout, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(DialError::Late(dial.timeout)),
    };
    Ok(Server { socket, xml_only, registry: None })
}

/// Connects with what the files say that the url names.
pub(super) async fn dial_tls(
    url: &CotTls,
    xml_only: bool,
    stats: &TakStats,
    defaults: &Defaults,
) -> Result<Server, DialError> {
    let papers = papers(url, defaults).await?;
    stats.certificate_expires.store(papers.expires, Relaxed);
    if stats.warnings.show(papers.warnings.clone()) {
        for warning in &papers.warnings {
            tracing::warn!(host = url.dial.host, "{warning}");
        }
    }
    let tls = mutual_config(&papers.trust, papers.checks_name, papers.shown)?;
    let mut whom = url.dial.clone();
    if let (true, Some((host, port))) = (whom.host.is_empty(), papers.server) {
        (whom.host, whom.port) = (host, port);
    }
    let server = dial(&whom, Some(Arc::clone(&tls)), xml_only, defaults).await?;
    let registry = url.register.map(|port| Registry {
        host: whom.host,
        port,
        tls,
        policy: Arc::clone(&defaults.policy),
    });
    Ok(Server { registry, ..server })
}

impl Server {
    /// Tells until the server ends it, or until it is told to stop.
    pub(super) async fn tell(self, persona: Persona, mut desk: Desk) -> Ending {
        // What stands in the server's list is looked after beside this, and ends with it.
        let mut beside = JoinSet::new();
        let (want, wanted) = watch::channel(None);
        if let Some(registry) = self.registry {
            let (turn, tak, remarks) = (Arc::clone(&desk.turn), Arc::clone(&desk.tak), desk.remarks.clone());
            beside.spawn(register::keep(registry, wanted, turn, tak, remarks));
        }
        let flow = desk.stats.flow.open();
        flow.encrypted.store(matches!(self.socket, Socket::Client(_)), Relaxed);
        flow.since_ms.store(clock::wall_ms(), Relaxed);
        desk.tak.version.store(0, Relaxed);
        // A server that did not answer once is spoken to as one that cannot.
        let xml_only = self.xml_only || desk.tak.negotiation_timeouts.load(Relaxed) > 0;
        let mut session = Session {
            socket: self.socket,
            negotiation: if xml_only { Negotiation::Refused } else { Negotiation::default() },
            framer: Framer::default(),
            narrator: Narrator::new(persona),
            flow,
            rate: Rate::default(),
            wrote: clock::now(),
            acknowledged: 0,
            gone: None,
        };
        let ending = session.run(&mut desk, &want).await;
        desk.stats.flow.show(None);
        session.socket.finish().await;
        drop(want);
        // Bounded by the time-outs of its requests.
        let ended = async { while beside.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(WITHDRAW, ended).await;
        ending
    }
}

struct Session {
    socket: Socket,
    negotiation: Negotiation,
    framer: Framer,
    narrator: Narrator,
    flow: Arc<FlowStats>,
    rate: Rate,
    /// When something was last written.
    wrote: u64,
    /// Bytes that the peer's kernel had acknowledged at the last look.
    acknowledged: u64,
    /// Since when there is no picture any more, while it still stands in the list.
    gone: Option<u64>,
}

impl Session {
    async fn run(&mut self, desk: &mut Desk, want: &watch::Sender<Option<Video>>) -> Ending {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = vec![0; READ];
        loop {
            let done = tokio::select! {
                goes_on = Desk::ends(&mut desk.ended) => {
                    let done = self.withdraw(desk).await;
                    if !goes_on {
                        return Ending::Ended;
                    }
                    done
                }
                news = desk.news.recv() => match news {
                    Ok(observation) => {
                        desk.tak.packets.fetch_add(1, Relaxed);
                        if !self.narrator.hears(&observation) {
                            continue;
                        }
                        desk.tak.told_ms.store(clock::wall_ms(), Relaxed);
                        // What cannot be said now is old when it can be.
                        if !self.negotiation.may_send() {
                            continue;
                        }
                        let events = self.narrator.tell(&observation, &desk.video);
                        self.send(&events, desk).await
                    }
                    Err(RecvError::Lagged(lost)) => {
                        desk.tak.lost.fetch_add(lost, Relaxed);
                        Ok(())
                    }
                    Err(RecvError::Closed) => {
                        // A server that is gone by now needs to be told nothing.
                        drop(self.withdraw(desk).await);
                        return Ending::Ended;
                    }
                },
                read = self.socket.read(&mut buffer) => match read {
                    Ok(0) => Err("the server closed the connection".to_owned()),
                    Ok(count) => self.hear(buffer.get(..count).unwrap_or_default(), desk).await,
                    Err(error) => match refusal(&error) {
                        Some(reason) => return Ending::Failed { reason, retryable: false },
                        None => Err(format!("the connection broke: {error}")),
                    },
                },
                _ = tick.tick() => {
                    self.register(desk, want);
                    self.look(desk).await
                }
            };
            if let Err(reason) = done {
                return match self.last_word().await {
                    Some(reason) => Ending::Failed { reason, retryable: false },
                    None => Ending::Failed { reason, retryable: true },
                };
            }
        }
    }

    /// Why the server ended the connection, where it says that of our certificate. In TLS 1.3 that comes behind the
    /// handshake, and writing can fail before it is read.
    async fn last_word(&mut self) -> Option<String> {
        let mut rest = [0; 1024];
        let socket = &mut self.socket;
        let read = async {
            loop {
                match socket.read(&mut rest).await {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) => return refusal(&error),
                }
            }
        };
        tokio::time::timeout(LAST_WORD, read).await.ok().flatten()
    }

    /// Takes back what was told, unless nothing may be said now: then it holds no longer than it said.
    async fn withdraw(&mut self, desk: &Desk) -> Result<(), String> {
        let events = self.narrator.withdraw();
        if self.negotiation.may_send() { self.send(&events, desk).await } else { Ok(()) }
    }

    async fn send(&mut self, events: &[Event], desk: &Desk) -> Result<(), String> {
        for event in events {
            let bytes = if self.negotiation.is_proto() {
                write_stream(&TakMessage { event: Some(CotEvent::from(event)), ..TakMessage::default() })
            } else {
                write(event, true).into_bytes()
            };
            self.write(&bytes, desk).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8], desk: &Desk) -> Result<(), String> {
        self.socket.write(bytes).await.map_err(|error| format!("the connection broke: {error}"))?;
        self.wrote = clock::now();
        let (stats, count) = (&desk.stats, bytes.len() as u64);
        stats.datagrams.fetch_add(1, Relaxed);
        let total = stats.bytes.fetch_add(count, Relaxed) + count;
        stats.last_sent_ms.store(clock::wall_ms(), Relaxed);
        let rate = self.rate.update(self.wrote, total);
        stats.bitrate_bps.store(rate, Relaxed);
        self.flow.rate_bps.store(rate, Relaxed);
        self.flow.messages.fetch_add(1, Relaxed);
        self.flow.bytes.fetch_add(count, Relaxed);
        Ok(())
    }

    async fn hear(&mut self, mut bytes: &[u8], desk: &Desk) -> Result<(), String> {
        let broken = |error: FrameError| format!("what the server sends cannot be read: {error}");
        // The framer holds two messages at the most.
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(PIECE));
            bytes = rest;
            self.framer.push(piece).map_err(broken)?;
            while let Some(frame) = self.framer.next().map_err(broken)? {
                desk.tak.heard.fetch_add(1, Relaxed);
                let Frame::Xml(xml) = frame else { continue };
                match parse(&xml) {
                    Ok(event) => self.negotiate(&event, desk).await?,
                    Err(_) => {
                        desk.tak.malformed.fetch_add(1, Relaxed);
                    }
                }
            }
        }
        Ok(())
    }

    async fn negotiate(&mut self, event: &Event, desk: &Desk) -> Result<(), String> {
        let now = Duration::from_nanos(clock::now());
        let uid = self.narrator.uid().to_owned();
        match self.negotiation.take(event, now, clock::wall_ms(), &uid) {
            Step::Ask(question) => self.write(write(&question, true).as_bytes(), desk).await,
            Step::Switch => {
                self.framer.switch();
                desk.tak.version.store(1, Relaxed);
                desk.remarks.say("the server speaks TAK protocol version 1: protobuf from here on");
                Ok(())
            }
            Step::Stay => {
                desk.remarks.say("the server stays with XML");
                Ok(())
            }
            Step::None | Step::Disconnect => Ok(()),
        }
    }

    /// Keeps the connection alive, and looks at what became of it.
    async fn look(&mut self, desk: &Desk) -> Result<(), String> {
        let now = clock::now();
        if self.negotiation.wait(Duration::from_nanos(now)) == Step::Disconnect {
            desk.tak.negotiation_timeouts.fetch_add(1, Relaxed);
            return Err(
                "the server offered another protocol and did not answer within 60 s: XML from now on".into(),
            );
        }
        let info = self.socket.info();
        self.flow.acknowledged_bytes.store(info.acknowledged, Relaxed);
        self.flow.unsent_bytes.store(info.unsent.into(), Relaxed);
        self.flow.rtt_us.store(info.rtt_us, Relaxed);
        self.flow.retransmitted.store(info.retransmitted.into(), Relaxed);
        if info.acknowledged > self.acknowledged {
            self.acknowledged = info.acknowledged;
            let sent = desk.stats.datagrams.load(Relaxed);
            desk.stats.acknowledged.store(sent, Relaxed);
        }
        let told = clock::wall_ms().saturating_sub(desk.tak.told_ms.load(Relaxed))
            < PING_SOON.as_millis() as u64 * 3;
        let pause = if told { PING_SOON } else { PING };
        if self.negotiation.may_send() && now.saturating_sub(self.wrote) >= pause.as_nanos() as u64 {
            let ping = self.narrator.ping();
            return self.send(&[ping], desk).await;
        }
        Ok(())
    }

    /// Says whether the stream shall stand in the list of videos: as long as there is a picture, and a little longer.
    fn register(&mut self, desk: &Desk, want: &watch::Sender<Option<Video>>) {
        let now = clock::now();
        match desk.video.borrow().clone() {
            Some(url) => {
                self.gone = None;
                let video = self.narrator.video(url);
                want.send_if_modified(|wanted| {
                    let other = wanted.as_ref() != Some(&video);
                    *wanted = Some(video);
                    other
                });
            }
            None => {
                let since = *self.gone.get_or_insert(now);
                if now.saturating_sub(since) >= LINGER.as_nanos() as u64 {
                    want.send_if_modified(|wanted| wanted.take().is_some());
                }
            }
        }
    }
}

/// What TLS says of our certificate, or the want of one, if that is why (RFC 8446, 6.2).
fn refusal(error: &io::Error) -> Option<String> {
    use rustls::AlertDescription as Alert;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = inner else { return None };
    match alert {
        Alert::CertificateRequired => Some(format!(
            "the server asks for a client certificate (package, or tls_cert and tls_key): {error}"
        )),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied => Some(format!("the server refuses our certificate: {error}")),
        _ => None,
    }
}

const TICK: Duration = Duration::from_millis(500);
const READ: usize = 16 << 10;
/// What is put into the framer at once.
const PIECE: usize = 16 << 10;
/// Without anything else to say this is said, so that what is `Live` is known to be: soon while there are metadata, less
/// often while there are none.
const PING_SOON: Duration = Duration::from_secs(2);
const PING: Duration = Duration::from_secs(10);
/// How long a stream without a picture stays in the list.
const LINGER: Duration = Duration::from_secs(5);
/// How long the end may take.
const WITHDRAW: Duration = Duration::from_millis(2_500);
/// How long is listened for why a connection broke.
const LAST_WORD: Duration = Duration::from_millis(500);
