//! The text of a url enters, what it says leaves: scheme, address, options, every value inside its range. Opens
//! nothing and resolves no name.

mod address;
mod options;
mod rtmp;
mod rtsp;
mod srt;
mod tak;
mod tls;

pub use options::read_pid;
pub(super) use rtsp::redirected;

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use self::address::{Authority, check_scope, literal, split_authority, split_query};
use self::options::{FIELD, FILTER, Options, bad, percent_decode};
use super::refusal::FieldError;
use super::spec::{
    Container, FileInput, FileOutput, InputUrl, OutputUrl, Pace, Protocol, RtpInput, UdpInput, UdpOutput,
};
use super::srt::SrtEnd;
use super::tak::{CotEnd, DatagramWay};

impl InputUrl {
    /// Reads the url of an input. The error names the option, its range, and what is known instead.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let (scheme, rest) = split_scheme(text, STREAMS)?;
        match scheme.as_str() {
            "udp" => {
                let (address, options) = split_address(rest, &[SOCKET_INPUT])?;
                Ok(Self::Udp(udp_input(address.host, address.port, &options)?))
            }
            "rtp" => {
                let (address, options) = split_address(rest, &[SOCKET_INPUT, RTP_INPUT])?;
                let reorder = options.number("reorder_ms", 0..=2000)?.unwrap_or(50);
                let udp = udp_input(address.host, address.port, &options)?;
                Ok(Self::Rtp(RtpInput { udp, reorder: Duration::from_millis(reorder) }))
            }
            "srt" => Ok(Self::Srt(srt::input(rest)?.into())),
            "rtmp" | "rtmps" => Ok(Self::Rtmp(rtmp::input(rest, scheme == "rtmps")?.into())),
            "rtsp" | "rtsps" => Ok(Self::Rtsp(rtsp::input(rest, scheme == "rtsps")?.into())),
            "file" => {
                let (path, options) = split_path(rest, &[FILE_INPUT])?;
                let looped = options.choice("loop", &[("true", true), ("false", false)])?.unwrap_or(true);
                Ok(Self::File(FileInput { path, looped }))
            }
            other => Err(unsupported(other, STREAMS)),
        }
    }

    /// The port of a UDP socket that this input binds.
    pub fn udp_port(&self) -> Option<u16> {
        match self {
            Self::Udp(udp) | Self::Rtp(RtpInput { udp, .. }) => Some(udp.port),
            Self::Srt(_) | Self::Rtmp(_) | Self::Rtsp(_) | Self::File(_) => None,
        }
    }
}

impl OutputUrl {
    /// Reads the url of an output. The error names the option, its range, and what is known instead.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let (scheme, rest) = split_scheme(text, OUTPUTS)?;
        match scheme.as_str() {
            "udp" => Ok(Self::Udp(udp_output(rest)?)),
            "rtp" => Ok(Self::Rtp(udp_output(rest)?)),
            "klv+udp" => Ok(Self::Klv(tak::klv(rest)?)),
            "cot+udp" => Ok(Self::Cot(tak::mesh(rest)?.into())),
            "cot+tcp" | "cot+tls" => Ok(Self::Cot(tak::server(rest, scheme == "cot+tls")?.into())),
            "srt" => Ok(Self::Srt(srt::output(rest)?.into())),
            "rtmp" | "rtmps" => Ok(Self::Rtmp(rtmp::output(rest, scheme == "rtmps")?.into())),
            "rtsp" | "rtsps" => Ok(Self::Rtsp(rtsp::output(rest, scheme == "rtsps")?.into())),
            "file" => {
                let (path, options) = split_path(rest, &[FILE_OUTPUT, FILTER])?;
                let is_mp4 = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("mp4"));
                let container = if is_mp4 { Container::Mp4 } else { Container::Ts };
                if is_mp4 && options.transform()?.is_some() {
                    return Err(bad(
                        "program, pids, drop_pids, klv and fill are for transport streams: an .mp4 file holds the \
                         pictures and sound of the first program",
                    ));
                }
                Ok(Self::File(FileOutput {
                    path,
                    container,
                    rotate_bytes: options.number("rotate_mb", 1..=1_000_000)?.map(|mb| mb * 1_000_000),
                    rotate_after: options.number("rotate_s", 1..=604_800)?.map(Duration::from_secs),
                    transform: options.transform()?,
                }))
            }
            other => Err(unsupported(other, OUTPUTS)),
        }
    }

    /// The API's word for what this url says.
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Rtp(_) => Protocol::Rtp,
            Self::Srt(srt) => match srt.link.end {
                SrtEnd::Caller(_) | SrtEnd::Group(_) => Protocol::SrtCaller,
                SrtEnd::Rendezvous(_) => Protocol::SrtRendezvous,
                SrtEnd::Listener(_) => Protocol::SrtListener,
            },
            Self::Rtmp(_) => Protocol::Rtmp,
            Self::Rtsp(rtsp) => match rtsp.end.listen() {
                Some(_) => Protocol::RtspListener,
                None => Protocol::Rtsp,
            },
            Self::File(_) => Protocol::File,
            Self::Klv(_) => Protocol::KlvUdp,
            Self::Cot(cot) => match cot.end {
                CotEnd::Udp(_) => Protocol::CotUdp,
                CotEnd::Tcp(_) => Protocol::CotTcp,
                CotEnd::Tls(_) => Protocol::CotTls,
            },
        }
    }
}

