//! TLS of byte streams: whom to trust and how to show who we are enter, configurations and handshakes leave. RSA,
//! ECDSA and Ed25519 by ring; TLS 1.2 and 1.3.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::ByteStream;

/// Which servers are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those that an authority of this system vouches for.
    System,
    /// Those that one of these authorities (PEM) vouches for.
    Authorities(Vec<u8>),
    /// Those that one of these authorities (DER) vouches for.
    Certificates(Vec<Vec<u8>>),
    /// The one whose certificate has this SHA-256, whoever vouches for it and whatever name it has.
    Pinned([u8; 32]),
    /// All of them: the connection is encrypted, and anybody may be at its other end.
    Anybody,
}

/// What a client shows to a server that asks who it is, in DER.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    /// The chain, its own certificate first.
    pub chain: Vec<Vec<u8>>,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: zeroize::Zeroizing<Vec<u8>>,
}

impl Shown {
    /// Reads chain and key, which may stand in one file.
    ///
    /// # Errors
    /// They are not what they should be.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
        let chain = certificates(chain)?.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Self { chain, key: zeroize::Zeroizing::new(key.secret_der().to_vec()) })
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} certificates and a key", self.chain.len())
    }
}

/// Why TLS cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The system has no authorities.
    #[error("this system has no certificate authorities: install ca-certificates")]
    NoAuthorities,
    /// A PEM file is not what it should be.
    #[error("{0}: expected certificates in PEM")]
    Certificates(String),
    /// A private key is not what it should be.
    #[error("{0}: expected a private key in PEM (PKCS#8, PKCS#1 or SEC1)")]
    Key(String),
    /// What was given does not fit together.
    #[error("{0}")]
    Refused(#[from] rustls::Error),
    /// The name of the server is neither a name nor an address.
    #[error("a server cannot be called '{0}'")]
    Name(String),
    /// The handshake failed.
    #[error("TLS: {0}")]
    Handshake(io::Error),
    /// It took too long.
    #[error("the TLS handshake took longer than {0:?}")]
    Slow(std::time::Duration),
}

impl TlsError {
    /// Whether trying again can help without a change of the configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Handshake(error) => error.kind() != io::ErrorKind::InvalidData,
            Self::Slow(_) => true,
            _ => false,
        }
    }
}

/// What a client needs.
///
/// # Errors
/// There is nobody to trust.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, TlsError> {
    mutual_config(trust, true, None)
}

/// What a client needs that shows who it is; unless `checks_name`, a certificate that is vouched for is believed
/// whatever server it is for.
///
/// # Errors
/// There is nobody to trust, or what is shown does not fit together.
pub fn mutual_config(
    trust: &Trust,
    checks_name: bool,
    shown: Option<Shown>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let roots = match trust {
        Trust::System => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
            Some(roots)
        }
        Trust::Authorities(pem) => Some(store(certificates(pem)?)?),
        Trust::Certificates(chain) => Some(store(chain.iter().map(|der| CertificateDer::from(der.clone())))?),
        Trust::Pinned(_) | Trust::Anybody => None,
    };
    let builder = match roots {
        Some(roots) if checks_name => builder.with_root_certificates(roots),
        Some(roots) => {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(|error| TlsError::Certificates(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Nameless(inner)))
        }
        None => {
            let pin = if let Trust::Pinned(pin) = trust { Some(*pin) } else { None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { provider, pin }))
        }
    };
    let Some(Shown { chain, key }) = shown else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let key = PrivateKeyDer::try_from(key.to_vec()).map_err(|error| TlsError::Key(error.to_owned()))?;
    let chain = chain.into_iter().map(CertificateDer::from).collect();
    Ok(Arc::new(builder.with_client_auth_cert(chain, key)?))
}

/// What a server needs: its chain of certificates and its key, both in PEM.
///
/// # Errors
/// They are not what they should be, or don't belong together.
pub fn server_config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key)?))
}

/// Shakes hands as a client with the server of this name.
///
/// # Errors
/// The server is not believed, or the handshake failed.
pub async fn connect_tls(
    socket: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, TlsError> {
    let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.into()))?;
    TlsConnector::from(config).connect(server, socket).await.map_err(TlsError::Handshake)
}

/// Shakes hands as a server.
///
/// # Errors
/// The handshake failed.
pub async fn accept_tls(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, TlsError> {
    TlsAcceptor::from(config).accept(socket).await.map_err(TlsError::Handshake)
}

impl ByteStream {
    /// Takes a connection over from the runtime that shook hands on it.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn from_tokio(socket: TcpStream) -> io::Result<Self> {
        Self::new(socket.into_std()?, None)
    }

    /// The same of a client's end over TLS. What was decrypted and not read yet is still read.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn from_client(stream: tokio_rustls::client::TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, tls) = stream.into_inner();
        Self::new(socket.into_std()?, Some(tls.into()))
    }

    /// The same of a server's end over TLS.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn from_server(stream: tokio_rustls::server::TlsStream<TcpStream>) -> io::Result<Self> {
        let (socket, tls) = stream.into_inner();
        Self::new(socket.into_std()?, Some(tls.into()))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| TlsError::Certificates(error.to_string()))?;
    if read.is_empty() { Err(TlsError::Certificates("there are none".into())) } else { Ok(read) }
}

fn store(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    Ok(roots)
}

/// Believes whoever is vouched for as a server, whatever name its certificate has.
#[derive(Debug)]
struct Nameless(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::CertificateError::{NotValidForName, NotValidForNameContext};
        // The name is what is looked at last: everything else was found right by then.
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Believes one certificate, or all; signatures of the handshake are checked all the same.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    pin: Option<[u8; 32]>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest: [u8; 32] = Sha256::digest(certificate).into();
        match self.pin {
            Some(pin) if pin != digest => Err(rustls::Error::General(format!(
                "the server's certificate has the SHA-256 {}, not the one that is pinned",
                digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            ))),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
