//! Cursor-on-Target in datagrams: to one address, or to a mesh, whose version is what all that are heard speak. What others
//! say is read for that alone.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::broadcast::error::RecvError;

use super::Desk;
use super::klv::Post;
use super::narrator::{Narrator, Persona};
use crate::app::dial::DialError;
use crate::app::feeders::Ending;
use crate::net::{Interface, ReceiveOptions, clock, listen_to};
use crate::store::DatagramWay;
use crate::tak::cot::{self, CotEvent, Event, Frame, Mesh, TakMessage};

/// What hears a mesh.
pub(super) struct Ear(UdpSocket);

/// Hears the others of a group; nobody where it is none, or only XML is spoken.
pub(super) fn listen(
    way: &DatagramWay,
    destination: SocketAddr,
    xml_only: bool,
) -> Result<Option<Ear>, DialError> {
    if !destination.ip().is_multicast() || xml_only {
        return Ok(None);
    }
    let interface = way.interface.as_deref().map(Interface::find).transpose()?;
    let options = ReceiveOptions { interface, buffer: BUFFER, ..ReceiveOptions::any(destination) };
    let socket = listen_to(&options)?;
    Ok(Some(Ear(UdpSocket::from_std(socket).map_err(DialError::Thread)?)))
}

/// Tells until it is told to stop.
pub(super) async fn tell(socket: UdpSocket, ear: Option<Ear>, persona: Persona, mut desk: Desk) -> Ending {
    let mut session = Session {
        narrator: Narrator::new(persona),
        mesh: ear.is_some().then(Mesh::default),
        post: Post::new(socket),
        heard: (0, 0),
    };
    let mut buffer = vec![0; if ear.is_some() { 1 << 16 } else { 0 }];
    loop {
        let heard = async {
            match &ear {
                Some(Ear(socket)) => socket.recv(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            goes_on = Desk::ends(&mut desk.ended) => {
                session.withdraw(&desk).await;
                if !goes_on {
                    return Ending::Ended;
                }
            }
            news = desk.news.recv() => match news {
                Ok(observation) => {
                    desk.tak.packets.fetch_add(1, Relaxed);
                    if session.narrator.hears(&observation) {
                        desk.tak.told_ms.store(clock::wall_ms(), Relaxed);
                        for event in session.narrator.tell(&observation, &desk.video) {
                            session.send(&event, &desk).await;
                        }
                    }
                }
                Err(RecvError::Lagged(lost)) => {
                    desk.tak.lost.fetch_add(lost, Relaxed);
                }
                Err(RecvError::Closed) => {
                    session.withdraw(&desk).await;
                    return Ending::Ended;
                }
            },
            length = heard => match length {
                Ok(length) => session.hear(buffer.get(..length).unwrap_or_default(), &desk),
                Err(error) => {
                    let reason = format!("cannot hear the mesh: {error}");
                    return Ending::Failed { reason, retryable: true };
                }
            },
        }
    }
}

struct Session {
    narrator: Narrator,
    /// None where nobody can be heard.
    mesh: Option<Mesh>,
    post: Post,
    /// The second that counts, and what was heard in it.
    heard: (u64, u32),
}

impl Session {
    /// Takes back what was told.
    async fn withdraw(&mut self, desk: &Desk) {
        for event in self.narrator.withdraw() {
            self.send(&event, desk).await;
        }
    }

    async fn send(&mut self, event: &Event, desk: &Desk) {
        let now = Duration::from_nanos(clock::now());
        let own = self.narrator.uid().to_owned();
        let (version, control) = match &mut self.mesh {
            Some(mesh) => (mesh.version(now), mesh.control(&own, now)),
            None => (0, None),
        };
        desk.tak.version.store(version, Relaxed);
        let datagram = if version == 0 {
            // Whoever speaks more is told that this end does, in a message of its own.
            if control.is_some() {
                let message = TakMessage { control, ..TakMessage::default() };
                self.post.send(&cot::write_mesh(&message), desk).await;
            }
            cot::write(event, true).into_bytes()
        } else {
            cot::write_mesh(&TakMessage {
                control,
                event: Some(CotEvent::from(event)),
                ..TakMessage::default()
            })
        };
        self.post.send(&datagram, desk).await;
    }

    fn hear(&mut self, datagram: &[u8], desk: &Desk) {
        let Some(mesh) = &mut self.mesh else { return };
        let now = clock::now();
        let second = now / 1_000_000_000;
        self.heard =
            if self.heard.0 == second { (second, self.heard.1.saturating_add(1)) } else { (second, 1) };
        if self.heard.1 > HEARD_MAX {
            return;
        }
        let now = Duration::from_nanos(now);
        match cot::parse_datagram(datagram) {
            Ok(Frame::Xml(xml)) => match cot::parse(&xml) {
                Ok(event) if self.narrator.is_own(&event.uid) => return,
                Ok(event) => mesh.hear_xml(&event.uid, now),
                Err(_) => {
                    desk.tak.malformed.fetch_add(1, Relaxed);
                    return;
                }
            },
            Ok(Frame::Proto(message)) => {
                let event = message.event.as_ref().map(|event| event.uid.as_str());
                let control = message.control.as_ref().map(|control| control.contact_uid.as_str());
                if event.or(control).is_some_and(|uid| self.narrator.is_own(uid)) {
                    return;
                }
                mesh.hear_message(&message, now);
            }
            Err(_) => {
                desk.tak.malformed.fetch_add(1, Relaxed);
                return;
            }
        }
        desk.tak.heard.fetch_add(1, Relaxed);
        desk.tak.peers.store(mesh.peers() as u32, Relaxed);
    }
}

/// Receive buffer: what is lost is said again within a minute.
const BUFFER: usize = 256 << 10;
/// Datagrams of one second that are read; a mesh of hundreds sends fewer.
const HEARD_MAX: u32 = 500;
