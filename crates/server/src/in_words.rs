//! Entries of the log in words, a line each. Values are not shown, only how long they are; bytes are
//! escaped, and what is long is cut.

use std::fmt::Write as _;

use quorate_kv::{
    AlarmRequest, Command, Compare, CompareTarget, DeleteRangeRequest, MemberChange, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};
use quorate_runtime::What;

/// The longest text, but for its last word.
const TEXT_BYTES_MAX: usize = 512;

/// The longest piece of a key or a name; as many characters of a URL.
const PIECE_BYTES_MAX: usize = 128;

/// What kind of entry it is, and what it asks for.
pub(crate) fn in_words(what: &What) -> (&'static str, String) {
    match what {
        What::Empty => ("empty", String::new()),
        What::Members(None) => ("members", "leave the joint membership".to_owned()),
        What::Members(Some(change)) => ("members", members(change)),
        What::Command(command) => of_command(command),
    }
}

fn members(change: &MemberChange) -> String {
    match change {
        MemberChange::Add(member) => {
            let kind = if member.is_learner { "learner" } else { "member" };
            format!("add {kind} {:x} at {}", member.id, urls(&member.peer_urls))
        }
        MemberChange::Remove(id) => format!("remove member {id:x}"),
        MemberChange::UpdatePeerUrls { id, peer_urls } => {
            format!("member {id:x} is now at {}", urls(peer_urls))
        }
        MemberChange::Promote(id) => format!("promote learner {id:x}"),
        MemberChange::Demote(id) => format!("demote member {id:x}"),
        MemberChange::Replace { demoted, promoted } => {
            format!("promote learner {promoted:x} in place of member {demoted:x}")
        }
        _ => "a change of the members".to_owned(),
    }
}

fn of_command(command: &Command) -> (&'static str, String) {
    match command {
        Command::Put(request) => ("put", put(request)),
        Command::DeleteRange(request) => ("delete", interval(&request.key, &request.range_end)),
        Command::Txn(request) => {
            let mut text = String::new();
            txn(request, &mut text);
            ("txn", text)
        }
        Command::Compact(request) => {
            let physical = if request.physical { ", and wait until they are gone" } else { "" };
            ("compact", format!("forget revisions before {}{physical}", request.revision))
        }
        Command::PublishMember { id, name, client_urls, .. } => {
            let (name, at) = (key(name.as_bytes()), urls(client_urls));
            ("publish", format!("member {id:x} is {name} at {at}"))
        }
        Command::LeaseGrant { id, ttl_seconds } => {
            ("lease-grant", format!("{} for {ttl_seconds} s", lease(*id)))
        }
        Command::LeaseRevoke { id } => ("lease-revoke", lease(*id)),
        Command::LeaseExpire { id, granted, .. } => {
            ("lease-expire", format!("{}, granted at {granted}", lease(*id)))
        }
        Command::LeaseCheckpoint { checkpoints, .. } => {
            ("lease-checkpoint", format!("what is left of {} leases", checkpoints.len()))
        }
        Command::Alarm(AlarmRequest { action, member, alarm }) => {
            ("alarm", format!("{action:?} {alarm:?} of member {member:x}"))
        }
        Command::SetAutopilot { settings, .. } => {
            ("autopilot", format!("settings of {} bytes", settings.len()))
        }
        _ => ("command", "of a kind without words".to_owned()),
    }
}

fn put(request: &PutRequest) -> String {
    let mut text = key(&request.key);
    match request.ignore_value {
        true => text.push_str(" (its value stays)"),
        false => text.push_str(&format!(" ({} bytes)", request.value.len())),
    }
    if request.ignore_lease {
        text.push_str(" (its lease stays)");
    } else if request.lease != 0 {
        text.push_str(&format!(" with lease {}", lease(request.lease)));
    }
    text
}

fn txn(request: &TxnRequest, text: &mut String) {
    if !request.compare.is_empty() {
        text.push_str("if ");
        listed(text, &request.compare, |text, compare| text.push_str(&compared(compare)));
        text.push_str(": ");
    }
    listed(text, &request.success, operation);
    if !request.failure.is_empty() {
        text.push_str("; else: ");
        listed(text, &request.failure, operation);
    }
}