fn udp_input(host: String, port: u16, options: &Options) -> Result<UdpInput, FieldError> {
    let host = if host.is_empty() { "0.0.0.0".into() } else { host };
    let interface = options.interface()?;
    check_scope(&host, interface.as_deref())?;
    let expected = || "the address of a sender: unicast, and of the same family as the host".into();
    let source = options.read("source", expected, |v| {
        let source = IpAddr::from_str(v.trim_start_matches('[').trim_end_matches(']')).ok()?;
        let same_family = literal(&host).is_none_or(|host| host.is_ipv4() == source.is_ipv4());
        (same_family && !source.is_multicast() && !source.is_unspecified()).then_some(source)
    })?;
    let stall_after = options.stall_after()?;
    let rcvbuf = options.number("rcvbuf", 4096..=1_073_741_824)?.map(|bytes| bytes as usize);
    Ok(UdpInput { host, port, interface, source, rcvbuf, stall_after })
}

fn udp_output(rest: &str) -> Result<UdpOutput, FieldError> {
    let (Authority { host, port, .. }, options) = split_address(rest, &[SOCKET_OUTPUT, FILTER])?;
    if host.is_empty() || literal(&host).is_some_and(|ip| ip.is_unspecified()) {
        return Err(bad("an output needs an address or a name to send to: udp://HOST:PORT"));
    }
    let DatagramWay { host, port, ttl, interface, dscp, source_port } = datagram_way(host, port, &options)?;
    Ok(UdpOutput {
        host,
        port,
        ttl,
        interface,
        dscp,
        source_port,
        delay: options.delay()?,
        pace: options.choice("pace", &[("batch", Pace::Batch), ("pcr", Pace::Pcr)])?.unwrap_or_default(),
        transform: options.transform()?,
    })
}

/// Where datagrams go, by what the options of a socket say.
fn datagram_way(host: String, port: u16, options: &Options) -> Result<DatagramWay, FieldError> {
    let interface = options.interface()?;
    check_scope(&host, interface.as_deref())?;
    Ok(DatagramWay {
        host,
        port,
        ttl: options.number("ttl", 1..=255)?.map(|n| n as u8),
        interface,
        dscp: options.number("dscp", 0..=63)?.map(|n| n as u8),
        source_port: options.number("source_port", 1..=65_535)?.map(|n| n as u16),
    })
}

