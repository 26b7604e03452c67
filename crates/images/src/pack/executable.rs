//! What a program needs beside itself to run alone in a root file system: its ELF interpreter and its shared libraries.
//!
//! Only what the headers name is found; what a program opens while it runs (`dlopen`) it must bring itself. Libraries keep
//! the paths at which they were found, since there the same interpreter finds them again; one that only this machine's
//! `/etc/ld.so.conf` leads to goes beside the C library, because the image has no cache of the linker's.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use object::elf::{self, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use super::{Entry, PackError};

/// What an ELF file's headers say.
#[derive(Debug, Default)]
struct Needs {
    machine: u16,
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
    /// `DT_RUNPATH` or `DT_RPATH`, with `$ORIGIN` replaced.
    run_path: Vec<PathBuf>,
}

/// Entries for a program of this machine at `path` within the image, with its interpreter and every shared library that it
/// needs. A static program is one entry.
pub fn executable(program: &Path, path: &str) -> Result<Vec<Entry>, PackError> {
    let read_error = |source| PackError::Read {
        path: program.to_owned(),
        source,
    };
    // The real file, so that `$ORIGIN` and a later reading mean the same one (`/proc/self/exe` is a link).
    let program = fs::canonicalize(program).map_err(read_error)?;
    let needs = read(&program)?;
    let mut entries = vec![Entry::file(path, 0o755, &program)];
    if let Some(interpreter) = &needs.interpreter {
        entries.push(Entry::file(interpreter.display().to_string(), 0o755, interpreter));
    }
    let machine = needs.machine;
    let search = Search::of_this_machine(needs.interpreter.as_deref());
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    let mut open = VecDeque::from([(program, needs)]);
    let mut beside = Vec::new();
    while let Some((who, needs)) = open.pop_front() {
        for library in &needs.libraries {
            if found.contains_key(library) {
                continue;
            }
            let (place, cached) = search.find(library, &needs.run_path, machine).ok_or_else(|| {
                let all = needs.run_path.iter().chain(&search.built_in).chain(&search.configured);
                let places = all.map(|dir| dir.display().to_string()).collect();
                PackError::Library {
                    path: who.clone(),
                    library: library.clone(),
                    places,
                }
            })?;
            if cached {
                beside.push(library.clone());
            }
            found.insert(library.clone(), Entry::file(place.display().to_string(), 0o755, &place));
            open.push_back((place.clone(), read(&place)?));
        }
    }
    let home = found
        .values()
        .find(|entry| is_c_library(&entry.path))
        .and_then(|entry| Path::new(&entry.path).parent());
    let home = home.unwrap_or(Path::new("/lib")).to_owned();
    for library in beside {
        if let Some(entry) = found.get_mut(&library) {
            entry.path = home.join(&library).display().to_string();
        }
    }
    entries.extend(found.into_values());
    Ok(entries)
}

fn is_c_library(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("libc.so") || name.starts_with("libc.musl"))
}

/// Where libraries are looked for beside a program's own run path.
struct Search {
    /// Directories that the interpreter itself knows.
    built_in: Vec<PathBuf>,
    /// Directories that this machine's configuration adds.
    configured: Vec<PathBuf>,
}

impl Search {
    fn of_this_machine(interpreter: Option<&Path>) -> Self {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let musl = interpreter
            .and_then(Path::file_name)
            .is_some_and(|name| name.to_string_lossy().starts_with("ld-musl"));
        let built_in: Vec<String> = if musl {
            ["/lib", "/usr/local/lib", "/usr/lib"].map(str::to_owned).into()
        } else {
            let multiarch = [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")];
            multiarch
                .into_iter()
                .chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned))
                .collect()
        };
        let mut configured = Vec::new();
        if !musl {
            let fragments = fs::read_dir("/etc/ld.so.conf.d")
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path());
            let mut files: Vec<PathBuf> = fragments
                .filter(|path| path.extension().is_some_and(|e| e == "conf"))
                .collect();
            files.sort();
            files.push("/etc/ld.so.conf".into());
            for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
                configured.extend(
                    text.lines()
                        .map(str::trim)
                        .filter(|line| line.starts_with('/'))
                        .map(PathBuf::from),
                );
            }
        }
        Self {
            built_in: built_in.into_iter().map(PathBuf::from).collect(),
            configured,
        }
    }

    /// The library's path, and whether only the configuration led there.
    fn find(&self, library: &str, run_path: &[PathBuf], machine: u16) -> Option<(PathBuf, bool)> {
        if library.contains('/') {
            return Some((PathBuf::from(library), false));
        }
        let own = run_path.iter().chain(&self.built_in).map(|dir| (dir, false));
        own.chain(self.configured.iter().map(|dir| (dir, true)))
            .map(|(dir, cached)| (dir.join(library), cached))
            .find(|(path, _)| read(path).is_ok_and(|needs| needs.machine == machine))
    }
}

fn read(path: &Path) -> Result<Needs, PackError> {
    let file = File::open(path).map_err(|source| PackError::Read {
        path: path.to_owned(),
        source,
    })?;
    let origin = path.parent().unwrap_or(Path::new("/"));
    needs(&ReadCache::new(file), origin).map_err(|error| {
        let why = format!("it is not a 64-bit ELF file of this machine's kind ({error})");
        PackError::Executable {
            path: path.to_owned(),
            why,
        }
    })
}

fn needs<'data>(data: impl ReadRef<'data>, origin: &Path) -> object::read::Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?;
    let mut needs = Needs {
        machine: header.e_machine(endian),
        ..Needs::default()
    };
    let mut dynamic: &[elf::Dyn64<Endianness>] = &[];
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            needs.interpreter = Some(PathBuf::from(String::from_utf8_lossy(interpreter).into_owned()));
        }
        if let Some(table) = segment.dynamic(endian, data)? {
            dynamic = table;
        }
    }
    let entries: Vec<(i64, u64)> = dynamic
        .iter()
        .map(|d| (d.d_tag(endian), d.d_val(endian)))
        .take_while(|(tag, _)| *tag != elf::DT_NULL)
        .collect();
    let value = |wanted| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else {
        return Ok(needs);
    };
    let mut strings: &[u8] = &[];
    for segment in segments {
        if let Ok(Some(bytes)) = segment.data_range(endian, data, address, size) {
            strings = bytes;
            break;
        }
    }
    let text = |offset: u64| {
        let rest = strings.get(usize::try_from(offset).ok()?..)?;
        let end = rest.iter().position(|b| *b == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
    };
    let strings_of = |wanted| {
        entries
            .iter()
            .filter(move |(tag, _)| *tag == wanted)
            .filter_map(|(_, v)| text(*v))
    };
    needs.libraries = strings_of(elf::DT_NEEDED).collect();
    let run_path = strings_of(elf::DT_RUNPATH)
        .next()
        .or_else(|| strings_of(elf::DT_RPATH).next())
        .unwrap_or_default();
    let origin = origin.display().to_string();
    let places = run_path.split(':').filter(|place| !place.is_empty());
    needs.run_path = places
        .map(|p| p.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
        .map(PathBuf::from)
        .collect();
    Ok(needs)
}
