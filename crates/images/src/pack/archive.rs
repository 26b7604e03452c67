//! An image as one file, for who has no registry: an OCI image layout in a tar (OCI image specification, "image layout"), with the
//! `manifest.json` of a docker archive beside it, so that `docker load` takes it as well as `ctr images import` and `podman load`.

use std::io::{self, Write};

use serde_json::json;
use tar::{EntryType, Header};

use super::{OciImage, PackError, describe};
use crate::digest::{Digest, Hasher};

/// A tar consists of blocks of this many bytes.
const BLOCK: u64 = 512;

impl OciImage {
    /// Writes the image as an archive, under this name (`HOST/REPOSITORY:TAG`). Blocks.
    ///
    /// # Errors
    /// A file has changed since it was measured, or the archive cannot be written.
    pub fn archive<W: Write>(&self, name: &str, to: W) -> Result<W, PackError> {
        let config = Digest::of(&self.config);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": crate::manifest::OCI_MANIFEST,
                "digest": self.digest().to_string(),
                "size": self.manifest.len(),
                "annotations": {
                    "io.containerd.image.name": name,
                    "org.opencontainers.image.ref.name": name,
                },
            }],
        });
        let layers: Vec<String> = self.layers.iter().map(|layer| blob(&layer.digest)).collect();
        let docker = json!([{ "Config": blob(&config), "RepoTags": [name], "Layers": layers }]);
        let mut tar = Tar {
            to,
            length: 0,
            hasher: Hasher::default(),
        };
        for directory in ["blobs/", "blobs/sha256/"] {
            tar.begin(directory, EntryType::Directory, 0)?;
        }
        for layer in &self.layers {
            tar.begin(&blob(&layer.digest), EntryType::Regular, layer.size)?;
            tar = layer.write(tar)?;
            if tar.end(layer.size)? != layer.digest {
                let changed = io::Error::other("a file has changed since it was measured; pack it again");
                return Err(PackError::Write(changed));
            }
        }
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        let documents = [
            (blob(&config), self.config.clone()),
            (blob(&self.digest()), self.manifest.clone()),
            ("index.json".to_owned(), serde_json::to_vec(&index).map_err(describe)?),
            (
                "manifest.json".to_owned(),
                serde_json::to_vec(&docker).map_err(describe)?,
            ),
            ("oci-layout".to_owned(), serde_json::to_vec(&layout).map_err(describe)?),
        ];
        for (path, bytes) in documents {
            tar.begin(&path, EntryType::Regular, bytes.len() as u64)?;
            tar.write_all(&bytes).map_err(PackError::Write)?;
            tar.end(bytes.len() as u64)?;
        }
        let mut to = tar.to;
        // Two empty blocks end a tar.
        to.write_all(&[0; 2 * BLOCK as usize]).map_err(PackError::Write)?;
        to.flush().map_err(PackError::Write)?;
        Ok(to)
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}", digest.to_string().replace(':', "/"))
}

/// A tar whose files are written to it, not read by it: a layer is never in memory.
struct Tar<W> {
    to: W,
    length: u64,
    hasher: Hasher,
}

impl<W: Write> Tar<W> {
    fn begin(&mut self, path: &str, type_: EntryType, size: u64) -> Result<(), PackError> {
        let mut header = Header::new_ustar();
        header.set_path(path).map_err(PackError::Write)?;
        header.set_entry_type(type_);
        header.set_mode(if type_ == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.to.write_all(header.as_bytes()).map_err(PackError::Write)?;
        (self.length, self.hasher) = (0, Hasher::default());
        Ok(())
    }

    /// Fills the last block; the digest of what was written.
    fn end(&mut self, size: u64) -> Result<Digest, PackError> {
        if self.length != size {
            let torn = io::Error::other("a file has become longer or shorter since it was measured; pack it again");
            return Err(PackError::Write(torn));
        }
        let fill = size.next_multiple_of(BLOCK) - size;
        self.to
            .write_all(&[0; BLOCK as usize][..fill as usize])
            .map_err(PackError::Write)?;
        Ok(std::mem::take(&mut self.hasher).finish())
    }
}

impl<W: Write> Write for Tar<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
