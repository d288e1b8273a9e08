//! Front door: flags, runtime, signals; hands over to the library.

fn main() {}
