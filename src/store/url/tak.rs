//! What follows `klv+udp:` or `cot+…:` enters, whom to tell and how leaves. Opens no file and resolves no name.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Authority, check_scope, literal, split_authority, split_query};
use super::datagram_way;
use super::options::{Options, bad, pid};
use super::tls::{TLS, trust};
use crate::store::refusal::FieldError;
use crate::store::srt::Secret;
use crate::store::tak::{
    CotDial, CotEnd, CotIdentity, CotOutput, CotSide, CotTls, CotUid, CotVideo, DatagramWay, KlvOutput, Shown,
};

/// Reads `klv+udp:`.
pub(super) fn klv(rest: &str) -> Result<KlvOutput, FieldError> {
    let (Authority { userinfo, host, port }, query) = split_authority(rest, KLV_FORM)?;
    let options = Options::parse(query, &[SOCKET, TRACK], &[])?;
    if userinfo.is_some() || host.is_empty() {
        return Err(bad(format!("an address or name to send to is expected: {KLV_FORM}")));
    }
    Ok(KlvOutput { track: track(&options)?, way: way(host, port, &options)? })
}

/// Reads `cot+udp:`.
pub(super) fn mesh(rest: &str) -> Result<CotOutput, FieldError> {
    let (Authority { userinfo, host, port }, query) = authority(rest, GROUP.1, MESH_FORM)?;
    let options = Options::parse(query, &[SOCKET, IDENTITY], &[])?;
    if userinfo.is_some() {
        return Err(bad("nothing stands before the '@' of this scheme"));
    }
    let host = if host.is_empty() { GROUP.0.into() } else { host };
    let end = CotEnd::Udp(way(host, port, &options)?);
    Ok(CotOutput { end, identity: identity(&options)?, xml_only: xml_only(&options)? })
}

/// Reads `cot+tcp:` and `cot+tls:`.
pub(super) fn server(rest: &str, encrypted: bool) -> Result<CotOutput, FieldError> {
    let (default, form) = if encrypted { (8089, TLS_FORM) } else { (8087, TCP_FORM) };
    let (Authority { userinfo, host, port }, query) = authority(rest, default, form)?;
    let known: &[&[&str]] =
        if encrypted { &[DIAL, IDENTITY, TLS, CLIENT, REGISTER] } else { &[DIAL, IDENTITY] };
    let options = Options::parse(query, known, &[])?;
    if userinfo.is_some() {
        return Err(bad("nothing stands before the '@' of this scheme: servers know clients by certificate"));
    }
    let packed = options.text("package").is_some();
    if host.is_empty() && !packed || literal(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast())
    {
        return Err(bad(format!("the address or name of a server is expected: {form}")));
    }
    check_scope(&host, None)?;
    let timeout = options.number("connect_timeout", 100..=60_000)?.map_or(TIMEOUT, Duration::from_millis);
    let dial = CotDial { host, port, timeout };
    let end = if encrypted { CotEnd::Tls(Box::new(tls(dial, &options)?)) } else { CotEnd::Tcp(dial) };
    Ok(CotOutput { end, identity: identity(&options)?, xml_only: xml_only(&options)? })
}

fn tls(dial: CotDial, options: &Options) -> Result<CotTls, FieldError> {
    let told = TLS.iter().any(|name| options.text(name).is_some());
    let file = |name| options.text(name).map(PathBuf::from);
    let password = options.text("password").map(Secret::new);
    let shown = match (file("tls_cert"), file("tls_key"), file("package"), password) {
        (None, None, None, None) => Shown::Nothing,
        (None, None, Some(path), password) => Shown::Package { path, password },
        (Some(path), None, None, Some(password)) => Shown::Pkcs12 { path, password },
        (Some(chain), key, None, None) => Shown::Pem { chain, key },
        (_, _, Some(_), _) => {
            return Err(bad("'package' holds a certificate: give it without tls_cert and tls_key"));
        }
        (Some(_), Some(_), None, Some(_)) => {
            return Err(bad(
                "'password' is for PKCS#12, which needs no tls_key; a key in PEM must not be encrypted",
            ));
        }
        (None, _, None, _) => {
            return Err(bad("'tls_key' and 'password' belong to a certificate: give tls_cert"));
        }
    };
    let names = [("check", true), ("any", false)];
    let port = options.number("register_port", 1..=65_535)?.map(|port| port as u16);
    let register = options.choice("register", &[("true", true), ("false", false)])?.unwrap_or(false);
    if port.is_some() && !register {
        return Err(bad("option 'register_port' needs register=true"));
    }
    Ok(CotTls {
        dial,
        trust: if told { Some(trust(options, true)?) } else { None },
        checks_name: options.choice("tls_name", &names)?,
        shown,
        register: register.then_some(port.unwrap_or(MARTI)),
    })
}

