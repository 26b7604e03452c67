//! What an agent and a witness say of themselves, over plain HTTP: `/metrics`, `/livez` and `/readyz`.
//!
//! Almost everything is read from what the agent knows anyway, at the moment somebody asks; counted is only what happens and leaves no trace. So
//! nothing runs while nobody asks. What there is, and what it is called, is in the one table [`leeward_api::metrics`]: `page::Page` takes names
//! and labels from there, and nothing else can be written.
//!
//! Flow: [`listen`] answers, from an [`Observed`]: [`of_agent::Observer`] or [`of_witness::Observer`].

pub mod apps;
pub mod counted;
pub mod listen;
pub mod measured;
pub mod of_agent;
pub mod of_witness;
mod operations;
mod page;
mod process;
pub mod tasks;

use std::fmt;

use prometheus_client::{collector::Collector, encoding::text, registry::Registry};

/// What there is to say of a process.
pub trait Observed: Send + Sync + 'static {
    /// The page of `/metrics`.
    ///
    /// # Errors
    /// Never, but that writing text may fail.
    fn metrics(&self) -> Result<String, fmt::Error>;

    /// Whether the process does what it is for, so that it need not be started again.
    ///
    /// # Errors
    /// What does not go on.
    fn alive(&self) -> Result<(), String>;

    /// Whether it has started.
    ///
    /// # Errors
    /// What it waits for.
    fn ready(&self) -> Result<(), String>;
}

/// The text of one collector's metrics.
fn text_of(collector: impl Collector) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}
