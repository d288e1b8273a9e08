//! A connection to an RTSP server on its runtime: bytes go both ways until its session says something. Never waits for
//! a server without a bound of its caller.

use std::future::Future;

use super::{AGENT, RtspError};
use crate::app::dial::{DialError, connect};
use crate::app::director::Defaults;
use crate::app::socket::Socket;
use crate::app::trust::trust;
use crate::net::{client_config, clock, connect_tls, random};
use crate::store::RtspDial;
use crate::wire::rtsp::client::{Client, Dial, Event, Role};
use crate::wire::rtsp::{Credentials, Transport};

/// A connection and its session.
pub(super) struct Dialling {
    pub(super) socket: Socket,
    pub(super) client: Client,
    /// Scratch.
    out: Vec<u8>,
    buffer: Vec<u8>,
    pub(super) local: std::net::SocketAddr,
    pub(super) peer: std::net::SocketAddr,
}

/// Whom to dial: who was asked for, or whom that one names, once.
pub(super) struct Redirect<'a> {
    asked: &'a RtspDial,
    named: Option<RtspDial>,
}

impl<'a> Redirect<'a> {
    pub(super) fn new(asked: &'a RtspDial) -> Self {
        Self { asked, named: None }
    }

    /// Whom to dial now.
    pub(super) fn there(&self) -> &RtspDial {
        self.named.as_ref().unwrap_or(self.asked)
    }

    /// Goes where a server points, if that is why an attempt failed, and the first time.
    pub(super) fn follow(&mut self, why: DialError) -> Result<(), DialError> {
        match &why {
            DialError::Rtsp(RtspError::Redirected(place)) if self.named.is_none() => {
                self.named = Some(self.asked.redirected(place.reveal()).map_err(|_| why)?);
                Ok(())
            }
            _ => Err(why),
        }
    }
}

impl Dialling {
    /// Connects, and begins a session.
    pub(super) async fn connect(dial: &RtspDial, role: Role, defaults: &Defaults) -> Result<Self, DialError> {
        let (socket, address) = connect(&dial.host, dial.port, &defaults.policy).await?;
        socket.set_nodelay(true).map_err(RtspError::Broken)?;
        let local = socket.local_addr().map_err(RtspError::Broken)?;
        let socket = match &dial.tls {
            None => Socket::Plain(socket),
            Some(told) => {
                let tls = client_config(&trust(told, defaults).await?)?;
                Socket::Client(Box::new(connect_tls(socket, &dial.host, tls).await?))
            }
        };
        let credentials =
            dial.credentials.as_ref().map(|known| Credentials::new(&known.user, known.password.reveal()));
        let dial = Dial { url: dial.url.reveal().to_owned(), credentials, user_agent: AGENT.into(), role };
        Ok(Self {
            socket,
            client: Client::new(dial, clock::now(), random()),
            out: Vec::new(),
            buffer: vec![0; READ],
            local,
            peer: address,
        })
    }

    /// Sets tracks up, in the order of the description.
    pub(super) fn set_up(&mut self, tracks: impl IntoIterator<Item = (usize, Transport)>) {
        self.client.set_up(tracks, clock::now());
    }

    /// The next thing that the session says.
    pub(super) async fn event(&mut self) -> Result<Event, RtspError> {
        loop {
            if let Some(event) = self.next_event() {
                return Ok(event);
            }
            self.flush().await?;
            self.receive().await?;
        }
    }

    /// What it has said already.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let event = self.client.next_event();
        if event.is_none() && self.client.is_backed_up() {
            self.client.read(clock::now());
            return self.client.next_event();
        }
        event
    }

    /// Sends what the session wants to say.
    pub(super) fn flush(&mut self) -> impl Future<Output = Result<(), RtspError>> + Send + '_ {
        self.client.take_output(&mut self.out);
        async {
            let sent = self.socket.write(&self.out).await;
            self.out.clear();
            Ok(sent?)
        }
    }

    /// Sends bytes as they are.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), RtspError> {
        Ok(self.socket.write(bytes).await?)
    }

    /// Waits for bytes, and lets the session read them. Nothing is lost when it is not waited for to its end.
    pub(super) async fn receive(&mut self) -> Result<(), RtspError> {
        let count = self.socket.read(&mut self.buffer).await?;
        if count == 0 {
            return Err(RtspError::Closed);
        }
        self.client.push(self.buffer.get(..count).unwrap_or_default(), clock::now());
        Ok(())
    }
}

const READ: usize = 64 << 10;
