//! Peers that dial in to publish: connections enter, their access units leave into the stream that they have the name,
//! user and password of. Who asks for anything else is told so and closed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::intake::Intake;
use crate::app::servers::{News, Owner, Publish, Visitor};
use crate::app::socket::Socket;
use crate::mux::flv::CHUNK_SIZE;
use crate::net::{accept_tls, clock, random};
use crate::store::Secret;
use crate::telemetry::{FlowStats, Session, Transport, next_session};
use crate::wire::rtmp::{Limits, Purpose, Request, Server, ServerConfig, ServerEvent, Turned};

/// Takes care of one connection.
pub(super) fn handle(visitor: Visitor) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let peer = visitor.peer;
        if let Err(why) = visit(visitor).await {
            tracing::debug!(%peer, %why, "an RTMP peer was let go");
        }
    })
}

type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

async fn visit(visitor: Visitor) -> Done {
    let Visitor { socket, peer, tls, routes, news, stranger, .. } = visitor;
    #[expect(
        clippy::disallowed_methods,
        reason = "a bound on how long a stranger may take, on its own runtime"
    )]
    let deadline = Instant::now() + STRANGER;
    socket.set_nodelay(true)?;
    let encrypted = tls.is_some();
    let socket = match tls {
        None => Socket::Plain(socket),
        Some(tls) => Socket::Server(Box::new(timeout_at(deadline, accept_tls(socket, tls)).await??)),
    };
    let config = ServerConfig { chunk_size: CHUNK_SIZE, limits: Limits::default() };
    let mut visit = Visit {
        socket,
        server: Server::new(config, clock::now() as u32 / 1_000_000, random()),
        came: Vec::new(),
        buffer: vec![0; READ],
    };
    let request = timeout_at(deadline, visit.listen()).await??;
    let found = match request.purpose {
        Purpose::Play => Err((Turned::Unknown, "nothing is played here: outputs of this engine push RTMP")),
        Purpose::Publish => {
            // Wrong names and passwords are answered alike, and not at once: they cannot be told apart by guessing.
            let found = routes.publish(&name(&request)).filter(|place| is_allowed(&request, place));
            if found.is_none() {
                tokio::time::sleep(WRONG).await;
            }
            found.ok_or((Turned::Denied, "the stream key, the user or the password is wrong"))
        }
    };
    let place = match found {
        Ok(place) => place,
        Err((why, reason)) => {
            visit.turn_away(why, reason).await?;
            return Err(reason.into());
        }
    };
    let flow = Arc::<FlowStats>::default();
    let user = place.login.as_ref().map(|(user, _)| user.clone());
    let session = Session::new(
        next_session(),
        peer,
        user,
        request.application.as_str().into(),
        "rtmp",
        clock::wall(),
        Transport::Flow(Arc::clone(&flow)),
    );
    let Ok(session) = place.enter(session) else {
        let reason = "somebody publishes it already";
        visit.turn_away(Turned::Busy, reason).await?;
        return Err(reason.into());
    };
    visit.server.accept()?;
    drop(stranger);
    place.stats.flow.show(Some(Arc::clone(&flow)));
    let tell = |text: String| News::Word { owner: Owner::Input(place.input), attempt: place.attempt, text };
    let agent = if request.agent.is_empty() { "a publisher" } else { request.agent.as_str() };
    // A full queue loses words, never media.
    let _ = news.try_send(tell(format!("{peer} publishes: {agent}")));
    let intake = Intake::new(place.feed.clone(), Arc::clone(&flow), encrypted);
    let ended = visit.publish(intake, &session, place.closed.subscribe()).await;
    place.stats.sessions.remove(session.id);
    if place.stats.flow.stats().is_some_and(|shown| Arc::ptr_eq(&shown, &flow)) {
        place.stats.flow.show(None);
    }
    let why = match &ended {
        Ok(why) => (*why).to_owned(),
        Err(why) => why.to_string(),
    };
    let _ = news.try_send(tell(format!("{peer} left: {why}")));
    drop(place);
    if matches!(ended, Ok(STOPPED)) {
        visit.part().await;
    }
    ended.map(|_| ())
}

struct Visit {
    socket: Socket,
    server: Server,
    /// What came and was not looked at yet.
    came: Vec<u8>,
    /// What is read into.
    buffer: Vec<u8>,
}

