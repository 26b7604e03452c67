//! `leeward demo`: an application survives the loss of a region, and the report says what it cost.

pub(crate) mod client;
pub(crate) mod oracle;
