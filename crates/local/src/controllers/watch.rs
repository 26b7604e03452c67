//! One watch for each kind, as changes to the region.

use futures::{Stream, StreamExt, stream::BoxStream, stream::SelectAll};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    core::{NamespaceResourceScope, Resource},
    runtime::{
        WatchStreamExt, watcher,
        watcher::{Config, Event},
    },
};
use serde::de::DeserializeOwned;

use super::region::{Kept, Region};

/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// Whether a change asks for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It does.
    Changed,
    /// It does not.
    Nothing,
}

/// One event of one watch, ready to be put into the region.
pub(super) type Change = Box<dyn FnOnce(&mut Region) -> Effect + Send>;
/// The events of one watch.
pub(super) type Changes = BoxStream<'static, Change>;

/// All watches together.
pub(super) fn all(client: &Client) -> SelectAll<Changes> {
    let mut all = SelectAll::new();
    all.push(everywhere(client, |region| &mut region.namespaces));
    all.push(everywhere(client, |region| &mut region.nodes));
    all.push(everywhere(client, |region| &mut region.pods));
    all.push(everywhere(client, |region| &mut region.services));
    all.push(everywhere(client, |region| &mut region.slices));
    all.push(everywhere(client, |region| &mut region.claims));
    all.push(everywhere(client, |region| &mut region.volumes));
    all.push(everywhere(client, |region| &mut region.classes));
    all.push(everywhere(client, |region| &mut region.deployments));
    all.push(everywhere(client, |region| &mut region.replica_sets));
    all.push(everywhere(client, |region| &mut region.stateful_sets));
    all.push(everywhere(client, |region| &mut region.revisions));
    all.push(everywhere(client, |region| &mut region.daemon_sets));
    all.push(everywhere(client, |region| &mut region.jobs));
    all.push(everywhere(client, |region| &mut region.budgets));
    all.push(leases(client));
    all
}

fn everywhere<K>(client: &Client, kept: fn(&mut Region) -> &mut Kept<K>) -> Changes
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    changes(watcher(Api::<K>::all(client.clone()), Config::default()), kept, |_| {
        Effect::Changed
    })
}

// A renewal is no reason to plan: only its absence is, and for that there is a clock.
fn leases(client: &Client) -> Changes
where
    Lease: Resource<Scope = NamespaceResourceScope>,
{
    let api = Api::<Lease>::namespaced(client.clone(), LEASES);
    changes(
        watcher(api, Config::default()),
        |region| &mut region.leases,
        |event| match event {
            Event::InitDone => Effect::Changed,
            _ => Effect::Nothing,
        },
    )
}

fn changes<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    kept: fn(&mut Region) -> &mut Kept<K>,
    effect: fn(&Event<K>) -> Effect,
) -> Changes
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    events
        .default_backoff()
        // No controller reads who set what, which is half of many an object.
        .modify(|object| object.meta_mut().managed_fields = None)
        .filter_map(move |event| {
            let change = match event {
                Ok(event) => {
                    let effect = effect(&event);
                    let change: Change = Box::new(move |region| {
                        if kept(region).observe(event) {
                            effect
                        } else {
                            Effect::Nothing
                        }
                    });
                    Some(change)
                }
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "a watch broke and is taken up again");
                    None
                }
            };
            std::future::ready(change)
        })
        .boxed()
}
