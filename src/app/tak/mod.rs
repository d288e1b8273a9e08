//! Outputs that tell what metadata say: urls enter, tasks leave that send KLV in datagrams, or Cursor-on-Target to a mesh
//! or a server. One task for each output, for a few messages a second; runs on the media runtime, never on a data thread.

mod files;
mod identity;
mod klv;
mod mesh;
mod narrator;
mod register;
mod server;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};

use super::dial::{DialError, find_way};
use super::director::Defaults;
use super::feeders::Ending;
use crate::egress::{self, NoticeKind, OutputKey};
use crate::inspect::klv::Observation;
use crate::net::{Interface, Route, SendOptions, resolve, send_to};
use crate::store::{CotEnd, DatagramWay, OutputUrl};
use crate::telemetry::{OutputStats, TakStats};

pub(super) use files::FileError;
pub(super) use identity::{Public, video_url};
pub(super) use narrator::Persona;
pub(super) use register::Turn;

/// Observations of the input.
type News = broadcast::Receiver<Arc<Observation>>;
/// The public url of the picture, as long as there is one.
type Address = watch::Receiver<Option<String>>;

/// A destination that is reached and waits for something to tell.
pub(super) struct Telling {
    /// The way of datagrams.
    pub(super) route: Option<(Route, SocketAddr)>,
    /// Whether the peer acknowledges what it gets.
    pub(super) answers: bool,
    run: Box<dyn FnOnce(Desk) -> Work + Send>,
}

type Work = Pin<Box<dyn Future<Output = Ending> + Send>>;

/// What a task that tells has before it.
pub(super) struct Desk {
    pub(super) news: News,
    pub(super) video: Address,
    /// Whether the input has ended; is gone when the task shall end.
    pub(super) ended: watch::Receiver<bool>,
    pub(super) stats: Arc<OutputStats>,
    pub(super) tak: Arc<TakStats>,
    pub(super) remarks: Remarks,
    /// Whose turn it is at the list of videos.
    pub(super) turn: Turn,
}

/// Where a task says what an operator should know.
#[derive(Clone)]
pub(super) struct Remarks {
    notices: mpsc::Sender<egress::Notice>,
    output: OutputKey,
    attempt: u32,
}

/// A task that tells; it is asked to end when this is dropped.
pub(super) struct Teller(watch::Sender<bool>);

/// How many tasks still have something to end.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Telling {
    /// A destination that `run` tells.
    fn new<R>(answers: bool, run: impl FnOnce(Desk) -> R + Send + 'static) -> Self
    where
        R: Future<Output = Ending> + Send + 'static,
    {
        Self { route: None, answers, run: Box::new(|desk| Box::pin(run(desk))) }
    }

    /// Starts to tell; how it ends is told through the remarks of the desk.
    pub(super) fn start(
        self,
        media: &Handle,
        busy: &Busy,
        desk: impl FnOnce(watch::Receiver<bool>) -> Desk,
    ) -> Teller {
        let (end, ended) = watch::channel(false);
        let desk = desk(ended);
        let (remarks, working) = (desk.remarks.clone(), busy.enter());
        let work = (self.run)(desk);
        // Its owner keeps the other end of `ended`; nothing in the task waits without a bound.
        drop(media.spawn(async move {
            let ending = work.await;
            drop(working);
            if let Ending::Failed { reason, retryable } = ending {
                remarks.send(NoticeKind::Disconnected { session: None, reason, retryable }).await;
            }
        }));
        Teller(end)
    }
}

impl Teller {
    /// Says whether the input has ended, so that nothing of what was told of it holds any more.
    pub(super) fn end(&self, ended: bool) {
        self.0.send_if_modified(|known| std::mem::replace(known, ended) != ended);
    }
}

impl Desk {
    /// Waits until what was told is to be taken back; `false` = and nothing is to be told any more.
    async fn ends(ended: &mut watch::Receiver<bool>) -> bool {
        loop {
            match ended.changed().await {
                Ok(()) if *ended.borrow_and_update() => return true,
                Ok(()) => {}
                Err(_) => return false,
            }
        }
    }
}

impl Remarks {
    pub(super) fn new(notices: mpsc::Sender<egress::Notice>, output: OutputKey, attempt: u32) -> Self {
        Self { notices, output, attempt }
    }

    /// Says something, unless too much waits to be heard.
    pub(super) fn say(&self, text: impl Into<String>) {
        let (output, attempt) = (self.output, self.attempt);
        let kind = NoticeKind::Remark(text.into());
        let _ = self.notices.try_send(egress::Notice { output, attempt, kind });
    }

    async fn send(&self, kind: NoticeKind) {
        let (output, attempt) = (self.output, self.attempt);
        // Nobody listens when the engine ends.
        let _ = self.notices.send(egress::Notice { output, attempt, kind }).await;
    }
}

impl Busy {
    /// Whether all have ended.
    pub(super) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    fn enter(&self) -> Working {
        self.0.fetch_add(1, Ordering::AcqRel);
        Working(Arc::clone(&self.0))
    }
}

struct Working(Arc<AtomicUsize>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Reaches the destination of an output that tells; `persona` is who the stream is.
pub(super) async fn reach(
    url: &OutputUrl,
    persona: Option<Persona>,
    stats: &OutputStats,
    defaults: &Defaults,
) -> Result<Telling, DialError> {
    match url {
        OutputUrl::Klv(klv) => {
            let (socket, route) = open(&klv.way, defaults).await?;
            let track = klv.track;
            let telling = Telling::new(false, move |desk| klv::tell(socket, track, desk));
            Ok(Telling { route: Some(route), ..telling })
        }
        OutputUrl::Cot(cot) => {
            let mut persona = persona.ok_or(DialError::Broken)?;
            persona.prepare(defaults).await?;
            match &cot.end {
                CotEnd::Udp(way) => {
                    let (socket, route) = open(way, defaults).await?;
                    let ear = mesh::listen(way, route.1, cot.xml_only)?;
                    let telling = Telling::new(false, move |desk| mesh::tell(socket, ear, persona, desk));
                    Ok(Telling { route: Some(route), ..telling })
                }
                CotEnd::Tcp(dial) => {
                    let server = server::dial(dial, None, cot.xml_only, defaults).await?;
                    Ok(Telling::new(true, move |desk| server.tell(persona, desk)))
                }
                CotEnd::Tls(tls) => {
                    let server = server::dial_tls(tls, cot.xml_only, &stats.tak.keep(), defaults).await?;
                    Ok(Telling::new(true, move |desk| server.tell(persona, desk)))
                }
            }
        }
        _ => Err(DialError::Broken),
    }
}

/// A socket for datagrams to a destination, and the way there.
async fn open(way: &DatagramWay, defaults: &Defaults) -> Result<(UdpSocket, (Route, SocketAddr)), DialError> {
    let addresses = resolve(&way.host, way.port, &defaults.policy).await?;
    let interface = way.interface.as_deref().map(Interface::find).transpose()?;
    let (destination, route) = find_way(&addresses, interface.as_ref())?;
    let options = SendOptions {
        v6: destination.is_ipv6(),
        interface: route.interface,
        force_interface: interface.is_some(),
        ttl: way.ttl,
        dscp: way.dscp,
        source_port: way.source_port,
    };
    let socket = send_to(&options, destination)?;
    Ok((UdpSocket::from_std(socket).map_err(DialError::Thread)?, (route, destination)))
}
