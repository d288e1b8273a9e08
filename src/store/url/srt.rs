//! What follows `srt:` enters, a link with everything it needs leaves. The names are those of the SRT URI scheme of
//! libsrt's tools, ffmpeg and OBS; an option is known here only if what it asks for is done.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::address::{Authority, check_scope, literal, split_authority, split_query};
use super::options::{FILTER, Options, bad, digits, percent_decode};
use crate::store::refusal::FieldError;
use crate::store::srt::{
    CipherMode, Credentials, GroupKind, KeyLength, Secret, SrtBandwidth, SrtCrypto, SrtDial, SrtEnd,
    SrtGroup, SrtInput, SrtLink, SrtListen, SrtNode, SrtOutput, Takeover,
};

/// Reads the url of an input.
pub(super) fn input(rest: &str) -> Result<SrtInput, FieldError> {
    if group_query(rest).is_some() {
        return Err(bad(
            "a connection group is dialled by outputs; an input takes one that dials in, mode=listener",
        ));
    }
    let (authority, options) = split(rest, &[LINK, DIAL, LISTEN_INPUT, INPUT])?;
    let takeover =
        options.choice("takeover", &[("replace", Takeover::Replace), ("reject", Takeover::Reject)])?;
    Ok(SrtInput {
        takeover: takeover.unwrap_or_default(),
        groups: options.choice("groupconnect", SWITCH)?.unwrap_or(true),
        stall_after: options.stall_after()?,
        window: options.number("fc", 128..=65_536)?.map_or(8192, |n| n as u32),
        link: link(end(authority, &options)?, &options)?,
    })
}

/// Reads the url of an output.
pub(super) fn output(rest: &str) -> Result<SrtOutput, FieldError> {
    let (link, options) = match group_query(rest) {
        Some(query) => {
            let options = read_options(query, &[LINK, DIAL, GROUP, OUTPUT, FILTER])?;
            (link(group(&options)?, &options)?, options)
        }
        None => {
            let (authority, options) = split(rest, &[LINK, DIAL, LISTEN_OUTPUT, OUTPUT, FILTER])?;
            (link(end(authority, &options)?, &options)?, options)
        }
    };
    Ok(SrtOutput {
        bandwidth: bandwidth(&options)?,
        max_sessions: options.number("max_sessions", 1..=10_000)?.map(|n| n as u32),
        delay: options.delay()?,
        transform: options.transform()?,
        link,
    })
}

/// The options of a url that names a connection group: `//*?…`, or `////group?…` as srt-test-live writes it.
fn group_query(rest: &str) -> Option<Option<&str>> {
    let (before, query) = split_query(rest);
    matches!(before, "//*" | "//*/" | "////group").then_some(query)
}

fn split<'a>(rest: &'a str, known: &[&[&str]]) -> Result<(Authority<'a>, Options), FieldError> {
    let (nodes, _) = split_query(rest);
    if nodes.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
        return Err(bad(format!(
            "one host and port is expected, {FORM}; a connection group is {GROUP_FORM}"
        )));
    }
    let (authority, query) = split_authority(rest, FORM)?;
    Ok((authority, read_options(query, known)?))
}

fn read_options(query: Option<&str>, known: &[&[&str]]) -> Result<Options, FieldError> {
    let fixed: Vec<&str> = PROMISES.iter().map(|(name, ..)| *name).collect();
    let options = Options::parse(query, &[known, &[&fixed]].concat(), SYNONYMS)?;
    for (name, value, why) in PROMISES {
        let same = options.text(name).is_none_or(|given| match *value {
            "true" => matches!(given, "true" | "yes" | "on" | "1"),
            value => given == value,
        });
        if !same {
            let name = options.written(name);
            return Err(bad(format!("option '{name}' can only be {value}: {why}")));
        }
    }
    Ok(options)
}

/// The nodes of a connection group, as srt-test-live writes them: `HOST:PORT?weight=1,HOST:PORT?source=ADDRESS`.
fn group(options: &Options) -> Result<SrtEnd, FieldError> {
    if options.text("mode").is_some_and(|mode| mode != "caller") {
        return Err(bad("a connection group is dialled: mode=caller"));
    }
    if options.text("localport").is_some() {
        return Err(bad("option 'localport' is for a single link, not for a connection group"));
    }
    let kinds = [("broadcast", GroupKind::Broadcast), ("backup", GroupKind::Backup)];
    let kind = options.choice("type", &kinds)?.ok_or_else(|| {
        bad(format!("a connection group needs type=broadcast or type=backup: {GROUP_FORM}"))
    })?;
    let patience = options.number("groupminstabletimeo", 60..=5000)?;
    if patience.is_some() && kind != GroupKind::Backup {
        return Err(bad("option 'groupminstabletimeo' is for type=backup"));
    }
    let nodes = options
        .text("nodes")
        .ok_or_else(|| bad(format!("a connection group needs nodes, whom to dial: {GROUP_FORM}")))?;
    let nodes: Vec<SrtNode> = nodes.split(',').map(|text| node(text, options)).collect::<Result<_, _>>()?;
    if nodes.len() > NODES_MOST {
        return Err(bad(format!("a connection group has at most {NODES_MOST} nodes")));
    }
    let patience = Duration::from_millis(patience.unwrap_or(60));
    Ok(SrtEnd::Group(SrtGroup { kind, nodes, patience }))
}

