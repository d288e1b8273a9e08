//! An address and the time enter, a SYN cookie leaves; or a cookie enters, and whether it was given to that address
//! lately leaves. Never keeps anything per address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use zeroize::Zeroizing;

use crate::wire::srt::Nanos;

/// What a listener keys its cookies with: 32 random bytes, drawn once per listener.
#[derive(Clone)]
pub struct CookieSecret(Zeroizing<[u8; 32]>);

impl CookieSecret {
    /// Takes the random bytes.
    pub fn new(random: [u8; 32]) -> Self {
        Self(Zeroizing::new(random))
    }

    /// The cookie for `from` in this minute; never 0, which callers send when they have none.
    pub(crate) fn bake(&self, from: SocketAddr, now: Nanos) -> u32 {
        self.of_minute(from, now / MINUTE)
    }

    /// Whether `cookie` was given to `from` in this minute or the one before.
    pub(crate) fn is_valid(&self, cookie: u32, from: SocketAddr, now: Nanos) -> bool {
        let minute = now / MINUTE;
        cookie == self.of_minute(from, minute)
            || minute.checked_sub(1).is_some_and(|before| cookie == self.of_minute(from, before))
    }

    fn of_minute(&self, from: SocketAddr, minute: u64) -> u32 {
        // A key of any length is one for HMAC.
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(self.0.as_slice()) else { return 1 };
        match from.ip() {
            IpAddr::V4(v4) => mac.update(&v4.octets()),
            IpAddr::V6(v6) => mac.update(&v6.octets()),
        }
        mac.update(&from.port().to_be_bytes());
        mac.update(&minute.to_be_bytes());
        let tag = mac.finalize().into_bytes();
        tag.first_chunk().map_or(1, |bytes| u32::from_be_bytes(*bytes)).max(1)
    }
}

impl fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieSecret(***)")
    }
}

const MINUTE: Nanos = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_holds_for_its_address_this_minute_and_the_next() {
        let secret = CookieSecret::new([7; 32]);
        let from: SocketAddr = "192.0.2.1:5000".parse().unwrap();
        let now = 10 * MINUTE + 5;
        let cookie = secret.bake(from, now);
        assert!(secret.is_valid(cookie, from, now) && secret.is_valid(cookie, from, now + MINUTE));
        assert!(!secret.is_valid(cookie, from, now + 2 * MINUTE), "expired");
        assert!(!secret.is_valid(cookie, from, now - MINUTE), "from the future");
        for other in ["192.0.2.1:5001", "192.0.2.2:5000", "[2001:db8::1]:5000"] {
            assert!(!secret.is_valid(cookie, other.parse().unwrap(), now), "{other}");
        }
        assert!(!CookieSecret::new([8; 32]).is_valid(cookie, from, now));
        assert!(!secret.is_valid(0, from, now));
        assert!(secret.is_valid(secret.bake(from, 0), from, 0));
    }
}
