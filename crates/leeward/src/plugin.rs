//! The program as a plugin of kubectl: under the name `kubectl-leeward` in PATH, `kubectl leeward` runs it. It is the same program then, but for how it
//! calls itself, and for whom it asks where nothing is said: the cluster that kubectl would ask, and not the local regions.

use std::{ffi::OsString, path::Path};

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::Cli;

/// What kubectl finds it by.
const NAME: &str = "kubectl-leeward";

/// Whether kubectl has called it, or somebody by that name.
pub(crate) fn is_called() -> bool {
    std::env::args_os().next().is_some_and(|program| is_plugin(&program))
}

fn is_plugin(program: &OsString) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == NAME)
}

/// Reads the command line; ends the program where that is wrong, or asks for help.
pub(crate) fn parse(line: Vec<OsString>) -> Cli {
    let command = Cli::command();
    let command = match line.first().is_some_and(is_plugin) {
        true => command.bin_name("kubectl leeward"),
        false => command,
    };
    Cli::from_arg_matches(&command.get_matches_from(line)).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_plugin_by_its_name_alone() {
        for (program, is) in [
            ("kubectl-leeward", true),
            ("/usr/local/bin/kubectl-leeward", true),
            ("leeward", false),
            ("/opt/kubectl-leeward/leeward", false),
        ] {
            assert_eq!(is_plugin(&program.into()), is, "{program}");
        }
    }
}
