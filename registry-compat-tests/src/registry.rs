//! A real `docker-registry` on a directory of its own, and its access log as data.
//!
//! The log shows who asked for what; docker-registry writes no Range there, so byte ranges are
//! looked at with [`crate::fault_registry`] instead.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    http::Request,
    image::{INDEX_TYPE, Image, MANIFEST_TYPE},
    process::{self, Process},
};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    content: PathBuf,
    process: Process,
}

/// One line of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub method: String,
    pub path: String,
    pub status: u16,
    pub bytes: u64,
    pub agent: String,
}

// === impl Registry ===

impl Registry {
    /// Starts a registry on a free port of the loopback, with its content in `directory`.
    ///
    /// # Errors
    /// The registry is not installed or does not come up.
    pub fn start(directory: &Path) -> Result<Self> {
        let address = free_address()?;
        Self::start_at(directory, address, |program| process::command(program))
    }

    /// Starts a registry at `address` by the command that `enter` makes of the program's name, so
    /// that it can run in a network namespace.
    ///
    /// # Errors
    /// The registry is not installed or does not come up.
    pub fn start_at(
        directory: &Path,
        address: SocketAddr,
        enter: impl Fn(&str) -> Command,
    ) -> Result<Self> {
        Self::start_with("", directory, address, enter)
    }

    /// As [`Registry::start_at`], a registry that fetches from `upstream` what it does not have.
    ///
    /// # Errors
    /// The registry is not installed or does not come up.
    pub fn start_cache_at(
        upstream: SocketAddr,
        directory: &Path,
        address: SocketAddr,
        enter: impl Fn(&str) -> Command,
    ) -> Result<Self> {
        let proxy = format!("proxy: {{remoteurl: \"http://{upstream}\"}}\n");
        Self::start_with(&proxy, directory, address, enter)
    }

