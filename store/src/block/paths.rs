//! The names of a block's objects in a bucket. All of them are relative to the prefix of the
//! bucket's configuration.

use object_store::path::{Path, PathPart};
use ulid::Ulid;

/// The name of a block.
pub type BlockId = Ulid;

/// The file that makes a directory a block.
pub const META: &str = "meta.json";
/// The file with the labels and places of all series.
pub const INDEX: &str = "index";
/// The directory of the chunk segments.
pub const CHUNKS: &str = "chunks";
/// The mark of a block that is going to be deleted.
pub const DELETION_MARK: &str = "deletion-mark.json";
/// The mark of a block that is not to be compacted.
pub const NO_COMPACT_MARK: &str = "no-compact-mark.json";
/// The mark of a block that is not to be downsampled.
pub const NO_DOWNSAMPLE_MARK: &str = "no-downsample-mark.json";

/// The directory of a block.
pub fn directory(block: BlockId) -> Path {
    Path::from_iter([PathPart::from(block.to_string())])
}

/// A file of a block; `name` is relative to the block's directory, with `/` between its parts.
pub fn file(block: BlockId, name: &str) -> Path {
    let block = block.to_string();
    let parts = std::iter::once(block.as_str()).chain(name.split('/'));
    Path::from_iter(parts.filter(|part| !part.is_empty()).map(PathPart::from))
}

/// `<ulid>/meta.json`
pub fn meta(block: BlockId) -> Path {
    file(block, META)
}

/// `<ulid>/index`
pub fn index(block: BlockId) -> Path {
    file(block, INDEX)
}

/// A chunk segment by its number in references to chunks, from 0: `<ulid>/chunks/000001` for 0.
pub fn segment(block: BlockId, number: u32) -> Path {
    file(block, &format!("{CHUNKS}/{:06}", u64::from(number) + 1))
}

/// The block whose directory is called `name`. Only the spelling that we and Thanos write counts.
pub fn parse_directory(name: &str) -> Option<BlockId> {
    let block = Ulid::from_string(name).ok()?;
    (block.to_string() == name).then_some(block)
}

/// The block that an object belongs to, and its name in the block's directory (empty for the
/// directory itself).
pub fn parse(path: &Path) -> Option<(BlockId, &str)> {
    let path = path.as_ref();
    let (directory, name) = path.split_once('/').unwrap_or((path, ""));
    Some((parse_directory(directory)?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ULID: &str = "01M81ZQE8YAM9Z23KC71TDJHDJ";

    #[test]
    fn paths_are_made_and_read() {
        let block = parse_directory(ULID).unwrap();
        assert_eq!(directory(block).as_ref(), ULID);
        assert_eq!(meta(block).as_ref(), format!("{ULID}/meta.json"));
        assert_eq!(index(block).as_ref(), format!("{ULID}/index"));
        assert_eq!(segment(block, 0).as_ref(), format!("{ULID}/chunks/000001"));
        assert_eq!(parse(&segment(block, 41)), Some((block, "chunks/000042")));
        assert_eq!(parse(&directory(block)), Some((block, "")));
    }

    #[test]
    fn what_is_no_block_is_none() {
        for name in [
            "",
            "debug",
            "isobar",
            &ULID.to_lowercase(),
            &ULID[1..],
            "81M81ZQE8YAM9Z23KC71TDJHDJ",
        ] {
            assert_eq!(parse_directory(name), None, "{name}");
        }
        assert_eq!(parse(&Path::from("debug/metas/x.json")), None);
    }
}
