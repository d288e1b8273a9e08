//! Transports that a peer asks for enter, the way that each of its tracks goes leaves: over the connection, in datagrams,
//! to a group. Sends nothing.

use std::sync::Arc;

use super::{Found, Remains, Visit, Way};
use crate::app::rtsp::at_port;
use crate::app::rtsp::udp::Pair;
use crate::egress::Leg;
use crate::net::clock;
use crate::wire::rtsp::{Lower, Status, Transport};

impl Visit {
    /// What is published comes as the first transport says, if that is known here; a reader gets the first that it can
    /// have. Over the connection the channels are those of the shared lane.
    pub(super) fn set_up(&mut self, track: usize, transports: &[Transport], publish: bool) {
        if publish && !self.visitor.encrypted && transports.first().is_some_and(is_datagrams) {
            return self.set_up_datagrams(track, transports);
        }
        let Some(own) = u8::try_from(2 * track).ok().filter(|own| *own < 32) else {
            return self.server.refuse(Status::UNSUPPORTED_TRANSPORT, clock::now());
        };
        for asked in transports {
            if asked.multicast {
                let answer = if publish { None } else { self.send_to_group(own) };
                if let Some(answer) = answer {
                    self.tracks |= 1 << (track & 31);
                    return self.server.set_up(&answer);
                }
            } else if asked.lower == Lower::Udp {
                let answer = if publish { None } else { self.send_to(own, asked) };
                if let Some(answer) = answer {
                    self.tracks |= 1 << (track & 31);
                    return self.server.set_up(&answer);
                }
            } else if publish || self.legs.is_empty() && !self.grouped {
                let channels =
                    if publish { asked.interleaved.unwrap_or((own, own + 1)) } else { (own, own + 1) };
                if publish {
                    self.media.retain(|(known, _)| *known != track);
                    self.media.push((track, Way::Channels(channels.0, channels.1)));
                } else {
                    self.tracks |= 1 << (track & 31);
                }
                let record = publish && asked.record;
                let interleaved = Some(channels);
                return self.server.set_up(&Transport { interleaved, record, ..Transport::default() });
            }
        }
        self.server.refuse(Status::UNSUPPORTED_TRANSPORT, clock::now());
    }

    /// Has a track of a reader sent in datagrams: to the host of this connection and no other, and to no port of a
    /// service. `None` = it cannot be: over TLS nobody shall read along, and one session has one way.
    fn send_to(&mut self, channel: u8, asked: &Transport) -> Option<Transport> {
        let Remains { peer, local, pairs, encrypted, .. } = &self.visitor;
        let (rtp, rtcp) =
            asked.client_port.filter(|(rtp, rtcp)| rtp.min(rtcp) >= &PORT_LEAST && rtp != rtcp)?;
        let elsewhere = asked.destination.is_some_and(|to| to.to_canonical() != peer.ip().to_canonical());
        let otherwise = self.tracks != 0 && self.legs.is_empty();
        if *encrypted || elsewhere || otherwise {
            return None;
        }
        if self.berth.is_none() {
            self.berth = pairs.berth(*local).inspect_err(|why| tracing::warn!(%why, "no port for RTP")).ok();
        }
        let pair = &self.berth.as_ref()?.pair;
        let to = |port| at_port(*peer, port);
        let leg = Leg { channel, pair: Arc::clone(pair), rtp: to(rtp), rtcp: to(rtcp) };
        let server_port = Some(pair.ports());
        self.legs.retain(|known| known.channel != channel);
        let at = self.legs.partition_point(|known| known.channel < channel);
        self.legs.insert(at, leg);
        Some(Transport {
            lower: Lower::Udp,
            client_port: Some((rtp, rtcp)),
            server_port,
            ..Transport::default()
        })
    }

    /// Points a reader to the group of the output, if that has one. `None` = it cannot be: one session has one way.
    fn send_to_group(&mut self, channel: u8) -> Option<Transport> {
        let Some(Found::Reader(read)) = &self.found else { return None };
        let group = read.group.as_ref()?;
        if self.visitor.encrypted || self.tracks != 0 && !self.grouped {
            return None;
        }
        self.grouped = true;
        Some(Transport {
            lower: Lower::Udp,
            multicast: true,
            destination: Some(group.address.ip()),
            port: Some(group.ports(channel)),
            ttl: Some(group.ttl),
            ..Transport::default()
        })
    }

    fn set_up_datagrams(&mut self, track: usize, transports: &[Transport]) {
        let client_port = transports.first().and_then(|transport| transport.client_port);
        let pair = Pair::open(self.visitor.local.ip().to_canonical(), BUFFER).ok();
        let ports = pair.as_ref().and_then(|pair| pair.ports().ok());
        let (Some(client), Some(pair), Some(ports)) = (client_port, pair, ports) else {
            return self.server.refuse(Status::UNSUPPORTED_TRANSPORT, clock::now());
        };
        // One that was set up before, again: its sockets are let go.
        self.ears.forget(track);
        self.ears.listen(track, pair, Some(self.visitor.peer.ip().to_canonical()));
        self.media.retain(|(known, _)| *known != track);
        self.media.push((track, Way::Datagrams(client.1)));
        let lower = Lower::Udp;
        let (client_port, server_port) = (Some(client), Some(ports));
        self.server.set_up(&Transport {
            lower,
            client_port,
            server_port,
            record: true,
            ..Transport::default()
        });
    }
}

fn is_datagrams(transport: &Transport) -> bool {
    transport.lower == Lower::Udp && !transport.multicast && transport.client_port.is_some()
}

/// Below it services listen, and no player (RFC 6335, 6).
const PORT_LEAST: u16 = 1024;
/// Receive buffer of a media that comes as datagrams.
const BUFFER: usize = 4 << 20;
