//! Downloads: from a commit's list of files to a snapshot in the cache.

use crate::client::{Client, Hash, POOLING, RemoteFile, Repository};
use crate::{Cache, HubError, ModelId};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Progress of a download.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The file at work.
    pub file: &'a str,
    /// Bytes that are there, over all files.
    pub done: u64,
    /// Bytes of all files.
    pub total: u64,
}

/// Connections in a row that may break off without having brought anything.
const MAX_BARREN: u32 = 4;
/// Pause before the next connection, doubled with each barren one.
const PAUSE: Duration = Duration::from_millis(200);

/// True for files that a model is run from.
fn is_needed(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "model.safetensors.index.json",
        "chat_template.jinja",
        "chat_template.json",
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
    ];
    NAMES.contains(&name) || name == POOLING || name.starts_with("tokenizer") || is_weights(name)
}

/// True for a file of weights. Some repositories hold them a second time under another name, such as `consolidated.safetensors`.
fn is_weights(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors")
}

/// Downloads the files that a model needs and links them; the revision's name is written last.
pub(crate) fn snapshot(
    client: &Client,
    cache: &Cache,
    id: &ModelId,
    repository: &Repository,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, HubError> {
    let files: Vec<&RemoteFile> = repository.files.iter().filter(|file| is_needed(&file.name)).collect();
    let lacks = |wanted: fn(&str) -> bool| !files.iter().any(|file| wanted(&file.name));
    if lacks(|name| name == "config.json") {
        return Err(HubError::NoModel { id: id.clone(), missing: "config.json" });
    }
    if lacks(is_weights) {
        return Err(HubError::NoModel { id: id.clone(), missing: "model*.safetensors" });
    }
    // Sizes are claims; their sum is only shown.
    let total = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
    let mut before = 0u64;
    for file in files {
        let transfer = Transfer { client, id, commit: &repository.commit, file };
        let mut report = |bytes| progress(Progress { file: &file.name, done: before.saturating_add(bytes), total });
        transfer.run(cache, &mut report)?;
        before = before.saturating_add(file.size);
    }
    cache.set_ref(id, &repository.commit)?;
    Ok(cache.snapshot_dir(id, &repository.commit))
}

/// Download of one file.
struct Transfer<'a> {
    client: &'a Client,
    id: &'a ModelId,
    commit: &'a str,
    file: &'a RemoteFile,
}

impl Transfer<'_> {
    /// Brings the file's content into `blobs`, unless it is there, and links it into the snapshot.
    fn run(&self, cache: &Cache, report: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let blob = cache.blob(self.id, self.file.hash.hex());
        // Another process may be downloading the same file: wait for it, then find it done.
        let _lock = cache.lock(self.id, self.file.hash.hex())?;
        let there = blob.metadata().is_ok_and(|meta| meta.len() == self.file.size);
        if !there {
            let incomplete = blob.with_extension("incomplete");
            self.fetch(&incomplete, report)?;
            self.verify(&incomplete)?;
            std::fs::rename(&incomplete, &blob).map_err(HubError::io(&blob))?;
        }
        report(self.file.size);
        cache.link(self.id, self.commit, &self.file.name, self.file.hash.hex())
    }

    /// Appends to `path` until it is as long as the file. What it holds already is kept.
    fn fetch(&self, path: &Path, report: &mut dyn FnMut(u64)) -> Result<(), HubError> {
        let mut out = OpenOptions::new().create(true).append(true).open(path).map_err(HubError::io(path))?;
        let mut length = out.metadata().map_err(HubError::io(path))?.len();
        let mut barren = 0;
        while length != self.file.size {
            if length > self.file.size {
                length = self.truncate(&out, path)?;
            }
            let (before, result) = (length, self.append(&mut out, path, &mut length, report));
            match result {
                Ok(()) => {}
                // The rest is asked for again, as long as some of it comes.
                Err(HubError::Network { url, reason }) => {
                    barren = if length > before { 0 } else { barren + 1 };
                    if barren == MAX_BARREN {
                        return Err(HubError::Network { url, reason });
                    }
                    tracing::debug!(url, reason, length, "the download broke off");
                    std::thread::sleep(PAUSE * (1 << barren));
                }
                Err(error) => return Err(error),
            }
        }
        out.sync_all().map_err(HubError::io(path))
    }

    /// Appends what one connection delivers.
    fn append(
        &self,
        out: &mut File,
        path: &Path,
        length: &mut u64,
        report: &mut dyn FnMut(u64),
    ) -> Result<(), HubError> {
        let (start, mut body) = self.client.file(self.id, self.commit, &self.file.name, *length)?;
        if start != *length {
            *length = self.truncate(out, path)?;
        }
        let url = || self.client.file_url(self.id, self.commit, &self.file.name);
        let mut buffer = vec![0; 1 << 18];
        loop {
            report(*length);
            let count = match body.read(&mut buffer) {
                Ok(0) if *length < self.file.size => {
                    return Err(HubError::Network { url: url(), reason: "the connection was closed early".into() });
                }
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) => return Err(HubError::Network { url: url(), reason: error.to_string() }),
            };
            *length += count as u64;
            if *length > self.file.size {
                let (expected, found) = (format!("{} bytes", self.file.size), "more".to_owned());
                return Err(self.damaged(path, expected, found));
            }
            out.write_all(&buffer[..count]).map_err(HubError::io(path))?;
        }
    }

    fn truncate(&self, out: &File, path: &Path) -> Result<u64, HubError> {
        out.set_len(0).map_err(HubError::io(path))?;
        Ok(0)
    }

    /// Compares the content's hash with the one that the hub gave.
    fn verify(&self, path: &Path) -> Result<(), HubError> {
        let found = match &self.file.hash {
            Hash::Sha256(_) => digest(Sha256::new(), path),
            Hash::Git(_) => digest(Sha1::new().chain_update(format!("blob {}\0", self.file.size)), path),
        };
        let found = found.map_err(HubError::io(path))?;
        if found.eq_ignore_ascii_case(self.file.hash.hex()) {
            return Ok(());
        }
        Err(self.damaged(path, self.file.hash.hex().to_owned(), found))
    }

    fn damaged(&self, path: &Path, expected: String, found: String) -> HubError {
        // If it cannot be deleted, the next attempt overwrites it or says why not.
        let _ = std::fs::remove_file(path);
        HubError::Damaged { id: self.id.clone(), file: self.file.name.clone(), expected, found }
    }
}

fn digest<D: Digest>(mut digest: D, path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&buffer[..count]),
        }
    }
}
