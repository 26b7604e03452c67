//! The newest bundle of each application on this cluster's own disk, so that an agent that starts while the active region is lost has it.
//!
//! Invariants: a file is replaced as a whole, so that after a crash it is the one before or the one after; what is read is exactly what was
//! written, of the application that was asked for, and nothing that no application may have carried; a file that is not is named and left
//! out, never half used. The objects hold Secrets: only the agent's own user can read the directory.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use leeward_core::name::AppKey;
use serde::{Deserialize, Serialize};

use super::{Bundle, compare};

/// The directory's name in the agent's data directory.
const DIRECTORY: &str = "carried";

/// Why a file is left out. The bundle is asked for again.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be read, written or removed.
    #[error("{}: {source}; make space, or let the agent read and write it", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{} is damaged and was left out: the configuration is asked for again where the application is active", .0.display())]
    Damaged(PathBuf),
    /// It is whole, and not for this place.
    #[error("{} was left out: {reason}; the configuration is asked for again where the application is active", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    /// BLAKE3 of everything in the bundle: its own hash is of the objects alone.
    digest: String,
    bundle: Bundle,
}

/// The step of a write that was just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Half,
    Whole,
    Replaced,
}

/// The bundles that are kept.
#[derive(Debug, Clone)]
pub struct Kept {
    directory: PathBuf,
}

impl Kept {
    /// The bundles kept in an agent's data directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(data_dir: &Path) -> Result<Self, KeptError> {
        let directory = data_dir.join(DIRECTORY);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(at(&directory))?;
        Ok(Self { directory })
    }

    /// The file of an application. No namespace has a dot in its name.
    fn file(&self, app: &AppKey) -> PathBuf {
        self.directory.join(file_name(app))
    }

    /// Whether there is one of an application.
    pub fn has(&self, app: &AppKey) -> bool {
        self.file(app).exists()
    }

    /// The bundle of an application; none where none is kept.
    ///
    /// # Errors
    /// The file is damaged, or of something else.
    pub fn read(&self, app: &AppKey) -> Result<Option<Bundle>, KeptError> {
        let path = self.file(app);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&path)(error)),
        };
        let Ok(Form { digest, bundle }) = serde_json::from_slice(&text) else {
            return Err(KeptError::Damaged(path));
        };
        if digest_of(&bundle).map_err(at(&path))? != digest {
            return Err(KeptError::Damaged(path));
        }
        if bundle.app != *app {
            let reason = format!("it is of {}", bundle.app);
            return Err(KeptError::Foreign { path, reason });
        }
        match bundle.check() {
            Ok(()) => Ok(Some(bundle)),
            Err(error) => Err(KeptError::Foreign {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Keeps a bundle in place of the one before. Once this returns it outlives a crash.
    ///
    /// # Errors
    /// It cannot be written; what was there before still is.
    pub fn write(&self, bundle: &Bundle) -> Result<(), KeptError> {
        self.write_by(bundle, &mut |_| Ok(()))
    }

    fn write_by(&self, bundle: &Bundle, after: &mut dyn FnMut(Step) -> io::Result<()>) -> Result<(), KeptError> {
        let path = self.file(&bundle.app);
        let next = path.with_extension("json.new");
        let form = digest_of(bundle).and_then(|digest| {
            let bundle = bundle.clone();
            serde_json::to_vec(&Form { digest, bundle }).map_err(io::Error::other)
        });
        let written = form.and_then(|text| {
            let (begin, rest) = text.split_at(text.len() / 2);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all(begin)?;
            after(Step::Half)?;
            file.write_all(rest)?;
            file.sync_all()?;
            after(Step::Whole)?;
            fs::rename(&next, &path)?;
            after(Step::Replaced)?;
            File::open(&self.directory)?.sync_all()
        });
        written.map_err(at(&path))
    }

    /// Removes the bundle of an application, if there is one. Once this returns it does not come back after a crash.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, app: &AppKey) -> Result<(), KeptError> {
        let path = self.file(app);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => {
                let durable = removed.and_then(|()| File::open(&self.directory)?.sync_all());
                durable.map_err(at(&path))
            }
        }
    }

    /// Removes whatever is of none of these applications, and what a write that was broken off left.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn retain<'a>(&self, apps: impl Iterator<Item = &'a AppKey>) -> Result<(), KeptError> {
        let keep: BTreeSet<OsString> = apps.map(|app| file_name(app).into()).collect();
        let failed = at(&self.directory);
        for entry in fs::read_dir(&self.directory).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            if !keep.contains(&entry.file_name()) {
                fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
            }
        }
        Ok(())
    }
}

fn file_name(app: &AppKey) -> String {
    format!("{}.{}.json", app.namespace, app.name)
}

