//! The piece log of one task: appended to, and read back after a start.
//!
//! A file begins with [`MAGIC`] and the format version. A record is
//! `len u32, tag u8, payload, checksum u64`; the checksum is over the checksum of the record
//! before, the offset and the record, so that no record counts in another place or another log.
//! Invariant: everything after the first record that does not hold is cut off. The log is written
//! after the data, so a crash can lose a piece but never invent one.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::FileExt,
};

use protocol::{content::TaskId, layout::Layout, piece_set::PIECES_MAX};

use super::{
    error::StoreError,
    ledger::{BatchPlace, Ledger},
    record::{Begin, Record},
};

/// The longest payload of a record, in bytes.
pub(super) const RECORD_LEN_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"darter\x00L";
const FORMAT_VERSION: u32 = 1;
const HEADER_LEN: u64 = 12;
const FRAME_LEN: u64 = 13;

/// A log is at most this long, and as much again for each piece as [`LOG_LEN_PER_PIECE`].
const LOG_LEN_BASE: u64 = 4 << 20;
const LOG_LEN_PER_PIECE: u64 = 1024;

/// The end of a log that is appended to.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
    end: u64,
    chain: u64,
}

/// Reads records from the start until one does not hold.
struct Records<'a> {
    reader: BufReader<&'a File>,
    end: u64,
    chain: u64,
}

// === impl Log ===

impl Log {
    /// Begins a log in an empty file.
    pub(super) fn create(file: File, begin: &Begin) -> Result<(Self, Ledger), StoreError> {
        let mut header = MAGIC.to_vec();
        header.extend(FORMAT_VERSION.to_le_bytes());
        file.write_all_at(&header, 0)
            .map_err(StoreError::disk("begin a piece log"))?;
        let mut log = Self {
            file,
            end: HEADER_LEN,
            chain: 0,
        };
        let ledger = Ledger::begin(begin.clone());
        log.append(&Record::Begin(begin.clone()), ledger.layout())?;
        Ok((log, ledger))
    }

    /// Reads the log of `task` and cuts off what does not hold; `None` where it is not of `task`.
    pub(super) fn open(file: File, task: TaskId) -> io::Result<Option<(Self, Ledger)>> {
        let Some((ledger, end, chain)) = replay(&file, task)? else {
            return Ok(None);
        };
        if end < file.metadata()?.len() {
            file.set_len(end)?;
        }
        Ok(Some((Self { file, end, chain }, ledger)))
    }

    /// Writes `record` at the end. After a failure the next record takes its place.
    pub(super) fn append(
        &mut self,
        record: &Record,
        layout: Layout,
    ) -> Result<BatchPlace, StoreError> {
        let payload = record
            .encode()
            .filter(|payload| payload.len() <= RECORD_LEN_MAX)
            .ok_or(StoreError::Contradiction(
                "a record is longer than a log takes",
            ))?;
        let len = payload.len() as u32;
        let next = self.end + FRAME_LEN + u64::from(len);
        if next > len_max(layout) {
            return Err(StoreError::LogFull);
        }
        let chain = checksum(self.chain, self.end, record.tag(), &payload);
        let mut frame = Vec::with_capacity(payload.len() + FRAME_LEN as usize);
        frame.extend(len.to_le_bytes());
        frame.push(record.tag());
        frame.extend(payload);
        frame.extend(chain.to_le_bytes());
        self.file
            .write_all_at(&frame, self.end)
            .map_err(StoreError::disk("append to a piece log"))?;
        let place = BatchPlace {
            offset: self.end,
            len,
            chain: self.chain,
        };
        self.end = next;
        self.chain = chain;
        Ok(place)
    }

    /// The batch at `place`; `None` where the disk has damaged it.
    pub(super) fn batch(&self, place: BatchPlace) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; place.len as usize];
        self.file.read_exact_at(&mut payload, place.offset + 5)?;
        let mut stored = [0; 8];
        self.file
            .read_exact_at(&mut stored, place.offset + 5 + u64::from(place.len))?;
        let holds = checksum(place.chain, place.offset, 3, &payload) == u64::from_le_bytes(stored);
        Ok(holds.then_some(payload))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

/// What the log of `task` says, read without changing it.
pub(super) fn inspect(file: &File, task: TaskId) -> io::Result<Option<Ledger>> {
    Ok(replay(file, task)?.map(|(ledger, ..)| ledger))
}

/// The first record of the log of `task`.
pub(super) fn inspect_begin(file: &File, task: TaskId) -> io::Result<Option<Begin>> {
    Records::open(file)?.map_or(Ok(None), |mut records| records.begin(task))
}

fn replay(file: &File, task: TaskId) -> io::Result<Option<(Ledger, u64, u64)>> {
    let Some(mut records) = Records::open(file)? else {
        return Ok(None);
    };
    let Some(begin) = records.begin(task)? else {
        return Ok(None);
    };
    let mut ledger = Ledger::begin(begin);
    loop {
        let (end, chain) = (records.end, records.chain);
        let Some((record, place)) = records.next()? else {
            return Ok(Some((ledger, end, chain)));
        };
        if records.end > len_max(ledger.layout()) || !ledger.replay(record, place) {
            return Ok(Some((ledger, end, chain)));
        }
    }
}

// === impl Records ===

impl<'a> Records<'a> {
    fn open(mut file: &'a File) -> io::Result<Option<Self>> {
        file.seek(SeekFrom::Start(0))?;
        let mut records = Self {
            reader: BufReader::new(file),
            end: HEADER_LEN,
            chain: 0,
        };
        let mut header = [0; HEADER_LEN as usize];
        let known = records.fill(&mut header)?
            && header[..8] == MAGIC
            && header[8..] == FORMAT_VERSION.to_le_bytes();
        Ok(known.then_some(records))
    }

    fn begin(&mut self, task: TaskId) -> io::Result<Option<Begin>> {
        match self.next()? {
            Some((Record::Begin(begin), _)) if begin.task == task => Ok(Some(begin)),
            Some(_) | None => Ok(None),
        }
    }

    /// The next record that holds.
    fn next(&mut self) -> io::Result<Option<(Record, BatchPlace)>> {
        let mut head = [0; 5];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, tag] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len as usize > RECORD_LEN_MAX {
            return Ok(None);
        }
        let mut payload = vec![0; len as usize];
        let mut stored = [0; 8];
        if !self.fill(&mut payload)? || !self.fill(&mut stored)? {
            return Ok(None);
        }
        let chain = checksum(self.chain, self.end, tag, &payload);
        let Some(record) = Record::decode(tag, &payload).filter(|_| chain.to_le_bytes() == stored)
        else {
            return Ok(None);
        };
        let place = BatchPlace {
            offset: self.end,
            len,
            chain: self.chain,
        };
        self.end += FRAME_LEN + u64::from(len);
        self.chain = chain;
        Ok(Some((record, place)))
    }

    /// Fills `bytes`; `false` at the end of the file.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        match self.reader.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn len_max(layout: Layout) -> u64 {
    LOG_LEN_BASE + u64::from(layout.piece_count().unwrap_or(PIECES_MAX)) * LOG_LEN_PER_PIECE
}

fn checksum(chain: u64, offset: u64, tag: u8, payload: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&[tag]);
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}
