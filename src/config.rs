//! The typed configuration file.
