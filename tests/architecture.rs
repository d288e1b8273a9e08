//! The source enters, broken house rules leave: who may import whom, where `unsafe` may stand, how long a
//! file may be. Never looks at behaviour. Every rule has a test that shows it can fail.

use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Which rooms a room may import. A room that stands in nobody's list (`app`) is imported by nobody.
const IMPORTS: &[(&str, &[&str])] = &[
    ("telemetry", &[]),
    ("wire", &[]),
    ("media", &["telemetry"]),
    ("net", &["telemetry", "media"]),
    ("supervise", &["telemetry"]),
    ("hub", &["media", "net", "telemetry"]),
    ("mux", &["wire", "media", "hub", "telemetry"]),
    ("inspect", &["wire", "media", "hub", "telemetry"]),
    ("tak", &["wire", "inspect", "telemetry"]),
    // ingest and egress never see each other: the hub is their only meeting place.
    ("ingest", &["wire", "net", "media", "hub", "mux", "inspect", "telemetry"]),
    ("egress", &["wire", "net", "media", "hub", "mux", "telemetry"]),
    // sessions share sockets across directions, so one room has both; it meets the others in the hub.
    ("port", &["wire", "net", "media", "hub", "telemetry"]),
    // telemetry for the word `Desired`, which supervise speaks too.
    ("store", &["wire", "telemetry"]),
    ("config", &["store", "telemetry"]),
    // control reads snapshots and sends commands: it cannot even name a lane or a driver.
    ("control", &["store", "telemetry", "inspect", "wire"]),
    (
        "app",
        &[
            "config",
            "control",
            "egress",
            "hub",
            "ingest",
            "inspect",
            "media",
            "mux",
            "net",
            "port",
            "store",
            "supervise",
            "tak",
            "telemetry",
            "wire",
        ],
    ),
];

/// Front doors: they may import every room, and nobody imports them.
const FRONT: &[&str] = &["lib", "main", "cli", "demo", "klv", "package", "probe", "source"];

/// Rooms that may hold `unsafe`: those that make system calls.
const UNSAFE_ROOMS: &[&str] = &["net", "camera"];

/// Rooms that take bytes and time and give bytes and events, and so can be fuzzed and simulated.
const SANS_IO_ROOMS: &[&str] = &["wire", "media"];
const IO: &[&str] = &["tokio", "socket2", "libc", "UdpSocket", "TcpStream", "TcpListener"];

/// Lines of a file that are not tests; a longer one says why in its first lines.
const LONG: usize = 600;
const LONG_BECAUSE: &str = "// Long because:";

/// One file under `src/`, lexed: comments and the insides of strings are gone.
struct Source {
    path: String,
    text: String,
    tokens: Vec<Token>,
    /// Modules declared as `#[cfg(test)] mod name;`.
    test_modules: Vec<String>,
}

