//! Brings the gate to a writer's image: an init container of Leeward's own image copies the program into a directory that both mount.
//!
//! The writer's image has its own C library or none, so a program that asks for one would fail there in a way that nobody understands. It is
//! refused here, where the pod's status shows why. What is there has its name only once it is whole.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// What the program is called there.
pub const PROGRAM: &str = "leeward-gate";

/// Who may do what with it: run and read it, and nobody change it.
const MODE: u32 = 0o555;
/// The bytes of a program's header.
const HEADER: usize = 64;
/// The bytes of each entry of the table that it leads to.
const ENTRY: usize = 56;
/// The entry that names an interpreter.
const PT_INTERP: u64 = 3;
/// The most that is read of an interpreter's name.
const LONGEST: u64 = 4096;

/// Why the program was not brought.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It needs what another image may not have.
    #[error(
        "this program needs {interpreter}, which the writer's image may not have; nothing was copied. Give the init container an image with a \
         static build of leeward or leeward-gate (cargo build --release --target x86_64-unknown-linux-musl)"
    )]
    Dynamic {
        /// The interpreter.
        interpreter: String,
    },
    /// It is not a program of 64-bit Linux.
    #[error("{path}: this is not a program that can be copied to another image: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// A file cannot be used.
    #[error(
        "cannot {action} {path}: {source}; the directory has to be a volume that this container may write and the writer's mounts"
    )]
    File {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Copies this program to a directory, as [`PROGRAM`]. What is there of that name is replaced.
///
/// # Errors
/// When it is not a static build, or the directory cannot be written.
pub fn run(directory: &Path) -> Result<(), Error> {
    copy(Path::new("/proc/self/exe"), directory)
}

fn copy(program: &Path, directory: &Path) -> Result<(), Error> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    };
    let mut from = File::open(program).map_err(failed("read", program))?;
    let malformed = |why| Error::Malformed {
        path: program.to_owned(),
        why,
    };
    if let Some(interpreter) = interpreter(&from).map_err(malformed)? {
        return Err(Error::Dynamic { interpreter });
    }
    let (target, partial) = (directory.join(PROGRAM), directory.join(format!(".{PROGRAM}")));
    // One of an init container that was ended in between; it may not be writable.
    let _ = fs::remove_file(&partial);
    let mut to = File::create_new(&partial).map_err(failed("write", &partial))?;
    // Within the kernel: the program is larger than the memory that some writers have, and so this container.
    io::copy(&mut from, &mut to).map_err(failed("write", &partial))?;
    to.set_permissions(Permissions::from_mode(MODE))
        .map_err(failed("write", &partial))?;
    drop(to);
    fs::rename(&partial, &target).map_err(failed("write", &target))
}

/// The interpreter that a program asks for; none where it is static.
fn interpreter(program: &File) -> Result<Option<String>, &'static str> {
    const CUT: &str = "it is cut off";
    let read = |at: u64, length: usize| {
        let mut bytes = vec![0; length];
        program.read_exact_at(&mut bytes, at).map_err(|_| CUT).map(|()| bytes)
    };
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let header = read(0, HEADER).unwrap_or_default();
    // Every machine that Leeward is built for has this one.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err("it is no ELF file of 64 bits, little-endian");
    }
    let (table, size, count) = (
        number(&header[32..40]),
        number(&header[54..56]),
        number(&header[56..58]),
    );
    for n in 0..count {
        let at = table.checked_add(n * size).ok_or(CUT)?;
        let entry = read(at, ENTRY)?;
        if number(&entry[..4]) != PT_INTERP {
            continue;
        }
        let length = number(&entry[32..40]).min(LONGEST) as usize;
        let name = read(number(&entry[8..16]), length)?;
        return Ok(Some(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with these entries: type, and where the bytes of it are.
    fn program(entries: &[(u32, u64, u64)], rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(HEADER, 0);
        bytes[32] = HEADER as u8;
        bytes[54] = 56;
        bytes[56] = entries.len() as u8;
        for (kind, start, length) in entries {
            let mut entry = kind.to_le_bytes().to_vec();
            entry.extend([0; 4]);
            entry.extend(start.to_le_bytes());
            entry.extend([0; 16]);
            entry.extend(length.to_le_bytes());
            entry.resize(56, 0);
            bytes.extend(entry);
        }
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn a_static_program_is_copied_whole_and_over_what_was_left_there() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&to).unwrap();
        for version in [b"one", b"two"] {
            let bytes = program(&[(1, 0, 0)], version);
            fs::write(&from, &bytes).unwrap();
            // Ended in between the last time.
            fs::write(to.join(".leeward-gate"), "half").unwrap();
            fs::set_permissions(to.join(".leeward-gate"), Permissions::from_mode(0o444)).unwrap();
            copy(&from, &to).unwrap();
            let there = to.join(PROGRAM);
            assert_eq!(fs::read(&there).unwrap(), bytes);
            assert_eq!(fs::metadata(&there).unwrap().permissions().mode() & 0o777, 0o555);
            assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_cannot_run_in_another_image_is_not_copied() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&to).unwrap();
        let name = b"/lib64/ld.so\0";
        let dynamic = program(&[(1, 0, 0), (3, 176, 13)], name);
        let cut = program(&[(3, 176, 99)], name);
        let far = program(&[(3, u64::MAX, 2)], name);
        for (bytes, why) in [
            (&dynamic[..], "needs /lib64/ld.so,"),
            (&cut, "cut off"),
            (&far, "cut off"),
            (&dynamic[..100], "cut off"),
            (b"#!/bin/sh", "no ELF file"),
            (b"", "no ELF file"),
        ] {
            fs::write(&from, bytes).unwrap();
            let error = copy(&from, &to).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(&from, program(&[], b"")).unwrap();
        let error = copy(&from, &to).unwrap_err().to_string();
        assert!(
            error.contains(to.to_str().unwrap()) && error.contains("a volume"),
            "{error}"
        );
    }
}
