//! A server's challenge and a password enter, the query of the next connect leaves: the `adobe` and `llnw` schemes
//! that Flash Media Server and Limelight have in front of publishing. The password itself never leaves.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Who publishes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What the next connect appends to its application, `?authmod=…`.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthQuery {
    query: String,
    /// It answers a challenge, so that another one means that the password is wrong.
    answers: bool,
}

/// Why a challenge has no answer. None of these repeats what the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAuth {
    /// No user and password.
    #[error("the server wants a user and a password ({0})")]
    Missing(&'static str),
    /// They were answered with, and are wrong.
    #[error("the server does not accept the user or the password ({0})")]
    Wrong(&'static str),
    /// The challenge lacks what the answer is made from.
    #[error("the challenge of the server has no `{0}`")]
    Incomplete(&'static str),
}

#[derive(Clone, Copy)]
enum Scheme {
    Adobe,
    Llnw,
}

/// What to connect with after a refusal with this `description`; `None` when the refusal is not about who we are.
/// `before` is what the refused connect had, `application` its name without that, `nonce` is random.
///
/// # Errors
/// There is no answer to give.
pub fn answer(
    description: &str,
    credentials: Option<&Credentials>,
    before: Option<&AuthQuery>,
    application: &str,
    nonce: u32,
) -> Option<Result<AuthQuery, BadAuth>> {
    let (name, scheme) = [("adobe", Scheme::Adobe), ("llnw", Scheme::Llnw)]
        .into_iter()
        .find(|(name, _)| description.contains(&format!("authmod={name}")))?;
    Some(respond(description, credentials, before, application, nonce, name, scheme))
}

fn respond(
    description: &str,
    credentials: Option<&Credentials>,
    before: Option<&AuthQuery>,
    application: &str,
    nonce: u32,
    name: &'static str,
    scheme: Scheme,
) -> Result<AuthQuery, BadAuth> {
    let credentials = credentials.ok_or(BadAuth::Missing(name))?;
    let refused = ["?reason=authfailed", "?reason=nosuchuser"];
    if refused.iter().any(|why| description.contains(why)) || before.is_some_and(|before| before.answers) {
        return Err(BadAuth::Wrong(name));
    }
    let user = escape(&credentials.user);
    if description.contains("code=403 need auth") {
        return Ok(AuthQuery { query: format!("?authmod={name}&user={user}"), answers: false });
    }
    let (_, challenge) =
        description.split_once("?reason=needauth").ok_or(BadAuth::Incomplete("reason=needauth"))?;
    let field = |name: &str| {
        let pairs = challenge.split('&').filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).find(|value| !value.is_empty())
    };
    let client = format!("{nonce:08x}");
    let query = match scheme {
        Scheme::Adobe => {
            let salt = field("salt").ok_or(BadAuth::Incomplete("salt"))?;
            let opaque = field("opaque");
            let sent = opaque.or_else(|| field("challenge")).ok_or(BadAuth::Incomplete("challenge"))?;
            let response = adobe(credentials, salt, sent, &client);
            let opaque = opaque.map(|opaque| format!("&opaque={opaque}")).unwrap_or_default();
            format!("?authmod=adobe&user={user}&challenge={client}&response={response}{opaque}")
        }
        Scheme::Llnw => {
            let sent = field("nonce").ok_or(BadAuth::Incomplete("nonce"))?;
            let response = llnw(credentials, application, sent, &client);
            format!("?authmod=llnw&user={user}&nonce={sent}&cnonce={client}&nc={COUNT}&response={response}")
        }
    };
    Ok(AuthQuery { query, answers: true })
}

impl AuthQuery {
    /// It, with the question mark.
    pub fn as_str(&self) -> &str {
        &self.query
    }
}

impl fmt::Debug for AuthQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthQuery").field("answers", &self.answers).finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("password", &"***").finish()
    }
}