impl Visit {
    /// Answers until the peer asks for something.
    async fn listen(&mut self) -> Done<Request> {
        loop {
            let mut input = self.came.as_slice();
            let event = self.server.read(&mut input)?;
            let rest = input.len();
            self.came.drain(..self.came.len() - rest);
            self.socket.write(&self.server.take_output()).await?;
            match event {
                Some(ServerEvent::Request(request)) => return Ok(*request),
                Some(ServerEvent::Media(_) | ServerEvent::Ended) => {}
                None => self.receive().await?,
            }
        }
    }

    /// Takes media until the peer, the place or an operator ends it.
    async fn publish(
        &mut self,
        mut intake: Intake,
        session: &Session,
        mut closed: watch::Receiver<bool>,
    ) -> Done<&'static str> {
        let mut silent = Duration::ZERO;
        loop {
            let mut input = self.came.as_slice();
            // Who was replaced meanwhile must not write into what its successor began.
            if session.is_kicked() {
                self.turn_away(Turned::Busy, "it was ended by this server").await?;
                return Ok("it was kicked, or another publisher took its place");
            }
            let mut ended = false;
            while let Some(event) = self.server.read(&mut input)? {
                match event {
                    ServerEvent::Media(message) => intake.take(&message),
                    ServerEvent::Ended => ended = true,
                    ServerEvent::Request(_) => {}
                }
            }
            self.came.clear();
            intake.ring();
            self.socket.write(&self.server.take_output()).await?;
            if ended {
                return Ok(STOPPED);
            }
            tokio::select! {
                received = timeout(LOOK, self.receive()) => match received {
                    Ok(received) => {
                        received?;
                        silent = Duration::ZERO;
                    }
                    Err(_) => silent += LOOK,
                },
                _ = closed.changed() => {}
            }
            if *closed.borrow() {
                self.turn_away(Turned::Denied, "this stream was closed").await?;
                return Ok("the input was stopped");
            }
            if silent >= SILENCE {
                return Ok("nothing came for too long");
            }
        }
    }

    /// Lets a peer that stopped publishing close the connection: it may have more to say (`deleteStream` behind
    /// `FCUnpublish`), and a socket that is closed before that was read resets the connection under it.
    async fn part(&mut self) {
        let listen = async {
            loop {
                let mut input = self.came.as_slice();
                while self.server.read(&mut input)?.is_some() {}
                self.came.clear();
                self.socket.write(&self.server.take_output()).await?;
                self.receive().await?;
            }
        };
        // Whatever ends it, there is nothing left to be told.
        let _: Result<Done, _> = timeout(PARTING, listen).await;
    }

    async fn receive(&mut self) -> Done {
        // Whoever waits may stop waiting: nothing is touched before something came.
        let count = self.socket.read(&mut self.buffer).await?;
        if count == 0 {
            return Err("it closed the connection".into());
        }
        self.came.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
        Ok(())
    }

    async fn turn_away(&mut self, why: Turned, reason: &str) -> Done {
        self.server.turn_away(why, reason)?;
        Ok(self.socket.write(&self.server.take_output()).await?)
    }
}

/// Application and stream, as the path of the url that publishers dial has them. Either may be missing.
fn name(request: &Request) -> String {
    let parts = [request.application.as_str(), request.stream.as_str()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn is_allowed(request: &Request, place: &Publish) -> bool {
    let Some((user, password)) = &place.login else { return true };
    let told = |names: [&str; 2]| {
        let mut pairs = url::form_urlencoded::parse(request.query.as_bytes());
        pairs.find(|(name, _)| names.contains(&name.as_ref())).map(|(_, value)| value.into_owned())
    };
    let (given, word) = (told(["user", "username"]), told(["pass", "password"]));
    let right = Secret::new(password.as_ref()).is(word.unwrap_or_default().as_bytes());
    right && given.as_deref() == Some(user)
}

/// How long a peer may take until it asks for something.
const STRANGER: Duration = Duration::from_secs(10);
/// How long a wrong answer takes.
const WRONG: Duration = Duration::from_millis(300);
/// How often somebody who says nothing is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// A publisher that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// How long a peer may take to close the connection when it has stopped publishing.
const PARTING: Duration = Duration::from_secs(3);
const STOPPED: &str = "it stopped publishing";
const READ: usize = 64 << 10;
