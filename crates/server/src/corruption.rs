//! Whether the members have the same data: the leader compares checksums of their history, taken up to
//! the same revision after the same compaction. Who differs raises the alarm CORRUPT.
//!
//! A member that is behind, or has compacted to another place, is passed over until the next time.

use std::time::Duration;

use quorate_kv::{Alarm, AlarmType, HashKvResponse, Member};
use quorate_proto::etcdserverpb::HashKvRequest;
use quorate_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use crate::local::Local;

/// How long a member may take to answer; a checksum reads every row.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// What one member's history comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    member: u64,
    hash: u32,
    compact_revision: i64,
}

impl Local {
    /// Compares every so often while this member leads; never returns.
    pub(crate) async fn keep_comparing(&self, every: Duration) {
        if every.is_zero() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(every).await;
            if !self.status().is_leader {
                continue;
            }
            match self.compare().await {
                Ok(differing) => self.raise_corrupt(&differing).await,
                Err(error) => {
                    tracing::warn!(reason = error.message(), "members were not compared");
                }
            }
        }
    }

    /// Who differs from the others, as far as can be told: 0 stands for nobody knows who.
    pub(crate) async fn compare(&self) -> Result<Vec<u64>, Status> {
        self.read_barrier().await?;
        let own = self.read(|store| store.hash_kv(0)).await?;
        let me = self.status().node.0;
        let members = self.store().members();
        let mut sums = vec![sum(me, own)];
        for member in members.iter().filter(|member| member.id != me) {
            match hash_at(member, own.hash_revision).await {
                Ok(other) => sums.push(sum(member.id, other)),
                Err(error) => tracing::warn!(
                    member = format!("{:x}", member.id),
                    reason = error.message(),
                    "a member gave no checksum, and was not compared with"
                ),
            }
        }
        Ok(differing(&sums, me, members.len()))
    }

    pub(crate) async fn raise_corrupt(&self, members: &[u64]) {
        for member in members {
            let alarm = Alarm { member: *member, alarm: AlarmType::Corrupt };
            if self.store().alarms().contains(&alarm) {
                continue;
            }
            tracing::error!(
                member = format!("{member:x}"),
                "the members' data differ (0: nobody knows whose is wrong): nothing is changed any \
                 more until the alarm is disarmed"
            );
            if let Err(error) = self.raise(alarm).await {
                tracing::warn!(reason = error.message(), "the alarm CORRUPT was not raised yet");
            }
        }
    }
}

fn sum(member: u64, answer: HashKvResponse) -> Sum {
    let HashKvResponse { hash, compact_revision, .. } = answer;
    Sum { member, hash, compact_revision }
}

/// The checksum of a member, asked for at each of its peer URLs until one answers: peers are heard before
/// clients are.
async fn hash_at(member: &Member, revision: i64) -> Result<HashKvResponse, Status> {
    let mut unreached = Status::unavailable("it has no peer URL");
    for url in &member.peer_urls {
        match hash_of(url, revision).await {
            Err(error) if error.code() == Code::Unavailable => unreached = error,
            answered => return answered,
        }
    }
    Err(unreached)
}

async fn hash_of(url: &str, revision: i64) -> Result<HashKvResponse, Status> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let channel = endpoint
        .connect_timeout(CONNECT_MAX)
        .timeout(ANSWER_MAX)
        .connect()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let answer = MaintenanceClient::new(channel).hash_kv(HashKvRequest { revision }).await?;
    let answer = answer.into_inner();
    Ok(HashKvResponse {
        revision: answer.header.map_or(0, |header| header.revision),
        hash: answer.hash,
        compact_revision: answer.compact_revision,
        hash_revision: answer.hash_revision,
    })
}

/// The members whose sum is another than that of most; 0 alone if most of the members have no one sum.
/// Only those count that have compacted to where `me` has.
fn differing(sums: &[Sum], me: u64, members_count: usize) -> Vec<u64> {
    let Some(own) = sums.iter().find(|sum| sum.member == me) else { return Vec::new() };
    let comparable: Vec<&Sum> =
        sums.iter().filter(|sum| sum.compact_revision == own.compact_revision).collect();
    if comparable.iter().all(|sum| sum.hash == own.hash) {
        return Vec::new();
    }
    let with = |hash| comparable.iter().filter(|sum| sum.hash == hash).count();
    match comparable.iter().find(|sum| members_count < 2 * with(sum.hash)) {
        Some(most) => {
            let others = comparable.iter().filter(|sum| sum.hash != most.hash);
            others.map(|sum| sum.member).collect()
        }
        None => vec![0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_differs_from_most_is_named() {
        for (sums, members_count, want) in [
            (&[(1, 7, -1)][..], 1, &[][..]),
            (&[(1, 7, -1), (2, 7, -1), (3, 7, -1)], 3, &[]),
            (&[(1, 7, -1), (2, 8, -1), (3, 7, -1)], 3, &[2]),
            (&[(1, 7, -1), (2, 8, -1), (3, 8, -1)], 3, &[1]),
            (&[(1, 7, -1), (2, 8, -1), (3, 9, -1)], 3, &[0]),
            (&[(1, 7, -1), (2, 8, -1)], 3, &[0]), // the third is down
            (&[(1, 7, -1), (2, 8, -1)], 2, &[0]),
            (&[(1, 7, 5), (2, 8, 4), (3, 7, 5)], 3, &[]), // not to be compared
            (&[(1, 7, 5), (2, 8, 4), (3, 9, 5)], 3, &[0]),
            (&[(1, 7, 1), (2, 7, 1), (3, 7, 1), (4, 8, 1), (5, 9, 1)], 5, &[4, 5]),
        ] {
            let sums: Vec<Sum> = sums
                .iter()
                .map(|&(member, hash, compact_revision)| Sum { member, hash, compact_revision })
                .collect();
            assert_eq!(differing(&sums, 1, members_count), want, "{sums:?}");
        }
    }
}
