//! One file over one TLS connection between two threads, as bare as can be: read, sealed, opened,
//! hashed with BLAKE3 and written, in chunks as long as a small piece. TLS is what Darter's hosts
//! speak to each other: the same certificates, the same configuration.

use std::{
    fs::{self, File},
    io::{Read, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use protocol::{HostId, Identity, Role, identity::Authority};
use registry_compat_tests::process::{self, Stopwatch};
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::{
    copy::{Sender, one_client},
    errand, processor,
    terminal::say,
};

const CHUNK_BYTES: usize = 256 << 10;

const COPY_LIMIT: Duration = Duration::from_secs(120);

/// Both ends show these papers.
const ID: &str = "bare";

/// What a bare copy came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) seconds: f64,
    /// Of both ends.
    pub(crate) cpu_seconds: f64,
}

/// Copies `file` to another in `directory`, which is removed again.
pub(crate) fn copy(file: &Path, directory: &Path) -> Result<Copied> {
    write_papers(directory)?;
    let run = |errand: &str| -> Result<Command> {
        let mut command = errand::own(|program| process::command(program))?;
        command.arg(errand).arg(directory);
        Ok(command)
    };
    let log = directory.join("sender.log");
    let _none_yet = fs::remove_file(&log);
    let mut give = run("give-sealed")?;
    give.arg(file);
    let sender = Sender::start(give, &log)?;
    let copied = directory.join("copy");
    let mut take = run("take-sealed")?;
    take.arg(&copied).arg(sender.address.to_string());
    take.arg(fs::metadata(file)?.len().to_string());
    let told = process::check(take, COPY_LIMIT)?;
    let sent = sender.finish()?;
    fs::remove_file(copied)?;
    let number = |text: Option<&str>| -> Result<f64> {
        Ok(text.context("a number is missing")?.trim().parse()?)
    };
    let mut words = told.split_whitespace();
    Ok(Copied {
        seconds: number(words.next())?,
        cpu_seconds: number(words.next())? + number(sent.lines().last())?,
    })
}

/// Sends `file` to the first that connects, then prints the processor time that it took.
pub(crate) fn give(papers: &Path, file: &Path) -> Result<()> {
    let identity = read_papers(papers)?;
    let socket = one_client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    socket.set_nodelay(true)?;
    let connection = ServerConnection::new(identity.server_config(&[])?)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut file = File::open(file)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        stream.write_all(&chunk[..count])?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    say(&processor::own_seconds()?.to_string());
    Ok(())
}

/// Fetches `size` bytes into `file`, then prints the seconds from the connect to the last byte
/// written, and those of the processor.
pub(crate) fn take(papers: &Path, file: &Path, address: SocketAddr, size: u64) -> Result<()> {
    let identity = read_papers(papers)?;
    let name = identity.server_name(&ID.parse::<HostId>()?);
    let config = identity.client_config(&[])?.into();
    let mut file = File::create(file)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0;
    let watch = Stopwatch::start();
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let connection = ClientConnection::new(config, name)?;
    let mut stream = StreamOwned::new(connection, socket);
    loop {
        let count = fill(&mut stream, &mut chunk)?;
        if count == 0 {
            break;
        }
        // What a piece is hashed for is to be compared; here nothing is there to compare it with.
        std::hint::black_box(blake3::hash(&chunk[..count]));
        file.write_all(&chunk[..count])?;
        bytes += count as u64;
    }
    let took = watch.elapsed();
    ensure!(bytes == size, "{bytes} bytes came, not {size}");
    say(&format!(
        "{} {}",
        took.as_secs_f64(),
        processor::own_seconds()?
    ));
    Ok(())
}

/// Reads until the chunk is full or nothing more comes.
fn fill(stream: &mut impl Read, chunk: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < chunk.len() {
        let count = stream.read(&mut chunk[filled..])?;
        if count == 0 {
            break;
        }
        filled += count;
    }
    Ok(filled)
}

fn write_papers(directory: &Path) -> Result<()> {
    let authority = Authority::new("bare")?;
    let roles = [Role::Proxy].into_iter().collect();
    let issued = authority.issue(&ID.parse()?, roles)?;
    fs::write(directory.join("ca.pem"), authority.ca_pem())?;
    fs::write(directory.join("cert.pem"), &issued.certificate)?;
    fs::write(directory.join("key.pem"), &issued.key)?;
    Ok(())
}

fn read_papers(directory: &Path) -> Result<Identity> {
    let read = |name: &str| fs::read_to_string(directory.join(name));
    let (ca, certificate, key) = (read("ca.pem")?, read("cert.pem")?, read("key.pem")?);
    Ok(Identity::from_pem(&ca, &certificate, &key)?)
}
