//! nginx: with sendfile, giving out the very files that Darter keeps, or as a cache of a registry.

use std::{fs, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use registry_compat_tests::{
    process::{self, Process},
    registry::free_address,
};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running nginx. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    process: Process,
    _directory: TempDir,
}

// === impl Nginx ===

impl Nginx {
    /// Serves each file under its name.
    pub(crate) fn start(files: &[(&str, &Path)]) -> Result<Self> {
        let directory = directory()?;
        let www = directory.path().join("www");
        fs::create_dir(&www)?;
        for (name, file) in files {
            fs::hard_link(file, www.join(name))
                .with_context(|| format!("{} cannot be linked", file.display()))?;
        }
        let address = free_address()?;
        let server = format!("server {{ listen {address}; root {}; }}", www.display());
        let enter = |program: &str| process::command(program);
        let is_up = || std::net::TcpStream::connect(address).is_ok();
        Self::launch(directory, address, &server, enter, is_up)
    }

    /// Keeps what it fetched from `upstream`: in slices, each of which is fetched once, by whoever
    /// asked first. It listens at `address` where the command runs that `enter` makes.
    pub(crate) fn cache(
        upstream: SocketAddr,
        address: SocketAddr,
        enter: impl Fn(&str) -> Command,
    ) -> Result<Self> {
        let directory = directory()?;
        let cache = directory.path().join("cache");
        let server = format!(
            "proxy_cache_path {} levels=1:2 keys_zone=blobs:10m max_size=100g use_temp_path=off;\n\
             upstream registry {{ server {upstream}; keepalive 16; }}\n\
             server {{ listen {address}; location / {{\n\
             slice 1m;\nproxy_cache blobs;\nproxy_cache_lock on;\n\
             proxy_cache_key $uri$slice_range;\nproxy_set_header Range $slice_range;\n\
             proxy_cache_valid 200 206 1h;\nproxy_http_version 1.1;\n\
             proxy_set_header Connection \"\";\nproxy_pass http://registry;\n\
             }} }}",
            cache.display()
        );
        // It can be seen to listen by those alone who are where it runs; by its pid file it is told
        // to have bound its sockets.
        let pid = directory.path().join("pid");
        Self::launch(directory, address, &server, enter, || pid.exists())
    }

    fn launch(
        directory: TempDir,
        address: SocketAddr,
        server: &str,
        enter: impl Fn(&str) -> Command,
        is_up: impl FnMut() -> bool,
    ) -> Result<Self> {
        let config = directory.path().join("nginx.conf");
        fs::write(&config, configuration(directory.path(), server))?;
        // In a process namespace the workers end with the master, also when that is killed.
        let mut command = enter("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--", "nginx"]);
        command.arg("-p").arg(directory.path());
        command.arg("-c").arg(&config);
        let log = directory.path().join("log");
        let mut process = Process::start("nginx", command, &log)?;
        process.wait_ready(START_LIMIT, is_up)?;
        Ok(Self {
            address,
            process,
            _directory: directory,
        })
    }

    /// The process id of the master's parent; the workers are below the master.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

fn directory() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("darter-nginx-").tempdir()?;
    Ok(directory)
}

/// Debian's defaults where nothing is said, and one line of log for each request, as Darter writes.
fn configuration(directory: &Path, server: &str) -> String {
    let directory = directory.display();
    format!(
        "user root;\ndaemon off;\nworker_processes auto;\n\
         pid {directory}/pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         sendfile on;\ntcp_nopush on;\nkeepalive_requests 100000000;\n\
         default_type application/octet-stream;\n\
         access_log {directory}/access;\n\
         client_body_temp_path {directory}/body;\nproxy_temp_path {directory}/proxy;\n\
         fastcgi_temp_path {directory}/fastcgi;\nuwsgi_temp_path {directory}/uwsgi;\n\
         scgi_temp_path {directory}/scgi;\n\
         {server}\n\
         }}\n"
    )
}
