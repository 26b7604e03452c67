//! What one pod asks of its node.

use std::collections::BTreeMap;

use crate::quantity::Amount;

/// The resource that counts the pods of a node themselves.
pub const PODS: &str = "pods";

/// Amounts by resource: `cpu`, `memory`, `ephemeral-storage`, `pods`, and whatever else nodes offer. One that is not named is zero.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, Amount>);

impl Amounts {
    /// The amount of a resource.
    pub fn get(&self, resource: &str) -> Amount {
        self.0.get(resource).copied().unwrap_or_default()
    }

    /// Sets the amount of a resource.
    pub fn set(&mut self, resource: &str, amount: Amount) {
        match amount {
            Amount::ZERO => drop(self.0.remove(resource)),
            amount => drop(self.0.insert(resource.to_owned(), amount)),
        }
    }

    /// The amounts that are not zero, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds `other` this many times.
    pub fn add(&mut self, other: &Self, times: u32) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).plus(amount.times(times)));
        }
    }

    /// Takes `other` away; what was less is below zero then.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).less(amount));
        }
    }

    /// Of each resource the larger amount of both.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in other.iter() {
            self.set(name, self.get(name).max(amount));
        }
    }

    /// How many times all of it is in `free`.
    pub fn times_in(&self, free: &Self) -> u32 {
        let asked = self.iter().filter(|(_, amount)| *amount > Amount::ZERO);
        let times = asked.map(|(name, amount)| amount.times_in(free.get(name)));
        times.min().unwrap_or(u32::MAX)
    }

    /// The resources of which it is more than in `free`.
    pub fn exceeding(&self, free: &Self) -> impl Iterator<Item = &str> {
        let asked = self.iter().filter(|(_, amount)| *amount > Amount::ZERO);
        asked
            .filter(|(name, amount)| *amount > free.get(name))
            .map(|(name, _)| name)
    }
}

impl FromIterator<(String, Amount)> for Amounts {
    fn from_iter<T: IntoIterator<Item = (String, Amount)>>(amounts: T) -> Self {
        Self(
            amounts
                .into_iter()
                .filter(|(_, amount)| *amount != Amount::ZERO)
                .collect(),
        )
    }
}

/// What a pod's containers request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Containers {
    /// Those that run side by side.
    pub main: Vec<Amounts>,
    /// Those that run before them, in order; whether each goes on beside them (`restartPolicy: Always`).
    pub init: Vec<(bool, Amounts)>,
    /// What the pod as a whole requests in their place; of the resources that it names.
    pub whole: Amounts,
    /// What running it costs beside that.
    pub overhead: Amounts,
}

impl Containers {
    /// What the pod takes of its node, as Kubernetes counts it: the containers and sidecars together, or whatever is needed at
    /// one time before them where that is more; the pod itself is one of [`PODS`].
    pub fn requests(&self) -> Amounts {
        let mut beside = Amounts::default();
        let mut before = Amounts::default();
        for (is_sidecar, amounts) in &self.init {
            let mut now = beside.clone();
            now.add(amounts, 1);
            if *is_sidecar {
                beside = now.clone();
            }
            before.raise_to(&now);
        }
        let mut requests = beside;
        for amounts in &self.main {
            requests.add(amounts, 1);
        }
        requests.raise_to(&before);
        for (name, amount) in self.whole.iter() {
            requests.set(name, amount);
        }
        requests.add(&self.overhead, 1);
        requests.set(PODS, Amount::whole(1));
        requests
    }
}

/// What a pod bears of a node, as Kubernetes has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Toleration {
    /// The taint's key; none for every key.
    pub key: Option<String>,
    /// Whether any value of it is borne (`operator: Exists`).
    pub any_value: bool,
    /// The value that is borne else.
    pub value: String,
    /// The effect; none for every effect.
    pub effect: Option<String>,
}

/// What keeps pods off a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, empty for none.
    pub value: String,
    /// `NoSchedule`, `NoExecute` or `PreferNoSchedule`; the last one keeps no pod off.
    pub effect: String,
}

/// What a pod asks of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// What it takes, itself as one of [`PODS`] included.
    pub requests: Amounts,
    /// What it bears.
    pub tolerations: Vec<Toleration>,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
}

impl Pod {
    /// Whether it may be put where the taint is.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| {
            let key = match &toleration.key {
                Some(key) => *key == taint.key,
                None => toleration.any_value,
            };
            let value = toleration.any_value || toleration.value == taint.value;
            let effect = toleration.effect.as_ref().is_none_or(|effect| *effect == taint.effect);
            key && value && effect
        })
    }
}
