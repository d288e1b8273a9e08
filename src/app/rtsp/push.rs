//! A session that we dial and that records: the tracks of a stream enter, a connection and where its packets go leave.
//! Over it, or over UDP as far as the server takes that.

use std::sync::Arc;

use tokio::sync::watch;

use super::dialling::{Dialling, Redirect};
use super::{RtspError, derivation, known, lag};
use crate::app::dial::{Connected, DialError};
use crate::app::director::Defaults;
use crate::egress::{Leg, RtspRecorder};
use crate::media::Tracks;
use crate::mux::rtp::{describe, describe_transport};
use crate::net::PortPair;
use crate::store::{Carrier, Payload, RtspDial, RtspOutput, Secret};
use crate::wire::rtsp::client::{Event, Role};
use crate::wire::rtsp::{Description, Lower, Transport};

/// Dials a server and is let record. `tracks` are those of the stream, as they become known.
pub(in crate::app) async fn push(
    url: &RtspOutput,
    tracks: watch::Receiver<Arc<Tracks>>,
    defaults: &Defaults,
) -> Result<Connected, DialError> {
    let Some(dial) = url.end.dial() else { return Err(DialError::Broken) };
    let (description, dropped) = match url.payload {
        Payload::Tracks => describe(&*known(tracks).await?),
        Payload::Transport => (describe_transport(), Vec::new()),
    };
    if description.media.is_empty() {
        let named = dropped.iter().map(|(_, track)| format!("{}: {}", track.codec, track.why));
        return Err(RtspError::NoTracks(named.collect::<Vec<_>>().join(", ")).into());
    }
    let opening = async {
        let (mut carrier, mut dial) = (dial.transport, Redirect::new(dial));
        loop {
            match record(dial.there(), &description, carrier, defaults).await {
                Ok(Some(recording)) => return Ok(recording),
                Ok(None) if carrier == Carrier::Udp => carrier = Carrier::Tcp,
                Ok(None) => return Err(RtspError::Transport.into()),
                Err(why) => dial.follow(why)?,
            }
        }
    };
    let opened: Result<_, DialError> = match tokio::time::timeout(dial.timeout, opening).await {
        Ok(opened) => opened,
        Err(_) => return Err(RtspError::Slow(dial.timeout).into()),
    };
    let (Dialling { socket, mut client, .. }, legs) = opened?;
    let mut greeting = Vec::new();
    client.take_output(&mut greeting);
    Ok(Connected {
        socket: socket.into_bytes().map_err(RtspError::Broken)?,
        legs,
        greeting,
        peer: Box::new(RtspRecorder::new(client)),
        derivation: derivation(url.payload, defaults),
        delay: url.delay.as_ms() * 1_000_000,
        lag: lag(url.lag),
    })
}

/// One try with one carrier; `None` when the server does not take it.
async fn record(
    dial: &RtspDial,
    description: &Description,
    carrier: Carrier,
    defaults: &Defaults,
) -> Result<Option<(Dialling, Vec<Leg>)>, DialError> {
    let mut dialling = Dialling::connect(dial, Role::Push(description.clone()), defaults).await?;
    let channels: Vec<u8> =
        description.media.iter().filter_map(|media| channel(media.control.as_deref())).collect();
    let mut pairs: Vec<Arc<PortPair>> = Vec::new();
    if carrier == Carrier::Udp {
        // One for each track: servers that have one port for all tell them apart by ours.
        for _ in &channels {
            pairs.push(Arc::new(PortPair::open(dialling.local)?));
        }
    }
    let mut legs: Vec<Leg> = Vec::new();
    loop {
        match dialling.event().await? {
            Event::Announced => {
                let transport = |(track, channel): (usize, &u8)| match pairs.get(track) {
                    Some(pair) => Transport {
                        lower: Lower::Udp,
                        client_port: Some(pair.ports()),
                        ..Transport::default()
                    },
                    None => Transport { interleaved: Some((*channel, channel + 1)), ..Transport::default() },
                };
                dialling.set_up(channels.iter().enumerate().map(|known| (known.0, transport(known))));
            }
            Event::SetUp { track, transport } => {
                let Some(&channel) = channels.get(track) else { return Err(RtspError::Channels.into()) };
                match (pairs.get(track), transport.server_port) {
                    (Some(pair), Some((rtp, rtcp))) => {
                        // To the server that was dialled, whatever it says of another one.
                        let to = |port| super::at_port(dialling.peer, port);
                        legs.push(Leg { channel, pair: Arc::clone(pair), rtp: to(rtp), rtcp: to(rtcp) });
                    }
                    (Some(_), None) => return Ok(None),
                    (None, _) if transport.interleaved == Some((channel, channel + 1)) => {}
                    (None, _) => return Err(RtspError::Channels.into()),
                }
            }
            Event::Started(_) => return Ok(Some((dialling, legs))),
            Event::TransportRefused { .. } => return Ok(None),
            Event::Redirected(place) => return Err(RtspError::Redirected(Secret::new(place)).into()),
            Event::Failed(why) => return Err(RtspError::Session(why).into()),
            Event::Described(_) | Event::Data { .. } => {}
        }
    }
}

/// The channel of a track in the shared lane: twice the number in its control URL.
fn channel(control: Option<&str>) -> Option<u8> {
    control?.strip_prefix("trackID=")?.parse::<u8>().ok()?.checked_mul(2)
}