/// As many as there is room for.
fn listed<T>(text: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    if items.is_empty() {
        text.push_str("nothing");
    }
    for (number, item) in items.iter().enumerate() {
        if TEXT_BYTES_MAX <= text.len() {
            let _ = write!(text, " and {} more", items.len() - number);
            return;
        }
        if 0 < number {
            text.push_str(", ");
        }
        write(text, item);
    }
}

fn operation(text: &mut String, operation: &RequestOp) {
    match operation {
        RequestOp::Empty => text.push_str("nothing"),
        RequestOp::Range(RangeRequest { key, range_end, .. }) => {
            let _ = write!(text, "get {}", interval(key, range_end));
        }
        RequestOp::Put(request) => {
            let _ = write!(text, "put {}", put(request));
        }
        RequestOp::DeleteRange(DeleteRangeRequest { key, range_end, .. }) => {
            let _ = write!(text, "delete {}", interval(key, range_end));
        }
        RequestOp::Txn(inner) => {
            text.push('(');
            txn(inner, text);
            text.push(')');
        }
    }
}

fn compared(compare: &Compare) -> String {
    let of = interval(&compare.key, &compare.range_end);
    let (target, given) = match &compare.target {
        CompareTarget::Version(given) => ("version", given.to_string()),
        CompareTarget::Create(given) => ("created", given.to_string()),
        CompareTarget::Mod(given) => ("modified", given.to_string()),
        CompareTarget::Value(given) => ("value", format!("{} bytes", given.len())),
        CompareTarget::Lease(given) => ("lease", lease(*given)),
        CompareTarget::Unknown(number) => ("unknown", number.to_string()),
    };
    let relation = match i32::from(compare.result) {
        0 => "=",
        1 => ">",
        2 => "<",
        3 => "!=",
        _ => "?",
    };
    format!("{target} of {of} {relation} {given}")
}

/// A key, or an interval.
fn interval(first: &[u8], end: &[u8]) -> String {
    match end {
        [] => key(first),
        [0] => format!("{}..", key(first)),
        end => format!("{}..{}", key(first), key(end)),
    }
}

fn key(key: &[u8]) -> String {
    match key.get(..PIECE_BYTES_MAX) {
        Some(piece) if PIECE_BYTES_MAX < key.len() => {
            format!("\"{}\"... of {} bytes", piece.escape_ascii(), key.len())
        }
        _ => format!("\"{}\"", key.escape_ascii()),
    }
}

/// Addresses, as many as there is room for.
fn urls(urls: &[String]) -> String {
    let mut text = String::new();
    listed(&mut text, urls, |text, url| {
        text.extend(url.chars().take(PIECE_BYTES_MAX));
        if url.chars().nth(PIECE_BYTES_MAX).is_some() {
            text.push_str("...");
        }
    });
    text
}

