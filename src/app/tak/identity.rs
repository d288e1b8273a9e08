//! Who a stream is and where its picture is to be had: names and outputs enter, uids and public urls leave.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use sha1::{Digest, Sha1};

use crate::app::dial::DialError;
use crate::app::director::Defaults;
use crate::config::PublicPorts;
use crate::net::random;
use crate::store::{CotVideo, Credentials, OutputSpec, OutputUrl};
use crate::telemetry::Desired;

/// Where others reach this engine.
#[derive(Debug, Clone, Default)]
pub(in crate::app) struct Public {
    /// Name or address.
    pub(in crate::app) host: Option<String>,
    /// Ports that are not those that are listened on.
    pub(in crate::app) ports: PublicPorts,
    /// Credentials of readers are told.
    pub(in crate::app) credentials: bool,
}

/// The url of a stream for others: that of the first of its outputs that serves. `path` is what the stream goes by where
/// an output has no other name. Credentials of publishers are not in it, for inputs are not looked at.
pub(in crate::app) fn video_url(
    outputs: &[&Arc<OutputSpec>],
    path: &str,
    wanted: CotVideo,
    public: &Public,
) -> Option<String> {
    let host = public.host.as_deref()?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let running = outputs.iter().filter(|output| output.desired == Desired::Running);
    let rtsp = || running.clone().find_map(|output| rtsp_url(output, &host, path, public));
    let srt = || running.clone().find_map(|output| srt_url(output, &host, path, public));
    match wanted {
        CotVideo::Any => rtsp().or_else(srt),
        CotVideo::Rtsp => rtsp(),
        CotVideo::Srt => srt(),
        CotVideo::Nothing => None,
    }
}

fn rtsp_url(output: &OutputSpec, host: &str, path: &str, public: &Public) -> Option<String> {
    let OutputUrl::Rtsp(rtsp) = &output.url else { return None };
    let listen = rtsp.end.listen()?;
    let (scheme, port) =
        if listen.encrypted { ("rtsps", public.ports.rtsps) } else { ("rtsp", public.ports.rtsp) };
    let port = port.unwrap_or(listen.address.port());
    let name = quote(listen.name.as_deref().unwrap_or(path), "/");
    let login = login(listen.credentials.as_ref(), public)
        .map(|(user, password)| format!("{}:{}@", quote(user, ""), quote(password, "")));
    Some(format!("{scheme}://{}{host}:{port}/{name}", login.unwrap_or_default()))
}

fn srt_url(output: &OutputSpec, host: &str, path: &str, public: &Public) -> Option<String> {
    let OutputUrl::Srt(srt) = &output.url else { return None };
    let listen = srt.link.listen()?;
    let port = public.ports.srt.unwrap_or(listen.address.port());
    let mut id = format!("read:{}", listen.name.as_deref().unwrap_or(path));
    if let Some((user, password)) = login(listen.credentials.as_ref(), public) {
        id.push_str(&format!(":{user}:{password}"));
    }
    let mut url = format!("srt://{host}:{port}?mode=caller&streamid={}", quote(&id, ":/"));
    if let Some(crypto) = srt.link.crypto.as_ref().filter(|_| public.credentials) {
        url.push_str(&format!("&passphrase={}", quote(crypto.passphrase.reveal(), "")));
    }
    Some(url)
}

fn login<'a>(credentials: Option<&'a Credentials>, public: &Public) -> Option<(&'a str, &'a str)> {
    let credentials = credentials.filter(|_| public.credentials)?;
    Some((&*credentials.user, credentials.password.reveal()))
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3) and `also`.
fn quote(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain =
            byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte);
        if plain { out.push(char::from(byte)) } else { out.push_str(&format!("%{byte:02X}")) }
    }
    out
}

/// The uid of a stream: a UUID of version 5 (RFC 9562, 5.5) of the name that it keeps, in a namespace that this
/// installation made by chance once. So two installations with a `drone` are two, renaming an input changes nothing, and
/// one small file is all that has to be kept.
pub(super) async fn own_uid(path: &str, defaults: &Defaults) -> Result<String, DialError> {
    let folder = Arc::clone(&defaults.data_dir);
    let namespace = tokio::task::spawn_blocking(move || namespace(&folder));
    let namespace = namespace.await.map_err(|_| DialError::Broken)?;
    Ok(uuid_5(namespace, path))
}

/// The namespace of this installation, from its file; made where there is none yet.
fn namespace(folder: &Path) -> [u8; 16] {
    match kept(folder) {
        Ok(namespace) => namespace,
        Err(error) => {
            tracing::warn!(
                folder = %folder.display(), %error,
                "cannot keep the identity of this installation: uids are made of the machine's own"
            );
            let machine = std::fs::read("/etc/machine-id").unwrap_or_else(|_| b"millrace".to_vec());
            digest(&[b"millrace", machine.trim_ascii()])
        }
    }
}

