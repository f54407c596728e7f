//! Reads this node's logins: files in docker's form, and the programs that those name.
//!
//! A helper is told the server on its standard input and never by an argument. What it writes goes
//! nowhere but to the caller.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use futures_util::future::BoxFuture;
use swarm::source::Keyring;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
    time::timeout,
};

/// The keyring of the system that this process runs on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemKeyring;

/// The longest file and the longest answer that are read, in bytes.
const FILE_LEN_MAX: u64 = 1 << 20;
const ANSWER_LEN_MAX: u64 = 64 << 10;
/// A helper may ask a cloud.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);
/// What helpers write, and fail, where they know of no login (docker-credential-helpers).
const NOT_FOUND: &[u8] = b"credentials not found";

// === impl SystemKeyring ===

impl Keyring for SystemKeyring {
    fn file(&self, path: PathBuf) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        Box::pin(async move { bounded(tokio::fs::File::open(path).await?, FILE_LEN_MAX).await })
    }

    fn helper(&self, program: String, server: String) -> BoxFuture<'static, io::Result<Vec<u8>>> {
        Box::pin(async move {
            match timeout(HELPER_TIMEOUT, ask(&program, &server)).await {
                Ok(answer) => answer,
                Err(_) => Err(io::Error::other(format!(
                    "has not answered within {HELPER_TIMEOUT:?}"
                ))),
            }
        })
    }
}

/// What `program` says of `server`. Dropped, it is killed.
async fn ask(program: &str, server: &str) -> io::Result<Vec<u8>> {
    let mut helper = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = helper.stdin.take() {
        input.write_all(server.as_bytes()).await?;
    }
    let output = helper.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let answer = bounded(output, ANSWER_LEN_MAX).await?;
    let status = helper.wait().await?;
    match status.success() {
        true => Ok(answer),
        false if answer.starts_with(NOT_FOUND) => Ok(Vec::new()),
        false => Err(io::Error::other(format!("has failed with {status}"))),
    }
}

async fn bounded(from: impl AsyncRead + Unpin, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len_max + 1).read_to_end(&mut bytes).await?;
    match len_max < bytes.len() as u64 {
        true => Err(io::Error::other(format!("has more than {len_max} bytes"))),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    /// What a helper that runs `script` says of `r.example`.
    async fn say(script: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker-credential-x");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let program = path.to_str().unwrap().to_owned();
        let said = SystemKeyring.helper(program, "r.example".to_owned()).await;
        said.map(|bytes| String::from_utf8(bytes).unwrap())
            .map_err(|error| error.to_string())
    }

    // One test, so that no other child is forked while a script is open for writing: the kernel runs
    // no file that somebody may write.
    #[tokio::test]
    async fn a_helper_is_told_the_server_on_its_input_and_is_never_quoted_when_it_fails() {
        let said = say("echo \"$# $1 $(cat)\"").await;
        assert_eq!(said, Ok("1 get r.example\n".to_owned()));
        let unknown = "cat >/dev/null; echo credentials not found in native keychain; exit 1";
        assert_eq!(say(unknown).await, Ok(String::new()));
        let failed = say("cat >/dev/null; echo secret; exit 3")
            .await
            .unwrap_err();
        assert_eq!(failed, "has failed with exit status: 3");
        let endless = say("cat >/dev/null; yes secret").await.unwrap_err();
        assert_eq!(endless, "has more than 65536 bytes");
    }
}
