//! What is on a region's volumes, read as files: the oracle asks no program that could be wrong.

use std::path::Path;

use anyhow::Context as _;
use leeward_local::instance::Instance;

use crate::sample::record::{self, Record};

/// Every record in every log on a region's volumes.
pub(crate) fn read(instance: &Instance, region: &str) -> anyhow::Result<Vec<Record>> {
    Ok(sizes_and_records(instance, region)?.1)
}

/// Every record that stands anywhere in any region now: on its volumes, and beside its points, where the mirror of another region's volumes is and
/// what a returning region had alone.
pub(crate) fn anywhere(instance: &Instance) -> anyhow::Result<Vec<Record>> {
    let mut records = vec![];
    for region in instance.regions() {
        records.extend(read(instance, region)?);
        records.extend(beside(&instance.layout().region(region).join("agent/points"))?);
    }
    Ok(records)
}

/// Every record in any log below a directory. A log that is changed meanwhile, or of which only parts were put aside, need not be whole: each line
/// has a sum of its own, so that each one that is counts.
fn beside(directory: &Path) -> anyhow::Result<Vec<Record>> {
    let mut records = vec![];
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let Some(entries) = there(&directory, std::fs::read_dir(&directory))? else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log")
                && let Some(content) = there(&path, std::fs::read(&path))?
            {
                let lines = content.split(|byte| *byte == b'\n');
                records.extend(lines.filter_map(|line| Record::parse(line, 0)));
            }
        }
    }
    Ok(records)
}

/// What was read, or none where it is not there (any more).
fn there<T>(path: &Path, read: std::io::Result<T>) -> anyhow::Result<Option<T>> {
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        read => read
            .map(Some)
            .with_context(|| format!("cannot read {}", path.display())),
    }
}

/// How many bytes the logs on a region's volumes have.
pub(crate) fn bytes(instance: &Instance, region: &str) -> anyhow::Result<u64> {
    Ok(sizes_and_records(instance, region)?.0)
}

fn sizes_and_records(instance: &Instance, region: &str) -> anyhow::Result<(u64, Vec<Record>)> {
    let mut bytes = 0;
    let mut records = vec![];
    let directory = instance.layout().volumes(region);
    let volumes = there(&directory, std::fs::read_dir(&directory))?;
    for volume in volumes.into_iter().flatten() {
        let volume = volume?.path();
        // A volume may be exchanged meanwhile.
        let files = there(&volume, std::fs::read_dir(&volume))?;
        for file in files.into_iter().flatten() {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "log") {
                continue;
            }
            let Some(content) = there(&path, std::fs::read(&path))? else {
                continue;
            };
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

#[cfg(test)]
mod tests {
    use std::fs;

    use leeward_local::instance::Options;

    use super::*;

    fn line(n: u64) -> String {
        let record = Record {
            client: "c".into(),
            n,
            epoch: 1,
            cluster: "east".into(),
            micros: 0,
            offset: 0,
        };
        record.to_string()
    }

    #[test]
    fn what_stands_anywhere_in_any_region_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("regions");
        let instance = Instance::create(&directory, &["west", "east"], &Options::default()).unwrap();
        let west = instance.layout().region("west").join("agent/points");
        let east = instance.layout().region("east").join("agent/points");
        // Of what was put aside a part may be damaged.
        let torn = format!("{}torn\n{}", line(4), line(5));
        for (log, content) in [
            (instance.layout().volumes("west").join("claim/writes.log"), line(1)),
            (instance.layout().volumes("east").join("claim/writes.log"), line(2)),
            (west.join("roles/shop/tree/data/writes.log"), line(3)),
            (east.join("kept/shop/epoch-2/data/writes.log"), torn),
        ] {
            fs::create_dir_all(log.parent().unwrap()).unwrap();
            fs::write(log, content).unwrap();
        }
        let mut found: Vec<u64> = anywhere(&instance).unwrap().iter().map(|record| record.n).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3, 4, 5]);
    }
}