fn node(text: &str, options: &Options) -> Result<SrtNode, FieldError> {
    let expected = || {
        bad(
            "each of the nodes is HOST:PORT, perhaps with ?weight=0 to 65535 or ?source=ADDRESS of this machine (both: ?weight=N%26source=ADDRESS)",
        )
    };
    let (place, own) = split_query(text);
    let place = format!("//{place}");
    let (authority, _) = split_authority(&place, FORM).map_err(|_| expected())?;
    let mut node = SrtNode { dial: dial(authority, options)?, weight: 0 };
    for option in own.into_iter().flat_map(|own| own.split('&')) {
        match option.split_once('=') {
            Some(("weight", weight)) => node.weight = digits(weight).ok_or_else(expected)?,
            Some(("source", source)) => {
                let source = source.strip_prefix('[').and_then(|s| s.strip_suffix(']')).unwrap_or(source);
                let source = source.parse::<IpAddr>().ok().filter(|ip| !ip.is_multicast());
                node.dial.local_address = Some(source.ok_or_else(expected)?);
                check_families(&node.dial)?;
            }
            _ => return Err(expected()),
        }
    }
    Ok(node)
}

fn check_families(dial: &SrtDial) -> Result<(), FieldError> {
    match (dial.local_address, literal(&dial.host)) {
        (Some(local), Some(peer)) if local.is_ipv4() != peer.is_ipv4() => {
            Err(bad("the local address and the peer's are of different families"))
        }
        _ => Ok(()),
    }
}

fn link(end: SrtEnd, options: &Options) -> Result<SrtLink, FieldError> {
    let latency = milliseconds(options, "latency")?;
    Ok(SrtLink {
        end,
        receive_latency: milliseconds(options, "rcvlatency")?.or(latency).unwrap_or(120),
        peer_latency: milliseconds(options, "peerlatency")?.or(latency).unwrap_or(0),
        crypto: crypto(options)?,
        idle_timeout: options.number("peeridletimeo", 1000..=60_000)?.map_or(IDLE, Duration::from_millis),
        min_version: options
            .read("minversion", || "a version such as 1.3.0".into(), version)?
            .unwrap_or(0x01_0000),
    })
}

