//! What follows `rtsp:` or `rtsps:` enters, whom to dial or where to listen leaves. Options that are not of this engine
//! belong to the path, and are sent to the server that is dialled.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::address::{Authority, check_scope, literal, split_authority, split_query};
use super::options::{Options, bad, percent_decode};
use super::tls::{TLS, trust};
use crate::store::refusal::FieldError;
use crate::store::rtsp::{Carrier, Payload, RtspDial, RtspEnd, RtspGroup, RtspInput, RtspListen, RtspOutput};
use crate::store::spec::{Delay, Lag};
use crate::store::srt::{Credentials, Secret, Takeover};

/// Reads the url of an input.
pub(super) fn input(rest: &str, encrypted: bool) -> Result<RtspInput, FieldError> {
    let url = Url::split(rest, encrypted, &[LINK, DIAL, PULL, TLS, INPUT, PUBLISH])?;
    let takeover =
        url.options.choice("takeover", &[("replace", Takeover::Replace), ("reject", Takeover::Reject)])?;
    let stall_after = url.options.stall_after()?;
    let reorder = url.options.number("reorder_ms", 0..=2000)?.map_or(REORDER, Duration::from_millis);
    let rcvbuf = url.options.number("rcvbuf", 4096..=1_073_741_824)?.map(|bytes| bytes as usize);
    let end = url.end(&[DIAL, PULL, TLS], &[PUBLISH])?;
    Ok(RtspInput { end, takeover: takeover.unwrap_or_default(), stall_after, reorder, rcvbuf })
}

/// Reads the url of an output.
pub(super) fn output(rest: &str, encrypted: bool) -> Result<RtspOutput, FieldError> {
    let url = Url::split(rest, encrypted, &[LINK, DIAL, TLS, OUTPUT, PUSH, SERVE])?;
    let lag = [("skip_to_keyframe", Lag::SkipToKeyframe), ("disconnect", Lag::Disconnect)];
    let delay = url.options.delay()?.unwrap_or(Delay::Ms20);
    let hold = url.options.number("hold", 0..=3600)?.map_or(HOLD, Duration::from_secs);
    let lag = url.options.choice("lag", &lag)?.unwrap_or_default();
    let payloads = [("tracks", Payload::Tracks), ("mp2t", Payload::Transport)];
    let payload = url.options.choice("payload", &payloads)?.unwrap_or_default();
    let max_sessions = url.options.number("max_sessions", 1..=100_000)?.map(|most| most as usize);
    let group = group(&url.options)?;
    let encrypted = url.encrypted;
    let end = url.end(&[DIAL, TLS, PUSH], &[SERVE])?;
    if group.is_some() && encrypted {
        return Err(bad("option 'multicast' is not for rtsps: datagrams would not be encrypted"));
    }
    if end.dial().is_some_and(|dial| dial.transport == Carrier::Multicast) {
        return Err(bad("option 'transport' must be tcp or udp: servers take no multicast"));
    }
    if end.dial().is_some_and(|dial| dial.transport == Carrier::Udp && dial.tls.is_some()) {
        return Err(bad("option 'transport' must be tcp for rtsps: datagrams would not be encrypted"));
    }
    Ok(RtspOutput { end, delay, hold, lag, payload, group, max_sessions })
}

/// The same dial at the place that its server names: over the same protocol, with the same options. What proves who we
/// are goes to no other host; what the place says of users is left out.
pub(in crate::store) fn redirected(dial: &RtspDial, place: &str) -> Result<RtspDial, FieldError> {
    let scheme = if dial.tls.is_some() { "rtsps" } else { "rtsp" };
    let (said, rest) = place.split_once(':').unwrap_or((place, ""));
    if !said.eq_ignore_ascii_case(scheme) {
        return Err(bad(format!("a place at another server of {scheme} is expected")));
    }
    let there = Url::split(rest, dial.tls.is_some(), &[])?.dial()?;
    let same = there.host.eq_ignore_ascii_case(&dial.host);
    Ok(RtspDial {
        tls: dial.tls.clone(),
        credentials: dial.credentials.clone().filter(|_| same),
        transport: dial.transport,
        timeout: dial.timeout,
        ..there
    })
}

struct Url<'a> {
    encrypted: bool,
    authority: Authority<'a>,
    /// Host and port as they are written.
    place: &'a str,
    path: &'a str,
    options: Options,
    /// Options that are not of this engine.
    foreign: String,
}

