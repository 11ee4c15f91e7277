//! File locks between processes.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

/// Locks the file `path`, creating it if needed, until the returned file is dropped. Returns `None` if another
/// process holds the lock.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path)? => return Ok(Some(file)),
            // The previous holder removed the file after it was opened here: this lock excludes nobody. Try again.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// Locks the file `path` like [`try_lock`], but calls `wait` and waits while another process holds the lock. On a
/// file system without locks, it goes on without one.
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

/// Whether `path` still names this open file, rather than no file or a newer one. Always true on systems other than
/// Unix.
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

    /// Each holder removes the file before it releases the lock, as an output folder does.
    #[test]
    fn a_lock_is_exclusive_although_its_holders_remove_the_file() {
        let path = std::env::temp_dir().join(format!("surgery-lock-{}", std::process::id()));
        let (inside, acquired) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let enter = |lock: File| {
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
            acquired.fetch_add(1, Ordering::SeqCst);
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
        assert!(acquired.into_inner() >= 4 * 500);
    }
}
