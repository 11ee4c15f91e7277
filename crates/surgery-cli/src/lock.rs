//! Locks between processes, each of which a file stands for.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Locks the file `path`, which is made where it is missing, for as long as what is returned lives; none where another
/// process has the lock.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => return Ok(Some(file)),
            // Whoever had the lock has removed the file since it was opened here: this lock keeps nobody out.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Locks the file `path` as [`try_lock`] does, but waits for another process that has the lock, and says so with `wait`.
/// A file system that cannot lock is no reason to give up.
pub fn lock(path: &Path, wait: impl Fn()) -> io::Result<File> {
    loop {
        let file = File::create(path)?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            wait();
            file.lock()?;
        }
        if is_at(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether the name `path` stands for this open file, and not for none or one that was made since. Where a system does
/// not tell, it is believed.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
    #[cfg(not(unix))]
    {
        let _ = (file, path);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Everybody removes the file before the lock is let go of, as an output folder does.
    #[test]
    fn a_lock_whose_file_is_removed_is_never_had_twice() {
        let path = std::env::temp_dir().join(format!("surgery-lock-{}", std::process::id()));
        let (inside, had) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let enter = |lock: File| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
            had.fetch_add(1, Ordering::SeqCst);
            inside.fetch_sub(1, Ordering::SeqCst);
            fs::remove_file(&path).unwrap();
            drop(lock);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| try_lock(&path).unwrap().into_iter().for_each(enter)));
                scope.spawn(|| (0..500).for_each(|_| enter(lock(&path, || {}).unwrap())));
            }
        });
        assert!(had.into_inner() >= 4 * 500);
    }
}
