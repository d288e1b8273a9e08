//! A source without an engine, for the probe: the url of an input enters, a driver that hands over what comes leaves.
//! Tries once, and keeps nothing.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::outlets::OutletCommand;
use super::servers::Servers;
use super::sessions::Plan;
use super::shards::Shards;
use super::streams::command;
use super::{StartError, defaults, dial};
use crate::config::Config;
use crate::hub::{Command, feed};
use crate::ingest::Driver;
use crate::port::{self, Drain, NoticeKind, Owner, Role};
use crate::store::InputUrl;
use crate::telemetry::{InputStats, SrtStats};

/// Something that is listened to.
pub struct Ear {
    /// Hands over what came.
    pub driver: Driver,
    sessions: Option<Sessions>,
}

/// SRT sessions need a thread that answers their peers.
struct Sessions {
    shards: Shards,
    notices: mpsc::Receiver<port::Notice>,
    stats: Arc<InputStats>,
}

/// Listens as an input of this url would, counting in `stats`.
///
/// # Errors
/// [`StartError::Source`], and [`StartError::Thread`] where SRT needs one.
pub async fn listen(url: &InputUrl, config: &Config, stats: &Arc<InputStats>) -> Result<Ear, StartError> {
    // Nobody is told anything: what is listened to is not served.
    let servers = Servers::new(Handle::current(), None, mpsc::channel(1).0, super::marks(1));
    match dial::source(url, "", 0, &defaults(config, Vec::new(), Arc::new(servers))).await {
        Ok(dial::Origin::Source(source)) => Ok(Ear { driver: source.driver, sessions: None }),
        Ok(dial::Origin::Sessions(plan)) => meet(*plan, stats),
        Ok(dial::Origin::Feeder(_) | dial::Origin::Place(_)) => {
            Err(StartError::Source("this is probed through an input".into()))
        }
        Err(error) => Err(StartError::Source(error.to_string())),
    }
}

fn meet(plan: Plan, stats: &Arc<InputStats>) -> Result<Ear, StartError> {
    let (writer, reader) = feed()?;
    // Notices of fan-outs, which there are none of.
    let (egress, _) = mpsc::channel(1);
    let (told, notices) = mpsc::channel(NOTICES);
    let shards = Shards::start(1, false, &egress, &told)?;
    let role = Role::Receive(Drain { feed: writer, stats: Arc::clone(stats) });
    let busy = || StartError::Source("the data thread takes no commands".into());
    let command = command(OWNER, 0, plan, role).ok_or_else(busy)?;
    shards.send(0, Command::Outflow(OutletCommand::Port(command))).map_err(|_| busy())?;
    let sessions = Sessions { shards, notices, stats: Arc::clone(stats) };
    Ok(Ear { driver: Driver::Fed(reader), sessions: Some(sessions) })
}

impl Ear {
    /// Why nothing comes any more: it could not be dialled, or the connection is over.
    pub fn end(&mut self) -> Option<String> {
        let notices = &mut self.sessions.as_mut()?.notices;
        while let Ok(notice) = notices.try_recv() {
            match notice.kind {
                NoticeKind::Failed { reason, .. } => return Some(reason),
                NoticeKind::Peer(text) => tracing::info!("{text}"),
                NoticeKind::Connected | NoticeKind::Listening(_) => {}
            }
        }
        None
    }

    /// The SRT connection that there is, if that is how it is listened.
    pub fn srt(&self) -> Option<Arc<SrtStats>> {
        self.sessions.as_ref()?.stats.srt.stats()
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        // The peer is told that it is over; a thread that is too busy for that ends all the same.
        let close = OutletCommand::Port(port::Command::Close(OWNER));
        drop(self.shards.send(0, Command::Outflow(close)));
    }
}

const OWNER: Owner = Owner::Input(0);
const NOTICES: usize = 64;
