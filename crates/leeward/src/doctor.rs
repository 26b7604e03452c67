//! `leeward doctor`: whether this machine can hold local regions, and whether those that it holds are well; or whether the installation in a cluster is.
//!
//! Flow: [`machine`] and [`regions`], or [`cluster`], look; pure functions of what they saw judge it as [`Check`]s; [`render`] writes them.

mod cluster;
mod installation;
mod installed;
mod judge;
mod machine;
mod regions;

use std::process::ExitCode;

use clap::Args;
use leeward_api::install::NAMESPACE;

use crate::{output, plugin, process, up::Place, values};
pub(crate) use judge::{Check, Level};

/// `leeward doctor`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Looks at the installation in the cluster of this context instead. May be repeated: their versions are compared, too.
    #[arg(long = "context", value_name = "NAME", conflicts_with = "home", value_parser = values::name)]
    contexts: Vec<String>,
    /// The kubeconfig with the contexts, or with the one cluster to look at; without it what KUBECONFIG names, else ~/.kube/config.
    #[arg(long, value_name = "FILE", conflicts_with = "home", value_parser = values::path)]
    kubeconfig: Option<std::path::PathBuf>,
    /// The namespace of the installation there.
    #[arg(short, long, conflicts_with = "home", default_value = NAMESPACE, value_parser = values::name)]
    namespace: String,
    /// Looks also at the directory of an installation's authority, as `leeward join` makes it.
    #[arg(long, value_name = "DIR", value_parser = crate::values::path)]
    installation: Option<std::path::PathBuf>,
}

/// Prints every check; fails when one of them failed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let outside = arguments.kubeconfig.is_some() || !arguments.contexts.is_empty();
    let mut checks = match outside || (plugin::is_called() && !arguments.place.is_said()) {
        true => {
            let (file, contexts) = (arguments.kubeconfig.as_deref(), &arguments.contexts);
            process::runtime(1)?.block_on(cluster::look(file, contexts, &arguments.namespace))
        }
        false => {
            let dir = arguments.place.dir()?;
            let mut checks = machine::look(&dir);
            checks.extend(process::runtime(1)?.block_on(regions::look(&dir)));
            checks
        }
    };
    checks.extend(arguments.installation.iter().flat_map(|dir| installation::look(dir)));
    output::write(&render(&checks))?;
    Ok(match checks.iter().any(|check| check.level == Level::Fail) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// A line for each check, with what to do under those that need it, and a last line that counts.
fn render(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = check.level.word();
        text.push_str(&format!("{word:<4}  {:<width$}  {}\n", check.name, check.finding));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("      {:<width$}  -> {advice}\n", ""));
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    text.push_str(&format!(
        "\n{} checks: {} ok, {warnings} warn, {failures} fail\n",
        checks.len(),
        count(Level::Ok)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_is_a_line_and_what_to_do_follows_it() {
        let checks = [
            Check::ok("disk", "plenty"),
            Check::fail("namespaces", "refused", "allow them"),
            Check::warn("kubectl", "absent", "install it"),
        ];
        assert_eq!(
            render(&checks),
            "ok    disk        plenty\n\
             fail  namespaces  refused\n\
             \x20                 -> allow them\n\
             warn  kubectl     absent\n\
             \x20                 -> install it\n\
             \n3 checks: 1 ok, 1 warn, 1 fail\n"
        );
    }
}
