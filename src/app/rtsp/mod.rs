//! RTSP over TCP and TLS: urls enter, connections that record, tasks that are played to and places where peers dial in
//! leave. Runs on the control and media runtimes, never on a data thread.

mod dialling;
mod intake;
mod pairs;
mod pull;
mod push;
mod serve;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::dial::{DialError, Origin, Place};
use super::director::Defaults;
use super::feeders::Feeder;
use super::servers::Talk;
use crate::egress::LagPolicy;
use crate::media::Tracks;
use crate::mux::Derivation;
use crate::mux::rtp::{Numbers, describe};
use crate::store::{Lag, Payload, RtspEnd, RtspInput, RtspListen, RtspOutput, Secret, Takeover};
use crate::wire::rtsp::client::Failure;
use crate::wire::rtsp::{Format, Media};

pub(super) use pairs::{Group, Pairs};
pub(super) use push::push;

/// Why there is no RTSP session.
#[derive(Debug, thiserror::Error)]
pub(super) enum RtspError {
    #[error(transparent)]
    Session(#[from] Failure),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("media was not agreed on within {0:?}")]
    Slow(Duration),
    #[error("no packet came for {0:?}")]
    Silent(Duration),
    #[error("the server names another place, and that is not followed")]
    Redirected(Secret),
    #[error("Unsupported: the server has nothing that is read here ({0})")]
    Nothing(String),
    #[error("Unsupported: the input has no track that RTP carries ({0})")]
    NoTracks(String),
    #[error("the input has no tracks yet")]
    NotYet,
    #[error("Unsupported: the server takes RTP over this connection under other channels than it was asked")]
    Channels,
    #[error("the server takes neither RTP over UDP nor over the connection")]
    Transport,
}

impl RtspError {
    /// Whether trying again may help without a change of the configuration.
    pub(super) fn is_retryable(&self) -> bool {
        !matches!(self, Self::Session(Failure::Unauthorized(_) | Failure::NoCredentials))
    }
}

/// Makes an input's source; peers publish under `name` where the url has no other.
pub(super) async fn source(url: &RtspInput, name: &str, defaults: &Defaults) -> Result<Origin, DialError> {
    match &url.end {
        RtspEnd::Caller(dial) => {
            let opening = pull::open(url, dial, defaults);
            let ready = match tokio::time::timeout(dial.timeout, opening).await {
                Ok(opened) => opened?,
                Err(_) => return Err(RtspError::Slow(dial.timeout).into()),
            };
            Ok(Origin::Feeder(Feeder::new(move |feed, stats| pull::play(ready, feed, stats))))
        }
        RtspEnd::Listener(listen) => {
            let mut place = place(listen, name, defaults).await?;
            place.replace = url.takeover == Takeover::Replace;
            Ok(Origin::Place(place))
        }
    }
}

/// What an output sends: what its connections share.
pub(super) fn derivation(payload: Payload, defaults: &Defaults) -> Derivation {
    made_of(payload, defaults.servers.numbers())
}

/// The packets of a payload.
fn made_of(payload: Payload, numbers: Numbers) -> Derivation {
    match payload {
        Payload::Tracks => Derivation::Rtsp(numbers),
        Payload::Transport => Derivation::RtspTransport(numbers),
    }
}

/// Makes the place of an output that peers read.
pub(super) async fn serve(
    url: &RtspOutput,
    listen: &RtspListen,
    name: &str,
    defaults: &Defaults,
) -> Result<Place, DialError> {
    let mut place = place(listen, name, defaults).await?;
    place.max_sessions = url.max_sessions.unwrap_or(defaults.max_sessions);
    place.delay = url.delay.as_ms() * 1_000_000;
    place.lag = lag(url.lag);
    place.payload = url.payload;
    place.group = url.group.as_ref().map(|group| defaults.servers.pairs().group(group)).transpose()?;
    place.derivation = Some(derivation(url.payload, defaults));
    Ok(place)
}

/// The tracks of a stream, once there are any and a moment passed for the rest of them.
async fn known(mut tracks: watch::Receiver<Arc<Tracks>>) -> Result<Arc<Tracks>, RtspError> {
    let any = tokio::time::timeout(TRACKS_WITHIN, tracks.wait_for(|tracks| !tracks.0.is_empty()));
    let any = any.await.is_ok_and(|found| found.is_ok());
    if !any {
        return Err(RtspError::NotYet);
    }
    let whole = |tracks: &Arc<Tracks>| {
        let (description, dropped) = describe(tracks);
        let told = |media: &Media| match &media.format {
            Format::H264 { sps, .. } | Format::H265 { sps, .. } => !sps.is_empty(),
            _ => true,
        };
        description.media.iter().all(told) && dropped.iter().all(|(_, dropped)| !dropped.is_pending())
    };
    // What decoders need of sound and pictures comes with their first frames.
    drop(tokio::time::timeout(SETUPS_WITHIN, tracks.wait_for(whole)).await);
    let now = Arc::clone(&tracks.borrow());
    Ok(now)
}

async fn place(listen: &RtspListen, name: &str, defaults: &Defaults) -> Result<Place, DialError> {
    let server = defaults.servers.open(Talk::Rtsp, listen.address, listen.encrypted, serve::handle).await?;
    let login = listen.credentials.as_ref().map(|c| (c.user.clone(), c.password.reveal().into()));
    Ok(Place {
        server,
        name: listen.name.as_deref().unwrap_or(name).into(),
        login,
        replace: false,
        max_sessions: 1,
        delay: 0,
        lag: LagPolicy::default(),
        payload: Payload::Tracks,
        group: None,
        derivation: None,
    })
}

fn lag(lag: Lag) -> LagPolicy {
    match lag {
        Lag::SkipToKeyframe => LagPolicy::SkipToKeyframe,
        Lag::Disconnect => LagPolicy::Disconnect,
    }
}

/// A port of the host of an address; a peer of IPv4 at a socket of both families is one of IPv4.
fn at_port(mut peer: SocketAddr, port: u16) -> SocketAddr {
    if let IpAddr::V4(ip) = peer.ip().to_canonical() {
        return (ip, port).into();
    }
    peer.set_port(port);
    peer
}

/// What this side calls itself.
const AGENT: &str = concat!("millrace/", env!("CARGO_PKG_VERSION"));
/// How long an output waits for tracks of its input.
const TRACKS_WITHIN: Duration = Duration::from_secs(5);
/// How long it waits for what decoders need to know of them.
const SETUPS_WITHIN: Duration = Duration::from_millis(1500);
