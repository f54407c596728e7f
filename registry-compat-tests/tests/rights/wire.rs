//! Requests that are written to be read in two ways, and connections that are never done: bounded,
//! each answered at most once, and other clients are served.

use std::{
    fs,
    io::{self, ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use registry_compat_tests::{
    can_run,
    content::{digest_of, noise},
    http::Request,
    process::Stopwatch,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
    task::JoinSet,
    time::timeout,
};

use super::{Form, Stage};

/// What is wrong, what comes after the request line, and the statuses that may come back.
type Case = (&'static str, String, &'static [u16]);

/// A request that must never be carried out.
const SMUGGLED: &str =
    "GET /v2/team/own/manifests/smuggled?ns=registry.test HTTP/1.1\r\nHost: x\r\n\r\n";

/// Connections on which nothing is under way.
const IDLE: usize = 10_000;
/// Bytes of a body that is under way meanwhile: more than the kernel takes for a client.
const RUNNING: usize = 64 << 20;
/// So many files and sockets are few, and enough for a node without connections.
const FEW: u64 = 200;
/// Connections that are opened at once.
const WAVE: usize = 64;
/// What a client is ready to wait for.
const CLIENT_LIMIT: Duration = Duration::from_secs(25);
/// What it does not notice.
const MOMENT: Duration = Duration::from_secs(2);

/// Everything that comes back until the connection ends or is silent.
fn answers(address: SocketAddr, request: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(700)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    // Who is refused in the middle of writing reads why.
    let _refused_early = stream.write_all(request);
    let mut told = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => told.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// The statuses of all answers.
fn statuses(told: &str) -> Vec<u16> {
    let after = told.split("HTTP/1.1 ").skip(1);
    let numbers = after.filter_map(|rest| rest.get(..3)?.parse().ok());
    numbers.collect()
}

/// Bodies that end in two places. With both a length and chunks the chunks count, and the connection
/// ends (RFC 9112, section 6.3).
fn framings() -> Vec<Case> {
    let refused: &[u16] = &[400];
    let once: &[u16] = &[200, 400];
    let framings = [
        (
            "length and chunked",
            "Content-Length: 90|Transfer-Encoding: chunked",
            once,
        ),
        (
            "chunked and length",
            "Transfer-Encoding: chunked|Content-Length: 4",
            once,
        ),
        (
            "two lengths",
            "Content-Length: 0|Content-Length: 80",
            refused,
        ),
        ("a length with a sign", "Content-Length: +80", refused),
        ("a list of lengths", "Content-Length: 0, 80", refused),
        (
            "another coding last",
            "Transfer-Encoding: chunked, identity",
            refused,
        ),
        ("an unknown coding", "Transfer-Encoding: xchunked", refused),
        (
            "a space before the colon",
            "Transfer-Encoding : chunked",
            refused,
        ),
    ];
    framings
        .into_iter()
        .map(|(what, framing, expect)| {
            let framing = framing.replace('|', "\r\n");
            let rest = format!("Host: x\r\n{framing}\r\n\r\n0\r\n\r\n{SMUGGLED}");
            (what, rest, expect)
        })
        .collect()
}

/// Heads that are none, or too large.
fn heads() -> Vec<Case> {
    let many: String = (0..10_000).map(|n| format!("X-{n}: y\r\n")).collect();
    let huge = format!("X-Huge: {}\r\n", "y".repeat(1 << 20));
    let refused: &[u16] = &[400];
    let told = |text: &str| format!("{text}\r\n\r\n");
    vec![
        ("good", told("Host: x"), &[200]),
        (
            "a folded header",
            told("Host: x\r\nX-Folded: a\r\n b"),
            refused,
        ),
        (
            "a header that begins with a space",
            told("Host: x\r\n X-A: a"),
            refused,
        ),
        ("bare LF", "Host: x\nX-A: b\n\n".to_owned(), &[200, 400]),
        ("bare CR", told("Host: x\rX-A: b"), refused),
        ("a zero byte", told("Host: x\r\nX-A: \0"), refused),
        ("two hosts", told("Host: x\r\nHost: y"), refused),
        ("no host", told("X-A: b"), refused),
        ("a huge header", format!("Host: x\r\n{huge}\r\n"), &[431]),
        ("10 000 headers", format!("Host: x\r\n{many}\r\n"), &[431]),
    ]
}

#[test]
fn a_request_that_can_be_read_in_two_ways_is_refused_or_answered_once() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    let mut told = Vec::new();
    for (what, rest, expect) in framings().into_iter().chain(heads()) {
        let request = format!("GET /v2/ HTTP/1.1\r\n{rest}");
        let seen = statuses(&answers(stage.proxy, request.as_bytes())?);
        if seen.len() != 1 || !expect.contains(&seen[0]) {
            told.push(format!("{what}: {seen:?}, not one of {expect:?}"));
        }
        // Whatever was sent, the next client is answered.
        let next = Request::get("/v2/").fetch(stage.proxy)?;
        ensure!(next.status == 200, "after {what}");
    }
    ensure!(told.is_empty(), "{}", told.join("\n"));
    ensure!(
        stage.registry.heard().is_empty(),
        "the smuggled request was carried out"
    );
    stage.darter.stop()
}

/// The longest that a head may take is `idle_timeout`, however often a byte of it comes.
#[test]
fn a_head_that_comes_byte_by_byte_ends_in_time() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("idle_timeout = \"2s\"")?;
    let head = format!("GET /v2/ HTTP/1.1\r\nX-Slow: {}", "y".repeat(1_000));
    for begun in ["", "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = TcpStream::connect(stage.proxy)?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        stream.write_all(begun.as_bytes())?;
        let watch = Stopwatch::start();
        let mut buffer = [0; 4096];
        let mut bytes = head.bytes();
        loop {
            ensure!(
                watch.elapsed() < CLIENT_LIMIT,
                "after {begun:?} it is still open"
            );
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            let next = bytes.next().context("the head was taken to its end")?;
            if stream.write_all(&[next]).is_err() {
                break;
            }
        }
        ensure!(
            watch.elapsed() < Duration::from_secs(8),
            "{:?}",
            watch.elapsed()
        );
    }
    stage.darter.stop()
}

/// More files and sockets than this process needs for all connections.
fn allow_descriptors() -> Result<()> {
    let wanted = IDLE as u64 + 1_000;
    let had = getrlimit(Resource::Nofile);
    if had.current.is_some_and(|current| current < wanted) {
        let maximum = had.maximum.map(|maximum| maximum.max(wanted));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(wanted),
                maximum,
            },
        )?;
    }
    Ok(())
}

