//! Pure: the name of an image, as `docker pull` takes it: a bare name is of Docker Hub.

use std::{fmt, str::FromStr};

use oci_spec::distribution;
use protocol::{ContentKind, Origin, RegistryName, Repository};

use super::ImageError;
use crate::{
    manifest::shelf::TagName,
    route::{Reference, Tag},
};

/// The name of an image. A digest in it counts more than a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    registry: RegistryName,
    repository: Repository,
    pub(super) reference: Reference,
}

// === impl ImageName ===

impl ImageName {
    pub fn registry(&self) -> &RegistryName {
        &self.registry
    }

    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag or the digest, as a path has it.
    pub fn reference(&self) -> String {
        match &self.reference {
            Reference::Tag(tag) => tag.as_str().to_owned(),
            Reference::Digest(digest) => digest.to_string(),
        }
    }

    /// Where a content of the image is to be had.
    pub(super) fn origin(&self, kind: ContentKind) -> Origin {
        Origin {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            kind,
        }
    }

    pub(super) fn tag(&self, tag: Tag) -> TagName {
        TagName {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag,
        }
    }
}

impl FromStr for ImageName {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        fn or<T, E: fmt::Display>(text: &str, read: Result<T, E>) -> Result<T, ImageError> {
            read.map_err(|error| ImageError::Name(text.to_owned(), error.to_string()))
        }
        let named: distribution::Reference = or(text, text.parse())?;
        let reference = match (named.digest(), named.tag()) {
            (Some(digest), _) => Reference::Digest(or(text, digest.parse())?),
            (None, Some(tag)) => Reference::Tag(or(text, tag.parse())?),
            (None, None) => Reference::Tag(or(text, "latest".parse())?),
        };
        Ok(Self {
            registry: or(text, named.registry().parse())?,
            repository: or(text, named.repository().parse())?,
            reference,
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            registry,
            repository,
            reference,
        } = self;
        match reference {
            Reference::Tag(tag) => write!(f, "{registry}/{repository}:{}", tag.as_str()),
            Reference::Digest(digest) => write!(f, "{registry}/{repository}@{digest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let read = text.parse::<ImageName>().map(|name| name.to_string());
        assert_eq!(
            read.unwrap_or_else(|_| "refused".to_owned()),
            expect,
            "{text}"
        );
    }

    #[test]
    fn an_image_is_named_as_for_docker_pull() {
        let digest = format!("sha256:{}", "a".repeat(64));
        check("nginx", "docker.io/library/nginx:latest");
        check("team/app:1.0", "docker.io/team/app:1.0");
        check("index.docker.io/nginx", "docker.io/library/nginx:latest");
        check("localhost:5000/a", "localhost:5000/a:latest");
        check("r.example/a/b/c:x", "r.example/a/b/c:x");
        check(
            &format!("r.example/a:x@{digest}"),
            &format!("r.example/a@{digest}"),
        );
        for bad in [
            "",
            "A",
            "r.example/",
            "r.example/a:",
            "a@sha256:00",
            "http://a/b",
        ] {
            check(bad, "refused");
        }
    }

    proptest! {
        /// Whatever is typed is read or refused; what is read is shown as a name that means the same.
        #[test]
        fn what_is_read_is_shown_as_what_is_read_again(
            text in "[a-z0-9./:-]{1,12}|[a-zA-Z0-9./:@_-]{0,40}|\\PC{0,20}",
        ) {
            if let Ok(name) = text.parse::<ImageName>() {
                prop_assert_eq!(name.to_string().parse::<ImageName>().ok(), Some(name));
            }
        }

        #[test]
        fn a_name_in_full_is_shown_as_it_is(
            registry in "[a-z]{1,8}\\.[a-z]{2,5}(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,8}([._-][a-z0-9]{1,8})?(/[a-z0-9]{1,8}){0,3}",
            reference in ":[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}|@sha256:[0-9a-f]{64}",
        ) {
            let text = format!("{registry}/{repository}{reference}");
            let shown = text.parse::<ImageName>().map(|name| name.to_string());
            prop_assert_eq!(shown.ok(), Some(text));
        }
    }
}
