//! TCP ports that inputs and outputs share: whoever dials in is told apart by the name that it asks for. A port is open
//! as long as somebody listens there; a task for each connection, until its media flows.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::rtsp::{Group, Pairs};
use crate::egress::{LagPolicy, Link, OutputKey};
use crate::hub::{FeedWriter, Lane, StreamKey};
use crate::ingest::Fed;
use crate::media::{Message, Nanos, Tracks};
use crate::mux::Derivation;
use crate::mux::rtp::Numbers;
use crate::store::Payload;
use crate::telemetry::{InputStats, OutputStats, Session, SessionList, SessionsFull};
use crate::wire::rtsp::Nonces;

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Talk {
    /// RTMP.
    Rtmp,
    /// RTSP.
    Rtsp,
}

/// Takes care of one connection that came in.
pub(super) type Handler = fn(Visitor) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All ports.
pub(super) struct Servers {
    open: tokio::sync::Mutex<HashMap<SocketAddr, Weak<Server>>>,
    media: Handle,
    tls: Option<Arc<ServerConfig>>,
    news: mpsc::Sender<News>,
    marks: Marks,
}

/// What the peers of this engine know it by, the same on all ports.
#[derive(Clone)]
pub(super) struct Marks {
    /// What RTP packets are numbered by.
    pub(super) numbers: Numbers,
    /// What nonces are made of.
    pub(super) nonces: Nonces,
    /// Where datagrams of readers leave.
    pub(super) pairs: Arc<Pairs>,
}

/// One port.
pub(super) struct Server {
    /// Where it listens.
    pub(super) address: SocketAddr,
    talk: Talk,
    encrypted: bool,
    /// Who can be asked for.
    pub(super) routes: Arc<Routes>,
    accept: tokio::task::AbortHandle,
}

/// Who can be asked for on a port, by name.
#[derive(Default)]
pub(super) struct Routes {
    publish: Mutex<HashMap<Box<str>, Arc<Publish>>>,
    read: Mutex<HashMap<Box<str>, Arc<Read>>>,
}

/// An input that a peer may publish to.
pub(super) struct Publish {
    /// Whose.
    pub(super) input: StreamKey,
    /// Which attempt made the place.
    pub(super) attempt: u32,
    /// User and password that a peer has to give.
    pub(super) login: Option<(Box<str>, Box<str>)>,
    /// A second publisher takes the place of the first, instead of being turned away.
    pub(super) replace: bool,
    /// Where what it gives goes.
    pub(super) feed: FeedWriter<Fed>,
    /// Where it counts.
    pub(super) stats: Arc<InputStats>,
    /// Tells everybody that the place is gone.
    pub(super) closed: watch::Sender<bool>,
}

/// An output that peers may read.
pub(super) struct Read {
    /// Whose.
    pub(super) output: OutputKey,
    /// Which attempt made the place.
    pub(super) attempt: u32,
    /// The stream that it reads.
    pub(super) stream: StreamKey,
    /// What readers over a connection are sent, for those who tell them where it begins.
    pub(super) lane: Option<Arc<Lane<Message>>>,
    /// Its tracks.
    pub(super) tracks: watch::Receiver<Arc<Tracks>>,
    /// Over RTSP: what packets carry.
    pub(super) payload: Payload,
    /// Over RTSP: the group of those who ask for one.
    pub(super) group: Option<Group>,
    /// User and password that a peer has to give.
    pub(super) login: Option<(Box<str>, Box<str>)>,
    /// Peers at the same time.
    pub(super) max_sessions: usize,
    /// Delay class, nanoseconds.
    pub(super) delay: Nanos,
    /// What becomes of a peer that falls behind.
    pub(super) lag: LagPolicy,
    /// Where it counts.
    pub(super) stats: Arc<OutputStats>,
    /// Tells everybody that the place is gone.
    pub(super) closed: watch::Sender<bool>,
}

/// A connection that came in.
pub(super) struct Visitor {
    /// The connection; with TLS its handshake is still to be done.
    pub(super) socket: TcpStream,
    /// The other end.
    pub(super) peer: SocketAddr,
    /// How to encrypt, where the port does.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// Who can be asked for.
    pub(super) routes: Arc<Routes>,
    /// How to tell the director.
    pub(super) news: mpsc::Sender<News>,
    /// What it shall know us by.
    pub(super) marks: Marks,
    /// A stranger's place: give it back when it is known who it is.
    pub(super) stranger: Option<OwnedSemaphorePermit>,
}

/// What a connection has to tell the director.
pub(super) enum News {
    /// Something happened to who listens, in words.
    Word {
        /// Whose.
        owner: Owner,
        /// Which attempt of it.
        attempt: u32,
        /// What.
        text: String,
    },
    /// A reader is ready: let a shard walk it.
    Join {
        /// The stream.
        stream: StreamKey,
        /// What it reads.
        derivation: Derivation,
        /// The connection.
        link: Box<Link>,
        /// The shard that its datagrams leave from, if they do.
        shard: Option<usize>,
    },
}

/// Who listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// An input.
    Input(StreamKey),
    /// An output.
    Output(OutputKey),
}

/// Why a port, or a place at it, is not to be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerError {
    #[error("cannot listen on {0}: {1}")]
    Bind(SocketAddr, std::io::Error),
    #[error("port {0} is used for another protocol, or without TLS, by another input or output")]
    Other(SocketAddr),
    #[error("there is no certificate to show: set tls.certificate and tls.key")]
    NoCertificate,
    // The name may be a stream key, and is not repeated.
    #[error("the name is taken on this port by another input or output")]
    Taken,
}