/// MD5 in Base64 of what MD5 in Base64 of user, salt and password begins.
fn adobe(credentials: &Credentials, salt: &str, sent: &str, client: &str) -> String {
    let digest = |parts: &[&str]| STANDARD.encode(md5(parts));
    let secret = digest(&[&credentials.user, salt, &credentials.password]);
    digest(&[&secret, sent, client])
}

/// HTTP's Digest (RFC 2617) with the method `publish` and the realm `live`.
fn llnw(credentials: &Credentials, application: &str, sent: &str, client: &str) -> String {
    let secret = hex(&md5(&[&credentials.user, ":live:", &credentials.password]));
    let instance = if application.contains('/') { "" } else { "/_definst_" };
    let place = hex(&md5(&["publish:/", application, instance]));
    hex(&md5(&[&secret, ":", sent, ":", COUNT, ":", client, ":auth:", &place]))
}

fn md5(parts: &[&str]) -> [u8; 16] {
    let mut digest = Md5::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user whose name would end its field is percent-encoded; others stay as they are.
fn escape(user: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"&=?#%+".contains(&byte);
    let escaped = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    user.bytes().map(escaped).collect()
}

const COUNT: &str = "00000001";

#[cfg(test)]
mod tests {
    use super::*;

    fn joe() -> Credentials {
        Credentials { user: "joe".into(), password: "hunter2".into() }
    }

    fn next(description: &str, before: Option<&AuthQuery>) -> Option<Result<AuthQuery, BadAuth>> {
        answer(description, Some(&joe()), before, "live", 0x0123_ABCD)
    }

    const NEED: &str = "[ AccessManager.Reject ] : [ code=403 need auth; authmod=adobe ] : ";

    #[test]
    fn adobe_asks_for_the_user_then_for_the_response() {
        let first = next(NEED, None).unwrap().unwrap();
        assert_eq!(first.as_str(), "?authmod=adobe&user=joe");
        let challenge = "[ AccessManager.Reject ] : [ authmod=adobe ] : \
            ?reason=needauth&user=joe&salt=fjRUEQ==&challenge=bPZwnA==&opaque=bPZwnA==";
        let second = next(challenge, Some(&first)).unwrap().unwrap();
        let want =
            "?authmod=adobe&user=joe&challenge=0123abcd&response=igQvFIpXk5aMNV9yCvx4WA==&opaque=bPZwnA==";
        assert_eq!(second.as_str(), want);
        assert_eq!(next(challenge, Some(&second)), Some(Err(BadAuth::Wrong("adobe"))));
        let failed = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=authfailed&opaque=x";
        assert_eq!(next(failed, Some(&first)), Some(Err(BadAuth::Wrong("adobe"))));
    }

    #[test]
    fn llnw_is_the_digest_of_http() {
        let first = next("code=403 need auth; authmod=llnw", None).unwrap().unwrap();
        assert_eq!(first.as_str(), "?authmod=llnw&user=joe");
        let challenge = "[ authmod=llnw ] : ?reason=needauth&user=joe&nonce=e2ba79c5";
        let second = next(challenge, Some(&first)).unwrap().unwrap();
        let want = "?authmod=llnw&user=joe&nonce=e2ba79c5&cnonce=0123abcd&nc=00000001&response=8626a910ac62af89ba8b7ae42231f338";
        assert_eq!(second.as_str(), want);
    }

    #[test]
    fn a_refusal_about_something_else_is_left_alone() {
        assert_eq!(next("[ Server.Reject ] : no such application", None), None);
        assert_eq!(answer(NEED, None, None, "live", 0), Some(Err(BadAuth::Missing("adobe"))));
        let short = "[ authmod=adobe ] : ?reason=needauth&user=joe";
        assert_eq!(next(short, None), Some(Err(BadAuth::Incomplete("salt"))));
        assert_eq!(next("[ authmod=llnw ]", None), Some(Err(BadAuth::Incomplete("reason=needauth"))));
    }

    #[test]
    fn the_password_does_not_show() {
        let first = next(NEED, None).unwrap().unwrap();
        assert!(!format!("{first:?} {:?}", joe()).contains("hunter2"));
    }
}
