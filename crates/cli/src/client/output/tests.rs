//! The texts below were printed by `etcdctl` 3.4 for the same answers.

use quorate_proto::etcdserverpb::{Member, ResponseHeader, ResponseOp, StatusResponse};

use super::*;

const PLAIN: Output = Output { form: None, hex: false };
const HEX: Output = Output { form: None, hex: true };
const JSON: Output = Output { form: Some(Form::Json), hex: false };
const TABLE: Output = Output { form: Some(Form::Table), hex: false };

fn printed(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: 10101560796677756362,
        member_id: 10221683743416816908,
        revision,
        raft_term: 2,
    })
}

fn kv(key: &'static str, value: &'static str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: 0,
    }
}

#[test]
fn puts() {
    let first = PutResponse { header: header(5), prev_kv: None };
    let second = PutResponse { header: header(5), prev_kv: Some(kv("a", "2")) };
    for (output, answer, want) in [
        (PLAIN, &first, "OK\n"),
        (PLAIN, &second, "OK\na\n2\n"),
        (HEX, &second, "OK\n\\x61\n\\x32\n"),
        (
            JSON,
            &second,
            "{\"header\":{\"cluster_id\":10101560796677756362,\
             \"member_id\":10221683743416816908,\"revision\":5,\"raft_term\":2},\
             \"prev_kv\":{\"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":3,\"version\":2,\
             \"value\":\"Mg==\"}}\n",
        ),
    ] {
        assert_eq!(printed(|out| output.write_put(out, answer)), want);
    }
}

#[test]
fn ranges() {
    let none = RangeResponse { header: header(5), ..RangeResponse::default() };
    let keys = RangeResponse { kvs: vec![kv("a", ""), kv("b", "")], count: 2, ..none.clone() };
    let leased = KeyValue { lease: 0x1f, ..kv("b\n", "x") };
    let two =
        RangeResponse { kvs: vec![kv("a", "3"), leased], count: 7, more: true, ..none.clone() };
    let header = "\"header\":{\"cluster_id\":10101560796677756362,\
                  \"member_id\":10221683743416816908,\"revision\":5,\"raft_term\":2}";
    for (output, shown, answer, want) in [
        (PLAIN, Shown::Pairs, &none, ""),
        (PLAIN, Shown::Count, &none, "0\n"),
        (PLAIN, Shown::Pairs, &keys, "a\n\nb\n\n"),
        (PLAIN, Shown::Pairs, &two, "a\n3\nb\n\nx\n"),
        (PLAIN, Shown::Values, &two, "3\nx\n"),
        (PLAIN, Shown::Count, &two, "7\n"),
        (HEX, Shown::Pairs, &two, "\\x61\n\\x33\n\\x62\\x0a\n\\x78\n"),
        (HEX, Shown::Values, &two, "\\x33\n\\x78\n"),
        (JSON, Shown::Pairs, &none, &format!("{{{header}}}\n")),
        (
            JSON,
            Shown::Count,
            &two,
            &format!(
                "{{{header},\"kvs\":[{{\"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":3,\
                 \"version\":2,\"value\":\"Mw==\"}},{{\"key\":\"Ygo=\",\"create_revision\":2,\
                 \"mod_revision\":3,\"version\":2,\"value\":\"eA==\",\"lease\":31}}],\
                 \"more\":true,\"count\":7}}\n"
            ),
        ),
        (
            TABLE,
            Shown::Pairs,
            &two,
            "\
+-----+-------+---------+----------+---------+-------+
| KEY | VALUE | CREATED | MODIFIED | VERSION | LEASE |
+-----+-------+---------+----------+---------+-------+
|   a |     3 |       2 |        3 |       2 |       |
| b\\n |     x |       2 |        3 |       2 |    1f |
+-----+-------+---------+----------+---------+-------+
",
        ),
    ] {
        assert_eq!(printed(|out| output.write_range(out, answer, shown)), want);
    }
}

#[test]
fn deletions() {
    let none = DeleteRangeResponse { header: header(10), ..DeleteRangeResponse::default() };
    let one = DeleteRangeResponse { deleted: 1, prev_kvs: vec![kv("a", "1")], ..none.clone() };
    let header = "\"header\":{\"cluster_id\":10101560796677756362,\
                  \"member_id\":10221683743416816908,\"revision\":10,\"raft_term\":2}";
    for (output, answer, want) in [
        (PLAIN, &none, "0\n"),
        (PLAIN, &one, "1\na\n1\n"),
        (HEX, &one, "1\n\\x61\n\\x31\n"),
        (JSON, &none, &format!("{{{header}}}\n")),
        (
            JSON,
            &one,
            &format!(
                "{{{header},\"deleted\":1,\"prev_kvs\":[{{\"key\":\"YQ==\",\
                 \"create_revision\":2,\"mod_revision\":3,\"version\":2,\"value\":\"MQ==\"}}]}}\n"
            ),
        ),
    ] {
        assert_eq!(printed(|out| output.write_delete(out, answer)), want);
    }
}

