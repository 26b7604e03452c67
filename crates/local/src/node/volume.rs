//! Prepares a pod's volumes as directories of the machine.
//!
//! What a pod refers to decides the content ([`files`], pure); the rest is claims, whose PersistentVolume names a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod,
    SecretVolumeSource, Volume as Declared,
};
use kube::api::Api;

use super::plan::{self, Place, Sources, Volume, field_value};

/// Why a volume is not ready; every reason may pass.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Something that the volume refers to.
    #[error("volume {volume:?}: {reason}")]
    NotReady {
        /// The volume's name in the pod.
        volume: String,
        /// What it waits for.
        reason: String,
    },
}

/// One file of a volume.
#[derive(Debug, Eq, PartialEq)]
struct Entry {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

/// Makes every volume of `pod` under `dir` and says where each is.
pub(super) async fn prepare(
    client: &kube::Client,
    pod: &Pod,
    sources: &Sources,
    place: &Place,
    dir: &Path,
) -> Result<BTreeMap<String, Volume>, Error> {
    let mut volumes = BTreeMap::new();
    for declared in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let dir = dir.join(&declared.name);
        let volume = one(client, pod, declared, sources, place, &dir)
            .await
            .map_err(|reason| Error::NotReady {
                volume: declared.name.clone(),
                reason,
            })?;
        volumes.insert(declared.name.clone(), volume);
    }
    Ok(volumes)
}

/// Whether a volume of the pod follows objects of the API.
pub(super) fn changes(pod: &Pod) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|v| v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some())
}

/// Writes the volumes again whose content is another now. What cannot be had stays as it was.
pub(super) fn refresh(pod: &Pod, sources: &Sources, place: &Place, dir: &Path) {
    for declared in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if let Ok(Some(entries)) = files(declared, pod, sources, place)
            && let Err(error) = write(&dir.join(&declared.name), &entries)
        {
            tracing::warn!(volume = declared.name, %error, "cannot bring a volume up to date");
        }
    }
}

async fn one(
    client: &kube::Client,
    pod: &Pod,
    declared: &Declared,
    sources: &Sources,
    place: &Place,
    dir: &Path,
) -> Result<Volume, String> {
    if let Some(claim) = &declared.persistent_volume_claim {
        let path = claimed(client, pod, &claim.claim_name).await?;
        return Ok(Volume {
            path,
            read_only: claim.read_only.unwrap_or(false),
        });
    }
    if let Some(host) = &declared.host_path {
        let path = PathBuf::from(&host.path);
        match host.type_.as_deref() {
            Some("DirectoryOrCreate") => std::fs::create_dir_all(&path).map_err(|error| error.to_string())?,
            Some("FileOrCreate") if !path.exists() => std::fs::write(&path, b"").map_err(|error| error.to_string())?,
            _ => {}
        }
        return if path.exists() {
            Ok(Volume { path, read_only: false })
        } else {
            Err(format!("the hostPath {} does not exist", path.display()))
        };
    }
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    match files(declared, pod, sources, place)? {
        None if declared.empty_dir.is_some() => Ok(Volume {
            path: dir.to_path_buf(),
            read_only: false,
        }),
        None => Err("volumes of this kind are not supported by local regions".to_owned()),
        Some(entries) => {
            write(dir, &entries).map_err(|error| format!("cannot write: {error}"))?;
            Ok(Volume {
                path: dir.to_path_buf(),
                read_only: true,
            })
        }
    }
}

/// The directory of the volume that a claim is bound to.
async fn claimed(client: &kube::Client, pod: &Pod, name: &str) -> Result<PathBuf, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get_opt(name).await.map_err(|error| error.to_string())?;
    let claim = claim.ok_or_else(|| format!("PersistentVolumeClaim {name:?} not found"))?;
    let bound = claim
        .spec
        .and_then(|spec| spec.volume_name)
        .filter(|volume| !volume.is_empty());
    let bound = bound.ok_or_else(|| format!("PersistentVolumeClaim {name:?} is not bound yet"))?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get_opt(&bound).await.map_err(|error| error.to_string())?;
    let spec = volume
        .and_then(|volume| volume.spec)
        .ok_or_else(|| format!("PersistentVolume {bound:?} not found"))?;
    let path = spec
        .host_path
        .map(|host| host.path)
        .or_else(|| spec.local.map(|local| local.path));
    let path = path
        .map(PathBuf::from)
        .ok_or_else(|| format!("PersistentVolume {bound:?} is not a directory here"))?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(format!("the directory {} of {bound:?} does not exist", path.display()))
    }
}

