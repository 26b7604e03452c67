//! What a gate is told on its command line.

use std::{
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    path::PathBuf,
    str::FromStr,
};

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
        required_unless_present_any = ["become_writer", "install"]
    )]
    pub roles: Vec<RoleKey>,
    /// Where users connect to, and where the writer listens; repeat it for several. A port alone is one of this pod's address, and for the
    /// writer one of 127.0.0.1.
    #[arg(
        long = "port",
        value_name = "[http|tcp|live:]LISTEN=WRITER",
        required_unless_present_any = ["become_writer", "install"]
    )]
    pub ports: Vec<Port>,
    /// Where the Secret that the region's agent writes is mounted.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/run/leeward/gate")]
    pub directory: PathBuf,
    /// This pod's UID.
    #[arg(
        long,
        env = "POD_UID",
        value_name = "UID",
        required_unless_present_any = ["become_writer", "install"]
    )]
    pub pod: Option<String>,
    /// This pod's address, for ports without one.
    #[arg(long, env = "POD_IP", value_name = "ADDRESS")]
    pub ip: Option<IpAddr>,
    /// Copies this program to DIRECTORY/leeward-gate and ends. It has to be a static build, as it is for other images.
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["roles", "ports", "command"])]
    pub install: Option<PathBuf>,
    /// Becomes the writer of the gate with this process ID.
    #[arg(long, hide = true, value_name = "PID")]
    pub become_writer: Option<i32>,
    /// The writer and its arguments.
    #[arg(last = true, required_unless_present = "install", value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Arguments {
    /// What is wrong with them as a whole.
    ///
    /// # Errors
    /// For a person.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let listens: Vec<_> = self.ports.iter().map(|port| port.listen.at(self.ip)).collect();
        let is_twice = |(n, listen): (usize, &Option<SocketAddr>)| listens[n + 1..].contains(listen);
        match (&self.roles[..], self.pod.as_deref(), &self.command[..]) {
            (_, None | Some(""), _) => Err("--pod is empty: give the pod's UID, or POD_UID in the environment"),
            (_, _, [program, ..]) if program.is_empty() => Err("the writer's command is empty"),
            ([first, rest @ ..], ..) if rest.iter().any(|role| role.app != first.app) => {
                Err("the roles are of several applications: give those of one")
            }
            _ if listens.contains(&None) => {
                Err("a port has no address: give it one, or the pod's as --ip or as POD_IP in the environment")
            }
            _ if listens.iter().enumerate().any(is_twice) => Err("two ports listen on the same address"),
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
    pub listen: Listen,
    /// Where the writer listens.
    pub writer: SocketAddr,
}

/// Where users connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// At a port of the pod's address, which is known only once the pod runs.
    Pod(NonZeroU16),
    /// At an address.
    At(SocketAddr),
}

impl Listen {
    /// The address, in a pod with this one; none where that is needed and not known.
    pub fn at(self, pod: Option<IpAddr>) -> Option<SocketAddr> {
        match self {
            Self::Pod(port) => Some(SocketAddr::new(pod?, port.get())),
            Self::At(address) => Some(address),
        }
    }
}

/// A port that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected LISTEN=WRITER, two ports such as http:8080=8081, or two different addresses such as http:10.0.0.7:8080=127.0.0.1:8081"
)]
pub struct PortError;

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let (protocol, addresses) = match text.split_once(':') {
            Some(("http", rest)) => (Protocol::Http, rest),
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("live", rest)) => (Protocol::Live, rest),
            _ => (Protocol::Tcp, text),
        };
        let (listen, writer) = addresses.split_once('=').ok_or(PortError)?;
        let listen = match listen.parse() {
            Ok(port) => Listen::Pod(port),
            Err(_) => Listen::At(listen.parse().map_err(|_| PortError)?),
        };
        let writer = match writer.parse::<NonZeroU16>() {
            Ok(port) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.get()),
            Err(_) => writer.parse().map_err(|_| PortError)?,
        };
        if listen == Listen::At(writer) {
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
        let at = Listen::At("10.0.0.7:8080".parse().unwrap());
        assert_eq!((port.listen, port.listen.at(None)), (at, "10.0.0.7:8080".parse().ok()));
        let port: Port = "[::1]:5432=127.0.0.1:5433".parse().unwrap();
        assert_eq!(
            (port.protocol, port.writer),
            (Protocol::Tcp, "127.0.0.1:5433".parse().unwrap())
        );
    }

    #[test]
    fn a_port_alone_is_the_pods_and_for_the_writer_the_loopbacks() {
        let port: Port = "live:8080=8080".parse().unwrap();
        assert_eq!((port.protocol, port.listen.at(None)), (Protocol::Live, None));
        assert_eq!(port.writer, "127.0.0.1:8080".parse().unwrap());
        let listens = |ip: &str| port.listen.at(ip.parse().ok());
        assert_eq!(listens("fd00::7"), "[fd00::7]:8080".parse().ok());
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
            (&[role, "--port=1=2", "--pod=u", "--", "w"], "POD_IP"),
            (
                &[role, port, "--port=1=3", "--ip=127.0.0.1", "--pod=u", "--", "w"],
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
            "0=1",
            "1=65536",
            "http:=127.0.0.1:1",
            "udp:127.0.0.1:1=127.0.0.1:2",
        ] {
            assert_eq!(text.parse::<Port>(), Err(PortError), "{text}");
        }
    }
}
