//! What is on a region's volumes, read as files: the oracle asks no program that could be wrong.

use anyhow::Context as _;
use leeward_local::instance::Instance;

use crate::sample::record::{self, Record};

/// Every record in every log on a region's volumes.
pub(crate) fn read(instance: &Instance, region: &str) -> anyhow::Result<Vec<Record>> {
    Ok(sizes_and_records(instance, region)?.1)
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
