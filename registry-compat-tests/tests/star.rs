//! The harness's own star: what its links carry, which is what herds over it are measured by.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    process::{self, Stopwatch},
    registry::Registry,
    star::Star,
};

/// Bits a second.
const RATE: u64 = 8_000_000;

const SIZE: u64 = 1 << 20;

/// What a link lets through at once is not held back.
const AT_ONCE_MAX: u64 = 128 << 10;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_link_of_a_star_carries_what_it_was_told_to_and_no_more() -> Result<()> {
    let programs = [
        "bash",
        "docker-registry",
        "ip",
        "nsenter",
        "setpriv",
        "tc",
        "unshare",
    ];
    if !can_run(&programs)? {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let contents = directory.path().join("registry");
    let blob = noise("star", SIZE as usize)?;
    let (file, digest) = (directory.path().join("blob"), digest_of(&blob));
    std::fs::write(&file, &blob)?;
    Registry::start(&contents)?.push_blob("team/star", &digest, &file)?;

    let star = Star::open(&directory.path().join("star"), 2, RATE)?;
    let address = star.address(0, 5000);
    let _registry = Registry::start_at(&contents, address, |program| star.command(0, program))?;
    let sent = star.sent(0)?;
    let mut client = star.command(1, "bash");
    client.arg("-euc").arg(format!(
        "exec 3<> /dev/tcp/{}/{}\n\
         printf 'GET /v2/team/star/blobs/{digest} HTTP/1.0\\r\\n\\r\\n' >&3\n\
         wc -c <&3",
        address.ip(),
        address.port(),
    ));
    let watch = Stopwatch::start();
    let bytes: u64 = process::check(client, LIMIT)?.trim().parse()?;
    let took = watch.elapsed();
    let sent = star.sent(0)? - sent;

    ensure!(bytes > SIZE, "{bytes} bytes came");
    let counted = sent
        .checked_sub(SIZE)
        .context("the link has counted too little")?;
    ensure!(counted < SIZE / 4, "the link has counted {sent} bytes");
    let least = Duration::from_secs_f64((SIZE - AT_ONCE_MAX) as f64 * 8.0 / RATE as f64);
    ensure!(
        took >= least,
        "{SIZE} bytes took {took:?}, less than {least:?}"
    );
    Ok(())
}