/// The files of a volume that the API provides; none for a volume of another kind.
fn files(declared: &Declared, pod: &Pod, sources: &Sources, place: &Place) -> Result<Option<Vec<Entry>>, String> {
    if let Some(source) = &declared.config_map {
        return config_map(source, sources).map(Some);
    }
    if let Some(source) = &declared.secret {
        return secret(source, sources).map(Some);
    }
    if let Some(source) = &declared.downward_api {
        let mode = mode(source.default_mode);
        return downward(source.items.as_deref().unwrap_or_default(), mode, pod, place).map(Some);
    }
    let Some(projected) = &declared.projected else {
        return Ok(None);
    };
    let default = mode(projected.default_mode);
    let mut entries = Vec::new();
    for source in projected.sources.iter().flatten() {
        if let Some(map) = &source.config_map {
            let optional = map.optional.unwrap_or(false);
            entries.extend(keyed(
                sources,
                "ConfigMap",
                &map.name,
                map.items.as_deref(),
                default,
                optional,
            )?);
        }
        if let Some(secret) = &source.secret {
            let optional = secret.optional.unwrap_or(false);
            entries.extend(keyed(
                sources,
                "Secret",
                &secret.name,
                secret.items.as_deref(),
                default,
                optional,
            )?);
        }
        if let Some(fields) = &source.downward_api {
            entries.extend(downward(
                fields.items.as_deref().unwrap_or_default(),
                default,
                pod,
                place,
            )?);
        }
    }
    Ok(Some(entries))
}

fn config_map(source: &ConfigMapVolumeSource, sources: &Sources) -> Result<Vec<Entry>, String> {
    let optional = source.optional.unwrap_or(false);
    keyed(
        sources,
        "ConfigMap",
        &source.name,
        source.items.as_deref(),
        mode(source.default_mode),
        optional,
    )
}

fn secret(source: &SecretVolumeSource, sources: &Sources) -> Result<Vec<Entry>, String> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    let optional = source.optional.unwrap_or(false);
    keyed(
        sources,
        "Secret",
        name,
        source.items.as_deref(),
        mode(source.default_mode),
        optional,
    )
}

fn mode(declared: Option<i32>) -> u32 {
    declared.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

fn keyed(
    sources: &Sources,
    kind: &'static str,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: u32,
    optional: bool,
) -> Result<Vec<Entry>, String> {
    let Some(mut keys) = sources.keys(kind, name) else {
        return if optional {
            Ok(Vec::new())
        } else {
            Err(plan::Error::NoObject {
                kind,
                name: name.to_owned(),
            }
            .to_string())
        };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(keys
            .into_iter()
            .map(|(path, content)| Entry { path, mode, content })
            .collect());
    };
    let mut entries = Vec::new();
    for item in items {
        match keys.remove(&item.key) {
            Some(content) => {
                let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
                entries.push(Entry {
                    path: item.path.clone(),
                    mode,
                    content,
                });
            }
            None if optional => {}
            None => {
                let (name, key) = (name.to_owned(), item.key.clone());
                return Err(plan::Error::NoKey { kind, name, key }.to_string());
            }
        }
    }
    Ok(entries)
}

fn downward(items: &[DownwardAPIVolumeFile], mode: u32, pod: &Pod, place: &Place) -> Result<Vec<Entry>, String> {
    let entry = |item: &DownwardAPIVolumeFile| {
        let path = item
            .field_ref
            .as_ref()
            .map(|reference| reference.field_path.as_str())
            .unwrap_or_default();
        let content = field_value(path, pod, place).map_err(|error| error.to_string())?;
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
        Ok(Entry {
            path: item.path.clone(),
            mode,
            content: content.into_bytes(),
        })
    };
    items.iter().map(entry).collect()
}

/// What the names in a volume lead through: a link to the directory with the newest content.
const DATA: &str = "..data";

/// Makes the volume's content that of `entries`, all at once: it is written beside the old, and then a link is renamed.
fn write(dir: &Path, entries: &[Entry]) -> std::io::Result<()> {
    let data = dir.join(DATA);
    let old = std::fs::read_link(&data).ok();
    if old.is_some() && is_written(&data, entries) {
        return Ok(());
    }
    let fresh = format!("..{}", jiff::Timestamp::now().as_nanosecond());
    std::fs::create_dir(dir.join(&fresh))?;
    for entry in entries {
        write_file(&dir.join(&fresh), entry)?;
    }
    let link = dir.join("..data_new");
    let _ = std::fs::remove_file(&link);
    std::os::unix::fs::symlink(&fresh, &link)?;
    std::fs::rename(&link, &data)?;
    let names: BTreeSet<_> = std::fs::read_dir(&data)?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
    for name in &names {
        if std::fs::symlink_metadata(dir.join(name)).is_err() {
            std::os::unix::fs::symlink(Path::new(DATA).join(name), dir.join(name))?;
        }
    }
    for there in std::fs::read_dir(dir)? {
        let name = there?.file_name();
        let kept = name == DATA || name.to_str() == Some(fresh.as_str()) || names.contains(&name);
        if !kept {
            crate::container::path::remove_tree(&dir.join(name))?;
        }
    }
    Ok(())
}

fn write_file(dir: &Path, entry: &Entry) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let inside = Path::new(&entry.path);
    if inside.is_absolute() || inside.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(std::io::Error::other(format!(
            "the path {:?} leads out of the volume",
            entry.path
        )));
    }
    let path = dir.join(inside);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, &entry.content)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(entry.mode & 0o777))
}

