//! From the words of a command line to the interval of keys that they mean.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;

use super::error::CliError;

/// The end of an interval that has none.
const NO_END: &[u8] = b"\0";

/// Which keys a command is about.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KeyArgs {
    /// The key, or the first of a range
    key: OsString,
    /// The end of the range, which is not in it
    range_end: Option<OsString>,
    /// All keys that begin with the key
    #[arg(long)]
    prefix: bool,
    /// All keys from the key on
    #[arg(long)]
    from_key: bool,
}

impl KeyArgs {
    /// The interval as a request has it: first key and end.
    ///
    /// # Errors
    ///
    /// Two of the three ways to say where the interval ends.
    pub(super) fn interval(&self) -> Result<(Bytes, Bytes), CliError> {
        interval(&self.key, self.range_end.as_ref(), self.prefix, self.from_key)
    }
}

/// The interval of these words: first key and end.
///
/// # Errors
///
/// Two of the three ways to say where the interval ends.
pub(super) fn interval(
    key: &OsString,
    range_end: Option<&OsString>,
    prefix: bool,
    from_key: bool,
) -> Result<(Bytes, Bytes), CliError> {
    if prefix && from_key {
        return Err(CliError::Arguments(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one".to_owned(),
        ));
    }
    if (prefix || from_key) && range_end.is_some() {
        return Err(CliError::Arguments(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"
                .to_owned(),
        ));
    }
    let key = bytes(key);
    if !prefix && !from_key {
        return Ok((key, range_end.map(bytes).unwrap_or_default()));
    }
    // An interval of all keys starts at the first key there can be, not at an empty one.
    let first = if key.is_empty() { Bytes::from_static(NO_END) } else { key.clone() };
    match prefix {
        true => Ok((first, prefix_end(&key))),
        false => Ok((first, Bytes::from_static(NO_END))),
    }
}

/// The words of a command line are bytes; so are keys and values.
pub(super) fn bytes(word: &OsString) -> Bytes {
    word.clone().into_vec().into()
}

/// The first key after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(NO_END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        for (prefix, want) in [
            (&b"a"[..], &b"b"[..]),
            (b"ab", b"ac"),
            (b"a\xff", b"b"),
            (b"a\xff\xff", b"b"),
            (b"\xff", b"\0"),
            (b"", b"\0"),
        ] {
            assert_eq!(prefix_end(prefix), want, "{prefix:?}");
        }
    }

    #[test]
    fn intervals_are_what_etcdctl_asks_for() {
        for (key, end, prefix, from_key, want) in [
            ("a", None, false, false, Some(("a", ""))),
            ("a", Some("c"), false, false, Some(("a", "c"))),
            ("a", None, true, false, Some(("a", "b"))),
            ("a", None, false, true, Some(("a", "\0"))),
            ("", None, true, false, Some(("\0", "\0"))),
            ("", None, false, true, Some(("\0", "\0"))),
            ("", None, false, false, Some(("", ""))),
            ("a", None, true, true, None),
            ("a", Some("b"), true, false, None),
            ("a", Some("b"), false, true, None),
        ] {
            let args =
                KeyArgs { key: key.into(), range_end: end.map(Into::into), prefix, from_key };
            let found = args.interval().ok();
            let want = want.map(|(key, end)| (Bytes::from(key), Bytes::from(end)));
            assert_eq!(found, want, "{args:?}");
        }
    }
}