    /// As [`Registry::start_at`], with `more` at the end of its configuration, in its `http` section.
    ///
    /// # Errors
    /// The registry is not installed or does not come up.
    pub fn start_with(
        more: &str,
        directory: &Path,
        address: SocketAddr,
        enter: impl Fn(&str) -> Command,
    ) -> Result<Self> {
        fs::create_dir_all(directory.join("content"))?;
        // Unlike a file name of its own, the log must be new for each start to be counted from 0.
        let unique = tempfile::Builder::new()
            .prefix("registry-")
            .tempdir_in(directory)?
            .keep();
        let config = unique.join("config.yml");
        let base = configuration(&directory.join("content"), address);
        fs::write(&config, base + more)?;
        let mut command = enter("docker-registry");
        command.arg("serve").arg(&config);
        let log = unique.join("log");
        let mut process = Process::start("docker-registry", command, &log)?;
        process.wait_ready(START_LIMIT, || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on"))
        })?;
        let content = directory.join("content");
        Ok(Self {
            address,
            content,
            process,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Every request answered so far.
    ///
    /// # Errors
    /// The log is gone.
    pub fn accesses(&self) -> Result<Vec<Access>> {
        Ok(self
            .process
            .log()?
            .lines()
            .filter_map(parse_access)
            .collect())
    }

    /// How many GETs of that blob were begun and logged.
    ///
    /// # Errors
    /// The log is gone.
    pub fn fetches_of(&self, digest: &str) -> Result<usize> {
        let end = format!("/blobs/{digest}");
        let asked = self.accesses()?;
        Ok(asked
            .iter()
            .filter(|access| access.method == "GET" && access.path.ends_with(&end))
            .count())
    }

    /// Fails unless all requests came from agents that begin with `prefix`, and there was one. Pings are
    /// anybody's: a forward proxy passes them on as they are.
    ///
    /// # Errors
    /// Somebody else asked, or nobody did.
    pub fn asked_only_by(&self, prefix: &str) -> Result<()> {
        let accesses = self.accesses()?;
        ensure!(!accesses.is_empty(), "nobody asked the registry");
        for access in accesses {
            ensure!(
                access.agent.starts_with(prefix) || access.path == "/v2/",
                "somebody else asked: {access:?}"
            );
        }
        Ok(())
    }

    /// Takes one blob out of a repository, whose manifests still name it. A registry that runs
    /// remembers it; one that is started on the same directory does not.
    ///
    /// # Errors
    /// It has no such blob.
    pub fn forget(&self, repository: &str, digest: &str) -> Result<()> {
        let layers = self.content.join("docker/registry/v2/repositories");
        let layers = layers.join(repository).join("_layers");
        let link = layers.join(digest.replace(':', "/"));
        fs::remove_dir_all(&link).with_context(|| link.display().to_string())
    }

    /// Sends a signal, such as `STOP` and `CONT`.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends the registry and returns where it listened.
    ///
    /// # Errors
    /// The process cannot be ended.
    pub fn stop(mut self) -> Result<SocketAddr> {
        self.process.kill()?;
        Ok(self.address)
    }

    /// Uploads an image under `repository` with the tag `latest`.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push(&self, image: &Image, repository: &str) -> Result<()> {
        for blob in image.blobs() {
            let file = image.path(&blob.digest);
            self.push_blob(repository, &blob.digest, &file)
                .with_context(|| format!("pushing {} to {repository}", blob.digest))?;
        }
        for platform in &image.platforms {
            let digest = &platform.manifest.digest;
            self.push_manifest(repository, digest, MANIFEST_TYPE, &image.bytes(digest)?)?;
        }
        let index = image.bytes(&image.index.digest)?;
        self.push_manifest(repository, "latest", INDEX_TYPE, &index)
    }

    /// Uploads one blob.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push_blob(&self, repository: &str, digest: &str, file: &Path) -> Result<()> {
        let begun = Request::new("POST", &format!("/v2/{repository}/blobs/uploads/"))
            .fetch(self.address)?;
        ensure!(
            begun.status == 202,
            "POST: {} {}",
            begun.status,
            begun.text()
        );
        let location = begun.header("location").context("no Location")?;
        let target = location.trim_start_matches(&format!("http://{}", self.address));
        let joint = if target.contains('?') { '&' } else { '?' };
        let mut body = fs::File::open(file)?;
        let length = body.metadata()?.len();
        let put = Request::new("PUT", &format!("{target}{joint}digest={digest}"))
            .header("Content-Type", "application/octet-stream")
            .send_with(self.address, &mut body, length)?
            .whole()?;
        ensure!(put.status == 201, "PUT: {} {}", put.status, put.text());
        Ok(())
    }

    /// Uploads one manifest under a tag or its digest.
    ///
    /// # Errors
    /// The registry refuses.
    pub fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        mut body: &[u8],
    ) -> Result<()> {
        let length = body.len() as u64;
        let put = Request::new("PUT", &format!("/v2/{repository}/manifests/{reference}"))
            .header("Content-Type", media_type)
            .send_with(self.address, &mut body, length)?
            .whole()?;
        ensure!(put.status == 201, "PUT: {} {}", put.status, put.text());
        Ok(())
    }
}

/// An address of the loopback that nobody listens on at the moment.
///
/// # Errors
/// The loopback has no free port.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

fn configuration(content: &Path, address: SocketAddr) -> String {
    format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
         cache: {{blobdescriptor: inmemory}}\nhttp:\n  addr: \"{address}\"\n  secret: test\n",
        content.display()
    )
}

/// Reads one line of the combined log format (Apache's name for it); other lines are not accesses.
fn parse_access(line: &str) -> Option<Access> {
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut parts = rest.splitn(3, ' ');
    let status = parts.next()?.parse().ok()?;
    let bytes = parts.next()?.parse().ok()?;
    let agent = parts.next()?.rsplit('"').nth(1)?.to_owned();
    Some(Access {
        method,
        path,
        status,
        bytes,
        agent,
    })
}
