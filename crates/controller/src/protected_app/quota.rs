//! What the quotas of an application's namespace leave for the pods that would be started here. Pure.
//!
//! Flow: of each ResourceQuota, what its status says that it allows and what of it is used -> how many more pods of each workload it lets in, one workload after
//! the other -> the workloads that it does not let in as a whole.
//!
//! A quota counts pods and what they request and are limited to. What else a quota counts (Services, claims, storage) is here already where the
//! application stands by, or the API server has refused it, which is told. Left out: what a LimitRange gives to pods that ask for nothing.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::{PodSpec, ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement};
use kube::ResourceExt as _;
use leeward_core::{
    capacity::{
        CAPACITY,
        pod::{Amounts, PODS},
    },
    quantity::Amount,
};

use crate::room;

/// What one pod of a workload counts as.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Counted {
    requests: Amounts,
    limits: Amounts,
    priority_class: String,
    ends_by_itself: bool,
}

/// The pods of a workload that do not run here yet, and would have to.
pub(super) struct Demand<'a> {
    pub(super) workload: &'a str,
    pub(super) pods: u32,
    /// How many of it are here already.
    pub(super) here: u32,
    pub(super) counted: &'a Counted,
}

/// A workload of which a quota does not let all pods in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lack {
    workload: String,
    pods: u32,
    here: u32,
    room_for: u32,
    quota: String,
    /// What of it is too little: the resource, what is allowed, what is used.
    short_of: Vec<(String, Amount, Amount)>,
}

impl Lack {
    /// Whether not a single pod would run. With fewer pods than it should have, a workload still serves.
    pub(super) fn is_whole(&self) -> bool {
        self.here + self.room_for == 0
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workload,
            pods,
            room_for,
            quota,
            ..
        } = self;
        let noun = if *pods == 1 { "pod" } else { "pods" };
        let short = self.short_of.iter();
        let short: Vec<_> = short
            .map(|(name, hard, used)| format!("{name} ({used} of {hard} used)"))
            .collect();
        write!(
            f,
            "{CAPACITY}ResourceQuota {quota} lets {room_for} of {pods} {noun} of {workload} in: short of {}",
            short.join(", ")
        )
    }
}

impl Counted {
    /// Of the pods of a template.
    pub(super) fn of(template: &PodSpec) -> Self {
        Self {
            requests: room::pod(template).requests,
            limits: room::limits(template),
            priority_class: template.priority_class_name.clone().unwrap_or_default(),
            ends_by_itself: template.active_deadline_seconds.is_some(),
        }
    }

    /// Of a resource as quotas name it; zero of what is not counted of pods.
    fn amount(&self, resource: &str) -> Amount {
        if let Some(name) = resource.strip_prefix("limits.") {
            return self.limits.get(name);
        }
        match resource.strip_prefix("requests.").unwrap_or(resource) {
            "count/pods" | PODS => Amount::whole(1),
            name => self.requests.get(name),
        }
    }

    fn is_best_effort(&self) -> bool {
        let asks = |amounts: &Amounts| ["cpu", "memory"].iter().any(|name| amounts.get(name) > Amount::ZERO);
        !asks(&self.requests) && !asks(&self.limits)
    }

    /// Whether a quota is about such pods.
    fn is_in(&self, quota: &ResourceQuotaSpec) -> bool {
        let plain = quota.scopes.iter().flatten();
        let plain = plain.map(|scope| (scope.as_str(), None));
        let selected = quota
            .scope_selector
            .iter()
            .flat_map(|selector| selector.match_expressions.iter().flatten());
        let selected = selected.map(|wanted| (wanted.scope_name.as_str(), Some(wanted)));
        plain.chain(selected).all(|(scope, wanted)| match scope {
            "Terminating" => self.ends_by_itself,
            "NotTerminating" => !self.ends_by_itself,
            "BestEffort" => self.is_best_effort(),
            "NotBestEffort" => !self.is_best_effort(),
            "PriorityClass" => self.has_priority(wanted),
            // Of a scope that is not known here nobody can say that it refuses anything.
            _ => false,
        })
    }

    fn has_priority(&self, wanted: Option<&ScopedResourceSelectorRequirement>) -> bool {
        let class = &self.priority_class;
        let listed = || {
            wanted
                .and_then(|wanted| wanted.values.as_ref())
                .is_some_and(|all| all.contains(class))
        };
        match wanted.map_or("Exists", |wanted| wanted.operator.as_str()) {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => !class.is_empty(),
            "DoesNotExist" => class.is_empty(),
            _ => false,
        }
    }
}

/// What a quota allows and what of it is used, by resource.
struct Left {
    quota: String,
    spec: ResourceQuotaSpec,
    by_resource: BTreeMap<String, (Amount, Amount)>,
}

