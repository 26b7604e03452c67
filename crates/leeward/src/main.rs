//! The command line of Leeward: parsing and wiring, nothing else.

mod apply;
mod belonging;
mod bring_up;
#[cfg(feature = "unfenced")]
mod chaos;
mod demo;
mod doctor;
mod e2e;
mod explain;
mod fleet;
mod image;
mod inject;
mod install;
mod join;
mod maintain;
mod manifests;
mod operate;
mod output;
mod pause;
mod plugin;
mod process;
mod quorum;
mod sample;
mod status;
mod up;
mod values;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

/// Keeps applications on Kubernetes serving when a whole region is lost.
#[derive(Parser)]
#[command(
    name = "leeward",
    version,
    after_help = "Exit codes: 0 done; 1 failed or refused, or an objective was missed; 2 the command line is wrong; 130 left with Ctrl-C."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows an application surviving the loss of a region, on this machine.
    Demo(demo::Arguments),
    /// Makes one fault after the other, and counts what users lost.
    #[cfg(feature = "unfenced")]
    #[command(hide = true)]
    Chaos(chaos::Arguments),
    /// Installs in two clusters, makes faults there, and removes all of it; behind `cargo xtask e2e`.
    #[command(name = "e2e", hide = true)]
    E2e(Box<e2e::Arguments>),
    /// Starts local regions, and returns when they are ready.
    Up(up::Arguments),
    /// Stops the local regions and removes them.
    Down(up::Place),
    /// Prints the path of a local region's kubeconfig.
    Kubeconfig {
        /// The region.
        #[arg(value_parser = values::name)]
        region: String,
        #[command(flatten)]
        place: up::Place,
    },
    /// Applies manifests to a region.
    Apply(apply::Arguments),
    /// Prints manifests with the gate brought into their writers, as annotations of their pods ask for it.
    Inject(inject::Arguments),
    /// Shows the clusters and the protected applications, also while a region is lost.
    Status(status::Arguments),
    /// Moves an application away from a lost cluster; what was not mirrored yet is lost.
    Failover(operate::Failover),
    /// Moves an application to another cluster as planned; nothing is lost. Or calls that off.
    Switchover(operate::Switchover),
    /// Says that Leeward does not move an application by itself; what a person asks for is still done.
    Pause(pause::Arguments),
    /// Ends that.
    Resume(pause::Arguments),
    /// Says that nothing moves to a cluster until it is back in service.
    Cordon(maintain::Arguments),
    /// Takes a cluster out of service: what is active in it moves away, and nothing moves to it. Returns once it may be switched off.
    Drain(maintain::Drain),
    /// Takes a cluster back into service. What has moved away stays where it is.
    Uncordon(maintain::Arguments),
    /// Says what an application waits for, and what would be lost if its active cluster were lost now.
    Explain(explain::Arguments),
    /// Looks at this machine and its local regions, and says what to do about what is wrong.
    Doctor(doctor::Arguments),
    /// Looks at the store that leases and decisions live in
    #[command(subcommand)]
    Quorum(quorum::Command),
    /// Makes certificates and configuration for an installation on real clusters, and rotates them
    #[command(subcommand)]
    Join(join::Command),
    /// Applies to a cluster what is needed so that agents run in it, or prints it.
    Install(install::Arguments),
    /// Writes this program as an image; `cargo xtask image` builds it first.
    #[command(hide = true)]
    Image(image::Arguments),
    /// Runs the agent of a region.
    Serve {
        /// Its configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Runs an application's writer while this region may write, and lets its answers out only then. For the command of a pod's container.
    Gate(leeward_gate::Arguments),
    /// Runs the witness: a quorum member and an observer, without access to any cluster.
    Witness {
        /// Its configuration file.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// The processes of a local region.
    #[command(subcommand, hide = true)]
    Local(Local),
    /// The sample application.
    #[command(hide = true)]
    Sample,
}

#[derive(Subcommand)]
enum Local {
    /// The Kubernetes API and its controllers.
    Api {
        #[arg(long)]
        config: PathBuf,
    },
    /// A node.
    Node {
        #[arg(long)]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Before any runtime or thread exists: namespaces can only be entered by a process with one thread.
    if let [first, second, rest @ ..] = &args[..]
        && (first.as_str(), second.as_str()) == ("local", "container")
    {
        std::process::exit(leeward_local::container::main(rest));
    }
    let mut line: Vec<_> = std::env::args_os().collect();
    let called = line
        .first()
        .and_then(|program| std::path::Path::new(program).file_name());
    // A copy of this program that was brought to a writer's image.
    if called == Some(leeward_gate::install::PROGRAM.as_ref()) {
        line.insert(1, "gate".into());
    }
    let cli = plugin::parse(line);
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        output::say("error: two TLS providers; this is a defect");
        return ExitCode::FAILURE;
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            output::say(format_args!("error: {error:#}"));
            match error.is::<output::Misused>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => return demo::run(arguments),
        #[cfg(feature = "unfenced")]
        Command::Chaos(arguments) => return chaos::run(&arguments),
        Command::E2e(arguments) => return e2e::run(&arguments),
        Command::Up(arguments) => up::run(arguments)?,
        Command::Down(place) => up::down(&place)?,
        Command::Kubeconfig { region, place } => output::line(place.open()?.kubeconfig(&region)?.display())?,
        Command::Apply(arguments) => apply::run(arguments)?,
        Command::Inject(arguments) => inject::run(&arguments)?,
        Command::Status(arguments) => status::run(&arguments)?,
        Command::Failover(arguments) => return operate::fail_over(&arguments),
        Command::Switchover(arguments) => return operate::switch_over(&arguments),
        Command::Pause(arguments) => return pause::run(&arguments, true),
        Command::Resume(arguments) => return pause::run(&arguments, false),
        Command::Cordon(arguments) => return maintain::cordon(&arguments),
        Command::Drain(arguments) => return maintain::drain(&arguments),
        Command::Uncordon(arguments) => return maintain::uncordon(&arguments),
        Command::Explain(arguments) => explain::run(&arguments)?,
        Command::Doctor(arguments) => return doctor::run(&arguments),
        Command::Install(arguments) => install::run(arguments)?,
        Command::Quorum(command) => return quorum::run(&command),
        Command::Join(command) => join::run(command)?,
        Command::Image(arguments) => image::run(&arguments)?,
        Command::Serve { config } => {
            process::long_lived(2, |stop| async move {
                let config: leeward_controller::config::Serve = leeward_controller::config::read(&config)?;
                let of_pod = |name| std::env::var(name).ok();
                let config = config.with_pod(of_pod("POD_NAME"), of_pod("POD_IP"))?;
                Ok(leeward_controller::serve::run(config, stop).await?)
            })?;
        }
        Command::Gate(arguments) => {
            process::begin();
            let result = leeward_gate::run(arguments, &["gate"]);
            return Ok(result.unwrap_or_else(|error| {
                output::say(format_args!("error: {error}"));
                error.code()
            }));
        }
        Command::Witness { config } => {
            process::long_lived(1, |stop| async move {
                Ok(leeward_controller::witness::run(leeward_controller::config::read(&config)?, stop).await?)
            })?;
        }
        Command::Local(Local::Api { config }) => {
            process::begin();
            leeward_local::process::api(&config)?;
        }
        Command::Local(Local::Node { config }) => {
            process::begin();
            leeward_local::process::node(&config)?;
        }
        Command::Sample => sample::run()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How long a region may take to become ready before that is an error.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(30);
