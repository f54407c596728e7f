//! What a client is given by what it says that it takes (`Accept`), before a real registry.

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::{Darter, Home},
    http::Request,
    image::{INDEX_TYPE, Image, MANIFEST_TYPE},
    registry::Registry,
};

use crate::herd::alone;

#[test]
fn a_tag_of_an_index_is_the_manifest_of_this_platform_for_who_takes_manifests_alone() -> Result<()>
{
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let registry = Registry::start(&directory.path().join("registry"))?;
    let image = Image::small(&directory.path().join("image"), "accept")?;
    registry.push(&image, "team/app")?;
    let home = Home::new()?;
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let (index, own) = (&image.index.digest, &image.native()?.manifest.digest);
    let all = format!("{MANIFEST_TYPE}, {INDEX_TYPE};q=0.5");
    for (lines, expect) in [
        (vec![], index),
        (vec!["*/*"], index),
        (vec![all.as_str()], index),
        (vec![MANIFEST_TYPE, INDEX_TYPE], index),
        (vec!["text/html"], index),
        (vec![MANIFEST_TYPE], own),
        (vec!["application/json", MANIFEST_TYPE], own),
    ] {
        for method in ["HEAD", "GET"] {
            let path = "/v2/registry.test/team/app/manifests/latest";
            let asked = Request::new(method, path);
            let asked = lines
                .iter()
                .fold(asked, |asked, line| asked.header("Accept", line));
            let seen = asked.fetch(darter.proxy()?)?;
            let what = || format!("{method} {lines:?}: {} {}", seen.status, seen.text());
            ensure!(seen.status == 200, "{}", what());
            let told = seen.header("docker-content-digest").with_context(what)?;
            ensure!(told == expect, "{}", what());
            let media_type = if expect == own {
                MANIFEST_TYPE
            } else {
                INDEX_TYPE
            };
            ensure!(
                seen.header("content-type") == Some(media_type),
                "{}",
                what()
            );
            if method == "GET" {
                ensure!(seen.body == image.bytes(expect)?, "{}", what());
            }
        }
    }
    darter.stop()
}
