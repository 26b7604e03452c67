//! Asks once.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// What a probe asks, with everything resolved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::node) enum Target {
    /// An HTTP request that is to be answered with 200 to 399.
    Http {
        address: SocketAddr,
        host: String,
        path: String,
        headers: Vec<(String, String)>,
    },
    /// A connection that is to be accepted.
    Tcp(SocketAddr),
    /// A command in the container that is to exit with 0.
    Exec(Vec<String>),
    /// A declared probe that cannot be asked; it always fails, and says why.
    Broken(String),
}

impl Target {
    /// What `probe` of `container` asks at `ip`; nothing when it declares no action.
    pub(in crate::node) fn of(probe: &Probe, container: &Container, ip: IpAddr) -> Option<Self> {
        if let Some(exec) = &probe.exec {
            return Some(Self::Exec(exec.command.clone().unwrap_or_default()));
        }
        if let Some(get) = &probe.http_get {
            return Some(Self::http(get, container, ip));
        }
        if let Some(socket) = &probe.tcp_socket {
            let target = address(socket.host.as_deref(), &socket.port, container, ip);
            return Some(target.map_or_else(Self::Broken, Self::Tcp));
        }
        probe
            .grpc
            .as_ref()
            .map(|_| Self::Broken("gRPC probes are not supported by local regions".to_owned()))
    }

    fn http(get: &HTTPGetAction, container: &Container, ip: IpAddr) -> Self {
        if get
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
        {
            return Self::Broken("HTTPS probes are not supported by local regions; use tcpSocket".to_owned());
        }
        let address = match address(get.host.as_deref(), &get.port, container, ip) {
            Ok(address) => address,
            Err(message) => return Self::Broken(message),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut host = address.to_string();
        for header in get.http_headers.iter().flatten() {
            if header.name.eq_ignore_ascii_case("host") {
                host.clone_from(&header.value);
            } else {
                headers.push((header.name.clone(), header.value.clone()));
            }
        }
        let path = get
            .path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".to_owned());
        let path = if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        Self::Http {
            address,
            host,
            path,
            headers,
        }
    }
}

fn address(host: Option<&str>, port: &IntOrString, container: &Container, ip: IpAddr) -> Result<SocketAddr, String> {
    let host = match host.filter(|host| !host.is_empty()) {
        Some(host) => host
            .parse()
            .map_err(|_| format!("the probe's host {host:?} is not an IP address"))?,
        None => ip,
    };
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match name.parse() {
            Ok(number) => number,
            Err(_) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port)
                .ok_or_else(|| format!("the container has no port named {name:?}"))?,
        },
    };
    u16::try_from(number)
        .map(|port| SocketAddr::new(host, port))
        .map_err(|_| format!("{number} is not a port"))
}

/// Asks `target` once; exec probes are not asked here. The error says what was wrong, for the event.
pub(in crate::node) async fn check(target: &Target, timeout: Duration) -> Result<(), String> {
    let asked = async {
        match target {
            Target::Tcp(address) => TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|error| format!("connect to {address}: {error}")),
            Target::Http {
                address,
                host,
                path,
                headers,
            } => http(*address, host, path, headers).await,
            Target::Exec(_) => Err("an exec probe needs its container".to_owned()),
            Target::Broken(message) => Err(message.clone()),
        }
    };
    tokio::time::timeout(timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
}

async fn http(address: SocketAddr, host: &str, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let url = format!("GET http://{address}{path}");
    let fail = |error: &dyn std::fmt::Display| format!("{url}: {error}");
    let stream = TcpStream::connect(address).await.map_err(|error| fail(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fail(&error))?;
    let mut request = http::Request::get(path)
        .header("host", host)
        .header("user-agent", "kube-probe/leeward")
        .header("connection", "close");
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| fail(&error))?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer.map_err(|error| fail(&error))?.status().as_u16();
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(fail(&format!("status {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(probe: serde_json::Value) -> Target {
        let container = serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 80}]}));
        let probe: Probe = serde_json::from_value(probe).unwrap();
        Target::of(&probe, &container.unwrap(), "127.1.17.1".parse().unwrap()).unwrap()
    }

    #[test]
    fn ports_and_hosts_are_resolved() {
        let tcp = |address: &str| Target::Tcp(address.parse().unwrap());
        assert_eq!(target(json!({"tcpSocket": {"port": "web"}})), tcp("127.1.17.1:80"));
        assert_eq!(
            target(json!({"tcpSocket": {"port": 5, "host": "127.0.0.9"}})),
            tcp("127.0.0.9:5")
        );
        assert!(matches!(
            target(json!({"tcpSocket": {"port": "none"}})),
            Target::Broken(_)
        ));
        let Target::Http {
            host, path, headers, ..
        } = target(json!({"httpGet": {"port": 8080, "path": "healthz",
            "httpHeaders": [{"name": "Host", "value": "x.example"}, {"name": "A", "value": "b"}]}}))
        else {
            panic!("not http")
        };
        assert_eq!(
            (host.as_str(), path.as_str(), headers.len()),
            ("x.example", "/healthz", 1)
        );
    }

    #[tokio::test]
    async fn an_answer_is_judged_by_its_status() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            for status in ["200 OK", "503 Busy"] {
                let (mut stream, _) = server.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream
                    .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                    .await;
            }
        });
        let target = Target::Http {
            address,
            host: "x".into(),
            path: "/".into(),
            headers: Vec::new(),
        };
        assert_eq!(check(&target, Duration::from_secs(5)).await, Ok(()));
        assert!(
            check(&target, Duration::from_secs(5))
                .await
                .unwrap_err()
                .contains("503")
        );
        assert!(check(&target, Duration::from_secs(5)).await.is_err());
    }
}
