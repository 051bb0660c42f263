//! A file that appears under its name whole, or not at all.
//!
//! Bytes go to a file beside it, which [`AtomicFile::commit`] renames; dropped before that, the
//! file beside it is removed and the old content stays. A target that exists and is no regular
//! file (a pipe, `/dev/null`) is written directly, since renaming would replace it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A file being written, buffered.
#[derive(Debug)]
pub struct AtomicFile {
    /// `Some` until committed.
    out: Option<BufWriter<File>>,
    /// Where the bytes go meanwhile; `None` when they go to the target directly.
    beside: Option<PathBuf>,
    target: PathBuf,
}

impl AtomicFile {
    /// Opens a file to be known as `path`.
    ///
    /// # Errors
    /// The folder doesn't exist or can't be written, or `path` is a folder.
    pub fn create(path: &Path) -> Result<Self> {
        // A link stays a link: what it points to is replaced.
        let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let direct = fs::metadata(&target).is_ok_and(|meta| !meta.is_file());
        let beside = if direct { None } else { Some(beside(&target)?) };
        let file = match &beside {
            Some(beside) => OpenOptions::new().write(true).create_new(true).open(beside),
            None => OpenOptions::new().write(true).open(&target),
        };
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self {
            out: Some(BufWriter::new(file)),
            beside,
            target,
        })
    }

    /// Makes the file appear under its name.
    ///
    /// # Errors
    /// The bytes don't all reach the file, or it can't be renamed; the target is as it was.
    pub fn commit(mut self) -> Result<()> {
        let written = self.flush().and_then(|()| match &self.beside {
            Some(beside) => fs::rename(beside, &self.target),
            None => Ok(()),
        });
        written.with_context(|| format!("cannot write {}", self.target.display()))?;
        self.out = None;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out
            .as_mut()
            .expect("open until committed")
            .write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().expect("open until committed").flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let (Some(_), Some(beside)) = (self.out.take(), &self.beside) {
            // Nothing better to do about a failure: the target is untouched either way.
            let _ = fs::remove_file(beside);
        }
    }
}

/// A name in the same folder that no other process uses.
fn beside(target: &Path) -> Result<PathBuf> {
    let name = target
        .file_name()
        .with_context(|| format!("{} is not the name of a file", target.display()))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.partial", std::process::id()));
    Ok(target.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    #[test]
    fn a_file_not_committed_leaves_the_old_content_and_nothing_beside_it() {
        let folder = Folder::new("atomic-dropped");
        fs::write(folder.file("out"), "old").unwrap();
        let mut file = AtomicFile::create(&folder.file("out")).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(folder.file("out")).unwrap(), "old");
        assert_eq!(folder.names(), ["out"]);
    }

    #[test]
    fn a_committed_file_replaces_the_old_content() {
        let folder = Folder::new("atomic-committed");
        fs::write(folder.file("out"), "a longer old text").unwrap();
        let mut file = AtomicFile::create(&folder.file("out")).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read_to_string(folder.file("out")).unwrap(), "new");
        assert_eq!(folder.names(), ["out"]);
    }

    #[test]
    fn a_link_stays_and_what_it_points_to_is_replaced() {
        let folder = Folder::new("atomic-link");
        fs::write(folder.file("out"), "old").unwrap();
        std::os::unix::fs::symlink(folder.file("out"), folder.file("link")).unwrap();
        let mut file = AtomicFile::create(&folder.file("link")).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert!(
            fs::symlink_metadata(folder.file("link"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read_to_string(folder.file("out")).unwrap(), "new");
    }

    #[test]
    fn a_device_is_written_and_not_replaced() {
        let mut file = AtomicFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"x").unwrap();
        file.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_missing_folder_is_refused_with_the_path() {
        let error = AtomicFile::create(Path::new("/no/such/folder/out")).unwrap_err();
        assert!(error.to_string().contains("/no/such/folder/out"), "{error}");
    }
}
