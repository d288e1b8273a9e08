//! Network namespaces: interfaces of a test's own, which leave with it.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace with loopback up, removed on drop.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// `None`, and a visible skip, when this user may not make one. That is no failure in CI either: it is a
    /// property of the place, not a package that somebody forgot.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("millrace-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        if !super::peers(&["ip"]) {
            return None;
        }
        match ip(&["netns", "add", &name]) {
            Ok(()) => {}
            Err(why) if why.contains("ermission denied") || why.contains("not permitted") => {
                super::skipped(&format!("no network namespace for this user: {why}"));
                return None;
            }
            Err(why) => panic!("ip netns add: {why}"),
        }
        let netns = Self { name };
        netns.ip("link set lo up");
        Some(netns)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `ip -n NAME …`; panics with ip's own words when it fails.
    pub(crate) fn ip(&self, arguments: &str) {
        let all: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split_whitespace()).collect();
        ip(&all).unwrap_or_else(|why| panic!("ip {}: {why}", all.join(" ")));
    }

    /// A program inside the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `body` inside the namespace: sockets that it opens, threads and processes that it starts are in it.
    pub(crate) fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        let test = std::thread::current().name().unwrap_or("netns").to_owned();
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().name(test).spawn_scoped(scope, || {
                let file = std::fs::File::open(&path).expect(&path);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                    .expect("setns");
                body()
            });
            inside.expect("a thread").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(why) = ip(&["netns", "del", &self.name]) {
            eprintln!("ip netns del {}: {why}", self.name);
        }
    }
}

/// Joins two namespaces by a pair of interfaces, both named `veth{net}`: `a` is 10.77.{net}.1, `b` is 10.77.{net}.2.
pub(crate) fn connect(a: &Netns, b: &Netns, net: u8) {
    a.ip(&format!("link add veth{net} type veth peer name veth{net} netns {}", b.name()));
    for (netns, host) in [(a, 1), (b, 2)] {
        netns.ip(&format!("addr add 10.77.{net}.{host}/24 dev veth{net}"));
        netns.ip(&format!("link set veth{net} up"));
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output =
        Command::new("ip").args(arguments).stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