fn identity(options: &Options) -> Result<CotIdentity, FieldError> {
    let text = |name: &'static str, most: usize| {
        let expected = move || format!("printable text of at most {most} characters");
        options.read(name, expected, |text| {
            let fits = text.chars().count() <= most && !text.trim().is_empty();
            (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
        })
    };
    let uid = match (text("uid", 128)?, options.choice("uid_from", &[("mission", ())])?) {
        (Some(_), Some(())) => {
            return Err(bad("'uid' and 'uid_from' are two answers to one question: give one"));
        }
        (Some(uid), None) => CotUid::Fixed(uid),
        (None, Some(())) => CotUid::Mission,
        (None, None) => CotUid::Own,
    };
    let sides = [
        ("friend", CotSide::Friend),
        ("hostile", CotSide::Hostile),
        ("neutral", CotSide::Neutral),
        ("unknown", CotSide::Unknown),
    ];
    let videos = [
        ("any", CotVideo::Any),
        ("rtsp", CotVideo::Rtsp),
        ("srt", CotVideo::Srt),
        ("none", CotVideo::Nothing),
    ];
    let expected = || "what stands behind the affiliation in a type, such as A-M-F-Q".into();
    let kind = options.read("type", expected, |text| is_kind(text).then(|| text.to_owned()))?;
    let misp = options.choice("time", &[("utc", false), ("misp", true)])?.unwrap_or(false);
    let leap = options.number("leap_seconds", 0..=100)?.map(|leap| leap as i32);
    if leap.is_some() && !misp {
        return Err(bad("option 'leap_seconds' needs time=misp"));
    }
    Ok(CotIdentity {
        uid,
        callsign: text("callsign", 64)?,
        affiliation: options.choice("affiliation", &sides)?.unwrap_or_default(),
        kind: kind.unwrap_or_else(|| KIND.into()),
        every: options.number("every_ms", 200..=60_000)?.map_or(EVERY, Duration::from_millis),
        stale: options.number("stale", 2..=3600)?.map_or(STALE, Duration::from_secs),
        track: track(options)?,
        video: options.choice("video", &videos)?.unwrap_or_default(),
        leap_seconds: misp.then_some(leap.unwrap_or(LEAP_SECONDS)),
    })
}

fn track(options: &Options) -> Result<Option<u16>, FieldError> {
    options.read("pid", || "a PID from 16 to 8190 (0x10 to 0x1ffe)".into(), pid)
}

fn xml_only(options: &Options) -> Result<bool, FieldError> {
    Ok(options.choice("proto", &[("auto", false), ("xml", true)])?.unwrap_or(false))
}

fn way(host: String, port: u16, options: &Options) -> Result<DatagramWay, FieldError> {
    if literal(&host).is_some_and(|ip| ip.is_unspecified()) {
        return Err(bad("an address or name to send to is expected"));
    }
    datagram_way(host, port, options)
}

/// Host and port, each of which may be missing.
fn authority<'a>(
    rest: &'a str,
    default: u16,
    form: &str,
) -> Result<(Authority<'a>, Option<&'a str>), FieldError> {
    let (before, query) = split_query(rest);
    let place =
        before.strip_prefix("//").ok_or_else(|| bad(format!("two slashes follow the scheme: {form}")))?;
    let place = place.strip_suffix('/').unwrap_or(place);
    let (userinfo, place) = place.rsplit_once('@').map_or((None, place), |(user, place)| (Some(user), place));
    let has_port = match place.rfind(']') {
        Some(end) => place.get(end..).unwrap_or_default().contains(':'),
        None => place.contains(':'),
    };
    let whole = if has_port { format!("//{place}") } else { format!("//{place}:{default}") };
    let (Authority { host, port, .. }, _) = split_authority(&whole, form)?;
    Ok((Authority { userinfo: userinfo.filter(|user| !user.is_empty()), host, port }, query))
}

