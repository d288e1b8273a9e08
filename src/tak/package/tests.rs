//! A package as TAK Server's scripts make it, read whole; and packages that were made to do harm.

use std::io::Write as _;

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::tak::keystore::Certificate;

const EYE: &[u8] = include_bytes!("../../../testdata/tak/eye.zip");
const AES: &[u8] = include_bytes!("../../../testdata/tak/eye-aes.p12");

/// An archive of these files.
fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).expect("a file");
        writer.write_all(content).expect("memory");
    }
    writer.finish().expect("an archive").into_inner()
}

fn prefs(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: String =
        entries.iter().map(|(key, value)| format!("<entry key=\"{key}\">{value}</entry>")).collect();
    format!("<preferences><preference name=\"cot_streams\">{entries}</preference></preferences>").into_bytes()
}

fn file(name: &str) -> Vec<u8> {
    let files = unpack(EYE).expect("an archive");
    files.into_iter().find(|(known, _)| base(known) == name).expect("a file").1
}

#[test]
fn a_package_says_whom_to_dial_what_to_show_and_whom_to_trust() {
    let package = Package::read(EYE, None).expect("a package");
    assert_eq!(package.name.as_deref(), Some("eye.zip"));
    let server = package.server().expect("a server");
    assert_eq!((server.host.as_str(), server.port, server.encrypted), ("tak.example.org", 8089, true));
    assert_eq!(server.description, "TAK Server & test");
    // RC2 with 40 bits and triple DES, as `openssl pkcs12 -legacy` writes them
    let client = package.client.as_ref().expect("a client");
    assert!(client.key.is_some());
    let chain: Vec<_> =
        client.chain.iter().map(|der| Certificate::read(der).expect("a certificate")).collect();
    assert_eq!(
        chain.iter().map(|c| c.subject.as_str()).collect::<Vec<_>>(),
        ["O=TAK, CN=eye", "O=TAK, CN=test authority"]
    );
    assert!(!chain[0].is_authority && chain[1].is_authority);
    assert_eq!(package.authorities.len(), 1);
    assert_eq!(package.authorities[0], client.chain[1]);
    assert_eq!((package.entries.len(), &package.remarks), (4, &Vec::new()));
    assert!(!format!("{package:?}").contains("atakatak"));
    let wrong = Package::read(EYE, Some("another"));
    assert!(matches!(wrong, Err(PackageError::Keystore { why: KeystoreError::Password, .. })), "{wrong:?}");
}

#[test]
fn a_key_store_of_today_is_read_too() {
    let keystore = Keystore::read(AES, "geheim").expect("a key store");
    assert_eq!((keystore.key.is_some(), keystore.chain.len(), keystore.authorities.len()), (true, 2, 0));
    assert_eq!(Keystore::read(AES, "atakatak"), Err(KeystoreError::Password));
    assert!(matches!(Keystore::read(&AES[..500], "geheim"), Err(KeystoreError::Malformed(_))));
    assert!(matches!(Keystore::read(b"", ""), Err(KeystoreError::Malformed(_))));
}

#[test]
fn certificates_complain_before_and_after_their_end() {
    let keystore = Keystore::read(AES, "geheim").expect("a key store");
    let certificate = Certificate::read(&keystore.chain[0]).expect("a certificate");
    let end = certificate.not_after;
    assert_eq!(certificate.complaint(end - 31 * 86_400), None);
    let said = |now| certificate.complaint(now).expect("a complaint");
    assert_eq!(said(end - 3 * 86_400), "the certificate of O=TAK, CN=eye expires in 3 days");
    assert_eq!(said(end + 86_400), "the certificate of O=TAK, CN=eye expired 1 days ago");
    assert!(said(certificate.not_before - 1).contains("holds only in 1 days"));
}

#[test]
fn names_in_an_archive_are_looked_up_and_lead_nowhere() {
    let p12 = file("eye.p12");
    let pref = prefs(&[
        ("connectString0", "10.0.0.1:8089:ssl"),
        ("certificateLocation", "../../../etc/shadow"),
        ("caLocation", "/etc/ssl/ca.p12"),
    ]);
    let package =
        Package::read(&pack(&[("../../x.pref", &pref), ("/abs/eye.p12", &p12)]), None).expect("a package");
    assert_eq!(package.remarks, ["'shadow' is not in it", "'ca.p12' is not in it"]);
    let pref = prefs(&[("certificateLocation0", "cert\\EYE.p12"), ("clientPassword0", "atakatak")]);
    let package =
        Package::read(&pack(&[("a.pref", &pref), ("../../eye.p12", &p12)]), None).expect("a package");
    assert!(package.client.is_some());
}

#[test]
fn bombs_do_not_go_off() {
    let zeros = vec![0; ENTRY_MAX as usize + 1];
    assert_eq!(Package::read(&pack(&[("a.pref", &zeros)]), None), Err(PackageError::TooMuch));
    let most = vec![0; ENTRY_MAX as usize];
    let names: Vec<String> = (0..9).map(|n| format!("{n}.bin")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &most[..])).collect();
    let bomb = pack(&files);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert_eq!(Package::read(&bomb, None), Err(PackageError::TooMuch));
    let names: Vec<String> = (0..300).map(|n| format!("{n}.bin")).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    assert_eq!(Package::read(&pack(&files), None), Err(PackageError::TooMuch));
    let entities = b"<!DOCTYPE x [<!ENTITY a \"aaaa\">]><preferences/>";
    assert_eq!(
        Package::read(&pack(&[("a.pref", entities)]), None),
        Err(PackageError::Preferences("a.pref".into()))
    );
    assert_eq!(Package::read(&pack(&[("a.txt", b"x")]), None), Err(PackageError::NoPreferences));
    assert!(matches!(Package::read(b"PK\x03\x04", None), Err(PackageError::Malformed(_))));
}

#[test]
fn servers_are_read_in_every_form() {
    let package = |entries: &[(&str, &str)]| {
        Package::read(&pack(&[("a.pref", &prefs(entries))]), None).expect("a package")
    };
    let all = package(&[
        ("connectString0", "10.0.0.1:8087:tcp"),
        ("connectString1", "[2001:db8::1]:8089:SSL"),
        ("enabled1", "false"),
        ("connectString2", "h:70000:ssl"),
        ("connectString3", "a b:1:ssl"),
        ("connectString4", "tak:8089:ssl"),
        ("enrollForCertificateWithTrust4", "true"),
    ]);
    let hosts: Vec<_> = all.servers.iter().map(|server| server.host.as_str()).collect();
    assert_eq!(hosts, ["10.0.0.1", "2001:db8::1", "tak"]);
    assert_eq!(all.server().map(|server| server.host.as_str()), Some("tak"));
    assert!(all.remarks.iter().any(|remark| remark.contains("enrol")), "{:?}", all.remarks);
}

proptest! {
    #[test]
    fn a_damaged_package_breaks_nothing(at in 0..5000_usize, byte: u8, cut in 0..5000_usize) {
        let mut bytes = EYE.to_vec();
        let length = bytes.len();
        bytes[at % length] ^= byte;
        let _ = Package::read(&bytes, None);
        let _ = Package::read(&bytes[..cut % length], None);
    }
}
