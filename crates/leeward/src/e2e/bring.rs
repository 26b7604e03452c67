//! The image: how it comes to the clusters.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use leeward_images::{pack, reference::Reference};

use crate::{image, output};

/// How.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Way {
    /// The nodes have it or can pull it, by this name.
    There(String),
    /// It is pushed to a registry that the nodes pull from: its host, and with which scheme it is spoken to here.
    Registry { scheme: &'static str, host: String },
    /// A command of the user for each cluster.
    Load(String),
}

/// The one way that is named.
///
/// # Errors
/// None is named, or more than one, or the registry's name makes no sense.
pub(crate) fn way(image: Option<&str>, registry: Option<&str>, load: Option<&str>) -> Result<Way, String> {
    match (image, registry, load) {
        (Some(image), None, None) => Ok(Way::There(image.to_owned())),
        (None, Some(registry), None) => {
            let (scheme, host) = match registry.split_once("://") {
                Some(("http", host)) => ("http", host),
                Some(("https", host)) => ("https", host),
                Some(_) => return Err(format!("--registry {registry}: it is HOST, HOST:PORT or http://HOST:PORT")),
                None if is_local(registry) => ("http", registry),
                None => ("https", registry),
            };
            let host = host.trim_end_matches('/').to_owned();
            Reference::parse(&format!("{host}/leeward/e2e:1")).map_err(|error| format!("--registry {registry}: {error}"))?;
            Ok(Way::Registry { scheme, host })
        }
        (None, None, Some(load)) if load.contains("{tar}") => Ok(Way::Load(load.to_owned())),
        (None, None, Some(_)) => Err("--load: the command says {tar} where the archive's path is to stand".to_owned()),
        (None, None, None) => Err(
            "say how the image comes to the clusters' nodes: --registry HOST, --load COMMAND, or --image NAME where they have it".to_owned(),
        ),
        _ => Err("the image comes in one way: --registry, --load or --image".to_owned()),
    }
}

/// As other programs do it, a registry on this machine is spoken to without TLS.
fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.starts_with("127.")
}

/// A command of the user with what stands for it put in.
pub(crate) fn filled(command: &str, tar: &Path, cluster: &str) -> String {
    command
        .replace("{tar}", &tar.display().to_string())
        .replace("{cluster}", cluster)
}

/// Brings it, and gives its name. Whatever is written for it lies in `dir`.
///
/// # Errors
/// It cannot be made, pushed or loaded.
pub(crate) async fn bring(way: &Way, clusters: &[&str], dir: &Path) -> anyhow::Result<String> {
    if let Way::There(name) = way {
        return Ok(name.clone());
    }
    let packed = image::image()?;
    let digest = packed.digest().to_string();
    let short = digest
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .get(..12)
        .unwrap_or_default();
    match way {
        Way::There(name) => Ok(name.clone()),
        Way::Registry { scheme, host } => {
            let name = format!("{host}/leeward/e2e:{short}");
            let client = reqwest::Client::builder().build()?;
            let reference = Reference::parse(&name)?;
            let base = format!("{scheme}://{host}");
            pack::push(&client, &base, &reference, &packed)
                .await
                .with_context(|| format!("the image cannot be pushed to {base}"))?;
            output::say(format_args!("pushed {name}"));
            Ok(name)
        }
        Way::Load(command) => {
            // A name with a host, which node runtimes leave as it is.
            let name = format!("leeward.dev/leeward:e2e-{short}");
            let tar: PathBuf = dir.join("leeward.tar");
            let file = std::fs::File::create(&tar)?;
            packed.archive(&name, file)?;
            for cluster in clusters {
                run(&filled(command, &tar, cluster))
                    .await
                    .with_context(|| format!("the image was not loaded in {cluster}"))?;
                output::say(format_args!("{cluster} has {name}"));
            }
            std::fs::remove_file(&tar)?;
            Ok(name)
        }
    }
}

/// Runs a command of the user.
///
/// # Errors
/// It does not end well.
pub(crate) async fn run(command: &str) -> anyhow::Result<()> {
    let mut shell = tokio::process::Command::new("sh");
    let ended = shell.args(["-c", command]).kill_on_drop(true).output().await?;
    ensure!(
        ended.status.success(),
        "`{command}` ended with {}: {}",
        ended.status,
        String::from_utf8_lossy(&ended.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_comes_in_exactly_one_way() {
        let registry = |scheme, host: &str| {
            let host = host.to_owned();
            Ok(Way::Registry { scheme, host })
        };
        assert_eq!(way(Some("a/b:1"), None, None), Ok(Way::There("a/b:1".into())));
        assert_eq!(way(None, Some("r.example"), None), registry("https", "r.example"));
        assert_eq!(
            way(None, Some("localhost:5000"), None),
            registry("http", "localhost:5000")
        );
        assert_eq!(way(None, Some("http://r:5000/"), None), registry("http", "r:5000"));
        let load = "kind load image-archive {tar} --name {cluster}";
        assert_eq!(way(None, None, Some(load)), Ok(Way::Load(load.into())));
        for (bad, said) in [
            (way(None, None, None), "--load"),
            (way(Some("a"), Some("b"), None), "one way"),
            (way(None, Some("ftp://r"), None), "ftp://r"),
            (way(None, Some("no host"), None), "no host"),
            (way(None, None, Some("kind load")), "{tar}"),
        ] {
            assert!(bad.as_ref().unwrap_err().contains(said), "{bad:?}");
        }
        assert_eq!(
            filled(load, Path::new("/t/i.tar"), "west"),
            "kind load image-archive /t/i.tar --name west"
        );
    }
}
