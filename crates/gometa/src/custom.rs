//! Requests outside the log: the application's own operations, answered by the leader.

use std::future::Future;

use bytes::Bytes;
use quorate_zab::{Address, Request};

/// Answers requests whose operation is above [`Op::CUSTOM`](quorate_zab::Op::CUSTOM), on the node
/// that leads. gometa's `CustomRequestHandler`.
pub trait CustomRequestHandler: Send + Sync {
    /// A request of the node `origin`: none before the leader is established, and none once it gives up
    /// its office. It must not block: the leader waits. To be answered with
    /// [`CustomRequestHandler::next_response`], at most once.
    ///
    /// # Errors
    ///
    /// [`Busy`] when no more can be taken: the origin is told `busy`.
    fn on_new_request(&self, origin: Address, request: Request) -> Result<(), Busy>;

    /// The next answer, in any order; nothing when there will be no more. gometa's
    /// `GetResponseChannel`. The future may be dropped at any time: no answer may be lost by that.
    fn next_response(&self) -> impl Future<Output = Option<CustomResponse>> + Send;
}

/// Too many requests wait already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("busy")]
pub struct Busy;

/// The answer to a request outside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomResponse {
    /// Who asked.
    pub origin: Address,
    /// The request's id there.
    pub request: u64,
    /// Why it failed; empty if it did not.
    pub error: String,
    /// The answer.
    pub content: Option<Bytes>,
}

/// Answers nothing: whoever asks is told so by the leader.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCustomRequests;

impl CustomRequestHandler for NoCustomRequests {
    fn on_new_request(&self, _origin: Address, _request: Request) -> Result<(), Busy> {
        Err(Busy)
    }

    async fn next_response(&self) -> Option<CustomResponse> {
        None
    }
}
