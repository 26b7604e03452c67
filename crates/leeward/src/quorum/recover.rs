//! `leeward quorum recover`: a new incarnation of the quorum, begun by a person after its majority was lost for good.
//!
//! Flow: who had a part in the old quorum is found ([`parties`]) and asked, and [`judge`](super::judge) says whether it may begin; then all of
//! them have to stay silent for as long as a lease may be obeyed; then the data of the member that is left becomes the new quorum
//! ([`Recovery`]), and this region's agent is told of its identity.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use leeward_api::Cluster;
use leeward_controller::{clock, config, quorum::settings, reach};
use leeward_core::lease::Timing;
use leeward_local::instance::{Instance, processes, quorum::Begun};
use leeward_quorum::{
    Store as _, Txn,
    etcd::{
        self, Etcd, Login,
        recover::{Recovery, Renewed},
    },
    key, pin,
};
use tokio::net::TcpStream;

use super::{
    PATIENCE, Quorum, Which, find,
    judge::{Party, WITNESS, judge},
};
use crate::{output, process, values};

/// How long etcd may take to end in order.
const GRACE: Duration = Duration::from_secs(30);

/// `leeward quorum recover`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// The data directory of the member of etcd that is left; a local region's is known.
    #[arg(long, value_name = "DIR", required_unless_present = "region")]
    data_dir: Option<PathBuf>,
    /// A cluster that is destroyed or switched off for good, or `witness`. May be repeated; whatever does not answer has to be named.
    #[arg(long = "lost", value_name = "NAME", required = true, value_parser = values::name)]
    lost: Vec<String>,
    /// A user of etcd that may read and write all of Leeward's keys, where the agent's own may not.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// The file with that user's password.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

/// Recovers, or says why not.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (serve, mut local) = arguments.which.open()?;
    let config::Quorum::Etcd(etcd) = &serve.quorum else {
        bail!(
            "the quorum is embedded, one copy in the witness's process, and what the regions remember of it may be older than what it last \
             answered to one of them, so no other one is made of that: who may write is not known for sure. If the witness's data_dir is \
             there, start the witness on it. If it is lost, see which region has the newest data (`leeward explain APP`, while the agents \
             run), stop all agents and writers, and protect the applications anew from there; for more than one machine put the quorum on etcd"
        );
    };
    let timing = Timing::new(Duration::from_millis(serve.lease_ttl_ms), serve.quorum.delays())?;
    let recovery = recovery(arguments, &serve, etcd, local.as_ref())?;
    let pin_file = pin::path(&serve.data_dir);
    let runtime = process::runtime(1)?;
    if let Some(renewed) = recovery.finished()? {
        output::line(format_args!("incarnation {} was begun already.", renewed.begun.number))?;
        return tell(&renewed, &recovery, local.as_ref(), &serve);
    }
    runtime.block_on(has_no_majority(settings(etcd, &serve, PATIENCE)?, &recovery))?;
    let parties = runtime.block_on(parties(&serve, etcd))?;
    runtime.block_on(ask(&serve.cluster, &parties, &recovery.lost))?;
    announce(&recovery, timing)?;
    runtime.block_on(silence(&serve.cluster, &parties, &recovery.lost, timing))?;
    if let Some(instance) = &local {
        stop_local(instance, &serve.region)?;
    }
    let renewed = runtime.block_on(recovery.run(&mut |step| {
        output::say(format_args!("{step:?}"));
        Ok(())
    }))?;
    if let Some(instance) = &mut local {
        write_down(instance, &renewed, &serve)?;
    }
    pin::write(&pin_file, renewed.pin())?;
    let kept = recovery.finish(&renewed)?;
    output::line(format_args!(
        "incarnation {} of the quorum has begun: etcd cluster {:x}. What was there is kept in {}.",
        renewed.begun.number,
        renewed.cluster,
        kept.display()
    ))?;
    if renewed.behind > 0 {
        output::line(format_args!(
            "The member that was left had not heard of the last {} changes that this region has seen: look at what each application does \
             (`leeward explain APP`) before you move it.",
            renewed.behind
        ))?;
    }
    tell(&renewed, &recovery, local.as_ref(), &serve)
}

fn recovery(
    arguments: &Arguments,
    serve: &config::Serve,
    etcd: &config::Etcd,
    local: Option<&Instance>,
) -> anyhow::Result<Recovery> {
    let login = match (&arguments.user, &arguments.password_file) {
        (Some(user), Some(file)) => Some(Login {
            user: user.clone(),
            password: std::fs::read_to_string(file)
                .with_context(|| format!("the password {}", file.display()))?
                .trim()
                .to_owned(),
        }),
        _ => settings(etcd, serve, PATIENCE)?.login,
    };
    let data = match (&arguments.data_dir, local) {
        (Some(data), _) => data.clone(),
        (None, Some(instance)) => instance.layout().region(&serve.region).join("etcd"),
        (None, None) => bail!("--data-dir is needed with --config"),
    };
    let data = std::path::absolute(&data)?;
    let known = pin::read(&pin::path(&serve.data_dir))
        .context("what this region knows of the old quorum; move the file away to recover without it")?;
    Ok(Recovery {
        data,
        etcd: Quorum::Etcd.program()?.context("etcd")?,
        restore: find(&["etcdutl", "etcdctl"]).context(
            "neither etcdutl nor etcdctl is in a directory of PATH, and one of them is needed to give the data a new identity: install it \
             (Debian, Ubuntu: `apt-get install etcd-client`)",
        )?,
        prefix: etcd.prefix.clone(),
        login,
        known,
        lost: arguments.lost.iter().cloned().collect(),
        now_ms: clock::wall_ms(),
        token: format!("{:016x}", rand::random::<u64>()),
    })
}

