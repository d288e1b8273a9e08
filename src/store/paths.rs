//! Paths that arrive by API enter, open files inside the configured roots leave. The kernel resolves each path
//! beneath its root (openat2, RESOLVE_BENEATH), so no symlink and no race leads out.

use std::fs::{File, create_dir_all};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf, absolute};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

/// The folders that paths of the API may lead into.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    folders: Vec<PathBuf>,
    /// Folders in it are made when something is written to them first.
    own: Option<PathBuf>,
}

/// Why a path is refused or a file did not open.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// No folder is configured.
    #[error("files are not allowed: no media folder is configured")]
    NoRoot,
    /// The path has a `..` in it.
    #[error("the path goes up (..): write it without")]
    Parent,
    /// An absolute path outside every root.
    #[error("the path is outside the media folders; allowed are {0}")]
    Outside(String),
    /// A symlink leads out of the root, or is absolute.
    #[error("the path leaves its media folder by a symlink (inside it only relative links are followed)")]
    Leaves,
    /// A folder, device, pipe or socket.
    #[error("the path is not a regular file")]
    NotAFile,
    /// The kernel refused; the file may appear or become readable later.
    #[error("{}: {source}", path.display())]
    Io {
        /// All of it: what is missing or refused.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl PathError {
    /// Whether the same path may open later: only the kernel's refusals change by themselves.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

impl Roots {
    /// Relative paths lead into the first root. A root need not exist yet, and may itself be a symlink: it is
    /// the operator's own word.
    pub fn new(roots: Vec<PathBuf>) -> Self {
        let folders = roots.into_iter().map(|root| absolute(&root).unwrap_or(root)).collect();
        Self { folders, own: None }
    }

    /// The same, where roots in `own`, the engine's own folder, are made when the first file is written there. Others
    /// are not: what is missing there may be a disk that was not mounted.
    pub fn making(self, own: &Path) -> Self {
        Self { own: Some(absolute(own).unwrap_or_else(|_| own.into())), ..self }
    }

    /// Whether a path may be opened at all. A file that does not exist (yet) is no error; one that exists
    /// and is not a regular file is.
    pub fn check(&self, path: &Path) -> Result<(), PathError> {
        match self.open(path, OFlags::PATH) {
            Ok(_) => Ok(()),
            Err(PathError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Opens a regular file for reading.
    pub fn open_read(&self, path: &Path) -> Result<File, PathError> {
        self.open(path, OFlags::RDONLY | GENTLY).map(File::from)
    }

    /// Opens a regular file for writing at its end, and makes it if it is missing: what was recorded before a
    /// restart stays. Its folder must exist.
    pub fn append(&self, path: &Path) -> Result<File, PathError> {
        self.open(path, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | GENTLY).map(File::from)
    }

    /// One spelling for all that name the same place in the same root; links are not looked at.
    pub(super) fn place(&self, path: &Path) -> Option<PathBuf> {
        let (root, inside) = self.locate(path).ok()?;
        Some(root.join(inside).components().collect())
    }

    fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, PathError> {
        let (root, inside) = self.locate(path)?;
        let whole = root.join(inside);
        let makes = flags.contains(OFlags::CREATE);
        let failed = |errno| match whole.parent() {
            // A file that would be made is not what is missing.
            Some(folder) if makes && errno == Errno::NOENT => failed(folder, errno),
            _ => failed(&whole, errno),
        };
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut opened = open(root, folder, Mode::empty());
        if makes
            && matches!(opened, Err(Errno::NOENT))
            && self.own.as_ref().is_some_and(|own| root.starts_with(own))
        {
            create_dir_all(root).map_err(|source| PathError::Io { path: root.into(), source })?;
            opened = open(root, folder, Mode::empty());
        }
        let root = opened.map_err(failed)?;
        let flags = flags | OFlags::CLOEXEC;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o666) } else { Mode::empty() };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed while the kernel walked a link with `..` (openat2(2)).
        let file = (0..ATTEMPTS)
            .map(|_| openat2(&root, inside, flags, mode, resolve))
            .find(|opened| !matches!(opened, Err(Errno::AGAIN)))
            .unwrap_or(Err(Errno::AGAIN))
            .map_err(failed)?;
        let kind = FileType::from_raw_mode(fstat(&file).map_err(failed)?.st_mode);
        if kind == FileType::RegularFile { Ok(file) } else { Err(PathError::NotAFile) }
    }

    /// The root that a path leads into, and what is left of the path behind it.
    fn locate<'a>(&'a self, path: &'a Path) -> Result<(&'a Path, &'a Path), PathError> {
        let first = self.folders.first().ok_or(PathError::NoRoot)?;
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(PathError::Parent);
        }
        if path.is_relative() {
            return Ok((first, path));
        }
        let inside =
            self.folders.iter().filter_map(|root| Some((root.as_path(), path.strip_prefix(root).ok()?)));
        let nearest = inside.min_by_key(|(_, inside)| inside.components().count());
        let (root, inside) = nearest.ok_or_else(|| {
            let allowed: Vec<_> = self.folders.iter().map(|root| root.display().to_string()).collect();
            PathError::Outside(allowed.join(", "))
        })?;
        if inside.as_os_str().is_empty() { Err(PathError::NotAFile) } else { Ok((root, inside)) }
    }
}

