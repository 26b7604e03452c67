//! The two sides: an API server behind a kubeconfig, and a local region's API in this process.

pub use leeward_testing::{Local, client};
