//! A session that we dial enters, its media leave into the stream's queue until it ends: over the connection, over UDP
//! with the connection as the way out, or from a group.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::RtspError;
use super::dialling::{Dialling, Redirect};
use super::intake::{Intake, wanted};
use super::udp::{Datagram, Ears, Pair};
use crate::app::dial::DialError;
use crate::app::director::Defaults;
use crate::app::feeders::Ending;
use crate::hub::FeedWriter;
use crate::ingest::Fed;
use crate::net::clock;
use crate::store::{Carrier, RtspDial, RtspInput, Secret};
use crate::telemetry::InputStats;
use crate::wire::rtsp::client::{Event, Role};
use crate::wire::rtsp::{Description, Lower, Transport};

/// A session that plays.
pub(super) struct Ready {
    dialling: Dialling,
    description: Description,
    chosen: Vec<usize>,
    transports: Vec<(usize, Transport)>,
    ears: Ears,
    window: Duration,
    encrypted: bool,
    /// What came before anybody listened.
    early: Vec<Datagram>,
}

/// Dials until the server plays.
pub(super) async fn open(url: &RtspInput, dial: &RtspDial, defaults: &Defaults) -> Result<Ready, DialError> {
    let (mut carrier, mut dial) = (dial.transport, Redirect::new(dial));
    loop {
        match begin(url, dial.there(), carrier, defaults).await {
            Ok(Some(ready)) => return Ok(ready),
            Ok(None) if carrier == Carrier::Udp => carrier = Carrier::Tcp,
            Ok(None) => return Err(RtspError::Transport.into()),
            Err(why) => dial.follow(why)?,
        }
    }
}

/// One try with one carrier; `None` when the server does not take it, or nothing comes over it.
async fn begin(
    url: &RtspInput,
    dial: &RtspDial,
    carrier: Carrier,
    defaults: &Defaults,
) -> Result<Option<Ready>, DialError> {
    let mut dialling = Dialling::connect(dial, Role::Pull, defaults).await?;
    let (mut description, mut chosen) = (Description::default(), Vec::new());
    let mut transports: Vec<(usize, Transport)> = Vec::new();
    let (mut pairs, mut ears) = (Vec::new(), Ears::new());
    let buffer = url.rcvbuf.unwrap_or(defaults.rcvbuf);
    loop {
        match dialling.event().await? {
            Event::Described(described) => {
                chosen = wanted(&described);
                if chosen.is_empty() {
                    let named = described.media.iter().map(|media| media.format.name().to_owned());
                    return Err(RtspError::Nothing(named.collect::<Vec<_>>().join(", ")).into());
                }
                description = described;
                let mut asked = Vec::new();
                for (place, media) in chosen.iter().enumerate() {
                    let transport = match carrier {
                        Carrier::Tcp => {
                            // At most 16 media.
                            let channel = 2 * place as u8;
                            Transport { interleaved: Some((channel, channel + 1)), ..Transport::default() }
                        }
                        Carrier::Udp => {
                            let pair = Pair::open(dialling.local.ip(), buffer).map_err(RtspError::Broken)?;
                            let client_port = Some(pair.ports().map_err(RtspError::Broken)?);
                            pairs.push((*media, pair));
                            Transport { lower: Lower::Udp, client_port, ..Transport::default() }
                        }
                        Carrier::Multicast => {
                            Transport { lower: Lower::Udp, multicast: true, ..Transport::default() }
                        }
                    };
                    asked.push((*media, transport));
                }
                dialling.set_up(asked);
            }
            Event::SetUp { track, transport } => {
                if carrier == Carrier::Multicast {
                    let media = description.media.get(track).and_then(|media| media.group);
                    let group =
                        transport.destination.filter(IpAddr::is_multicast).or(media.map(|(ip, ..)| ip));
                    let ports = transport.port.or(media.map(|(_, port, _)| (port, port + 1)));
                    let (Some(group), Some(ports)) = (group, ports) else { return Ok(None) };
                    let pair =
                        Pair::join(group, ports, dialling.local.ip(), buffer).map_err(RtspError::Broken)?;
                    ears.listen(track, pair, None);
                } else if let Some(at) = pairs.iter().position(|(media, _)| *media == track) {
                    let (_, pair) = pairs.swap_remove(at);
                    if let Some(ports) = transport.server_port {
                        pair.punch(dialling.peer.ip(), ports);
                    }
                    ears.listen(track, pair, Some(dialling.peer.ip().to_canonical()));
                }
                transports.push((track, transport));
            }
            Event::TransportRefused { .. } => return Ok(None),
            Event::Started(_) => break,
            Event::Redirected(place) => return Err(RtspError::Redirected(Secret::new(place)).into()),
            Event::Failed(why) => return Err(RtspError::Session(why).into()),
            Event::Announced | Event::Data { .. } => {}
        }
    }
    let mut early = Vec::new();
    if carrier == Carrier::Udp {
        // Something between may let no datagram through: the connection is the way out.
        dialling.flush().await?;
        match tokio::time::timeout(FIRST, ears.next()).await {
            Ok(Some(first)) => early.push(first),
            _ => {
                dialling.client.close(clock::now());
                dialling.flush().await?;
                return Ok(None);
            }
        }
    }
    let (window, encrypted) = match carrier {
        Carrier::Tcp => (Duration::ZERO, dial.tls.is_some()),
        Carrier::Udp | Carrier::Multicast => (url.reorder, false),
    };
    Ok(Some(Ready { dialling, description, chosen, transports, ears, window, encrypted, early }))
}

