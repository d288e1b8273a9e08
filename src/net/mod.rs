//! Sockets: batched UDP, multicast, routes. The home of `unsafe`.
