//! Image references, normalised as Docker does: `sample:1` is `docker.io/library/sample:1`.

use std::fmt;

use super::Error;

/// A parsed reference.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::node) struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Parses what a pod says.
    pub(in crate::node) fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid {
            reference: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        if let Some(digest) = &digest {
            let hex = digest
                .strip_prefix("sha256:")
                .ok_or_else(|| invalid("only sha256 digests are supported"))?;
            if hex.len() != 64
                || !hex
                    .bytes()
                    .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
            {
                return Err(invalid("a sha256 digest has 64 lower-case hexadecimal digits"));
            }
        }
        let name_end = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[name_end..].find(':') {
            Some(colon) => (&rest[..name_end + colon], Some(rest[name_end + colon + 1..].to_owned())),
            None => (rest, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => ("docker.io", name),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let repository = if host == "docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let component = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte))
        };
        if path.is_empty() || !repository.split('/').all(component) {
            return Err(invalid(
                "a name has lower-case letters, digits, dots, dashes and underscores",
            ));
        }
        if !host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
        {
            return Err(invalid("the registry's name has a character that no host name has"));
        }
        let tag_fits = |tag: &str| {
            (1..=128).contains(&tag.len())
                && tag
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        };
        if tag.as_deref().is_some_and(|tag| !tag_fits(tag)) {
            return Err(invalid(
                "a tag has up to 128 letters, digits, dots, dashes and underscores",
            ));
        }
        Ok(Self {
            host: host.to_owned(),
            repository,
            tag,
            digest,
        })
    }

    /// The registry that the reference names.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The repository in that registry.
    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    /// Registry and repository.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.repository)
    }

    /// What to ask the registry for: the digest where there is one, else the tag.
    pub(super) fn selector(&self) -> String {
        self.digest
            .clone()
            .or_else(|| self.tag.clone())
            .unwrap_or_else(|| "latest".to_owned())
    }

    /// Whether it says nothing more exact than `latest`.
    pub(super) fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag == "latest")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.name())?;
        match (&self.tag, &self.digest) {
            (None, None) => write!(formatter, ":latest")?,
            (Some(tag), _) => write!(formatter, ":{tag}")?,
            (None, Some(_)) => {}
        }
        if let Some(digest) = &self.digest {
            write!(formatter, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, wanted) in [
            ("sample", "docker.io/library/sample:latest".to_owned()),
            ("sample:1", "docker.io/library/sample:1".to_owned()),
            ("team/app:v2", "docker.io/team/app:v2".to_owned()),
            ("index.docker.io/team/app", "docker.io/team/app:latest".to_owned()),
            ("ghcr.io/a/b/c:1.0", "ghcr.io/a/b/c:1.0".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("127.0.0.1:5000/x:2", "127.0.0.1:5000/x:2".to_owned()),
            (
                &format!("sample@{digest}"),
                format!("docker.io/library/sample@{digest}"),
            ),
            (
                &format!("sample:1@{digest}"),
                format!("docker.io/library/sample:1@{digest}"),
            ),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for given in [
            "",
            "Upper",
            "a:b:c",
            "a/../b",
            "x@sha256:12",
            "x@md5:00",
            "host.io/",
            "ho st.io/x",
            "x:",
            "/x",
        ] {
            assert!(Reference::parse(given).is_err(), "{given}");
        }
    }
}