impl Left {
    /// None where its status does not say yet what it allows.
    fn of(quota: &ResourceQuota) -> Option<Self> {
        let status = quota.status.as_ref()?;
        let used = |name: &String| {
            let used = status.used.as_ref().and_then(|used| used.get(name));
            used.and_then(|used| Amount::parse(&used.0)).unwrap_or_default()
        };
        let hard = status.hard.as_ref()?.iter();
        let each = hard.filter_map(|(name, hard)| Some((name.clone(), (Amount::parse(&hard.0)?, used(name)))));
        Some(Self {
            quota: quota.name_any(),
            spec: quota.spec.clone().unwrap_or_default(),
            by_resource: each.collect(),
        })
    }

    fn lets_in(&self, counted: &Counted) -> u32 {
        let each = self.by_resource.iter();
        let each = each.map(|(name, (hard, used))| counted.amount(name).times_in(hard.less(*used)));
        each.min().unwrap_or(u32::MAX)
    }

    fn take(&mut self, counted: &Counted, pods: u32) {
        for (name, (_, used)) in &mut self.by_resource {
            *used = used.plus(counted.amount(name).times(pods));
        }
    }

    /// What is too little for one more.
    fn short_of(&self, counted: &Counted) -> Vec<(String, Amount, Amount)> {
        let each = self.by_resource.iter();
        let short = each.filter(|(name, (hard, used))| counted.amount(name).times_in(hard.less(*used)) == 0);
        short.map(|(name, (hard, used))| (name.clone(), *hard, *used)).collect()
    }
}

