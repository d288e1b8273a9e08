//! Makes derived lanes: datagrams of a native lane enter, filtered ones leave, once per distinct filter.
