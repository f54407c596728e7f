//! The upstream pauses in the middle of a blob: everybody has what it has sent, less one piece.
//! Nobody stores before forwarding.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use protocol::{Layout, PieceIndex};
use registry_compat_tests::{can_run, process::wait_until};

use crate::{
    pull::{digest_while, joined},
    stage::golden,
    two_hosts::{FLOW_LIMIT, Pair, path},
};

/// Clients of the host that fetches, and of the one that gets it from there.
const CLIENTS: [usize; 2] = [12, 4];

#[test]
fn when_the_upstream_pauses_at_half_every_client_of_both_hosts_has_half_less_one_piece()
-> Result<()> {
    if !can_run(&["docker-registry", "setpriv"])? {
        return Ok(());
    }
    let size = golden()?.image.biggest()?.size;
    let piece = Layout::for_size(Some(size)).bytes_of(PieceIndex(0)).end;
    // In the middle of a piece, so that whoever waits for its end has less than a piece less.
    let half = size / 2 / piece * piece + piece / 2 + 1;
    let pair = Pair::together_before_gate(half)?;
    let blob = pair.blob()?;
    let path = path(&blob);
    let [first, second] = [&pair.first, &pair.second].map(|host| host.darter.proxy());
    let proxies = [vec![first?; CLIENTS[0]], vec![second?; CLIENTS[1]]].concat();
    let taken: Vec<AtomicU64> = proxies.iter().map(|_| AtomicU64::new(0)).collect();
    let told = || {
        let bytes = taken.iter().map(|taken| taken.load(Ordering::Acquire));
        bytes.collect::<Vec<_>>()
    };
    // The host that fetches hands bytes on before their piece is whole; the other, piece by piece.
    let has_all = |bytes: &[u64]| {
        let (of_first, of_second) = bytes.split_at(CLIENTS[0]);
        of_first.iter().all(|bytes| half <= *bytes)
            && of_second.iter().all(|bytes| half - piece < *bytes)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = proxies
            .iter()
            .zip(&taken)
            .map(|(proxy, taken)| scope.spawn(|| digest_while(*proxy, &path, taken)))
            .collect();
        let flowed = wait_until("all that was sent at every client", FLOW_LIMIT, || {
            pair.relay.bodies() == 1 && has_all(&told())
        });
        let at_pause = told();
        pair.relay.open();
        let ends: Vec<_> = clients.into_iter().map(joined).collect();
        flowed.with_context(|| format!("paused at {half}, they had {at_pause:?}"))?;
        ensure!(
            at_pause.iter().all(|bytes| *bytes <= half),
            "more came than was sent, {half}: {at_pause:?}"
        );
        for end in ends {
            let digest = end?;
            ensure!(digest == blob.digest, "wrong bytes: {digest}");
        }
        Ok(())
    })
    .with_context(|| pair.logs())?;
    let bodies = pair.relay.bodies();
    ensure!(bodies == 1, "{bodies} bodies of that length were sent");
    pair.fetched_once()
}
