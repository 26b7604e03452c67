//! What is on a region's volumes, read as files: the oracle asks no program that could be wrong.

use anyhow::Context as _;
use leeward_local::instance::Instance;

use crate::sample::record::{self, Record};

/// Every record in every log on a region's volumes.
pub(crate) fn read(instance: &Instance, region: &str) -> anyhow::Result<Vec<Record>> {
    Ok(sizes_and_records(instance, region)?.1)
}

/// Every record in what a returning region had alone and was put aside before its volumes were rewound.
pub(crate) fn kept(instance: &Instance, region: &str) -> anyhow::Result<Vec<Record>> {
    let mut records = vec![];
    let mut directories = vec![instance.layout().region(region).join("agent/points/kept")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                // What is put aside may be the middle of a log that differs, so that only whole lines count.
                records.extend(
                    record::read(&content)
                        .map(|contents| contents.records)
                        .unwrap_or_default(),
                );
            }
        }
    }
    Ok(records)
}

/// How many bytes the logs on a region's volumes have.
pub(crate) fn bytes(instance: &Instance, region: &str) -> anyhow::Result<u64> {
    Ok(sizes_and_records(instance, region)?.0)
}

fn sizes_and_records(instance: &Instance, region: &str) -> anyhow::Result<(u64, Vec<Record>)> {
    let mut bytes = 0;
    let mut records = vec![];
    let directory = instance.layout().volumes(region);
    let volumes = match std::fs::read_dir(&directory) {
        Ok(volumes) => volumes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, records)),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
    };
    for volume in volumes {
        for file in std::fs::read_dir(volume?.path())? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let content = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            bytes += content.len() as u64;
            let contents = record::read(&content).map_err(|damaged| {
                anyhow::anyhow!(
                    "{} is damaged at byte {}: this must not happen",
                    path.display(),
                    damaged.offset
                )
            })?;
            records.extend(contents.records);
        }
    }
    Ok((bytes, records))
}
