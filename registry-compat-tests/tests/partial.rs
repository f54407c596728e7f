//! Clients that pull a layer in parts, replayed as they ask: podman's partial pulls and lazy
//! snapshotters, which want many ranges at once, and containerd 2, which reads one layer by several
//! open ranges. The blob is cold, and the registry is asked for no more than they need.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use registry_compat_tests::{
    content::{digest_of, noise},
    http::{Ending, Whole},
    image::MANIFEST_TYPE,
};

use crate::{
    faults::{Asker, Stage},
    pull::joined,
    runs::{Run, asked_once},
};

const PIECE: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// A blob of 48 pieces; what is wanted of it is less than half, else the rest is fetched too.
const SIZE: usize = 12 * MIB - 777;

/// Chunks that a client lacks, as a zstd:chunked layer is pulled: the first bytes, several in one piece,
/// one over the end of a piece, two next to each other, some out of order, and the last bytes.
const WANTED: [Range<usize>; 12] = [
    0..999,
    PIECE + 10..PIECE + 5_000,
    PIECE + 9_000..PIECE + 9_001,
    4 * PIECE - 100..4 * PIECE + 100,
    9 * PIECE..10 * PIECE,
    10 * PIECE..10 * PIECE + 50_000,
    30 * PIECE + 1..30 * PIECE + 70_000,
    20 * PIECE..20 * PIECE + 1,
    21 * PIECE + 5..21 * PIECE + 6,
    25 * PIECE..25 * PIECE + 131_072,
    40 * PIECE..40 * PIECE + 200_000,
    SIZE - 512..SIZE,
];

/// What containerd reads with one open range, then it closes the connection.
const CHUNK: usize = 4 * MIB;

fn range_header(parts: &[Range<usize>]) -> String {
    let specs = parts.iter();
    let specs = specs.map(|part| format!("{}-{}", part.start, part.end - 1));
    format!("bytes={}", specs.collect::<Vec<_>>().join(","))
}

fn find(text: &[u8], sought: &[u8]) -> Result<usize> {
    let mut windows = text.windows(sought.len());
    let at = windows.position(|window| window == sought);
    at.with_context(|| format!("no {:?}", String::from_utf8_lossy(sought)))
}

/// The parts of a `multipart/byteranges`, as a client reads it: by the boundary alone.
fn parts_of(whole: &Whole) -> Result<Vec<(String, Vec<u8>)>> {
    ensure!(whole.status == 206, "{}: {}", whole.status, whole.text());
    ensure!(whole.ending == Ending::Complete, "{:?}", whole.ending);
    let length = whole.header("content-length").context("no length")?;
    ensure!(length == whole.body.len().to_string(), "{length}");
    let content_type = whole.header("content-type").context("no type")?;
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.with_context(|| content_type.to_owned())?;
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = whole.body.strip_prefix(&delimiter.as_bytes()[2..]);
    let mut parts = Vec::new();
    loop {
        let left = rest.context("no delimiter")?;
        if left == b"--\r\n" {
            return Ok(parts);
        }
        let head_end = find(left, b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&left[..head_end])?.to_lowercase();
        let mut lines = head.split("\r\n");
        let content_range = lines.find_map(|line| line.strip_prefix("content-range: "));
        let content_range = content_range.context("no Content-Range")?.to_owned();
        let body = &left[head_end..];
        let end = find(body, delimiter.as_bytes())?;
        parts.push((content_range, body[..end].to_vec()));
        rest = Some(&body[end + delimiter.len()..]);
    }
}

/// Whether `whole` has each of these parts of `bytes` for its range.
fn is_each_part(whole: &Whole, wanted: &[Range<usize>], bytes: &[u8]) -> Result<()> {
    let parts = parts_of(whole)?;
    ensure!(parts.len() == wanted.len(), "{} parts", parts.len());
    for ((content_range, part), wanted) in parts.iter().zip(wanted) {
        let (start, last) = (wanted.start, wanted.end - 1);
        let expect = format!("bytes {start}-{last}/{}", bytes.len());
        ensure!(*content_range == expect, "{content_range}, not {expect}");
        ensure!(*part == bytes[wanted.clone()], "wrong bytes of {expect}");
    }
    Ok(())
}