struct Token {
    text: String,
    line: usize,
    test: bool,
    /// How many inline modules it stands in.
    depth: usize,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let stream: TokenStream = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut source =
            Self { path: path.into(), text: text.into(), tokens: Vec::new(), test_modules: Vec::new() };
        source.flatten(stream, false, 0);
        source
    }

    fn flatten(&mut self, stream: TokenStream, mut all_test: bool, depth: usize) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        let is = |i: usize, text: &str| trees.get(i).is_some_and(|t| t.to_string() == text);
        // From `#[cfg(test)]` to the end of the item it stands on.
        let mut item_test = false;
        for (i, tree) in trees.iter().enumerate() {
            let test = all_test || item_test;
            match tree {
                TokenTree::Group(group) => {
                    if group.delimiter() == Delimiter::Bracket && is_cfg_test(group.stream()) {
                        item_test |= i > 0 && is(i - 1, "#");
                        all_test |= i > 1 && is(i - 1, "!") && is(i - 2, "#");
                    }
                    let braces = group.delimiter() == Delimiter::Brace;
                    let module = braces && i > 1 && is(i - 2, "mod");
                    let (open, close) = match group.delimiter() {
                        Delimiter::Brace => ("{", "}"),
                        Delimiter::Parenthesis => ("(", ")"),
                        Delimiter::Bracket => ("[", "]"),
                        Delimiter::None => ("", ""),
                    };
                    self.push(open, group.span_open().start().line, test, depth);
                    self.flatten(group.stream(), test, depth + usize::from(module));
                    self.push(close, group.span_close().start().line, test, depth);
                    item_test &= !braces;
                }
                other => {
                    let text = other.to_string();
                    if text == ";" {
                        if test && i > 1 && is(i - 2, "mod") {
                            self.test_modules.push(trees[i - 1].to_string());
                        }
                        item_test = false;
                    }
                    self.push(&text, other.span().start().line, test, depth);
                }
            }
        }
    }

    fn push(&mut self, text: &str, line: usize, test: bool, depth: usize) {
        self.tokens.push(Token { text: text.into(), line, test, depth });
    }

    /// `net` for `src/net/udp.rs` and for `src/net.rs`.
    fn room(&self) -> &str {
        self.modules().next().unwrap_or("lib")
    }

    /// The module path below the crate root, as the file's place says it.
    fn modules(&self) -> impl Iterator<Item = &str> {
        let path = self.path.strip_prefix("src/").unwrap_or(&self.path);
        path.split('/').map(|part| part.strip_suffix(".rs").unwrap_or(part)).filter(|part| *part != "mod")
    }

    fn is_front(&self) -> bool {
        FRONT.contains(&self.room())
    }

    fn code(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| !token.test)
    }

    /// What the file reaches outside its tests through `crate` or `super`, as paths from the crate root.
    fn reaches(&self) -> Vec<(Vec<String>, usize)> {
        let tokens: Vec<&Token> = self.code().collect();
        let file_depth = if self.is_front() { 0 } else { self.modules().count() };
        let mut out = Vec::new();
        let mut i = 0;
        while i < tokens.len() {
            let at = tokens[i];
            let starts = matches!(at.text.as_str(), "crate" | "super" | "self") && followed(&tokens, i);
            if !starts {
                i += 1;
                continue;
            }
            let mut paths = Vec::new();
            i = read_tree(&tokens, i, &[], &mut paths);
            for path in paths {
                let supers = path.iter().filter(|part| *part == "super").count();
                let from_root = path[0] == "crate" || supers > 0 && supers >= file_depth + at.depth;
                if from_root {
                    let names =
                        path.into_iter().filter(|p| !matches!(p.as_str(), "crate" | "super" | "self"));
                    out.push((names.collect(), at.line));
                }
            }
        }
        out
    }
}

/// `cfg(test)`, `cfg(all(test, …))`, but not `cfg(not(test))`.
fn is_cfg_test(attribute: TokenStream) -> bool {
    let text = attribute.to_string();
    let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not")
}

fn followed(tokens: &[&Token], i: usize) -> bool {
    let is = |i: usize| tokens.get(i).is_some_and(|t| t.text == ":");
    is(i + 1) && is(i + 2)
}

/// Reads `a::b::{c, d::e}` from `i` on; every leaf is one path. Returns where it ends.
fn read_tree(tokens: &[&Token], mut i: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    while let Some(token) = tokens.get(i) {
        if token.text == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|t| t.text != "}") {
                if tokens[i].text == "," { i += 1 } else { i = read_tree(tokens, i, &path, out) }
            }
            return i + 1;
        }
        path.push(token.text.clone());
        if followed(tokens, i) {
            i += 3;
            continue;
        }
        i += 1;
        if tokens.get(i).is_some_and(|t| t.text == "as") {
            i += 2;
        }
        break;
    }
    out.push(path);
    i
}

fn check_imports(source: &Source) -> Vec<String> {
    let room = source.room();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == room) else {
        return if source.is_front() {
            Vec::new()
        } else {
            vec![format!("{}: room `{room}` has no line in IMPORTS", source.path)]
        };
    };
    let mut broken = Vec::new();
    for (path, line) in source.reaches() {
        let target = path.first().map_or("*", String::as_str);
        if target != room && !allowed.contains(&target) {
            broken.push(format!("{}:{line}: `{room}` may not import `{target}`", source.path));
        }
    }
    broken
}

fn check_unsafe(source: &Source) -> Vec<String> {
    if UNSAFE_ROOMS.contains(&source.room()) {
        return Vec::new();
    }
    let tokens = source.tokens.iter().filter(|token| token.text == "unsafe");
    tokens.map(|t| format!("{}:{}: `unsafe` belongs in {UNSAFE_ROOMS:?}", source.path, t.line)).collect()
}

fn check_sans_io(source: &Source) -> Vec<String> {
    if !SANS_IO_ROOMS.contains(&source.room()) {
        return Vec::new();
    }
    let tokens = source.code().filter(|token| IO.contains(&token.text.as_str()));
    tokens.map(|t| format!("{}:{}: `{}` in a sans-IO room", source.path, t.line, t.text)).collect()
}

