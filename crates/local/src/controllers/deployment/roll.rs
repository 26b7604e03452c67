//! How many pods each set of a Deployment has: when its scale changes, and while a new template rolls out.

use std::cmp::Reverse;

use serde_json::json;

use super::{Set, View, annotations, is_recreate};
use crate::controllers::{
    action::{Action, Kind, Target},
    object,
};

impl<'a> View<'a> {
    fn resize(&self, set: &Set<'_>, replicas: i32) -> Vec<Action> {
        let before = set.replicas();
        if before == replicas {
            return Vec::new();
        }
        let annotations = annotations::scale(self.wanted, self.limits.surge);
        let patch = json!({"metadata": {"annotations": annotations}, "spec": {"replicas": replicas}});
        vec![
            Action::patch(Target::new(Kind::ReplicaSet, &set.set.metadata), patch),
            self.tell_scaled(set.name(), before, replicas),
        ]
    }

    // What a change of the wanted number asks for, also while paused: the only set that has pods, or else the newest, follows it; several
    // share the difference in proportion to their sizes.
    pub(super) fn scale(&self) -> Vec<Action> {
        let active: Vec<&Set<'_>> = self.all().filter(|set| set.replicas() > 0).collect();
        let desired = |set: &Set<'_>| {
            set.annotated(annotations::DESIRED)
                .and_then(|text| text.parse::<i32>().ok())
        };
        let changed = active
            .iter()
            .any(|set| desired(set).is_some_and(|desired| desired != self.wanted));
        if self.spec.paused != Some(true) && !changed {
            return Vec::new();
        }
        match active[..] {
            [] => {
                let newest = self
                    .new
                    .or_else(|| self.old.iter().copied().max_by_key(|set| set.created()));
                newest.map(|set| self.resize(set, self.wanted)).unwrap_or_default()
            }
            [set] => self.resize(set, self.wanted),
            _ => self.scale_in_proportion(active),
        }
    }

    fn scale_in_proportion(&self, mut active: Vec<&Set<'_>>) -> Vec<Action> {
        let saturated = |new: &&Set<'_>| new.replicas() == self.wanted && self.available(new) == self.wanted;
        if self.new.filter(saturated).is_some() {
            return self.old.iter().flat_map(|set| self.resize(set, 0)).collect();
        }
        if is_recreate(self.spec) {
            return Vec::new();
        }
        let most = if self.wanted > 0 {
            self.wanted + self.limits.surge
        } else {
            0
        };
        let missing = most - active.iter().map(|set| set.replicas()).sum::<i32>();
        // Of sets of one size the newer grows first, and the older shrinks first.
        active.sort_by_key(|set| set.created());
        if missing > 0 {
            active.reverse();
        }
        active.sort_by_key(|set| Reverse(set.replicas()));
        let mut given = 0;
        let mut sizes: Vec<i32> = Vec::new();
        for set in &active {
            let left = missing - given;
            let share = self.share(set, most);
            let share = if missing > 0 { share.min(left) } else { share.max(left) };
            let share = if missing == 0 { 0 } else { share };
            given += share;
            sizes.push(set.replicas() + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + missing - given).max(0);
        }
        let resized = active.iter().zip(sizes);
        resized.flat_map(|(set, size)| self.resize_marked(set, size)).collect()
    }

    // By how much a set grows or shrinks to keep its part of the whole.
    fn share(&self, set: &Set<'_>, most: i32) -> i32 {
        let present = set.replicas();
        if most == 0 {
            return -present;
        }
        let before: Option<i32> = set.annotated(annotations::MOST).and_then(|text| text.parse().ok());
        let total = || self.all().map(Set::replicas).sum();
        let before = f64::from(before.filter(|before| *before > 0).unwrap_or_else(total).max(1));
        (f64::from(present) * f64::from(most) / before).round() as i32 - present
    }

    // A set whose size stays is marked all the same: the change of scale is done.
    fn resize_marked(&self, set: &Set<'_>, size: i32) -> Vec<Action> {
        let marks = annotations::scale(self.wanted, self.limits.surge);
        if size != set.replicas() {
            return self.resize(set, size);
        }
        if marks.iter().all(|(key, value)| set.annotated(key) == Some(value)) {
            return Vec::new();
        }
        let patch = json!({"metadata": {"annotations": marks}});
        vec![Action::patch(Target::new(Kind::ReplicaSet, &set.set.metadata), patch)]
    }

    // Also the name of the set that it creates.
    pub(super) fn roll(&self, revision: u64) -> (Vec<Action>, Option<String>) {
        if is_recreate(self.spec) {
            let stopped: Vec<Action> = self.old.iter().flat_map(|set| self.resize(set, 0)).collect();
            // Pods that still run, even if they are about to end, hold what the new ones need.
            let runs = |set: &&Set<'_>| set.pods.iter().any(|pod| !object::has_ended(pod));
            if !stopped.is_empty() || self.old.iter().any(runs) {
                return (stopped, None);
            }
        }
        match self.new {
            None => {
                let others: i32 = self.old.iter().map(|set| set.replicas()).sum();
                let room = self.wanted + self.limits.surge - others;
                let (actions, name) = self.create(revision, room.clamp(0, self.wanted));
                (actions, Some(name))
            }
            Some(new) => (self.roll_on(new), None),
        }
    }

    fn roll_on(&self, new: &Set<'_>) -> Vec<Action> {
        let others: i32 = self.old.iter().map(|set| set.replicas()).sum();
        let room = (self.wanted + self.limits.surge - others - new.replicas()).max(0);
        let scaled = self.resize(new, (new.replicas() + room).min(self.wanted));
        if scaled.is_empty() {
            self.shrink_old(new)
        } else {
            scaled
        }
    }

    // First what serves nobody anyway, then as many as leave enough available.
    fn shrink_old(&self, new: &Set<'_>) -> Vec<Action> {
        let least = self.wanted - self.limits.unavailable;
        let others: i32 = self.old.iter().map(|set| set.replicas()).sum();
        let mut room = others + self.available(new) - least;
        let available: i32 = self.all().map(|set| self.available(set)).sum();
        let mut healthy_room = (available - least).max(0);
        let mut actions = Vec::new();
        for set in &self.old {
            let healthy = self.available(set);
            let broken = (set.replicas() - healthy).min(room).max(0);
            room -= broken;
            // A set drops its broken pods first, so healthy ones go only once no broken one is left in it.
            let drained = if set.replicas() - broken == healthy {
                healthy.min(room).min(healthy_room).max(0)
            } else {
                0
            };
            room -= drained;
            healthy_room -= drained;
            actions.extend(self.resize(set, set.replicas() - broken - drained));
        }
        actions
    }
}