fn end(authority: Authority<'_>, options: &Options) -> Result<SrtEnd, FieldError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Caller,
        Listener,
        Rendezvous,
    }
    let modes = [("caller", Mode::Caller), ("listener", Mode::Listener), ("rendezvous", Mode::Rendezvous)];
    let mode = match options.choice("mode", &modes)? {
        Some(mode) => mode,
        None if authority.host.is_empty() => Mode::Listener,
        // ffmpeg would dial, libsrt's own tools would meet at a rendezvous.
        None if options.text("adapter").is_some() => {
            return Err(bad("option 'adapter' beside a host needs mode=caller or mode=rendezvous"));
        }
        None => Mode::Caller,
    };
    let foreign =
        |names: &[&[&'static str]]| names.concat().into_iter().find(|name| options.text(name).is_some());
    if mode == Mode::Listener {
        if let Some(name) = foreign(&[DIAL]).filter(|name| *name != "adapter") {
            return Err(bad(format!("option '{name}' is for one who dials: mode=caller or mode=rendezvous")));
        }
        return Ok(SrtEnd::Listener(listen(authority, options)?));
    }
    if let Some(name) = foreign(&[LISTEN_INPUT, LISTEN_OUTPUT]) {
        return Err(bad(format!("option '{name}' is for mode=listener")));
    }
    let mut dial = dial(authority, options)?;
    if mode == Mode::Caller {
        return Ok(SrtEnd::Caller(dial));
    }
    if dial.stream_id.is_some() {
        return Err(bad("a rendezvous has no stream id: leave streamid out"));
    }
    dial.local_port = dial.local_port.or(Some(dial.port));
    Ok(SrtEnd::Rendezvous(dial))
}

fn dial(authority: Authority<'_>, options: &Options) -> Result<SrtDial, FieldError> {
    let Authority { userinfo, host, port } = authority;
    if userinfo.is_some() {
        return Err(bad("who dials says its user in the stream id: streamid=read:NAME:USER:PASSWORD"));
    }
    if host.is_empty() || literal(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
        return Err(bad(format!(
            "the address or name of a peer is expected: {FORM}; to be dialled, say mode=listener"
        )));
    }
    let interface = options.interface()?;
    check_scope(&host, interface.as_deref())?;
    let local_address = local_address(options)?;
    let stream_id = options.read(
        "streamid",
        || "at most 512 bytes long".into(),
        |v| (v.len() <= 512 && !v.chars().any(char::is_control)).then(|| Secret::new(v)),
    )?;
    let dial = SrtDial {
        host,
        port,
        local_address,
        local_port: options.number("localport", 1..=65_535)?.map(|n| n as u16),
        interface,
        ttl: options.number("ttl", 1..=255)?.map(|n| n as u8),
        dscp: dscp(options)?,
        stream_id,
        timeout: options.number("conntimeo", 100..=60_000)?.map_or(TIMEOUT, Duration::from_millis),
    };
    check_families(&dial)?;
    Ok(dial)
}

fn listen(authority: Authority<'_>, options: &Options) -> Result<SrtListen, FieldError> {
    let Authority { userinfo, host, port } = authority;
    let address = match (host.as_str(), local_address(options)?) {
        ("", address) => address.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        (_, Some(_)) => {
            return Err(bad("the address to listen on is given twice: by the host and by 'adapter'"));
        }
        (host, None) => host.parse::<IpAddr>().ok().filter(|ip| !ip.is_multicast()).ok_or_else(|| {
            bad("an address of this machine is expected with mode=listener: srt://:PORT, srt://ADDRESS:PORT")
        })?,
    };
    let expected = || {
        "a name of at most 255 bytes, without white space and : , = ? (peers write it as read:NAME or publish:NAME)".into()
    };
    let name = options.read("streamid", expected, |v| is_name(v).then(|| v.into()))?;
    let credentials = userinfo.map(credentials).transpose()?;
    Ok(SrtListen { address: SocketAddr::new(address, port), name, credentials })
}

fn credentials(userinfo: &str) -> Result<Credentials, FieldError> {
    let part = |text: &str, forbidden: &[char]| {
        let text = percent_decode(text).and_then(|bytes| String::from_utf8(bytes).ok())?;
        let fits = (1..=128).contains(&text.len());
        (fits && !text.contains(forbidden) && !text.chars().any(char::is_control)).then_some(text)
    };
    let parts = userinfo.split_once(':').and_then(|(user, password)| {
        Some(Credentials {
            user: part(user, &[':', ','])?.into(),
            password: Secret::new(part(password, &[','])?),
        })
    });
    parts.ok_or_else(|| {
        bad("USER:PASSWORD is expected before the '@', each of 1 to 128 bytes and without a comma, the user without a colon")
    })
}

fn crypto(options: &Options) -> Result<Option<SrtCrypto>, FieldError> {
    let expected = || "10 to 79 bytes long (write & as %26, % as %25)".into();
    let passphrase =
        options.read("passphrase", expected, |v| (10..=79).contains(&v.len()).then(|| Secret::new(v)))?;
    let lengths = [
        ("0", None),
        ("16", Some(KeyLength::Aes128)),
        ("24", Some(KeyLength::Aes192)),
        ("32", Some(KeyLength::Aes256)),
    ];
    let key_length = options.choice("pbkeylen", &lengths)?.flatten();
    let ciphers = [("0", CipherMode::Auto), ("1", CipherMode::Ctr), ("2", CipherMode::Gcm)];
    let cipher = options.choice("cryptomode", &ciphers)?.unwrap_or_default();
    let expected =
        || format!("0 (= {DEFAULT_REFRESH}) or a whole number of packets from 128 to {MOST_PACKETS}");
    let refresh_after = options
        .read("kmrefreshrate", expected, |v| {
            digits::<u32>(v).filter(|n| *n == 0 || (128..=MOST_PACKETS).contains(n))
        })?
        .filter(|n| *n > 0)
        .unwrap_or(DEFAULT_REFRESH);
    // libsrt's bound: the old key must be gone before the next one is told.
    let most = (refresh_after - 1) / 2;
    let announce_before = options.number("kmpreannounce", 0..=most.into())?.filter(|n| *n > 0);
    let announce_before = announce_before.map_or(most.min(4096), |n| n as u32);
    let Some(passphrase) = passphrase else {
        // Whoever says one of these wants encryption, and would not get it.
        let crypto = ["pbkeylen", "cryptomode", "kmrefreshrate", "kmpreannounce"];
        return match crypto.into_iter().find(|name| options.text(name).is_some_and(|v| v != "0")) {
            Some(name) => Err(bad(format!("option '{name}' needs a passphrase"))),
            None => Ok(None),
        };
    };
    Ok(Some(SrtCrypto { passphrase, key_length, cipher, refresh_after, announce_before }))
}

fn bandwidth(options: &Options) -> Result<SrtBandwidth, FieldError> {
    let expected = || format!("-1 (unlimited), 0 (as inputbw says) or bytes per second up to {MOST_BYTES}");
    let max = options.read("maxbw", expected, |v| match v {
        "-1" => Some(-1),
        v => digits::<i64>(v).filter(|n| *n <= MOST_BYTES as i64),
    })?;
    let rate = options.number("inputbw", 0..=MOST_BYTES)?.filter(|n| *n > 0);
    let least = options.number("mininputbw", 0..=MOST_BYTES)?;
    let overhead = options.number("oheadbw", 5..=100)?;
    let relative = ["inputbw", "mininputbw", "oheadbw"].into_iter().find(|name| options.text(name).is_some());
    match (max, relative) {
        (Some(0), _) | (None, Some(_)) => Ok(SrtBandwidth::Input {
            rate,
            least: least.unwrap_or(0),
            overhead: overhead.map_or(25, |n| n as u8),
        }),
        (Some(_), Some(name)) => {
            Err(bad(format!("option '{name}' says nothing beside this maxbw: say maxbw=0")))
        }
        (Some(max), None) if max > 0 => Ok(SrtBandwidth::Fixed(max as u64)),
        _ => Ok(SrtBandwidth::Unlimited),
    }
}

fn milliseconds(options: &Options, name: &str) -> Result<Option<u16>, FieldError> {
    let expected = || "milliseconds, a whole number from 0 to 65535 (ffmpeg writes microseconds here)".into();
    options.read(name, expected, digits::<u16>)
}

fn local_address(options: &Options) -> Result<Option<IpAddr>, FieldError> {
    if options.text("localaddr").is_some() && options.text("adapter").is_some() {
        return Err(bad("localaddr and adapter are the same: give one of them"));
    }
    let read = |name| {
        let expected = || "an address of this machine".into();
        options.read(name, expected, |v| {
            let address = v.strip_prefix('[').and_then(|v| v.strip_suffix(']')).unwrap_or(v);
            address.parse::<IpAddr>().ok().filter(|ip| !ip.is_multicast())
        })
    };
    Ok(read("localaddr")?.or(read("adapter")?))
}

/// The type of service is the code point and two bits that are the kernel's (RFC 3168, 5).
fn dscp(options: &Options) -> Result<Option<u8>, FieldError> {
    let dscp = options.number("dscp", 0..=63)?.map(|n| n as u8);
    let expected = || "a multiple of 4 from 0 to 252".into();
    let tos = options.read("iptos", expected, |v| digits::<u8>(v).filter(|n| n % 4 == 0))?;
    match (dscp, tos) {
        (Some(_), Some(_)) => Err(bad("dscp and iptos say the same: give one of them")),
        (dscp, tos) => Ok(dscp.or(tos.map(|tos| tos / 4))),
    }
}

/// `1.3.0` as `0x010300`.
fn version(text: &str) -> Option<u32> {
    let parts: Vec<u8> = text.split('.').map(digits).collect::<Option<_>>()?;
    match parts[..] {
        [major, minor, patch] => Some(u32::from_be_bytes([0, major, minor, patch])),
        _ => None,
    }
}

/// What stands alone in `read:NAME:user:password` and `#!::r=NAME,m=request`.
fn is_name(text: &str) -> bool {
    let ends = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '=' | '?');
    text.len() <= 255 && !text.contains(ends) && !text.starts_with('#')
}

