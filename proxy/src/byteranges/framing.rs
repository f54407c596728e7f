//! Pure: how several parts of a body stand in one, as `multipart/byteranges` (RFC 9110 section 14.6,
//! RFC 2046 section 5.1), and how long that is.

use std::ops::Range;

use protocol::Digest;

use crate::range;

/// The media type of blobs, and so of their parts.
pub(crate) const BLOB_TYPE: &str = "application/octet-stream";

/// The parts of one body, in the order in which they are sent.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    boundary: String,
    size: u64,
    parts: Vec<Range<u64>>,
}

/// A boundary is at most 70 characters long.
const BOUNDARY_LEN: usize = 64;

// === impl Framing ===

impl Framing {
    /// Parts of the `size` bytes of the blob with this digest. The digest is the boundary: nobody can
    /// make a blob that contains its own.
    pub(crate) fn new(digest: Digest, size: u64, parts: Vec<Range<u64>>) -> Self {
        let mut boundary = digest.encoded();
        boundary.truncate(BOUNDARY_LEN);
        Self {
            boundary,
            size,
            parts,
        }
    }

    pub(crate) fn parts(&self) -> &[Range<u64>] {
        &self.parts
    }

    pub(crate) fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// Bytes of all that is sent.
    pub(crate) fn length(&self) -> u64 {
        let heads = (0..self.parts.len()).filter_map(|index| self.head(index));
        let framing: usize = heads.chain([self.end()]).map(|text| text.len()).sum();
        let bytes: u64 = self.parts.iter().map(|part| part.end - part.start).sum();
        bytes + framing as u64
    }

    /// What comes before the bytes of a part.
    pub(crate) fn head(&self, index: usize) -> Option<String> {
        let content_range = range::content_range(self.parts.get(index)?, self.size);
        let (line_end, boundary) = (if index == 0 { "" } else { "\r\n" }, &self.boundary);
        Some(format!(
            "{line_end}--{boundary}\r\nContent-Type: {BLOB_TYPE}\r\nContent-Range: {content_range}\r\n\r\n"
        ))
    }

    /// What comes after the last part.
    pub(crate) fn end(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(framing: &Framing, body: &str) -> String {
        let parts = framing.parts().iter().enumerate();
        let parts = parts.map(|(index, part)| {
            let bytes = &body[part.start as usize..part.end as usize];
            framing.head(index).unwrap() + bytes
        });
        parts.chain([framing.end()]).collect()
    }

    #[test]
    fn parts_are_written_as_the_standard_says_and_are_as_long_as_is_told() {
        let framing = Framing::new(Digest::Sha256([7; 32]), 10, vec![7..10, 0..1]);
        let written = written(&framing, "0123456789");
        let boundary = "07".repeat(32);
        let expect = format!(
            "--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 7-9/10\r\n\r\n789\
             \r\n--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes 0-0/10\r\n\r\n0\
             \r\n--{boundary}--\r\n"
        );
        assert_eq!(written, expect);
        assert_eq!(framing.length(), expect.len() as u64);
        assert_eq!(
            framing.content_type(),
            format!("multipart/byteranges; boundary={boundary}")
        );
    }

    #[test]
    fn a_boundary_is_no_longer_than_is_allowed() {
        for digest in [Digest::Sha256([0xa5; 32]), Digest::Sha512([0xa5; 64])] {
            let content_type = Framing::new(digest, 2, vec![0..1, 1..2]).content_type();
            let (_, boundary) = content_type.split_once("boundary=").unwrap();
            assert_eq!(boundary, "a5".repeat(32));
        }
    }
}
