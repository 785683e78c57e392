//! The smaller promises, kept and broken.

use quorate_types::Revision;

use crate::operation::{History, Item};
use crate::promises::{
    Final, acknowledged_survive, no_write_twice, revisions_never_go_back, serializable_reads,
};
use crate::verdict::Violation;

fn judged(promise: fn(&History) -> Result<(), Violation>, text: &str) -> String {
    let history: History = text.parse().unwrap();
    promise(&history).map_or_else(|violation| violation.why, |()| "kept".to_owned())
}

#[test]
fn what_was_acknowledged_is_there_at_the_end() {
    let history = r#"c1 10..20: put "k" "a" -> @2 put
        c1 30..40: put "k" "b" -> @3 put
        c1 50..60: put "gone" "c" -> @4 put
        c1 70..80: delete "gone" -> @5 deleted 1
        c2 10..?: put "late" "d"
        c2 20..!: put "never" "e""#;
    let k = || Item::new("k", "b").at(2, 3, 2);
    for (revision, items, want) in [
        (5, vec![k()], "kept"),
        (6, vec![k(), Item::new("late", "d").at(6, 6, 1)], "kept"),
        (5, vec![], "at the end n1 lacks what was acknowledged"),
        (4, vec![k()], "at the end n1 is at revision 4"),
        (
            5,
            vec![Item::new("k", "a").at(2, 2, 1)],
            r#"at the end n1 holds the older "k" "a" @2/2 v1"#,
        ),
        (
            5,
            vec![Item::new("k", "a").at(2, 3, 2)],
            r#"at the end n1 holds another value, "k" "a" @2/3 v2"#,
        ),
        (
            6,
            vec![k(), Item::new("never", "e").at(6, 6, 1)],
            r#"at the end n1 holds what nobody wrote so: "never" "e" @6/6 v1"#,
        ),
        (
            6,
            vec![Item::new("k", "b").at(2, 6, 3)],
            r#"at the end n1 holds what nobody wrote so: "k" "b" @2/6 v3"#,
        ),
        (
            5,
            vec![k(), Item::new("gone", "c").at(4, 4, 1)],
            r#"at the end n1 holds what was deleted: "gone" "c" @4/4 v1"#,
        ),
    ] {
        let end = Final { member: "n1".to_owned(), revision: Revision(revision), items };
        let kept = acknowledged_survive(&history.parse().unwrap(), &end);
        assert_eq!(kept.map_or_else(|it| it.why, |()| "kept".to_owned()), want);
    }
    let unknown_delete = "c1 10..20: put \"k\" \"a\" -> @2 put\nc2 12..?: delete-range \"a\" \"z\"";
    let end = Final { member: "n1".to_owned(), revision: Revision(3), items: vec![] };
    assert_eq!(acknowledged_survive(&unknown_delete.parse().unwrap(), &end), Ok(()));
}

#[test]
fn no_write_is_shown_at_two_revisions() {
    let put = r#"c1 10..20: put "k" "a" -> @2 put"#;
    for (text, want) in [
        (format!("{put}\nc2 30..40: get \"k\" -> @2 found \"k\" \"a\" @2/2 v1 ;"), "kept"),
        (
            format!("{put}\nc2 30..40: get \"k\" -> @3 found \"k\" \"a\" @2/3 v2 ;"),
            "one write was done twice, at revisions 2 and 3",
        ),
        (
            r#"c1 10..?: put "k" "a"
               c2 30..40: get "k" -> @3 found "k" "a" @3/3 v1 ;
               c2 50..60: get "k" -> @5 found "k" "a" @3/5 v2 ;"#
                .to_owned(),
            "one write was done twice, at revisions 3 and 5",
        ),
        (
            format!(
                "{put}\nc2 10..?: put \"k\" \"a\"\nc2 30..40: get \"k\" -> @3 found \"k\" \"a\" @2/3 v2 ;"
            ),
            "kept",
        ),
    ] {
        assert_eq!(judged(no_write_twice, &text), want, "{text}");
    }
}

#[test]
fn a_client_never_goes_back() {
    for (text, want) in [
        ("c1 10..20: get \"k\" -> @5 found ;\nc1 30..40: get \"k\" -> @5 found ;", "kept"),
        (
            "c1 10..20: get \"k\" -> @5 found ;\nc1 30..40: get \"k\" -> @4 found ;",
            "a client was at revision 5, and then at 4",
        ),
        (
            "c1 10..20: get \"k\" -> @5 found ;\nc1 30..40: put \"k\" \"a\" -> @5 put",
            "a change made no new revision",
        ),
        ("c1 10..20: get \"k\" -> @5 found ;\nc2 30..40: get \"k\" -> @4 found ;", "kept"),
        (
            "c1 10..20: get \"k\" -> @5 found ;\nc1 30..40: serializable get \"k\" -> @4 found ;",
            "kept",
        ),
        ("c1 10..30: get \"k\" -> @5 found ;\nc1 20..40: get \"k\" -> @4 found ;", "kept"),
    ] {
        assert_eq!(judged(revisions_never_go_back, text), want, "{text}");
    }
}

#[test]
fn serializable_reads_show_what_existed_and_go_on() {
    let writes = "c1 10..20: put \"k\" \"a\" -> @2 put\nc1 30..40: put \"k\" \"b\" -> @3 put\n";
    for (text, want) in [
        ("c2 via 1 50..60: serializable get \"k\" -> @2 found \"k\" \"a\" @2/2 v1 ;", "kept"),
        ("c2 via 1 50..60: serializable get \"k\" -> @1 found ;", "kept"),
        (
            "c2 via 1 50..60: serializable get \"k\" -> @3 found \"k\" \"a\" @2/2 v1 ;",
            "it shows something that was replaced by its revision",
        ),
        (
            "c2 via 1 50..60: serializable get \"k\" -> @2 found \"k\" \"b\" @2/3 v2 ;",
            "it shows something newer than its revision",
        ),
        (
            "c2 via 1 50..60: serializable get \"k\" -> @2 found ;",
            "it lacks b\"k\", which was there at its revision",
        ),
        (
            "c2 via 1 50..60: serializable get \"j\" -> @3 found ;\n\
             c3 via 1 70..80: serializable get \"j\" -> @2 found ;",
            "a member was at revision 3, and then at 2",
        ),
        (
            "c2 via 1 50..60: serializable get \"j\" -> @3 found ;\n\
             c3 via 2 70..80: serializable get \"j\" -> @2 found ;",
            "kept",
        ),
    ] {
        assert_eq!(judged(serializable_reads, &format!("{writes}{text}")), want, "{text}");
    }
}
