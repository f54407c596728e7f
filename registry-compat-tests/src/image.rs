//! Images made offline: an index over two platforms with ten layers each, the same bytes on every
//! machine, kept as an OCI image layout so that what a client has can be compared byte for byte.
//!
//! Layers are incompressible, so that no client's or server's compression hides a wrong byte. The
//! first is docker's 32-byte empty layer, the last is the big one and stands as plain tar.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::content::{digest_of, digest_of_file, write_noise};

pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const GZIP_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// The platforms of every image made here.
pub const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

/// The sizes of the single file in each layer but the first; the last is not compressed.
const FULL: [u64; 9] = [
    1,
    700,
    10 << 10,
    256 << 10,
    (256 << 10) + 1,
    1 << 20,
    5 << 20,
    17 << 20,
    200 << 20,
];
const SMALL: [u64; 9] = [
    1,
    700,
    4 << 10,
    10 << 10,
    64 << 10,
    256 << 10,
    300 << 10,
    1 << 20,
    2 << 20,
];

/// What gzip makes of a tar without entries, as docker has always written it.
const EMPTY_LAYER: [u8; 32] = [
    31, 139, 8, 0, 0, 9, 110, 136, 0, 255, 98, 24, 5, 163, 96, 20, 140, 88, 0, 8, 0, 0, 255, 255,
    46, 175, 181, 239, 0, 4, 0, 0,
];

/// A content by digest and length, as a descriptor names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    pub digest: String,
    pub size: u64,
}

/// One platform's part of an image.
#[derive(Debug, Clone)]
pub struct Platform {
    pub architecture: &'static str,
    pub manifest: Blob,
    pub config: Blob,
    pub layers: Vec<Blob>,
    /// The digests of the layers' uncompressed tars, bottom first.
    pub diff_ids: Vec<String>,
}

/// An image and the directory that has its bytes.
#[derive(Debug)]
pub struct Image {
    pub index: Blob,
    pub platforms: Vec<Platform>,
    layout: PathBuf,
}

struct Layer {
    media_type: &'static str,
    blob: Blob,
    diff_id: String,
}

struct HashingFile {
    file: BufWriter<File>,
    hasher: Sha256,
    size: u64,
}

// === impl Image ===

impl Image {
    /// An image of 32 bytes to 200 MiB per layer, made in `directory`.
    ///
    /// # Errors
    /// The directory cannot be written, or `gzip` is missing.
    pub fn full(directory: &Path, seed: &str) -> Result<Self> {
        Self::make(directory, seed, FULL)
    }

    /// An image of 32 bytes to 2 MiB per layer, made in `directory`.
    ///
    /// # Errors
    /// As [`Image::full`].
    pub fn small(directory: &Path, seed: &str) -> Result<Self> {
        Self::make(directory, seed, SMALL)
    }

