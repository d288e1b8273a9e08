//! The options of urls that dial over TLS enter, whom to trust leaves. Opens no file.

use super::options::{Options, bad};
use crate::store::refusal::FieldError;
use crate::store::tls::TlsTrust;

/// Their names.
pub(super) const TLS: &[&str] = &["tls_ca", "tls_pin", "tls_insecure"];

/// Whom to trust; one of the options at most, and none where nothing is encrypted.
pub(super) fn trust(options: &Options, encrypted: bool) -> Result<TlsTrust, FieldError> {
    let mut given = TLS.iter().filter(|name| options.text(name).is_some());
    if let Some(name) = given.next() {
        if !encrypted {
            return Err(bad(format!("option '{name}' is for urls that are encrypted, such as rtmps://")));
        }
        if let Some(other) = given.next() {
            return Err(bad(format!("'{name}' and '{other}' are two answers to one question: give one")));
        }
    }
    if let Some(path) = options.text("tls_ca") {
        return Ok(TlsTrust::Authorities(path.into()));
    }
    let expected = || "the SHA-256 of a certificate: 64 hexadecimal digits".into();
    if let Some(pin) = options.read("tls_pin", expected, pin)? {
        return Ok(TlsTrust::Pinned(pin));
    }
    Ok(match options.choice("tls_insecure", &[("true", true), ("false", false)])? {
        Some(true) => TlsTrust::Anybody,
        _ => TlsTrust::System,
    })
}

/// With or without the colons that openssl writes.
fn pin(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> =
        text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}
