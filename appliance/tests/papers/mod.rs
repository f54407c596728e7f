//! The certificate files of a host, made for a test.

use protocol::{Role, identity::Authority};
use tempfile::TempDir;

/// A directory with the files of a host that has these roles and no others, and the table of the
/// configuration that names them.
pub(crate) fn papers(roles: &[Role]) -> anyhow::Result<(TempDir, String)> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("test")?;
    let issued = authority.issue(&"node-1".parse()?, roles.iter().copied().collect())?;
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let ca = write("ca.pem", authority.ca_pem())?;
    let cert = write("cert.pem", &issued.certificate)?;
    let key = write("key.pem", &issued.key)?;
    let table = format!("[identity]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n");
    Ok((folder, table))
}
