//! One application in this cluster: brings it to the mode that the plan gives it, executes the steps that are this
//! cluster's, and says what is here.
//!
//! Flow of one round, for each application in a task of its own, whenever something changed and at least every second:
//! mode (pure) -> workloads and data -> step -> report -> status.

pub mod accept;
pub mod admission;
mod autoscalers;
pub mod capacity;
pub mod carried;
pub mod carry;
mod chosen;
mod compare;
pub mod data;
mod here;
pub mod kept;
mod quota;
mod set_back;
pub mod show;
pub mod status;
pub mod steps;
pub mod table;
pub mod turn;
pub mod validate;
pub mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use leeward_core::{
    app::App,
    execute::{self, Mode},
    lease::{Hold, Moment},
    name::{AppKey, Epoch, RoleKey},
};
use leeward_images::inventory::Inventory;
use leeward_quorum::known::{Known, Situation};
use leeward_state::api_text;
use leeward_state::config::{Id, Keeper, Kept, Running};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{capacity::Capacity, carried::Carried, compare::Compared, set_back::SetBack, turn::Turns};
use crate::{agent::Agent, cache::Cache, clock, gates::Gates, pace::Pace};

/// A round at least this often, while nothing changes.
const IDLE: Duration = Duration::from_secs(1);
/// A round at least this often, while a step is this cluster's.
const BUSY: Duration = Duration::from_millis(50);
/// What the rounds of all applications share.
pub struct Context {
    /// This agent.
    pub agent: Arc<Agent>,
    /// This cluster's API.
    pub client: Client,
    /// What is in this cluster.
    pub cache: Cache,
    /// The images of this region.
    pub inventory: Inventory,
    /// Whether one that is not among them is lacking.
    pub images_from_registry: bool,
    /// The data of the roles.
    pub data: data::Data,
    /// Where the gates of this region ask, if there are any.
    pub gates: Option<Arc<Gates>>,
    /// What this cluster offers to the others.
    pub bundles: carry::Bundles,
    /// What the others offered, on disk.
    pub kept: Kept,
    /// Whose turn it is to be started here.
    pub turns: Turns,
    /// Ready endpoints by application, for the edge.
    pub backends: watch::Sender<BTreeMap<AppKey, Vec<std::net::SocketAddr>>>,
}

/// Runs a task for each application until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let mut tasks: BTreeMap<AppKey, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
    let mut changes = context.agent.changes();
    let mut swept = false;
    loop {
        let known = context.agent.known();
        // Before everything was read, what is protected looks as if it were not.
        if !swept && known.view.revision() > 0 {
            swept = true;
            sweep(&context, &known).await;
        }
        let wanted: BTreeSet<AppKey> = known.situations().map(|s| s.app.value.key.clone()).collect();
        // A copy that is held while the next news comes in has to be copied.
        drop(known);
        for key in &wanted {
            tasks.retain(|_, (_, task)| !task.is_finished());
            tasks.entry(key.clone()).or_insert_with(|| {
                let own = stop.child_token();
                let round = Round::new(Arc::clone(&context), key.clone());
                (own.clone(), tokio::spawn(round.run(own)))
            });
        }
        // A task whose application is gone ends by itself, after it has cleaned up.
        tokio::select! {
            () = stop.cancelled() => break,
            _ = changes.changed() => { changes.borrow_and_update(); }
        }
    }
    for (_, (_, task)) in tasks {
        // It was told to stop; a panic in it was reported already.
        let _ = task.await;
    }
}

/// Removes what was kept of applications that ended while the agent was away.
async fn sweep(context: &Context, known: &Known) {
    let apps: Vec<AppKey> = known.situations().map(|s| s.app.value.key.clone()).collect();
    let kept = context.kept.clone();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || kept.retain(apps.iter())).await {
        tracing::warn!(%error, "what was carried here of applications that are gone could not be removed");
    }
}

struct Round {
    context: Arc<Context>,
    key: AppKey,
    carried: Arc<Carried>,
    helpers: Vec<JoinHandle<()>>,
    compared: Option<Compared>,
    pace: Pace,
    /// Grows with every change in the application's namespace.
    touched: watch::Receiver<u64>,
    lacking: Vec<String>,
    /// What is here, and may be out of date.
    doubtful: Vec<String>,
    /// The tools that keep workloads here.
    keepers: BTreeMap<Id, Keeper>,
    set_back: SetBack,
    capacity: Capacity,
    ungranted_since: Option<Moment>,
    /// What it did last while it served, and since when that is over.
    #[cfg(feature = "unfenced")]
    served: Option<(Mode, Option<Moment>)>,
    /// With the authorities that the gates trust.
    told: Option<(Option<Epoch>, Option<String>)>,
    trouble: Option<String>,
}

impl Drop for Round {
    fn drop(&mut self) {
        for helper in &self.helpers {
            helper.abort();
        }
    }
}