/// Refuses where the quorum that this region belongs to decides.
async fn has_no_majority(settings: etcd::Config, recovery: &Recovery) -> anyhow::Result<()> {
    let cluster = recovery.known.map_or(0, |known| known.cluster);
    // A question about nothing would be answered without a majority.
    let question = Txn::default().read(key::INCARNATION);
    let answer = Etcd::new(etcd::Config { cluster, ..settings })?.txn(question).await;
    ensure!(
        answer.is_err(),
        "the quorum answers, so its majority is not lost and there is nothing to recover: see `leeward quorum status`"
    );
    Ok(())
}

/// Who had a part in the old quorum besides this region's member: clusters, the witness, members.
async fn parties(serve: &config::Serve, etcd: &config::Etcd) -> anyhow::Result<Vec<Party>> {
    let client = Client::try_from(reach::config(serve.kubeconfig.as_deref()).await?)?;
    let api: Api<Cluster> = Api::all(client);
    let clusters = tokio::time::timeout(PATIENCE, api.list(&ListParams::default())).await;
    let clusters = clusters
        .context("no answer in time")
        .and_then(|answer| Ok(answer?))
        .context("this region's Kubernetes API says which regions there are, and does not answer")?;
    let clusters = clusters
        .items
        .into_iter()
        .filter(|cluster| cluster.name_any() != serve.cluster);
    let mut parties: Vec<Party> = clusters
        .map(|cluster| Party {
            name: cluster.name_any(),
            address: cluster.spec.peer.clone(),
            member: false,
        })
        .collect();
    parties.push(Party {
        name: WITNESS.to_owned(),
        address: host_and_port(&serve.witness_url),
        member: false,
    });
    // This region's own member is the first.
    parties.extend(etcd.endpoints.iter().skip(1).map(|url| Party {
        name: url.clone(),
        address: host_and_port(url),
        member: true,
    }));
    Ok(parties)
}

fn host_and_port(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

/// Whoever takes a connection answers: one that stands still does too, and may go on.
async fn answers(address: &str) -> bool {
    matches!(
        tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await,
        Ok(Ok(_))
    )
}

/// Asks everybody once.
async fn ask(own: &str, parties: &[Party], lost: &BTreeSet<String>) -> anyhow::Result<()> {
    let asked = parties.iter().map(|party| answers(&party.address));
    let heard = futures::future::join_all(asked).await;
    let answering: BTreeSet<&str> = parties
        .iter()
        .zip(heard)
        .filter_map(|(party, heard)| heard.then_some(party.address.as_str()))
        .collect();
    judge(own, parties, lost, |party| answering.contains(party.address.as_str())).context("nothing was changed")?;
    Ok(())
}

fn wait(timing: Timing) -> Duration {
    timing.ttl + timing.drift
}

fn announce(recovery: &Recovery, timing: Timing) -> anyhow::Result<()> {
    let lost: Vec<&str> = recovery.lost.iter().map(String::as_str).collect();
    output::line(format_args!(
        "A new incarnation of the quorum is begun from {}:\n  \
         1. {} must stay silent for {:?}: then every lease that the old quorum gave is over;\n  \
         2. a copy of the data is raised into the incarnation: every epoch above all that were given out, the leases of what is lost \
         sealed, no standby in sync;\n  \
         3. it gets a new identity and takes the data's place, which is kept;\n  \
         4. this region's agent goes over to it, and refuses the old quorum from then on.\n\
         Until 3 nothing is changed. Whatever interrupts it, run it again.",
        recovery.data.display(),
        lost.join(" and "),
        wait(timing),
    ))
}

/// Waits until whatever the old quorum granted is over, and sees that nobody of it is heard of meanwhile.
async fn silence(own: &str, parties: &[Party], lost: &BTreeSet<String>, timing: Timing) -> anyhow::Result<()> {
    let end = clock::now().after(wait(timing));
    while clock::now() < end {
        let pause = timing.renew_every().min(end.since(clock::now()));
        tokio::time::sleep(pause).await;
        ask(own, parties, lost).await?;
    }
    Ok(())
}

/// Local regions remember it, so that `leeward up` does not start the old quorum.
fn write_down(instance: &mut Instance, renewed: &Renewed, serve: &config::Serve) -> anyhow::Result<()> {
    Ok(instance.begin_anew(Begun {
        incarnation: renewed.begun.number.0,
        cluster: renewed.cluster,
        region: serve.region.clone(),
    })?)
}

/// Ends a local region's member in order.
fn stop_local(instance: &Instance, region: &str) -> anyhow::Result<()> {
    let name = format!("{region}-etcd");
    for record in instance.processes()?.iter().filter(|record| record.name == name) {
        record.signal(libc::SIGTERM);
        let ended = processes::wait_until(GRACE, || !record.is_alive());
        ensure!(ended, "{} does not end; see its log, and run this again", record.name);
    }
    Ok(())
}

/// What is to be done next.
fn tell(renewed: &Renewed, recovery: &Recovery, local: Option<&Instance>, serve: &config::Serve) -> anyhow::Result<()> {
    if let Some(instance) = local {
        instance.start_agent(&serve.region)?;
        return output::line(format_args!(
            "etcd runs again in {}. What was served from a lost region is moved with `leeward failover`.",
            serve.region
        ));
    }
    output::line(format_args!(
        "Next:\n  \
         1. start etcd on {} as before (its --initial-cluster counts no more: it is the only member);\n  \
         2. this region's agent goes over to it by itself; in every other region that is left, run `leeward quorum adopt --config FILE \
         --cluster {:x}`;\n  \
         3. move what was served from a lost region: `leeward failover`;\n  \
         4. add members in two other failure domains: `etcdctl member add`, each with an empty data directory.",
        Path::new(&recovery.data).display(),
        renewed.cluster
    ))
}
