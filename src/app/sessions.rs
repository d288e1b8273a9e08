//! What an `srt://` url means for a session: its text, parsed, and what the configuration says enter; socket options,
//! handshake settings and keys leave. Derives keys away from every runtime thread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::dial::{DialError, find_way};
use super::director::Defaults;
use crate::net::{Interface, PortOptions, Route, SendOptions, clock, random, resolve};
use crate::port::{BondLink, Conduct};
use crate::store::{
    self, CipherMode, KeyLength, SrtBandwidth, SrtCrypto, SrtDial, SrtEnd, SrtInput, SrtLink, SrtOutput,
    Takeover,
};
use crate::wire::srt::crypto::{self, Offer, Passphrase, RefreshPlan};
use crate::wire::srt::handshake::{CookieSecret, Dial, GroupKind, Local, Settings, Version};
use crate::wire::srt::{Bandwidth, Seq, SocketId, StreamId};

/// A session, or a place at a port, that is ready to begin.
pub(crate) struct Plan {
    /// The socket that it shares.
    pub(super) port: PortOptions,
    pub(super) passphrase: Option<Passphrase>,
    pub(super) conduct: Conduct,
    pub(super) meeting: Meeting,
}

/// Who dials.
pub(crate) enum Meeting {
    /// We do.
    Dial { peer: SocketAddr, dial: Dial, rendezvous: bool },
    /// We do, over several links.
    Bond { kind: GroupKind, patience: u64, links: Vec<BondLink> },
    /// Peers do.
    Listen {
        cookie: CookieSecret,
        name: Option<Box<str>>,
        login: Option<(Box<str>, Box<str>)>,
        settings: Settings,
        max_sessions: usize,
        replace: bool,
        groups: bool,
    },
}

/// Plans the sessions of an input, whose peers ask for `name` unless the url has another, or for anything if that is
/// empty.
/// The `turn`th attempt dials another address of a name than the one before.
pub(super) async fn receive(
    srt: &SrtInput,
    name: &str,
    turn: u32,
    defaults: &Defaults,
) -> Result<Plan, DialError> {
    let conduct =
        Conduct { idle_timeout: srt.link.idle_timeout, bandwidth: Bandwidth::Unlimited, window: srt.window };
    let rules = Rules { max_sessions: 1, replace: srt.takeover == Takeover::Replace, groups: srt.groups };
    let (plan, _) = plan(&srt.link, name, (turn, defaults), conduct, false, rules).await?;
    Ok(plan)
}

/// Plans the sessions of an output, as [`receive`]; with the route to the peer where we dial.
pub(super) async fn send(
    srt: &SrtOutput,
    name: &str,
    turn: u32,
    defaults: &Defaults,
) -> Result<(Plan, Option<Route>), DialError> {
    let bandwidth = match srt.bandwidth {
        SrtBandwidth::Unlimited => Bandwidth::Unlimited,
        SrtBandwidth::Fixed(rate) => Bandwidth::Fixed(rate),
        SrtBandwidth::Input { rate, least, overhead } => {
            Bandwidth::Relative { input: rate.unwrap_or(0), minimum: least, overhead: overhead.into() }
        }
    };
    let conduct = Conduct { idle_timeout: srt.link.idle_timeout, bandwidth, window: WINDOW };
    let max_sessions = srt.max_sessions.map_or(defaults.max_sessions, |most| most as usize);
    let rules = Rules { max_sessions, replace: false, groups: false };
    plan(&srt.link, name, (turn, defaults), conduct, true, rules).await
}

/// Who may dial in.
struct Rules {
    max_sessions: usize,
    replace: bool,
    groups: bool,
}

async fn plan(
    link: &SrtLink,
    name: &str,
    (turn, defaults): (u32, &Defaults),
    conduct: Conduct,
    sends: bool,
    Rules { max_sessions, replace, groups }: Rules,
) -> Result<(Plan, Option<Route>), DialError> {
    let settings = Settings { window: conduct.window, ..settings(link, sends)? };
    let passphrase = link.crypto.as_ref().map(passphrase).transpose()?;
    let (dial, rendezvous) = match &link.end {
        SrtEnd::Caller(dial) => (dial, false),
        SrtEnd::Rendezvous(dial) => (dial, true),
        SrtEnd::Listener(listen) => {
            let port =
                PortOptions { local: listen.address, way: SendOptions::default(), buffer: PORT_BUFFER };
            let login = listen.credentials.as_ref();
            let meeting = Meeting::Listen {
                cookie: defaults.cookie.clone(),
                name: listen.name.clone().or_else(|| (!name.is_empty()).then(|| name.into())),
                login: login.map(|login| (login.user.clone(), login.password.reveal().into())),
                settings,
                max_sessions,
                replace,
                groups,
            };
            return Ok((Plan { port, passphrase, conduct, meeting }, None));
        }
        SrtEnd::Group(group) => {
            let mut links = Vec::with_capacity(group.nodes.len());
            for node in &group.nodes {
                let link = call(&node.dial, settings.clone(), passphrase.as_ref(), (turn, defaults)).await?;
                let (port, peer, dial, _) = link;
                links.push(BondLink { port, peer, weight: node.weight, dial });
            }
            let kind = match group.kind {
                store::GroupKind::Broadcast => GroupKind::Broadcast,
                store::GroupKind::Backup => GroupKind::Backup,
            };
            let patience = group.patience.as_nanos() as u64;
            // No port of the plan is bound: every link has its own.
            let port = links.first().map(|link| link.port.clone()).ok_or(DialError::Broken)?;
            return Ok((
                Plan { port, passphrase, conduct, meeting: Meeting::Bond { kind, patience, links } },
                None,
            ));
        }
    };
    let (port, peer, dial, route) = call(dial, settings, passphrase.as_ref(), (turn, defaults)).await?;
    let meeting = Meeting::Dial { peer, dial, rendezvous };
    Ok((Plan { port, passphrase, conduct, meeting }, Some(route)))
}