/// The bytes of the pieces that cover `wanted`, each once.
fn covering(wanted: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut pieces: Vec<_> = wanted
        .iter()
        .flat_map(|part| part.start / PIECE..part.end.div_ceil(PIECE))
        .collect();
    pieces.sort_unstable();
    pieces.dedup();
    let bytes = |piece: usize| piece * PIECE..((piece + 1) * PIECE).min(SIZE);
    pieces.into_iter().map(bytes).collect()
}

/// Fails unless the registry was asked for these bytes, each once, and for no other.
fn is_asked_for(runs: &[Run], pieces: &[Range<usize>]) -> Result<()> {
    let asked: Vec<_> = runs
        .iter()
        .flat_map(|run| run.asked.clone().step_by(PIECE))
        .collect();
    let starts: Vec<_> = pieces.iter().map(|piece| piece.start).collect();
    ensure!(asked == starts, "asked for {runs:?}, not {pieces:?}");
    let length = |spans: &mut dyn Iterator<Item = usize>| spans.sum::<usize>();
    let sent = length(&mut runs.iter().map(|run| run.sent));
    let needed = length(&mut pieces.iter().map(Range::len));
    ensure!(sent == needed, "{sent} bytes came, not {needed}");
    Ok(())
}

#[test]
fn a_partial_pull_of_a_cold_layer_is_given_each_range_and_costs_its_pieces_alone() -> Result<()> {
    let stage = Stage::start(&[])?;
    for asker in Asker::ALL {
        let bytes = noise(&format!("partial {asker:?}"), SIZE)?;
        let digest = digest_of(&bytes);
        stage.registry.put_blob(&digest, bytes.clone());
        let ask = |when: &str| -> Result<()> {
            let request = asker.request("GET", &format!("blobs/{digest}"));
            let whole = request
                .header("Range", &range_header(&WANTED))
                .fetch(stage.proxy)?;
            is_each_part(&whole, &WANTED, &bytes).with_context(|| format!("{when}, {asker:?}"))
        };
        ask("cold")?;
        let runs = Run::all(&stage.registry.fetched(&digest), SIZE)?;
        is_asked_for(&runs, &covering(&WANTED)).with_context(|| format!("{asker:?}"))?;
        ask("warm")?;
        let again = stage.registry.fetched(&digest).len();
        ensure!(again == runs.len(), "{asker:?}: {again} requests");
    }
    stage.darter.stop()
}

#[test]
fn as_many_ranges_as_a_client_asks_for_at_once_come_as_so_many_parts() -> Result<()> {
    let stage = Stage::start(&[])?;
    let bytes = noise("a thousand ranges", SIZE)?;
    let digest = digest_of(&bytes);
    stage.registry.put_blob(&digest, bytes.clone());
    let every = |count: usize| -> Vec<_> {
        let starts = (0..count).map(|index| index * 11_000);
        starts.map(|start| start..start + 3_000).collect()
    };
    let ask = |wanted: &[Range<usize>]| {
        let request = Asker::ByPath.request("GET", &format!("blobs/{digest}"));
        let request = request.header("Range", &range_header(wanted));
        request.fetch(stage.proxy)
    };
    let whole = ask(&every(1025))?;
    ensure!(whole.status == 200 && whole.body == bytes, "1025 ranges");
    let wanted = every(1024);
    is_each_part(&ask(&wanted)?, &wanted, &bytes)?;
    ensure!(stage.registry.fetched(&digest).len() == 1, "asked again");
    stage.darter.stop()
}