#[test]
fn transactions() {
    let inner = |revision| Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let op = |response| ResponseOp { response: Some(response) };
    let get = RangeResponse { header: inner(7), kvs: vec![kv("k", "v2")], more: false, count: 1 };
    let del =
        DeleteRangeResponse { header: inner(7), deleted: 1, prev_kvs: vec![kv("a b", "c d")] };
    let put = PutResponse { header: inner(7), prev_kv: None };
    let nested = TxnResponse { header: inner(0), ..TxnResponse::default() };
    let all = TxnResponse {
        header: inner(23),
        succeeded: true,
        responses: vec![
            op(Op::ResponsePut(put)),
            op(Op::ResponseRange(get)),
            op(Op::ResponseDeleteRange(del)),
        ],
    };
    let none =
        TxnResponse { responses: vec![op(Op::ResponseTxn(nested))], ..TxnResponse::default() };
    assert_eq!(
        printed(|out| PLAIN.write_txn(out, &all)),
        "SUCCESS\n\nOK\n\nk\nv2\n\n1\na b\nc d\n"
    );
    assert_eq!(printed(|out| PLAIN.write_txn(out, &none)), "FAILURE\n\nFAILURE\n");
    assert_eq!(
        printed(|out| JSON.write_txn(out, &none)),
        "{\"responses\":[{\"Response\":{\"ResponseTxn\":{\"header\":{}}}}]}\n"
    );
    let json = printed(|out| JSON.write_txn(out, &all));
    assert!(
        json.starts_with(
            "{\"header\":{\"revision\":23},\"succeeded\":true,\"responses\":[{\"Response\":\
             {\"ResponsePut\":{\"header\":{\"revision\":7}}}},{\"Response\":{\"ResponseRange\":"
        ),
        "{json}"
    );
}

#[test]
fn members_and_status() {
    let member = Member {
        id: 10221683743416816908,
        name: "e1".to_owned(),
        peer_urls: vec!["http://p:1".to_owned(), "http://p:2".to_owned()],
        client_urls: vec!["http://c:1".to_owned()],
        is_learner: false,
    };
    let unstarted = Member { name: String::new(), client_urls: Vec::new(), ..member.clone() };
    assert_eq!(
        printed(|out| write_rows(out, [&member, &unstarted].into_iter().map(members::row))),
        "8ddab73534be950c, started, e1, http://p:1,http://p:2, http://c:1, false\n\
         8ddab73534be950c, unstarted, , http://p:1,http://p:2, , false\n"
    );
    let list = MemberListResponse { header: None, members: vec![member] };
    assert_eq!(
        printed(|out| write_json(out, &json::Members::from(&list))),
        "{\"members\":[{\"ID\":10221683743416816908,\"name\":\"e1\",\
         \"peerURLs\":[\"http://p:1\",\"http://p:2\"],\"clientURLs\":[\"http://c:1\"]}]}\n"
    );
    let status = StatusResponse {
        header: header(12),
        version: "3.4.23".to_owned(),
        db_size: 20480,
        leader: 10221683743416816908,
        raft_index: 19,
        raft_term: 2,
        raft_applied_index: 19,
        db_size_in_use: 16384,
        ..StatusResponse::default()
    };
    assert_eq!(
        printed(|out| write_rows(out, [status::row("127.0.0.1:31379", &status)].into_iter())),
        "127.0.0.1:31379, 8ddab73534be950c, 3.4.23, 20 kB, true, false, 2, 19, 19, \n"
    );
    assert_eq!(
        printed(|out| write_json(out, &[json::of_status("127.0.0.1:31379", &status)])),
        "[{\"Endpoint\":\"127.0.0.1:31379\",\"Status\":{\"header\":{\
         \"cluster_id\":10101560796677756362,\"member_id\":10221683743416816908,\"revision\":12,\
         \"raft_term\":2},\"version\":\"3.4.23\",\"dbSize\":20480,\
         \"leader\":10221683743416816908,\"raftIndex\":19,\"raftTerm\":2,\
         \"raftAppliedIndex\":19,\"dbSizeInUse\":16384}}]\n"
    );

    // An endpoint that did not answer is in the table; what scripts read has those that did.
    let answers = [
        ("a:1".to_owned(), Err(CliError::Unreachable("a:1: refused".to_owned()))),
        ("b:1".to_owned(), Ok(status)),
        ("c:1".to_owned(), Err(CliError::Failed("context deadline exceeded".to_owned()))),
    ];
    let table = printed(|out| PLAIN.write_status(out, &answers));
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
    for (row, (first, last)) in
        lines[3..6].iter().zip([("a:1", "cannot be reached"), ("b:1", ""), ("c:1", "no status")])
    {
        assert_eq!((row[1], row[10]), (first, last), "{table}");
    }
    for form in [Form::Json, Form::Simple] {
        let output = Output { form: Some(form), ..PLAIN };
        let text = printed(|out| output.write_status(out, &answers));
        assert!(text.contains("b:1") && !text.contains("a:1") && !text.contains("c:1"), "{text}");
    }
    assert!(status::outcome(&answers[1..2]).is_ok());
    assert_eq!(status::outcome(&answers).unwrap_err().exit_code(), 1);
    assert_eq!(status::outcome(&answers[..1]).unwrap_err().exit_code(), 1);
}
