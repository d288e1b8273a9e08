//! One driver per kind of output: datagrams of a lane enter, the network and files take them.