/// containerd's parallel mode: the first request of every object is for `bytes=0-`; workers then read
/// the other chunks by open ranges on connections of their own, in any order, and leave.
#[test]
fn the_parallel_pull_of_containerd_gets_every_chunk_and_costs_the_layer_once() -> Result<()> {
    const CHUNKS: usize = 12;
    /// The chunks after the first, in the order in which workers take them.
    const ORDER: [usize; CHUNKS - 1] = [6, 1, 11, 3, 2, 9, 4, 10, 5, 8, 7];
    const WORKERS: usize = 3;
    let size = CHUNKS * CHUNK - 12_345;
    let stage = Stage::start(&[])?;
    let bytes = noise("parallel", size)?;
    let digest = digest_of(&bytes);
    stage.registry.put_blob(&digest, bytes.clone());
    let manifest = format!("{{\"schemaVersion\":2,\"layer\":\"{digest}\"}}");
    stage
        .registry
        .put_manifest("latest", MANIFEST_TYPE, manifest.clone());
    let open = |rest: &str, start: usize| {
        let request = Asker::Namespace.request("GET", rest);
        request
            .header("Range", &format!("bytes={start}-"))
            .send(stage.proxy)
    };
    let described = open(&format!("manifests/{}", digest_of(manifest.as_bytes())), 0)?.whole()?;
    ensure!(described.body == manifest.as_bytes(), "the manifest");
    let chunk = |index: usize| -> Result<()> {
        let part = index * CHUNK..((index + 1) * CHUNK).min(size);
        let mut response = open(&format!("blobs/{digest}"), part.start)?;
        let content_range = response.header("content-range").unwrap_or("-");
        let expect = format!("bytes {}-{}/{size}", part.start, size - 1);
        ensure!(
            response.status == 206 && content_range == expect,
            "chunk {index}: {} {content_range}",
            response.status
        );
        let read = response.read_exactly(part.len() as u64)?;
        ensure!(read == bytes[part], "chunk {index} is wrong");
        Ok(())
    };
    chunk(0)?;
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let worker = || {
            while let Some(index) = ORDER.get(next.fetch_add(1, Ordering::AcqRel)) {
                chunk(*index)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(joined)
    })?;
    asked_once(&stage.registry.fetched(&digest), size)?;
    stage.darter.stop()
}

/// The most that the kernel holds for one client of `proxy` that it has not taken, in bytes.
fn held_back(proxy: SocketAddr) -> Result<usize> {
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let port = format!(":{:04X}", proxy.port());
    let mut most = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, _, _, queues, ..] = fields.as_slice() else {
            continue;
        };
        if local.ends_with(&port) {
            let (unsent, _) = queues.split_once(':').context("no queues")?;
            most = most.max(usize::from_str_radix(unsent, 16)?);
        }
    }
    Ok(most)
}

/// A client that reads an open range in small bites is always behind: what lies in between is what it
/// was sent for nothing if it left.
#[test]
fn little_of_an_open_range_waits_in_the_kernel_for_its_client() -> Result<()> {
    const HELD_MAX: usize = 512 << 10;
    let stage = Stage::start(&[])?;
    let bytes = noise("an open range", 24 * MIB)?;
    let digest = digest_of(&bytes);
    stage.registry.put_blob(&digest, bytes.clone());
    let request = || Asker::Namespace.request("GET", &format!("blobs/{digest}"));
    let whole = request().fetch(stage.proxy)?;
    ensure!(whole.body == bytes, "{} bytes", whole.body.len());
    let mut response = request().header("Range", "bytes=0-").send(stage.proxy)?;
    let (mut most, bite) = (0, 32 << 10);
    for _ in 0..12 * MIB / bite {
        response.read_exactly(bite as u64)?;
        most = most.max(held_back(stage.proxy)?);
    }
    ensure!(0 < most && most <= HELD_MAX, "{most} bytes were held back");
    stage.darter.stop()
}