/// The workloads of which the namespace's quotas do not let all pods in, and what is not known of them.
pub(super) fn lacking<'a>(
    quotas: impl IntoIterator<Item = &'a ResourceQuota>,
    demands: &[Demand<'_>],
) -> (Vec<Lack>, Vec<String>) {
    let (mut left, mut unknown, mut lacks) = (vec![], vec![], vec![]);
    for quota in quotas {
        match Left::of(quota) {
            Some(found) => left.push(found),
            None => unknown.push(format!(
                "{CAPACITY}how much of ResourceQuota {} is used: its status does not say yet",
                quota.name_any()
            )),
        }
    }
    for demand in demands.iter().filter(|demand| demand.pods > 0) {
        let mut about: Vec<&mut Left> = left
            .iter_mut()
            .filter(|left| demand.counted.is_in(&left.spec))
            .collect();
        let Some(room_for) = about.iter().map(|left| left.lets_in(demand.counted)).min() else {
            continue;
        };
        let room_for = room_for.min(demand.pods);
        for left in &mut about {
            left.take(demand.counted, room_for);
        }
        if room_for == demand.pods {
            continue;
        }
        let mut tight = about.iter().map(|left| (left, left.short_of(demand.counted)));
        if let Some((left, short_of)) = tight.find(|(_, short)| !short.is_empty()) {
            lacks.push(Lack {
                workload: demand.workload.to_owned(),
                pods: demand.pods,
                here: demand.here,
                room_for,
                quota: left.quota.clone(),
                short_of,
            });
        }
    }
    (lacks, unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn quota(name: &str, spec: Value, hard: Value, used: Value) -> ResourceQuota {
        let quota = json!({ "metadata": { "name": name, "namespace": "shop" }, "spec": spec, "status": { "hard": hard, "used": used } });
        serde_json::from_value(quota).unwrap()
    }

    fn counted(requests: Value, limits: Value, more: Value) -> Counted {
        let mut spec =
            json!({ "containers": [{ "name": "a", "resources": { "requests": requests, "limits": limits } }] });
        json_patch::merge(&mut spec, &more);
        Counted::of(&serde_json::from_value(spec).unwrap())
    }

    fn web(pods: u32, here: u32, counted: &Counted) -> Demand<'_> {
        Demand {
            workload: "Deployment web",
            pods,
            here,
            counted,
        }
    }

    /// How many are let in, of three.
    fn let_in(spec: Value, hard: Value, used: Value, counted: &Counted) -> u32 {
        let (lacks, unknown) = lacking([&quota("compute", spec, hard, used)], &[web(3, 0, counted)]);
        assert!(unknown.is_empty());
        lacks.first().map_or(3, |lack| lack.room_for)
    }

    #[test]
    fn what_is_allowed_less_what_is_used_is_what_is_left() {
        let pod = counted(
            json!({ "cpu": "500m", "memory": "1Gi", "example.com/gpu": "1" }),
            json!({ "cpu": "1", "example.com/gpu": "1" }),
            json!({}),
        );
        for (hard, used, room_for) in [
            (json!({ "requests.cpu": "2" }), json!({ "requests.cpu": "500m" }), 3),
            (json!({ "requests.cpu": "2" }), json!({ "requests.cpu": "700m" }), 2),
            (json!({ "cpu": "2" }), json!({ "cpu": "2" }), 0),
            // It was made smaller than what was there.
            (json!({ "cpu": "2" }), json!({ "cpu": "3" }), 0),
            (json!({ "memory": "2Gi" }), json!({}), 2),
            (json!({ "requests.memory": "10Gi", "limits.cpu": "1" }), json!({}), 1),
            (json!({ "pods": "5" }), json!({ "pods": "4" }), 1),
            (json!({ "count/pods": "5" }), json!({ "count/pods": "3" }), 2),
            (json!({ "requests.example.com/gpu": "1" }), json!({}), 1),
            (
                json!({ "limits.memory": "1Gi", "services": "0", "requests.storage": "0", "count/secrets": "0" }),
                json!({}),
                3,
            ),
        ] {
            assert_eq!(
                let_in(json!({}), hard.clone(), used.clone(), &pod),
                room_for,
                "{hard} {used}"
            );
        }
    }

    #[test]
    fn a_quota_counts_only_pods_that_are_in_its_scopes() {
        let small = counted(
            json!({ "cpu": "1m" }),
            json!({}),
            json!({ "priorityClassName": "gold" }),
        );
        let none = counted(json!({}), json!({}), json!({}));
        let selects = |operator: &str, values: Value| json!({ "scopeSelector": { "matchExpressions": [{ "scopeName": "PriorityClass", "operator": operator, "values": values }] } });
        for (spec, small_in, none_in) in [
            (json!({}), 0, 0),
            (json!({ "scopes": ["BestEffort"] }), 3, 0),
            (json!({ "scopes": ["NotBestEffort"] }), 0, 3),
            (json!({ "scopes": ["NotTerminating"] }), 0, 0),
            (json!({ "scopes": ["Terminating"] }), 3, 3),
            (json!({ "scopes": ["NotTerminating", "BestEffort"] }), 3, 0),
            (json!({ "scopes": ["CrossNamespacePodAffinity"] }), 3, 3),
            (json!({ "scopes": ["PriorityClass"] }), 0, 3),
            (selects("In", json!(["gold"])), 0, 3),
            (selects("In", json!(["iron"])), 3, 3),
            (selects("NotIn", json!(["gold"])), 3, 0),
            (selects("Exists", json!([])), 0, 3),
            (selects("DoesNotExist", json!([])), 3, 0),
        ] {
            let pods = || (json!({ "pods": "0" }), json!({}));
            let of = |counted| {
                let (hard, used) = pods();
                let_in(spec.clone(), hard, used, counted)
            };
            assert_eq!((of(&small), of(&none)), (small_in, none_in), "{spec}");
        }
    }

    #[test]
    fn workloads_share_what_is_left_and_each_lack_names_the_quota() {
        let pod = counted(json!({ "cpu": "1" }), json!({}), json!({}));
        let quotas = [
            quota("wide", json!({}), json!({ "pods": "100" }), json!({ "pods": "2" })),
            quota(
                "compute",
                json!({}),
                json!({ "requests.cpu": "4" }),
                json!({ "requests.cpu": "1500m" }),
            ),
        ];
        let api = Demand {
            workload: "Deployment api",
            pods: 1,
            here: 0,
            counted: &pod,
        };
        let said = |demands: &[Demand<'_>]| {
            let (lacks, _) = lacking(&quotas, demands);
            lacks
                .iter()
                .map(|lack| (lack.to_string(), lack.is_whole()))
                .collect::<Vec<_>>()
        };
        assert_eq!(said(&[web(1, 0, &pod), api]), []);
        let api = Demand {
            workload: "Deployment api",
            pods: 1,
            here: 0,
            counted: &pod,
        };
        let lacks = said(&[web(3, 0, &pod), api]);
        let part = "capacity: ResourceQuota compute lets 2 of 3 pods of Deployment web in: short of requests.cpu (3500m of 4 used)";
        let whole = "capacity: ResourceQuota compute lets 0 of 1 pod of Deployment api in: short of requests.cpu (3500m of 4 used)";
        assert_eq!(lacks, [(part.to_owned(), false), (whole.to_owned(), true)]);
        // What is here already needs no more, and serves.
        assert_eq!(said(&[web(0, 3, &pod)]), []);
        assert!(said(&[web(5, 1, &pod)]).iter().all(|(_, whole)| !whole));
    }

    #[test]
    fn of_a_quota_that_nobody_has_counted_yet_it_is_said_that_nothing_is_known() {
        let pod = counted(json!({ "cpu": "1" }), json!({}), json!({}));
        let new: ResourceQuota =
            serde_json::from_value(json!({ "metadata": { "name": "new" }, "spec": { "hard": { "pods": "0" } } }))
                .unwrap();
        let (lacks, unknown) = lacking([&new], &[web(3, 0, &pod)]);
        assert!(lacks.is_empty());
        assert!(unknown[0].contains("ResourceQuota new"), "{unknown:?}");
    }
}