const FORM: &str = "srt://HOST:PORT";
const GROUP_FORM: &str = "srt://*?type=backup&nodes=HOST:PORT?weight=1,HOST:PORT";
const NODES_MOST: usize = 16;
const IDLE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_REFRESH: u32 = 1 << 24;
const MOST_PACKETS: u32 = 0x7fff_ffff;
const MOST_BYTES: u64 = 1 << 40;

const LINK: &[&str] = &[
    "mode",
    "latency",
    "rcvlatency",
    "peerlatency",
    "passphrase",
    "pbkeylen",
    "cryptomode",
    "streamid",
    "peeridletimeo",
    "minversion",
];
const DIAL: &[&str] =
    &["localaddr", "adapter", "localport", "interface", "ttl", "dscp", "iptos", "conntimeo"];
const GROUP: &[&str] = &["type", "nodes", "groupminstabletimeo"];
const LISTEN_INPUT: &[&str] = &["takeover", "groupconnect"];
const LISTEN_OUTPUT: &[&str] = &["max_sessions"];
const INPUT: &[&str] = &["stall_after", "fc"];
const OUTPUT: &[&str] =
    &["maxbw", "inputbw", "mininputbw", "oheadbw", "kmrefreshrate", "kmpreannounce", "delay_ms"];

/// What libsrt's tools read as yes and no.
const SWITCH: &[(&str, bool)] = &[
    ("true", true),
    ("1", true),
    ("on", true),
    ("yes", true),
    ("false", false),
    ("0", false),
    ("off", false),
    ("no", false),
];

/// Other names of the same options: of ffmpeg, and of other versions of libsrt's tools.
const SYNONYMS: &[(&str, &str)] = &[
    ("srt_streamid", "streamid"),
    ("connect_timeout", "conntimeo"),
    ("port", "localport"),
    ("ipttl", "ttl"),
    ("tos", "iptos"),
    ("payload_size", "payloadsize"),
    ("pkt_size", "payloadsize"),
    ("smoother", "congestion"),
];

