//! What follows `rtmp:` or `rtmps:` enters, whom to dial or where to listen leaves. Options that are not of this engine
//! belong to the stream, and are sent to the server that is dialled.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::address::{Authority, check_scope, literal, split_authority, split_query};
use super::options::{Options, bad, percent_decode};
use super::tls::{TLS, trust};
use crate::store::refusal::FieldError;
use crate::store::rtmp::{RtmpDial, RtmpEnd, RtmpInput, RtmpListen, RtmpOutput};
use crate::store::spec::{Delay, Lag};
use crate::store::srt::{Credentials, Secret, Takeover};

/// Reads the url of an input.
pub(super) fn input(rest: &str, encrypted: bool) -> Result<RtmpInput, FieldError> {
    let url = Url::split(rest, encrypted, &[LINK, DIAL, TLS, INPUT, LISTEN])?;
    let listens = match url.options.choice("mode", &[("caller", false), ("listener", true)])? {
        Some(listens) => listens,
        None => url.authority.host.is_empty(),
    };
    let takeover =
        url.options.choice("takeover", &[("replace", Takeover::Replace), ("reject", Takeover::Reject)])?;
    let stall_after = url.options.stall_after()?;
    let foreign = if listens { [DIAL, TLS].concat() } else { LISTEN.to_vec() };
    if let Some(name) = foreign.into_iter().find(|name| url.options.text(name).is_some()) {
        let mode = if listens { "caller" } else { "listener" };
        return Err(bad(format!("option '{name}' is for mode={mode}")));
    }
    let end = if listens { RtmpEnd::Listener(url.listen()?) } else { RtmpEnd::Caller(url.dial()?) };
    Ok(RtmpInput { end, takeover: takeover.unwrap_or_default(), stall_after })
}

