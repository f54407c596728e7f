//! An image as a torrent (BEP 3): its blobs are the files.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::digest_of_file,
    process::{self, Process},
};

use super::{
    HERD_LIMIT,
    ground::{FIRST, Ground, HELPER, Image, REGISTRY},
    meter::{self, Meter},
    outcome::Outcome,
    tracker,
};
use crate::errand;

/// The length of a piece, that of Darter's for blobs of this size.
const PIECE_BYTES: u32 = 256 << 10;

/// The directory of the files in a torrent.
const NAME: &str = "image";

const TRACKER_PORT: u16 = 6969;

const PEER_PORT: u16 = 6881;

const START_LIMIT: Duration = Duration::from_secs(10);

/// All that aria2 is told beside its defaults: to stay on after the end, to need nothing but the
/// tracker, and to say little.
const ARIA2: [&str; 13] = [
    "--no-conf=true",
    "--seed-ratio=0.0",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--disable-ipv6=true",
    "--async-dns=false",
    "--bt-tracker-interval=2",
    "--file-allocation=none",
    "--allow-overwrite=true",
    "--show-console-readout=false",
    "--summary-interval=0",
    "--enable-color=false",
    "--console-log-level=notice",
];

/// A torrent, and the peers that have been started for it.
struct Swarm<'a> {
    ground: &'a Ground,
    image: &'a Image,
    directory: &'a Path,
}

/// A peer, and the file that appears once it has everything.
struct Peer {
    process: Process,
    directory: PathBuf,
    marker: PathBuf,
}

/// Has a herd of so many hosts fetch the image, with the helper as one more peer.
pub(crate) fn run(ground: &Ground, image: &Image, hosts: usize) -> Result<Outcome> {
    let directory = ground.directory()?;
    let swarm = Swarm {
        ground,
        image,
        directory: directory.path(),
    };
    swarm.write_torrent()?;
    let (tracker, seeder) = swarm.start_source()?;
    let (sent, helped) = (ground.given_by(REGISTRY)?, ground.given_by(HELPER)?);
    let mut meter = Meter::start(&[tracker.id(), seeder.process.id()])?;
    let watch = meter.watch();
    let helper = swarm.start(HELPER, &[])?;
    let herd = (0..hosts)
        .map(|host| swarm.start(FIRST + host, &[]))
        .collect::<Result<Vec<Peer>>>()?;
    let peers = || herd.iter().chain([&helper]);
    peers().for_each(|peer| meter.add(peer.process.id()));
    let mut totals: Vec<Option<f64>> = vec![None; hosts];
    process::wait_until("every host has everything", HERD_LIMIT, || {
        for (peer, total) in herd.iter().zip(&mut totals) {
            if total.is_none() && peer.marker.exists() {
                *total = Some(watch.elapsed().as_secs_f64());
            }
        }
        totals.iter().all(Option::is_some)
    })
    .with_context(|| herd[0].process.log().unwrap_or_default())?;
    let spent = meter.read()?;
    let sent = ground.given_by(REGISTRY)? - sent;
    let helped = ground.given_by(HELPER)? - helped;
    let processes: Vec<_> = peers().map(|peer| peer.process.id()).collect();
    herd.iter().try_for_each(|peer| swarm.check(peer))?;
    Ok(Outcome {
        totals: totals.into_iter().flatten().collect(),
        first_bytes: Vec::new(),
        upstream_bytes: sent,
        helper_bytes: helped,
        cpu_seconds: spent.cpu_seconds,
        peak_memory: meter::peak_memory(&processes)?,
        busy: spent.busy,
    })
}

// === impl Swarm ===

