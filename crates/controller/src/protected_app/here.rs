//! What is said of an application in this cluster: what a start here would lack, what serves here already, and the data of its roles.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use leeward_core::{
    app::{App, Model},
    capacity::Lack,
    execute::Mode,
    report::AppReport,
};
use leeward_images::inventory::Inventory;
use leeward_state::config::{self, Bundle, Running};

use super::{Round, compare::overrides, quota, workloads};
use crate::clock;

/// What is not known of a cluster whose nodes pull images from elsewhere.
const IMAGES: &str = "whether its nodes can pull the images: they are pulled from where they are named";

impl Round {
    /// Says what is here.
    pub(super) async fn report(&mut self, app: &App, mode: Mode, trouble: &mut [String]) {
        let context = Arc::clone(&self.context);
        let serves_itself = self.context.bundles.watch(&self.key);
        let serves_itself = serves_itself
            .borrow()
            .as_ref()
            .map(|offered| Arc::clone(&offered.bundle));
        let carried = self.carried.newest();
        let source = matches!(mode, Mode::Serve { .. }) && app.model == Model::ActivePassive;
        let bundle = if source {
            serves_itself.or(carried)
        } else {
            carried.or(serves_itself)
        };
        let mut missing: Vec<String> = trouble.to_vec();
        if !source && app.authority != context.agent.me {
            missing.extend(self.lacking.iter().cloned());
        }
        missing.extend(self.set_back.told(clock::now()));
        missing.extend(self.carried.trouble());
        missing.extend(context.bundles.trouble(&self.key));
        let from_registry = context.images_from_registry;
        if let Some(bundle) = bundle.as_ref().filter(|_| from_registry) {
            missing.extend(images(&context.inventory, bundle));
        }
        let workloads = workloads::find(&context.cache, app);
        let pods = workloads::pods(&context.cache, app, &workloads);
        let (mut short, mut unknown) = (vec![], vec![]);
        if !source {
            unknown.extend(self.doubtful.iter().cloned());
        }
        if !source && !from_registry {
            unknown.push(IMAGES.to_owned());
        }
        if let Some(bundle) = bundle.as_ref().filter(|_| !source) {
            match self.room(app, bundle, &pods) {
                Ok(lacks) => {
                    for lack in lacks {
                        let list = if lack.is_whole() { &mut missing } else { &mut short };
                        list.push(lack.to_string());
                    }
                }
                Err(why) => unknown.push(why.to_owned()),
            }
            let (lacks, not_known) = self.quotas(app, &pods);
            for lack in lacks {
                let list = if lack.is_whole() { &mut missing } else { &mut short };
                list.push(lack.to_string());
            }
            unknown.extend(not_known);
        }
        let backends = self.serve(app);
        let report = AppReport {
            missing,
            short,
            unknown,
            backends,
            pods: pods.len() as u32,
            roles: context.data.report(app).await,
        };
        context.agent.say(&self.key, Some(report));
    }

    /// Tells this replica's edge the application's ready pods; how many there are.
    pub(super) fn serve(&self, app: &App) -> u32 {
        let cache = &self.context.cache;
        let backends = app.traffic.as_ref().map_or_else(Vec::new, |traffic| {
            workloads::backends(&cache.services, &cache.slices, &app.key.namespace, traffic)
        });
        let count = backends.len() as u32;
        let all = &self.context.backends;
        all.send_if_modified(|all| all.insert(self.key.clone(), backends.clone()) != Some(backends));
        count
    }

    /// The workloads whose pods have no room here.
    fn room(&mut self, app: &App, bundle: &Bundle, pods: &[Arc<Pod>]) -> Result<&[Lack], &str> {
        let me = &self.context.agent.me;
        if app.placement(me).is_none() {
            return Ok(&[]);
        }
        let objects = || {
            let own = bundle.source == *me;
            let overrides = if own { vec![] } else { overrides(app, me) };
            // An override that cannot be applied is said where it would be.
            config::desired(bundle, &overrides, Running::Serve).unwrap_or_default()
        };
        let state = format!("{} {}", bundle.hash, app.observed);
        let room = &self.context.cache.room;
        self.capacity.look(room, state, objects, pods, clock::now())
    }

    /// The workloads whose pods the quotas here do not let in, once their room was looked at.
    fn quotas(&self, app: &App, pods: &[Arc<Pod>]) -> (Vec<quota::Lack>, Vec<String>) {
        if app.placement(&self.context.agent.me).is_none() {
            return Default::default();
        }
        let all = self.context.cache.quotas.state();
        let namespace = Some(app.key.namespace.as_str());
        let here = all
            .iter()
            .filter(|quota| quota.metadata.namespace.as_deref() == namespace);
        self.capacity.quotas(here.map(AsRef::as_ref), pods)
    }
}

/// The images of a bundle that are not whole and verified in this region's own store.
fn images(inventory: &Inventory, bundle: &Bundle) -> Vec<String> {
    let wanted: Vec<String> = config::images(&bundle.objects).into_iter().collect();
    inventory
        .check(&wanted)
        .into_iter()
        .filter(|image| !image.state.is_present())
        .filter_map(|image| image.lack())
        .collect()
}
