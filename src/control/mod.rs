//! REST: requests enter, commands and snapshots leave. Never waits for a shard.