    fn make(directory: &Path, seed: &str, sizes: [u64; 9]) -> Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(
            directory.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        let mut shared = vec![empty_layer(directory)?];
        for (position, &size) in sizes.iter().enumerate().skip(1) {
            let compressed = position + 1 < sizes.len();
            shared.push(make_layer(
                directory,
                &format!("{seed} {position}"),
                size,
                compressed,
            )?);
        }
        let mut platforms = Vec::new();
        for architecture in PLATFORMS {
            // The one small layer that differs makes the two manifests differ in their layers too.
            let own = make_layer(directory, &format!("{seed} {architecture}"), sizes[0], true)?;
            let mut layers: Vec<&Layer> = shared.iter().collect();
            layers.insert(1, &own);
            platforms.push(make_platform(directory, architecture, &layers)?);
        }
        let manifests: Vec<Value> = platforms
            .iter()
            .map(|platform| {
                json!({
                    "mediaType": MANIFEST_TYPE,
                    "digest": platform.manifest.digest,
                    "size": platform.manifest.size,
                    "platform": {"architecture": platform.architecture, "os": "linux"},
                })
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
        let index = write_blob(directory, index.to_string().as_bytes())?;
        Ok(Self {
            index,
            platforms,
            layout: directory.to_owned(),
        })
    }

    /// The platform this machine's clients choose.
    ///
    /// # Errors
    /// The machine is neither amd64 nor arm64.
    pub fn native(&self) -> Result<&Platform> {
        let own = if std::env::consts::ARCH == "aarch64" {
            "arm64"
        } else {
            "amd64"
        };
        self.platforms
            .iter()
            .find(|platform| platform.architecture == own)
            .context("no platform")
    }

    /// Where the bytes of a digest are.
    #[must_use]
    pub fn path(&self, digest: &str) -> PathBuf {
        self.layout.join("blobs").join(digest.replace(':', "/"))
    }

    /// The bytes of a digest.
    ///
    /// # Errors
    /// The image has no such content.
    pub fn bytes(&self, digest: &str) -> Result<Vec<u8>> {
        fs::read(self.path(digest)).with_context(|| format!("{digest} is not of this image"))
    }

    /// Every content but the manifests and the index: what a registry keeps as blobs.
    #[must_use]
    pub fn blobs(&self) -> Vec<Blob> {
        let mut blobs = BTreeMap::new();
        for platform in &self.platforms {
            for blob in platform.layers.iter().chain([&platform.config]) {
                blobs.insert(blob.digest.clone(), blob.clone());
            }
        }
        blobs.into_values().collect()
    }

    /// The biggest layer.
    ///
    /// # Errors
    /// The image has no layer.
    pub fn biggest(&self) -> Result<Blob> {
        self.blobs()
            .into_iter()
            .max_by_key(|blob| blob.size)
            .context("no layers")
    }
}

// === impl HashingFile ===

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl HashingFile {
    fn create(path: &Path) -> Result<Self> {
        let file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        Ok(Self {
            file,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    fn finish(mut self) -> Result<Blob> {
        self.file.flush()?;
        let digest = format!("sha256:{}", hex::encode(self.hasher.finalize()));
        Ok(Blob {
            digest,
            size: self.size,
        })
    }
}

fn empty_layer(directory: &Path) -> Result<Layer> {
    let blob = write_blob(directory, &EMPTY_LAYER)?;
    Ok(Layer {
        media_type: GZIP_TYPE,
        blob,
        diff_id: digest_of(&[0; 1024]),
    })
}

fn make_layer(directory: &Path, seed: &str, size: u64, compressed: bool) -> Result<Layer> {
    let working = directory.join("layer.tar");
    let mut tar = HashingFile::create(&working)?;
    tar.write_all(&tar_header(
        &format!("data/{}", seed.replace(' ', "-")),
        size,
    ))?;
    write_noise(seed, size, &mut tar)?;
    let padding = (512 - size % 512) % 512 + 1024;
    tar.write_all(&vec![0; usize::try_from(padding)?])?;
    let plain = tar.finish()?;
    let diff_id = plain.digest.clone();
    let (media_type, blob, made) = if compressed {
        let packed = directory.join("layer.gz");
        let status = Command::new("gzip")
            .args(["-1", "-n", "-c"])
            .arg(&working)
            .stdout(Stdio::from(File::create(&packed)?))
            .status()?;
        anyhow::ensure!(status.success(), "gzip ended with {status}");
        let blob = Blob {
            digest: digest_of_file(&packed)?,
            size: fs::metadata(&packed)?.len(),
        };
        (GZIP_TYPE, blob, packed)
    } else {
        (TAR_TYPE, plain, working)
    };
    fs::rename(
        made,
        directory.join("blobs").join(blob.digest.replace(':', "/")),
    )?;
    Ok(Layer {
        media_type,
        blob,
        diff_id,
    })
}

fn make_platform(
    directory: &Path,
    architecture: &'static str,
    layers: &[&Layer],
) -> Result<Platform> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = write_blob(directory, config.to_string().as_bytes())?;
    let descriptors: Vec<Value> = layers.iter().map(|layer| layer.descriptor()).collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config.digest, "size": config.size},
        "layers": descriptors,
    });
    let manifest = write_blob(directory, manifest.to_string().as_bytes())?;
    let layers = layers.iter().map(|layer| layer.blob.clone()).collect();
    Ok(Platform {
        architecture,
        manifest,
        config,
        layers,
        diff_ids,
    })
}

impl Layer {
    fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.blob.digest,
            "size": self.blob.size,
        })
    }
}

fn write_blob(directory: &Path, bytes: &[u8]) -> Result<Blob> {
    let digest = digest_of(bytes);
    fs::write(
        directory.join("blobs").join(digest.replace(':', "/")),
        bytes,
    )?;
    Ok(Blob {
        digest,
        size: bytes.len() as u64,
    })
}

/// A POSIX ustar header of one plain file (IEEE 1003.1, "ustar Interchange Format").
fn tar_header(name: &str, size: u64) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |offset: usize, text: &str| {
        header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{size:011o}\0"));
    put(136, "14544047600\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}