fn at(path: &Path) -> impl Fn(io::Error) -> KeptError {
    let path = path.to_owned();
    move |source| KeptError::Io {
        path: path.clone(),
        source,
    }
}

fn digest_of(bundle: &Bundle) -> io::Result<String> {
    Ok(compare::hash(&[serde_json::to_value(bundle)?]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use leeward_core::name::{ClusterName, Generation};
    use serde_json::json;

    use super::*;

    fn bundle(app: &str, colour: &str) -> Bundle {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "colours", "namespace": "shop" }, "data": { "a": colour },
        });
        let app = AppKey::new("shop", app);
        Bundle::new(app, ClusterName::new("west"), None, Generation(3), vec![object])
    }

    fn opened() -> (tempfile::TempDir, Kept) {
        let directory = tempfile::tempdir().unwrap();
        let kept = Kept::open(directory.path()).unwrap();
        (directory, kept)
    }

    #[test]
    fn what_is_kept_is_read_again_and_only_by_its_owner() {
        let (directory, kept) = opened();
        let app = AppKey::new("shop", "web");
        assert_eq!(kept.read(&app).unwrap(), None);
        kept.write(&bundle("web", "red")).unwrap();
        kept.write(&bundle("web", "blue")).unwrap();
        let again = Kept::open(directory.path()).unwrap();
        assert_eq!(again.read(&app).unwrap(), Some(bundle("web", "blue")));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.directory), mode(&kept.file(&app))), (0o700, 0o600));
        kept.remove(&app).unwrap();
        kept.remove(&app).unwrap();
        assert_eq!(kept.read(&app).unwrap(), None);
    }

    #[test]
    fn killed_after_any_step_of_a_write_there_is_the_one_before_or_the_one_after_and_it_can_be_done_again() {
        for last in [Step::Half, Step::Whole, Step::Replaced] {
            let (_directory, kept) = opened();
            kept.write(&bundle("web", "red")).unwrap();
            let broken = kept.write_by(&bundle("web", "blue"), &mut |step| match step == last {
                true => Err(io::Error::other("killed")),
                false => Ok(()),
            });
            assert!(broken.is_err());
            let expected = if last == Step::Replaced { "blue" } else { "red" };
            let app = AppKey::new("shop", "web");
            assert_eq!(kept.read(&app).unwrap(), Some(bundle("web", expected)), "{last:?}");
            kept.retain([&app].into_iter()).unwrap();
            assert_eq!(fs::read_dir(&kept.directory).unwrap().count(), 1, "{last:?}");
            kept.write(&bundle("web", "blue")).unwrap();
            assert_eq!(kept.read(&app).unwrap(), Some(bundle("web", "blue")));
        }
    }

    #[test]
    fn a_damaged_or_foreign_file_is_named_and_nothing_of_it_is_used() {
        let (_directory, kept) = opened();
        let app = AppKey::new("shop", "web");
        kept.write(&bundle("web", "red")).unwrap();
        let whole = fs::read_to_string(kept.file(&app)).unwrap();
        for damaged in [
            String::new(),
            whole[..whole.len() - 1].to_owned(),
            whole.replace("red", "led"),
            whole.replace("west", "east"),
            whole.replace("\"generation\":3", "\"generation\":4"),
            whole.replacen('{', "{\"more\":1,", 1),
        ] {
            fs::write(kept.file(&app), &damaged).unwrap();
            let error = kept.read(&app).unwrap_err();
            assert!(matches!(error, KeptError::Damaged(_)), "{damaged}: {error}");
            assert!(error.to_string().contains("shop.web.json"), "{error}");
        }
        kept.write(&bundle("other", "red")).unwrap();
        fs::rename(kept.file(&AppKey::new("shop", "other")), kept.file(&app)).unwrap();
        let error = kept.read(&app).unwrap_err().to_string();
        assert!(error.contains("it is of shop/other"), "{error}");
        // Whole, and written by somebody who can make digests, with what no application may have carried.
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "all" } });
        let foreign = Bundle::new(app.clone(), ClusterName::new("west"), None, Generation(3), vec![role]);
        kept.write(&foreign).unwrap();
        let error = kept.read(&app).unwrap_err().to_string();
        assert!(error.contains("never carried"), "{error}");
        kept.write(&bundle("web", "blue")).unwrap();
        assert_eq!(kept.read(&app).unwrap(), Some(bundle("web", "blue")));
    }

    #[test]
    fn only_what_is_protected_is_retained() {
        let (_directory, kept) = opened();
        for name in ["web", "gone"] {
            kept.write(&bundle(name, "red")).unwrap();
        }
        kept.retain([&AppKey::new("shop", "web")].into_iter()).unwrap();
        assert!(kept.has(&AppKey::new("shop", "web")) && !kept.has(&AppKey::new("shop", "gone")));
    }
}