impl Round {
    fn new(context: Arc<Context>, key: AppKey) -> Self {
        let carried = Carried::new(Arc::clone(&context.agent), key.clone(), context.kept.clone());
        let (agent, client) = (Arc::clone(&context.agent), context.client.clone());
        let (touches, touched) = watch::channel(0);
        let offer = carry::offer(agent, client, context.bundles.clone(), key.clone(), touches);
        let helpers = vec![tokio::spawn(offer), tokio::spawn(carried::follow(Arc::clone(&carried)))];
        Self {
            context,
            key,
            carried,
            helpers,
            compared: None,
            pace: Pace::default(),
            touched,
            lacking: vec!["its configuration has not come yet".into()],
            doubtful: vec![],
            keepers: BTreeMap::new(),
            set_back: SetBack::default(),
            capacity: Capacity::default(),
            ungranted_since: None,
            #[cfg(feature = "unfenced")]
            served: None,
            told: None,
            trouble: None,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.context.agent.changes();
        loop {
            changes.borrow_and_update();
            let Some(situation) = self.context.agent.known().situation(&self.key) else {
                return self.end().await;
            };
            let busy = self.once(&situation).await;
            let pause = if busy { BUSY } else { IDLE };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = changes.changed() => {
                    // What belongs together often comes together.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The application is not protected any more.
    async fn end(self) {
        let context = &self.context;
        context.agent.say(&self.key, None);
        context.backends.send_if_modified(|all| all.remove(&self.key).is_some());
        self.carried.forget().await;
        if !context.agent.acts() {
            return;
        }
        if let Err(error) = accept::remove_copy(&context.client, &context.cache, &self.key).await {
            tracing::warn!(app = %self.key, %error, "the copy of the resource could not be removed");
        }
    }

    /// One round; whether the next one should come soon.
    async fn once(&mut self, situation: &Situation) -> bool {
        let context = Arc::clone(&self.context);
        let agent = &context.agent;
        let app = &situation.app.value;
        let mode = self.unfenced(situation, situation.mode(&agent.me));
        let mode = self.effective(app, mode);
        let mut trouble = vec![];
        let has_come = context.turns.has_come(situation, &agent.known(), clock::now());
        let mode = match mode {
            Mode::Serve { .. } if !has_come => Mode::Standby,
            mode => mode,
        };
        if !has_come {
            let together = agent.moves_together;
            trouble.push(format!(
                "its turn to be started: {together} at a time are, those with the tightest rto first"
            ));
        }
        self.forget_what_is_over(situation).await;
        if !agent.acts() {
            self.stand_by(app).await;
            return false;
        }
        if app.authority != agent.me
            && let Err(error) = accept::copy(&context.client, &context.cache, app).await
        {
            // The namespace may not have been carried yet.
            tracing::debug!(app = %self.key, %error, "the copy of the resource could not be applied");
        }
        if let Err(error) = self.reach(situation, mode).await {
            trouble.push(error);
        }
        let step = situation.step(&agent.me);
        if let Some((operation, step)) = step.filter(|_| has_come) {
            let tools = steps::Tools {
                agent,
                client: &context.client,
                cache: &context.cache,
                data: &context.data,
            };
            if let Err(error) = steps::execute(&tools, situation, operation, step).await {
                tracing::debug!(app = %self.key, step = ?step.name, %error, "not done yet");
            }
        }
        self.report(app, mode, &mut trouble).await;
        let trouble = (!trouble.is_empty()).then(|| trouble.join("; "));
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => tracing::info!(app = %self.key, trouble, "waiting"),
                None => tracing::info!(app = %self.key, ?mode, "in order"),
            }
            self.trouble = trouble;
        }
        step.is_some()
    }

    /// Another replica acts: this one touches nothing, and is ready.
    async fn stand_by(&mut self, app: &App) {
        let context = &self.context;
        self.told = None;
        self.compared = None;
        self.trouble = None;
        // It counts from when this one acts.
        self.ungranted_since = None;
        // Two mirrors of a role would overtake one another.
        context.data.forget(app).await;
        context.agent.say(&self.key, None);
        self.serve(app);
    }

    /// Before the application starts here: whatever comes then is newer than what was carried. Not before it cannot stay where it is any more, or a
    /// switchover that is called off would leave this cluster without.
    async fn forget_what_is_over(&self, situation: &Situation) {
        let me = &self.context.agent.me;
        let (roles, journal) = (&situation.roles, &situation.journal);
        let plan = situation.plan();
        let active = plan.is_some_and(|plan| execute::is_active(plan, roles, journal, me));
        let placed = situation.app.value.placement(me).is_some();
        if active || !placed {
            self.carried.forget().await;
        }
        let quiet = plan.is_none_or(|plan| plan.operation.is_none());
        if !placed || active && quiet {
            self.carried.clear();
        }
    }

    /// Test builds only: an agent without fences that was superseded behind its back goes on for a whole lease, as one would that never looks.
    #[cfg(feature = "unfenced")]
    fn unfenced(&mut self, situation: &Situation, mode: Mode) -> Mode {
        let agent = &self.context.agent;
        let asked = situation.plan().is_some_and(|plan| {
            let operation = plan.operation.as_ref();
            operation.is_some_and(|operation| operation.kind == leeward_core::operation::Kind::Switchover)
        });
        if !agent.is_unfenced() || asked || matches!(mode, Mode::Serve { .. }) {
            self.served = matches!(mode, Mode::Serve { .. }).then_some((mode, None));
            return mode;
        }
        let now = clock::now();
        let Some((served, since)) = &mut self.served else {
            return mode;
        };
        let since = *since.get_or_insert(now);
        if now.since(since) < agent.timing.ttl {
            *served
        } else {
            mode
        }
    }

    #[cfg(not(feature = "unfenced"))]
    fn unfenced(&mut self, _: &Situation, mode: Mode) -> Mode {
        mode
    }

    /// The mode, less what the lease does not allow: a writer whose grant has been over for a whole lease steps down.
    fn effective(&mut self, app: &App, mode: Mode) -> Mode {
        let agent = &self.context.agent;
        let roles: Vec<RoleKey> = app.role_keys().collect();
        let now = clock::now();
        if roles.is_empty() || !matches!(mode, Mode::Serve { .. }) || agent.granted(&roles, true).is_some() {
            self.ungranted_since = None;
            return mode;
        }
        let since = *self.ungranted_since.get_or_insert(now);
        if now.since(since) > agent.timing.ttl && !agent.is_unfenced() {
            Mode::Standby
        } else {
            mode
        }
    }

    /// Brings workloads, configuration and data to the mode.
    async fn reach(&mut self, situation: &Situation, mode: Mode) -> Result<(), String> {
        let context = Arc::clone(&self.context);
        let app = &situation.app.value;
        let me = &context.agent.me;
        let workloads = workloads::find(&context.cache, app);
        match mode {
            Mode::Unmanaged => Ok(()),
            Mode::Serve { epoch } => {
                self.set_back.clear();
                let source = situation.plan().is_some_and(|plan| plan.active == *me);
                if !source {
                    self.carry(app, Running::Serve).await?;
                }
                let told = (epoch, context.gates.as_deref().map(Gates::authorities));
                if self.told.as_ref() != Some(&told) {
                    workloads::tell(&context.client, app, me, epoch, context.gates.as_deref())
                        .await
                        .map_err(|e| api_text(&e))?;
                    self.told = Some(told);
                }
                // Called off while they stop, or back in a moment: without a gate the old pods would write on beside the new ones.
                let stopping = workloads::stopping(&context.cache, app, &workloads);
                if epoch.is_some() && stopping > 0 {
                    return Err(format!("the pods that stop here have to end first ({stopping} left)"));
                }
                workloads::run(&context.client, app, &workloads, Running::Serve)
                    .await
                    .map_err(|e| api_text(&e))?;
                match epoch {
                    Some(epoch) => context.data.write(app, epoch).await.map_err(|e| e.to_string()),
                    None => Ok(()),
                }
            }
            Mode::Standby => {
                self.told = None;
                let replicas = app.placement(me).map_or(0, |p| p.standby_replicas);
                self.set_back.look(&workloads, &self.keepers, replicas, clock::now());
                let standby = Running::Standby(replicas);
                workloads::run(&context.client, app, &workloads, standby)
                    .await
                    .map_err(|e| api_text(&e))?;
                let quiet = situation.plan().is_some_and(|plan| plan.operation.is_none());
                if quiet {
                    self.carry(app, standby).await?;
                }
                self.follow(situation, &workloads).await
            }
        }
    }

    /// Receives the data of the roles that another cluster writes.
    async fn follow(&self, situation: &Situation, workloads: &[workloads::Workload]) -> Result<(), String> {
        let context = &self.context;
        let app = &situation.app.value;
        for role in &app.roles {
            let Some(state) = situation.roles.get(&RoleKey::new(app.key.clone(), &role.name)) else {
                continue;
            };
            if state.value.owner == context.agent.me {
                // It waits for a grant: it may be the confirmation of a point that is missing for it. Before its promotion it mirrors.
                if state.value.hold == Hold::Held && situation.is_promoted(&context.agent.me) {
                    let mirrored = context.data.write(app, state.value.epoch).await;
                    mirrored.map_err(|e| e.to_string())?;
                }
                continue;
            }
            let pods = workloads::pods(&context.cache, app, workloads).len();
            if pods > 0 {
                return Err(format!("the data follows once the pods here have ended ({pods} left)"));
            }
            let since = kept::since(situation.plan(), &situation.journal, state.value.epoch);
            context
                .data
                .follow(app, role, state.value.epoch, since)
                .await
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}
