//! How each input and output is supervised: its url and what the configuration says enter, policies leave.

use std::net::IpAddr;
use std::time::Duration;

use super::Director;
use crate::store::{InputSpec, InputUrl, OutputSpec, OutputUrl, RtpInput, SrtInput};
use crate::supervise::{Backoff, Policy, Role};

impl Director {
    pub(super) fn input_policy(&self, spec: &InputSpec) -> Policy {
        let srt = |srt: &SrtInput| srt.link.dial().is_some();
        let backoff = match &spec.url {
            InputUrl::Srt(url) if srt(url) => {
                self.backoff(PEER_RETRY, self.defaults.reconnect_cap.max(PEER_RETRY))
            }
            InputUrl::Rtmp(url) if url.dial().is_some() => {
                self.backoff(PEER_RETRY, self.defaults.reconnect_cap.max(PEER_RETRY))
            }
            InputUrl::Rtsp(url) if url.end.dial().is_some() => {
                self.backoff(PEER_RETRY, self.defaults.reconnect_cap.max(PEER_RETRY))
            }
            // Binding and joining asks nobody but this host's kernel: it may be tried often.
            _ => self.backoff(LOCAL_RETRY, LOCAL_RETRY),
        };
        let (stall_after, again) = match &spec.url {
            InputUrl::Udp(udp) | InputUrl::Rtp(RtpInput { udp, .. }) => {
                (udp.stall_after, udp.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_multicast()))
            }
            InputUrl::Srt(srt) => (srt.stall_after, false),
            // A server may go silent and keep the connection: a new one is what helps.
            InputUrl::Rtmp(rtmp) => (rtmp.stall_after, rtmp.dial().is_some()),
            InputUrl::Rtsp(rtsp) => (rtsp.stall_after, rtsp.end.dial().is_some()),
            InputUrl::File(_) => (None, false),
        };
        Policy {
            role: Role::Input,
            backoff,
            auto_reconnect: true,
            max_attempts: 0,
            fatal_retry: self.defaults.fatal_retry,
            stall_after: Some(stall_after.unwrap_or(self.defaults.stall_after)),
            redial_on_stall: again,
            serves: false,
            hold: None,
        }
    }

    pub(super) fn output_policy(&self, spec: &OutputSpec) -> Policy {
        let base = Duration::from_secs(spec.reconnect_delay.into());
        let srt = match &spec.url {
            OutputUrl::Srt(srt) => Some(srt),
            _ => None,
        };
        let rtmp = match &spec.url {
            OutputUrl::Rtmp(rtmp) => Some(rtmp),
            _ => None,
        };
        let rtsp = match &spec.url {
            OutputUrl::Rtsp(rtsp) => Some(rtsp),
            _ => None,
        };
        let server = match &spec.url {
            OutputUrl::Cot(cot) => cot.dial().is_some(),
            _ => false,
        };
        let acknowledged = srt.is_some() || rtmp.is_some() || rtsp.is_some() || server;
        // An SRT connection lives on keepalives; datagrams have none to hold.
        let hold = rtmp.map(|rtmp| rtmp.hold);
        let hold = hold.or_else(|| rtsp.filter(|rtsp| rtsp.end.dial().is_some()).map(|rtsp| rtsp.hold));
        let rtsp_serves = rtsp.is_some_and(|rtsp| rtsp.end.listen().is_some());
        Policy {
            role: Role::Output,
            backoff: self.backoff(base, self.defaults.reconnect_cap.max(base)),
            auto_reconnect: spec.auto_reconnect,
            max_attempts: spec.max_reconnect_attempts,
            fatal_retry: self.defaults.fatal_retry,
            stall_after: Some(match acknowledged {
                true => ACKNOWLEDGED_WITHIN,
                false if spec.url.tells() => match &spec.url {
                    OutputUrl::Cot(cot) => TOLD_WITHIN.max(cot.identity.every * 2),
                    _ => TOLD_WITHIN,
                },
                false => self.defaults.stall_after.max(Duration::from_secs(2)),
            }),
            // An SRT session ends by itself when its peer is silent for too long.
            // A TAK Server that keeps us silent while it negotiates is given its time.
            redial_on_stall: srt.is_none() && !rtsp_serves && !server,
            serves: rtsp_serves || srt.is_some_and(|srt| srt.link.listen().is_some()),
            hold,
        }
    }

    fn backoff(&self, base: Duration, cap: Duration) -> Backoff {
        Backoff::new(base, cap, self.defaults.jitter).expect("the configuration was checked when it was read")
    }
}

/// An output whose peer answers is `Live` as long as payload was acknowledged within this time.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(3);
/// Datagrams of metadata may be rare.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
const PEER_RETRY: Duration = Duration::from_secs(1);
const LOCAL_RETRY: Duration = Duration::from_millis(500);