fn check_length(source: &Source) -> Vec<String> {
    let runs = source.tokens.chunk_by(|a, b| a.test == b.test).filter(|run| run[0].test);
    let in_tests: usize = runs.map(|run| run[run.len() - 1].line + 1 - run[0].line).sum();
    let lines = source.text.lines().count() - in_tests;
    let explained = source.text.lines().take(20).any(|line| line.starts_with(LONG_BECAUSE));
    if lines > LONG && !explained {
        vec![format!("{}: {lines} lines without tests; split it or say `{LONG_BECAUSE} …`", source.path)]
    } else {
        Vec::new()
    }
}

fn check_opening(source: &Source) -> Vec<String> {
    let opens = source.text.lines().next().is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    if opens {
        Vec::new()
    } else {
        vec![format!("{}:1: starts without `//!`: what enters, what leaves, what it never does", source.path)]
    }
}

/// A path that exists on one machine only.
fn check_machine_paths(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for place in ["home", "root", "Users", "work", "farm"] {
            let place = format!("/{place}/");
            let found = line.match_indices(&place).any(|(at, _)| {
                // `docs/work/` and `$x/work/` are relative; `scheme://work/` names a host.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}/*".contains(c))
            });
            if found {
                broken.push(format!("{path}:{}: names `{place}…`, a path of one machine", number + 1));
            }
        }
    }
    broken
}

/// Every rule over `src/`; files declared under `#[cfg(test)]` are tests wherever they stand.
fn check_sources(sources: &[Source]) -> Vec<String> {
    let test_files: Vec<String> = sources.iter().flat_map(test_prefixes).collect();
    let mut broken = Vec::new();
    for source in sources {
        broken.extend(check_unsafe(source));
        broken.extend(check_opening(source));
        if !test_files.iter().any(|prefix| source.path.starts_with(prefix.as_str())) {
            broken.extend(check_imports(source));
            broken.extend(check_sans_io(source));
            broken.extend(check_length(source));
        }
    }
    broken
}

/// Where the modules that a file declares as `#[cfg(test)] mod name;` may stand.
fn test_prefixes(source: &Source) -> Vec<String> {
    let path = source.path.strip_suffix(".rs").unwrap_or(&source.path);
    let folder = ["/mod", "/lib", "/main"].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(path);
    source.test_modules.iter().flat_map(|n| [format!("{folder}/{n}.rs"), format!("{folder}/{n}/")]).collect()
}

/// Text files of the project, paths relative to its root.
fn read_files(folder: &str, out: &mut Vec<(String, String)>) {
    const SKIPPED: &[&str] = &["target", ".git", "testdata", "corpus", "artifacts", "Cargo.lock"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join(folder)).expect(folder) {
        let entry = entry.expect(folder);
        let name = entry.file_name().into_string().expect("a file name in UTF-8");
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        let kind = entry.file_type().expect(&path);
        if SKIPPED.contains(&name.as_str()) {
            continue;
        } else if kind.is_dir() {
            read_files(&path, out);
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            out.push((path, text));
        }
    }
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "broken house rules:\n  {}", broken.join("\n  "));
}

#[test]
fn the_source_keeps_the_house_rules() {
    let mut files = Vec::new();
    read_files("src", &mut files);
    assert!(files.len() > 10, "found only {} files", files.len());
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    report(&check_sources(&sources));
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let mut files = Vec::new();
    read_files("", &mut files);
    report(&files.iter().flat_map(|(path, text)| check_machine_paths(path, text)).collect::<Vec<_>>());
}

#[test]
fn the_table_of_imports_has_no_cycle_and_no_unknown_room() {
    let mut placed: Vec<&str> = Vec::new();
    while placed.len() < IMPORTS.len() {
        let next = IMPORTS.iter().find(|(room, allowed)| {
            !placed.contains(room) && allowed.iter().all(|name| placed.contains(name))
        });
        placed.push(next.unwrap_or_else(|| panic!("a cycle or an unknown room behind {placed:?}")).0);
    }
    assert!(IMPORTS.iter().all(|(_, allowed)| !allowed.contains(&"app")));
    let sees = |a: &str, b: &str| IMPORTS.iter().any(|(room, allowed)| *room == a && allowed.contains(&b));
    assert!(!sees("ingest", "egress") && !sees("egress", "ingest"));
}

fn imports(path: &str, text: &str) -> usize {
    check_imports(&Source::new(path, text)).len()
}

