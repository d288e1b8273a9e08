//! One driver per kind of source: bytes from sockets and files enter, datagrams in a lane leave.