/// Is played to until the server ends it.
pub(super) async fn play(ready: Ready, feed: FeedWriter<Fed>, stats: Arc<InputStats>) -> Ending {
    let flow = stats.flow.open();
    let intake = Intake::new(&ready.description, &ready.chosen, ready.window, feed, flow, ready.encrypted);
    let why = match read(ready, intake).await {
        Ok(never) => match never {},
        Err(why) => why,
    };
    stats.flow.show(None);
    Ending::Failed { retryable: why.is_retryable(), reason: why.to_string() }
}

async fn read(ready: Ready, mut intake: Intake) -> Result<std::convert::Infallible, RtspError> {
    let Ready { mut dialling, transports, mut ears, early, .. } = ready;
    let mut channels: Vec<Option<(usize, bool)>> = vec![None; 256];
    for (media, transport) in &transports {
        let pair = transport.interleaved.filter(|_| transport.lower == Lower::Tcp);
        for (channel, control) in pair.into_iter().flat_map(|(rtp, rtcp)| [(rtp, false), (rtcp, true)]) {
            if let Some(place) = channels.get_mut(usize::from(channel)) {
                *place = Some((*media, control));
            }
        }
    }
    for datagram in early {
        datagram.put(&mut intake);
    }
    let mut packet_at = clock::now();
    loop {
        let now = clock::now();
        while let Some(event) = dialling.next_event() {
            match event {
                Event::Data { channel, bytes } => {
                    packet_at = now;
                    match channels.get(usize::from(channel)).copied().flatten() {
                        Some((media, false)) => intake.rtp(media, &bytes, now),
                        Some((media, true)) => intake.rtcp(media, &bytes, now),
                        None => {}
                    }
                }
                Event::Failed(why) => return Err(why.into()),
                Event::Redirected(place) => return Err(RtspError::Redirected(Secret::new(place))),
                _ => {}
            }
        }
        intake.expire(now);
        intake.ring();
        for (media, report) in intake.reports(now) {
            tell(&mut dialling, &ears, &transports, media, &report).await?;
        }
        dialling.client.tick(now);
        dialling.flush().await?;
        if now.saturating_sub(packet_at) > SILENCE.as_nanos() as u64 {
            return Err(RtspError::Silent(SILENCE));
        }
        let due = dialling.client.deadline().min(intake.deadline()).min(now + LOOK);
        let wait = Duration::from_nanos(due.saturating_sub(now));
        tokio::select! {
            received = dialling.receive() => received?,
            Some(datagram) = ears.next() => {
                packet_at = datagram.arrival;
                datagram.put(&mut intake);
                for _ in 0..BATCH {
                    let Some(datagram) = ears.ready() else { break };
                    datagram.put(&mut intake);
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Sends a report the way its media comes.
async fn tell(
    dialling: &mut Dialling,
    ears: &Ears,
    transports: &[(usize, Transport)],
    media: usize,
    report: &[u8],
) -> Result<(), RtspError> {
    let Some((_, transport)) = transports.iter().find(|(known, _)| *known == media) else { return Ok(()) };
    match (transport.lower, transport.interleaved, transport.server_port) {
        (Lower::Tcp, Some((_, channel)), _) => {
            let Ok(length) = u16::try_from(report.len()) else { return Ok(()) };
            let [l0, l1] = length.to_be_bytes();
            dialling.send(&[&[b'$', channel, l0, l1], report].concat()).await
        }
        (Lower::Udp, _, Some((_, port))) => {
            if let Some(pair) = ears.pair(media) {
                pair.report(report, (dialling.peer.ip(), port).into());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// How long the first datagram is waited for.
const FIRST: Duration = Duration::from_secs(3);
/// A server that sends no packet for this long has nothing.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a quiet session is looked at.
const LOOK: u64 = 500_000_000;
/// Datagrams taken in one turn.
const BATCH: usize = 256;
