//! Kernels as they are packaged, to kernels as the boot protocol wants them.
//!
//! Main function: [`uncompressed`]. EL2 has no business unpacking what the host can unpack once.

use std::borrow::Cow;
use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use flate2::read::GzDecoder;

/// `kernel` without its compression, if it has one that is known here: gzip, or gzip inside the EFI self-extracting form
/// (`drivers/firmware/efi/libstub/zboot-header.S`: "zimg" at 4, offset and size of the payload at 8, its kind at 24).
/// Everything else comes back as it is, for whoever reads kernels to judge.
pub(crate) fn uncompressed(kernel: Vec<u8>) -> Result<Vec<u8>> {
    if kernel.starts_with(&[0x1f, 0x8b]) {
        gunzip(&kernel)
    } else if kernel.get(4..8) == Some(b"zimg") {
        match text(kernel.get(24..56).unwrap_or_default()) {
            kind if kind == "gzip" => {
                gunzip(payload(&kernel).context("the kernel's EFI payload is cut short")?)
            }
            kind => bail!("the kernel is compressed with {kind} inside its EFI form: unpack it first"),
        }
    } else {
        Ok(kernel)
    }
}

fn payload(kernel: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| {
        let bytes: [u8; 4] = kernel.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (offset, size) = (word(8)?, word(12)?);
    kernel.get(offset..offset.checked_add(size)?)
}

fn gunzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).context("cannot decompress the kernel")?;
    Ok(plain)
}

/// The text before the first NUL.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::uncompressed;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn anything_else_comes_back_as_it_is() {
        assert_eq!(uncompressed(b"\x7fELF".to_vec()).expect("valid"), b"\x7fELF");
    }

    #[test]
    fn gzip_is_decompressed() {
        assert_eq!(uncompressed(gzip(b"kernel")).expect("valid"), b"kernel");
    }

    #[test]
    fn damaged_gzip_is_refused() {
        assert!(uncompressed(gzip(b"kernel")[..12].to_vec()).is_err());
    }

    #[test]
    fn self_extracting_image_is_decompressed() {
        let payload = gzip(b"kernel");
        let mut kernel = vec![0; 64];
        kernel[4..8].copy_from_slice(b"zimg");
        kernel[8..12].copy_from_slice(&64_u32.to_le_bytes());
        kernel[12..16].copy_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        kernel[24..28].copy_from_slice(b"gzip");
        kernel.extend(payload);
        assert_eq!(uncompressed(kernel).expect("valid"), b"kernel");
    }
}