/// As `etcdctl` writes it.
fn lease(id: i64) -> String {
    format!("{id:016x}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_kv::{AlarmAction, AlarmType, CompactionRequest, CompareResult, Member};
    use quorate_types::{Index, Life, Term};

    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn a_put(key: &str, value: &str) -> PutRequest {
        PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() }
    }

    #[test]
    fn every_kind_of_entry_has_words() {
        let delete = |key, end| {
            let (key, range_end) = (bytes(key), bytes(end));
            DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() }
        };
        let compare = Compare {
            result: CompareResult::Less,
            target: CompareTarget::Mod(7),
            key: bytes("a"),
            ..Compare::default()
        };
        let txn = TxnRequest {
            compare: vec![compare],
            success: vec![
                RequestOp::Put(a_put("a", "four")),
                RequestOp::Txn(TxnRequest {
                    success: vec![RequestOp::DeleteRange(delete("b", ""))],
                    ..TxnRequest::default()
                }),
            ],
            failure: vec![RequestOp::Range(RangeRequest {
                key: bytes("c"),
                range_end: bytes("\0"),
                ..RangeRequest::default()
            })],
        };
        let publish = Command::PublishMember {
            id: 0xab,
            name: "n1".to_owned(),
            client_urls: vec!["http://n1:2379".to_owned()],
            life: Life(1),
            version: String::new(),
            tags: Default::default(),
        };
        let alarm =
            AlarmRequest { action: AlarmAction::Activate, member: 0xab, alarm: AlarmType::NoSpace };
        let learner = Member {
            id: 0xcd,
            is_learner: true,
            peer_urls: vec!["http://n2:2380".to_owned()],
            ..Member::default()
        };
        let kept = PutRequest { ignore_value: true, lease: 18, ..a_put("k\n", "") };
        let checkpoints = Vec::new();
        let (granted, term) = (Index(9), Term(2));
        let compact = |physical| Command::Compact(CompactionRequest { revision: 5, physical });
        let commands = [
            (Command::Put(a_put("a", "four")), "put", r#""a" (4 bytes)"#),
            (Command::Put(kept), "put", r#""k\n" (its value stays) with lease 0000000000000012"#),
            (Command::DeleteRange(delete("a", "")), "delete", r#""a""#),
            (Command::DeleteRange(delete("a", "c")), "delete", r#""a".."c""#),
            (
                Command::Txn(txn),
                "txn",
                r#"if modified of "a" < 7: put "a" (4 bytes), (delete "b"); else: get "c".."#,
            ),
            (Command::Txn(TxnRequest::default()), "txn", "nothing"),
            (compact(false), "compact", "forget revisions before 5"),
            (compact(true), "compact", "forget revisions before 5, and wait until they are gone"),
            (publish, "publish", r#"member ab is "n1" at http://n1:2379"#),
            (
                Command::LeaseGrant { id: 18, ttl_seconds: 60 },
                "lease-grant",
                "0000000000000012 for 60 s",
            ),
            (Command::LeaseRevoke { id: -1 }, "lease-revoke", "ffffffffffffffff"),
            (
                Command::LeaseExpire { id: 18, granted, term },
                "lease-expire",
                "0000000000000012, granted at 9",
            ),
            (
                Command::LeaseCheckpoint { term, order: 1, checkpoints },
                "lease-checkpoint",
                "what is left of 0 leases",
            ),
            (Command::Alarm(alarm), "alarm", "Activate NoSpace of member ab"),
            (
                Command::SetAutopilot { settings: bytes("{}"), expected: None },
                "autopilot",
                "settings of 2 bytes",
            ),
        ];
        let commands =
            commands.into_iter().map(|(command, kind, want)| (What::Command(command), kind, want));
        let peer_urls = vec!["http://n3:2380".to_owned()];
        let changes = [
            (MemberChange::Add(learner), "add learner cd at http://n2:2380"),
            (MemberChange::Remove(0xcd), "remove member cd"),
            (
                MemberChange::UpdatePeerUrls { id: 0xcd, peer_urls },
                "member cd is now at http://n3:2380",
            ),
            (MemberChange::Promote(0xcd), "promote learner cd"),
            (MemberChange::Demote(0xcd), "demote member cd"),
            (
                MemberChange::Replace { demoted: 0xab, promoted: 0xcd },
                "promote learner cd in place of member ab",
            ),
        ];
        let changes = changes
            .into_iter()
            .map(|(change, want)| (What::Members(Some(change)), "members", want));
        let rest = [
            (What::Empty, "empty", ""),
            (What::Members(None), "members", "leave the joint membership"),
        ];
        for (what, kind, want) in commands.chain(changes).chain(rest) {
            assert_eq!(in_words(&what), (kind, want.to_owned()), "{what:?}");
        }
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = "k".repeat(1000);
        let (_, text) = in_words(&What::Command(Command::Put(a_put(&long, &long))));
        assert_eq!(
            text,
            format!("\"{}\"... of 1000 bytes (1000 bytes)", "k".repeat(PIECE_BYTES_MAX))
        );
        let success = (0..1000).map(|_| RequestOp::Put(a_put("key", ""))).collect();
        let txn = TxnRequest { success, ..TxnRequest::default() };
        let (_, text) = in_words(&What::Command(Command::Txn(txn)));
        assert!(text.len() < TEXT_BYTES_MAX + 100 && text.ends_with(" more"), "{text}");
        let peer_urls: Vec<String> = (0..1000).map(|_| format!("http://{long}:2380")).collect();
        let change = MemberChange::UpdatePeerUrls { id: 0xcd, peer_urls };
        let (_, text) = in_words(&What::Members(Some(change)));
        let room = TEXT_BYTES_MAX + 2 * PIECE_BYTES_MAX;
        assert!(text.len() < room && text.ends_with("kkk... and 996 more"), "{text}");
    }
}
