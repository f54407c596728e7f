//! nginx with sendfile, giving out the very files that Darter keeps.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

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
        let directory = tempfile::Builder::new().prefix("darter-nginx-").tempdir()?;
        let www = directory.path().join("www");
        fs::create_dir(&www)?;
        for (name, file) in files {
            fs::hard_link(file, www.join(name))
                .with_context(|| format!("{} cannot be linked", file.display()))?;
        }
        let address = free_address()?;
        let config = directory.path().join("nginx.conf");
        fs::write(&config, configuration(directory.path(), address))?;
        let mut command = process::command("nginx");
        command.arg("-p").arg(directory.path());
        command.arg("-c").arg(&config);
        let log = directory.path().join("log");
        let mut process = Process::start("nginx", command, &log)?;
        process.wait_ready(START_LIMIT, || {
            std::net::TcpStream::connect(address).is_ok()
        })?;
        Ok(Self {
            address,
            process,
            _directory: directory,
        })
    }

    /// The process id of the master, whose children are the workers.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Debian's defaults where nothing is said, and one line of log for each request, as Darter writes.
fn configuration(directory: &Path, address: SocketAddr) -> String {
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
         server {{ listen {address}; root {directory}/www; }}\n\
         }}\n"
    )
}
