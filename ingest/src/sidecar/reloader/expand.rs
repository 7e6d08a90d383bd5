//! `$(VAR)` in a configuration, which may be packed with gzip, becomes what the environment says.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// What a file packed with gzip begins with.
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
/// The most bytes of a configuration.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// Writes `input`, unpacked and with variables replaced, to `output`, which is there before or after but
/// never in part. Also the number of variables that are not set, which is an error.
pub(super) fn write(input: &Path, output: &Path) -> (Result<(), String>, usize) {
    let text = match read(input) {
        Ok(text) => text,
        Err(why) => return (Err(format!("{}: {why}", input.display())), 0),
    };
    let (text, unset) = expand(&text, |name| std::env::var_os(name).map(into_bytes));
    if let Some(name) = unset.first() {
        let why = format!("found reference to unset environment variable {name:?}");
        return (Err(format!("{}: {why}", input.display())), unset.len());
    }
    let mut temporary = output.as_os_str().to_owned();
    temporary.push(".tmp");
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, output));
    let written = written.map_err(|why| {
        // What is left of it says nothing.
        let _gone = fs::remove_file(&temporary);
        format!("{}: {why}", output.display())
    });
    (written, 0)
}

fn into_bytes(text: std::ffi::OsString) -> Vec<u8> {
    text.into_encoded_bytes()
}

fn read(input: &Path) -> Result<Vec<u8>, String> {
    let bytes = fs::read(input).map_err(|why| why.to_string())?;
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut text = Vec::new();
    let unpacked = MultiGzDecoder::new(bytes.as_slice());
    let read = unpacked.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text);
    read.map_err(|why| why.to_string())?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(format!("more than {CONFIG_BYTES_MAX} bytes when unpacked"));
    }
    Ok(text)
}

/// The text with variables replaced, and the names of those that are not set.
fn expand(text: &[u8], value: impl Fn(&str) -> Option<Vec<u8>>) -> (Vec<u8>, Vec<String>) {
    let mut out = Vec::with_capacity(text.len());
    let mut unset = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        match variable(rest) {
            Some((name, after)) => {
                match value(name) {
                    Some(value) => out.extend(value),
                    None => unset.push(name.to_owned()),
                }
                rest = after;
            }
            None => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    (out, unset)
}

/// The variable that a text begins with, and what follows.
fn variable(text: &[u8]) -> Option<(&str, &[u8])> {
    let inner = text.strip_prefix(b"$(")?;
    let end = inner.iter().position(|byte| *byte == b')')?;
    let (name, after) = inner.split_at_checked(end)?;
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if name.is_empty() || !name.iter().all(good) {
        return None;
    }
    Some((std::str::from_utf8(name).ok()?, after.get(1..)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn variables() {
        let check = |text: &str, expected: &str, missing: &[&str]| {
            let known = |name: &str| (name == "A_1").then(|| b"x".to_vec());
            let (out, unset) = expand(text.as_bytes(), known);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{text}");
            assert_eq!(unset, missing, "{text}");
        };
        check("a: $(A_1)$(A_1)!", "a: xx!", &[]);
        check(
            "$A_1 ${A_1} $() $(A-1) $(A_1",
            "$A_1 ${A_1} $() $(A-1) $(A_1",
            &[],
        );
        check("$(B)$(A_1)$(C)", "x", &["B", "C"]);
        check("$$(A_1)", "$x", &[]);
    }

    #[test]
    fn plain_and_packed() {
        let dir = std::env::temp_dir().join(format!("isobar-expand-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a directory");
        let (input, output) = (dir.join("in"), dir.join("out"));
        let path = std::env::var("PATH").expect("a path");
        let expected = format!("a: {path}\n");
        fs::write(&input, "a: $(PATH)\n").expect("written");
        write(&input, &output).0.expect("plain");
        assert_eq!(fs::read_to_string(&output).expect("read"), expected);
        let mut packer = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(b"b: $(PATH)\n").expect("packed");
        fs::write(&input, packer.finish().expect("packed")).expect("written");
        write(&input, &output).0.expect("packed");
        let packed = fs::read_to_string(&output).expect("read");
        assert_eq!(packed, expected.replace("a:", "b:"));
        fs::write(&input, "$(NOT_SET_ANYWHERE)").expect("written");
        let (result, unset) = write(&input, &output);
        assert_eq!(unset, 1);
        assert!(result.expect_err("unset").contains("NOT_SET_ANYWHERE"));
        assert_eq!(fs::read_to_string(&output).expect("read"), packed);
        fs::remove_dir_all(&dir).expect("removed");
    }
}