/// A connection on which nothing is under way: each second one has said nothing, the others have
/// begun a request, or were answered one.
async fn idle(proxy: SocketAddr, nth: usize) -> Result<tokio::net::TcpStream> {
    let mut stream = tokio::net::TcpStream::connect(proxy).await?;
    match nth % 4 {
        1 => stream.write_all(b"G").await?,
        3 => {
            let ping = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n";
            stream.write_all(ping).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"{}") {
                ensure!(stream.read_buf(&mut answer).await? > 0, "not answered");
            }
        }
        _ => {}
    }
    Ok(stream)
}

/// Opens `count` idle connections, few at a time: each has said what it has to say before it is let go.
fn crowd(runtime: &Runtime, proxy: SocketAddr, count: usize) -> Result<Vec<tokio::net::TcpStream>> {
    let mut open = Vec::new();
    runtime.block_on(async {
        while open.len() < count {
            let wave = open.len()..count.min(open.len() + WAVE);
            let mut opening = JoinSet::new();
            for nth in wave {
                opening.spawn(timeout(CLIENT_LIMIT, idle(proxy, nth)));
            }
            while let Some(opened) = opening.join_next().await {
                open.push(opened??.context("in a crowd of idle connections")?);
            }
        }
        Ok(open)
    })
}

/// How many of `open` were ended; all of them in order.
fn ended(open: Vec<tokio::net::TcpStream>) -> Result<usize> {
    let mut ended = 0;
    for stream in open {
        match stream.into_std()?.read(&mut [0; 16]) {
            Ok(0) => ended += 1,
            Ok(_) => bail!("something was said to an idle connection"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => bail!("an idle connection was not ended in order: {error}"),
        }
    }
    Ok(ended)
}

/// Every client of a node may come in the moment in which the process has no time for any.
#[test]
fn a_thousand_connections_wait_until_there_is_time_for_them() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    allow_descriptors()?;
    let stage = Stage::start("")?;
    stage.darter.signal("STOP")?;
    let connect = |_| TcpStream::connect_timeout(&stage.proxy, Duration::from_millis(500));
    let waiting: io::Result<Vec<_>> = (0..1000).map(connect).collect();
    stage.darter.signal("CONT")?;
    for mut stream in waiting? {
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        ensure!(
            answer.starts_with(b"HTTP/1.1 200 "),
            "{}",
            answer.escape_ascii()
        );
    }
    stage.darter.stop()
}

