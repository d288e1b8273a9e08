//! A data package as a TAK Server makes it for its clients enters, what it says leaves: servers, the certificate to show
//! to them, the authorities to trust. Never writes anything: names in the archive are looked up, not followed.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use thiserror::Error;
use zip::ZipArchive;
use zip::result::ZipError;

use super::cot::read_elements;
use super::keystore::{Keystore, KeystoreError, plain};

/// A data package.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Package {
    /// Its name, from the manifest.
    pub name: Option<String>,
    /// Servers, in their order.
    pub servers: Vec<Server>,
    /// The certificate to show, with its key.
    pub client: Option<Keystore>,
    /// The authorities to trust, in DER.
    pub authorities: Vec<Vec<u8>>,
    /// What it holds: names and bytes.
    pub entries: Vec<(String, u64)>,
    /// What is missing in it or cannot be used, in words.
    pub remarks: Vec<String>,
}

/// A server that a data package names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What it is called.
    pub description: String,
    /// Address or name.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Over TLS.
    pub encrypted: bool,
    /// It is to be used.
    pub enabled: bool,
    /// The client has to ask for a certificate first (port 8446), with a user's name and password.
    pub enrols: bool,
}

/// Why a data package cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackageError {
    /// It is no archive.
    #[error("not a data package: {0}")]
    Malformed(String),
    /// It is larger than any, or more comes out of it than went in by any measure.
    #[error(
        "data package of more than {PACKAGE_MAX} bytes, more than {ENTRIES_MAX} files, or with more than {ENTRY_MAX} \
         bytes in one or {TOTAL_MAX} in all"
    )]
    TooMuch,
    /// A file in it is encrypted.
    #[error("'{0}' in the data package is encrypted")]
    Encrypted(String),
    /// No file in it says which servers there are.
    #[error("no .pref file in the data package: it was not made for a TAK client")]
    NoPreferences,
    /// A .pref file is not what it should be.
    #[error("'{0}' in the data package is no preferences file")]
    Preferences(String),
    /// A PKCS#12 file in it cannot be read.
    #[error("'{name}' in the data package: {why}")]
    Keystore {
        /// Which.
        name: String,
        /// Why not.
        why: KeystoreError,
    },
}

impl Package {
    /// Reads a data package; `password` is that of its PKCS#12 files, where the package does not say it.
    ///
    /// # Errors
    /// [`PackageError`] when it is none, or something in it cannot be read.
    pub fn read(bytes: &[u8], password: Option<&str>) -> Result<Self, PackageError> {
        let files = unpack(bytes)?;
        let entries = files.iter().map(|(name, bytes)| (plain(name), bytes.len() as u64)).collect();
        let mut package = Self { entries, ..Self::default() };
        let ends = |name: &str, end: &str| name.to_ascii_lowercase().ends_with(end);
        if let Some((_, manifest)) = files.iter().find(|(name, _)| ends(name, "manifest.xml")) {
            package.name = manifest_name(manifest);
        }
        let mut preferences = Preferences::default();
        for (name, bytes) in files.iter().filter(|(name, _)| ends(name, ".pref")) {
            preferences.take(bytes).ok_or_else(|| PackageError::Preferences(plain(name)))?;
        }
        if !files.iter().any(|(name, _)| ends(name, ".pref")) {
            return Err(PackageError::NoPreferences);
        }
        package.servers = preferences.servers();
        let read = |location: &str, said: Option<&str>| -> Option<Result<Keystore, PackageError>> {
            // where a client would put it says where it is here: only the last part counts
            let wanted = base(location);
            let (name, bytes) = files.iter().find(|(name, _)| base(name).eq_ignore_ascii_case(wanted))?;
            let keystore = Keystore::read(bytes, password.or(said).unwrap_or(PASSWORD));
            Some(keystore.map_err(|why| PackageError::Keystore { name: plain(name), why }))
        };
        match preferences.text("certificateLocation") {
            None => package.remarks.push("it names no client certificate".into()),
            Some(location) => match read(location, preferences.text("clientPassword")).transpose()? {
                None => package.remarks.push(format!("'{}' is not in it", plain(base(location)))),
                Some(keystore) if keystore.key.is_none() => {
                    package.remarks.push(format!("'{}' holds no key", plain(base(location))));
                }
                Some(keystore) => package.client = Some(keystore),
            },
        }
        match preferences.text("caLocation") {
            None => package.remarks.push("it names no trust store".into()),
            Some(location) => match read(location, preferences.text("caPassword")).transpose()? {
                None => package.remarks.push(format!("'{}' is not in it", plain(base(location)))),
                Some(keystore) => package.authorities = [keystore.chain, keystore.authorities].concat(),
            },
        }
        if package.client.is_none() && package.servers.iter().any(|server| server.enrols) {
            package.remarks.push(
                "it asks to enrol with a user's name and password: make one with a client certificate".into(),
            );
        }
        Ok(package)
    }

