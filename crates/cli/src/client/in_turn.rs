//! The members one at a time, for what lasts: each is asked until it is lost, then the next that can be
//! reached.

use std::time::Duration;

use quorate_proto::tonic::metadata::MetadataValue;
use quorate_proto::tonic::transport::Channel;
use quorate_proto::tonic::{Code, Request, Status};

use super::endpoints::{NOT_FOR_LEARNERS, Target};
use super::error::{CliError, said_by};
use crate::tell;

/// When no member could go on, they are asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// Who is asked now, and who would be next.
#[derive(Clone, Debug)]
pub(super) struct InTurn {
    members: Vec<Target>,
    at: usize,
    channel: Channel,
    /// Whether the member has told anything.
    was_told: bool,
    /// That members are lost one after the other, none of which has told anything, is said once.
    has_warned: bool,
}

impl InTurn {
    /// Begins with the first member that can be reached.
    ///
    /// # Errors
    ///
    /// None can be.
    pub(super) async fn begin(target: &Target) -> Result<InTurn, CliError> {
        let members: Vec<Target> = target.one_by_one().collect();
        let mut unreachable = Vec::new();
        for (at, member) in members.iter().enumerate() {
            match member.connect_watched().await {
                Ok(channel) => {
                    let (was_told, has_warned) = (false, false);
                    return Ok(InTurn { members, at, channel, was_told, has_warned });
                }
                Err(CliError::Unreachable(why)) => unreachable.push(why),
                Err(error) => return Err(error),
            }
        }
        Err(CliError::Unreachable(unreachable.join("; ")))
    }

    /// How many members there are to ask; at least one.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1)
    }

    /// The connection to the member whose turn it is.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A stream's request. A member that has lost the others is to say so if there are others to ask.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if 1 < self.members.len() {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        request
    }

    /// Whether another member may do better, as etcd's clients judge it, or this one in a while.
    pub(super) fn may_go_on(&self, status: &Status) -> bool {
        let is_lost = std::error::Error::source(status).is_some();
        let has_no_vote = status.message() == NOT_FOR_LEARNERS && 1 < self.members.len();
        is_lost || has_no_vote || matches!(status.code(), Code::Unavailable | Code::Internal)
    }

    /// Why the member is lost, if another one may do better.
    ///
    /// # Errors
    ///
    /// What no other one would do better.
    pub(super) fn lost(&self, status: Status) -> Result<String, CliError> {
        match self.may_go_on(&status) {
            true => Ok(said_by(&status)),
            false => Err(status.into()),
        }
    }

    /// The member has told something.
    pub(super) fn on_answer(&mut self) {
        (self.was_told, self.has_warned) = (true, false);
    }

    /// Says on standard error that the member is lost, unless that is so since the last one was.
    pub(super) fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            let name = self.members[self.at].names().next().unwrap_or_default();
            let next = match self.members.len() {
                1 => "trying again",
                _ => "trying the next one",
            };
            tell::etcdctl_warning(&format!("{name}: {why}; {next}"));
        }
    }

    /// Goes on to the next member that can be reached, at some time: at once if the last one has told
    /// anything.
    pub(super) async fn go_on(&mut self) {
        if !std::mem::take(&mut self.was_told) {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
        loop {
            let count = self.members.len();
            for at in (1..=count).map(|step| (self.at + step) % count) {
                if let Ok(channel) = self.members[at].connect_watched().await {
                    (self.at, self.channel) = (at, channel);
                    return;
                }
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
