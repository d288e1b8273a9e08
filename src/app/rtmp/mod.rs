//! RTMP over TCP and TLS: urls enter, connections that publish, tasks that are played to and places where peers publish
//! leave. Runs on the control and media runtimes, never on a data thread.

mod intake;
mod serve;

use std::io;
use std::time::Duration;

use super::dial::{self, Connected, DialError, Origin, Place};
use super::director::Defaults;
use super::feeders::Feeder;
use super::servers::Talk;
use super::socket::Socket;
use super::trust::trust;
use crate::egress::{LagPolicy, RtmpPeer};
use crate::mux::Derivation;
use crate::mux::flv::CHUNK_SIZE;
use crate::net::{client_config, clock, connect_tls, random};
use crate::store::{Lag, Payload, RtmpDial, RtmpEnd, RtmpInput, RtmpListen, RtmpOutput, Secret, Takeover};
use crate::wire::rtmp::{AuthQuery, Client, ClientConfig, ClientEvent, Credentials, Error, Limits, Purpose};

/// Why there is no RTMP connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum RtmpError {
    #[error(transparent)]
    Protocol(#[from] Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error(
        "the server closed the connection before media could flow: the application or the key may be wrong"
    )]
    Closed,
    #[error("the server closed the connection")]
    Left,
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("media did not flow within {0:?}")]
    Slow(Duration),
    #[error("the server challenges again and again")]
    Challenges,
}

impl RtmpError {
    /// Whether trying again may help without a change of the configuration.
    pub(super) fn is_retryable(&self) -> bool {
        !matches!(self, Self::Protocol(Error::Auth(_) | Error::Redirected(_)))
    }
}

/// Makes an input's source; peers publish under `name` where the url has no other.
pub(super) async fn source(url: &RtmpInput, name: &str, defaults: &Defaults) -> Result<Origin, DialError> {
    match &url.end {
        RtmpEnd::Caller(dial) => {
            let ready = open(dial, Purpose::Play, defaults).await?;
            Ok(Origin::Feeder(Feeder::new(move |feed, stats| intake::play(ready, feed, stats))))
        }
        RtmpEnd::Listener(listen) => {
            Ok(Origin::Place(place(listen, url.takeover == Takeover::Replace, name, defaults).await?))
        }
    }
}

/// Dials a server and is let publish.
pub(super) async fn push(url: &RtmpOutput, defaults: &Defaults) -> Result<Connected, DialError> {
    let Ready { socket, mut client, stream, .. } = open(&url.dial, Purpose::Publish, defaults).await?;
    Ok(Connected {
        socket: socket.into_bytes().map_err(RtmpError::Broken)?,
        legs: Vec::new(),
        greeting: client.take_output(),
        peer: Box::new(RtmpPeer::new(client)),
        derivation: Derivation::Rtmp { stream },
        delay: url.delay.as_ms() * 1_000_000,
        lag: match url.lag {
            Lag::SkipToKeyframe => LagPolicy::SkipToKeyframe,
            Lag::Disconnect => LagPolicy::Disconnect,
        },
    })
}

/// A connection on which media may flow.
struct Ready {
    socket: Socket,
    client: Client,
    /// The message stream.
    stream: u32,
    /// What came behind the server's word for it.
    rest: Vec<u8>,
}

async fn place(
    listen: &RtmpListen,
    replace: bool,
    name: &str,
    defaults: &Defaults,
) -> Result<Place, DialError> {
    let server = defaults.servers.open(Talk::Rtmp, listen.address, listen.encrypted, serve::handle).await?;
    let login = listen.credentials.as_ref().map(|c| (c.user.clone(), c.password.reveal().into()));
    Ok(Place {
        server,
        name: listen.name.as_ref().map_or(name, Secret::reveal).into(),
        login,
        replace,
        max_sessions: 1,
        delay: 0,
        lag: LagPolicy::default(),
        payload: Payload::default(),
        group: None,
        derivation: None,
    })
}

/// Dials until media may flow, as often as the server's challenges ask for.
async fn open(dial: &RtmpDial, purpose: Purpose, defaults: &Defaults) -> Result<Ready, DialError> {
    let opening = async {
        let mut auth = None;
        for _ in 0..CHALLENGES {
            let socket = connect(dial, defaults).await?;
            match greet(socket, config(dial, purpose, auth)).await? {
                Greeted::Ready(ready) => return Ok(*ready),
                Greeted::Redial(query) => auth = Some(query),
            }
        }
        Err(RtmpError::Challenges.into())
    };
    match tokio::time::timeout(dial.timeout, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(RtmpError::Slow(dial.timeout).into()),
    }
}

async fn connect(dial: &RtmpDial, defaults: &Defaults) -> Result<Socket, DialError> {
    let (socket, _) = dial::connect(&dial.host, dial.port, &defaults.policy).await?;
    socket.set_nodelay(true).map_err(RtmpError::Broken)?;
    let Some(told) = &dial.tls else { return Ok(Socket::Plain(socket)) };
    let tls = client_config(&trust(told, defaults).await?)?;
    Ok(Socket::Client(Box::new(connect_tls(socket, &dial.host, tls).await?)))
}

enum Greeted {
    Ready(Box<Ready>),
    Redial(AuthQuery),
}

/// Shakes hands, and asks to publish or to be played to.
async fn greet(mut socket: Socket, config: ClientConfig) -> Result<Greeted, RtmpError> {
    let mut client = Client::new(config, clock::now() as u32 / 1_000_000, random());
    let mut buffer = vec![0; 16 << 10];
    loop {
        socket.write(&client.take_output()).await?;
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err(RtmpError::Closed);
        }
        let mut input = buffer.get(..count).unwrap_or_default();
        while let Some(event) = client.read(&mut input)? {
            match event {
                ClientEvent::Publishing(stream) | ClientEvent::Playing(stream) => {
                    socket.write(&client.take_output()).await?;
                    let rest = input.to_vec();
                    return Ok(Greeted::Ready(Box::new(Ready { socket, client, stream, rest })));
                }
                ClientEvent::Redial(query) => return Ok(Greeted::Redial(query)),
                ClientEvent::Media(_) | ClientEvent::Status { .. } | ClientEvent::Ended => {}
            }
        }
    }
}

fn config(dial: &RtmpDial, purpose: Purpose, auth: Option<AuthQuery>) -> ClientConfig {
    let credentials = dial.credentials.as_ref().map(|known| Credentials {
        user: known.user.to_string(),
        password: known.password.reveal().to_owned(),
    });
    ClientConfig {
        purpose,
        application: dial.application.clone(),
        tc_url: dial.tc_url.clone(),
        stream: dial.stream.reveal().to_owned(),
        credentials,
        auth,
        chunk_size: CHUNK_SIZE,
        digest: true,
        limits: Limits::default(),
    }
}

/// One to hear which scheme, one to hear the challenge, one to answer.
const CHALLENGES: usize = 3;
