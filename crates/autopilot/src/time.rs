//! Moments and spans of time, as text and as numbers. Nothing here knows what time it is.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

const NANOS_A_SECOND: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01 in the Gregorian calendar.
const DAYS_TO_1970: i64 = 719_468;
const DAYS_IN_400_YEARS: i64 = 146_097;

/// A moment, to the nanosecond, with the offset from UTC it was written with.
///
/// Two moments are equal when they are the same instant, whatever their offsets; the offset is only
/// kept so that a moment prints as it was read. The default is `0001-01-01T00:00:00Z`.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    /// Since 1970-01-01T00:00:00Z.
    seconds: i64,
    nanos: u32,
    offset_minutes: i16,
}

impl Time {
    /// `seconds` and `nanos` after 1970-01-01T00:00:00Z, in UTC.
    ///
    /// Moments before the year 0 or after 9999 become the first or last that can be printed.
    pub fn from_unix(seconds: i64, nanos: u32) -> Time {
        let first = days_from_civil(0, 1, 1) * SECONDS_A_DAY;
        let last = (days_from_civil(9999, 12, 31) + 1) * SECONDS_A_DAY - 1;
        let extra = i64::from(nanos) / NANOS_A_SECOND;
        let seconds = seconds.saturating_add(extra).clamp(first, last);
        Time { seconds, nanos: nanos % 1_000_000_000, offset_minutes: 0 }
    }

    /// How long after `earlier` this is; negative if it is before. Saturates at about 292 years.
    pub fn since(self, earlier: Time) -> Span {
        let nanos = self.unix_nanos() - earlier.unix_nanos();
        Span(nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
    }

    /// This moment moved by `span`, with its offset.
    #[must_use]
    pub fn plus(self, span: Span) -> Time {
        let nanos = self.unix_nanos() + i128::from(span.0);
        let seconds = nanos.div_euclid(i128::from(NANOS_A_SECOND)) as i64;
        let moved = Time::from_unix(seconds, nanos.rem_euclid(i128::from(NANOS_A_SECOND)) as u32);
        Time { offset_minutes: self.offset_minutes, ..moved }
    }

    fn unix_nanos(self) -> i128 {
        i128::from(self.seconds) * i128::from(NANOS_A_SECOND) + i128::from(self.nanos)
    }
}

impl Default for Time {
    fn default() -> Time {
        Time::from_unix(days_from_civil(1, 1, 1) * SECONDS_A_DAY, 0)
    }
}

impl PartialEq for Time {
    fn eq(&self, other: &Time) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, other: &Time) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Time {
    fn cmp(&self, other: &Time) -> Ordering {
        (self.seconds, self.nanos).cmp(&(other.seconds, other.nanos))
    }
}

/// RFC 3339: a fraction only where there is one, without trailing zeros; an offset of zero as `Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.seconds + i64::from(self.offset_minutes) * 60;
        let (year, month, day) = civil_from_days(local.div_euclid(SECONDS_A_DAY));
        let second = local.rem_euclid(SECONDS_A_DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if self.nanos != 0 {
            write!(f, ".{}", format!("{:09}", self.nanos).trim_end_matches('0'))?;
        }
        match self.offset_minutes {
            0 => f.write_str("Z"),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60)
            }
        }
    }
}

/// Why a text is no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time as in 2020-11-02T15:00:00.12+01:00")]
pub struct NotATime;

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Time, NotATime> {
        parse_time(text.as_bytes()).ok_or(NotATime)
    }
}

fn parse_time(text: &[u8]) -> Option<Time> {
    let (date_and_time, rest) = text.split_at_checked(19)?;
    for (position, want) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
        if date_and_time[position] != want {
            return None;
        }
    }
    let year = number(&date_and_time[..4], 9999)?;
    let month = number(&date_and_time[5..7], 12).filter(|month| *month != 0)?;
    let day = number(&date_and_time[8..10], days_in(year, month)).filter(|day| *day != 0)?;
    let hour = number(&date_and_time[11..13], 23)?;
    let minute = number(&date_and_time[14..16], 59)?;
    let second = number(&date_and_time[17..19], 59)?;

    let (nanos, zone) = match rest.strip_prefix(b".") {
        None => (0, rest),
        Some(rest) => {
            let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, zone) = rest.split_at(length);
            if !(1..=9).contains(&length) {
                return None;
            }
            let scale = 10_i64.pow(9 - length as u32);
            (number(digits, i64::MAX)? * scale, zone)
        }
    };
    let offset_minutes = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hours @ .., b':', tens, ones] if hours.len() == 2 => {
            let minutes = number(hours, 23)? * 60 + number(&[*tens, *ones], 59)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let local =
        days_from_civil(year, month, day) * SECONDS_A_DAY + hour * 3600 + minute * 60 + second;
    Some(Time {
        seconds: local - offset_minutes * 60,
        nanos: nanos as u32,
        offset_minutes: offset_minutes as i16,
    })
}

