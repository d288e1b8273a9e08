//! TAK peers: a server that says the protocol's words as it is told to, over TCP or TLS with client certificates, a list of
//! videos over HTTPS, and certificates for all of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace::tak::cot::{CotEvent, Element, Event, Frame, Framer, Point, parse, write};
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// What a server does when somebody connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It listens.
    Quiet,
    /// It offers protobuf, and agrees.
    Agrees,
    /// It offers protobuf, and refuses it when it is asked for.
    Refuses,
    /// It offers protobuf, and does not answer.
    Mute,
}

/// Something that a server was told.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// When.
    pub(crate) at: Instant,
    /// Which connection, from 0.
    pub(crate) connection: usize,
    /// As protobuf.
    pub(crate) proto: bool,
    /// What.
    pub(crate) event: Event,
}

/// A server on a port of its own; ended on drop, with its connections.
pub(crate) struct TakServer {
    addr: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl TakServer {
    pub(crate) fn start(manner: Manner, tls: Option<Arc<ServerConfig>>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), manner, tls)
    }

    pub(crate) fn on(listener: TcpListener, manner: Manner, tls: Option<Arc<ServerConfig>>) -> Self {
        let addr = listener.local_addr().expect("bound");
        listener.set_nonblocking(true).expect("a socket");
        let (told, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (stop, threads) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let accepting = {
            let (told, connections) = (Arc::clone(&told), Arc::clone(&connections));
            let (stop, threads) = (Arc::clone(&stop), Arc::clone(&threads));
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let Ok((socket, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    let number = connections.fetch_add(1, Relaxed);
                    let (told, stop, tls) = (Arc::clone(&told), Arc::clone(&stop), tls.clone());
                    threads.lock().push(std::thread::spawn(move || {
                        let mut stream = open(socket, tls);
                        serve(&mut *stream, manner, number, &told, &stop);
                    }));
                }
            })
        };
        threads.lock().push(accepting);
        Self { addr, told, connections, stop, threads }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Everything that was told so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The first thing told that pleases.
    pub(crate) fn wait(&self, what: &str, good: impl Fn(&Told) -> bool) -> Told {
        super::wait_for(what, || self.told().into_iter().find(&good))
    }

    /// Ends it, with its connections.
    pub(crate) fn end(self) -> Vec<Told> {
        self.told()
    }
}

impl Drop for TakServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        loop {
            let Some(thread) = self.threads.lock().pop() else { break };
            drop(thread.join());
        }
    }
}

/// A stream, encrypted or not.
trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

fn open(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Box<dyn Both> {
    socket.set_nonblocking(false).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
    match tls {
        None => Box::new(socket),
        Some(tls) => Box::new(StreamOwned::new(ServerConnection::new(tls).expect("a configuration"), socket)),
    }
}

fn serve(
    stream: &mut dyn Both,
    manner: Manner,
    connection: usize,
    told: &Mutex<Vec<Told>>,
    stop: &AtomicBool,
) {
    if manner != Manner::Quiet {
        let support = Element::new("TakProtocolSupport").with("version", "1");
        say(stream, "t-x-takp-v", Element::new("TakControl").holding(support));
    }
    let (mut framer, mut proto, mut buffer) = (Framer::default(), false, vec![0; 4096]);
    while !stop.load(Relaxed) {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return,
        };
        framer.push(&buffer[..count]).expect("messages");
        while let Some(frame) = framer.next().expect("messages") {
            let event = match &frame {
                Frame::Xml(xml) => parse(xml).expect("an event"),
                Frame::Proto(message) => {
                    message.event.as_ref().map(CotEvent::event).expect("an event").expect("an event")
                }
            };
            let asks = event.kind == "t-x-takp-q";
            let is_proto = matches!(frame, Frame::Proto(_));
            told.lock().push(Told { at: Instant::now(), connection, proto: is_proto, event });
            if asks && !proto && matches!(manner, Manner::Agrees | Manner::Refuses) {
                proto = manner == Manner::Agrees;
                let answer = Element::new("TakResponse").with("status", if proto { "true" } else { "false" });
                say(stream, "t-x-takp-r", Element::new("TakControl").holding(answer));
                if proto {
                    framer.switch();
                }
            }
        }
    }
}

fn say(stream: &mut dyn Both, kind: &str, control: Element) {
    let time = 1_795_000_000_000;
    let event = Event {
        uid: "server".into(),
        kind: kind.into(),
        how: "m-g".into(),
        time,
        start: time,
        stale: time + 60_000,
        point: Point { latitude: 0.0, longitude: 0.0, hae: None, ce: None, le: None },
        detail: vec![control],
    };
    // The peer may be gone.
    drop(stream.write_all(write(&event, true).as_bytes()));
    drop(stream.flush());
}

/// Requests of a list of videos, over HTTPS with client certificates; every one is answered with 200.
pub(crate) struct Marti {
    port: u16,
    requests: Arc<Mutex<Vec<(String, String)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Marti {
    pub(crate) fn start(tls: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let (requests, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (heard, ended) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !ended.load(Relaxed) {
                let Ok((socket, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                let mut stream = open(socket, Some(Arc::clone(&tls)));
                if let Some(request) = request(&mut *stream) {
                    heard.lock().push(request);
                    let answer =
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}";
                    drop(stream.write_all(answer.as_bytes()));
                    drop(stream.flush());
                }
            }
        });
        Self { port, requests, stop, thread: Some(thread) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// First lines and bodies so far.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().clone()
    }
}

impl Drop for Marti {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// One HTTP request: its first line and its body.
fn request(stream: &mut dyn Both) -> Option<(String, String)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => return None,
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some((head.lines().next()?.to_owned(), body.to_owned()));
        }
    }
    None
}

/// An authority of a test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate of it and its key, in PEM.
pub(crate) struct Paper {
    pub(crate) certificate: String,
    pub(crate) key: String,
    der: (Vec<u8>, Vec<u8>),
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
        Self { issuer: issuer.expect("a certificate") }
    }

    /// In PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for a server with these names, or for a client; it expires in so many days.
    pub(crate) fn issue(&self, name: &str, server: Option<&str>, days: i64) -> Paper {
        let names: Vec<String> = server.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let purpose = match server {
            Some(_) => ExtendedKeyUsagePurpose::ServerAuth,
            None => ExtendedKeyUsagePurpose::ClientAuth,
        };
        params.extended_key_usages = vec![purpose];
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(86_400)).into();
        // Half a day more, so that it is as many days while the test runs.
        params.not_after = (now + Duration::from_secs(86_400 * days.unsigned_abs() + 43_200)).into();
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Paper {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            der: (certificate.der().to_vec(), key.serialize_der()),
        }
    }

    /// What a server needs that shows this and asks clients for a certificate of ours.
    pub(crate) fn server(&self, paper: &Paper) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let chain = vec![CertificateDer::from(paper.der.0.clone())];
        let key = PrivateKeyDer::try_from(paper.der.1.clone()).expect("a key");
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder =
            builder.expect("versions").with_client_cert_verifier(verifier.build().expect("a verifier"));
        Arc::new(builder.with_single_cert(chain, key).expect("a certificate and its key"))
    }
}

impl Paper {
    /// Puts both into a folder, as `NAME.pem` and `NAME.key`.
    pub(crate) fn put(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.certificate).expect("a file");
        std::fs::write(folder.join(format!("{name}.key")), &self.key).expect("a file");
    }
}