impl<'a> Url<'a> {
    fn split(rest: &'a str, encrypted: bool, known: &[&[&str]]) -> Result<Self, FieldError> {
        let (before, query) = split_query(rest);
        let before =
            before.strip_prefix("//").ok_or_else(|| bad(format!("two slashes follow the scheme: {FORM}")))?;
        let (authority, path) = before.split_once('/').unwrap_or((before, ""));
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (user, _) = authority.split_at(authority.len() - place.len());
        let has_port = match place.rfind(']') {
            Some(end) => place.get(end..).unwrap_or_default().contains(':'),
            None => place.contains(':'),
        };
        let default = if encrypted { 322 } else { 554 };
        let whole = if has_port { format!("//{place}") } else { format!("//{place}:{default}") };
        let (Authority { host, port, .. }, _) = split_authority(&whole, FORM)?;
        if !has_port && host.is_empty() {
            return Err(bad(format!("a host, or a port to listen on, is expected: {FORM}")));
        }
        let userinfo = user.strip_suffix('@').filter(|user| !user.is_empty());
        let ours = |option: &&str| {
            let name = option.split_once('=').map_or(*option, |(name, _)| name);
            known.iter().any(|names| names.contains(&name))
        };
        let options = query.into_iter().flat_map(|query| query.split('&'));
        let (own, foreign): (Vec<&str>, Vec<&str>) = options.filter(|o| !o.is_empty()).partition(ours);
        let options = Options::parse(Some(own.join("&").as_str()), known, &[])?;
        let authority = Authority { userinfo, host, port };
        Ok(Self { encrypted, authority, place, path, options, foreign: foreign.join("&") })
    }

    fn end(self, dialling: &[&[&str]], listening: &[&[&str]]) -> Result<RtspEnd, FieldError> {
        let listens = match self.options.choice("mode", &[("caller", false), ("listener", true)])? {
            Some(listens) => listens,
            None => self.authority.host.is_empty(),
        };
        let (foreign, mode) =
            if listens { (dialling.concat(), "caller") } else { (listening.concat(), "listener") };
        if let Some(name) = foreign.into_iter().find(|name| self.options.text(name).is_some()) {
            return Err(bad(format!("option '{name}' is for mode={mode}")));
        }
        Ok(if listens { RtspEnd::Listener(self.listen()?) } else { RtspEnd::Caller(self.dial()?) })
    }

    fn dial(self) -> Result<RtspDial, FieldError> {
        let carriers = [("tcp", Carrier::Tcp), ("udp", Carrier::Udp), ("multicast", Carrier::Multicast)];
        let transport = self.options.choice("transport", &carriers)?.unwrap_or_default();
        let Authority { userinfo, host, port } = self.authority;
        if host.is_empty() || literal(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(bad(format!("the address or name of a server is expected: {FORM}")));
        }
        check_scope(&host, None)?;
        let question = if self.foreign.is_empty() { "" } else { "?" };
        let scheme = if self.encrypted { "rtsps" } else { "rtsp" };
        let tls = trust(&self.options, self.encrypted)?;
        let timeout = self.options.number("connect_timeout", 100..=60_000)?;
        Ok(RtspDial {
            tls: self.encrypted.then_some(tls),
            url: Secret::new(format!("{scheme}://{}/{}{question}{}", self.place, self.path, self.foreign)),
            credentials: userinfo.map(credentials).transpose()?,
            transport,
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
            host,
            port,
        })
    }

    fn listen(self) -> Result<RtspListen, FieldError> {
        let Authority { userinfo, host, port } = self.authority;
        if !self.foreign.is_empty() {
            return Err(bad("an option is not known here; it is none of those for mode=listener"));
        }
        let ip = match host.as_str() {
            "" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            host => host.parse::<IpAddr>().ok().filter(|ip| !ip.is_multicast()).ok_or_else(|| {
                bad("an address of this machine is expected with mode=listener: rtsp://:PORT/NAME")
            })?,
        };
        let name =
            percent_decode(self.path.trim_matches('/')).and_then(|bytes| String::from_utf8(bytes).ok());
        let clean = |name: &String| {
            !name.chars().any(char::is_control)
                && !name.split('/').any(|part| matches!(part, "" | "." | ".."))
        };
        let name = match name {
            Some(name) if name.is_empty() => None,
            Some(name) if clean(&name) => Some(name),
            _ => return Err(bad("the path that peers ask for is printable text: rtsp://:PORT/NAME")),
        };
        Ok(RtspListen {
            address: SocketAddr::new(ip, port),
            encrypted: self.encrypted,
            name,
            credentials: userinfo.map(credentials).transpose()?,
        })
    }
}