/// Digits and nothing else, up to `most`.
fn number(digits: &[u8], most: i64) -> Option<i64> {
    let mut number = 0_i64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    (number <= most).then_some(number)
}

fn days_in(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

// Both directions count years from March on, so that the leap day is the last of its year.

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_IN_400_YEARS + day_of_era - DAYS_TO_1970
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_1970;
    let (era, day_of_era) =
        (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// A length of time in nanoseconds; may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub i64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// So many milliseconds. Saturates.
    pub const fn from_millis(millis: i64) -> Span {
        Span(millis.saturating_mul(1_000_000))
    }

    /// So many seconds. Saturates.
    pub const fn from_secs(seconds: i64) -> Span {
        Span(seconds.saturating_mul(NANOS_A_SECOND))
    }

    /// So many times this span. Saturates.
    #[must_use]
    pub const fn times(self, factor: i64) -> Span {
        Span(self.0.saturating_mul(factor))
    }

    /// Both together. Saturates.
    #[must_use]
    pub const fn plus(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }

    /// Whether this is less than nothing.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }
}

/// As Go writes durations: `200ms`, `1m30s`, `1.5s`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        let part = |f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str| {
            let (whole, rest) = (nanos / unit, nanos % unit);
            let width = unit.ilog10() as usize;
            match rest {
                0 => write!(f, "{whole}{name}"),
                _ => {
                    let digits = format!("{rest:0width$}");
                    write!(f, "{whole}.{}{name}", digits.trim_end_matches('0'))
                }
            }
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => part(f, nanos, 1, "ns"),
            1_000..1_000_000 => part(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => part(f, nanos, 1_000_000, "ms"),
            _ => {
                let (minutes, rest) = (nanos / 60_000_000_000, nanos % 60_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => {}
                    (0, minutes) => write!(f, "{minutes}m")?,
                    (hours, minutes) => write!(f, "{hours}h{minutes}m")?,
                }
                part(f, rest, 1_000_000_000, "s")
            }
        }
    }
}

/// Why a text is no length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration as in 200ms, 10s or 1h30m")]
pub struct NotASpan;

