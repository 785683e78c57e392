use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use super::*;

fn parse(text: &str) -> Result<TxnRequest, CliError> {
    TxnArgs::default().request(text.as_bytes())
}

#[test]
fn three_blocks_become_a_transaction() {
    let text = "value(\"k\") = \"v\"\nmod(\"k\") > \"0\"\n\n  put k \"a b\" --prev-kv\n\
                del k --prefix\n\nget k z --limit=2 --rev 7 --consistency s\r\n\r\n";
    let txn = parse(text).unwrap();
    assert_eq!(txn.compare.len(), 2);
    let put =
        PutRequest { key: "k".into(), value: "a b".into(), prev_kv: true, ..PutRequest::default() };
    let del = DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let get = RangeRequest {
        key: "k".into(),
        range_end: "z".into(),
        limit: 2,
        revision: 7,
        serializable: true,
        ..RangeRequest::default()
    };
    let op = |request| RequestOp { request: Some(request) };
    assert_eq!(txn.success, [op(Request::RequestPut(put)), op(Request::RequestDeleteRange(del))]);
    assert_eq!(txn.failure, [op(Request::RequestRange(get))]);
    assert_eq!(parse("\n\n\n").unwrap(), TxnRequest::default());
}

#[test]
fn comparisons_have_five_targets_and_four_operators() {
    use CompareResult as R;
    use CompareTarget as T;
    use TargetUnion as U;
    let text = |text: &'static str| U::Value(text.into());
    for (line, result, target, operand) in [
        (r#"value("k") = "v""#, R::Equal, T::Value, text("v")),
        (r#"val("k") != "a b""#, R::NotEqual, T::Value, text("a b")),
        (r#" value ( "k" )="""#, R::Equal, T::Value, text("")),
        (r#"version("k") < "2""#, R::Less, T::Version, U::Version(2)),
        (r#"ver("k")>"-2""#, R::Greater, T::Version, U::Version(-2)),
        (r#"create("k") = "3""#, R::Equal, T::Create, U::CreateRevision(3)),
        (r#"c("k") = "3""#, R::Equal, T::Create, U::CreateRevision(3)),
        (r#"mod("k") = "4""#, R::Equal, T::Mod, U::ModRevision(4)),
        (r#"m("k") = "4""#, R::Equal, T::Mod, U::ModRevision(4)),
        (r#"lease("k") = "1f""#, R::Equal, T::Lease, U::Lease(31)),
    ] {
        let want = Compare {
            result: result.into(),
            target: target.into(),
            key: "k".into(),
            range_end: Bytes::new(),
            target_union: Some(operand),
        };
        assert_eq!(parse_compare(line.trim().as_bytes()).unwrap(), want, "{line}");
    }
}

#[test]
fn what_is_not_understood_is_not_sent() {
    for (text, want) in [
        ("", "EOF within the comparisons"),
        ("\n", "EOF within the requests on success"),
        ("\nget k\n", "EOF within the requests on success"),
        ("\nget k\n\nget k", "EOF within the requests on failure"),
        ("\n\nget k\n", "EOF within the requests on failure"),
        ("bogus\n\n\n\n", "malformed comparison: bogus"),
        ("mod(\"k\") > 0\n\n\n\n", "malformed comparison: mod(\"k\") > 0"),
        ("mod(k) > \"0\"\n\n\n\n", "malformed comparison: mod(k) > \"0\""),
        ("mod(\"k\" > \"0\"\n\n\n\n", "malformed comparison: mod(\"k\" > \"0\""),
        ("mod(\"k\") ~ \"0\"\n\n\n\n", "malformed comparison: mod(\"k\") ~ \"0\""),
        ("mod(\"k\") > \"0\" x\n\n\n\n", "malformed comparison: mod(\"k\") > \"0\" x"),
        ("size(\"k\") > \"0\"\n\n\n\n", "malformed comparison: size(\"k\") > \"0\""),
        ("mod(\"k\") > \"x\"\n\n\n\n", "invalid txn compare request: mod(\"k\") > \"x\""),
        ("\nfoo k\n\n\n", "invalid txn request: foo k"),
        ("\nget k -w json\n\n\n", "invalid txn request: get k -w json"),
        ("\nput k \"v\n\n\n", "invalid txn request: put k \"v (a quote is not closed)"),
        ("\nput k\n\n\n", "put in a transaction needs a key and a value"),
        ("\nget k k --prefix\n\n\n", "too many arguments"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.starts_with(want), "{text:?}: {error}");
        assert!(!error.contains('\n'), "one line: {error:?}");
    }
}
