//! Downloads from the hub into the cache: files are written under temporary names, verified, synced and renamed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use surgery_core::checkpoint::{COMPANIONS, INDEX, SINGLE, TEMPLATES, weight_files};
use surgery_core::files::{Folder, create_parent, rename, temporary, write_atomically, write_text};
use surgery_core::{Error, Result};

use super::client::{Client, Described, Trouble};
use super::{CONFIG, Hub, Name, Snapshot, TOKENIZER, folder_name, is_commit, is_plain};
use crate::lock::lock;
use crate::terminal::Log;
use surgery_core::files::file_in_folder;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// The download of one model.
pub struct Download<'a> {
    client: Client<'a>,
    name: &'a Name,
    repository: PathBuf,
    locks: PathBuf,
    log: Log,
}

impl<'a> Download<'a> {
    /// A download. Sends and writes nothing yet.
    pub fn new(hub: &'a Hub, name: &'a Name, log: Log) -> Result<Self> {
        let locks = hub.cache.join(".locks").join(folder_name(name));
        Ok(Self { client: Client::new(hub, name, log)?, name, repository: hub.repository(name), locks, log })
    }

    /// Downloads the files that the cache lacks. config.json is stored last, so a folder with one is complete.
    pub fn run(&self) -> Result<Snapshot> {
        let revision = &self.name.revision;
        let config = self.required(revision, CONFIG)?;
        // A branch may move in the meantime; all files must be from one commit.
        let commit = &config.commit;
        let folder = self.repository.join("snapshots").join(commit);
        self.store(&self.required(commit, TOKENIZER)?, &folder)?;
        for file in COMPANIONS.into_iter().filter(|file| ![CONFIG, TOKENIZER].contains(file)) {
            if let Some(described) = self.client.describe(commit, file)? {
                self.store(&described, &folder)?;
            }
        }
        for file in self.templates(commit)? {
            self.store(&self.required(commit, &file)?, &folder)?;
        }
        match self.client.describe(commit, SINGLE)? {
            Some(single) => self.store(&single, &folder)?,
            None => {
                let index = self.client.describe(commit, INDEX)?.ok_or_else(|| {
                    self.missing(
                        &format!("{SINGLE} nor {INDEX}"),
                        "a model whose weights are safetensors files",
                    )
                })?;
                self.store(&index, &folder)?;
                for shard in weight_files(&Folder::Disk(folder.clone()))? {
                    self.store(&self.required(commit, &shard)?, &folder)?;
                }
            }
        }
        self.store(&config, &folder)?;
        if !is_commit(revision) {
            let path = self.repository.join("refs").join(revision);
            create_parent(&path)?;
            let _lock = self.lock("refs", revision)?;
            write_text(&path, commit)?;
        }
        Ok(Snapshot { folder, commit: commit.clone() })
    }

    /// The additional chat templates of the model. Names other than plain file names are left out.
    fn templates(&self, commit: &str) -> Result<Vec<String>> {
        let (templates, others): (Vec<_>, Vec<_>) = self
            .client
            .list(commit, TEMPLATES)?
            .into_iter()
            .filter(|path| path.ends_with(".jinja"))
            .partition(|path| {
                let name = path.strip_prefix(TEMPLATES).and_then(|rest| rest.strip_prefix('/'));
                name.is_some_and(is_plain)
            });
        for path in others {
            self.log.warn(&format!("{}: {path:?} is left out: it is not a plain file name", self.name));
        }
        Ok(templates)
    }

    fn required(&self, revision: &str, file: &str) -> Result<Described> {
        let described = self.client.describe(revision, file)?;
        described.ok_or_else(|| self.missing(file, "an existing repository and revision with a model"))
    }

    fn missing(&self, file: &str, expected: &str) -> Error {
        Error::Network {
            what: self.name.to_string(),
            problem: format!("the hub has no {file}"),
            remedy: format!("name {expected}"),
        }
    }

    /// Downloads one file and links it into the snapshot `folder`.
    fn store(&self, file: &Described, folder: &Path) -> Result<()> {
        let link = folder.join(&file.file);
        if has_size(&link, file.size) {
            return Ok(());
        }
        let blob = self.repository.join("blobs").join(&file.etag);
        create_parent(&blob)?;
        create_parent(&link)?;
        let _lock = self.lock(&file.etag, &file.file)?;
        if !has_size(&blob, file.size) {
            self.download(file, &blob)?;
        }
        self.link(&blob, &link, file)
    }