/// More than Darter holds at once, while it would wait two minutes for each of them: who really asks
/// is answered, and what runs is left alone.
#[test]
fn ten_thousand_idle_connections_keep_nobody_waiting() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    allow_descriptors()?;
    let stage = Stage::start("")?;
    let bytes = noise("a body under way", RUNNING)?;
    let digest = digest_of(&bytes);
    let file = stage.home().join("blob");
    fs::write(&file, &bytes)?;
    stage
        .registry
        .behind()
        .push_blob("team/open", &digest, &file)?;
    let place = ("registry.test", "team/open");
    let running = Form::Ns.request("GET", place, &format!("blobs/{digest}"));
    let mut running = running.send(stage.proxy)?;
    let begun = running.read_exactly(100_000)?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let watch = Stopwatch::start();
    let open = crowd(&runtime, stage.proxy, IDLE)?;
    let opened_in = watch.elapsed();
    let watch = Stopwatch::start();
    let whole = Request::get("/v2/").fetch(stage.proxy)?;
    let waited = watch.elapsed();
    ensure!(whole.status == 200, "{}", whole.status);
    let told = format!("opened in {opened_in:?}, served after {waited:?}");
    ensure!(waited < MOMENT, "{told}");
    let shed = stage
        .darter
        .metric("darter_connections_shed_total{listener=\"proxy\"")?;
    let held = stage
        .darter
        .metric("darter_connections_open{listener=\"proxy\"")?;
    let ended = ended(open)?;
    let surplus = (IDLE - 4096) as f64;
    ensure!(
        held <= 4096.0 && shed >= surplus && ended as f64 >= surplus,
        "{held} are open, {shed} were let go, {ended} have ended; {told}"
    );
    let rest = running.whole()?;
    ensure!(
        [begun, rest.body].concat() == bytes,
        "the body under way broke"
    );
    stage.darter.stop().context(told)
}

/// The same where it is not the bound that is reached but that on files and sockets.
#[test]
fn idle_connections_give_back_the_descriptors_that_others_need() -> Result<()> {
    if !can_run(&["docker-registry"])? {
        return Ok(());
    }
    let stage = Stage::start("")?;
    stage.darter.limit_descriptors(FEW)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let open = crowd(&runtime, stage.proxy, 3 * FEW as usize)?;
    let watch = Stopwatch::start();
    let whole = Request::get("/v2/").fetch(stage.proxy)?;
    let waited = watch.elapsed();
    ensure!(
        whole.status == 200 && waited < MOMENT,
        "{} after {waited:?}",
        whole.status
    );
    ensure!(ended(open)? > 0, "none was let go");
    stage.darter.stop()
}
