//! An upstream that leads back to the node that asks it, past every name that the node knows of
//! itself: through a relay, as through a load balancer or an address of another network.

use anyhow::{Result, ensure};
use registry_compat_tests::{
    content::digest_of,
    darter::{Darter, Home},
    registry::free_address,
    relay::Relay,
};

use crate::{faults::Asker, herd::alone};

/// The node's own answer to its own request is 403, which is final: nothing is waited for.
#[test]
fn a_node_that_is_its_own_upstream_refuses_its_own_request_at_once() -> Result<()> {
    let (home, own) = (Home::new()?, free_address()?);
    let relay = Relay::start(own, u64::MAX)?;
    let proxy = format!("listen = \"{own}\"\ndefault_registry = \"registry.test\"");
    let config = alone(&home, relay.address()).replacen("listen = \"127.0.0.1:0\"", &proxy, 1);
    let darter = Darter::run(&config, &home)?;
    let blob = format!("blobs/{}", digest_of(b"nobody has it"));
    for rest in ["manifests/latest", "tags/list", &blob] {
        for asker in Asker::ALL {
            let whole = asker.request("GET", rest).fetch(darter.proxy()?)?;
            let promise = asker.promised("denied")?;
            ensure!(
                whole.status == promise.status,
                "{rest} as {asker:?}: {} {}",
                whole.status,
                whole.text()
            );
        }
    }
    let looped = darter.metric("darter_proxy_refusals_total{fault=\"not-allowed\"")?;
    ensure!(looped > 0.0, "it never saw its own name");
    darter.stop()
}
