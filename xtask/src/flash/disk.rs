//! A disk image with one FAT32 partition, written and read back.
//!
//! Main functions: [`write`] and [`read`]. The file system is the work of `fatfs`; the partition table is one entry of
//! sixteen bytes in the old format (MBR), which every boot ROM knows. Blocks that hold nothing are not written, so the
//! file is sparse where the host's file system allows it.

use std::fs::{self, File as HostFile};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use fscommon::{BufStream, StreamSlice};

use super::File;

/// Below it there is room for boot loaders: i.MX 8M has its own from 32 KiB on, Layerscape's firmware ends at 16 MiB.
const PARTITION: u64 = 16 << 20;
const SECTOR: u64 = 512;
/// The smallest partition. FAT32 has a least number of clusters; it is kept with a wide margin.
const SMALLEST: u64 = 128 << 20;
/// Partition type: FAT32, addressed by sectors.
const FAT32_LBA: u8 = 0x0c;
/// Where the table is within the first sector, and where in an entry type, beginning and length are.
const TABLE: usize = 446;
const TYPE: usize = 4;
const BEGIN: usize = 8;
const LENGTH: usize = 12;

/// Writes `files` into the root directory of a new disk image.
pub(super) fn write(image: &Path, files: &[File]) -> Result<()> {
    let contents: usize = files.iter().map(|file| file.contents.len()).sum();
    // Twice the contents: guests can be replaced by larger ones without a new image.
    let length = (2 * contents as u64).next_multiple_of(1 << 20).max(SMALLEST);
    if let Some(directory) = image.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    // Never a device: a mistyped name must not cost a disk.
    if image.exists() && !image.is_file() {
        bail!("{} is no file: write the image to a file first, then copy it with `dd`", image.display());
    }
    let cannot = || format!("cannot write {}", image.display());
    let mut disk = HostFile::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(image)
        .with_context(cannot)?;
    disk.set_len(PARTITION + length).with_context(cannot)?;
    disk.write_all(&boot_sector(length)?).with_context(cannot)?;
    fill(&disk, length, files).with_context(cannot)
}

/// The files in the root directory of the first partition of a disk image.
pub(crate) fn read(image: &Path) -> Result<Vec<File>> {
    let mut disk = HostFile::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let mut sector = [0; SECTOR as usize];
    disk.read_exact(&mut sector)?;
    ensure!(sector.ends_with(&[0x55, 0xaa]), "{} has no partition table", image.display());
    let word = |at: usize| sector.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let begin = word(TABLE + BEGIN).map_or(0, |begin| u64::from(begin) * SECTOR);
    let length = word(TABLE + LENGTH).map_or(0, |length| u64::from(length) * SECTOR);
    let partition = StreamSlice::new(disk, begin, begin + length)?;
    let volume = FileSystem::new(BufStream::new(partition), FsOptions::new())?;
    let mut files = Vec::new();
    for entry in volume.root_dir().iter() {
        let entry = entry?;
        if !entry.is_file() {
            continue;
        }
        let mut file = File::new(&entry.file_name(), []);
        entry.to_file().read_to_end(&mut file.contents)?;
        files.push(file);
    }
    Ok(files)
}

/// The first sector: one partition of `length` bytes, and the mark that there is a table.
fn boot_sector(length: u64) -> Result<[u8; SECTOR as usize]> {
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).context("the files are too large for a card");
    let mut entry = [0; 16];
    // Cylinders, heads and sectors are of the past: all ones say that they don't fit.
    entry[1..TYPE].fill(0xff);
    entry[TYPE] = FAT32_LBA;
    entry[TYPE + 1..BEGIN].fill(0xff);
    entry[BEGIN..LENGTH].copy_from_slice(&sectors(PARTITION)?.to_le_bytes());
    entry[LENGTH..].copy_from_slice(&sectors(length)?.to_le_bytes());
    let mut sector = [0; SECTOR as usize];
    sector[TABLE..TABLE + entry.len()].copy_from_slice(&entry);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}

fn fill(disk: &HostFile, length: u64, files: &[File]) -> Result<()> {
    let mut partition = BufStream::new(StreamSlice::new(disk, PARTITION, PARTITION + length)?);
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).volume_label(*b"ENTRESOL   ");
    fatfs::format_volume(&mut partition, options)?;
    partition.seek(SeekFrom::Start(0))?;
    let volume = FileSystem::new(partition, FsOptions::new())?;
    for File { name, contents } in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(contents)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env::temp_dir;
    use std::fs;
    use std::path::Path;
    use std::process;

    use super::{File, boot_sector, read, write};

    #[test]
    fn files_are_read_back_as_they_were_written() {
        let image = temp_dir().join(format!("entresol-disk-{}.img", process::id()));
        let files = [File::new("kernel8.img", vec![7; 300_000]), File::new("cmdline.txt", "one line\n")];
        write(&image, &files).expect("temporary directory");
        let found = read(&image);
        fs::remove_file(&image).expect("was written");
        assert_eq!(found.expect("a disk"), files);
    }

    #[test]
    fn table_has_one_partition_from_16_mib_on() {
        let sector = boot_sector(128 << 20).expect("small");
        assert_eq!(sector[446..462], [0, 255, 255, 255, 12, 255, 255, 255, 0, 128, 0, 0, 0, 0, 4, 0]);
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }

    #[test]
    fn device_is_not_written_to() {
        let refusal = write(Path::new("/dev/null"), &[]).expect_err("no file");
        assert!(refusal.to_string().contains("dd"));
    }
}