/// Options that urls of other programs spell out: what they say is what is done, or they are refused.
const PROMISES: &[(&str, &str, &str)] = &[
    ("payloadsize", "1316", "outputs share datagrams of seven transport packets, inputs take any up to 1456"),
    ("transtype", "live", "files are not sent over SRT"),
    ("congestion", "live", "files are not sent over SRT"),
    ("messageapi", "true", "a live stream is sent in messages"),
    ("tsbpdmode", "true", "a live stream is delivered in time"),
    ("tlpktdrop", "true", "what is too late is dropped, a live stream never waits for it"),
    ("nakreport", "true", "losses are reported again until they are mended"),
    ("enforcedencryption", "true", "a connection that cannot be read is rejected"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Delay, InputUrl, OutputUrl, Protocol};
    use crate::wire::ts::FilterSpec;
    use proptest::prelude::*;

    fn receives(text: &str) -> SrtInput {
        match InputUrl::parse(text) {
            Ok(InputUrl::Srt(srt)) => *srt,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn sends(text: &str) -> SrtOutput {
        match OutputUrl::parse(text) {
            Ok(OutputUrl::Srt(srt)) => *srt,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn to(host: &str, port: u16) -> SrtDial {
        SrtDial {
            host: host.into(),
            port,
            local_address: None,
            local_port: None,
            interface: None,
            ttl: None,
            dscp: None,
            stream_id: None,
            timeout: TIMEOUT,
        }
    }

    fn on(address: &str) -> SrtEnd {
        SrtEnd::Listener(SrtListen { address: address.parse().unwrap(), name: None, credentials: None })
    }

    #[test]
    fn who_dials_is_said_or_follows_from_the_host() {
        let rendezvous = |dial: SrtDial| SrtEnd::Rendezvous(SrtDial { local_port: Some(4000), ..dial });
        for (text, end) in [
            ("srt://peer.example:9000", SrtEnd::Caller(to("peer.example", 9000))),
            ("SRT://[fe80::1%eth0]:9000/?mode=caller", SrtEnd::Caller(to("fe80::1%eth0", 9000))),
            ("srt://:8890", on("0.0.0.0:8890")),
            ("srt://@:8890", on("0.0.0.0:8890")),
            ("srt://10.0.0.1:8890?mode=listener", on("10.0.0.1:8890")),
            ("srt://[::]:8890?mode=listener", on("[::]:8890")),
            ("srt://:8890?adapter=10.0.0.1", on("10.0.0.1:8890")),
            ("srt://h:4000?mode=rendezvous", rendezvous(to("h", 4000))),
            ("srt://h:9000?mode=rendezvous&port=4000", rendezvous(to("h", 9000))),
        ] {
            assert_eq!(receives(text).link.end, end, "{text}");
            assert_eq!(sends(text).link.end, end, "{text}");
        }
        for (text, protocol) in [
            ("srt://h:1", Protocol::SrtCaller),
            ("srt://:1", Protocol::SrtListener),
            ("srt://h:1?mode=rendezvous", Protocol::SrtRendezvous),
        ] {
            assert_eq!(OutputUrl::parse(text).unwrap().protocol(), protocol);
        }
    }

    #[test]
    fn what_is_not_said_is_as_libsrt_has_it() {
        let SrtInput { link, window, takeover, groups, stall_after } = receives("srt://h:1");
        assert_eq!((link.receive_latency, link.peer_latency, link.min_version), (120, 0, 0x01_0000));
        assert_eq!((link.crypto, link.idle_timeout), (None, Duration::from_secs(5)));
        assert_eq!((takeover, groups, stall_after, window), (Takeover::Replace, true, None, 8192));
        let SrtOutput { bandwidth, max_sessions, delay, transform, .. } = sends("srt://h:1");
        assert_eq!((bandwidth, max_sessions, delay, transform), (SrtBandwidth::Unlimited, None, None, None));
        let crypto = sends("srt://h:1?passphrase=0123456789").link.crypto.unwrap();
        assert_eq!((crypto.key_length, crypto.cipher), (None, CipherMode::Auto));
        assert_eq!((crypto.refresh_after, crypto.announce_before), (1 << 24, 4096));
    }

    #[test]
    fn one_who_dials_says_everything() {
        let srt = sends(
            "srt://[2001:db8::1]:9000?mode=caller&latency=200&rcvlatency=0&localaddr=[2001:db8::2]&localport=4001\
             &interface=eth0&ttl=64&iptos=136&conntimeo=500&streamid=%23!::r=cam,m=publish&peeridletimeo=60000\
             &minversion=1.4.10&passphrase=%c3%a4%26%2512345678&pbkeylen=32&cryptomode=2&kmrefreshrate=1000\
             &kmpreannounce=400&maxbw=0&inputbw=500000&mininputbw=9&oheadbw=50&delay_ms=20&klv=strip",
        );
        let dial = SrtDial {
            local_address: Some("2001:db8::2".parse().unwrap()),
            local_port: Some(4001),
            interface: Some("eth0".into()),
            ttl: Some(64),
            dscp: Some(34),
            stream_id: Some(Secret::new("#!::r=cam,m=publish")),
            timeout: Duration::from_millis(500),
            ..to("2001:db8::1", 9000)
        };
        let crypto = SrtCrypto {
            passphrase: Secret::new("ä&%12345678"),
            key_length: Some(KeyLength::Aes256),
            cipher: CipherMode::Gcm,
            refresh_after: 1000,
            announce_before: 400,
        };
        let link = SrtLink {
            end: SrtEnd::Caller(dial),
            receive_latency: 0,
            peer_latency: 200,
            crypto: Some(crypto),
            idle_timeout: Duration::from_secs(60),
            min_version: 0x01_040a,
        };
        let expected = SrtOutput {
            link,
            bandwidth: SrtBandwidth::Input { rate: Some(500_000), least: 9, overhead: 50 },
            max_sessions: None,
            delay: Some(Delay::Ms20),
            transform: Some(FilterSpec { strip_klv: true, ..FilterSpec::default() }),
        };
        assert_eq!(srt, expected);
        assert_eq!(srt.link.latency(), Duration::from_millis(200));
    }

    #[test]
    fn one_who_listens_says_name_and_rules() {
        let listen = SrtListen {
            address: "0.0.0.0:8890".parse().unwrap(),
            name: Some("live/cam-1".into()),
            credentials: Some(Credentials { user: "bob@home".into(), password: Secret::new("a:b@c/?") }),
        };
        let url = "srt://bob%40home:a:b%40c%2F%3F@:8890?streamid=live/cam-1";
        let output = sends(&format!("{url}&max_sessions=500"));
        assert_eq!((output.link.listen(), output.max_sessions), (Some(&listen), Some(500)));
        let input = receives(&format!("{url}&takeover=reject&stall_after=2.5&fc=65536"));
        assert_eq!((input.link.listen(), input.takeover), (Some(&listen), Takeover::Reject));
        assert_eq!((input.stall_after, input.window), (Some(Duration::from_millis(2500)), 65_536));
    }

    #[test]
    fn a_connection_group_has_nodes_that_share_what_the_options_say() {
        let node = |host: &str, weight| SrtNode {
            dial: SrtDial { ttl: Some(9), stream_id: Some(Secret::new("publish:a")), ..to(host, 9000) },
            weight,
        };
        let nodes = "type=backup&nodes=a.example:9000?weight=2,10.0.0.7:9000?source=10.0.0.1%26weight=1,[::1]:9000\
                     &streamid=publish:a&ttl=9&latency=300&groupminstabletimeo=100";
        let mut expected = [node("a.example", 2), node("10.0.0.7", 1), node("::1", 0)];
        expected[1].dial.local_address = Some("10.0.0.1".parse().unwrap());
        for place in ["*", "*/", "//group"] {
            let srt = sends(&format!("srt://{place}?{nodes}"));
            let SrtEnd::Group(group) = &srt.link.end else { panic!("{srt:?}") };
            assert_eq!((group.kind, group.patience), (GroupKind::Backup, Duration::from_millis(100)));
            assert_eq!(group.nodes, expected);
            assert_eq!((srt.link.peer_latency, srt.link.dial()), (300, Some(&expected[0].dial)));
        }
        let url = "srt://*?type=broadcast&nodes=h:1,h:2";
        assert_eq!(OutputUrl::parse(url).unwrap().protocol(), Protocol::SrtCaller);
        assert!(!receives("srt://:1?groupconnect=0").groups && receives("srt://:1?groupconnect=1").groups);
    }

    #[test]
    fn bandwidth_is_one_of_three() {
        let relative = |rate| SrtBandwidth::Input { rate, least: 0, overhead: 25 };
        for (options, bandwidth) in [
            ("maxbw=-1", SrtBandwidth::Unlimited),
            ("maxbw=625000", SrtBandwidth::Fixed(625_000)),
            ("maxbw=0", relative(None)),
            ("inputbw=0", relative(None)),
            ("inputbw=500000", relative(Some(500_000))),
            ("maxbw=0&oheadbw=25", relative(None)),
        ] {
            assert_eq!(sends(&format!("srt://h:1?{options}")).bandwidth, bandwidth, "{options}");
        }
    }

    #[test]
    fn urls_of_other_programs_are_understood() {
        let fixed = "transtype=live&tlpktdrop=1&nakreport=yes&messageapi=on&tsbpdmode=true&congestion=live\
                     &enforcedencryption=1";
        for size in ["pkt_size", "payload_size", "payloadsize"] {
            assert_eq!(sends(&format!("srt://h:1?{fixed}&{size}=1316")), sends("srt://h:1"));
            assert_eq!(receives(&format!("srt://h:1?{fixed}&{size}=1316")), receives("srt://h:1"));
        }
        let ffmpeg = "srt_streamid=a&connect_timeout=500&tos=136&ipttl=3&smoother=live&localport=4";
        let libsrt = "streamid=a&conntimeo=500&iptos=136&ttl=3&congestion=live&port=4";
        assert_eq!(sends(&format!("srt://h:1?{ffmpeg}")), sends(&format!("srt://h:1?{libsrt}")));
    }

    #[test]
    fn refusals_say_what_is_expected() {
        for (url, part) in [
            ("srt:h:1", "two slashes"),
            ("srt://h", "a port from 1 to 65535 follows the host: srt://HOST:PORT"),
            ("srt://h:1/live", "no path"),
            ("srt://a:1,b:2?type=backup", "a connection group is srt://*?type=backup&nodes=HOST:PORT"),
            ("srt://h:1?type=backup", "option 'type' is not known here; known are mode, latency, "),
            ("srt://h:1?nodes=a:1", "option 'nodes' is not known here"),
            ("srt://h:1?sndbuf=1000", "option 'sndbuf' is not known here"),
            ("srt://h:1?passphrase=0123456789&sndbuf=1", "option 'sndbuf' is not known here"),
            ("srt://h:1?pkt_size=1128", "option 'pkt_size' can only be 1316: outputs share"),
            ("srt://h:1?payloadsize=1128", "option 'payloadsize' can only be 1316: outputs share"),
            ("srt://h:1?connect_timeout=1", "option 'connect_timeout' must be"),
            ("srt://h:1?ipv6only=1", "option 'ipv6only' is not known here"),
            ("srt://h:1?Latency=100", "option 'Latency' is not known here"),
            ("srt://h:1?lat%0aency=100", "an option is not known here"),
            ("srt://h:1?passphrase=0123456789&W0rd=1", "an option is not known here"),
            ("srt://h:1?tlpktdrop=0", "option 'tlpktdrop' can only be true: what is too late"),
            ("srt://h:1?transtype=file", "option 'transtype' can only be live"),
            ("srt://h:1?mode=server", "caller or listener or rendezvous"),
            ("srt://h:1?adapter=10.0.0.1", "needs mode=caller or mode=rendezvous"),
            ("srt://:1?mode=caller", "to be dialled, say mode=listener"),
            ("srt://0.0.0.0:1", "to be dialled, say mode=listener"),
            ("srt://[::]:5000", "to be dialled, say mode=listener"),
            ("srt://239.1.1.1:5000", "the address or name of a peer"),
            ("srt://239.1.1.1:5000?mode=listener", "an address of this machine"),
            ("srt://cam.example:1?mode=listener", "an address of this machine"),
            ("srt://10.0.0.1:1?mode=listener&adapter=10.0.0.1", "given twice"),
            ("srt://:1?localport=1", "option 'localport' is for one who dials"),
            ("srt://:1?conntimeo=1000", "option 'conntimeo' is for one who dials"),
            ("srt://h:1?mode=rendezvous&streamid=a", "a rendezvous has no stream id"),
            ("srt://u:p@h:1", "says its user in the stream id"),
            ("srt://u@:1", "USER:PASSWORD is expected"),
            ("srt://u:@:1", "USER:PASSWORD is expected"),
            ("srt://a,b:p@:1", "USER:PASSWORD is expected"),
            ("srt://:1?streamid=publish:a", "a name of at most 255 bytes"),
            ("srt://:1?streamid=%23!::r=a", "a name of at most 255 bytes"),
            (
                "srt://h:1?latency=200000",
                "milliseconds, a whole number from 0 to 65535 (ffmpeg writes microseconds",
            ),
            ("srt://h:1?rcvlatency=0.2", "option 'rcvlatency' must be milliseconds"),
            ("srt://h:1?localaddr=10.0.0.1&adapter=10.0.0.1&mode=caller", "the same"),
            ("srt://[::1]:1?localaddr=10.0.0.1", "different families"),
            ("srt://h:1?localaddr=eth0", "an address of this machine"),
            ("srt://h:1?iptos=1", "a multiple of 4"),
            ("srt://h:1?iptos=4&dscp=1", "the same"),
            ("srt://h:1?passphrase=123456789", "10 to 79 bytes"),
            ("srt://h:1?pbkeylen=16", "option 'pbkeylen' needs a passphrase"),
            ("srt://h:1?cryptomode=1", "option 'cryptomode' needs a passphrase"),
            ("srt://h:1?passphrase=0123456789&pbkeylen=20", "0 or 16 or 24 or 32"),
            ("srt://h:1?passphrase=0123456789&cryptomode=3", "0 or 1 or 2"),
            ("srt://h:1?minversion=1.3", "a version such as 1.3.0"),
            ("srt://h:1?minversion=1.3.256", "a version such as 1.3.0"),
            ("srt://h:1?peeridletimeo=999", "from 1000 to 60000"),
            ("srt://h:1?latency=1&latency=1", "option 'latency' is given twice"),
            ("srt://h:1?port=1&localport=1", "option 'localport' is given twice"),
        ] {
            for error in [InputUrl::parse(url).unwrap_err(), OutputUrl::parse(url).unwrap_err()] {
                assert!(error.msg.contains(part), "{url}: {error}");
                assert!(!error.msg.contains("0123456789"), "{url}: {error}");
            }
        }
        for (url, part) in [
            ("srt://h:1?takeover=reject", "option 'takeover' is for mode=listener"),
            ("srt://:1?takeover=maybe", "replace or reject"),
            ("srt://h:1?groupconnect=1", "option 'groupconnect' is for mode=listener"),
            ("srt://:1?groupconnect=2", "true or 1 or on"),
            ("srt://*?type=backup&nodes=h:1", "a connection group is dialled by outputs"),
            ("srt://h:1?maxbw=1", "option 'maxbw' is not known here"),
            ("srt://h:1?delay_ms=10", "option 'delay_ms' is not known here"),
            ("srt://h:1?fc=25", "from 128 to 65536"),
        ] {
            assert!(InputUrl::parse(url).unwrap_err().msg.contains(part), "{url}");
        }
        for (url, part) in [
            ("srt://h:1?max_sessions=1", "option 'max_sessions' is for mode=listener"),
            ("srt://*", "needs type=broadcast or type=backup: srt://*?type="),
            ("srt://*?type=balancing&nodes=h:1", "option 'type' must be broadcast or backup"),
            ("srt://*?type=backup", "needs nodes, whom to dial"),
            ("srt://*?type=backup&nodes=h", "each of the nodes is HOST:PORT"),
            ("srt://*?type=backup&nodes=h:1,", "each of the nodes is HOST:PORT"),
            ("srt://*?type=backup&nodes=:1", "the address or name of a peer"),
            ("srt://*?type=backup&nodes=h:1?weight=65536", "?weight=0 to 65535"),
            ("srt://*?type=backup&nodes=h:1?ttl=3", "each of the nodes is HOST:PORT"),
            ("srt://*?type=backup&nodes=h:1?source=eth0", "?source=ADDRESS"),
            ("srt://*?type=backup&nodes=[::1]:1?source=10.0.0.1", "different families"),
            ("srt://*?type=backup&nodes=h:1&mode=listener", "a connection group is dialled"),
            ("srt://*?type=backup&nodes=h:1&localport=5", "option 'localport' is for a single link"),
            ("srt://*?type=backup&nodes=h:1&groupminstabletimeo=59", "from 60 to 5000"),
            ("srt://*?type=broadcast&nodes=h:1&groupminstabletimeo=60", "is for type=backup"),
            ("srt://*?type=broadcast&nodes=h:1&max_sessions=1", "option 'max_sessions' is not known here"),
            ("srt://:1?max_sessions=0", "from 1 to 10000"),
            ("srt://h:1?stall_after=1", "option 'stall_after' is not known here"),
            ("srt://h:1?maxbw=-2", "-1 (unlimited), 0 (as inputbw says)"),
            ("srt://h:1?maxbw=-1&inputbw=1", "option 'inputbw' says nothing beside this maxbw"),
            ("srt://h:1?maxbw=9&oheadbw=25", "option 'oheadbw' says nothing beside this maxbw"),
            ("srt://h:1?oheadbw=4", "from 5 to 100"),
            ("srt://h:1?passphrase=0123456789&kmrefreshrate=127", "from 128 to 2147483647"),
            ("srt://h:1?passphrase=0123456789&kmrefreshrate=1000&kmpreannounce=500", "from 0 to 499"),
            ("srt://h:1?kmrefreshrate=1000", "option 'kmrefreshrate' needs a passphrase"),
        ] {
            let error = OutputUrl::parse(url).unwrap_err();
            assert!(error.msg.contains(part), "{url}: {error}");
        }
    }

    #[test]
    fn refusals_repeat_no_secret() {
        for url in [
            "srt://h:1?passphrase=Zebra",
            "srt://h:1?passphrase=zebrazebra&zebra",
            "srt://h:1?passphrase=zebrazebra%zz",
            "srt://u:Zebra@h:1",
            "srt://u:Zebra,@:1",
            "srt://:1?streamid=read:a:u:zebra",
            "srt://h:1?mode=rendezvous&streamid=read:a:u:zebra",
        ] {
            let error = OutputUrl::parse(url).unwrap_err();
            assert!(!error.to_string().to_lowercase().contains("zebra"), "{url}: {error}");
        }
        let srt = sends("srt://bob:Zebra@:1?passphrase=zebrazebra");
        assert!(!format!("{srt:?}").to_lowercase().contains("zebra"), "{srt:?}");
    }

    proptest! {
        #[test]
        fn anything_like_a_url_is_read_or_refused(
            text in "srt://([a-z:%4é]{0,6}@)?[a0.:%\\[\\]*]{0,9}(:[0-9]{1,5})?(\\?((mode|latency|streamid|maxbw|passphrase|kmrefreshrate|adapter|iptos)=([%0-9a-z,.:\\-]{0,12}|listener|rendezvous)&){0,3})?"
        ) {
            if let Ok(InputUrl::Srt(srt)) = InputUrl::parse(&text) {
                prop_assert!(srt.link.dial().is_none_or(|dial| !dial.host.is_empty() && dial.port != 0));
                prop_assert!(srt.link.listen().is_none_or(|listen| listen.address.port() != 0));
            }
            if let Ok(OutputUrl::Srt(srt)) = OutputUrl::parse(&text) {
                let crypto = srt.link.crypto;
                prop_assert!(crypto.is_none_or(|c| 2 * c.announce_before < c.refresh_after));
            }
        }
    }
}