/// Whether the directory has these files and no others.
fn is_written(data: &Path, entries: &[Entry]) -> bool {
    fn count(dir: &Path) -> usize {
        let there = std::fs::read_dir(dir).into_iter().flatten().flatten();
        there
            .map(|entry| match entry.path() {
                path if path.is_dir() => count(&path),
                _ => 1,
            })
            .sum()
    }
    let paths: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let same = |entry: &Entry| std::fs::read(data.join(&entry.path)).is_ok_and(|content| content == entry.content);
    paths.len() == count(data) && entries.iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entries(volume: serde_json::Value) -> Result<Option<Vec<Entry>>, String> {
        let map = json!({"metadata": {}, "data": {"a": "1", "b": "2"}});
        let secret = json!({"metadata": {}, "data": {"k": "c2VjcmV0"}});
        let sources = Sources {
            config_maps: BTreeMap::from([("m".to_owned(), serde_json::from_value(map).unwrap())]),
            secrets: BTreeMap::from([("s".to_owned(), serde_json::from_value(secret).unwrap())]),
        };
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"x": "y"}}})).unwrap();
        let ip = std::net::Ipv4Addr::LOCALHOST;
        let place = Place {
            pod_ip: ip,
            host_ip: ip,
            node: "n".to_owned(),
        };
        files(&serde_json::from_value(volume).unwrap(), &pod, &sources, &place)
    }

    fn entry(path: &str, mode: u32, content: &str) -> Entry {
        Entry {
            path: path.into(),
            mode,
            content: content.into(),
        }
    }

    #[test]
    fn every_key_or_the_chosen_ones_become_files() {
        let all = entries(json!({"name": "v", "configMap": {"name": "m"}})).unwrap();
        assert_eq!(all, Some(vec![entry("a", 0o644, "1"), entry("b", 0o644, "2")]));
        let chosen = json!({"name": "v", "configMap": {"name": "m", "defaultMode": 256,
            "items": [{"key": "b", "path": "sub/b"}, {"key": "a", "path": "a", "mode": 448}]}});
        assert_eq!(
            entries(chosen).unwrap(),
            Some(vec![entry("sub/b", 0o400, "2"), entry("a", 0o700, "1")])
        );
        let projected = json!({"name": "v", "projected": {"sources": [{"secret": {"name": "s"}},
            {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}});
        assert_eq!(
            entries(projected).unwrap(),
            Some(vec![entry("k", 0o644, "secret"), entry("l", 0o644, "x=\"y\"")])
        );
    }

    #[test]
    fn what_is_missing_is_waited_for_unless_optional() {
        assert!(
            entries(json!({"name": "v", "secret": {"secretName": "gone"}}))
                .unwrap_err()
                .contains("gone")
        );
        let optional = entries(json!({"name": "v", "secret": {"secretName": "gone", "optional": true}}));
        assert_eq!(optional, Ok(Some(Vec::new())));
        assert_eq!(entries(json!({"name": "v", "emptyDir": {}})), Ok(None));
    }

    #[test]
    fn files_stay_inside_their_volume() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write(dir.path(), &[entry("../x", 0o644, "")]).is_err());
        write(dir.path(), &[entry("a/b", 0o600, "1")]).unwrap();
        write(dir.path(), &[entry("c", 0o600, "2")]).unwrap();
        assert!(std::fs::symlink_metadata(dir.path().join("a")).is_err());
        assert_eq!(std::fs::read(dir.path().join("c")).unwrap(), b"2");
    }

    #[test]
    fn content_changes_all_at_once_and_only_when_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join(DATA);
        write(dir.path(), &[entry("a", 0o600, "1"), entry("b", 0o600, "1")]).unwrap();
        let first = std::fs::read_link(&data).unwrap();
        write(dir.path(), &[entry("a", 0o600, "1"), entry("b", 0o600, "1")]).unwrap();
        assert_eq!(std::fs::read_link(&data).unwrap(), first);
        let opened = std::fs::File::open(dir.path().join("a")).unwrap();
        write(dir.path(), &[entry("a", 0o600, "2"), entry("b", 0o600, "2")]).unwrap();
        assert_ne!(std::fs::read_link(&data).unwrap(), first);
        assert_eq!(std::io::read_to_string(opened).unwrap(), "1");
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"2");
        let there = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(there, 4, "two names, the link and what it leads to");
    }
}
