//! Answers of the commands about leases, members, alarms and the like, in all forms.

use std::io::{self, Write};

use quorate_proto::etcdserverpb::{
    AlarmResponse, AlarmType, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeResponse, LeaseTimeToLiveResponse, Member, MemberAddResponse, MemberPromoteResponse,
    MemberRemoveResponse, MemberUpdateResponse, ResponseHeader, WatchResponse,
};
use quorate_proto::mvccpb::Event;
use quorate_proto::mvccpb::event::EventType;

use super::error::CliError;
use super::fields::{self, field};
use super::output::{Output, to_stdout, write_json};
use super::table::table;
use super::tree::{self, Object, Tree};
use super::{Form, members};

/// Something that can be printed in all forms.
pub(super) trait Answer {
    /// As `etcdctl` prints it without flags.
    fn simple(&self, out: &mut impl Write, output: &Output) -> io::Result<()>;
    /// With all its fields.
    fn json(&self) -> Tree;
    /// A line a field.
    fn fields(&self, out: &mut impl Write) -> io::Result<()>;
    /// For people, where it is a table.
    fn table(&self) -> Option<String> {
        None
    }
}

impl Output {
    pub(super) fn show(&self, answer: &impl Answer) -> Result<(), CliError> {
        to_stdout(|out| match self.form {
            Some(Form::Json) => write_json(out, &answer.json()),
            Some(Form::Fields) => answer.fields(out),
            Some(Form::Table) => match answer.table() {
                Some(table) => writeln!(out, "{table}"),
                None => answer.simple(out, self),
            },
            Some(Form::Simple) | None => answer.simple(out, self),
        })
    }
}

impl Answer for LeaseGrantResponse {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        writeln!(out, "lease {:016x} granted with TTL({}s)", self.id, self.ttl)
    }

    fn json(&self) -> Tree {
        let answer = Object::default().with("ID", self.id).with("TTL", self.ttl);
        tree::header(self.header.as_ref()).and(answer.with("Error", self.error.as_str())).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        field(out, "ID", self.id)?;
        field(out, "TTL", self.ttl)
    }
}

/// The answer to a revocation.
pub(super) struct Revoked {
    pub(super) id: i64,
    pub(super) answer: LeaseRevokeResponse,
}

impl Answer for Revoked {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        writeln!(out, "lease {:016x} revoked", self.id)
    }

    fn json(&self) -> Tree {
        Object::default().with("header", tree::header(self.answer.header.as_ref())).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.answer.header.as_ref())
    }
}

/// How long a lease has to live.
pub(super) struct TimeToLive {
    pub(super) wants_keys: bool,
    pub(super) answer: LeaseTimeToLiveResponse,
}

impl Answer for TimeToLive {
    fn simple(&self, out: &mut impl Write, output: &Output) -> io::Result<()> {
        let LeaseTimeToLiveResponse { id, ttl, granted_ttl, keys, .. } = &self.answer;
        if (*granted_ttl, *ttl) == (0, -1) {
            return writeln!(out, "lease {id:016x} already expired");
        }
        write!(out, "lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s)")?;
        if self.wants_keys {
            out.write_all(b", attached keys([")?;
            for (number, key) in keys.iter().enumerate() {
                if 0 < number {
                    out.write_all(b" ")?;
                }
                out.write_all(&output.shown(key))?;
            }
            out.write_all(b"])")?;
        }
        writeln!(out)
    }

    fn json(&self) -> Tree {
        let LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys } = &self.answer;
        let keys = match keys.is_empty() {
            true => Tree::Null,
            false => Tree::List(keys.iter().map(|key| Tree::base64(key)).collect()),
        };
        let answer = Object::default()
            .with("id", *id)
            .with("ttl", *ttl)
            .with("granted-ttl", *granted_ttl)
            .with("keys", keys);
        tree::header(header.as_ref()).and(answer).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.answer.header.as_ref())?;
        field(out, "ID", self.answer.id)?;
        field(out, "TTL", self.answer.ttl)?;
        field(out, "GrantedTTL", self.answer.granted_ttl)?;
        self.answer.keys.iter().try_for_each(|key| field(out, "Key", fields::quoted(key)))
    }
}

impl Answer for LeaseLeasesResponse {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        writeln!(out, "found {} leases", self.leases.len())?;
        self.leases.iter().try_for_each(|lease| writeln!(out, "{:016x}", lease.id))
    }

    fn json(&self) -> Tree {
        let leases = Tree::list(&self.leases, |lease| Object::default().with("id", lease.id));
        tree::header(self.header.as_ref()).with("leases", leases).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        self.leases.iter().try_for_each(|lease| field(out, "ID", lease.id))
    }

    fn table(&self) -> Option<String> {
        Some(table(["LEASE"], self.leases.iter().map(|lease| [format!("{:016x}", lease.id)])))
    }
}

impl Answer for LeaseKeepAliveResponse {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        writeln!(out, "lease {:016x} keepalived with TTL({})", self.id, self.ttl)
    }

    fn json(&self) -> Tree {
        tree::header(self.header.as_ref()).with("ID", self.id).with("TTL", self.ttl).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        field(out, "ID", self.id)?;
        field(out, "TTL", self.ttl)
    }
}

/// What was done to the members, and who they are now.
pub(super) struct Changed {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) header: Option<ResponseHeader>,
    pub(super) done: Done,
    pub(super) members: Vec<Member>,
}

