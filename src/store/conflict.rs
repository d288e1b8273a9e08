//! What inputs and outputs need for themselves alone enters, why two of them cannot both have it leaves. Looks at urls
//! only: what other programs hold shows when it is asked of the kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::paths::Roots;
use super::rtmp::RtmpEnd;
use super::rtsp::RtspEnd;
use super::spec::{InputUrl, OutputUrl, RtpInput};
use super::srt::{Secret, SrtDial, SrtEnd, SrtLink};
use super::tak::DatagramWay;

/// Something that one object holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Claim<'a> {
    /// A UDP port on an address of this machine.
    Port { address: IpAddr, port: u16, purpose: Purpose<'a> },
    /// A place at a TCP port where peers of one protocol dial in, with or without TLS.
    Door {
        address: IpAddr,
        port: u16,
        talk: (&'static str, bool),
        purpose: Purpose<'a>,
        /// Where it sends to as well: the first port of many.
        group: Option<SocketAddr>,
    },
    /// A file that is written.
    File(PathBuf),
}

/// What a port is held for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Purpose<'a> {
    /// Plain datagrams: the kernel says who may share it.
    Datagrams,
    /// Connections from it; those that leave in the same way share it.
    Dial(&'a SrtDial),
    /// A rendezvous, where nobody else may answer, or metadata, whose socket is shared with nobody.
    Alone,
    /// Publishers of this name.
    Publish(&'a str),
    /// Readers of this name.
    Read(&'a str),
}

impl<'a> Claim<'a> {
    /// What an input of this url holds; `name` is what its stream goes by where the url gives it none.
    pub(super) fn of_input(url: &'a InputUrl, name: &'a str) -> Option<Self> {
        match url {
            InputUrl::Udp(udp) | InputUrl::Rtp(RtpInput { udp, .. }) => {
                // A name says nothing before it is resolved.
                let address = udp.host.parse().ok()?;
                Some(Self::Port { address, port: udp.port, purpose: Purpose::Datagrams })
            }
            InputUrl::Srt(srt) => Self::of_link(&srt.link, name, Purpose::Publish),
            InputUrl::Rtmp(rtmp) => match &rtmp.end {
                RtmpEnd::Caller(_) => None,
                RtmpEnd::Listener(listen) => Some(Self::Door {
                    address: listen.address.ip(),
                    port: listen.address.port(),
                    talk: ("rtmp", listen.encrypted),
                    purpose: Purpose::Publish(listen.name.as_ref().map_or(name, Secret::reveal)),
                    group: None,
                }),
            },
            InputUrl::Rtsp(rtsp) => Self::of_rtsp(&rtsp.end, name, Purpose::Publish, None),
            InputUrl::File(_) => None,
        }
    }

    /// What an output of this url holds; `name` is what the stream of its input goes by.
    pub(super) fn of_output(url: &'a OutputUrl, name: &'a str, roots: &Roots) -> Option<Self> {
        match url {
            OutputUrl::Udp(udp) | OutputUrl::Rtp(udp) => {
                let (address, port) = (Ipv4Addr::UNSPECIFIED.into(), udp.source_port?);
                Some(Self::Port { address, port, purpose: Purpose::Datagrams })
            }
            OutputUrl::Srt(srt) => Self::of_link(&srt.link, name, Purpose::Read),
            OutputUrl::Rtmp(_) => None,
            OutputUrl::Klv(klv) => Self::of_way(&klv.way),
            OutputUrl::Cot(cot) => Self::of_way(cot.way()?),
            OutputUrl::Rtsp(rtsp) => {
                Self::of_rtsp(&rtsp.end, name, Purpose::Read, rtsp.group.as_ref().map(|group| group.address))
            }
            OutputUrl::File(file) => roots.place(&file.path).map(Self::File),
        }
    }

    fn of_way(way: &DatagramWay) -> Option<Self> {
        let (address, port) = (Ipv4Addr::UNSPECIFIED.into(), way.source_port?);
        Some(Self::Port { address, port, purpose: Purpose::Alone })
    }

    fn of_rtsp(
        end: &'a RtspEnd,
        name: &'a str,
        serve: fn(&'a str) -> Purpose<'a>,
        group: Option<SocketAddr>,
    ) -> Option<Self> {
        let listen = end.listen()?;
        Some(Self::Door {
            address: listen.address.ip(),
            port: listen.address.port(),
            talk: ("rtsp", listen.encrypted),
            purpose: serve(listen.name.as_deref().unwrap_or(name)),
            group,
        })
    }

    fn of_link(link: &'a SrtLink, name: &'a str, serve: fn(&'a str) -> Purpose<'a>) -> Option<Self> {
        let from = |dial: &SrtDial| dial.local_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        Some(match &link.end {
            SrtEnd::Caller(dial) => {
                Self::Port { address: from(dial), port: dial.local_port?, purpose: Purpose::Dial(dial) }
            }
            SrtEnd::Rendezvous(dial) => {
                Self::Port { address: from(dial), port: dial.local_port?, purpose: Purpose::Alone }
            }
            // Its links leave from ports that the kernel chooses.
            SrtEnd::Group(_) => return None,
            SrtEnd::Listener(listen) => Self::Port {
                address: listen.address.ip(),
                port: listen.address.port(),
                purpose: serve(listen.name.as_deref().unwrap_or(name)),
            },
        })
    }

    /// Why this cannot be had while `owner` has `other`.
    pub(super) fn clash(&self, other: &Self, owner: impl FnOnce() -> String) -> Option<String> {
        use Purpose::{Datagrams, Dial, Publish, Read};
        match (self, other) {
            (Self::File(path), Self::File(taken)) => {
                (path == taken).then(|| format!("{} writes the same file: give each its own", owner()))
            }
            (
                Self::Port { address, port, purpose },
                Self::Port { address: taken, port: taken_port, purpose: used },
            ) if port == taken_port && overlap(*address, *taken) => {
                let same = address == taken;
                match (purpose, used) {
                    (Datagrams, Datagrams) => None,
                    (Dial(dial), Dial(other)) if same && leave_alike(dial, other) => None,
                    (Publish(_), Read(_)) | (Read(_), Publish(_)) if same => None,
                    (Publish(name), Publish(used)) | (Read(name), Read(used)) if same => {
                        (name == used).then(|| {
                            format!(
                                "{} has the name '{name}' on port {port}, so a stream id could not tell them apart: \
                                 give another streamid, or use another port",
                                owner()
                            )
                        })
                    }
                    _ => Some(format!("port {port} is used by {}: use another", owner())),
                }
            }
            (Self::Door { group: Some(group), .. }, Self::Door { group: Some(other), .. })
                if group.ip() == other.ip() && group.port().abs_diff(other.port()) < GROUP_PORTS =>
            {
                Some(format!(
                    "{} sends to the same multicast group from port {} on, two ports for each track: give each its own",
                    owner(),
                    other.port()
                ))
            }
            (
                Self::Door { address, port, talk, purpose, .. },
                Self::Door { address: taken, port: taken_port, talk: spoken, purpose: used, .. },
            ) if port == taken_port && overlap(*address, *taken) => match (purpose, used) {
                // The name may be a stream key: it is not repeated.
                (Publish(name), Publish(used)) | (Read(name), Read(used))
                    if address == taken && talk == spoken =>
                {
                    (name == used).then(|| {
                        format!(
                            "{} has the same name on port {port}, so peers could not tell them apart: give \
                             another, or use another port",
                            owner()
                        )
                    })
                }
                (Publish(_), Read(_)) | (Read(_), Publish(_)) if address == taken && talk == spoken => None,
                _ => Some(format!("port {port} is used by {}: use another", owner())),
            },
            _ => None,
        }
    }
}

/// Whether one socket serves both.
fn leave_alike(a: &SrtDial, b: &SrtDial) -> bool {
    (a.ttl, a.dscp, &a.interface) == (b.ttl, b.dscp, &b.interface)
}

/// Whether sockets on both addresses would be in each other's way. `[::]` takes IPv4 too.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    let covers = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    a == b || covers(a, b) || covers(b, a)
}

/// Ports of a group that readers of RTSP may listen at: RTP and RTCP of 16 tracks.
const GROUP_PORTS: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn input(url: &str) -> InputUrl {
        InputUrl::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    fn output(url: &str) -> OutputUrl {
        OutputUrl::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    fn clash(a: Option<Claim<'_>>, b: Option<Claim<'_>>) -> Option<String> {
        let (a, b) = (a?, b?);
        let said = a.clash(&b, || "output 'o'".into());
        let back = b.clash(&a, || "output 'o'".into());
        assert_eq!(said.is_some(), back.is_some(), "{a:?} {b:?}");
        said
    }

    #[test]
    fn a_group_belongs_to_one_output() {
        let roots = Roots::default();
        let first = output("rtsp://:8554/a?multicast=239.1.1.1:5000");
        let said = |url: &str| {
            let second = output(url);
            let claims = [&first, &second].map(|url| Claim::of_output(url, "default", &roots));
            let [one, two] = claims;
            clash(one, two)
        };
        for url in ["rtsp://:8554/b?multicast=239.1.1.1:5000", "rtsp://:8555/b?multicast=239.1.1.1:5030"] {
            assert!(said(url).is_some_and(|why| why.contains("the same multicast group")), "{url}");
        }
        for url in [
            "rtsp://:8554/b?multicast=239.1.1.1:5032",
            "rtsp://:8554/b?multicast=239.1.1.2:5000",
            "rtsp://:8554/b",
        ] {
            assert_eq!(said(url), None, "{url}");
        }
    }

    #[test]
    fn readers_are_told_apart_by_name_direction_and_port() {
        let roots = Roots::default();
        let first = output("srt://:8890?streamid=a");
        let said = |url: &str| {
            clash(
                Claim::of_output(&output(url), "default", &roots),
                Claim::of_output(&first, "default", &roots),
            )
        };
        assert_eq!(
            said("srt://:8890?streamid=a&passphrase=0123456789").unwrap(),
            "output 'o' has the name 'a' on port 8890, so a stream id could not tell them apart: give another \
             streamid, or use another port"
        );
        for other in ["srt://:8890?streamid=b", "srt://:8891?streamid=a", "srt://:8890", "srt://h:8890"] {
            assert_eq!(said(other), None, "{other}");
        }
        let taken = "port 8890 is used by output 'o': use another";
        for other in [
            "srt://10.0.0.1:8890?mode=listener&streamid=b",
            "srt://[::]:8890?mode=listener&streamid=b",
            "srt://h:1?localport=8890",
            "srt://h:8890?mode=rendezvous",
            "udp://h:1?source_port=8890",
        ] {
            assert_eq!(said(other).as_deref(), Some(taken), "{other}");
        }
        assert_eq!(said("srt://[2001:db8::1]:8890?mode=listener&streamid=b"), None);
        let default = output("srt://:8890");
        let own = Claim::of_output(&default, "a", &roots);
        assert!(clash(own, Claim::of_output(&first, "x", &roots)).is_some(), "named after its input");
    }

    #[test]
    fn publishers_and_readers_share_a_port() {
        let (publish, read) = (input("srt://:8890?streamid=a"), output("srt://:8890?streamid=a"));
        let claim = Claim::of_input(&publish, "");
        assert_eq!(clash(claim.clone(), Claim::of_output(&read, "", &Roots::default())), None);
        assert!(clash(claim.clone(), Claim::of_input(&input("srt://:8890?takeover=reject"), "a")).is_some());
        for (url, free) in [
            ("udp://:8890", false),
            ("rtp://10.0.0.1:8890", false),
            ("udp://239.1.1.1:8890", false),
            ("udp://[::1]:8890", true),
            ("udp://some.name:8890", true),
            ("file:a.ts", true),
        ] {
            assert_eq!(clash(claim.clone(), Claim::of_input(&input(url), "a")).is_none(), free, "{url}");
        }
    }

    #[test]
    fn publishers_over_rtmp_are_told_apart_by_their_key() {
        let first = input("rtmp://:1935/live/hunter2");
        let said = |url: &str| {
            clash(Claim::of_input(&input(url), "own"), Claim::of_input(&first, "own")).unwrap_or_default()
        };
        assert!(said("rtmp://:1935/live/hunter2?takeover=reject").contains("the same name on port 1935"));
        assert!(!said("rtmp://:1935/live/hunter2").contains("hunter2"));
        for free in [
            "rtmp://:1935/live/other",
            "rtmp://:1935",
            "rtmp://:1936/live/hunter2",
            "rtmp://h/a/b",
            "udp://:1935",
        ] {
            assert_eq!(said(free), "", "{free}");
        }
        for taken in ["rtmps://:1935/live/other", "rtmp://10.0.0.1:1935/live/other?mode=listener"] {
            assert_eq!(said(taken), "port 1935 is used by output 'o': use another", "{taken}");
        }
    }

    #[test]
    fn callers_share_a_port_when_they_leave_alike() {
        let roots = Roots::default();
        let first = output("srt://a:1?localport=4000&ttl=9");
        for (url, free) in [
            ("srt://b:2?localport=4000&ttl=9&passphrase=0123456789", true),
            ("srt://b:2?localport=4000", false),
            ("srt://b:2?localport=4000&ttl=9&localaddr=10.0.0.1", false),
            ("srt://b:2?localport=4001", true),
            ("srt://b:4000?mode=rendezvous", false),
        ] {
            let claim = Claim::of_output(&first, "", &roots);
            assert_eq!(clash(claim, Claim::of_output(&output(url), "", &roots)).is_none(), free, "{url}");
        }
        let meet = output("srt://b:4000?mode=rendezvous");
        let claim = || Claim::of_output(&meet, "", &roots);
        assert!(clash(claim(), claim()).is_some());
    }

    #[test]
    fn a_file_is_written_once() {
        let roots = Roots::new(vec!["/media".into(), "/second".into()]);
        let first = output("file:sub/a.ts");
        for (url, free) in [
            ("file:./sub//a.ts?rotate_s=60", false),
            ("file:/media/sub/./a.ts", false),
            ("file:sub/b.ts", true),
            ("file:/second/sub/a.ts", true),
        ] {
            let claim = Claim::of_output(&first, "", &roots);
            assert_eq!(clash(claim, Claim::of_output(&output(url), "", &roots)).is_none(), free, "{url}");
        }
    }
}
