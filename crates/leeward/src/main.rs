//! The command line of Leeward.

fn main() {}