/// Where to dial and what to propose.
async fn call(
    dial: &SrtDial,
    settings: Settings,
    passphrase: Option<&Passphrase>,
    (turn, defaults): (u32, &Defaults),
) -> Result<(PortOptions, SocketAddr, Dial, Route), DialError> {
    let mut addresses = resolve(&dial.host, dial.port, &defaults.policy).await?;
    if let Some(local) = dial.local_address {
        addresses.retain(|address| address.is_ipv4() == local.is_ipv4());
        if addresses.is_empty() {
            return Err(DialError::Family { host: dial.host.clone(), local });
        }
    }
    let interface = dial.interface.as_deref().map(Interface::find).transpose()?;
    let (peer, route) = find_way_in_turn(&addresses, turn, interface.as_ref())?;
    let offer = match passphrase.cloned() {
        None => None,
        Some(passphrase) => {
            let derived = tokio::task::spawn_blocking(move || Offer::new(&passphrase, random()));
            Some(derived.await.map_err(|_| DialError::Broken)?)
        }
    };
    let port = PortOptions {
        local: local_address(dial, peer),
        way: SendOptions {
            v6: peer.is_ipv6(),
            interface: route.interface,
            force_interface: interface.is_some(),
            ttl: dial.ttl,
            dscp: dial.dscp,
            source_port: None,
        },
        buffer: PORT_BUFFER,
    };
    let stream_id = dial.stream_id.as_ref().and_then(|id| StreamId::new(id.reveal().as_bytes()).ok());
    let dial = Dial {
        settings,
        // The port gives the number. Nobody can guess where sequence numbers begin.
        local: Local {
            socket: SocketId(0),
            first: Seq::new(u32::from_ne_bytes(random())),
            started: clock::now(),
        },
        to: peer.ip(),
        stream_id,
        group: None,
        offer,
        timeout: dial.timeout.as_nanos() as u64,
    };
    Ok((port, peer, dial, route))
}

/// The next one of those addresses that there is a way to. A peer that does not answer is only known by its silence:
/// the others are for the next attempts.
fn find_way_in_turn(
    addresses: &[SocketAddr],
    turn: u32,
    interface: Option<&Interface>,
) -> Result<(SocketAddr, Route), DialError> {
    let ways: Vec<_> = addresses.iter().filter_map(|address| find_way(&[*address], interface).ok()).collect();
    match ways.get(turn as usize % ways.len().max(1)) {
        Some(way) => Ok(*way),
        None => find_way(addresses, interface),
    }
}

fn settings(link: &SrtLink, sends: bool) -> Result<Settings, DialError> {
    let mut settings = Settings {
        receive_latency: link.receive_latency,
        send_latency: link.peer_latency,
        minimum_version: Version(link.min_version),
        sends,
        ..Settings::default()
    };
    if let Some(crypto) = &link.crypto {
        settings.cipher = match crypto.cipher {
            CipherMode::Auto => None,
            CipherMode::Ctr => Some(crypto::Cipher::Ctr),
            CipherMode::Gcm => Some(crypto::Cipher::Gcm),
        };
        settings.key_length = crypto.key_length.map(|length| match length {
            KeyLength::Aes128 => crypto::KeyLength::Aes128,
            KeyLength::Aes192 => crypto::KeyLength::Aes192,
            KeyLength::Aes256 => crypto::KeyLength::Aes256,
        });
        settings.refresh =
            RefreshPlan::new(crypto.refresh_after, crypto.announce_before).map_err(DialError::Refresh)?;
    }
    Ok(settings)
}

fn passphrase(crypto: &SrtCrypto) -> Result<Passphrase, DialError> {
    Passphrase::new(crypto.passphrase.reveal()).map_err(DialError::Passphrase)
}

fn local_address(dial: &SrtDial, peer: SocketAddr) -> SocketAddr {
    let any =
        if peer.is_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(dial.local_address.unwrap_or(any), dial.local_port.unwrap_or(0))
}

/// Packets that a sender offers to hold, which it is never sent; libsrt's.
const WINDOW: u32 = 8_192;
/// Receive buffer of a port: acknowledgements of a thousand peers, or a second of a 100 Mb/s publisher.
const PORT_BUFFER: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_take_the_addresses_that_can_be_reached_in_turn() {
        let all = ["127.0.0.1:9", "[2001:db8::1]:9", "127.0.0.2:9"].map(|a| a.parse().unwrap());
        let lo = Interface::find("lo").unwrap();
        let dialled = |turn| find_way_in_turn(&all, turn, Some(&lo)).unwrap().0;
        // Loopback has no way to the second.
        assert_eq!([1, 2, 3].map(dialled), [all[2], all[0], all[2]]);
        assert!(find_way_in_turn(&all[1..2], 1, Some(&lo)).is_err());
    }
}
