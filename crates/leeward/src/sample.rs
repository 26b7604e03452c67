//! The sample application: the hidden subcommand `leeward sample`, packed into an image by the demo.
//!
//! It appends each numbered write to a log on its volume and answers only after the log is on disk, so that a write that a
//! client saw acknowledged and that later is missing was lost by Leeward, not by the application.
//!
//! - `POST /writes/{client}/{n}`: append, fsync, then `{"n", "epoch", "cluster", "offset", "duplicate"}`. A repeated `n` of the
//!   same client is acknowledged again with `"duplicate": true` and not written a second time.
//! - `GET /writes`: the records, one a line (see [`record`]). `GET /`: cluster, epoch, number of records.
//! - `GET /healthz`: 200 when the log is open and its tail repaired, else 503 with the reason.
//!
//! Configuration is the environment alone: `POD_IP`, `PORT` (8080), `DATA_DIR` (/data), `LEEWARD_CLUSTER`, `LEEWARD_EPOCH`, and
//! `STATELESS=1`, which serves reads only and needs no volume.

mod http;
pub(crate) mod log;
pub(crate) mod record;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context as _;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    listen: SocketAddr,
    cluster: String,
    epoch: u64,
    /// The volume; none when stateless.
    data: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings through `variable`, which answers as `std::env::var(name).ok()` does.
    fn read(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Self> {
        let address = variable("POD_IP").unwrap_or_else(|| "127.0.0.1".into());
        let address: IpAddr = address
            .parse()
            .with_context(|| format!("POD_IP `{address}` is no IP address"))?;
        let port = variable("PORT").unwrap_or_else(|| "8080".into());
        let port: u16 = port
            .parse()
            .with_context(|| format!("PORT `{port}` is no port number"))?;
        let epoch = variable("LEEWARD_EPOCH").unwrap_or_else(|| "0".into());
        let epoch = epoch
            .parse()
            .with_context(|| format!("LEEWARD_EPOCH `{epoch}` is no whole number"))?;
        let cluster = variable("LEEWARD_CLUSTER").unwrap_or_else(|| "none".into());
        record::check_word(&cluster)
            .with_context(|| format!("LEEWARD_CLUSTER `{cluster}` cannot stand in a record"))?;
        let stateless = variable("STATELESS").is_some_and(|value| value == "1" || value == "true");
        let data = (!stateless).then(|| variable("DATA_DIR").unwrap_or_else(|| "/data".into()).into());
        Ok(Self {
            listen: SocketAddr::new(address, port),
            cluster,
            epoch,
            data,
        })
    }
}

/// Runs the sample application until SIGTERM or SIGINT.
///
/// # Errors
/// When the environment makes no sense, the address is taken, or the log cannot be opened: each says what to change.
pub(crate) fn run() -> anyhow::Result<()> {
    let settings = Settings::read(|name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(http::serve(settings))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> anyhow::Result<Settings> {
        Settings::read(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let got = settings(&[]).unwrap();
        assert_eq!(got.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(
            (got.cluster.as_str(), got.epoch, got.data),
            ("none", 0, Some("/data".into()))
        );
    }

    #[test]
    fn stateless_needs_no_volume() {
        let got = settings(&[("STATELESS", "1"), ("DATA_DIR", "/data"), ("POD_IP", "127.7.17.2")]).unwrap();
        assert_eq!((got.data, got.listen), (None, "127.7.17.2:8080".parse().unwrap()));
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        for pair in [
            ("POD_IP", "here"),
            ("PORT", "70000"),
            ("LEEWARD_EPOCH", "-1"),
            ("LEEWARD_CLUSTER", "a b"),
        ] {
            let error = settings(&[pair]).unwrap_err().to_string();
            assert!(error.contains(pair.0) && error.contains(pair.1), "{error}");
        }
    }
}
