//! Names to addresses, at every attempt, and the hosts that must not be dialled.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;

/// Why a name gave no address.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The resolver answered with an error.
    #[error("cannot resolve {host}: {source}")]
    Failed {
        /// The name.
        host: String,
        /// The resolver's answer.
        source: std::io::Error,
    },
    /// The resolver answered with no address.
    #[error("{0} has no address")]
    Empty(String),
    /// No answer within 5 s.
    #[error("no answer from the resolver for {0} within 5 s")]
    Timeout(String),
    /// The address is one that must not be dialled.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// An address that the configuration forbids to dial.
#[derive(Debug, Error)]
#[error("{address} is denied by hosts.deny ({rule})")]
pub struct Denied {
    /// The address after name resolution.
    pub address: SocketAddr,
    /// The rule that matched.
    pub rule: String,
}

/// Networks that must not be dialled, and our own control ports.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    denied: Vec<(IpAddr, u8)>,
    own: Vec<SocketAddr>,
}

impl HostPolicy {
    /// Denies the given networks (address and prefix length) and the control addresses `own`.
    pub fn new(denied: Vec<(IpAddr, u8)>, own: Vec<SocketAddr>) -> Self {
        Self { denied, own }
    }

    /// Whether the address may be dialled; asked at every dial, after name resolution.
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn check(&self, address: SocketAddr) -> Result<(), Denied> {
        let ip = address.ip().to_canonical();
        for &(network, prefix) in &self.denied {
            if contains(network, prefix, ip) {
                return Err(Denied { address, rule: format!("{network}/{prefix}") });
            }
        }
        let here = |own: &SocketAddr| {
            own.port() == address.port()
                && (own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback()) || ip.is_unspecified())
        };
        match self.own.iter().find(|own| here(own)) {
            Some(_) => Err(Denied { address, rule: "our own control port".into() }),
            None => Ok(()),
        }
    }

    /// Those of the addresses that may be dialled; `None` if there were none.
    fn admit(&self, found: Vec<SocketAddr>) -> Result<Option<Vec<SocketAddr>>, Denied> {
        let mut admitted: Vec<SocketAddr> = Vec::new();
        let mut denied = None;
        for address in found {
            match self.check(address) {
                Ok(()) if admitted.contains(&address) => {}
                Ok(()) => admitted.push(address),
                Err(why) => denied = denied.or(Some(why)),
            }
        }
        match (admitted.is_empty(), denied) {
            (false, _) => Ok(Some(admitted)),
            (true, Some(why)) => Err(why),
            (true, None) => Ok(None),
        }
    }
}

/// Resolves `host` (a name, or an address with or without brackets) now: its addresses as the resolver orders them, at
/// least one, each once. Runs on the control runtime, never on a data thread.
///
/// # Errors
/// No answer, no address, or none but those that the policy forbids.
pub async fn resolve(host: &str, port: u16, policy: &HostPolicy) -> Result<Vec<SocketAddr>, ResolveError> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let found = match bare.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => tokio::time::timeout(TIMEOUT, look_up(bare.to_owned(), port))
            .await
            .map_err(|_| ResolveError::Timeout(host.into()))?
            .map_err(|source| ResolveError::Failed { host: host.into(), source })?,
    };
    policy.admit(found)?.ok_or_else(|| ResolveError::Empty(host.into()))
}

/// Asks the system's resolver on a thread of its own. The thread keeps its place until it has its answer: an
/// attempt that is given up meanwhile cannot end getaddrinfo, and its successors must not pile up behind it.
async fn look_up(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let asked = tokio::task::spawn_blocking(move || {
        let _place = place;
        (host.as_str(), port).to_socket_addrs().map(|found| found.take(ADDRESSES).collect())
    });
    asked.await.map_err(io::Error::other)?
}

fn contains(network: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            u32::from(network) & mask == u32::from(ip) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            u128::from(network) & mask == u128::from(ip) & mask
        }
        _ => false,
    }
}

/// Names that may be asked for at once.
static LOOKUPS: Semaphore = Semaphore::const_new(32);
/// Addresses of one name that are looked at.
const ADDRESSES: usize = 32;
const TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> HostPolicy {
        HostPolicy::new(
            vec![("169.254.0.0".parse().unwrap(), 16), ("fe80::".parse().unwrap(), 10)],
            vec!["127.0.0.1:8080".parse().unwrap()],
        )
    }

    #[test]
    fn denied_networks_and_own_ports_are_refused() {
        let refused = |text: &str| policy().check(text.parse().unwrap()).is_err();
        assert!(refused("169.254.169.254:80"));
        assert!(refused("[::ffff:169.254.169.254]:80"));
        assert!(refused("[fe80::1]:5000"));
        assert!(refused("127.0.0.1:8080"));
        assert!(!refused("127.0.0.1:8081"));
        assert!(!refused("10.0.0.1:8080"));
        assert!(!refused("192.168.1.1:5000"));
    }

    #[test]
    fn of_several_addresses_those_remain_that_may_be_dialled() {
        let all = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let found = all(&["[fe80::1]:5000", "[2001:db8::1]:5000", "10.0.0.1:5000", "10.0.0.1:5000"]);
        let admitted = policy().admit(found.clone()).unwrap();
        assert_eq!(admitted, Some(all(&["[2001:db8::1]:5000", "10.0.0.1:5000"])));
        assert!(policy().admit(found[..1].to_vec()).is_err());
        assert_eq!(policy().admit(Vec::new()).unwrap(), None);
    }

    #[tokio::test]
    async fn addresses_need_no_resolver() {
        for (host, want) in [("10.0.0.1", "10.0.0.1:5000"), ("[::1]", "[::1]:5000"), ("::1", "[::1]:5000")] {
            assert_eq!(resolve(host, 5000, &policy()).await.unwrap(), [want.parse().unwrap()]);
        }
        assert!(matches!(resolve("169.254.169.254", 1, &policy()).await, Err(ResolveError::Denied(_))));
    }
}
