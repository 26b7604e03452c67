//! The script of `leeward join witness --script`, run by a shell on a machine that only notes what is done to it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use crate::desk::Desk;

/// A machine whose root runs scripts: what changes the machine itself is noted instead of done, and the program is where the script looks for it.
struct Machine<'a>(&'a Desk);

impl<'a> Machine<'a> {
    fn new(desk: &'a Desk) -> Self {
        fs::create_dir(desk.path("bin")).unwrap();
        for (name, does) in [
            ("systemctl", "echo \"$@\" >> \"$NOTES\""),
            ("useradd", "echo \"useradd $@\" >> \"$NOTES\""),
            ("chown", ""),
            ("id", "if [ \"$1\" = -u ]; then echo 0; else exit 1; fi"),
        ] {
            let path = desk.path("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{does}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(desk)
    }

    /// Runs a script from its standard input, as `ssh root@HOST sh` does; how it ended, what it said, and what was done to the machine.
    fn run(&self, script: &str, program: &str) -> (i32, String, String) {
        let (text, notes) = (script.replace("/usr/local/bin/leeward", program), self.0.path("notes"));
        fs::write(&notes, "").unwrap();
        let file = self.0.path("script");
        fs::write(&file, text).unwrap();
        let bin = self.0.path("bin");
        let output = Command::new("sh")
            .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
            .env("NOTES", &notes)
            .stdin(fs::File::open(file).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let done = fs::read_to_string(notes).unwrap();
        (output.status.code().unwrap(), said, done)
    }
}

#[test]
fn a_script_sets_the_witness_up_and_starts_it_again_only_for_another_configuration() {
    let desk = Desk::new();
    desk.init("witness.example");
    let machine = Machine::new(&desk);
    let at = desk.path("at the witness's");
    let printed = |more: &[&str]| {
        let arguments = [&["witness", "--script", "--at", at.to_str().unwrap()], more].concat();
        desk.expect(0, &arguments).0
    };
    let program = env!("CARGO_BIN_EXE_leeward");
    let script = printed(&[]);
    // What did not arrive whole, or where something is missing, does nothing.
    let (_, _, done) = machine.run(&script[..script.len() - "main\n".len()], program);
    assert!(done.is_empty() && !at.exists(), "{done}");
    let (code, said, done) = machine.run(&script, "/nonexistent/leeward");
    assert!(
        code == 1 && said.contains("no program at") && done.is_empty() && !at.exists(),
        "{said}{done}"
    );
    let (code, said, done) = machine.run(&script, program);
    assert_eq!(code, 0, "{said}");
    let unit = at.join("leeward-witness.service");
    let (enable, restart) = (
        format!("daemon-reload\nenable {}\n", unit.display()),
        "restart leeward-witness.service\n",
    );
    assert_eq!(
        done,
        format!("useradd --system --user-group --no-create-home leeward\n{enable}{restart}")
    );
    // The files are those that are written to a directory, for their owner alone.
    desk.expect(0, &["witness", "--out", "w", "--at", at.to_str().unwrap()]);
    for name in ["ca.crt", "tls.crt", "tls.key", "witness.json"] {
        assert_eq!(
            fs::read(at.join(name)).unwrap(),
            fs::read(desk.path("w").join(name)).unwrap()
        );
        assert_eq!(fs::metadata(at.join(name)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let count = || fs::read_dir(&at).unwrap().count();
    assert_eq!(count(), 5);
    // Again, and with a new certificate: it goes on.
    assert!(
        machine
            .run(&script, program)
            .2
            .ends_with("start leeward-witness.service\n")
    );
    desk.expect(0, &["rotate", "witness", "--force"]);
    let old = fs::read(at.join("tls.crt")).unwrap();
    let done = machine.run(&printed(&[]), program).2;
    assert!(
        done.ends_with(&format!("{enable}start leeward-witness.service\n")),
        "{done}"
    );
    assert_ne!(fs::read(at.join("tls.crt")).unwrap(), old);
    // With another configuration it has to be started again.
    let done = machine
        .run(&printed(&["--metrics-address", "127.0.0.1:9000"]), program)
        .2;
    assert!(done.ends_with(restart), "{done}");
    assert_eq!(count(), 5);
}