fn split_scheme<'a>(text: &'a str, supported: &str) -> Result<(String, &'a str), FieldError> {
    if text.chars().count() > 1024 {
        return Err(FieldError::new(FIELD, "string_too_long", "String should have at most 1024 characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(bad("a url holds no control characters"));
    }
    let (scheme, rest) =
        text.split_once(':').ok_or_else(|| bad(format!("a url starts with one of {supported}")))?;
    Ok((scheme.to_ascii_lowercase(), rest))
}

fn unsupported(scheme: &str, supported: &str) -> FieldError {
    if LATER.contains(&scheme) {
        bad(format!("{scheme}:// is not supported yet; supported are {supported}"))
    } else {
        bad(format!("the scheme is not known; supported are {supported}"))
    }
}

/// The address of a UDP socket has nobody before its `@`.
fn split_address<'a>(rest: &'a str, known: &[&[&str]]) -> Result<(Authority<'a>, Options), FieldError> {
    let (authority, query) = split_authority(rest, "udp://HOST:PORT")?;
    if authority.userinfo.is_some() {
        return Err(bad("nothing stands before the '@' of this scheme; a sender is written source=ADDRESS"));
    }
    Ok((authority, Options::parse(query, known, &[])?))
}

/// Splits `PATH[?options]`, `//localhost/PATH` and `///PATH` (RFC 8089, 2); the path is percent-decoded.
fn split_path(rest: &str, known: &[&[&str]]) -> Result<(PathBuf, Options), FieldError> {
    let (before, query) = split_query(rest);
    let path = match before.strip_prefix("//") {
        None => before,
        Some(local) => {
            let local = local.strip_prefix("localhost").unwrap_or(local);
            if !local.starts_with('/') {
                return Err(bad("a file is on this machine: file:PATH or file:///PATH"));
            }
            local
        }
    };
    let bytes = percent_decode(path).ok_or_else(|| bad("write a literal % in a path as %25"))?;
    if bytes.is_empty() || bytes.ends_with(b"/") || bytes.iter().any(u8::is_ascii_control) {
        return Err(bad("the path of a file is expected: file:PATH or file:///PATH"));
    }
    Ok((OsString::from_vec(bytes).into(), Options::parse(query, known, &[])?))
}

const STREAMS: &str = "udp://, rtp://, srt://, rtmp://, rtmps://, rtsp://, rtsps:// and file:";
const OUTPUTS: &str = "udp://, rtp://, srt://, rtmp://, rtmps://, rtsp://, rtsps://, file:, klv+udp://, cot+udp://, \
                       cot+tcp:// and cot+tls://";
const LATER: [&str; 3] = ["v4l2", "http", "https"];
const SOCKET_INPUT: &[&str] = &["interface", "source", "rcvbuf", "stall_after"];
const RTP_INPUT: &[&str] = &["reorder_ms"];
const FILE_INPUT: &[&str] = &["loop"];
const SOCKET_OUTPUT: &[&str] = &["ttl", "interface", "dscp", "source_port", "delay_ms", "pace"];
const FILE_OUTPUT: &[&str] = &["rotate_mb", "rotate_s"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Delay;
    use crate::wire::ts::{Fill, FilterSpec};
    use proptest::prelude::*;

    fn input(text: &str) -> InputUrl {
        InputUrl::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn output(text: &str) -> UdpOutput {
        match OutputUrl::parse(text) {
            Ok(OutputUrl::Udp(udp) | OutputUrl::Rtp(udp)) => udp,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn udp(host: &str, port: u16) -> UdpInput {
        UdpInput { host: host.into(), port, interface: None, source: None, rcvbuf: None, stall_after: None }
    }

    #[test]
    fn addresses_of_inputs() {
        for (text, host, port) in [
            ("udp://239.1.1.1:5000", "239.1.1.1", 5000),
            ("udp://@239.1.1.1:5000", "239.1.1.1", 5000),
            ("udp://@:5000", "0.0.0.0", 5000),
            ("udp://:5000", "0.0.0.0", 5000),
            ("UDP://0.0.0.0:65535/", "0.0.0.0", 65535),
            ("udp://[::]:1", "::", 1),
            ("udp://[ff3e::1]:5000?", "ff3e::1", 5000),
            ("udp://[fe80::1%eth0]:5000", "fe80::1%eth0", 5000),
            ("udp://[fe80::1%25eth0]:5000", "fe80::1%eth0", 5000),
            ("udp://[fe80::1%25]:5000", "fe80::1%25", 5000),
            ("udp://cam-1.local_net.example.:5000", "cam-1.local_net.example.", 5000),
        ] {
            assert_eq!(input(text), InputUrl::Udp(udp(host, port)), "{text}");
        }
    }

    #[test]
    fn options_of_inputs() {
        let text = "udp://232.1.1.1:5000?interface=eth0&source=10.0.0.1&rcvbuf=4194304&stall_after=2.5";
        let all = UdpInput {
            interface: Some("eth0".into()),
            source: Some("10.0.0.1".parse().unwrap()),
            rcvbuf: Some(4_194_304),
            stall_after: Some(Duration::from_millis(2500)),
            ..udp("232.1.1.1", 5000)
        };
        assert_eq!(input(text), InputUrl::Udp(all.clone()));
        let rtp = text.replace("udp", "rtp");
        let reorder = Duration::from_millis(50);
        assert_eq!(input(&rtp), InputUrl::Rtp(RtpInput { udp: all.clone(), reorder }));
        let reorder = Duration::ZERO;
        assert_eq!(input(&format!("{rtp}&reorder_ms=0")), InputUrl::Rtp(RtpInput { udp: all, reorder }));
        assert_eq!(
            input("udp://[ff3e::1]:1?source=[2001:db8::1]&interface=10.0.0.1"),
            InputUrl::Udp(UdpInput {
                source: Some("2001:db8::1".parse().unwrap()),
                interface: Some("10.0.0.1".into()),
                ..udp("ff3e::1", 1)
            })
        );
    }

    #[test]
    fn files() {
        for (text, path, looped) in [
            ("file:clip.ts", "clip.ts", true),
            ("file:a/my clip%3F%25.ts?loop=false", "a/my clip?%.ts", false),
            ("file:/abs/clip.ts", "/abs/clip.ts", true),
            ("file:///abs/clip.ts?loop=true", "/abs/clip.ts", true),
            ("file://localhost/abs/clip.ts", "/abs/clip.ts", true),
        ] {
            assert_eq!(input(text), InputUrl::File(FileInput { path: path.into(), looped }), "{text}");
        }
        let transform = Some(FilterSpec { strip_klv: true, ..FilterSpec::default() });
        assert_eq!(
            OutputUrl::parse("file:dump.ts?rotate_mb=100&rotate_s=60&klv=strip").unwrap(),
            OutputUrl::File(FileOutput {
                path: "dump.ts".into(),
                container: Container::Ts,
                rotate_bytes: Some(100_000_000),
                rotate_after: Some(Duration::from_secs(60)),
                transform,
            })
        );
    }

    #[test]
    fn options_of_outputs() {
        let plain = output("udp://10.0.0.1:5000");
        assert_eq!((plain.delay, plain.pace, plain.transform), (None, Pace::Batch, None));
        let all = output(
            "rtp://@239.1.1.1:5000?ttl=255&interface=eth0.100&dscp=0&source_port=1&delay_ms=40&pace=pcr\
             &program=7&pids=256,0x101,0X1FFE&drop_pids=16&klv=strip&fill=remove",
        );
        let filter = FilterSpec {
            program: Some(7),
            pids: Some([256, 257, 0x1ffe].into()),
            drop_pids: [16].into(),
            strip_klv: true,
            fill: Fill::Remove,
        };
        let expected = UdpOutput {
            host: "239.1.1.1".into(),
            port: 5000,
            ttl: Some(255),
            interface: Some("eth0.100".into()),
            dscp: Some(0),
            source_port: Some(1),
            delay: Some(Delay::Ms40),
            pace: Pace::Pcr,
            transform: Some(filter),
        };
        assert_eq!(all, expected);
        assert_eq!(output("udp://h:1?klv=keep").transform, None);
        assert_eq!(output("udp://h:1?delay_ms=0").delay, Some(Delay::Ms0));
    }

    #[test]
    fn refusals_say_what_is_expected() {
        for (text, part) in [
            ("", "udp://, rtp://, srt://, rtmp://, rtmps://, rtsp://, rtsps:// and file:"),
            ("239.1.1.1", "udp://, rtp://, srt://, rtmp://, rtmps://, rtsp://, rtsps:// and file:"),
            (
                "http://h:1",
                "http:// is not supported yet; supported are udp://, rtp://, srt://, rtmp://, rtmps://, rtsp://",
            ),
            ("gopher://h:1", "the scheme is not known; supported are udp://"),
            ("udp:h:1", "two slashes"),
            ("udp://h", "a port from 1 to 65535"),
            ("udp://h:", "a port from 1 to 65535"),
            ("udp://h:0", "a port from 1 to 65535"),
            ("udp://h:65536", "a port from 1 to 65535"),
            ("udp://h:+5000", "a port from 1 to 65535"),
            ("udp://h:5 ", "a port from 1 to 65535"),
            ("udp://::1:5000", "brackets"),
            ("udp://[::1:5000", "']' is missing"),
            ("udp://[::1]5000", "a port from 1 to 65535"),
            ("udp://[1.2.3.4]:1", "an IPv6 address is expected"),
            ("udp://[fe80::1%]:1", "an IPv6 address is expected"),
            ("udp://[fe80::1]:1", "needs its interface"),
            ("udp://[fe80::1%eth0]:1?interface=eth0", "given twice"),
            ("udp://300.1.1.1:1", "neither an address nor a name"),
            ("udp://1.2.3:1", "neither an address nor a name"),
            ("udp://a..b:1", "neither an address nor a name"),
            ("udp://h h:1", "neither an address nor a name"),
            ("udp://user:secret@h:1", "before the '@'"),
            ("udp://h:1/path", "no path"),
            (
                "udp://h:1?nope=1",
                "option 'nope' is not known here; known are interface, source, rcvbuf, stall_after",
            ),
            ("udp://h:1?reorder_ms=1", "option 'reorder_ms' is not known here"),
            ("udp://h:1?rcvbuf=5000&rcvbuf=5000", "option 'rcvbuf' is given twice"),
            ("udp://h:1?rcvbuf", "option 'rcvbuf' needs a value"),
            ("udp://h:1?rcvbuf=%zz", "option 'rcvbuf' needs a value"),
            ("udp://h:1?rcvbuf=1", "'rcvbuf' must be a whole number from 4096 to 1073741824"),
            ("udp://h:1?stall_after=0", "seconds from 0.1 to 3600"),
            ("udp://h:1?stall_after=inf", "seconds from 0.1 to 3600"),
            ("udp://h:1?stall_after=1e2", "seconds from 0.1 to 3600"),
            ("udp://h:1?interface=a/b", "network interface"),
            ("udp://h:1?interface=abcdefghijklmnop", "network interface"),
            ("udp://1.1.1.1:1?source=::1", "same family"),
            ("udp://h:1?source=239.1.1.1", "unicast"),
            ("rtp://h:1?reorder_ms=2001", "from 0 to 2000"),
            ("file:", "the path of a file"),
            ("file:dir/", "the path of a file"),
            ("file:a%00b", "the path of a file"),
            ("file:a%zz", "%25"),
            ("file://host/a", "on this machine"),
            ("file://localhostage/a", "on this machine"),
            ("file:a?loop=yes", "option 'loop' must be true or false"),
            ("udp://h:1\n", "control characters"),
        ] {
            let error = InputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
            assert_eq!(error.field, "url");
        }
        for (text, part) in [
            ("udp://:1", "to send to"),
            ("udp://0.0.0.0:1", "to send to"),
            ("udp://[::]:1", "to send to"),
            ("http://h/live", "http:// is not supported yet"),
            ("udp://h:1?ttl=0", "from 1 to 255"),
            ("udp://h:1?ttl=256", "from 1 to 255"),
            ("udp://h:1?ttl=-1", "from 1 to 255"),
            ("udp://h:1?dscp=64", "from 0 to 63"),
            ("udp://h:1?source_port=0", "from 1 to 65535"),
            ("udp://h:1?delay_ms=15", "0 or 5 or 10 or 20 or 40"),
            ("udp://h:1?delay_ms=00", "0 or 5 or 10 or 20 or 40"),
            ("udp://h:1?pace=fast", "batch or pcr"),
            ("udp://h:1?program=0", "from 1 to 65535"),
            ("udp://h:1?pids=", "'pids' needs a value"),
            ("udp://h:1?pids=256,", "from 16 to 8190"),
            ("udp://h:1?pids=8191", "from 16 to 8190"),
            ("udp://h:1?pids=15", "from 16 to 8190"),
            ("udp://h:1?pids=0x", "from 16 to 8190"),
            ("udp://h:1?pids=0x+20", "from 16 to 8190"),
            ("udp://h:1?pids=256&drop_pids=0x100", "PID 256 is in pids and in drop_pids"),
            ("udp://h:1?klv=maybe", "keep or strip"),
            ("udp://h:1?fill=remove", "needs something to take out"),
            ("file:a?rotate_mb=0", "from 1 to 1000000"),
            ("file:a?rotate_s=0", "from 1 to 604800"),
            ("file:a?ttl=1", "known are rotate_mb, rotate_s, program, pids, drop_pids, klv, fill"),
        ] {
            let error = OutputUrl::parse(text).expect_err(text);
            assert!(error.msg.contains(part), "{text}: {error}");
        }
        let long = format!("file:{}", "a".repeat(1020));
        assert_eq!(InputUrl::parse(&long).unwrap_err().kind, "string_too_long");
    }

    #[test]
    fn refusals_repeat_no_secret() {
        for text in [
            "udp://user:Zebra@h:1",
            "udp://h:1?token=Zebra",
            "udp://h:1?ttl=1&Zebra",
            "udp://Zebra:x:1",
            "rtmp://h/live/Zebra?hold=x",
            "Zebra://h",
            "udp://h:1?ttl=Zebra",
        ] {
            let error = OutputUrl::parse(text).unwrap_err();
            assert!(!error.to_string().to_lowercase().contains("zebra"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = (InputUrl::parse(&text), OutputUrl::parse(&text));
        }

        #[test]
        fn anything_like_a_url_is_read_or_refused(
            text in "(udp|rtp|file):/{0,3}[@a0.:%\\[\\]é-]{0,12}(:[0-9]{0,6})?(\\?([a-z_]{1,9}|ttl|pids|source|loop)=[%0-9a-fx,.:\\[\\]é]{0,8}){0,3}"
        ) {
            if let Ok(InputUrl::Udp(udp)) = InputUrl::parse(&text) {
                prop_assert!(!udp.host.is_empty() && udp.port != 0);
            }
            if let Ok(OutputUrl::Udp(udp)) = OutputUrl::parse(&text) {
                prop_assert!(!udp.host.is_empty() && udp.port != 0);
            }
        }
    }
}