/// What was done to one member.
pub(super) enum Done {
    Added(Member),
    Removed,
    Updated,
    Promoted,
}

impl Changed {
    pub(super) fn added(name: String, answer: MemberAddResponse) -> Changed {
        let MemberAddResponse { header, member, members } = answer;
        let member = member.unwrap_or_default();
        Changed { id: member.id, name, header, done: Done::Added(member), members }
    }

    pub(super) fn removed(id: u64, answer: MemberRemoveResponse) -> Changed {
        let MemberRemoveResponse { header, members } = answer;
        Changed { id, name: String::new(), header, done: Done::Removed, members }
    }

    pub(super) fn updated(id: u64, answer: MemberUpdateResponse) -> Changed {
        let MemberUpdateResponse { header, members } = answer;
        Changed { id, name: String::new(), header, done: Done::Updated, members }
    }

    pub(super) fn promoted(id: u64, answer: MemberPromoteResponse) -> Changed {
        let MemberPromoteResponse { header, members } = answer;
        Changed { id, name: String::new(), header, done: Done::Promoted, members }
    }
}

impl Answer for Changed {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        let done = match &self.done {
            Done::Added(_) => "added to",
            Done::Removed => "removed from",
            Done::Updated => "updated in",
            Done::Promoted => "promoted in",
        };
        let cluster = self.header.map_or(0, |header| header.cluster_id);
        writeln!(out, "Member {:16x} {done} cluster {cluster:16x}", self.id)?;
        let Done::Added(added) = &self.done else { return Ok(()) };
        // What the new member is to be started with.
        let urls = self.members.iter().flat_map(|member| {
            let name = if member.id == added.id { &self.name } else { &member.name };
            member.peer_urls.iter().map(move |url| format!("{name}={url}"))
        });
        let urls: Vec<String> = urls.collect();
        writeln!(out)?;
        writeln!(out, "ETCD_NAME={}", fields::quoted(self.name.as_bytes()))?;
        writeln!(out, "ETCD_INITIAL_CLUSTER=\"{}\"", urls.join(","))?;
        let peers = added.peer_urls.join(",");
        writeln!(out, "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"{peers}\"")?;
        writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
    }

    fn json(&self) -> Tree {
        let answer = Object::default().with("header", tree::header(self.header.as_ref()));
        let answer = match &self.done {
            Done::Added(member) => answer.with("member", tree::member(member)),
            _ => answer,
        };
        answer.some("members", Tree::list(&self.members, tree::member)).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        field(out, "ID", self.id)
    }

    fn table(&self) -> Option<String> {
        Some(table(members::COLUMNS, self.members.iter().map(members::row)))
    }
}

impl Answer for AlarmResponse {
    fn simple(&self, out: &mut impl Write, _: &Output) -> io::Result<()> {
        self.alarms.iter().try_for_each(|alarm| {
            writeln!(out, "memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
        })
    }

    fn json(&self) -> Tree {
        let header = self.header.as_ref().map(|header| tree::header(Some(header)));
        let answer = match header {
            Some(header) => Object::default().with("header", header),
            None => Object::default(),
        };
        let alarms = Tree::list(&self.alarms, |alarm| {
            Object::default().some("memberID", alarm.member_id).some("alarm", alarm.alarm)
        });
        answer.some("alarms", alarms).into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        for alarm in &self.alarms {
            field(out, "MemberID", alarm.member_id)?;
            field(out, "AlarmType", alarm.alarm().as_str_name())?;
            writeln!(out)?;
        }
        Ok(())
    }

    fn table(&self) -> Option<String> {
        let name = |kind: AlarmType| kind.as_str_name().to_owned();
        let row = |alarm: &quorate_proto::etcdserverpb::AlarmMember| {
            [format!("{:x}", alarm.member_id), name(alarm.alarm())]
        };
        Some(table(["MEMBER", "ALARM"], self.alarms.iter().map(row)))
    }
}

/// What a watcher is told.
impl Answer for WatchResponse {
    fn simple(&self, out: &mut impl Write, output: &Output) -> io::Result<()> {
        for event in &self.events {
            writeln!(out, "{}", kind(event))?;
            for pair in event.prev_kv.iter().chain(&event.kv) {
                output.write_pair(out, pair)?;
            }
        }
        Ok(())
    }

    fn json(&self) -> Tree {
        let events = Tree::list(&self.events, |event| {
            let pair = |found: &Option<_>| {
                found.as_ref().map_or(Tree::Null, |found| Tree::Object(tree::pair(found)))
            };
            Object::default()
                .some("type", event.r#type)
                .some("kv", pair(&event.kv))
                .some("prev_kv", pair(&event.prev_kv))
        });
        Object::default()
            .with("Header", tree::header(self.header.as_ref()))
            .with("Events", events)
            .with("CompactRevision", self.compact_revision)
            .with("Canceled", self.canceled)
            .with("Created", self.created)
            .into()
    }

    fn fields(&self, out: &mut impl Write) -> io::Result<()> {
        fields::header(out, self.header.as_ref())?;
        for event in &self.events {
            field(out, "Type", kind(event))?;
            if let Some(prev) = &event.prev_kv {
                fields::pair(out, "Prev", prev)?;
            }
            if let Some(pair) = &event.kv {
                fields::pair(out, "", pair)?;
            }
        }
        Ok(())
    }
}

pub(super) fn kind(event: &Event) -> &'static str {
    match event.r#type() {
        EventType::Put => "PUT",
        EventType::Delete => "DELETE",
    }
}
