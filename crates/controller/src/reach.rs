//! Whether this cluster's Kubernetes API answers, said once when it stops and once when it answers again. Every request tells; who asked
//! tries again by itself, so that nothing else needs to be said.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::client::ClientBuilder;
use tower::util::MapResultLayer;

/// A client that says when the API is away.
///
/// # Errors
/// The configuration cannot be used.
pub fn client(config: kube::Config) -> Result<Client, kube::Error> {
    let reach = Arc::new(Reach::default());
    let layer = MapResultLayer::new(move |result| {
        reach.say(&result);
        result
    });
    Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build())
}

/// Since when no request was answered.
#[derive(Debug, Default)]
struct Reach {
    away: Mutex<Option<Instant>>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Away,
    Back(Duration),
}

impl Reach {
    fn say<A, E: Display>(&self, result: &Result<A, E>) {
        match (self.look(result.is_ok(), Instant::now()), result) {
            (Some(News::Away), Err(error)) => tracing::warn!(%error, "the Kubernetes API does not answer"),
            (Some(News::Back(after)), _) => {
                tracing::info!(after_s = after.as_secs(), "the Kubernetes API answers again");
            }
            _ => {}
        }
    }

    fn look(&self, answered: bool, now: Instant) -> Option<News> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match (answered, *away) {
            (false, None) => {
                *away = Some(now);
                Some(News::Away)
            }
            (true, Some(since)) => {
                *away = None;
                Some(News::Back(now.duration_since(since)))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_news_once() {
        let (reach, start) = (Reach::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let said: Vec<_> = [(true, 0), (false, 1), (false, 2), (true, 5), (true, 6), (false, 7)]
            .into_iter()
            .map(|(answered, seconds)| reach.look(answered, at(seconds)))
            .collect();
        let back = Some(News::Back(Duration::from_secs(4)));
        assert_eq!(said, [None, Some(News::Away), None, back, None, Some(News::Away)]);
    }
}
