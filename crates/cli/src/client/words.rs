//! Lines of a transaction as words. A word that begins with a quote ends at the next one, and holds
//! in double quotes what Go's escapes mean: `"a b"`, `"\x00\n"`. Single quotes escape nothing.

/// The words of a line, as bytes: an escape may stand for any byte.
///
/// # Errors
///
/// A quote that is not closed, or an escape that means nothing.
pub(super) fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let (word, after) = match first {
            b'"' | b'\'' => quoted(rest)?,
            _ => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                (rest[..end].to_vec(), &rest[end..])
            }
        };
        words.push(word);
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

/// What stands between the quote at the beginning and the one that closes it, and the rest.
///
/// # Errors
///
/// No quote at the beginning, none that closes it, or an escape that means nothing.
pub(super) fn quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), &'static str> {
    const OPEN: &str = "a quote is not closed";
    let (quote, mut rest) = match text.split_first() {
        Some((quote @ (b'"' | b'\''), rest)) => (*quote, rest),
        _ => return Err("a quote is missing"),
    };
    let mut word = Vec::new();
    loop {
        let (&byte, after) = rest.split_first().ok_or(OPEN)?;
        rest = after;
        match byte {
            _ if byte == quote => return Ok((word, rest)),
            b'\\' if quote == b'"' => rest = unescape(rest, &mut word)?,
            _ => word.push(byte),
        }
    }
}

/// What an escape after its backslash means; returns what follows it.
fn unescape<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    const UNKNOWN: &str = "an escape means nothing";
    let (&kind, rest) = text.split_first().ok_or(UNKNOWN)?;
    let byte = match kind {
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'\\' | b'"' => kind,
        b'x' => {
            let (number, rest) = number(rest, 2, 16).ok_or(UNKNOWN)?;
            word.push(u8::try_from(number).map_err(|_| UNKNOWN)?);
            return Ok(rest);
        }
        b'0'..=b'7' => {
            let (number, rest) = number(text, 3, 8).ok_or(UNKNOWN)?;
            word.push(u8::try_from(number).map_err(|_| UNKNOWN)?);
            return Ok(rest);
        }
        b'u' | b'U' => {
            let digits = if kind == b'u' { 4 } else { 8 };
            let (number, rest) = number(rest, digits, 16).ok_or(UNKNOWN)?;
            let letter = char::from_u32(number).ok_or(UNKNOWN)?;
            word.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(rest);
        }
        _ => return Err(UNKNOWN),
    };
    word.push(byte);
    Ok(rest)
}

/// A number of so many digits, and what follows it.
fn number(text: &[u8], digits: usize, radix: u32) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(digits)?;
    let number = digits.iter().try_fold(0u32, |number, digit| {
        let digit = char::from(*digit).to_digit(radix)?;
        number.checked_mul(radix)?.checked_add(digit)
    })?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fall_into_words() {
        for (line, want) in [
            ("put a b", Some(&["put", "a", "b"][..])),
            ("  put \t a  ", Some(&["put", "a"])),
            ("", Some(&[])),
            (r#"put "a b" 'c "d'"#, Some(&["put", "a b", "c \"d"])),
            (r#"put "" ''"#, Some(&["put", "", ""])),
            (r#"put "a"b"#, Some(&["put", "a", "b"])),
            (r#"put c"d e""#, Some(&["put", "c\"d", "e\""])),
            (r#"put "\"\\\n\t\x41\102\u0043\U00000044" "#, Some(&["put", "\"\\\n\tABCD"])),
            (r#"put 'a\n'"#, Some(&["put", "a\\n"])),
            (r#"put a\n"#, Some(&["put", "a\\n"])),
            (r#"put "a"#, None),
            (r#"put 'a"#, None),
            (r#"put "a\"#, None),
            (r#"put "\q""#, None),
            (r#"put "\x4""#, None),
            (r#"put "\777""#, None),
            (r#"put "\ud800""#, None),
        ] {
            let found = words(line.as_bytes()).ok();
            let want = want.map(|words| words.iter().map(|w| w.as_bytes().to_vec()).collect());
            assert_eq!(found, want, "{line:?}");
        }
        assert_eq!(words(br#""\xff\x00""#), Ok(vec![vec![0xff, 0]]));
        assert_eq!(words(b"\xff"), Ok(vec![vec![0xff]]));
    }
}
