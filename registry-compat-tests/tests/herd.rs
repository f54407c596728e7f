//! Many clients of one host want one cold blob at the same moment.

use std::{net::SocketAddr, thread};

use anyhow::{Result, ensure};
use registry_compat_tests::{
    can_run,
    darter::{Darter, Home},
    registry::Registry,
};

use crate::{
    pull::{digest_through, joined},
    stage::golden,
};

const CLIENTS: usize = 50;

/// The configuration of a host of its own before `registry`, on ports that the kernel chooses.
pub(crate) fn alone(home: &Home, registry: SocketAddr) -> String {
    let free = "listen = \"127.0.0.1:0\"";
    format!(
        "data_dir = {:?}\n[proxy]\n{free}\n\
         [[proxy.registry]]\nname = \"registry.test\"\nendpoint = \"http://{registry}\"\n\
         [swarm]\n{free}\n[scheduler]\n{free}\n\
         [admin]\n{free}\n",
        home.path().join("data"),
    )
}

#[test]
fn fifty_clients_that_want_a_cold_blob_cost_the_registry_one_fetch() -> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let (golden, home) = (golden()?, Home::new()?);
    let registry = Registry::start(&golden.registry_directory())?;
    let darter = Darter::run(&alone(&home, registry.address()), &home)?;
    let proxy = darter.proxy()?;
    let blob = golden.image.biggest()?;
    let path = format!("/v2/team/sealed/blobs/{}?ns=registry.test", blob.digest);
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| digest_through(proxy, &path)))
            .collect();
        for pull in pulls {
            let digest = joined(pull)?;
            ensure!(digest == blob.digest, "wrong bytes: {digest}");
        }
        Ok(())
    })?;
    let fetches = registry.fetches_of(&blob.digest)?;
    ensure!(fetches == 1, "the registry was asked {fetches} times");
    darter.stop()
}
