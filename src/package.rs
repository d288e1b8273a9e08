//! `millrace tak`: the path of a data package enters, what is in it leaves, as text or JSON. Shows no password and no key.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use millrace::net::clock;
use millrace::tak::cot::write_stamp;
use millrace::tak::keystore::Certificate;
use millrace::tak::package::{PACKAGE_MAX, Package};
use serde_json::{Value, json};

/// Shows a data package; exit code 1 = it cannot be read, or lacks what an output needs.
pub(crate) fn show(path: &Path, password: Option<&str>, as_json: bool) -> io::Result<ExitCode> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(PACKAGE_MAX as u64 + 1).read_to_end(&mut bytes));
    let package = match read {
        Err(error) => Err(error.to_string()),
        Ok(_) => Package::read(&bytes, password).map_err(|error| error.to_string()),
    };
    let package = match package {
        Ok(package) => package,
        Err(error) => {
            writeln!(io::stderr(), "{}: {error}", path.display())?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let now = (clock::wall_ms() / 1000) as i64;
    let facts = facts(&package, now);
    if as_json {
        writeln!(io::stdout(), "{facts:#}")?;
    } else {
        print(&facts, &mut io::stdout().lock())?;
    }
    let missing = [
        (package.server().is_none(), "a server with TLS that is switched on"),
        (package.client.is_none(), "a client certificate"),
    ];
    let missing: Vec<&str> = missing.iter().filter(|(lacks, _)| *lacks).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let missing = missing.join(" and ");
    writeln!(
        io::stderr(),
        "{}: a cot+tls:// output needs {missing}, and there is none in it",
        path.display()
    )?;
    Ok(ExitCode::FAILURE)
}

fn facts(package: &Package, now: i64) -> Value {
    let chain = package.client.iter().flat_map(|client| &client.chain);
    let servers = package.servers.iter().map(|server| {
        json!({
            "description": server.description,
            "host": server.host,
            "port": server.port,
            "encrypted": server.encrypted,
            "enabled": server.enabled,
        })
    });
    json!({
        "name": package.name,
        "servers": servers.collect::<Vec<_>>(),
        "client": chain.map(|der| certificate(der, now)).collect::<Vec<_>>(),
        "authorities": package.authorities.iter().map(|der| certificate(der, now)).collect::<Vec<_>>(),
        "files": package.entries.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect::<Vec<_>>(),
        "remarks": package.remarks,
    })
}

fn certificate(der: &[u8], now: i64) -> Value {
    match Certificate::read(der) {
        Ok(certificate) => json!({
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_before": moment(certificate.not_before),
            "not_after": moment(certificate.not_after),
            "sha256": certificate.sha256,
            "warning": certificate.complaint(now),
        }),
        Err(error) => json!({ "warning": error.to_string() }),
    }
}

fn moment(seconds: i64) -> String {
    write_stamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn print(facts: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let each = |key: &str| facts[key].as_array().cloned().unwrap_or_default();
    writeln!(out, "data package  {}", text(&facts["name"]))?;
    for server in each("servers") {
        let kind = if server["encrypted"] == json!(true) { "TLS" } else { "not encrypted" };
        let off = if server["enabled"] == json!(true) { "" } else { ", switched off" };
        writeln!(
            out,
            "server        {}:{} ({kind}{off})  {}",
            text(&server["host"]),
            server["port"],
            text(&server["description"])
        )?;
    }
    for (word, key) in [("shows", "client"), ("trusts", "authorities")] {
        for certificate in each(key) {
            writeln!(out, "{word:<13} {}", text(&certificate["subject"]))?;
            writeln!(
                out,
                "              by {}, until {}",
                text(&certificate["issuer"]),
                text(&certificate["not_after"])
            )?;
            writeln!(out, "              SHA-256 {}", text(&certificate["sha256"]))?;
            if let Some(warning) = certificate["warning"].as_str() {
                writeln!(out, "              WARNING: {warning}")?;
            }
        }
    }
    for file in each("files") {
        writeln!(out, "file          {} ({} bytes)", text(&file["name"]), file["bytes"])?;
    }
    for remark in each("remarks") {
        writeln!(out, "remark        {}", text(&remark))?;
    }
    Ok(())
}
