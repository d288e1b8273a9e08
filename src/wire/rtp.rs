//! RTP with a transport stream as payload (RFC 3550, RFC 2250): packets and time enter, payloads in order leave.