/// Letters of a CoT type with hyphens between them.
fn is_kind(text: &str) -> bool {
    text.len() <= 40
        && text.split('-').all(|part| {
            (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        })
}

const KLV_FORM: &str = "klv+udp://HOST:PORT";
const MESH_FORM: &str = "cot+udp://HOST:PORT, or cot+udp:// for the group of ATAK";
const TCP_FORM: &str = "cot+tcp://HOST:PORT";
const TLS_FORM: &str = "cot+tls://HOST:PORT, or cot+tls://?package=FILE";
const SOCKET: &[&str] = &["ttl", "interface", "dscp", "source_port"];
const TRACK: &[&str] = &["pid"];
const DIAL: &[&str] = &["connect_timeout"];
const CLIENT: &[&str] = &["tls_name", "tls_cert", "tls_key", "package", "password"];
const REGISTER: &[&str] = &["register", "register_port"];
const IDENTITY: &[&str] = &[
    "uid",
    "uid_from",
    "callsign",
    "affiliation",
    "type",
    "every_ms",
    "stale",
    "video",
    "time",
    "leap_seconds",
    "proto",
    "pid",
];
/// Where ATAK, WinTAK and iTAK say and hear where they are.
const GROUP: (&str, u16) = ("239.2.3.1", 6969);
/// HTTPS with client certificates of a TAK Server.
const MARTI: u16 = 8443;
const KIND: &str = "A-M-F-Q";
const EVERY: Duration = Duration::from_secs(1);
const STALE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Those that were put in since 1972, the last one in 2017.
const LEAP_SECONDS: i32 = 27;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::tls::TlsTrust;
    use crate::store::{OutputUrl, Protocol};

    fn cot(text: &str) -> CotOutput {
        match OutputUrl::parse(text) {
            Ok(OutputUrl::Cot(cot)) => *cot,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn tls_of(text: &str) -> CotTls {
        match cot(text).end {
            CotEnd::Tls(tls) => *tls,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn klv_goes_to_an_address_or_a_group() {
        let Ok(OutputUrl::Klv(klv)) =
            OutputUrl::parse("klv+udp://239.1.2.3:5010?ttl=4&interface=eth0&dscp=46&source_port=7000")
        else {
            panic!()
        };
        let way = DatagramWay {
            host: "239.1.2.3".into(),
            port: 5010,
            ttl: Some(4),
            interface: Some("eth0".into()),
            dscp: Some(46),
            source_port: Some(7000),
        };
        assert_eq!(klv.way, way);
        assert_eq!(OutputUrl::Klv(klv).protocol(), Protocol::KlvUdp);
    }

    #[test]
    fn a_mesh_without_a_host_is_the_group_of_atak() {
        for (text, host, port) in [
            ("cot+udp://", "239.2.3.1", 6969),
            ("cot+udp://?interface=eth0", "239.2.3.1", 6969),
            ("cot+udp://:7000", "239.2.3.1", 7000),
            ("cot+udp://10.0.0.1", "10.0.0.1", 6969),
            ("COT+UDP://[ff02::1%eth0]:5000/", "ff02::1%eth0", 5000),
        ] {
            let cot = cot(text);
            let way = cot.way().unwrap_or_else(|| panic!("{text}"));
            assert_eq!((way.host.as_str(), way.port), (host, port), "{text}");
            assert_eq!(cot.identity.kind, "A-M-F-Q");
        }
    }

    #[test]
    fn servers_have_their_ports_and_clients_their_certificates() {
        let plain = cot("cot+tcp://tak.example?connect_timeout=500&proto=xml");
        let dial = plain.dial().expect("a server");
        assert_eq!(
            (dial.host.as_str(), dial.port, dial.timeout),
            ("tak.example", 8087, Duration::from_millis(500))
        );
        assert!(plain.xml_only);
        let tls = tls_of("cot+tls://tak.example");
        assert_eq!((tls.dial.port, tls.trust, tls.shown, tls.register), (8089, None, Shown::Nothing, None));
        let tls = tls_of(
            "cot+tls://[::1]:9000?tls_ca=ca.pem&tls_cert=me.pem&tls_key=me.key&tls_name=any&register=true",
        );
        assert_eq!((tls.dial.host.as_str(), tls.dial.port), ("::1", 9000));
        assert_eq!(tls.trust, Some(TlsTrust::Authorities("ca.pem".into())));
        assert_eq!(tls.shown, Shown::Pem { chain: "me.pem".into(), key: Some("me.key".into()) });
        assert_eq!((tls.checks_name, tls.register), (Some(false), Some(8443)));
        let tls =
            tls_of("cot+tls://tak?tls_cert=me.p12&password=atak%26atak&register=true&register_port=9443");
        let Shown::Pkcs12 { path, password } = &tls.shown else { panic!("{tls:?}") };
        assert_eq!(
            (path.to_str(), password.reveal(), tls.register),
            (Some("me.p12"), "atak&atak", Some(9443))
        );
        assert!(!format!("{tls:?}").contains("atak&"), "{tls:?}");
        let tls = tls_of("cot+tls://?package=tak.zip");
        assert_eq!(tls.dial.host, "");
        assert_eq!(tls.shown, Shown::Package { path: "tak.zip".into(), password: None });
    }

    #[test]
    fn who_a_stream_is_can_be_said() {
        let said = cot(
            "cot+udp://?uid=eye-1&callsign=Eye%201&affiliation=unknown&type=A-C-F-q&every_ms=500&stale=30&pid=0x1f0&video=srt\
             &time=misp&leap_seconds=18",
        );
        let expected = CotIdentity {
            uid: CotUid::Fixed("eye-1".into()),
            callsign: Some("Eye 1".into()),
            affiliation: CotSide::Unknown,
            kind: "A-C-F-q".into(),
            every: Duration::from_millis(500),
            stale: Duration::from_secs(30),
            track: Some(0x1f0),
            video: CotVideo::Srt,
            leap_seconds: Some(18),
        };
        assert_eq!(said.identity, expected);
        assert_eq!(cot("cot+udp://?uid_from=mission").identity.uid, CotUid::Mission);
        assert_eq!(cot("cot+udp://").identity.uid, CotUid::Own);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("klv+udp://:5000", "an address or name to send to"),
            ("klv+udp://h", "a port from 1 to 65535"),
            ("klv+udp://h:1?klv=strip", "option 'klv' is not known here"),
            ("cot+udp://0.0.0.0", "an address or name to send to"),
            ("cot+udp://?type=drone%20", "such as A-M-F-Q"),
            ("cot+udp://?callsign=%0A", "printable text of at most 64"),
            ("cot+udp://?uid=a&uid_from=mission", "two answers"),
            ("cot+udp://?every_ms=10", "from 200 to 60000"),
            ("cot+udp://?leap_seconds=3", "needs time=misp"),
            ("cot+tcp://", "the address or name of a server"),
            ("cot+tcp://239.1.1.1", "the address or name of a server"),
            ("cot+tcp://h?tls_cert=a", "option 'tls_cert' is not known here"),
            ("cot+tls://", "package=FILE"),
            ("cot+tls://h?tls_key=a", "give tls_cert"),
            ("cot+tls://h?password=secret", "give tls_cert"),
            ("cot+tls://h?package=a&tls_cert=b", "without tls_cert"),
            ("cot+tls://h?tls_cert=a&tls_key=b&password=secret", "PKCS#12"),
            ("cot+tls://h?register_port=1", "needs register=true"),
            ("cot+tls://u:p@h", "by certificate"),
        ] {
            let error = OutputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
            assert!(!error.msg.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn anything_like_a_url_is_read_or_refused(
            text in "(klv|cot)\\+(udp|tcp|tls):/{0,3}[@a0.:%\\[\\]é-]{0,12}(:[0-9]{0,6})?(\\?([a-z_]{1,9}|uid|type|stale|package)=[%0-9a-fx,.:\\[\\]é-]{0,8}){0,3}"
        ) {
            if let Ok(OutputUrl::Cot(cot)) = OutputUrl::parse(&text) {
                prop_assert!(cot.way().is_none_or(|way| !way.host.is_empty() && way.port != 0));
            }
        }
    }
}
