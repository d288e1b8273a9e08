//! What stands between the scheme and the options enters, host and port leave. Resolves no name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::options::{bad, digits, is_interface};
use crate::store::refusal::FieldError;

/// `[userinfo@]host:port`
pub(super) struct Authority<'a> {
    /// As it is written; a lone `@`, which VLC and multicat write before an address to listen on, is none.
    pub(super) userinfo: Option<&'a str>,
    /// Brackets taken off, scope kept; empty where there is none.
    pub(super) host: String,
    /// 1 to 65535.
    pub(super) port: u16,
}

/// Splits `//[userinfo@][host]:port[/][?options]`; `form` is how errors write such an address.
pub(super) fn split_authority<'a>(
    rest: &'a str,
    form: &str,
) -> Result<(Authority<'a>, Option<&'a str>), FieldError> {
    let rest =
        rest.strip_prefix("//").ok_or_else(|| bad(format!("two slashes follow the scheme: {form}")))?;
    let (before, query) = split_query(rest);
    let authority = before.strip_suffix('/').unwrap_or(before);
    let (userinfo, authority) = authority.rsplit_once('@').map_or((None, authority), |(u, a)| (Some(u), a));
    if authority.contains(['/', '#']) {
        return Err(bad(format!("this scheme has no path: {form}?option=value")));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']').ok_or_else(|| bad("the closing ']' is missing"))?;
            (ipv6_host(host)?, port.strip_prefix(':'))
        }
        None => {
            let (host, port) = authority.rsplit_once(':').map_or((authority, None), |(h, p)| (h, Some(p)));
            (plain_host(host)?, port)
        }
    };
    let port = port.and_then(digits::<u16>).filter(|port| *port != 0);
    let port = port.ok_or_else(|| bad(format!("a port from 1 to 65535 follows the host: {form}")))?;
    Ok((Authority { userinfo: userinfo.filter(|u| !u.is_empty()), host, port }, query))
}

pub(super) fn split_query(rest: &str) -> (&str, Option<&str>) {
    rest.split_once('?').map_or((rest, None), |(before, query)| (before, Some(query)))
}

/// An address without brackets, a name, or nothing.
fn plain_host(host: &str) -> Result<String, FieldError> {
    if host.contains(':') {
        return Err(bad("an IPv6 address stands in brackets: [ADDRESS]:PORT"));
    }
    let label = |l: &str| {
        (1..=63).contains(&l.len()) && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    // A name whose last label is a number is a mistyped address (RFC 1123, 2.1); no resolver should see it.
    let numeric =
        name.rsplit('.').next().is_some_and(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit()));
    let valid = host.is_empty()
        || Ipv4Addr::from_str(host).is_ok()
        || (host.len() <= 253 && name.split('.').all(label) && !numeric);
    valid.then(|| host.to_owned()).ok_or_else(|| bad("the host is neither an address nor a name"))
}

/// An IPv6 address, perhaps with a scope (RFC 4007, 11); RFC 6874 writes its `%` as `%25`.
fn ipv6_host(host: &str) -> Result<String, FieldError> {
    let (address, scope) = host.split_once('%').map_or((host, None), |(a, s)| (a, Some(s)));
    let scope = scope.map(|s| match s.strip_prefix("25") {
        Some(name) if name.starts_with(|c: char| c.is_ascii_alphabetic()) => name,
        _ => s,
    });
    match (Ipv6Addr::from_str(address), scope) {
        (Ok(_), None) => Ok(address.to_owned()),
        (Ok(_), Some(scope)) if is_interface(scope) => Ok(format!("{address}%{scope}")),
        _ => Err(bad("an IPv6 address is expected in the brackets: [ADDRESS]:PORT or [ADDRESS%eth0]:PORT")),
    }
}

/// A link-local address says nothing without the interface it is local to (RFC 4007, 6).
pub(super) fn check_scope(host: &str, interface: Option<&str>) -> Result<(), FieldError> {
    let scoped = host.contains('%');
    let link_local = matches!(literal(host), Some(IpAddr::V6(ip)) if ip.is_unicast_link_local());
    if link_local && !scoped && interface.is_none() {
        return Err(bad("a link-local address needs its interface: [fe80::1%eth0]:PORT"));
    }
    if scoped && interface.is_some() {
        return Err(bad("the interface is given twice: by the scope of the address and by 'interface'"));
    }
    Ok(())
}

/// The address, when the host is one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    IpAddr::from_str(host.split_once('%').map_or(host, |(address, _)| address)).ok()
}