impl ServerError {
    /// Whether trying again may help without a change of the configuration.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Bind(_, error) => error.kind() != std::io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

impl Servers {
    /// No port is open yet. Connections are taken care of on `media`.
    pub(super) fn new(
        media: Handle,
        tls: Option<Arc<ServerConfig>>,
        news: mpsc::Sender<News>,
        marks: Marks,
    ) -> Self {
        Self { open: Default::default(), media, tls, news, marks }
    }

    /// What RTP packets are numbered by.
    pub(super) fn numbers(&self) -> Numbers {
        self.marks.numbers
    }

    /// Where datagrams leave.
    pub(super) fn pairs(&self) -> &Pairs {
        &self.marks.pairs
    }

    /// The port at an address, opened where it is not open yet.
    pub(super) async fn open(
        &self,
        talk: Talk,
        address: SocketAddr,
        encrypted: bool,
        handler: Handler,
    ) -> Result<Arc<Server>, ServerError> {
        let mut open = self.open.lock().await;
        open.retain(|_, server| server.strong_count() > 0);
        if let Some(server) = open.get(&address).and_then(Weak::upgrade) {
            let same = (server.talk, server.encrypted) == (talk, encrypted);
            return if same { Ok(server) } else { Err(ServerError::Other(address)) };
        }
        let tls = match encrypted {
            true => Some(self.tls.clone().ok_or(ServerError::NoCertificate)?),
            false => None,
        };
        let listener = bind(address).await.map_err(|error| ServerError::Bind(address, error))?;
        let local = listener.local_addr().unwrap_or(address);
        let routes = Arc::<Routes>::default();
        let marks = self.marks.clone();
        let accepting = accept(listener, (tls, marks), Arc::clone(&routes), self.news.clone(), handler);
        let accept = self.media.spawn(accepting).abort_handle();
        let server = Arc::new(Server { address: local, talk, encrypted, routes, accept });
        open.insert(address, Arc::downgrade(&server));
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Routes {
    /// Lets peers publish under a name.
    pub(super) fn offer_publish(&self, name: &str, publish: Publish) -> Result<(), ServerError> {
        put(&self.publish, name, publish)
    }

    /// Lets peers read under a name.
    pub(super) fn offer_read(&self, name: &str, read: Read) -> Result<(), ServerError> {
        put(&self.read, name, read)
    }

    /// Whom a publisher asks for.
    pub(super) fn publish(&self, name: &str) -> Option<Arc<Publish>> {
        self.publish.lock().get(name).cloned()
    }

    /// Whom a reader asks for.
    pub(super) fn read(&self, name: &str) -> Option<Arc<Read>> {
        self.read.lock().get(name).cloned()
    }

    /// Takes what somebody offers away; the connections made for it end.
    pub(super) fn withdraw(&self, owner: Owner) {
        self.publish.lock().retain(|_, publish| {
            let keep = owner != Owner::Input(publish.input);
            publish.closed.send_replace(!keep);
            keep
        });
        self.read.lock().retain(|_, read| {
            let keep = owner != Owner::Output(read.output);
            read.closed.send_replace(!keep);
            keep
        });
    }
}

impl Publish {
    /// Lets a publisher in: the only one, by turning it away or the one before.
    pub(super) fn enter(&self, session: Session) -> Result<Arc<Session>, SessionsFull> {
        let sessions = &self.stats.sessions;
        if self.replace {
            for former in sessions.all() {
                former.kick();
                sessions.remove(former.id);
            }
        }
        sessions.add(session, 1)
    }
}

impl Read {
    /// Lets a reader in, if there is room.
    pub(super) fn enter(&self, session: Session) -> Result<Arc<Session>, SessionsFull> {
        self.sessions().add(session, self.max_sessions)
    }

    /// Those who read.
    pub(super) fn sessions(&self) -> &SessionList {
        &self.stats.sessions
    }
}

fn put<T>(names: &Mutex<HashMap<Box<str>, Arc<T>>>, name: &str, value: T) -> Result<(), ServerError> {
    match names.lock().entry(name.into()) {
        std::collections::hash_map::Entry::Occupied(_) => Err(ServerError::Taken),
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(Arc::new(value));
            Ok(())
        }
    }
}

async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    for _ in 0..BIND_TRIES {
        match TcpListener::bind(address).await {
            // A former server of the same port is let go within milliseconds.
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(BIND_WAIT).await
            }
            other => return other,
        }
    }
    TcpListener::bind(address).await
}

/// Takes connections in for as long as the port is open; they end with it, but for those that a shard walks.
async fn accept(
    listener: TcpListener,
    (tls, marks): (Option<Arc<ServerConfig>>, Marks),
    routes: Arc<Routes>,
    news: mpsc::Sender<News>,
    handler: Handler,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS));
    let mut connections = JoinSet::new();
    loop {
        // Whoever comes while there are too many strangers waits in the kernel's queue.
        let stranger = Arc::clone(&strangers).acquire_owned().await.ok();
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (tls, routes, news) = (tls.clone(), Arc::clone(&routes), news.clone());
        let marks = marks.clone();
        connections.spawn(handler(Visitor { socket, peer, tls, routes, news, marks, stranger }));
    }
}

/// Connections of which it is not known yet who they are.
const STRANGERS: usize = 512;
const BIND_TRIES: u32 = 20;
const BIND_WAIT: Duration = Duration::from_millis(10);
