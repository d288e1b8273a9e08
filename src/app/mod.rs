//! The composition root: builds every room in reading order and owns the drain.

mod dial;
mod director;
mod ear;
mod feeders;
mod outlets;
mod rtmp;
mod rtsp;
mod servers;
mod sessions;
mod shards;
mod socket;
mod streams;
mod tak;
mod taps;
mod trust;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::control::{self, Board, Commands, Control, Metrics};
use crate::hub::{Bounds, Command, ShardHandle};
use crate::ingest::Inlet;
use crate::mux::rtp::Numbers;
use crate::net::{self, HostPolicy, clock, random};
use crate::store::Store;
use crate::supervise::{DialBudget, Keeper};
use crate::telemetry::ShardStats;
use crate::wire::rtsp::Nonces;
use crate::wire::srt::handshake::CookieSecret;

pub use director::Defaults;
pub use ear::{Ear, listen};
use outlets::Outlets;
use servers::{Marks, Servers};
pub(crate) use shards::Shards;

/// A running engine. Dropping it stops the data threads at once; [`App::stop`] drains first.
pub struct App {
    board: Arc<Board>,
    commands: Commands,
    shards: Arc<Shards>,
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    _media: Media,
}

/// The threads of tasks that receive: never those of the API, and never a data thread.
struct Media(Option<Runtime>);

impl Media {
    fn start() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(MEDIA_THREADS).thread_name("media").enable_all();
        Ok(Self(Some(runtime.build()?)))
    }

    fn handle(&self) -> Handle {
        self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        // Whoever drops it may be on a runtime himself, and must not wait there.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl App {
    /// Builds the engine and starts it: shards, director, API, then the inputs and outputs of the file.
    ///
    /// # Errors
    /// What could not be made, in words: no thread, no API port, or an input or output that is refused.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        if let Err(error) = net::raise_open_files() {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(|source| StartError::Listen { address: config.listen, source })?;
        let address = listener.local_addr().map_err(StartError::Thread)?;

        let (egress_notices, egress_mailbox) = mpsc::channel(NOTICES);
        let (ingest_notices, ingest_mailbox) = mpsc::channel(NOTICES);
        let (port_notices, port_mailbox) = mpsc::channel(NOTICES);
        let (server_news, server_mailbox) = mpsc::channel(NOTICES);
        let media = Media::start()?;
        let tls = tls(&config)?;
        let count = config.shards.unwrap_or(0);
        let shards = Shards::start(count, config.pin_shards, &egress_notices, &port_notices)?;
        let shards = Arc::new(shards);
        let servers = Arc::new(Servers::new(media.handle(), tls, server_news, marks(shards.len())));

        let board = Arc::new(Board::default());
        let (commands, mailbox) = control::commands(COMMANDS);
        let (stopping, stopped) = watch::channel(false);
        let bounds = Bounds { bytes: config.lane.bytes, age: config.lane.time };
        let mut director = director::Director {
            board: Arc::clone(&board),
            store: Store::new(config.rules(), config.roots()),
            keeper: Keeper::new(),
            budget: DialBudget::new(config.dial.per_host, config.dial.total),
            dials: JoinSet::new(),
            under_way: Default::default(),
            streams: streams::Streams::new(
                Arc::clone(&shards),
                bounds,
                ingest_notices.clone(),
                egress_notices.clone(),
            ),
            egress_notices,
            tellers: HashMap::new(),
            busy: Default::default(),
            defaults: defaults(&config, vec![address], servers),
            media: media.handle(),
            ingest_notices,
            readers: HashMap::new(),
            doors: HashMap::new(),
            epoch: (clock::now(), clock::wall()),
            neighbours: Default::default(),
            inputs: HashMap::new(),
            outputs: HashMap::new(),
        };
        director.seed(&config).map_err(|refusal| StartError::Refused(refusal.to_string()))?;

        let mut tasks = JoinSet::new();
        let news = director::News {
            ingest: ingest_mailbox,
            egress: egress_mailbox,
            port: port_mailbox,
            servers: server_mailbox,
        };
        tasks.spawn(director.run(mailbox, news, stopped.clone()));
        let api = Control::new(Arc::clone(&board), commands.clone(), clock::wall);
        let metrics = Metrics { board: Arc::clone(&board), shards: shards.stats(), started: clock::wall() };
        let metrics_address = figures(config.metrics, metrics, stopped.clone(), &mut tasks).await;
        let mut told = stopped;
        let shutdown = async move {
            // An error means that the app is gone: the same as being told.
            let _ = told.changed().await;
        };
        tasks.spawn(async move {
            if let Err(error) = control::serve(listener, api, Vec::new(), shutdown).await {
                tracing::error!(%error, "the API ended");
            }
        });
        tracing::info!(%address, shards = shards.len(), "engine started");
        Ok(Self { board, commands, shards, address, metrics_address, stopping, tasks, _media: media })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the figures for Prometheus are; `None` where they are off or could not be had.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Everything as it is.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Where writes are handed in.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Counters of every shard.
    pub fn shard_stats(&self) -> Vec<Arc<ShardStats>> {
        self.shards.stats()
    }

    /// Makes a shard do nothing for so long. For tests: shows that nobody waits for a shard.
    pub fn hold_shard(&self, index: usize, time: Duration) {
        self.shards.hold(index, time);
    }

    /// Takes no more writes, ends what is under way, lets files end at a whole packet, and stops.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let drained = tokio::time::timeout(DRAIN, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!("not everything ended within {DRAIN:?}");
        }
    }
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The API's address is not to be had.
    #[error("cannot listen on {address} for the API: {source}; change api.listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A source is not to be had, in words.
    #[error("{0}")]
    Source(String),
    /// A data thread could not be made.
    #[error("cannot start a data thread: {0}")]
    Thread(#[from] io::Error),
    /// The files of `tls` are not what they should be.
    #[error("tls: {0}")]
    Tls(String),
    /// An input or output of the configuration is refused.
    #[error("an input or output of the configuration is refused: {0}")]
    Refused(String),
}

