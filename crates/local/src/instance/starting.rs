//! Starting the processes of an instance. Each is started unless it runs, after what its predecessor left is gone and its addresses are
//! free, and is written down before anything else is started; and waiting until a region's API answers.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use super::{
    Error, Instance, addresses, config, files,
    locks::lock,
    making,
    network::Place,
    processes::{self, Record, Role},
    stopping,
};

impl Instance {
    /// Starts a region's API, nodes and agent, those that run excepted.
    pub fn start_region(&self, region: &str) -> Result<(), Error> {
        self.start_kubernetes(region)?;
        self.start_agent(region)
    }

    /// Starts a region's API and nodes, those that run excepted.
    pub fn start_kubernetes(&self, region: &str) -> Result<(), Error> {
        let addresses = self.addresses(region)?;
        let _lock = lock(&self.layout)?;
        let nodes = (0..self.state.nodes).map(|index| config::node_name(region, index));
        let api = self.start(
            Some(region),
            Role::Api,
            "api",
            &["local", "api"],
            &[("Kubernetes API", addresses.api())],
        );
        nodes.enumerate().fold(api, |started, (index, node)| {
            let kubelet = addresses.kubelet(index as u8).into();
            started.and_then(|()| {
                self.start(
                    Some(region),
                    Role::Node,
                    &node,
                    &["local", "node"],
                    &[("kubelet", kubelet)],
                )
            })
        })
    }

    /// Starts a region's member of the quorum, where it has one, and its agent, unless they run.
    pub fn start_agent(&self, region: &str) -> Result<(), Error> {
        let addresses = self.addresses(region)?;
        let _lock = lock(&self.layout)?;
        self.start_member(Some(region), addresses.etcd())?;
        let listeners = [
            ("registry", addresses.registry()),
            ("ingress", addresses.ingress()),
            ("peer link", addresses.peer()),
            ("page of metrics", addresses.metrics()),
        ];
        self.start(Some(region), Role::Serve, "serve", &["serve"], &listeners)
    }

    /// Starts the witness and the member of the quorum beside it, where there is one, unless they run.
    pub fn start_witness(&self) -> Result<(), Error> {
        let _lock = lock(&self.layout)?;
        self.start_member(None, self.state.octet.etcd())?;
        let listeners = [
            ("witness", self.witness_address()),
            ("page of metrics", self.witness_metrics()),
        ];
        self.start(None, Role::Witness, "witness", &["witness"], &listeners)
    }

    /// Starts one node again, unless it runs; `node` is its Kubernetes name.
    pub fn start_node(&self, region: &str, node: &str) -> Result<(), Error> {
        let addresses = self.addresses(region)?;
        let _lock = lock(&self.layout)?;
        let index = (0..self.state.nodes)
            .find(|index| config::node_name(region, *index) == node)
            .ok_or_else(|| Error::UnknownProcess(node.to_owned()))?;
        let listeners = [("kubelet", addresses.kubelet(index).into())];
        self.start(Some(region), Role::Node, node, &["local", "node"], &listeners)
    }

    fn start_member(&self, region: Option<&str>, (clients, members): (SocketAddr, SocketAddr)) -> Result<(), Error> {
        let Some(program) = &self.state.etcd else { return Ok(()) };
        if !self.has_member(region) {
            return Ok(());
        }
        let config = self.layout.config(region, "etcd").display().to_string();
        let listeners = [("quorum's clients", clients), ("quorum's members", members)];
        let arguments = vec!["--config-file".to_owned(), config];
        self.run(region, Role::Quorum, "etcd", program, arguments, &listeners)
    }

    // `process` is unique within its region.
    fn start(
        &self,
        region: Option<&str>,
        role: Role,
        process: &str,
        command: &[&str],
        listeners: &[(&'static str, SocketAddr)],
    ) -> Result<(), Error> {
        let config = self.layout.config(region, process).display().to_string();
        let arguments = command.iter().chain(&["--config"]).map(|part| (*part).to_owned());
        let arguments = arguments.chain([config]).collect();
        self.run(region, role, process, &self.program, arguments, listeners)
    }

    fn run(
        &self,
        region: Option<&str>,
        role: Role,
        process: &str,
        program: &Path,
        arguments: Vec<String>,
        listeners: &[(&'static str, SocketAddr)],
    ) -> Result<(), Error> {
        let name = match (region, role) {
            (Some(region), Role::Api | Role::Serve | Role::Quorum) => format!("{region}-{process}"),
            (None, Role::Quorum) => format!("witness-{process}"),
            _ => process.to_owned(),
        };
        self.children().reap();
        let mut records = self.records()?;
        if records.iter().any(|record| record.name == name && record.is_alive()) {
            return Ok(());
        }
        stopping::stop_strays(self.layout.dir(), &records)?;
        let place = region.map_or(Place::Witness, |region| Place::Region(region.to_owned()));
        let network = match &self.network {
            None => {
                addresses::wait_free(listeners)?;
                None
            }
            Some(network) => {
                network.within(&place, || addresses::wait_free(listeners))??;
                network.handle(&place)?
            }
        };
        let log = self.layout.log(region, process);
        let fault = |source| Error::Start {
            name: name.clone(),
            log: log.clone(),
            source,
        };
        let child = processes::start(processes::Start {
            program: program.to_owned(),
            arguments,
            log: log.clone(),
            instance: self.layout.dir().to_owned(),
            dies_with_owner: self.dies_with_owner,
            network,
        })
        .map_err(fault)?;
        let pid = child.id() as i32;
        // The child cannot be reaped before this program asks, so its id and start time belong together.
        let stat = processes::Stat::read(pid).ok_or_else(|| fault(io::ErrorKind::NotFound.into()))?;
        self.children().keep(&name, child);
        records.retain(|record| record.name != name);
        records.push(Record {
            name,
            region: region.map(str::to_owned),
            role,
            pid,
            start_time: stat.start_time,
            boot: processes::boot_id().to_owned(),
        });
        Ok(files::write_json(&self.layout.processes(), &records)?)
    }

    /// Waits until a region's API answers that it is ready; ends early when its process does.
    pub async fn wait_api_ready(&self, region: &str, limit: Duration) -> Result<(), Error> {
        let log = self.layout.log(Some(region), "api");
        let name = format!("{region}-api");
        let client = making::client(&self.kubeconfig(region)?).await?;
        let end = tokio::time::Instant::now() + limit;
        loop {
            let reason = match ask_ready(&client).await {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if !self.processes()?.iter().any(|record| record.name == name) {
                return Err(Error::Ended {
                    name,
                    tail: stopping::tail(&log),
                });
            }
            if tokio::time::Instant::now() >= end {
                return Err(Error::NotReady {
                    region: region.to_owned(),
                    limit,
                    reason,
                    log,
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn ask_ready(client: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(Duration::from_secs(1), client.request_text(request)).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within a second".to_owned()),
    }
}
