//! One file of the converted checkpoint: written, read back, and only then given its name.

use crate::error::ConvertError;
use crate::layout::{Item, Matrix, head};
use crate::quantize::{Packed, quantize};
use crc32fast::Hasher;
use mlx_serving_checkpoint::Checkpoint;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of the source that a thread takes at a time.
const PIECE: usize = 4 << 20;

/// Writes a file whose name is `path`; `read` is told how many bytes of the source were read.
pub(crate) fn write(
    source: &Checkpoint,
    items: &[Item],
    path: &Path,
    threads: usize,
    read: &mut dyn FnMut(u64),
) -> Result<(), ConvertError> {
    let part = path.with_extension("part");
    let failed = |e| ConvertError::write(&part, e);
    let head = head(items.iter().flat_map(|item| &item.outputs));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&part).map_err(failed)?;
    file.write_all(&head).map_err(failed)?;
    let (mut place, mut sums) = (head.len() as u64, Vec::new());
    for item in items {
        let mut tensors: Vec<Tensor> = item
            .outputs
            .iter()
            .map(|output| {
                let tensor = Tensor { place, sum: Hasher::new() };
                place += output.bytes;
                tensor
            })
            .collect();
        let mut write = |number: usize, bytes: &[u8]| tensors[number].append(&mut file, bytes).map_err(failed);
        match &item.matrix {
            Some(matrix) => packed(source, item, matrix, threads, &mut write, read)?,
            None => copied(source, item, &mut write, read)?,
        }
        sums.extend(tensors.into_iter().map(|tensor| tensor.sum.finalize()));
    }
    file.sync_all().map_err(failed)?;
    read_back(&mut file, head.len() as u64, items, &sums, &part)?;
    std::fs::rename(&part, path).map_err(failed)
}

/// A tensor that is being written: the place of its next byte, and the checksum of those before.
struct Tensor {
    place: u64,
    sum: Hasher,
}

impl Tensor {
    fn append(&mut self, file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
        file.seek(SeekFrom::Start(self.place))?;
        file.write_all(bytes)?;
        self.sum.update(bytes);
        self.place += bytes.len() as u64;
        Ok(())
    }
}

type Append<'a> = dyn FnMut(usize, &[u8]) -> Result<(), ConvertError> + 'a;

fn copied(
    source: &Checkpoint,
    item: &Item,
    write: &mut Append<'_>,
    read: &mut dyn FnMut(u64),
) -> Result<(), ConvertError> {
    let mut piece = vec![0; PIECE.min(item.bytes as usize)];
    for offset in (0..item.bytes).step_by(PIECE) {
        let piece = &mut piece[..(item.bytes - offset).min(PIECE as u64) as usize];
        source.read(&item.source, offset, piece)?;
        write(0, piece)?;
        read(piece.len() as u64);
    }
    Ok(())
}

fn packed(
    source: &Checkpoint,
    item: &Item,
    matrix: &Matrix,
    threads: usize,
    write: &mut Append<'_>,
    read: &mut dyn FnMut(u64),
) -> Result<(), ConvertError> {
    let row = matrix.cols * matrix.float.size();
    // Whole rows, at least one for each thread.
    let each = (PIECE / row).max(1);
    let mut bytes = vec![0; row * (each * threads).min(matrix.rows)];
    for first in (0..matrix.rows).step_by(each * threads) {
        let bytes = &mut bytes[..row * (matrix.rows - first).min(each * threads)];
        source.read(&item.source, (first * row) as u64, bytes)?;
        let parts: Vec<Option<Packed>> = std::thread::scope(|scope| {
            let work = |piece| scope.spawn(move || quantize(matrix.format, &matrix.float.widen(piece), matrix.float));
            let threads: Vec<_> = bytes.chunks(each * row).map(work).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(None)).collect()
        });
        for part in parts {
            let part = part.ok_or_else(|| ConvertError::NotFinite { module: matrix.module.clone() })?;
            for (number, bytes) in [part.values, part.scales, part.biases].iter().enumerate() {
                if !bytes.is_empty() {
                    write(number, bytes)?;
                }
            }
        }
        read(bytes.len() as u64);
    }
    Ok(())
}

/// Compares every tensor's checksum with what the file has.
fn read_back(file: &mut File, start: u64, items: &[Item], sums: &[u32], path: &Path) -> Result<(), ConvertError> {
    let failed = |e| ConvertError::write(path, e);
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut piece = vec![0; PIECE];
    for (output, sum) in items.iter().flat_map(|item| &item.outputs).zip(sums) {
        let (mut left, mut found) = (output.bytes, Hasher::new());
        while left > 0 {
            let piece = &mut piece[..left.min(PIECE as u64) as usize];
            file.read_exact(piece).map_err(failed)?;
            found.update(piece);
            left -= piece.len() as u64;
        }
        if found.finalize() != *sum {
            return Err(ConvertError::Differs { path: path.to_owned(), tensor: output.name.clone() });
        }
    }
    Ok(())
}
