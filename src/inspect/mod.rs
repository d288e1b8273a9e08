//! Health of a stream, made from what passes by; never in the way.
