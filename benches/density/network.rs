//! The network that a run happens in: a namespace of its own where this process may make one, so that
//! nothing of the machine is touched and everything is gone when the run ends, however it ends.

use std::process::Command;

use crate::{Result, sys};

/// Where this run happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// In a namespace of its own.
    Private,
    /// In the machine's: not root. Loopback only.
    Machine,
}

/// Moves this process into a network namespace of its own if it may.
pub(crate) fn enter() -> Result<Network> {
    if sys::enter_private_network().is_err() {
        return Ok(Network::Machine);
    }
    call("ip", "link set lo up")?;
    Ok(Network::Private)
}

/// Makes the black hole, an `ifb` interface that frees what is sent to it, and returns its offload state.
/// All of 10.66.0.0/16 lies behind one neighbour there, as behind a gateway.
pub(crate) fn open_black_hole(network: Network) -> Result<String> {
    if network == Network::Machine {
        return Err(
            "--sink ifb makes a network namespace and needs root; run it with sudo, or use --sink lo".into(),
        );
    }
    if call("ip", "link show dev sink0").is_err() {
        call("ip", "link add sink0 type ifb")
            .map_err(|error| format!("no ifb interface (kernel module ifb): {error}"))?;
        call("ip", "link set sink0 mtu 1500 up")?;
        call("tc", "qdisc replace dev sink0 root noqueue")?;
        call("ip", "addr add 10.64.255.254/16 dev sink0")?;
        call("ip", "neigh replace 10.64.0.1 lladdr 02:00:00:00:00:01 dev sink0 nud permanent")?;
        call("ip", "route add 10.66.0.0/16 via 10.64.0.1 dev sink0")?;
    }
    let features = call("ethtool", "-k sink0").unwrap_or_default();
    let state = |feature: &str| {
        let mut lines = features.lines().filter_map(|line| line.trim().split_once(": "));
        lines.find(|(name, _)| *name == feature).map_or("unknown (no ethtool)", |(_, state)| state).to_owned()
    };
    Ok(format!("USO {}, checksum {}", state("tx-udp-segmentation"), state("tx-checksumming")))
}

/// Runs a command of the system and returns what it says.
pub(crate) fn call(program: &str, arguments: &str) -> Result<String> {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments}: {}", complaint.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
