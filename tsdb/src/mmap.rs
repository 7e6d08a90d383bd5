//! Files as shared bytes, mapped into memory. The only file of the crate with `unsafe`.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::Error;

/// The content of a file. Slices of it are zero-copy and keep the map alive. The file must not
/// be changed in place while it is mapped; files of a block never are, they are replaced.
///
/// # Errors
/// When the file cannot be opened or mapped.
pub fn map_file(path: &Path) -> Result<Bytes, Error> {
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let len = file
        .metadata()
        .map_err(|e| Error::io("read size of", path, e))?
        .len();
    if len == 0 {
        return Ok(Bytes::new());
    }
    #[expect(unsafe_code, reason = "mapping a file is unsafe, see below")]
    // SAFETY: the map is read-only and private to this process' view of the file. Blocks are
    // immutable: they are written under a temporary name, renamed when complete, and deleted by
    // unlinking, which leaves existing maps intact. Nobody truncates or rewrites them in place;
    // who does so from outside gets a SIGBUS or torn bytes, and all decoders bear torn bytes.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io("map", path, e))?;
    Ok(Bytes::from_owner(map))
}