/// Serves the figures for Prometheus; where that is. Who carries video does so without them, too.
async fn figures(
    listen: Option<SocketAddr>,
    metrics: Metrics,
    mut stopped: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Option<SocketAddr> {
    let listen = listen?;
    let bound = TcpListener::bind(listen).await.and_then(|bound| Ok((bound.local_addr()?, bound)));
    let (address, listener) = match bound {
        Ok(bound) => bound,
        Err(error) => {
            tracing::error!(address = %listen, %error, "no figures for Prometheus; change metrics.listen, or say off");
            return None;
        }
    };
    tasks.spawn(async move {
        let shutdown = async move {
            // An error means that the app is gone: the same as being told.
            let _ = stopped.changed().await;
        };
        if let Err(error) = control::serve_metrics(listener, metrics, shutdown).await {
            tracing::error!(%error, "the figures for Prometheus ended");
        }
    });
    tracing::info!(%address, "figures for Prometheus");
    Some(address)
}

/// What the configuration says where a url is silent; nothing is sent to our `own` ports.
fn defaults(config: &Config, own: Vec<SocketAddr>, servers: Arc<Servers>) -> Defaults {
    Defaults {
        servers,
        policy: Arc::new(HostPolicy::new(config.denied_hosts.clone(), own)),
        roots: Arc::new(config.roots()),
        rcvbuf: config.rcvbuf,
        klv: config.klv,
        delay: config.delay,
        stall_after: config.stall_after,
        reconnect_cap: config.reconnect.cap,
        jitter: config.reconnect.jitter,
        fatal_retry: config.reconnect.fatal_retry,
        max_sessions: config.max_sessions,
        cookie: CookieSecret::new(random()),
        data_dir: config.data_dir.as_path().into(),
        public: Arc::new(tak::Public {
            host: config.public_host.clone(),
            ports: config.public_ports,
            credentials: config.include_read_credentials,
        }),
    }
}

/// What peers of this engine know it by, made of chance; datagrams leave from so many shards.
fn marks(shards: usize) -> Marks {
    let numbers = Numbers {
        tracks: u32::MAX,
        seed: u64::from_ne_bytes(random()),
        wall: clock::realtime().saturating_sub(clock::now()),
    };
    Marks { numbers, nonces: Nonces::new(random(), "millrace"), pairs: Arc::new(rtsp::Pairs::new(shards)) }
}

/// What servers of ours show, if the configuration says.
fn tls(config: &Config) -> Result<Option<Arc<rustls::ServerConfig>>, StartError> {
    let (certificate, key) = match (&config.tls_certificate, &config.tls_key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        _ => return Err(StartError::Tls("certificate and key belong together: set both, or none".into())),
    };
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| StartError::Tls(format!("{}: {error}", path.display())))
    };
    let made = net::server_config(&read(certificate)?, &read(key)?);
    made.map(Some).map_err(|error| StartError::Tls(error.to_string()))
}

/// What a shard of this engine is made of.
pub(crate) type EngineShard = ShardHandle<Inlet, Outlets>;
pub(crate) type ShardCommand = Command<Inlet, Outlets>;

/// Notices that may wait for the director; more are dropped and counted.
const NOTICES: usize = 8_192;
/// Writes that may wait for the director; the API answers 503 to more.
const COMMANDS: usize = 1_024;
/// Tasks that receive share so many threads.
const MEDIA_THREADS: usize = 2;
const DRAIN: Duration = Duration::from_secs(5);
