//! Requests and responses of RTSP 1.0 (RFC 2326): fields enter, bytes leave. What they mean is decided elsewhere.

use bytes::Bytes;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Its method, as it came: upper case by convention.
    pub method: String,
    /// Its URI, as it came; `*` for none.
    pub uri: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Bytes,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Its status.
    pub status: Status,
    /// What the peer says to it; may be empty.
    pub reason: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Bytes,
}

/// A status code (RFC 2326, 7.1.1), 100 to 599.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Status(pub u16);

/// Headers in the order in which they came. Names are compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers(Vec<(String, String)>);

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, uri: &str) -> Self {
        Self { method: method.into(), uri: uri.into(), ..Self::default() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Appends its bytes, with a Content-Length where it has a body.
    pub fn write(&self, out: &mut Vec<u8>) {
        for part in [self.method.as_str(), " ", &self.uri, " RTSP/1.0\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        write_rest(&self.headers, &self.body, out);
    }
}

impl Response {
    /// An answer without headers and body.
    pub fn new(status: Status) -> Self {
        Self { status, reason: status.reason().into(), ..Self::default() }
    }

    /// The same with one header more.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Appends its bytes, with a Content-Length where it has a body.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("RTSP/1.0 {} {}\r\n", self.status.0, self.reason).as_bytes());
        write_rest(&self.headers, &self.body, out);
    }
}

impl Status {
    /// Everything went well.
    pub const OK: Self = Self(200);
    /// The request cannot be understood.
    pub const BAD_REQUEST: Self = Self(400);
    /// Credentials are wanted.
    pub const UNAUTHORIZED: Self = Self(401);
    /// Credentials do not help.
    pub const FORBIDDEN: Self = Self(403);
    /// No such path.
    pub const NOT_FOUND: Self = Self(404);
    /// Not allowed for this path.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// The body is of a kind that nobody reads here.
    pub const UNSUPPORTED_MEDIA: Self = Self(415);
    /// No room for another session.
    pub const NOT_ENOUGH_BANDWIDTH: Self = Self(453);
    /// No such session.
    pub const SESSION_NOT_FOUND: Self = Self(454);
    /// Not now.
    pub const INVALID_STATE: Self = Self(455);
    /// Only all tracks together.
    pub const AGGREGATE_NOT_ALLOWED: Self = Self(459);
    /// Not over this transport.
    pub const UNSUPPORTED_TRANSPORT: Self = Self(461);
    /// An error of this side.
    pub const INTERNAL: Self = Self(500);
    /// Nobody knows such a method.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// Not now, perhaps later.
    pub const UNAVAILABLE: Self = Self(503);
    /// A feature of `Require` is not there.
    pub const OPTION_NOT_SUPPORTED: Self = Self(551);

    /// True for 200 to 299.
    pub fn is_success(self) -> bool {
        (200..300).contains(&self.0)
    }

    /// Its usual words.
    pub fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            415 => "Unsupported Media Type",
            453 => "Not Enough Bandwidth",
            454 => "Session Not Found",
            455 => "Method Not Valid in This State",
            459 => "Aggregate Operation Not Allowed",
            461 => "Unsupported Transport",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            503 => "Service Unavailable",
            551 => "Option Not Supported",
            _ => "Unknown",
        }
    }
}

impl Default for Status {
    fn default() -> Self {
        Self::OK
    }
}

impl Headers {
    /// The first value of a header.
    pub fn first(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// All values of a header.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// Appends a header. Control characters, which would begin another one, are left out.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        let mut value = value.into();
        value.retain(|c| !c.is_control() || c == '\t');
        self.0.push((name.into(), value));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends to the last value (a folded line).
    pub(super) fn fold(&mut self, more: &str) {
        if let Some((_, value)) = self.0.last_mut() {
            value.push(' ');
            value.push_str(more);
        }
    }
}

fn write_rest(headers: &Headers, body: &[u8], out: &mut Vec<u8>) {
    for (name, value) in &headers.0 {
        for part in [name.as_str(), ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    if !body.is_empty() {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}