fn kept(folder: &Path) -> io::Result<[u8; 16]> {
    let path = folder.join(FILE);
    std::fs::create_dir_all(folder)?;
    // Somebody else may be making it at the same moment: whoever links it first has made it.
    if !path.exists() {
        let made = folder.join(format!("{FILE}.{:016x}", u64::from_ne_bytes(random())));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made)?;
        let fresh: [u8; 16] = random();
        file.write_all(format!("{}\n", hex(fresh)).as_bytes())?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&made, &path);
        std::fs::remove_file(&made)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let mut text = String::new();
    std::fs::File::open(&path)?.take(64).read_to_string(&mut text)?;
    let digits = text.trim();
    let wrong =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no 32 digits", path.display()));
    u128::from_str_radix(digits, 16)
        .ok()
        .filter(|_| digits.len() == 32)
        .map(u128::to_be_bytes)
        .ok_or_else(wrong)
}

fn uuid_5(namespace: [u8; 16], name: &str) -> String {
    let mut bytes = digest(&[&namespace, name.as_bytes()]);
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|at| digits.get(at).unwrap_or_default());
    parts.join("-")
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha1::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, digest)| *byte = digest);
    bytes
}

fn hex(bytes: [u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// In the data folder.
const FILE: &str = "installation";

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::store::{InputDraft, OutputDraft, Roots, Rules, Store};

    fn url(outputs: &[&str], wanted: CotVideo, public: &Public) -> Option<String> {
        let mut store = Store::new(Rules::default(), Roots::default());
        let now = SystemTime::UNIX_EPOCH;
        let input = InputDraft { name: "drone".into(), url: Some("udp://:5000".into()), udp_port: None };
        let input = store.create_input(input, now).expect("an input").id;
        for (number, url) in outputs.iter().enumerate() {
            let draft = OutputDraft {
                name: number.to_string(),
                url: (*url).into(),
                protocol: None,
                auto_reconnect: None,
                reconnect_delay: None,
                max_reconnect_attempts: None,
            };
            store.create_output(input, draft, now).expect("an output");
        }
        let outputs: Vec<_> = store.outputs(input).collect();
        video_url(&outputs, "drone", wanted, public)
    }

    #[test]
    fn the_public_url_is_that_of_an_output_that_serves() {
        let public = Public { host: Some("cam.example".into()), ..Public::default() };
        let srt = "srt://u%40:p%3Aw@:8890?streamid=eye-1&passphrase=correct%20horse";
        let rtsp = "rtsp://joe:s%2Fcret@:8554/eye%201";
        let both = ["udp://10.0.0.1:5000", srt, rtsp];
        assert_eq!(url(&both, CotVideo::Any, &public).as_deref(), Some("rtsp://cam.example:8554/eye%201"));
        assert_eq!(
            url(&both, CotVideo::Srt, &public).as_deref(),
            Some("srt://cam.example:8890?mode=caller&streamid=read:eye-1")
        );
        assert_eq!(url(&both, CotVideo::Nothing, &public), None);
        assert_eq!(url(&both, CotVideo::Any, &Public::default()), None);
        assert_eq!(url(&["udp://10.0.0.1:5000"], CotVideo::Any, &public), None);
        let ports = PublicPorts { rtsp: Some(554), rtsps: None, srt: Some(9000) };
        let told = Public { host: Some("2001:db8::1".into()), ports, credentials: true };
        assert_eq!(
            url(&both, CotVideo::Any, &told).as_deref(),
            Some("rtsp://joe:s%2Fcret@[2001:db8::1]:554/eye%201")
        );
        assert_eq!(
            url(&both, CotVideo::Srt, &told).as_deref(),
            Some(
                "srt://[2001:db8::1]:9000?mode=caller&streamid=read:eye-1:u%40:p:w&passphrase=correct%20horse"
            )
        );
        assert_eq!(
            url(&["rtsps://:8555"], CotVideo::Any, &public).as_deref(),
            Some("rtsps://cam.example:8555/drone")
        );
    }

    #[test]
    fn an_installation_makes_its_identity_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("data");
        let first = namespace(&below);
        assert_eq!(namespace(&below), first);
        assert_ne!(namespace(folder.path()), first);
        let uid = uuid_5(first, "drone");
        assert_eq!((uid.len(), uid.as_bytes()[14], uid.as_bytes()[8]), (36, b'5', b'-'));
        assert_ne!(uid, uuid_5(first, "drone2"));
        std::fs::write(below.join(FILE), "nonsense").expect("a file");
        assert!(kept(&below).is_err());
        assert_eq!(namespace(&below), namespace(&below));
        // RFC 9562, appendix A.4
        let dns = 0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8_u128.to_be_bytes();
        assert_eq!(uuid_5(dns, "www.example.com"), "2ed6657d-e927-568b-95e1-2665a8aea6a2");
    }
}
