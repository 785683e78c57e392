//! Deadlines of calls: a client says how long it waits, and after that the call is over here as well.
//! What it has put into the log by then takes effect nevertheless.
//!
//! Only the time until an answer begins is measured: a stream goes on as long as its client listens.

use std::time::Duration;

use axum::http::{HeaderMap, Response};
use quorate_kv::KvError;
use tokio::time::Instant;
use tonic::body::Body;

use crate::status;

/// Timers are about as exact as this; by so much this one is ahead of the client's, which may have less to say.
const AHEAD: Duration = Duration::from_millis(3);

/// Ends a call that came at `begun` when its client has stopped to wait for it, after `limit`.
pub(crate) async fn kept(
    begun: Instant,
    limit: Option<Duration>,
    answer: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let Some(limit) = limit else { return answer.await };
    let until = begun.checked_add(limit.saturating_sub(AHEAD));
    let Some(until) = until else { return answer.await };
    match tokio::time::timeout_at(until, answer).await {
        Ok(response) => response,
        Err(_) => status::of_kv(KvError::DeadlineExceeded).into_http(),
    }
}

/// How long the client waits. One that cannot be read is none.
pub(crate) fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits, says the protocol.
    if number.is_empty() || 8 < number.len() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn limits_are_read_as_the_protocol_writes_them() {
        for (text, want) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("3M", Some(Duration::from_secs(180))),
            ("7S", Some(Duration::from_secs(7))),
            ("250m", Some(Duration::from_millis(250))),
            ("250000u", Some(Duration::from_millis(250))),
            ("5000000n", Some(Duration::from_millis(5))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("7", None),
            ("-7S", None),
            ("+7S", None),
            ("7s", None),
            ("123456789S", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(limit(&headers), want, "{text:?}");
        }
        assert_eq!(limit(&HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_bytes(b"\xff\xffS").unwrap());
        assert_eq!(limit(&headers), None, "no text");
    }
}
