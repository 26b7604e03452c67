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

impl Arguments {
    /// What is wrong with them as a whole.
    ///
    /// # Errors
    /// For a person.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let is_twice =
            |(n, port): (usize, &Port)| self.ports.iter().skip(n + 1).any(|other| other.listen == port.listen);
        match (&self.roles[..], self.pod.as_deref(), &self.command[..]) {
            (_, None | Some(""), _) => Err("--pod is empty: give the pod's UID, or POD_UID in the environment"),
            (_, _, [program, ..]) if program.is_empty() => Err("the writer's command is empty"),
            ([first, rest @ ..], ..) if rest.iter().any(|role| role.app != first.app) => {
                Err("the roles are of several applications: give those of one")
            }
            _ if self.ports.iter().enumerate().any(is_twice) => Err("two ports listen on the same address"),
            _ => Ok(()),
        }
    }
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
    fn arguments_that_make_no_sense_together_are_refused() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            arguments: Arguments,
        }
        let (role, port) = ("--role=a/b/c", "--port=127.0.0.1:1=127.0.0.1:2");
        for (given, why) in [
            (&[role, port, "--pod=u", "--", "w"][..], ""),
            (&[role, port, "--pod=", "--", "w"], "--pod"),
            (&[role, port, "--pod=u", "--", ""], "command is empty"),
            (
                &[role, "--role=a/x/c", port, "--pod=u", "--", "w"],
                "several applications",
            ),
            (
                &[role, port, "--port=127.0.0.1:1=127.0.0.1:3", "--pod=u", "--", "w"],
                "same address",
            ),
        ] {
            let cli = <Cli as clap::Parser>::try_parse_from([&["gate"], given].concat()).unwrap();
            let wrong = cli.arguments.check().err().unwrap_or_default();
            assert!(
                wrong.contains(why) && wrong.is_empty() == why.is_empty(),
                "{given:?}: {wrong}"
            );
        }
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
