//! What is about to be sent, written down first.
//!
//! A process can be killed between sending a request and writing that it did. So each
//! attempt is a line in a file before its first byte goes out: one `write` into the
//! system's memory, which outlives the process (not a loss of power). A line needs no
//! second one: once the ledger holds the attempt, the line means nothing any more.
//!
//! Lines go into numbered segments beside the ledger. A segment is deleted when all its
//! attempts are in the ledger and a newer one has been begun.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use freeway_types::{RequestId, Timestamp};

use crate::record::Dispatch;

/// A segment that is larger is not written to any more …
const MOST_BYTES: u64 = 1024 * 1024;
/// … nor one that is older: its lines must not outlive the requests that the ledger forgets.
const LONGEST: Duration = Duration::from_secs(3600);

/// The dispatches that the ledger does not hold yet.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The ledger's path.
    ledger: PathBuf,
    /// Number of the next segment.
    next: u64,
    /// Oldest first; only the last one is written to.
    segments: VecDeque<Segment>,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    length: u64,
    begun: Timestamp,
    /// Requests with an attempt here that the ledger does not hold yet.
    open: BTreeSet<RequestId>,
}

impl Journal {
    /// The journal of a ledger, with what an earlier process left in it: the segments it found, and their lines,
    /// oldest first. A line that is cut short ends its segment.
    pub(crate) fn open(ledger: &Path) -> io::Result<(Self, Vec<PathBuf>, Vec<Dispatch<'static>>)> {
        let mut found = segments_of(ledger)?;
        found.sort_unstable();
        let mut dispatches = Vec::new();
        for (_, path) in &found {
            for line in BufReader::new(File::open(path)?).split(b'\n') {
                let Ok(dispatch) = serde_json::from_slice(&line?) else { break };
                dispatches.push(dispatch);
            }
        }
        let next = found.last().map_or(1, |(number, _)| number + 1);
        let journal = Self { ledger: ledger.to_owned(), next, segments: VecDeque::new(), line: Vec::new() };
        Ok((journal, found.into_iter().map(|(_, path)| path).collect(), dispatches))
    }

    /// Writes one dispatch. On an error nothing of it stays in the file.
    pub(crate) fn write(&mut self, dispatch: &Dispatch<'_>) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, dispatch)?;
        self.line.push(b'\n');
        let full = |last: &Segment| last.length >= MOST_BYTES || dispatch.sent_at.since(last.begun) > LONGEST;
        if self.segments.back().is_none_or(full) {
            self.begin(dispatch.sent_at)?;
        }
        let Some(last) = self.segments.back_mut() else { return Err(io::Error::other("no segment was begun")) };
        if let Err(error) = last.file.write_all(&self.line) {
            // Part of the line may be there. What is cut off here would otherwise end the segment for its reader.
            last.file.set_len(last.length)?;
            return Err(error);
        }
        last.length += self.line.len() as u64;
        last.open.insert(dispatch.request);
        Ok(())
    }

    /// The ledger holds these requests now.
    pub(crate) fn settled(&mut self, requests: impl Iterator<Item = RequestId>) {
        for request in requests {
            for segment in &mut self.segments {
                segment.open.remove(&request);
            }
        }
        while self.segments.len() > 1 && self.segments[0].open.is_empty() {
            if let Some(segment) = self.segments.pop_front() {
                // One that stays is read at the next start, and found to be settled.
                let _ = std::fs::remove_file(segment.path);
            }
        }
    }

    fn begin(&mut self, now: Timestamp) -> io::Result<()> {
        let path = segment_path(&self.ledger, self.next);
        let mut options = File::options();
        options.append(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        self.next += 1;
        self.segments.push_back(Segment { path, file, length: 0, begun: now, open: BTreeSet::new() });
        Ok(())
    }
}

impl Drop for Journal {
    /// An orderly end leaves nothing behind but what is not in the ledger.
    fn drop(&mut self) {
        for segment in self.segments.drain(..).filter(|segment| segment.open.is_empty()) {
            let _ = std::fs::remove_file(segment.path);
        }
    }
}

fn segment_path(ledger: &Path, number: u64) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(format!(".sent-{number}"));
    PathBuf::from(name)
}

fn segments_of(ledger: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let folder = ledger.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = ledger.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number =
            path.file_name().and_then(|file| file.to_str()?.strip_prefix(name)?.strip_prefix(".sent-")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::dispatch;

    #[test]
    fn what_is_not_settled_is_found_again_and_segments_end() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let at = |secs| Timestamp::from_secs(secs);
        let hour = 3601;
        let (mut journal, ..) = Journal::open(&ledger).unwrap();
        journal.write(&dispatch(1, at(0))).unwrap();
        journal.write(&dispatch(2, at(1))).unwrap();
        journal.write(&dispatch(3, at(hour))).unwrap();
        assert_eq!(segments_of(&ledger).unwrap().len(), 2, "an old segment is left for a new one");
        journal.settled([dispatch(1, at(0)).request].into_iter());
        assert_eq!(segments_of(&ledger).unwrap().len(), 2, "one of its attempts is open");
        journal.settled([dispatch(2, at(1)).request].into_iter());
        assert_eq!(segments_of(&ledger).unwrap().len(), 1);
        drop(journal);

        let (journal, paths, left) = Journal::open(&ledger).unwrap();
        assert_eq!((paths.len(), left), (1, vec![dispatch(3, at(hour))]));
        assert_eq!(journal.next, 3, "a number is not used twice while its segment is there");
    }

    #[test]
    fn an_orderly_end_leaves_nothing_and_a_torn_line_ends_its_segment() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.db");
        let (mut journal, ..) = Journal::open(&ledger).unwrap();
        let sent = dispatch(1, Timestamp::from_secs(0));
        journal.write(&sent).unwrap();
        journal.settled([sent.request].into_iter());
        drop(journal);
        assert_eq!(segments_of(&ledger).unwrap(), []);

        let mut text = serde_json::to_vec(&sent).unwrap();
        text.push(b'\n');
        text.extend_from_within(..text.len() / 2);
        std::fs::write(segment_path(&ledger, 7), text).unwrap();
        let (_, _, left) = Journal::open(&ledger).unwrap();
        assert_eq!(left, [sent]);
    }
}
