//! What a gate is told on its command line.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Args;
use leeward_core::name::RoleKey;

use crate::relay::Protocol;

/// The arguments of `leeward gate`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// A role that the writer writes in; repeat it for several of one application.
    #[arg(
        long = "role",
        value_name = "NAMESPACE/APP/ROLE",
        required_unless_present = "become_writer"
    )]
    pub roles: Vec<RoleKey>,
    /// Where users connect to, and where the writer listens; repeat it for several.
    #[arg(
        long = "port",
        value_name = "[http|tcp:]LISTEN=WRITER",
        required_unless_present = "become_writer"
    )]
    pub ports: Vec<Port>,
    /// Where the Secret that the region's agent writes is mounted.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/run/leeward/gate")]
    pub directory: PathBuf,
    /// This pod's UID.
    #[arg(long, env = "POD_UID", value_name = "UID", required_unless_present = "become_writer")]
    pub pod: Option<String>,
    /// Becomes the writer of the gate with this process ID.
    #[arg(long, hide = true, value_name = "PID")]
    pub become_writer: Option<i32>,
    /// The writer and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// One port of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where users connect to.
    pub listen: SocketAddr,
    /// Where the writer listens.
    pub writer: SocketAddr,
}

/// A port that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected LISTEN=WRITER, two different addresses such as http:10.0.0.7:8080=127.0.0.1:8081")]
pub struct PortError;

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (protocol, addresses) = match text.split_once(':') {
            Some(("http", rest)) => (Protocol::Http, rest),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            _ => (Protocol::Tcp, text),
        };
        let (listen, writer) = addresses.split_once('=').ok_or(PortError)?;
        let listen: SocketAddr = listen.parse().map_err(|_| PortError)?;
        let writer: SocketAddr = writer.parse().map_err(|_| PortError)?;
        if listen == writer {
            return Err(PortError);
        }
        Ok(Self {
            protocol,
            listen,
            writer,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_names_where_users_and_where_the_writer_are() {
        let port: Port = "http:10.0.0.7:8080=127.0.0.1:8081".parse().unwrap();
        assert_eq!(port.protocol, Protocol::Http);
        assert_eq!(port.listen, "10.0.0.7:8080".parse().unwrap());
        let port: Port = "[::1]:5432=127.0.0.1:5433".parse().unwrap();
        assert_eq!(
            (port.protocol, port.writer),
            (Protocol::Tcp, "127.0.0.1:5433".parse().unwrap())
        );
    }

    #[test]
    fn a_port_that_makes_no_sense_is_refused() {
        for text in [
            "",
            "8080",
            "127.0.0.1:1",
            "127.0.0.1:1=127.0.0.1:1",
            "http:=127.0.0.1:1",
            "udp:127.0.0.1:1=127.0.0.1:2",
        ] {
            assert_eq!(text.parse::<Port>(), Err(PortError), "{text}");
        }
    }
}