    /// Links the snapshot's file `link` to the content `blob`, replacing an existing one.
    fn link(&self, blob: &Path, link: &Path, file: &Described) -> Result<()> {
        let named = temporary(link);
        // A killed process may have left it.
        if fs::symlink_metadata(&named).is_ok() {
            fs::remove_file(&named).map_err(Error::write(&named))?;
        }
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + file.file.matches('/').count());
            if std::os::unix::fs::symlink(format!("{up}blobs/{}", file.etag), &named).is_ok() {
                return rename(&named, link);
            }
        }
        // Not every file system supports links.
        if fs::hard_link(blob, &named).is_ok() {
            return rename(&named, link);
        }
        let mut content =
            File::open(blob).map_err(|source| Error::Read { path: blob.display().to_string(), source })?;
        write_atomically(link, |writer| std::io::copy(&mut content, writer).map(drop))
    }

    /// Locks a file of the cache while it is written, so that a second process waits and then uses it.
    fn lock(&self, name: &str, what: &str) -> Result<File> {
        let path = self.locks.join(format!("{name}.lock"));
        create_parent(&path)?;
        let wait = || self.log.info(&format!("{what}: waiting for another process that writes it"));
        lock(&path, wait).map_err(Error::write(&path))
    }

    fn download(&self, file: &Described, blob: &Path) -> Result<()> {
        let partial = blob.with_file_name(format!("{}.incomplete", file.etag));
        let bar = self.bar(file);
        let mut longest = 0;
        let outcome = self.client.with_retries(&bar, &file.file, || {
            self.transfer(file, &partial, &bar).map_err(|trouble| match trouble {
                // Only a file longer than ever before is progress. Otherwise a permanently broken position would be
                // retried forever.
                Trouble::Transient { problem, wait, .. } => {
                    let have = fs::metadata(&partial).map_or(0, |metadata| metadata.len());
                    let progress = have > longest;
                    longest = longest.max(have);
                    Trouble::Transient { problem, wait, progress }
                }
                lasting => lasting,
            })
        });
        bar.finish_and_clear();
        outcome?;
        if let Some(expected) = &file.sha256 {
            let (folder, name) = file_in_folder(&partial);
            let found = folder.sha256(&name)?;
            if found != *expected {
                return Err(self.refuse(file, &partial, format!("has SHA-256 {found}, not {expected}")));
            }
        }
        rename(&partial, blob)
    }

    /// Downloads the missing part of a file into `partial`.
    fn transfer(&self, file: &Described, partial: &Path, bar: &ProgressBar) -> Result<(), Trouble> {
        let failed = |source| Trouble::Permanent(Error::Write { path: partial.into(), source });
        let mut output = File::options().create(true).append(true).open(partial).map_err(failed)?;
        let mut have = output.metadata().map_err(failed)?.len();
        if have > file.size {
            output.set_len(0).map_err(failed)?;
            have = 0;
        }
        if have < file.size {
            let (start, mut content) = self.client.content(file, have)?;
            if start != have {
                output.set_len(start).map_err(failed)?;
                have = start;
            }
            let mut buffer = vec![0; CHUNK];
            loop {
                bar.set_position(have);
                let passing = |problem| Trouble::Transient { problem, wait: None, progress: false };
                let count = match content.read(&mut buffer) {
                    Ok(0) if have < file.size => {
                        return Err(passing(format!(
                            "the connection ended at {have} of {} bytes",
                            file.size
                        )));
                    }
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => {
                        return Err(passing(format!(
                            "was interrupted at {have} of {} bytes ({error})",
                            file.size
                        )));
                    }
                };
                have += count as u64;
                if have > file.size {
                    let problem = format!("has more bytes than the {} that the hub announced", file.size);
                    return Err(self.refuse(file, partial, problem).into());
                }
                output.write_all(&buffer[..count]).map_err(failed)?;
            }
        }
        output.sync_all().map_err(failed)
    }

    /// Removes a downloaded file whose content is not what the hub announced.
    fn refuse(&self, file: &Described, partial: &Path, problem: String) -> Error {
        let removed = fs::remove_file(partial);
        Error::Network {
            what: format!("{} of {}", file.file, self.name),
            problem: format!("the downloaded file {problem}"),
            remedy: match removed {
                Ok(()) => "it was removed; try again, and check whether a proxy changes the file".into(),
                Err(error) => format!("remove {} ({error}) and try again", partial.display()),
            },
        }
    }

    fn bar(&self, file: &Described) -> ProgressBar {
        if self.log.prints_lines() {
            self.log.info(&format!("{}: {}", file.file, BinaryBytes(file.size)));
        }
        if !self.log.draws() {
            return ProgressBar::hidden();
        }
        let template = "{prefix:<32} {bar:28} {binary_bytes:>10}/{binary_total_bytes:<10} {eta:>4}";
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        ProgressBar::new(file.size).with_style(style).with_prefix(file.file.clone())
    }
}

fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}