    /// The server to dial: the first one over TLS that is to be used.
    pub fn server(&self) -> Option<&Server> {
        self.servers.iter().find(|server| server.encrypted && server.enabled)
    }
}

/// What the .pref files say, by key.
#[derive(Debug, Default)]
struct Preferences(BTreeMap<String, String>);

impl Preferences {
    fn take(&mut self, bytes: &[u8]) -> Option<()> {
        let text = std::str::from_utf8(bytes).ok()?.trim_start_matches('\u{feff}');
        let root = read_elements(text).ok()?.into_iter().find(|root| root.name == "preferences")?;
        for entry in root.children.iter().flat_map(|group| &group.children) {
            if let (Some(key), true) = (entry.attribute("key"), entry.name == "entry") {
                self.0.insert(key.to_owned(), entry.text.trim().to_owned());
            }
        }
        Some(())
    }

    /// A value for all servers, or that of the first one.
    fn text(&self, key: &str) -> Option<&str> {
        let found = self.0.get(key).or_else(|| self.0.get(&format!("{key}0")));
        found.map(String::as_str).filter(|text| !text.is_empty())
    }

    fn servers(&self) -> Vec<Server> {
        let of = |key: &str, index: usize| self.0.get(&format!("{key}{index}")).map(String::as_str);
        let server = |index| {
            let (host, port, protocol) = address(of("connectString", index)?)?;
            Some(Server {
                description: plain(of("description", index).unwrap_or(host)),
                host: host.to_owned(),
                port,
                encrypted: protocol.eq_ignore_ascii_case("ssl") || protocol.eq_ignore_ascii_case("tls"),
                enabled: of("enabled", index).is_none_or(|enabled| enabled == "true"),
                enrols: of("enrollForCertificateWithTrust", index) == Some("true"),
            })
        };
        (0..SERVERS_MAX).filter_map(server).collect()
    }
}

/// `host:port:protocol`; the host may be an IPv6 address, in brackets or not.
fn address(text: &str) -> Option<(&str, u16, &str)> {
    let (rest, protocol) = text.rsplit_once(':')?;
    let (host, port) = rest.rsplit_once(':')?;
    let host = host.trim().trim_start_matches('[').trim_end_matches(']');
    let is_host =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':') || (c as u32) > 0x7f;
    let port = port.trim().parse().ok().filter(|port| *port != 0)?;
    let fits = (1..=253).contains(&host.len()) && host.chars().all(is_host);
    fits.then_some((host, port, protocol.trim()))
}

fn manifest_name(bytes: &[u8]) -> Option<String> {
    let root = read_elements(std::str::from_utf8(bytes).ok()?).ok()?.into_iter().next()?;
    let parameters = &root.child("Configuration")?.children;
    let name = parameters.iter().find(|parameter| parameter.attribute("name") == Some("name"))?;
    name.attribute("value").map(plain)
}

/// The last part of a path, whichever way its slashes lean.
fn base(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// All files, by name.
fn unpack(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, PackageError> {
    if bytes.len() > PACKAGE_MAX {
        return Err(PackageError::TooMuch);
    }
    let malformed = |error: ZipError| PackageError::Malformed(error.to_string());
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(malformed)?;
    if archive.len() > ENTRIES_MAX {
        return Err(PackageError::TooMuch);
    }
    let (mut files, mut total) = (Vec::new(), 0);
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(malformed)?;
        let name = file.name().map_err(malformed)?.into_owned();
        if file.encrypted() {
            return Err(PackageError::Encrypted(plain(&name)));
        }
        if file.is_dir() {
            continue;
        }
        drop(file);
        let file = archive.by_index(index).map_err(malformed)?;
        let mut content = Vec::new();
        // what the directory says of the length is not believed
        let read = file.take(ENTRY_MAX + 1).read_to_end(&mut content);
        read.map_err(|error| PackageError::Malformed(format!("'{}': {error}", plain(&name))))?;
        total += content.len() as u64;
        if content.len() as u64 > ENTRY_MAX || total > TOTAL_MAX {
            return Err(PackageError::TooMuch);
        }
        files.push((name, content));
    }
    Ok(files)
}

/// Longest data package that is read; one with certificates has some ten kilobytes, one with maps is not for this.
pub const PACKAGE_MAX: usize = 16 << 20;

/// Files of a package that are read.
const ENTRIES_MAX: usize = 256;
/// Bytes of one file.
const ENTRY_MAX: u64 = 4 << 20;
/// Bytes of all files.
const TOTAL_MAX: u64 = 32 << 20;
/// Servers that are looked for.
const SERVERS_MAX: usize = 32;
/// What TAK Server's scripts encrypt with when nobody says anything else.
const PASSWORD: &str = "atakatak";

#[cfg(test)]
mod tests;
