//! Lanes, cursors and the shard loop: the only meeting place of ingest and egress.