/// Reads the url of an output.
pub(super) fn output(rest: &str, encrypted: bool) -> Result<RtmpOutput, FieldError> {
    let url = Url::split(rest, encrypted, &[LINK, DIAL, TLS, OUTPUT])?;
    url.options.read("mode", || "caller: RTMP outputs push".into(), |v| (v == "caller").then_some(()))?;
    let lag = [("skip_to_keyframe", Lag::SkipToKeyframe), ("disconnect", Lag::Disconnect)];
    Ok(RtmpOutput {
        delay: url.options.delay()?.unwrap_or(Delay::Ms20),
        hold: url.options.number("hold", 0..=3600)?.map_or(HOLD, Duration::from_secs),
        lag: url.options.choice("lag", &lag)?.unwrap_or_default(),
        dial: url.dial()?,
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
            Some(end) => place[end..].contains(':'),
            None => place.contains(':'),
        };
        let default = if encrypted { 443 } else { 1935 };
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

    fn dial(self) -> Result<RtmpDial, FieldError> {
        let Authority { userinfo, host, port } = self.authority;
        if host.is_empty() || literal(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(bad(format!("the address or name of a server is expected: {FORM}")));
        }
        check_scope(&host, None)?;
        let (application, stream) = self.path.rsplit_once('/').unwrap_or((self.path, ""));
        if application.is_empty() {
            return Err(bad(format!("an application follows the host: {FORM}")));
        }
        let question = if self.foreign.is_empty() { "" } else { "?" };
        let scheme = if self.encrypted { "rtmps" } else { "rtmp" };
        let tls = trust(&self.options, self.encrypted)?;
        let timeout = self.options.number("connect_timeout", 100..=60_000)?;
        Ok(RtmpDial {
            tls: self.encrypted.then_some(tls),
            tc_url: format!("{scheme}://{}/{application}", self.place),
            application: application.into(),
            stream: Secret::new(format!("{stream}{question}{}", self.foreign)),
            credentials: userinfo.map(credentials).transpose()?,
            timeout: timeout.map_or(TIMEOUT, Duration::from_millis),
            host,
            port,
        })
    }

    fn listen(self) -> Result<RtmpListen, FieldError> {
        let Authority { userinfo, host, port } = self.authority;
        if !self.foreign.is_empty() {
            return Err(bad("an option is not known here; to listen, known are mode, takeover, stall_after"));
        }
        let ip = match host.as_str() {
            "" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            host => host.parse::<IpAddr>().ok().filter(|ip| !ip.is_multicast()).ok_or_else(|| {
                bad("an address of this machine is expected with mode=listener: rtmp://:PORT/APP/KEY")
            })?,
        };
        let name = self.path.trim_matches('/');
        Ok(RtmpListen {
            address: SocketAddr::new(ip, port),
            encrypted: self.encrypted,
            name: (!name.is_empty()).then(|| Secret::new(name)),
            credentials: userinfo.map(credentials).transpose()?,
        })
    }
}

fn credentials(userinfo: &str) -> Result<Credentials, FieldError> {
    let part = |text: &str| {
        let text = percent_decode(text).and_then(|bytes| String::from_utf8(bytes).ok())?;
        ((1..=128).contains(&text.len()) && !text.chars().any(char::is_control)).then_some(text)
    };
    let parts = userinfo.split_once(':').and_then(|(user, password)| {
        Some(Credentials { user: part(user)?.into(), password: Secret::new(part(password)?) })
    });
    parts.ok_or_else(|| bad("USER:PASSWORD is expected before the '@', each of 1 to 128 bytes"))
}

const FORM: &str = "rtmp://HOST/APPLICATION/STREAM, or rtmp://:PORT/APPLICATION/STREAM to listen";
const LINK: &[&str] = &["mode", "key_is_public"];
const DIAL: &[&str] = &["connect_timeout"];
const INPUT: &[&str] = &["stall_after"];
const LISTEN: &[&str] = &["takeover"];
const OUTPUT: &[&str] = &["delay_ms", "hold", "lag"];
const TIMEOUT: Duration = Duration::from_secs(10);
const HOLD: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tls::TlsTrust;
    use crate::store::{InputUrl, OutputUrl};

    fn input(text: &str) -> RtmpInput {
        match InputUrl::parse(text) {
            Ok(InputUrl::Rtmp(rtmp)) => *rtmp,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn output(text: &str) -> RtmpOutput {
        match OutputUrl::parse(text) {
            Ok(OutputUrl::Rtmp(rtmp)) => *rtmp,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_push_has_application_key_and_what_the_server_is_to_be_told() {
        let url = output("rtmp://a.rtmp.example.com/live2/abcd-efgh");
        assert_eq!((url.dial.host.as_str(), url.dial.port), ("a.rtmp.example.com", 1935));
        assert_eq!((url.dial.application.as_str(), url.dial.stream.reveal()), ("live2", "abcd-efgh"));
        assert_eq!(url.dial.tc_url, "rtmp://a.rtmp.example.com/live2");
        assert_eq!(
            (url.delay, url.hold, url.lag),
            (Delay::Ms20, Duration::from_secs(30), Lag::SkipToKeyframe)
        );
        let url = output(
            "rtmps://u%40x:p%3Aw@[2001:db8::1]:444/app/inst/key?token=a&delay_ms=40&hold=5&lag=disconnect&x",
        );
        assert_eq!((url.dial.host.as_str(), url.dial.port), ("2001:db8::1", 444));
        assert_eq!((url.dial.application.as_str(), url.dial.stream.reveal()), ("app/inst", "key?token=a&x"));
        assert_eq!(url.dial.tc_url, "rtmps://[2001:db8::1]:444/app/inst");
        let credentials = url.dial.credentials.clone().unwrap();
        assert_eq!((&*credentials.user, credentials.password.reveal()), ("u@x", "p:w"));
        assert_eq!(url.dial.tls, Some(TlsTrust::System));
        let shown = format!("{url:?}");
        assert!(!shown.contains("token") && !shown.contains("p:w"), "{shown}");
        let bare = output("rtmp://h/uuid?user=a&pass=b");
        assert_eq!((bare.dial.application.as_str(), bare.dial.stream.reveal()), ("uuid", "?user=a&pass=b"));
    }

    #[test]
    fn whom_to_trust_is_said_once() {
        let pin = "ab".repeat(32);
        let trusts = |options: &str| OutputUrl::parse(&format!("rtmps://h/a/b?{options}"));
        let Ok(OutputUrl::Rtmp(url)) = trusts(&format!("tls_pin={pin}")) else { panic!() };
        assert_eq!(url.dial.tls, Some(TlsTrust::Pinned([0xAB; 32])));
        let Ok(OutputUrl::Rtmp(url)) = trusts("tls_ca=ca.pem") else { panic!() };
        assert_eq!(url.dial.tls, Some(TlsTrust::Authorities("ca.pem".into())));
        let Ok(OutputUrl::Rtmp(url)) = trusts("tls_insecure=true") else { panic!() };
        assert_eq!(url.dial.tls, Some(TlsTrust::Anybody));
        for wrong in ["tls_pin=abc", "tls_pin=zz", "tls_ca=a&tls_insecure=true"] {
            assert!(trusts(wrong).is_err(), "{wrong}");
        }
        assert!(OutputUrl::parse("rtmp://h/a/b?tls_insecure=true").is_err());
    }

    #[test]
    fn an_input_dials_or_is_dialled() {
        let RtmpEnd::Caller(dial) = input("rtmp://h:1936/live/cam").end else { panic!() };
        assert_eq!((dial.port, dial.application.as_str()), (1936, "live"));
        let url = input("rtmp://joe:secret@:1935/live/key?takeover=reject&stall_after=3");
        assert_eq!((url.takeover, url.stall_after), (Takeover::Reject, Some(Duration::from_secs(3))));
        let RtmpEnd::Listener(listen) = url.end else { panic!() };
        assert_eq!(listen.address, "0.0.0.0:1935".parse().unwrap());
        assert_eq!(listen.name.as_ref().map(Secret::reveal), Some("live/key"));
        assert!(listen.credentials.is_some() && !listen.encrypted);
        let RtmpEnd::Listener(listen) = input("rtmps://10.0.0.1:1936?mode=listener").end else { panic!() };
        assert_eq!((listen.name, listen.encrypted), (None, true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("rtmp:/h/a/b", "two slashes"),
            ("rtmp:///live/key", "a host, or a port to listen on"),
            ("rtmp://h", "an application follows the host"),
            ("rtmp://h/", "an application follows the host"),
            ("rtmp://h:0/a/b", "from 1 to 65535"),
            ("rtmp://h/a/b?takeover=reject", "is for mode=listener"),
            ("rtmp://:1935/a/b?connect_timeout=900", "is for mode=caller"),
            ("rtmp://:1935/a/b?nonsense=1", "not known here"),
            ("rtmp://h:1935/a/b?mode=listener", "an address of this machine"),
            ("rtmp://user@h/a/b", "USER:PASSWORD"),
            ("rtmp://h/a/b?mode=serve", "caller or listener"),
        ] {
            let error = InputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            ("rtmp://:1935/a/b", "the address or name of a server"),
            ("rtmp://h/a/b?mode=listener", "RTMP outputs push"),
            ("rtmp://h/a/b?hold=9999", "from 0 to 3600"),
            ("rtmp://h/a/b?lag=wait", "skip_to_keyframe or disconnect"),
        ] {
            let error = OutputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
        }
    }
}
