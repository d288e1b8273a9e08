//! How many outputs one core carries, measured against the tools users have today.

fn main() {}