/// As Go reads durations: numbers with units `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`, one after another.
impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Span, NotASpan> {
        let (sign, mut rest) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (if text.starts_with('-') { -1 } else { 1 }, rest),
            None => (1, text),
        };
        if rest == "0" {
            return Ok(Span::ZERO);
        }
        if rest.is_empty() {
            return Err(NotASpan);
        }
        let mut total = 0_i128;
        while !rest.is_empty() {
            let end = rest.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or(NotASpan)?;
            let (number, tail) = rest.split_at(end);
            let unit_end = tail.find(|c: char| c == '.' || c.is_ascii_digit());
            let (unit, tail) = tail.split_at(unit_end.unwrap_or(tail.len()));
            let unit: i128 = match unit {
                "ns" => 1,
                "us" | "µs" | "μs" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000,
                _ => return Err(NotASpan),
            };
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            // Fifteen digits of either cannot overflow, and are more than any duration has.
            if whole.is_empty() && fraction.is_empty() || 15 < whole.len() || 15 < fraction.len() {
                return Err(NotASpan);
            }
            let digits = |text: &str| match text {
                "" => Ok(0),
                text => text.parse::<i128>().map_err(|_| NotASpan),
            };
            total += digits(whole)? * unit;
            total += digits(fraction)? * unit / 10_i128.pow(fraction.len() as u32);
            rest = tail;
        }
        i64::try_from(total * sign).map(Span).map_err(|_| NotASpan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_they_were_read() {
        for (text, want) in [
            ("2020-11-02T15:00:00Z", "2020-11-02T15:00:00Z"),
            ("2020-11-02T15:00:00.120+01:00", "2020-11-02T15:00:00.12+01:00"),
            ("2020-11-02T15:00:00.000000000-23:59", "2020-11-02T15:00:00-23:59"),
            ("2020-11-02T15:00:00.000000001Z", "2020-11-02T15:00:00.000000001Z"),
            ("2020-11-02T15:00:00+00:00", "2020-11-02T15:00:00Z"),
            ("2020-11-02T15:00:00-00:00", "2020-11-02T15:00:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("0000-01-01T00:00:00+14:00", "0000-01-01T00:00:00+14:00"),
            ("9999-12-31T23:59:59.999999999-12:00", "9999-12-31T23:59:59.999999999-12:00"),
            ("2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"),
            ("2024-02-29T23:59:59+05:30", "2024-02-29T23:59:59+05:30"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.5Z"),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), want, "{text}");
        }
        assert_eq!(Time::default().to_string(), "0001-01-01T00:00:00Z");
        assert_eq!(Time::from_unix(1_604_329_200, 5).to_string(), "2020-11-02T15:00:00.000000005Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2020-11-02",
            "2020-11-02 15:00:00Z",
            "2020-11-02t15:00:00Z",
            "2020-11-02T15:00:00z",
            "2020-11-02T15:00:00",
            "2020-11-02T15:00Z",
            "2020-13-02T15:00:00Z",
            "2020-00-02T15:00:00Z",
            "2021-02-29T15:00:00Z",
            "1900-02-29T15:00:00Z",
            "2020-11-31T15:00:00Z",
            "2020-11-00T15:00:00Z",
            "2020-11-02T24:00:00Z",
            "2020-11-02T15:60:00Z",
            "2020-11-02T15:00:60Z",
            "2020-11-02T15:00:00.Z",
            "2020-11-02T15:00:00.1234567890Z",
            "2020-11-02T15:00:00,5Z",
            "2020-11-02T15:00:00+24:00",
            "2020-11-02T15:00:00+01:60",
            "2020-11-02T15:00:00+0100",
            "2020-11-02T15:00:00+1:00",
            "2020-11-02T15:00:00Zx",
            "20a0-11-02T15:00:00Z",
            "+020-11-02T15:00:00Z",
            "2020-11-02T15:00:0\u{e9}Z",
        ] {
            assert_eq!(text.parse::<Time>(), Err(NotATime), "{text}");
        }
    }

    #[test]
    fn every_day_has_one_date() {
        let first = days_from_civil(0, 1, 1);
        let (mut date, mut count) = ((0, 1, 0), 0);
        for days in first..=days_from_civil(9999, 12, 31) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!(date < (year, month, day) && day <= days_in(year, month), "{date:?}");
            date = (year, month, day);
            count += 1;
        }
        assert_eq!(count, 25 * DAYS_IN_400_YEARS);
    }

    #[test]
    fn moments_are_compared_across_offsets_and_saturate() {
        let time = |text: &str| text.parse::<Time>().unwrap();
        let noon = time("2020-11-02T12:00:00Z");
        assert_eq!(time("2020-11-02T13:00:00+01:00"), noon);
        assert!(noon < time("2020-11-02T12:00:00.000000001Z"));
        assert_eq!(time("2020-11-02T14:00:01+01:00").since(noon), Span::from_secs(3601));
        assert_eq!(noon.since(Time::default()), Span(i64::MAX));
        assert_eq!(Time::default().since(noon), Span(i64::MIN));
        let moved = time("2020-12-31T23:59:59.9+01:00").plus(Span::from_millis(200));
        assert_eq!(moved.to_string(), "2021-01-01T00:00:00.1+01:00");
        assert_eq!(noon.plus(Span::from_secs(-1)).since(noon), Span::from_secs(-1));
        let last = time("9999-12-31T23:59:59Z").plus(Span::from_secs(5));
        assert_eq!(last.to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn spans_are_read_and_written_as_go_does() {
        for (text, nanos, want) in [
            ("0", 0, "0s"),
            ("200ms", 200_000_000, "200ms"),
            ("10s", 10_000_000_000, "10s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("1h0m0.25s", 3_600_250_000_000, "1h0m0.25s"),
            ("-3us", -3_000, "-3µs"),
            ("1500ns", 1_500, "1.5µs"),
            (".5ms", 500_000, "500µs"),
        ] {
            assert_eq!(text.parse(), Ok(Span(nanos)), "{text}");
            assert_eq!(Span(nanos).to_string(), want);
            assert_eq!(want.parse(), Ok(Span(nanos)), "{want}");
        }
        for text in ["", "-", "10", "s", "1x", "1s2", ".s", "1..5s", "1e3s", "9223372037s", " 1s"] {
            assert_eq!(text.parse::<Span>(), Err(NotASpan), "{text}");
        }
    }
}
