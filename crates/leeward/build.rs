//! Links the program so that little memory goes to its being loaded: a region is several processes of it.
//!
//! A program that can be loaded anywhere has a table of every pointer in its data, which is read once at the start and counts as memory of
//! each process after. Packed (`DT_RELR`) it is a hundredth of the size. The C library must know that form, which glibc does since 2.36.
//!
//! Of its code, each process has in memory what it runs, and what lies near that. `order.txt` says which functions the processes of a region
//! run; in a release they are put together, by a linker script that adds a section to the linker's own.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=order.txt");
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let native = variable("HOST") == variable("TARGET") && variable("CARGO_CFG_TARGET_ENV") == "gnu";
    if native && glibc().is_some_and(|version| version >= (2, 36)) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if native && variable("PROFILE") == "release" {
        let out = variable("OUT_DIR");
        let out = Path::new(&out);
        let list = std::fs::read_to_string("order.txt").unwrap_or_default();
        let file = out.join("order.ld");
        // A linker that does not understand it, or a list that is none, makes a larger region and no other one.
        if std::fs::write(&file, script(&list)).is_ok() && links(out, &file) {
            println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", file.display());
        }
    }
}

/// The version of this machine's C library.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The linker script of a list, whose form is described in it.
fn script(list: &str) -> String {
    let mut groups = String::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let _ = match (line.starts_with('['), line.strip_prefix('=')) {
            (true, _) => writeln!(groups, "{}*(", if groups.is_empty() { "" } else { ") " }),
            // What is marked as cold has a section of another name.
            (false, Some(name)) => writeln!(groups, ".text.{name} .text.unlikely.{name}"),
            (false, None) => writeln!(groups, ".text.{line}* .text.unlikely.{line}*"),
        };
    }
    format!("SECTIONS {{ .text.ordered : {{ {groups}) }} }} INSERT BEFORE .text;\n")
}

/// Whether the linker takes the script: an empty program is linked with it.
fn links(out: &Path, script: &Path) -> bool {
    let source = out.join("empty.rs");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2024", "-o"])
        .arg(out.join("empty"))
        .arg(&source);
    rustc.arg("-C").arg(format!("link-arg=-Wl,-T,{}", script.display()));
    if let Some(linker) = std::env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    // The flags that the program itself is linked with.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    let quiet = rustc.stdout(Stdio::null()).stderr(Stdio::null());
    std::fs::write(source, "fn main() {}").is_ok() && quiet.status().is_ok_and(|status| status.success())
}
