//! Application state across clusters: configuration and volumes.

pub mod config;
pub mod volumes;

/// What an API said, for a person: its message alone, where it gave one.
pub fn api_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}
