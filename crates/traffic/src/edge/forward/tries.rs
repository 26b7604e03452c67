//! One try of a request, at the local pods or at another cluster's edge, and what it gave.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;
use leeward_core::{
    name::{ClusterName, Epoch},
    routing::{Endpoint, Profile},
};
use tokio::time::Instant;

use super::{Forwarder, Journey, Try};
use crate::{
    Verdict,
    backends::authority,
    counters::count,
    edge::{
        body::Answer,
        origin::Failure,
        pass::Pass,
        request::{strip_hop_by_hop, strip_own},
    },
    header,
};

/// Local pods that are tried for one request.
const LOCAL_TRIES: usize = 3;

impl Forwarder {
    /// Until when one try may last.
    fn until(&self, journey: &Journey<'_>, profile: &Profile, more: bool) -> Instant {
        match journey.safe && more {
            true => (Instant::now() + Duration::from_millis(profile.timing.try_ms)).min(journey.deadline),
            false => journey.deadline,
        }
    }

    pub(super) async fn try_local(&self, journey: &Journey<'_>, profile: &Profile, more: bool) -> Try {
        let backends = self.shared.backends().clone();
        let pods = backends.of(&profile.app);
        if pods.is_empty() {
            return Try::NotDelivered(format!("{} has no ready pod in {}", profile.app, self.shared.cluster()));
        }
        let pass = match self.admit(profile) {
            Ok(pass) => pass,
            Err(reason) => return self.try_replica(journey, profile, more, reason).await,
        };
        let first = (journey.random >> 32) as usize % pods.len();
        let tries = pods.len().min(LOCAL_TRIES);
        let mut result = Try::NotDelivered(String::new());
        for n in 0..tries {
            let pod = &pods[(first + n) % pods.len()];
            let Ok(request) = journey.head.request(pod, None, journey.body.open()) else {
                return Try::NotDelivered(format!("no request can be made for {pod}"));
            };
            let until = self.until(journey, profile, more || n + 1 < tries);
            let failure = match self.origins.send(request, &journey.body, until).await {
                Ok(response) => return self.let_out(response, journey, pass),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::NotDelivered(_) => journey.body.untouched(),
                _ => journey.safe && Instant::now() < journey.deadline,
            };
            result = failed(failure, &format!("{} at {pod}", profile.app));
            if !again {
                break;
            }
        }
        self.suspect(self.shared.cluster(), profile, &result);
        result
    }

    /// The replica of this edge that may answer for the writer, where there is one; why this one may not.
    async fn try_replica(&self, journey: &Journey<'_>, profile: &Profile, more: bool, reason: String) -> Try {
        let replica = self.shared.replica().filter(|_| !journey.head.of_replica);
        let Some((address, to)) = replica.and_then(|address| Some((address, authority(address)?))) else {
            count(&self.shared.counters().not_admitted);
            return Try::NotDelivered(reason);
        };
        let from = Some(self.shared.cluster());
        let Ok(mut request) = journey.head.request(&to, from, journey.body.open()) else {
            return Try::NotDelivered(format!("no request can be made for {address}"));
        };
        request
            .headers_mut()
            .insert(header::REPLICA, HeaderValue::from_static("1"));
        let cluster = self.shared.cluster().clone();
        let endpoint = Endpoint {
            cluster,
            address,
            priority: 1,
            weight: 1,
            enabled: true,
        };
        let until = self.until(journey, profile, more);
        tokio::select! {
            sent = self.origins.send(request, &journey.body, until) => match sent {
                Ok(response) => self.pass_on(response, journey, profile, &endpoint),
                Err(failure) => failed(failure, &format!("the replica of this edge at {address}")),
            },
            epoch = self.superseded(profile) => fenced(epoch),
        }
    }

    /// The pass for an answer of a local pod; `None` where the profile has no writer.
    fn admit(&self, profile: &Profile) -> Result<Option<Arc<Pass>>, String> {
        let Some(writer) = &profile.writer else { return Ok(None) };
        match self.shared.admit(&profile.app) {
            Verdict::Granted { epoch } if epoch >= writer.epoch => Ok(Some(Arc::new(Pass::new(
                self.shared.clone(),
                profile.app.clone(),
                epoch,
                true,
            )))),
            Verdict::Granted { epoch } => Err(format!(
                "{} may answer for {} in epoch {epoch} only, and epoch {} is known",
                self.shared.cluster(),
                profile.app,
                writer.epoch
            )),
            Verdict::Free => Err(format!("{} holds no grant for {}", self.shared.cluster(), profile.app)),
            Verdict::Refused { reason } => Err(format!(
                "{} may not answer for {}: {reason}",
                self.shared.cluster(),
                profile.app
            )),
        }
    }

