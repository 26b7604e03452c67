//! The regions and the application of a demo: started, asked, and in the end gone.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use kube::{Api, Client as Kube};
use leeward_api::{ProtectedApp, app::MirrorStatus, condition};
use leeward_images::{
    pack::{self, Entry},
    reference::Reference,
};
use leeward_local::instance::{Instance, Options, network::Isolated, processes::cpu_percent};

use super::{Model, picture::Picture, report::Region, volumes};
use crate::{
    apply,
    bring_up::{self, bring_up},
    manifests, output,
    quorum::Quorum,
    sample::record::Record,
};

/// How long the regions are watched while nothing happens, to see what they cost.
const IDLE: Duration = Duration::from_secs(3);

/// How the regions are made.
pub(crate) struct Setting {
    /// What runs where.
    pub(crate) model: Model,
    /// How long a region's lease lives.
    pub(crate) ttl: Duration,
    /// Where leases and decisions live.
    pub(crate) quorum: Quorum,
    /// The directory in which everything stays when this program ends; none for one that goes with it.
    pub(crate) kept: Option<PathBuf>,
    /// For regions in networks of their own.
    pub(crate) isolated: Option<Isolated>,
    /// The regions that ignore their leases.
    #[cfg(feature = "unfenced")]
    pub(crate) unfenced: &'static [&'static str],
}

/// The regions and the application.
pub(crate) struct Stage {
    instance: Option<Instance>,
    directory: PathBuf,
    temporary: Option<tempfile::TempDir>,
    model: Model,
    clients: BTreeMap<String, Kube>,
    regions: Vec<Region>,
    remembered: Vec<Record>,
}