#[test]
fn a_forbidden_import_is_caught_in_every_spelling() {
    assert_eq!(imports("src/wire/ts/mod.rs", "use crate::net::Socket;"), 1);
    assert_eq!(imports("src/wire/rtp.rs", "fn f() { crate::hub::open(); }"), 1);
    assert_eq!(imports("src/egress/udp.rs", "use crate::{hub, ingest::udp::{A, B}, media};"), 2);
    assert_eq!(imports("src/ingest/mod.rs", "pub use crate::{hub::Lane, egress as out};"), 1);
    assert_eq!(imports("src/net/udp.rs", "use super::super::hub::Lane;"), 1);
    assert_eq!(imports("src/net/mod.rs", "use super::{media, hub::{Lane, Ring}};"), 2);
    assert_eq!(imports("src/net/mod.rs", "mod inner { use super::super::hub; }"), 1);
    assert_eq!(imports("src/config.rs", "use super::app;"), 1);
    assert_eq!(imports("src/control/mod.rs", "use crate::app::App;"), 1);
    assert_eq!(imports("src/hub/mod.rs", "macro_rules! m { () => { $crate::egress::go() } }"), 1);
    assert_eq!(imports("src/hub/mod.rs", "use crate::*;"), 1);
    assert_eq!(imports("src/hub/mod.rs", "#[cfg(not(test))] use crate::egress;"), 1);
    assert_eq!(imports("src/hub/mod.rs", "#[cfg(test)] mod tests {} use crate::egress;"), 1);
    assert_eq!(imports("src/attic/mod.rs", "//! A room that is not in the table."), 1);
}

#[test]
fn an_allowed_import_is_not() {
    assert_eq!(imports("src/egress/udp.rs", "use crate::{hub::Lane, media, net::{A, B as C}};"), 0);
    assert_eq!(imports("src/net/udp.rs", "pub(crate) fn f(); use super::route; use crate::net::x;"), 0);
    assert_eq!(imports("src/net/udp.rs", "mod inner { use super::super::route; }"), 0);
    assert_eq!(imports("src/main.rs", "use millrace::app;"), 0);
    assert_eq!(
        imports("src/wire/rtp.rs", "// use crate::net\n/// [`crate::net`]\nconst A: &str = \"crate::net\";"),
        0
    );
    assert_eq!(imports("src/wire/rtp.rs", "#[cfg(test)]\nmod tests { use crate::net; }"), 0);
    assert_eq!(imports("src/wire/rtp.rs", "#![cfg(test)]\nuse crate::net;"), 0);
}

#[test]
fn a_test_module_in_a_file_of_its_own_is_known_by_its_declaration() {
    let parent = "//! The hub of the house.\n#[cfg(test)]\nmod sim;\n";
    let child = "//! Simulated time over everything.\nuse crate::egress;\n";
    let sources = |parent: &str| {
        check_sources(&[Source::new("src/hub/mod.rs", parent), Source::new("src/hub/sim.rs", child)]).len()
    };
    assert_eq!(sources(parent), 0);
    assert_eq!(sources("//! The hub of the house.\nmod sim;\n"), 1);
}

#[test]
fn unsafe_and_io_are_caught_outside_their_rooms() {
    let code = "fn f() { unsafe { g() } }";
    assert_eq!(check_unsafe(&Source::new("src/hub/ring.rs", code)).len(), 1);
    assert_eq!(check_unsafe(&Source::new("src/net/ring.rs", code)).len(), 0);
    assert_eq!(check_unsafe(&Source::new("src/hub/ring.rs", "// unsafe\n#![deny(unsafe_code)]")).len(), 0);
    let code = "use std::net::UdpSocket;";
    assert_eq!(check_sans_io(&Source::new("src/wire/rtp.rs", code)).len(), 1);
    assert_eq!(check_sans_io(&Source::new("src/net/udp.rs", code)).len(), 0);
}

#[test]
fn a_long_file_is_caught_unless_it_says_why() {
    let long = |lines: usize, head: &str, tail: &str| {
        let text = format!("{head}\n{}{tail}", "const A: u8 = 0;\n".repeat(lines - 1));
        check_length(&Source::new("src/hub/ring.rs", &text)).len()
    };
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    // a line\n\n".repeat(400));
    assert_eq!(long(600, "//! A ring.", ""), 0);
    assert_eq!(long(601, "//! A ring.", ""), 1);
    assert_eq!(long(601, "// Long because: one table.", ""), 0);
    assert_eq!(long(599, "//! A ring.", &tests), 0);
    assert_eq!(long(601, "//! A ring.", &tests), 1);
}

#[test]
fn a_silent_module_and_a_machine_path_are_caught() {
    assert_eq!(check_opening(&Source::new("src/net/mod.rs", "use std::io;")).len(), 1);
    assert_eq!(check_opening(&Source::new("src/net/mod.rs", "//! Bytes enter, bytes leave.")).len(), 0);
    let named = format!("see /{}/me/notes", "home");
    assert_eq!(check_machine_paths("README.md", &named).len(), 1);
    assert_eq!(check_machine_paths("README.md", "docs/home/x, https://host/home/, $HOME/x, /tmp/x").len(), 0);
}
