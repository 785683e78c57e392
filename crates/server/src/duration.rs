//! Spans of time as Go writes them, since that is what etcd's flags take: `5s`, `1m30s`, `1.5h`.

use std::time::Duration;

const UNITS: &[(&str, f64)] = &[
    // The longer of two units with one beginning comes first.
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// Reads a span of time.
///
/// # Errors
///
/// Says what is wrong with the text: a number without a unit, above all.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("a duration is needed, such as 5s or 500ms".to_owned());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let number: f64 =
            number.parse().map_err(|_| format!("{text:?} is no duration such as 5s or 500ms"))?;
        let unit = UNITS.iter().find(|(unit, _)| after.starts_with(unit));
        let Some((unit, factor)) = unit else {
            return Err(format!("{text:?} lacks a unit: ns, us, ms, s, m or h"));
        };
        seconds += number * factor;
        rest = &after[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, want) in [
            ("5s", Ok(5_000_000)),
            ("1m30s", Ok(90_000_000)),
            ("1.5s", Ok(1_500_000)),
            ("250ms", Ok(250_000)),
            ("7us", Ok(7)),
            ("7µs", Ok(7)),
            ("1h", Ok(3_600_000_000)),
            ("0", Ok(0)),
            ("0s", Ok(0)),
            (".5s", Ok(500_000)),
            ("", Err(())),
            ("5", Err(())),
            ("s", Err(())),
            ("-5s", Err(())),
            ("5 s", Err(())),
            ("1..5s", Err(())),
            ("5x", Err(())),
            ("99999999999999999999999h", Err(())),
        ] {
            let found = parse_duration(text).map(|span| span.as_micros()).map_err(|_| ());
            assert_eq!(found, want, "{text:?}");
        }
    }
}
