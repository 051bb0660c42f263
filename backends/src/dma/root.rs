//! Where the probe reads: this system, or a captured tree.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use ttm::dma::Missing;

/// A file system that is looked at: `/`, or a folder laid out like it (`sys`, `proc`, `dev`), with
/// symbolic links that stay inside.
#[derive(Clone, Debug)]
pub struct ProbeRoot {
    root: PathBuf,
    captured: bool,
}

impl ProbeRoot {
    /// This system.
    #[must_use]
    pub fn system() -> Self {
        Self {
            root: "/".into(),
            captured: false,
        }
    }

    /// A captured tree.
    ///
    /// # Errors
    /// It is not there, or has no `sys` in it.
    pub fn captured(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into().canonicalize()?;
        if !root.join("sys").is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "{} is not laid out as a file system: it has no sys in it",
                    root.display()
                ),
            ));
        }
        Ok(Self {
            root,
            captured: true,
        })
    }

    /// Whether it is a captured tree.
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.captured
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, path: &str) -> Result<Vec<u8>, Missing> {
        fs::read(self.at(path)).map_err(|error| missing(path, &error))
    }

    /// The text of a file, without the space around it.
    pub(super) fn text(&self, path: &str) -> Result<String, Missing> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// The last part of what a link points to.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.at(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }

    /// The names in a folder, in order; none if it is not there.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).into_iter().flatten();
        let mut names: Vec<_> = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Whether something has that name.
    pub(super) fn has(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The folder that a path is, links followed, and those above it, the nearest first, as paths in
    /// this tree.
    pub(super) fn ancestors(&self, path: &str) -> Vec<String> {
        let Ok(real) = self.at(path).canonicalize() else {
            return Vec::new();
        };
        let Ok(inside) = real.strip_prefix(&self.root) else {
            return Vec::new();
        };
        let is_named =
            |path: &&Path| matches!(path.components().next(), Some(Component::Normal(_)));
        let paths = inside.ancestors().take_while(is_named);
        paths.map(|p| format!("/{}", p.display())).collect()
    }
}

fn missing(path: &str, error: &io::Error) -> Missing {
    let why = match error.kind() {
        io::ErrorKind::NotFound => "not there".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    };
    Missing {
        source: path.into(),
        why,
    }
}
