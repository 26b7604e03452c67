//! Local regions for one machine: a Kubernetes API, nodes and volumes.

pub mod apiserver;
pub mod container;
pub mod controllers;
pub mod heap;
pub mod instance;
pub mod machinery;
pub mod node;
pub mod process;