fn failed(path: &Path, errno: Errno) -> PathError {
    match errno {
        Errno::XDEV | Errno::LOOP => PathError::Leaves,
        Errno::ISDIR | Errno::NXIO => PathError::NotAFile,
        Errno::NOSYS => {
            let source = io::Error::other("this kernel has no openat2: Linux 5.6 or later is needed");
            PathError::Io { path: path.into(), source }
        }
        _ => PathError::Io { path: path.into(), source: errno.into() },
    }
}

/// A pipe would otherwise hold the caller until its other end opens, a terminal would become ours.
const GENTLY: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);
const ATTEMPTS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs::{create_dir, read, write};
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    /// `media` and `second` are roots, `outside` is not.
    fn folders() -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["media", "media/sub", "second", "outside"] {
            create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["media/clip.ts", "media/sub/clip.ts", "second/clip.ts", "outside/clip.ts"] {
            write(dir.path().join(name), name).unwrap();
        }
        let roots = Roots::new(vec![dir.path().join("media"), dir.path().join("second")]);
        (dir, roots)
    }

    fn text(roots: &Roots, path: impl AsRef<Path>) -> Result<String, PathError> {
        let mut text = String::new();
        roots.check(path.as_ref())?;
        roots.open_read(path.as_ref())?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn paths_inside_the_roots_open() {
        let (dir, roots) = folders();
        assert_eq!(text(&roots, "clip.ts").unwrap(), "media/clip.ts");
        assert_eq!(text(&roots, "./sub/clip.ts").unwrap(), "media/sub/clip.ts");
        assert_eq!(text(&roots, dir.path().join("media/sub/clip.ts")).unwrap(), "media/sub/clip.ts");
        assert_eq!(text(&roots, dir.path().join("second/clip.ts")).unwrap(), "second/clip.ts");
    }

    #[test]
    fn relative_links_inside_a_root_are_followed() {
        let (dir, roots) = folders();
        symlink("../clip.ts", dir.path().join("media/sub/up.ts")).unwrap();
        symlink("sub", dir.path().join("media/folder")).unwrap();
        assert_eq!(text(&roots, "sub/up.ts").unwrap(), "media/clip.ts");
        assert_eq!(text(&roots, "folder/clip.ts").unwrap(), "media/sub/clip.ts");
    }

    #[test]
    fn nothing_leads_out() {
        let (dir, roots) = folders();
        let media = dir.path().join("media");
        symlink("../outside/clip.ts", media.join("relative.ts")).unwrap();
        symlink(dir.path().join("outside/clip.ts"), media.join("absolute.ts")).unwrap();
        symlink("../outside", media.join("folder")).unwrap();
        symlink("/proc/self/root", media.join("magic")).unwrap();
        symlink("around.ts", media.join("around.ts")).unwrap();
        symlink("../outside/new.ts", media.join("dangling.ts")).unwrap();
        for link in
            ["relative.ts", "absolute.ts", "folder/clip.ts", "magic/etc/passwd", "around.ts", "dangling.ts"]
        {
            assert!(matches!(text(&roots, link), Err(PathError::Leaves)), "{link}");
            assert!(matches!(roots.append(link.as_ref()), Err(PathError::Leaves)), "{link}");
        }
        for path in ["../outside/clip.ts", "sub/../../outside/clip.ts", "sub/../clip.ts", "missing/../../x"] {
            assert!(matches!(text(&roots, path), Err(PathError::Parent)), "{path}");
            assert!(matches!(roots.append(path.as_ref()), Err(PathError::Parent)), "{path}");
        }
        for path in
            [dir.path().join("outside/clip.ts"), dir.path().join("media2/clip.ts"), "/etc/passwd".into()]
        {
            assert!(matches!(text(&roots, &path), Err(PathError::Outside(_))), "{path:?}");
            assert!(matches!(roots.append(&path), Err(PathError::Outside(_))), "{path:?}");
        }
        assert_eq!(read(dir.path().join("outside/clip.ts")).unwrap(), b"outside/clip.ts");
        assert!(!dir.path().join("outside/new.ts").exists());
        assert!(matches!(Roots::default().check("clip.ts".as_ref()), Err(PathError::NoRoot)));
    }

    #[test]
    fn only_regular_files_open() {
        let (dir, roots) = folders();
        let media = dir.path().join("media");
        let pipe = media.join("pipe");
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for path in ["sub".as_ref(), media.as_path(), pipe.as_path(), "pipe".as_ref()] {
            assert!(matches!(text(&roots, path), Err(PathError::NotAFile)), "{path:?}");
            assert!(matches!(roots.append(path), Err(PathError::NotAFile)), "{path:?}");
        }
    }

    #[test]
    fn what_was_there_stays() {
        let (dir, roots) = folders();
        for name in ["clip.ts", "new.ts"] {
            let before = read(dir.path().join("media").join(name)).unwrap_or_default();
            roots.append(name.as_ref()).unwrap().write_all(b"x").unwrap();
            assert_eq!(read(dir.path().join("media").join(name)).unwrap(), [&before[..], b"x"].concat());
        }
    }

    #[test]
    fn the_engines_own_folder_is_made_when_something_is_written_there() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("data");
        let roots = Roots::new(vec![own.join("media"), dir.path().join("nas")]).making(&own);
        let missing = |opened: Result<File, PathError>| opened.unwrap_err().to_string();
        let said = missing(roots.open_read("clip.ts".as_ref()));
        assert!(said.starts_with(&own.join("media/clip.ts").display().to_string()), "{said}");
        assert!(!own.exists());
        roots.append("clip.ts".as_ref()).unwrap().write_all(b"x").unwrap();
        assert_eq!(read(own.join("media/clip.ts")).unwrap(), b"x");
        // A folder of the operator's is not made: what would be mounted there is not there.
        let said = missing(roots.append(&dir.path().join("nas/clip.ts")));
        assert!(said.starts_with(&format!("{}: ", dir.path().join("nas").display())), "{said}");
        let said = missing(roots.append("sub/clip.ts".as_ref()));
        assert!(said.starts_with(&format!("{}: ", own.join("media/sub").display())), "{said}");
        symlink(dir.path(), own.join("media/out")).unwrap();
        assert!(matches!(roots.append("out/clip.ts".as_ref()), Err(PathError::Leaves)));
    }

    #[test]
    fn what_is_missing_may_come_later() {
        let (dir, roots) = folders();
        for path in ["later.ts", "later/clip.ts"] {
            roots.check(path.as_ref()).unwrap();
            assert!(matches!(roots.open_read(path.as_ref()), Err(PathError::Io { .. })), "{path}");
        }
        assert!(matches!(roots.append("later/clip.ts".as_ref()), Err(PathError::Io { .. })));
        Roots::new(vec![dir.path().join("unmounted")]).check("clip.ts".as_ref()).unwrap();
        assert!(matches!(roots.check("clip.ts/below".as_ref()), Err(PathError::Io { .. })));
    }
}
