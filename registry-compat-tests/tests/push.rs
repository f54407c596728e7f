//! What is no pull reaches the registry through the mirror: pushes by explicit names and in absolute
//! form, lists of repositories, mounts. A tag that was pushed here is what it is at once.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    darter::{Darter, Home},
    http::{Request, Whole},
    image::Image,
    process,
    registry::Registry,
};
use tempfile::TempDir;

use crate::herd::alone;

/// A registry that takes pushes, and a mirror that knows it as `registry.test`.
struct Pushing {
    registry: Registry,
    darter: Darter,
    _home: Home,
    directory: TempDir,
}

const NAME: &str = "registry.test";

// === impl Pushing ===

impl Pushing {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let registry = Registry::start(&directory.path().join("registry"))?;
        let home = Home::new()?;
        let config = alone(&home, registry.address());
        let config = config.replace("[proxy]\n", "[proxy]\ntag_ttl = \"1h\"\n");
        let darter = Darter::run(&config, &home)?;
        Ok(Self {
            registry,
            darter,
            _home: home,
            directory,
        })
    }

    fn ask(&self, method: &str, target: &str) -> Result<Whole> {
        Request::new(method, target).fetch(self.darter.proxy()?)
    }

    /// What `team/pushed:v1` is, asked through the mirror or of the registry itself.
    fn digest(&self, of: SocketAddr, prefix: &str) -> Result<String> {
        let whole = Request::head(&format!("/v2/{prefix}team/pushed/manifests/v1"))
            .header("Accept", "application/vnd.oci.image.index.v1+json")
            .fetch(of)?;
        let digest = whole.header("docker-content-digest").context("no digest")?;
        Ok(digest.to_owned())
    }

    /// A new image, copied by skopeo from the registry itself to `team/pushed:v1` through the mirror.
    fn copy(&self, seed: &str) -> Result<()> {
        let image = Image::small(&self.directory.path().join(seed), seed)?;
        self.registry.push(&image, "team/origin")?;
        let mut copy = process::command("skopeo");
        copy.args(["--insecure-policy", "copy", "--all", "--quiet"])
            .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
            .arg(format!("docker://{}/team/origin", self.registry.address()))
            .arg(format!(
                "docker://{}/{NAME}/team/pushed:v1",
                self.darter.proxy()?
            ));
        process::check(copy, Duration::from_secs(60))?;
        Ok(())
    }

    /// Uploads `bytes` as a blob of `repository` in one request, by addresses that begin with `base`.
    fn upload(&self, base: &str, bytes: &[u8]) -> Result<()> {
        let begun = self.ask("POST", &format!("{base}/team/raw/blobs/uploads/"))?;
        ensure!(begun.status == 202, "{}: {}", begun.status, begun.text());
        let location = begun.header("location").context("no Location")?;
        let expect = base.strip_prefix("http://registry.test").unwrap_or(base);
        ensure!(
            location.starts_with(expect),
            "{location} is not below {expect}"
        );
        let origin = base.strip_suffix("/v2").unwrap_or_default();
        let target = format!("{origin}{location}&digest={}", digest_of(bytes));
        let put = Request::new("PUT", &target)
            .header("Content-Type", "application/octet-stream")
            .send_with(self.darter.proxy()?, &mut &bytes[..], bytes.len() as u64)?
            .whole()?;
        ensure!(put.status == 201, "{}: {}", put.status, put.text());
        Ok(())
    }
}

#[test]
fn a_pushed_tag_is_what_it_is_at_once() -> Result<()> {
    if !can_run(&["docker-registry", "skopeo"])? {
        return Ok(());
    }
    let pushing = Pushing::start()?;
    let mut seen = Vec::new();
    for seed in ["first", "second"] {
        pushing.copy(seed)?;
        let told = pushing.digest(pushing.darter.proxy()?, "registry.test/")?;
        let expect = pushing.digest(pushing.registry.address(), "")?;
        ensure!(told == expect, "{seed}: {told}, not {expect}");
        // From here on the answer is remembered for an hour.
        ensure!(
            !seen.contains(&told),
            "the second push has made no difference"
        );
        seen.push(told);
    }
    Ok(())
}

#[test]
fn uploads_and_mounts_by_each_kind_of_name_reach_the_registry() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let pushing = Pushing::start()?;
    for base in ["/v2/registry.test", "http://registry.test/v2"] {
        let bytes = noise(base, 3_000_000)?;
        pushing.upload(base, &bytes)?;
        let digest = digest_of(&bytes);
        let held = Request::get(&format!("/v2/team/raw/blobs/{digest}"))
            .fetch(pushing.registry.address())?;
        ensure!(held.body == bytes, "{base}: the registry has other bytes");
        // With its name as the caller spells it, and without: both are of this registry.
        let from = match base.starts_with('/') {
            true => "registry.test%2Fteam%2Fraw",
            false => "team%2Fraw",
        };
        let mount = format!("{base}/team/mounted/blobs/uploads/?mount={digest}&from={from}");
        let mounted = pushing.ask("POST", &mount)?;
        ensure!(
            mounted.status == 201,
            "{}: {}",
            mounted.status,
            mounted.text()
        );
    }
    Ok(())
}

#[test]
fn a_mirror_takes_no_push_and_a_stranger_no_request() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let pushing = Pushing::start()?;
    for (target, status) in [
        ("/v2/team/raw/blobs/uploads/", 405),
        ("/v2/team/raw/blobs/uploads/?ns=registry.test", 405),
        ("/v2/stranger.test/team/raw/blobs/uploads/", 403),
        ("http://stranger.test/v2/team/raw/blobs/uploads/", 403),
        ("http://stranger.test/token", 403),
    ] {
        let seen = pushing.ask("POST", target)?;
        ensure!(seen.status == status, "{target}: {}", seen.status);
    }
    Ok(())
}

#[test]
fn the_list_of_repositories_comes_page_by_page() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let pushing = Pushing::start()?;
    let image = Image::small(&pushing.directory.path().join("image"), "catalog")?;
    let repositories = ["a/one", "b/two", "c/three"];
    for repository in repositories {
        pushing.registry.push(&image, repository)?;
    }
    for (first, joint) in [
        ("/v2/registry.test/_catalog?n=2", ""),
        ("/v2/_catalog?ns=registry.test&n=2", "ns=registry.test"),
        ("http://registry.test/v2/_catalog?n=2", ""),
    ] {
        let page = pushing.ask("GET", first)?;
        ensure!(
            page.text().contains("[\"a/one\",\"b/two\"]"),
            "{}",
            page.text()
        );
        let link = page.header("link").context("no Link")?;
        let next = link
            .strip_prefix('<')
            .and_then(|link| link.split('>').next());
        let next = next.context("no address in the Link")?;
        ensure!(next.contains(joint), "{next}");
        let host = match first.starts_with("http") {
            true => "http://registry.test",
            false => "",
        };
        let page = pushing.ask("GET", &format!("{host}{next}"))?;
        ensure!(page.text().contains("[\"c/three\"]"), "{}", page.text());
    }
    Ok(())
}
