//! The witness's files as a script for the machine that it runs on: it writes them, and starts the witness under systemd. Pure.
//!
//! Invariants: a script that was cut off on its way does nothing, as all of it is one function that its last line calls. What is missing on the
//! machine is said before anything is written. Run again it changes nothing, and the witness goes on; certificates alone are no reason to
//! start it again, as it reads them anew by itself.

use std::{fmt::Write as _, path::Path};

use super::bundle::{CONFIG, PROGRAM, UNIT};

/// What a file's text ends with. No line of a file is like it: they are PEM, JSON and a unit.
const END: &str = "LEEWARD_END";

/// The script that puts `files` into `at`.
pub(super) fn script(at: &Path, files: &[(&'static str, String)]) -> String {
    let mut text = begin(&quoted(&at.display().to_string()));
    for (name, content) in files {
        let _ = write!(text, "  put {name} <<'{END}'\n{content}");
        if !content.ends_with('\n') {
            text.push('\n');
        }
        let _ = writeln!(text, "{END}");
    }
    text + &end()
}

fn begin(at: &str) -> String {
    format!(
        r#"# Sets up the Leeward witness on this machine. There is a private key in it: pipe it, and keep it nowhere.
fail() {{ echo "error: $1; nothing was changed" >&2; exit 1; }}

# Reads a file; says whether there is another one of the name, or none.
put() {{
  cat >"$at/$1.new"
  chown leeward:leeward "$at/$1.new"
  if [ -f "$at/$1" ] && [ "$(cat "$at/$1")" = "$(cat "$at/$1.new")" ]; then rm "$at/$1.new"; return; fi
  mv "$at/$1.new" "$at/$1"
  case $1 in {CONFIG}|{UNIT}) again=yes ;; esac
}}

main() {{
  set -eu
  umask 077
  at={at}
  again=no
  [ "$(id -u)" = 0 ] || fail "this needs root"
  [ -x {PROGRAM} ] || fail "there is no program at {PROGRAM}: copy it there first"
  command -v systemctl >/dev/null || fail "there is no systemd here: write the files with leeward join witness --out DIR, and run the witness in your own way"
  id leeward >/dev/null 2>&1 || useradd --system --user-group --no-create-home leeward
  mkdir -p "$at"
  chown leeward:leeward "$at"
"#
    )
}

fn end() -> String {
    format!(
        r#"  systemctl daemon-reload
  systemctl enable "$at/{UNIT}"
  if [ "$again" = yes ]; then systemctl restart {UNIT}; else systemctl start {UNIT}; fi
  echo "the witness is started: journalctl --unit {UNIT} shows what it says"
}}
main
"#
    )
}

/// As one word of the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        assert_eq!(quoted("/etc/a b"), "'/etc/a b'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_last_line_is_what_begins_it() {
        let text = script(Path::new("/etc/w"), &[("ca.crt", "CA".into())]);
        assert!(text.ends_with("}\nmain\n"), "{text}");
        assert!(
            text.contains("  put ca.crt <<'LEEWARD_END'\nCA\nLEEWARD_END\n"),
            "{text}"
        );
    }
}
