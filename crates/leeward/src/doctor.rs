//! `leeward doctor`: whether this machine can hold local regions, and whether those that it holds are well.
//!
//! Flow: [`machine`] and [`regions`] look; pure functions of what they saw judge it as [`Check`]s; [`render`] writes them.

mod installation;
mod judge;
mod machine;
mod regions;

use std::process::ExitCode;

use clap::Args;

use crate::{output, process, up::Place};
pub(crate) use judge::{Check, Level};

/// `leeward doctor`
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Looks also at the directory of an installation's authority, as `leeward join` makes it.
    #[arg(long, value_name = "DIR", value_parser = crate::values::path)]
    installation: Option<std::path::PathBuf>,
}

/// Prints every check; fails when one of them failed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let dir = arguments.place.dir()?;
    let mut checks = machine::look(&dir);
    checks.extend(process::runtime(1)?.block_on(regions::look(&dir)));
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
