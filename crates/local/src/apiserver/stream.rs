//! What takes over a connection: `portforward` of a pod; `exec` and `attach`, which are refused.
//!
//! kubectl carries port-forward as [`spdy`](crate::machinery::spdy) inside a WebSocket, or by itself after an upgrade of
//! HTTP ([`tunnel`]); kube-rs as numbered channels of a WebSocket ([`channels`]). All end at the pod's address: everything of
//! a region is on one machine.

mod channels;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::call::Call;
use super::log::chosen_container;
use super::object;
use super::status::Failure;
use crate::machinery::kinds::Subresource;

/// SPDY in the binary messages of a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Two numbered channels for each port.
const CHANNELS: &str = "v4.channel.k8s.io";
const SPDY: &str = "SPDY/3.1";
const PROTOCOL: &str = "portforward.k8s.io";
/// How long a pod may take to accept.
const CONNECT: Duration = Duration::from_secs(5);

/// Where connections are to lead.
#[derive(Clone, Debug)]
struct Target {
    pod: String,
    ip: IpAddr,
}

impl Target {
    /// Connects to a port of the pod; the error is for the user.
    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let address = SocketAddr::new(self.ip, port);
        let failed = |why: String| {
            format!(
                "nothing takes connections on {address} of pod {}: {why}; an application in a local region listens on its \
                 POD_IP",
                self.pod
            )
        };
        match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("no answer within {CONNECT:?}"))),
        }
    }
}

impl Call {
    /// `GET` or `POST` of a subresource that takes over the connection.
    pub(crate) async fn stream(&self, subresource: Subresource, parts: Parts) -> Result<Response, Failure> {
        if parts.method != Method::GET && parts.method != Method::POST {
            return Err(Failure::method_not_allowed());
        }
        let pod = self.get()?;
        if subresource != Subresource::PortForward {
            chosen_container(&pod, self.query.get("container"))?;
            return Err(refused(subresource));
        }
        if object::str_at(&pod, "/spec/nodeName").is_empty() {
            let message = format!("pod {} does not have a host assigned", self.name);
            return Err(Failure::bad_request(message));
        }
        let ip = object::str_at(&pod, "/status/podIP").parse().map_err(|_| {
            let message = format!("pod {} has no address yet; wait until it runs and try again", self.name);
            Failure::bad_request(message)
        })?;
        let target = Target {
            pod: self.name.clone(),
            ip,
        };
        self.forward(target, parts).await
    }

    async fn forward(&self, target: Target, mut parts: Parts) -> Result<Response, Failure> {
        let stop = self.app.stop.clone();
        let asks = |name: &header::HeaderName, value: &str| {
            let values = parts.headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
            values
                .flat_map(|v| v.split(','))
                .any(|v| v.trim().eq_ignore_ascii_case(value))
        };
        if asks(&header::UPGRADE, SPDY) {
            let Some(upgrade) = parts.extensions.remove::<hyper::upgrade::OnUpgrade>() else {
                return Err(Failure::bad_request("this connection cannot be upgraded"));
            };
            tokio::spawn(async move {
                if let Ok(stream) = upgrade.await {
                    stop.run_until_cancelled(tunnel::serve(TokioIo::new(stream), target))
                        .await;
                }
            });
            return Ok(switching());
        }
        if !asks(&header::UPGRADE, "websocket") {
            return Err(Failure::bad_request("Upgrade request required"));
        }
        let ports = channels::ports(self.query.all("ports"));
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
        let upgrade = upgrade.map_err(|rejection| Failure::bad_request(rejection.to_string()))?;
        let upgrade = upgrade.protocols([TUNNEL, CHANNELS]);
        if upgrade.selected_protocol().is_some_and(|protocol| protocol == TUNNEL) {
            return Ok(upgrade.on_upgrade(async move |socket| {
                stop.run_until_cancelled(tunnel::serve_in(socket, target)).await;
            }));
        }
        let ports = ports.map_err(Failure::bad_request)?;
        Ok(upgrade.on_upgrade(async move |socket| {
            stop.run_until_cancelled(channels::serve(socket, target, ports)).await;
        }))
    }
}

fn switching() -> Response {
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(PROTOCOL));
    response
}

fn refused(subresource: Subresource) -> Failure {
    let message = format!(
        "a local region has no {}: its containers are processes that nobody enters, so nothing was run or copied. Read what \
         the application says with \"kubectl logs\", reach its ports with \"kubectl port-forward\", give it files in a \
         ConfigMap; use a real cluster where exec, attach or cp is needed",
        subresource.path()
    );
    Failure::new(501, "NotImplemented", message)
}
