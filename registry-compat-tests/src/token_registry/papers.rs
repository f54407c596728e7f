//! The certificate of one token registry, and the authority that its clients believe.

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use super::{Door, Settings};
use crate::authority::TestAuthority;

/// Makes both, and writes the authority's into `directory`, where nothing else may be: Go's clients
/// read whole directories.
pub(super) fn write(directory: &Path, settings: &Settings) -> Result<TlsAcceptor> {
    fs::create_dir_all(directory)?;
    let ca = TestAuthority::new()?;
    fs::write(directory.join("ca.crt"), ca.pem())?;
    let places = Door::ALL.map(|door| settings.place(door).ip().to_string());
    let mut names = Vec::from(places);
    names.sort();
    names.dedup();
    names.push("localhost".to_owned());
    names.extend(settings.names.iter().cloned());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let leaf = ca.issue(&names)?;
    let chain = vec![CertificateDer::from_pem_slice(leaf.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
