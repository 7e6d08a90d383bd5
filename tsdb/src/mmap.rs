//! Files as shared bytes, mapped into memory. The only file of the crate with `unsafe`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::Error;

/// A file mapped into memory.
#[derive(Debug, Clone)]
pub struct Mapped {
    bytes: Bytes,
    /// Empty files are not mapped.
    map: Option<Arc<memmap2::Mmap>>,
}

/// Lets shared bytes keep the map alive.
struct Owner(Arc<memmap2::Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Maps a file. It must not be changed in place while it is mapped.
    ///
    /// # Errors
    /// When the file cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
        let len = file
            .metadata()
            .map_err(|e| Error::io("read size of", path, e))?
            .len();
        if len == 0 {
            let bytes = Bytes::new();
            return Ok(Mapped { bytes, map: None });
        }
        #[expect(unsafe_code, reason = "mapping a file is unsafe, see below")]
        // SAFETY: the map is read-only and private to this process' view of the file. Blocks and
        // chunk files are immutable: they are written, synced and only then mapped, and deleted by
        // unlinking, which leaves existing maps intact. Nobody truncates or rewrites them in place;
        // who does so from outside gets a SIGBUS or torn bytes, and all decoders bear torn bytes.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
        let map = Arc::new(map);
        Ok(Mapped {
            bytes: Bytes::from_owner(Owner(Arc::clone(&map))),
            map: Some(map),
        })
    }

    /// The content. Slices of it are zero-copy and keep the map alive.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Takes the pages that were read out of the process' memory; who reads them again finds them
    /// in the page cache.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn release_pages(&self) -> std::io::Result<()> {
        let Some(map) = &self.map else {
            return Ok(());
        };
        #[expect(
            unsafe_code,
            reason = "advice that may change content is unsafe, see below"
        )]
        // SAFETY: the map is shared and of a file that never changes: dropped pages are read again
        // from it with the same content.
        unsafe {
            map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed)
        }
    }
}

/// The content of a file. Slices of it are zero-copy and keep the map alive. The file must not
/// be changed in place while it is mapped; files of a block never are, they are replaced.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn map_file(path: &Path) -> Result<Bytes, Error> {
    Ok(Mapped::open(path)?.bytes)
}