fn group(options: &Options) -> Result<Option<RtspGroup>, FieldError> {
    let expected = || "a group and an even port from 1024 to 65504, such as 239.1.2.3:5000".into();
    let address = options.read("multicast", expected, |text| {
        let address: SocketAddr = text.parse().ok()?;
        let fits = address.port().is_multiple_of(2) && GROUP_PORTS.contains(&address.port());
        (fits && address.ip().is_multicast()).then_some(address)
    })?;
    let ttl = options.number("ttl", 1..=255)?.map(|ttl| ttl as u8);
    let interface = options.interface()?;
    match address {
        Some(address) => Ok(Some(RtspGroup { address, ttl: ttl.unwrap_or(1), interface })),
        None if ttl.is_some() => Err(bad("option 'ttl' is for datagrams to a group: it needs multicast")),
        None if interface.is_some() => {
            Err(bad("option 'interface' is for datagrams to a group: it needs multicast"))
        }
        None => Ok(None),
    }
}

fn credentials(userinfo: &str) -> Result<Credentials, FieldError> {
    let part = |text: &str| {
        let text = percent_decode(text).and_then(|bytes| String::from_utf8(bytes).ok())?;
        ((1..=128).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(text)
    };
    let parts = userinfo.split_once(':').and_then(|(user, password)| {
        let user = part(user).filter(|user| !user.contains(':'))?;
        Some(Credentials { user: user.into(), password: Secret::new(part(password)?) })
    });
    parts.ok_or_else(|| bad("USER:PASSWORD is expected before the '@', each of 1 to 128 bytes"))
}

const FORM: &str = "rtsp://HOST/PATH, or rtsp://:PORT/NAME to listen";
const LINK: &[&str] = &["mode"];
const DIAL: &[&str] = &["connect_timeout", "transport"];
const PULL: &[&str] = &["reorder_ms", "rcvbuf"];
const INPUT: &[&str] = &["stall_after"];
const PUBLISH: &[&str] = &["takeover"];
const OUTPUT: &[&str] = &["delay_ms", "lag", "payload"];
const PUSH: &[&str] = &["hold"];
const SERVE: &[&str] = &["max_sessions", "multicast", "ttl", "interface"];
/// Ports of 16 tracks are there from it on.
const GROUP_PORTS: std::ops::RangeInclusive<u16> = 1024..=65_504;
const TIMEOUT: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(30);
const REORDER: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tls::TlsTrust;
    use crate::store::{InputUrl, OutputUrl};

    fn input(text: &str) -> RtspInput {
        match InputUrl::parse(text) {
            Ok(InputUrl::Rtsp(rtsp)) => *rtsp,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn output(text: &str) -> RtspOutput {
        match OutputUrl::parse(text) {
            Ok(OutputUrl::Rtsp(rtsp)) => *rtsp,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_camera_is_dialled_with_its_own_options() {
        let url =
            input("rtsp://u%40x:p%3Aw@cam/cam/realmonitor?channel=1&transport=udp&subtype=0&stall_after=3");
        let dial = url.end.dial().unwrap();
        assert_eq!((dial.host.as_str(), dial.port, dial.transport), ("cam", 554, Carrier::Udp));
        assert_eq!(dial.url.reveal(), "rtsp://cam/cam/realmonitor?channel=1&subtype=0");
        let credentials = dial.credentials.clone().unwrap();
        assert_eq!((&*credentials.user, credentials.password.reveal()), ("u@x", "p:w"));
        assert_eq!(url.stall_after, Some(Duration::from_secs(3)));
        assert!(!format!("{url:?}").contains("p:w"));
        let dial = output("rtsps://[2001:db8::1]:8322/a/b?tls_insecure=true&hold=5").end;
        let RtspEnd::Caller(dial) = dial else { panic!() };
        assert_eq!((dial.port, dial.tls), (8322, Some(TlsTrust::Anybody)));
        assert_eq!(dial.url.reveal(), "rtsps://[2001:db8::1]:8322/a/b");
        assert_eq!(input("rtsps://h/a").end.dial().unwrap().port, 322);
    }

    #[test]
    fn a_redirect_leads_to_the_same_protocol_and_takes_no_password_along() {
        let dial =
            input("rtsp://u:p@cam:8554/a?transport=udp&connect_timeout=700").end.dial().unwrap().clone();
        let there = redirected(&dial, "RTSP://other/b?x=1&transport=tcp").unwrap();
        assert_eq!((there.host.as_str(), there.port, there.credentials.is_none()), ("other", 554, true));
        assert_eq!(there.url.reveal(), "rtsp://other/b?x=1&transport=tcp");
        assert_eq!((there.transport, there.timeout), (dial.transport, dial.timeout));
        let here = redirected(&dial, "rtsp://v:q@CAM:9000/c").unwrap();
        assert_eq!((here.port, here.url.reveal()), (9000, "rtsp://CAM:9000/c"));
        assert_eq!(here.credentials, dial.credentials);
        for place in
            ["rtsps://cam/a", "http://cam/a", "/a", "rtsp:///a", "rtsp://:8554/a", "rtsp://224.0.0.1/a", ""]
        {
            assert!(redirected(&dial, place).is_err(), "{place}");
        }
    }

    #[test]
    fn peers_dial_in_where_there_is_no_host() {
        let url = output("rtsp://ann:pw@:8554/live/cam%201?max_sessions=7&delay_ms=40");
        let listen = url.end.listen().unwrap();
        assert_eq!(listen.address, "0.0.0.0:8554".parse().unwrap());
        assert_eq!((listen.name.as_deref(), listen.encrypted), (Some("live/cam 1"), false));
        assert_eq!((url.max_sessions, url.delay, url.payload), (Some(7), Delay::Ms40, Payload::Tracks));
        assert_eq!(output("rtsp://:8554/a?payload=mp2t").payload, Payload::Transport);
        let group = output("rtsp://:8554/a?multicast=239.1.1.1:5000&ttl=4&interface=lo").group.unwrap();
        assert_eq!((group.address, group.ttl), ("239.1.1.1:5000".parse().unwrap(), 4));
        assert_eq!(group.interface.as_deref(), Some("lo"));
        let url = input("rtsps://10.0.0.1:8555?mode=listener&takeover=reject");
        let listen = url.end.listen().unwrap();
        assert_eq!((listen.name.as_deref(), listen.encrypted, url.takeover), (None, true, Takeover::Reject));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("rtsp:/h/a", "two slashes"),
            ("rtsp:///a", "a host, or a port to listen on"),
            ("rtsp://h:0/a", "from 1 to 65535"),
            ("rtsp://h/a?takeover=reject", "is for mode=listener"),
            ("rtsp://:8554/a?transport=udp", "is for mode=caller"),
            ("rtsp://:8554/a?nonsense=1", "not known here"),
            ("rtsp://:8554/a/../b", "printable text"),
            ("rtsp://h:8554/a?mode=listener", "an address of this machine"),
            ("rtsp://user@h/a", "USER:PASSWORD"),
            ("rtsp://h/a?transport=tls", "tcp or udp or multicast"),
            ("rtsp://h/a?tls_insecure=true", "encrypted"),
        ] {
            let error = InputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("rtsp://h/a?transport=multicast", "no multicast"),
            ("rtsps://h/a?transport=udp", "'transport' must be tcp"),
            ("rtsp://h/a?max_sessions=5", "is for mode=listener"),
            ("rtsp://:8554/a?hold=5", "is for mode=caller"),
            ("rtsp://h/a?payload=ps", "tracks or mp2t"),
            ("rtsp://:8554/a?multicast=239.1.1.1:5001", "an even port"),
            ("rtsp://:8554/a?multicast=10.1.1.1:5000", "a group"),
            ("rtsp://:8554/a?ttl=3", "needs multicast"),
            ("rtsp://:8554/a?interface=eth0", "needs multicast"),
            ("rtsp://h/a?multicast=239.1.1.1:5000", "is for mode=listener"),
            ("rtsps://:8554/a?multicast=239.1.1.1:5000", "not for rtsps"),
            ("rtsp://h/a?lag=wait", "skip_to_keyframe or disconnect"),
        ] {
            let error = OutputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
        }
    }
}