    /// The answer of a local pod, if it may still go out.
    fn let_out(&self, response: Response<Incoming>, journey: &Journey<'_>, pass: Option<Arc<Pass>>) -> Try {
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Try::Unknown(
                StatusCode::BAD_GATEWAY,
                "the application switched protocols unasked".to_owned(),
            );
        }
        strip_hop_by_hop(&mut parts.headers);
        strip_own(&mut parts.headers);
        parts.headers.insert(header::CLUSTER, self.cluster.clone());
        if let Some(pass) = &pass {
            if !pass.good() {
                return fenced(pass.epoch());
            }
            parts.headers.insert(header::EPOCH, HeaderValue::from(pass.epoch().0));
            journey.passes.add(pass.clone());
        }
        parts.version = http::Version::HTTP_11;
        let poor = is_gateway_failure(parts.status);
        let response = Response::from_parts(parts, Answer::Stream(body, pass));
        if poor {
            Try::Poor(response)
        } else {
            Try::Answer(response)
        }
    }

    pub(super) async fn try_remote(
        &self,
        journey: &Journey<'_>,
        profile: &Profile,
        endpoint: &Endpoint,
        more: bool,
    ) -> Try {
        count(&self.shared.counters().forwarded_out);
        let from = Some(self.shared.cluster());
        let request =
            authority(endpoint.address).and_then(|to| journey.head.request(&to, from, journey.body.open()).ok());
        let Some(request) = request else {
            return Try::NotDelivered(format!("no request can be made for {}", endpoint.address));
        };
        let until = self.until(journey, profile, more);
        let result = tokio::select! {
            sent = self.origins.send(request, &journey.body, until) => match sent {
                Ok(response) => self.pass_on(response, journey, profile, endpoint),
                Err(failure) => failed(failure, &format!("the edge of {}", endpoint.cluster)),
            },
            epoch = self.superseded(profile) => fenced(epoch),
        };
        self.suspect(&endpoint.cluster, profile, &result);
        result
    }

    /// Ends when the table knows of a higher epoch than the profile has, and says the one that is over. What a writer
    /// that is frozen or cut off answers after that would be held back, so nobody need wait for it.
    async fn superseded(&self, profile: &Profile) -> Epoch {
        let Some(writer) = &profile.writer else {
            return std::future::pending().await;
        };
        loop {
            let changed = self.shared.table_changed();
            if self
                .shared
                .writer_epoch(&profile.app)
                .is_some_and(|epoch| epoch > writer.epoch)
            {
                return writer.epoch;
            }
            changed.await;
        }
    }

    /// What another edge answered, if it may go out.
    fn pass_on(
        &self,
        response: Response<Incoming>,
        journey: &Journey<'_>,
        profile: &Profile,
        endpoint: &Endpoint,
    ) -> Try {
        let (mut parts, body) = response.into_parts();
        match parts.headers.get(header::OUTCOME).map(HeaderValue::as_bytes) {
            Some(b"not-delivered") => return Try::NotDelivered(format!("{} could not deliver it", endpoint.cluster)),
            Some(_) => {
                return Try::Unknown(
                    parts.status,
                    format!("{} does not know what became of it", endpoint.cluster),
                );
            }
            None => {}
        }
        strip_hop_by_hop(&mut parts.headers);
        let epoch = parts
            .headers
            .get(header::EPOCH)
            .and_then(|v| v.to_str().ok()?.parse().ok().map(Epoch));
        let pass = match (&profile.writer, epoch) {
            (None, _) => None,
            (Some(_), None) => {
                let text = format!("{} answered without an epoch", endpoint.cluster);
                return Try::Unknown(StatusCode::BAD_GATEWAY, text);
            }
            (Some(_), Some(epoch)) => {
                let pass = Arc::new(Pass::new(self.shared.clone(), profile.app.clone(), epoch, false));
                if !pass.good() {
                    return fenced(epoch);
                }
                journey.passes.add(pass.clone());
                Some(pass)
            }
        };
        parts.version = http::Version::HTTP_11;
        let poor = is_gateway_failure(parts.status);
        let response = Response::from_parts(parts, Answer::Stream(body, pass));
        if poor {
            Try::Poor(response)
        } else {
            Try::Answer(response)
        }
    }

    fn suspect(&self, cluster: &ClusterName, profile: &Profile, result: &Try) {
        if let Try::NotDelivered(error) | Try::Unknown(_, error) = result {
            tracing::debug!(%cluster, app = %profile.app, error, "a request failed there");
            self.shared
                .health()
                .suspect(cluster, &profile.app, error, &profile.probe);
        }
    }
}

fn failed(failure: Failure, at: &str) -> Try {
    let text = format!("{at}: {failure}");
    match failure {
        Failure::NotDelivered(_) => Try::NotDelivered(text),
        Failure::Broken(_) => Try::Unknown(StatusCode::BAD_GATEWAY, text),
        Failure::Late => Try::Unknown(StatusCode::GATEWAY_TIMEOUT, text),
    }
}

fn fenced(epoch: Epoch) -> Try {
    let text = format!("it was sent in epoch {epoch}, and an answer of that epoch may not be let out any more");
    Try::Unknown(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn is_gateway_failure(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}
