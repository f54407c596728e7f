//! Pure: the registry's own addresses, as the caller knows them and as the registry does.

use std::borrow::Cow;

use protocol::RegistryName;
use url::Url;

use crate::route::Form;

/// How the caller sees a registry.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) form: Form,
    pub(super) registry: &'a RegistryName,
}

// === impl Seen ===

impl Seen<'_> {
    /// The query as the registry is to see it: `from` of a mount (distribution specification,
    /// "Mounting a blob from another repository") names a repository as the caller spells it.
    pub(super) fn query(&self, query: &str) -> String {
        let pairs: Vec<_> = query.split('&').map(|pair| self.pair(pair)).collect();
        pairs.join("&")
    }

    fn pair<'q>(&self, pair: &'q str) -> Cow<'q, str> {
        if self.form != Form::Prefix {
            return Cow::Borrowed(pair);
        }
        let from = url::form_urlencoded::parse(pair.as_bytes())
            .find(|(key, _)| key == "from")
            .map(|(_, value)| value);
        let inner = from.as_deref().and_then(|from| {
            let (first, rest) = from.split_once('/')?;
            let registry: RegistryName = first.parse().ok()?;
            (registry == *self.registry).then_some(rest)
        });
        match inner {
            Some(inner) => Cow::Owned(format!("from={inner}")),
            None => Cow::Borrowed(pair),
        }
    }

    /// Where the caller finds what the registry calls `location`; `None` where that is no address of
    /// the registry's own, and stays as it is.
    pub(super) fn location(&self, location: &str, endpoint: &Url) -> Option<String> {
        let target = endpoint.join(location).ok()?;
        let is_own =
            target.origin() == endpoint.origin() || target.host_str() == Some(self.registry.host());
        let base = endpoint.path().trim_end_matches('/');
        let path = target.path().strip_prefix(base).filter(|_| is_own)?;
        let path = match (self.form, path.strip_prefix("/v2/")) {
            (Form::Prefix, Some(below)) => format!("/v2/{}/{below}", self.registry),
            (Form::Prefix, None) => return None,
            (Form::Ns | Form::Bare | Form::Forward, _) => path.to_owned(),
        };
        Some(match target.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> RegistryName {
        "r.example:5000".parse().unwrap()
    }

    #[track_caller]
    fn location(form: Form, endpoint: &str, told: &str, expect: Option<&str>) {
        let registry = registry();
        let seen = Seen {
            form,
            registry: &registry,
        };
        let found = seen.location(told, &Url::parse(endpoint).unwrap());
        assert_eq!(found.as_deref(), expect, "{told}");
    }

    #[test]
    fn an_upload_goes_on_by_the_name_that_the_caller_used() {
        let here = "http://10.0.0.1:5000";
        let expect = Some("/v2/r.example:5000/a/blobs/uploads/x?_state=y%3D");
        for told in [
            "/v2/a/blobs/uploads/x?_state=y%3D",
            "http://10.0.0.1:5000/v2/a/blobs/uploads/x?_state=y%3D",
            "https://r.example:5000/v2/a/blobs/uploads/x?_state=y%3D",
        ] {
            location(Form::Prefix, here, told, expect);
            let expect = Some("/v2/a/blobs/uploads/x?_state=y%3D");
            location(Form::Forward, here, told, expect);
        }
        let expect = Some("/v2/r.example:5000/a/blobs/uploads/x");
        let told = "/base/v2/a/blobs/uploads/x";
        location(Form::Prefix, "http://10.0.0.1/base/", told, expect);
    }

    #[test]
    fn what_lies_elsewhere_stays_as_it_is() {
        for told in [
            "https://cdn.example/v2/a/blobs/uploads/x",
            "//cdn.example/v2/",
            "http://10.0.0.2:5000/v2/a",
            "mailto:x",
        ] {
            location(Form::Forward, "http://10.0.0.1:5000", told, None);
            location(Form::Prefix, "http://10.0.0.1:5000", told, None);
        }
        location(Form::Prefix, "http://10.0.0.1:5000", "/login", None);
        let expect = Some("/login");
        location(Form::Forward, "http://10.0.0.1:5000", "/login", expect);
    }

    #[track_caller]
    fn query(form: Form, told: &str, expect: &str) {
        let registry = registry();
        let seen = Seen {
            form,
            registry: &registry,
        };
        assert_eq!(seen.query(told), expect, "{told}");
    }

    #[test]
    fn a_mount_is_from_a_repository_of_the_registry() {
        let expect = "mount=sha256%3Aab&from=x/y";
        for told in [
            "mount=sha256%3Aab&from=r.example%3A5000%2Fx%2Fy",
            "mount=sha256%3Aab&from=r.example:5000/x/y",
        ] {
            query(Form::Prefix, told, expect);
            query(Form::Forward, told, told);
        }
        for told in ["", "from=x/y", "from=ghcr.io/x/y", "digest=a&from"] {
            query(Form::Prefix, told, told);
        }
    }
}