impl Swarm<'_> {
    /// A tracker and a peer that has everything, both beside the registry.
    fn start_source(&self) -> Result<(Process, Peer)> {
        let listen = self.ground.address(REGISTRY, TRACKER_PORT);
        let mut track = errand::own(self.ground.on(REGISTRY))?;
        track.args(["track", &listen.to_string()]);
        let log = self.directory.join("tracker.log");
        let mut tracker = Process::start("tracker", track, &log)?;
        let says = |word: &str| fs::read_to_string(&log).is_ok_and(|told| told.contains(word));
        tracker.wait_ready(START_LIMIT, || says(tracker::READY))?;
        let files = self.files_of(REGISTRY)?;
        for layer in &self.image.layers {
            fs::hard_link(self.ground.file(layer), files.join(name_of(&layer.digest)))?;
        }
        let mut seeder = self.start(REGISTRY, &["--bt-seed-unverified=true"])?;
        let is_heard_of = || says(tracker::HEARD);
        seeder.process.wait_ready(START_LIMIT, is_heard_of)?;
        Ok((tracker, seeder))
    }

    fn start(&self, host: usize, more: &[&str]) -> Result<Peer> {
        self.files_of(host)?;
        let directory = self.directory_of(host);
        let marker = directory.join("complete");
        let hook = directory.join("hook");
        fs::write(&hook, format!("#!/bin/sh\n: > {}\n", marker.display()))?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let mut command = self.ground.star.command(host, "aria2c");
        command.args(ARIA2).args(more);
        command.arg(format!("--dir={}", directory.display()));
        command.arg(format!("--listen-port={PEER_PORT}"));
        command.arg(format!("--on-bt-download-complete={}", hook.display()));
        command.arg(self.torrent());
        let process = Process::start("aria2c", command, &directory.join("log"))?;
        Ok(Peer {
            process,
            directory,
            marker,
        })
    }

    /// That what a peer has is the image.
    fn check(&self, peer: &Peer) -> Result<()> {
        for layer in &self.image.layers {
            let file = peer.directory.join(NAME).join(name_of(&layer.digest));
            let digest = digest_of_file(&file)?;
            ensure!(digest == layer.digest, "{} is {digest}", file.display());
        }
        Ok(())
    }

    fn torrent(&self) -> PathBuf {
        self.directory.join("image.torrent")
    }

    fn directory_of(&self, host: usize) -> PathBuf {
        self.directory.join(format!("peer-{host}"))
    }

    /// Where a host's files lie, made where it is not there.
    fn files_of(&self, host: usize) -> Result<PathBuf> {
        let files = self.directory_of(host).join(NAME);
        fs::create_dir_all(&files)?;
        Ok(files)
    }

    fn write_torrent(&self) -> Result<()> {
        let layers = &self.image.layers;
        let paths: Vec<_> = layers.iter().map(|layer| self.ground.file(layer)).collect();
        let announce = self.ground.address(REGISTRY, TRACKER_PORT);
        let files: Vec<_> = layers
            .iter()
            .map(|layer| (name_of(&layer.digest), layer.size))
            .collect();
        let pieces = sha1_of_pieces(&paths)?;
        let torrent = metainfo(&format!("http://{announce}/announce"), &files, &pieces);
        fs::write(self.torrent(), torrent)?;
        Ok(())
    }
}

/// The name of a blob's file.
fn name_of(digest: &str) -> &str {
    digest.rsplit(':').next().unwrap_or(digest)
}

/// The SHA-1 digests of the pieces of these files, one behind the other. By coreutils: nothing else
/// here needs SHA-1.
fn sha1_of_pieces(files: &[PathBuf]) -> Result<Vec<u8>> {
    let mut cat = Command::new("cat")
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let all = cat.stdout.take().context("a pipe was asked for")?;
    let hashed = Command::new("split")
        .arg(format!("--bytes={PIECE_BYTES}"))
        .args(["--filter=sha1sum", "-"])
        .stdin(all)
        .output()?;
    ensure!(
        cat.wait()?.success() && hashed.status.success(),
        "the pieces could not be hashed"
    );
    let text = String::from_utf8(hashed.stdout)?;
    let mut pieces = Vec::new();
    for line in text.lines() {
        let hex = line.get(..40).context("a line without a digest")?;
        for byte in 0..20 {
            pieces.push(u8::from_str_radix(&hex[2 * byte..2 * byte + 2], 16)?);
        }
    }
    Ok(pieces)
}

/// A torrent of some files with these lengths, bencoded.
fn metainfo(announce: &str, files: &[(&str, u64)], pieces: &[u8]) -> Vec<u8> {
    let text = |text: &str| format!("{}:{text}", text.len());
    let list: String = files
        .iter()
        .map(|(name, length)| format!("d6:lengthi{length}e4:pathl{}ee", text(name)))
        .collect();
    let head = format!(
        "d8:announce{}4:infod5:filesl{list}e4:name{}12:piece lengthi{PIECE_BYTES}e6:pieces{}:",
        text(announce),
        text(NAME),
        pieces.len()
    );
    [head.as_bytes(), pieces, b"ee"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_is_bencoded_with_its_keys_in_order() {
        let torrent = metainfo("http://x/", &[("ab", 3), ("c", 4)], b"\0\xff");
        let expect: &[u8] = b"d8:announce9:http://x/4:infod5:filesl\
            d6:lengthi3e4:pathl2:abeed6:lengthi4e4:pathl1:ceee\
            4:name5:image12:piece lengthi262144e6:pieces2:\0\xffee";
        assert_eq!(torrent, expect);
    }

    #[test]
    fn pieces_reach_over_the_ends_of_files() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["a", "b"].map(|name| directory.path().join(name));
        let piece = PIECE_BYTES as usize;
        fs::write(&files[0], vec![0; piece - 1]).unwrap();
        fs::write(&files[1], [0, b'a', b'b', b'c']).unwrap();
        let pieces = sha1_of_pieces(&files).unwrap();
        assert_eq!(pieces.len(), 40);
        // FIPS 180's digest of "abc".
        assert!(pieces.ends_with(&[0x9c, 0xd0, 0xd8, 0x9d]));
        assert_eq!(pieces[20], 0xa9);
    }
}