impl Stage {
    /// Makes the directory; starts nothing.
    pub(crate) fn set(setting: Setting) -> anyhow::Result<Self> {
        let options = Options {
            lease_ttl: setting.ttl,
            dies_with_owner: setting.kept.is_none(),
            etcd: setting.quorum.program()?,
            ..Options::default()
        };
        let (directory, temporary) = match setting.kept {
            Some(directory) => {
                if let Some(parent) = directory.parent() {
                    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
                }
                (directory, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("leeward-demo-").tempdir()?;
                (temporary.path().join("regions"), Some(temporary))
            }
        };
        let mut instance = Instance::create(&directory, &["west", "east"], &options)?;
        if let Some(isolated) = setting.isolated {
            instance.separate(isolated)?;
        }
        #[cfg(feature = "unfenced")]
        for region in setting.unfenced {
            unfence(&instance, region)?;
        }
        Ok(Self {
            instance: Some(instance),
            directory,
            temporary,
            model: setting.model,
            clients: BTreeMap::new(),
            regions: vec![],
            remembered: vec![],
        })
    }

    /// The instance; it is there until the stage is struck.
    pub(crate) fn instance(&self) -> anyhow::Result<&Instance> {
        self.instance.as_ref().context("the regions are gone already")
    }

    /// Starts regions and application, and waits until it is protected.
    pub(crate) async fn start(&mut self, picture: &Picture) -> anyhow::Result<()> {
        let image = tokio::task::spawn_blocking(sample_image);
        let ready = bring_up(self.instance()?, |what| picture.say(what)).await?;
        for region in ready {
            picture.say(&format!(
                "region {} is ready after {} ms",
                region.region, region.ready_ms
            ));
            let client = bring_up::client(self.instance()?, &region.region).await?;
            self.clients.insert(region.region.clone(), client);
            self.regions.push(Region {
                name: region.region,
                ready_ms: region.ready_ms,
                ..Region::default()
            });
        }
        for process in self.instance()?.processes()? {
            picture.say(&format!("  {:<14} pid {}", process.name, process.pid));
        }
        let image = image.await??;
        let registry = format!("http://{}", self.instance()?.addresses("west")?.registry());
        let http = reqwest::Client::builder().no_proxy().build()?;
        let digest = image.digest();
        pack::push(&http, &registry, &Reference::parse(manifests::IMAGE)?, &image).await?;
        picture.say(&format!(
            "image {} pushed to west ({} MiB, {digest})",
            manifests::IMAGE,
            image.layers_len() >> 20
        ));
        let west = self.client("west")?;
        let active_active = self.model == Model::ActiveActive;
        let clusters: Vec<String> = self.instance()?.regions().to_vec();
        for object in manifests::objects(active_active) {
            apply::apply(&west, &object, manifests::NAMESPACE).await?;
        }
        apply::apply(
            &west,
            &manifests::protected_app(active_active, &clusters),
            manifests::NAMESPACE,
        )
        .await?;
        picture.say("the application is applied to west");
        let began = Instant::now();
        self.protected(picture, super::PATIENCE).await?;
        picture.say(&format!(
            "the application is Protected after {} ms",
            began.elapsed().as_millis()
        ));
        Ok(())
    }

    /// A client of a region's API.
    pub(crate) fn client(&self, region: &str) -> anyhow::Result<Kube> {
        self.clients
            .get(region)
            .cloned()
            .with_context(|| format!("there is no region {region}"))
    }

    /// The edges of all regions.
    pub(crate) fn edges(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let instance = self.instance()?;
        instance
            .regions()
            .iter()
            .map(|region| Ok(instance.addresses(region)?.ingress()))
            .collect()
    }

    /// The region that is not this one.
    pub(crate) fn other(&self, region: &str) -> anyhow::Result<String> {
        let other = self.instance()?.regions().iter().find(|name| *name != region).cloned();
        other.context("there is only one region")
    }

    /// What the regions' resources say of the application; none where a region does not answer.
    pub(crate) async fn apps(&self) -> BTreeMap<String, ProtectedApp> {
        let mut apps = BTreeMap::new();
        for (region, client) in &self.clients {
            let api: Api<ProtectedApp> = Api::namespaced(client.clone(), manifests::NAMESPACE);
            let asked = tokio::time::timeout(Duration::from_millis(500), api.get(manifests::APP)).await;
            if let Ok(Ok(app)) = asked {
                apps.insert(region.clone(), app);
            }
        }
        apps
    }

    /// The region that serves, by the newest plan that any region knows.
    pub(crate) async fn active(&self) -> Option<String> {
        let apps = self.apps().await;
        let newest = apps
            .values()
            .filter_map(|app| app.status.as_ref())
            .max_by_key(|status| status.generation);
        newest?.active.clone()
    }

    /// Waits until every region says that the application is protected.
    pub(crate) async fn protected(&self, picture: &Picture, patience: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        let mut last = String::new();
        loop {
            let apps = self.apps().await;
            let protected = |app: &ProtectedApp| {
                let conditions = app.status.iter().flat_map(|status| &status.conditions);
                conditions
                    .into_iter()
                    .any(|c| c.type_ == condition::PROTECTED && c.status == "True")
            };
            if apps.len() == self.clients.len() && apps.values().all(protected) {
                return Ok(());
            }
            let statuses = apps.values().filter_map(|app| app.status.as_ref());
            let waits: Vec<_> = statuses
                .flat_map(|status| status.waiting_for.first().cloned())
                .collect();
            let waits = waits.join("; ");
            if waits != last && !waits.is_empty() {
                picture.hint(&format!("waiting for {waits}"));
                last = waits;
            }
            if Instant::now() > end {
                bail!(
                    "the application was not Protected within {} s: waiting for {last}",
                    patience.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the active region has mirrored since it became active.
    pub(crate) async fn mirrored(&self) -> Option<MirrorStatus> {
        let apps = self.apps().await;
        let newest = apps
            .values()
            .filter_map(|app| app.status.as_ref())
            .max_by_key(|status| status.generation)?;
        let active = newest.active.as_ref()?;
        newest.placements.iter().find(|p| p.cluster == *active)?.mirror.clone()
    }

    /// Measures what each region costs while nothing happens.
    pub(crate) async fn measure_idle(&mut self, picture: &Picture) -> anyhow::Result<()> {
        let began = Instant::now();
        let before: Vec<_> = self
            .regions
            .iter()
            .map(|region| self.instance()?.usage(&region.name).map_err(anyhow::Error::from))
            .collect::<Result<_, _>>()?;
        tokio::time::sleep(IDLE).await;
        for (index, before) in before.into_iter().enumerate() {
            let after = self.instance()?.usage(&self.regions[index].name)?;
            let region = &mut self.regions[index];
            region.rss_mib = after.rss_mib.round();
            region.pss_mib = after.pss_mib.round();
            region.idle_cpu_percent = (cpu_percent(before, after, began.elapsed()) * 10.0).round() / 10.0;
            picture.say(&format!(
                "{}: {} MiB, {} % of a core when idle",
                region.name, region.pss_mib, region.idle_cpu_percent
            ));
        }
        Ok(())
    }

    /// The regions and what was measured of them.
    pub(crate) fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// Brings a lost region back and waits until its agent is. A frozen one goes on where it stood, one that was cut off is reached again.
    pub(crate) async fn bring_back(&mut self, region: &str) -> anyhow::Result<()> {
        if let Some(network) = self.instance()?.network() {
            network.heal_all()?;
        }
        self.instance()?.thaw_region(region)?;
        let ready = bring_up::bring_back(self.instance()?, region).await?;
        self.clients.insert(
            region.to_owned(),
            bring_up::client(self.instance()?, &ready.region).await?,
        );
        Ok(())
    }

    /// Reads all volumes as they are now, before anything is rewound.
    pub(crate) fn remember_volumes(&mut self) -> anyhow::Result<()> {
        self.remembered = volumes::anywhere(self.instance()?)?;
        Ok(())
    }

    /// Everything that was remembered.
    pub(crate) fn remembered(&self) -> &[Record] {
        &self.remembered
    }

    /// Leaves everything running, and says what to try.
    pub(crate) fn leave(mut self) -> anyhow::Result<()> {
        self.instance = None;
        let (home, app) = (self.directory.display(), manifests::APP);
        output::line(format_args!(
            "\nEverything is still running in {home}. Try:\n  export LEEWARD_HOME={home}\n  export KUBECONFIG={}\n  kubectl get \
             protectedapps,operations -A\n  kubectl -n {} get pods,pvc\n  leeward status {app}\n  leeward switchover {app} --to east\n  \
             leeward down",
            self.directory.join("regions/west/kubeconfig").display(),
            manifests::NAMESPACE,
        ))
    }

    /// Ends every process and removes every file.
    pub(crate) fn strike(mut self) -> anyhow::Result<()> {
        if let Some(instance) = self.instance.take() {
            instance.remove()?;
        }
        if let Some(temporary) = self.temporary.take() {
            temporary.close()?;
        }
        Ok(())
    }
}

#[cfg(feature = "unfenced")]
impl Stage {
    /// Ends every process, and copies the logs to where they stay.
    pub(crate) fn keep_logs(&self) -> anyhow::Result<PathBuf> {
        let instance = self.instance()?;
        instance.stop_all()?;
        let kept = tempfile::Builder::new().prefix("leeward-chaos-").tempdir()?.keep();
        let layout = instance.layout();
        let regions = instance
            .regions()
            .iter()
            .map(|region| (region.as_str(), layout.region(region)));
        for (name, home) in regions.chain([("witness", layout.witness())]) {
            let mut copy = std::process::Command::new("cp");
            let copied = copy.arg("-a").arg(home.join("logs")).arg(kept.join(name)).status();
            anyhow::ensure!(
                copied.context("cp cannot be started")?.success(),
                "the logs cannot be kept"
            );
        }
        Ok(kept)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take()
            && let Err(error) = instance.remove()
        {
            output::say(format_args!("not everything could be removed: {error}"));
        }
    }
}

/// Lets a region's agent ignore its leases.
#[cfg(feature = "unfenced")]
fn unfence(instance: &Instance, region: &str) -> anyhow::Result<()> {
    let path = instance.layout().config(Some(region), "serve");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["unfenced"] = true.into();
    Ok(std::fs::write(&path, config.to_string())?)
}

/// This program as an image: itself and the libraries that it needs.
fn sample_image() -> anyhow::Result<pack::OciImage> {
    let program = std::env::current_exe()?;
    let mut entries = pack::executable(&program, "/leeward")?;
    entries.push(Entry::directory("/data", 0o777));
    entries.push(Entry::directory("/tmp", 0o1777));
    let config = pack::Config {
        entrypoint: vec!["/leeward".into(), "sample".into()],
        labels: [("dev.leeward.plain-process".to_owned(), "true".to_owned())].into(),
        ..pack::Config::default()
    };
    Ok(pack::image(vec![entries], &config)?)
}
