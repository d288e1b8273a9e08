//! What a TAK Server hands out: data packages with the preferences in them, key stores, certificates.

use millrace::tak::keystore::{Certificate, Keystore};
use millrace::tak::package::{PACKAGE_MAX, Package};

/// An archive; and, because a fuzzer seldom makes one, the same bytes as the preferences and as the key store of one.
pub fn package(data: &[u8]) {
    take(data);
    take(&store(&[("a.pref", data)]));
    let pref = b"<preferences><p><entry key=\"certificateLocation\">cert/a.p12</entry>\
        <entry key=\"connectString0\">h:8089:ssl</entry></p></preferences>";
    take(&store(&[("a.pref", pref), ("a.p12", data)]));
}

/// A key store, and a certificate.
pub fn keystore(data: &[u8]) {
    for password in ["atakatak", ""] {
        if let Ok(keystore) = Keystore::read(data, password) {
            assert_eq!(keystore.key.is_some(), !keystore.chain.is_empty());
        }
    }
    if let Ok(certificate) = Certificate::read(data) {
        assert!(!certificate.subject.chars().any(char::is_control));
        let _ = certificate.complaint(0);
        let _ = certificate.complaint(i64::MAX / 2);
    }
}

fn take(bytes: &[u8]) {
    if let Ok(package) = Package::read(bytes, None) {
        assert!(bytes.len() <= PACKAGE_MAX);
        assert!(package.servers.iter().all(|server| !server.host.is_empty() && server.port != 0));
        assert!(package.entries.len() <= 256);
    }
}

/// An archive with these files, not compressed.
fn store(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let at = out.len() as u32;
        let mut fields = vec![10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        fields.extend_from_slice(&crc32(content).to_le_bytes());
        fields.extend_from_slice(&(content.len() as u32).to_le_bytes());
        fields.extend_from_slice(&(content.len() as u32).to_le_bytes());
        fields.extend_from_slice(&(name.len() as u16).to_le_bytes());
        fields.extend_from_slice(&[0, 0]);
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&fields);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(content);
        directory.extend_from_slice(b"PK\x01\x02\x0a\x00");
        directory.extend_from_slice(&fields);
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (start, length) = (out.len() as u32, directory.len() as u32);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    let count = (files.len() as u16).to_le_bytes();
    out.extend_from_slice(&count);
    out.extend_from_slice(&count);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}
