//! Requests enter, those that a foreign web page made a browser send are refused: a rebound name (DNS rebinding)
//! shows in `Host`, a foreign page in `Origin`. Knows nothing of users.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Which names the server goes by.
#[derive(Debug)]
pub(super) struct Guard {
    bound: IpAddr,
    names: Vec<String>,
}

impl Guard {
    /// A server bound to that address goes by it, by loopback addresses, by `localhost` and by `names`. Bound
    /// to all addresses it goes by any address: a rebound name is never one.
    pub(super) fn new(bound: IpAddr, names: Vec<String>) -> Arc<Self> {
        Arc::new(Self { bound, names })
    }

    fn check(&self, request: &Request) -> Result<(), &'static str> {
        let host = match request.uri().authority() {
            // An absolute target overrules the header (RFC 9112, 3.2.2).
            Some(authority) => authority.as_str(),
            None => only(request.headers(), &header::HOST).ok_or("exactly one Host header is needed")?,
        };
        if !self.goes_by(host) {
            return Err("this server does not go by that Host: use its address, or configure the name");
        }
        // A page of another origin may not read what a GET answers, but all that a WebSocket says (RFC 6455, 10.2).
        let safe = matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.headers().contains_key(header::UPGRADE);
        if !safe && request.headers().contains_key(header::ORIGIN) {
            let origin = only(request.headers(), &header::ORIGIN).and_then(|origin| origin.split_once("://"));
            if !origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host)) {
                return Err("writes and upgrades from pages of another origin are refused");
            }
        }
        Ok(())
    }

    fn goes_by(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').map_or("", |(address, _)| address),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        match name.parse::<IpAddr>() {
            Ok(ip) => {
                let ip = ip.to_canonical();
                ip.is_loopback() || self.bound.is_unspecified() || ip == self.bound.to_canonical()
            }
            Err(_) => {
                name.eq_ignore_ascii_case("localhost")
                    || self.names.iter().any(|n| name.eq_ignore_ascii_case(n))
            }
        }
    }
}

/// The middleware.
pub(super) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(&request) {
        Ok(()) => next.run(request).await,
        Err(why) => Problem::Said(StatusCode::FORBIDDEN, why.into()).into_response(),
    }
}

/// The value of a header that is there once and is text.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn allows(bound: &str, method: Method, uri: &str, headers: &[(&str, &str)]) -> bool {
        let guard = Guard::new(bound.parse().unwrap(), vec!["engine.example".into()]);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        guard.check(&request.body(Body::empty()).unwrap()).is_ok()
    }

    #[test]
    fn only_own_names_are_answered() {
        for (bound, host, allowed) in [
            ("127.0.0.1", "127.0.0.1:8080", true),
            ("127.0.0.1", "127.9.9.9", true),
            ("127.0.0.1", "localhost:8080", true),
            ("127.0.0.1", "LocalHost", true),
            ("127.0.0.1", "[::1]:8080", true),
            ("127.0.0.1", "[::ffff:127.0.0.1]", true),
            ("127.0.0.1", "engine.example:8080", true),
            ("127.0.0.1", "evil.example:8080", false),
            ("127.0.0.1", "localhost.evil.example", false),
            ("127.0.0.1", "evil.example@127.0.0.1", false),
            ("127.0.0.1", "192.0.2.1:8080", false),
            ("127.0.0.1", "", false),
            ("127.0.0.1", "[::1", false),
            ("192.0.2.1", "192.0.2.1:8080", true),
            ("192.0.2.1", "192.0.2.2:8080", false),
            ("0.0.0.0", "192.0.2.1:8080", true),
            ("::", "[2001:db8::1]:8080", true),
            ("0.0.0.0", "evil.example", false),
        ] {
            assert_eq!(allows(bound, Method::GET, "/", &[("host", host)]), allowed, "{bound} {host}");
        }
        assert!(!allows("127.0.0.1", Method::GET, "/", &[]));
        assert!(!allows("127.0.0.1", Method::GET, "/", &[("host", "localhost"), ("host", "localhost")]));
        assert!(!allows("127.0.0.1", Method::GET, "http://evil.example/", &[("host", "localhost")]));
    }

    #[test]
    fn writes_of_foreign_pages_are_refused() {
        for (origin, allowed) in [
            ("http://localhost:8080", true),
            ("https://LOCALHOST:8080", true),
            ("http://localhost", false),
            ("http://evil.example", false),
            ("http://localhost:8080.evil.example", false),
            ("null", false),
            ("", false),
        ] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                assert_eq!(allows("127.0.0.1", method, "/", &headers), allowed, "{origin}");
            }
            assert!(allows("127.0.0.1", Method::GET, "/", &headers));
            let upgrade = [headers[0], headers[1], ("upgrade", "websocket")];
            assert_eq!(allows("127.0.0.1", Method::GET, "/", &upgrade), allowed, "{origin}");
        }
        let both = [("host", "a"), ("origin", "http://localhost"), ("origin", "http://localhost")];
        assert!(!allows("127.0.0.1", Method::POST, "/", &both));
        assert!(allows("127.0.0.1", Method::POST, "/", &[("host", "localhost")]));
    }
}
