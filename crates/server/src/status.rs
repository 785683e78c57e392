//! etcd's words for what went wrong: which text and code a client gets for which failure.
//!
//! Clients compare texts byte by byte and then look at the code, so both are facts of
//! [`KvError`], and everything else is translated into one of those here. `Unavailable` says "may
//! work in a moment, or at another member"; what a client has to mend itself never gets that code.

use axum::http::HeaderMap;
use quorate_kv::KvError;
use quorate_runtime::{ProposeError, ReadError, ReadFailure, Refusal};
use tonic::{Code, Status};

/// An answer of the machine as a gRPC status.
pub(crate) fn of_kv(error: KvError) -> Status {
    let code = i32::try_from(error.code()).map_or(Code::Unknown, Code::from_i32);
    Status::new(code, error.message())
}

/// A proposal without an answer. `timeout` is what a missing answer is put down to.
pub(crate) fn of_propose(error: &ProposeError, timeout: KvError) -> Status {
    of_kv(match error {
        ProposeError::Refused(refusal) => match refusal {
            Refusal::NoLeader => timeout,
            Refusal::Busy => KvError::RequestTooManyRequests,
            Refusal::TooLarge { .. } => KvError::RequestTooLarge,
            Refusal::Transferring | Refusal::Superseded => KvError::LeaderChanged,
            Refusal::Removed => KvError::Stopped,
            _ => KvError::Unhealthy,
        },
        ProposeError::Timeout => timeout,
        ProposeError::Stopped => KvError::Stopped,
        ProposeError::NotLeader => KvError::NotLeader,
        // etcd's word for a member that has no room left; clients do not try it again at once.
        ProposeError::DiskFull => KvError::NoSpace,
        _ => KvError::Unhealthy,
    })
}

/// A read that was not confirmed. `timeout` is what a missing answer is put down to.
pub(crate) fn of_read(error: &ReadError, timeout: KvError) -> Status {
    of_kv(match error {
        ReadError::Failed(ReadFailure::LeaderChanged) => KvError::LeaderChanged,
        ReadError::Failed(ReadFailure::Busy) => KvError::RequestTooManyRequests,
        ReadError::Timeout | ReadError::Failed(ReadFailure::NoLeader) => timeout,
        ReadError::Stopped => KvError::Stopped,
        _ => KvError::Unhealthy,
    })
}

/// Whether a member has said it. Anything else says that the way to it was lost.
pub(crate) fn is_said(error: &Status) -> bool {
    error.message().starts_with("etcdserver: ")
}

/// What the gRPC library answers to a message over its limit, in etcd's words. `None` for any other
/// answer.
pub(crate) fn of_too_long_message(headers: &HeaderMap) -> Option<Status> {
    // Cheap for all other answers: nearly none has a status before its end.
    headers.get("grpc-status").filter(|code| code.as_bytes() == b"11")?;
    let status = Status::from_header_map(headers)?;
    let rest = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    )))
}

/// What the gRPC library answers, without a word, for a method that a service does not have, in the
/// words of etcd's. `None` for any other answer.
pub(crate) fn of_unknown_method(headers: &HeaderMap, path: &str) -> Option<Status> {
    headers.get("grpc-status").filter(|code| code.as_bytes() == b"12")?;
    if headers.contains_key("grpc-message") {
        return None;
    }
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    Some(Status::unimplemented(format!("unknown method {method} for service {service}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_text_and_code() {
        for error in KvError::ALL {
            let status = of_kv(*error);
            assert_eq!(status.message(), error.message());
            assert_eq!(u32::try_from(status.code() as i32), Ok(error.code()));
        }
        assert_eq!(of_kv(KvError::Compacted).code(), Code::OutOfRange);
        assert_eq!(of_kv(KvError::EmptyKey).code(), Code::InvalidArgument);
    }

    #[test]
    fn failures_of_proposals_have_etcds_words() {
        let too_large = Refusal::TooLarge { bytes: 2, bytes_max: 1 };
        for (error, code, text) in [
            (ProposeError::Timeout, Code::Unavailable, "etcdserver: request timed out"),
            (ProposeError::Stopped, Code::Unavailable, "etcdserver: server stopped"),
            (Refusal::NoLeader.into(), Code::Unavailable, "etcdserver: request timed out"),
            (
                ProposeError::DiskFull,
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
            ),
            (Refusal::Busy.into(), Code::ResourceExhausted, "etcdserver: too many requests"),
            (too_large.into(), Code::InvalidArgument, "etcdserver: request is too large"),
            (Refusal::Transferring.into(), Code::Unavailable, "etcdserver: leader changed"),
            (Refusal::Superseded.into(), Code::Unavailable, "etcdserver: leader changed"),
            (Refusal::Removed.into(), Code::Unavailable, "etcdserver: server stopped"),
        ] {
            let status = of_propose(&error, KvError::Timeout);
            assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
        }
    }

    #[test]
    fn failures_of_reads_have_etcds_words() {
        for (error, code, text) in [
            (ReadFailure::LeaderChanged.into(), Code::Unavailable, "etcdserver: leader changed"),
            (ReadFailure::Busy.into(), Code::ResourceExhausted, "etcdserver: too many requests"),
            (
                ReadError::Timeout,
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to connection lost",
            ),
            (ReadError::Stopped, Code::Unavailable, "etcdserver: server stopped"),
        ] {
            let status = of_read(&error, KvError::TimeoutDueToConnectionLost);
            assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_as_etcd_refuses_it() {
        let headers = |status: Status| status.into_http::<()>().into_parts().0.headers;
        let ours = Status::out_of_range(
            "Error, decoded message length too large: found 3000000 bytes, the limit is: 2097152 \
             bytes",
        );
        let status = of_too_long_message(&headers(ours)).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (3000000 vs. 2097152)"
        );
        for other in [of_kv(KvError::Compacted), Status::ok(""), of_kv(KvError::NoSpace)] {
            assert!(of_too_long_message(&headers(other)).is_none());
        }
        assert!(of_too_long_message(&HeaderMap::new()).is_none());
    }
}
