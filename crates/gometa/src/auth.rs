//! Who may connect: gometa's `ClientAuthFunction` and `ServerAuthFunction`.
//!
//! Both run on a fresh connection, before a byte of it reaches the engine, within
//! [`auth_timeout_ms`](crate::SiteConfig::auth_timeout_ms); an error closes the connection. They
//! hold for voters and watchers alike. What they exchange is not encrypted here.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;

use bytes::Bytes;
use quorate_zab::{Command, Message, Op};

use crate::{Messages, MsgFactory, Pipe, PipeError};

/// What the two functions return: they may wait.
pub type AuthFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, AuthError>> + Send + 'a>>;

/// Why a connection is not admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The other side refused, or is refused.
    #[error("not admitted: {0}")]
    Refused(String),
    /// The connection failed.
    #[error(transparent)]
    Pipe(#[from] PipeError),
}

/// Introduces this node to a leader it has connected to. gometa's `ClientAuthFunction`.
pub trait ClientAuth: Send + Sync + 'static {
    /// May exchange any messages; afterwards the protocol begins.
    fn authenticate<'a>(&'a self, pipe: &'a mut Pipe) -> AuthFuture<'a, ()>;
}

/// Admits those who connect, or not. gometa's `ServerAuthFunction`.
pub trait ServerAuth: Send + Sync + 'static {
    /// May exchange any messages. One that it has received and returns is taken as the learner's
    /// first message; with nothing the protocol begins with the next one.
    fn authenticate<'a>(&'a self, pipe: &'a mut Pipe) -> AuthFuture<'a, Option<Message>>;
}

/// The key of an authentication request.
const AUTH_KEY: &str = "auth request";

/// gometa's name for an answer that is nobody's.
const AUTH_FID: &str = "1";

/// A name and a password, exchanged as Couchbase's index service does: a Request with an operation
/// of the application's own, the key `auth request` and `{"user":…,"pass":…}`; the answer is a
/// Response with `{"code":n}`. For both sides.
#[derive(Clone)]
pub struct PasswordAuth {
    /// The operation that stands for an authentication; above [`Op::CUSTOM`].
    pub op: Op,
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
    /// Whether a learner that introduces itself without a word about it is admitted.
    pub admits_others: bool,
}

/// Without the password.
impl std::fmt::Debug for PasswordAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PasswordAuth { op, user, admits_others, .. } = self;
        let mut shown = f.debug_struct("PasswordAuth");
        shown.field("op", op).field("user", user).field("admits_others", admits_others);
        shown.finish_non_exhaustive()
    }
}

/// Codes of an answer: those of HTTP.
const ADMITTED: u64 = 200;
const REFUSED: u64 = 401;

impl PasswordAuth {
    fn content(&self) -> Bytes {
        let content = serde_json::json!({ "user": self.user, "pass": self.password });
        content.to_string().into()
    }

    fn admits(&self, content: &[u8]) -> bool {
        let Ok(content) = serde_json::from_slice::<serde_json::Value>(content) else {
            return false;
        };
        let text = |key: &str| content[key].as_str().unwrap_or_default().to_owned();
        // All bytes are compared whatever the first ones are.
        is_same(text("user").as_bytes(), self.user.as_bytes())
            & is_same(text("pass").as_bytes(), self.password.as_bytes())
    }
}

fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |found, (a, b)| found | (a ^ b));
    one.len() == other.len() && differences == 0
}

impl ClientAuth for PasswordAuth {
    fn authenticate<'a>(&'a self, pipe: &'a mut Pipe) -> AuthFuture<'a, ()> {
        Box::pin(async move {
            let id = RandomState::new().hash_one(0);
            let command = Command { op: self.op, key: AUTH_KEY.into(), content: self.content() };
            pipe.send(&Messages.create_request(id, command)).await?;
            match pipe.receive().await? {
                Message::Response { error, .. } if error.is_empty() => Ok(()),
                Message::Response { error, .. } => Err(AuthError::Refused(error)),
                other => Err(AuthError::Refused(format!(
                    "{} in answer to an authentication",
                    other.message_type().name()
                ))),
            }
        })
    }
}

impl ServerAuth for PasswordAuth {
    fn authenticate<'a>(&'a self, pipe: &'a mut Pipe) -> AuthFuture<'a, Option<Message>> {
        Box::pin(async move {
            let request = match pipe.receive().await? {
                Message::Request(request) => request,
                message @ Message::FollowerInfo(_) if self.admits_others => {
                    return Ok(Some(message));
                }
                other => {
                    let name = other.message_type().name();
                    return Err(AuthError::Refused(format!("{name} without authentication")));
                }
            };
            let is_auth = request.command.op == self.op && &*request.command.key == AUTH_KEY;
            let is_admitted = is_auth && self.admits(&request.command.content);
            let (code, error) = match is_admitted {
                true => (ADMITTED, ""),
                false => (REFUSED, "authentication failed"),
            };
            let content = serde_json::json!({ "code": code }).to_string();
            let answer =
                Messages.create_response(AUTH_FID, request.id, error, Some(content.into()));
            pipe.send(&answer).await?;
            match is_admitted {
                true => Ok(None),
                false => Err(AuthError::Refused("wrong name or password".to_owned())),
            }
        })
    }
}
