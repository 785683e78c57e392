//! Histories as a person wrote them, with the verdict that a person gave.

use crate::operation::{History, Outcome};
use crate::verdict::{Verdict, linearizable};
use crate::{revisions, search};

/// Name, verdict, history, and what the explanation must say.
const HISTORIES: &[(&str, Option<&str>, &str)] = &[
    ("nothing happened", None, ""),
    (
        "a read that overlaps a put may see either: new",
        None,
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 15..25: get "k" -> @2 found "k" "a" @2/2 v1 ;"#,
    ),
    (
        "a read that overlaps a put may see either: old",
        None,
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 15..25: get "k" -> @1 found ;"#,
    ),
    (
        "what touches has overlapped",
        None,
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 20..25: get "k" -> @1 found ;"#,
    ),
    (
        "stale read",
        Some("was answered before"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: get "k" -> @1 found ;"#,
    ),
    (
        "stale read under a fresh revision",
        Some("which revision 3 replaced"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c1 21..22: put "k" "b" -> @3 put
           c2 30..40: get "k" -> @3 found "k" "a" @2/2 v1 ;"#,
    ),
    (
        "new, then old",
        Some("was answered before"),
        r#"c1 10..50: put "k" "a" -> @2 put
           c2 15..20: get "k" -> @2 found "k" "a" @2/2 v1 ;
           c3 25..30: get "k" -> @1 found ;"#,
    ),
    (
        "lost update: both conditions held",
        Some("the store would have answered @"),
        r#"c1 10..20: if modified "k" = 0 then put "k" "a" -> @2 put
           c2 10..20: if modified "k" = 0 then put "k" "b" -> @3 put"#,
    ),
    (
        "lost update: an acknowledged put is gone",
        Some("the store would have answered"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: get "k" -> @2 found ;"#,
    ),
    (
        "two puts with one revision",
        Some("two changes made revision 2"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 10..20: put "j" "b" -> @2 put"#,
    ),
    (
        "double apply of an acknowledged put",
        Some("at most 1 changes were made"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: get "k" -> @3 found "k" "a" @2/3 v2 ;"#,
    ),
    (
        "double apply with a revision that something else may have made",
        Some("it shows what nobody wrote"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c3 10..?: put "j" "c"
           c2 30..40: get "k" -> @3 found "k" "a" @2/3 v2 ;"#,
    ),
    (
        "double apply of an unknown put",
        Some("one write made both"),
        r#"c1 10..?: put "k" "a"
           c3 10..?: put "k" "b"
           c2 30..40: get "k" -> @2 found "k" "a" @2/2 v1 ;
           c2 50..60: get "k" -> @3 found "k" "a" @2/3 v2 ;"#,
    ),
    (
        "read of what was never written",
        Some("the store would have answered"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: get "k" -> @2 found "k" "z" @2/2 v1 ;"#,
    ),
    (
        "read of what is written later",
        Some("at most 0 changes were made"),
        r#"c2 10..20: get "k" -> @2 found "k" "a" @2/2 v1 ;
           c1 30..40: put "k" "a" -> @2 put"#,
    ),
    (
        "an unknown put takes effect late",
        None,
        r#"c1 10..?: put "k" "late"
           c2 20..30: put "k" "b" -> @2 put
           c2 40..50: get "k" -> @2 found "k" "b" @2/2 v1 ;
           c2 60..70: get "k" -> @3 found "k" "late" @2/3 v2 ;"#,
    ),
    (
        "an unknown put takes effect once only",
        Some("@"),
        r#"c1 10..?: put "k" "late"
           c2 20..30: get "k" -> @2 found "k" "late" @2/2 v1 ;
           c2 40..50: put "k" "b" -> @3 put
           c2 60..70: get "k" -> @4 found "k" "late" @2/4 v3 ;"#,
    ),
    (
        "an unknown put is never seen",
        None,
        r#"c1 10..?: put "k" "a"
           c2 20..30: get "k" -> @1 found ;"#,
    ),
    (
        "an unknown put cannot be undone",
        Some("was answered before"),
        r#"c1 10..?: put "k" "a"
           c2 20..30: get "k" -> @2 found "k" "a" @2/2 v1 ;
           c2 40..50: get "k" -> @1 found ;"#,
    ),
    (
        "a refused put is seen",
        Some("at most 0 changes were made"),
        r#"c1 10..!: put "k" "a"
           c2 20..30: get "k" -> @2 found "k" "a" @2/2 v1 ;"#,
    ),
    (
        "writes of different clients in the wrong order",
        Some("at most 1 changes were made"),
        r#"c1 10..20: put "k" "a" -> @3 put
           c2 30..40: put "k" "b" -> @2 put"#,
    ),
    (
        "a transaction on a stale compare",
        Some("the store would have answered @3 no"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 21..22: put "k" "b" -> @3 put
           c3 30..40: if modified "k" = 2 then put "k" "c" -> @4 put"#,
    ),
    (
        "a transaction that ought to have succeeded",
        Some("the store would have answered @3 put"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c3 30..40: if value "k" = "a" then put "k" "c" else get "k" -> @2 no found "k" "a" @2/2 v1 ;"#,
    ),
    (
        "half a transaction is seen",
        Some("the store would have answered"),
        r#"c1 10..20: put "a" "1" also put "b" "1" -> @2 put put
           c2 12..18: range "a" "z" -> @2 found "a" "1" @2/2 v1 ;"#,
    ),
    (
        "a delete of what another one has deleted",
        Some("the store would have answered"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: delete "k" -> @3 deleted 1
           c3 50..60: delete "k" -> @4 deleted 1"#,
    ),
    (
        "a key comes back from the dead",
        Some("the store would have answered"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 30..40: delete "k" -> @3 deleted 1
           c3 50..60: get "k" -> @3 found "k" "a" @2/2 v1 ;"#,
    ),
    (
        "a version that was counted twice",
        Some("the store would have answered"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c3 50..60: get "k" -> @2 found "k" "a" @2/2 v2 ;"#,
    ),
    (
        "a version tells which of two gaps was whose",
        None,
        r#"c1 10..?: put "k" "x"
           c1 11..?: put "j" "y"
           c2 20..30: put "k" "b" -> @3 put
           c2 40..50: put "j" "c" -> @5 put
           c1 12..?: put "j" "z"
           c3 60..70: get "k" -> @5 found "k" "b" @2/3 v2 ;
           c3 60..70: get "j" -> @5 found "j" "c" @4/5 v2 ;"#,
    ),
    (
        "a version that no way to fill the gaps explains",
        Some("whatever made the 2 revisions that no answer claims"),
        r#"c1 10..?: put "k" "x"
           c1 11..?: put "j" "y"
           c1 12..?: put "j" "z"
           c2 20..30: put "k" "b" -> @3 put
           c2 40..50: put "j" "c" -> @5 put
           c3 60..70: get "k" -> @5 found "k" "b" @2/3 v2 ;
           c3 60..70: get "j" -> @5 found "j" "c" @2/5 v3 ;"#,
    ),
    (
        "an unknown delete explains an absence",
        None,
        r#"c1 10..20: put "k" "a" -> @2 put
           c2 15..?: delete "k"
           c3 50..60: get "k" -> @3 found ;"#,
    ),
    (
        "an unknown delete that was asked too late does not",
        Some("at most 1 changes were made"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c3 50..60: get "k" -> @3 found ;
           c2 65..?: delete "k""#,
    ),
    (
        "the former value that a put replaced is another",
        Some("which revision 3 replaced"),
        r#"c1 10..20: put "k" "a" -> @2 put
           c1 30..40: put "k" "b" -> @3 put
           c2 50..60: put "k" "c" -> @4 put replaced "k" "a" @2/2 v1 ;"#,
    ),
    (
        "a revision that nobody made",
        Some("at most 1 changes were made"),
        r#"c1 10..20: put "k" "a" -> @7 put"#,
    ),
    (
        "what was there at the beginning",
        None,
        r#"initial @9 "k" "a" @5/9 v3
           c1 10..20: get "k" -> @9 found "k" "a" @5/9 v3 ;
           c1 30..40: put "k" "b" -> @10 put replaced "k" "a" @5/9 v3 ;"#,
    ),
    (
        "an answer from before the beginning",
        Some("before the first"),
        r#"initial @9
           c1 10..20: get "k" -> @8 found ;"#,
    ),
];

fn is_good(verdict: &Verdict) -> bool {
    assert!(!matches!(verdict, Verdict::Undecided { .. }));
    *verdict == Verdict::Linearizable
}

#[test]
fn verdicts_are_those_of_a_person() {
    let mut is_told = true;
    for (name, want, text) in HISTORIES {
        let history: History = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        let verdict = linearizable(&history);
        match (want, &verdict) {
            (None, Verdict::Linearizable) => {}
            (Some(why), Verdict::Violated(violation)) => {
                let told = violation.to_string();
                if !told.contains(why) {
                    println!("{name} is explained by: {told}");
                    is_told = false;
                }
                assert!(!violation.operations.is_empty(), "{name} shows operations");
            }
            _ => panic!("{name}: {verdict:?}"),
        }
        let alone = [revisions::judge(&history, u64::MAX), search::judge(&history, u64::MAX)];
        for verdict in alone {
            assert_eq!(is_good(&verdict), want.is_none(), "{name}: {verdict:?}");
        }
    }
    assert!(is_told, "explanations are what a person would say");
}

/// The same without revisions, where the verdict does not rest on them.
#[test]
fn verdicts_without_revisions_are_those_of_a_person() {
    for (name, want) in [
        ("stale read", false),
        ("new, then old", false),
        ("lost update: an acknowledged put is gone", false),
        ("a read that overlaps a put may see either: old", true),
        ("read of what was never written", false),
        ("read of what is written later", false),
        ("an unknown put takes effect late", true),
        ("an unknown put takes effect once only", false),
        ("an unknown put cannot be undone", false),
        ("a refused put is seen", false),
        ("half a transaction is seen", false),
        ("a key comes back from the dead", false),
        ("a delete of what another one has deleted", false),
        ("writes of different clients in the wrong order", true),
        ("double apply of an acknowledged put", true),
        ("an unknown delete explains an absence", true),
    ] {
        let (_, _, text) = HISTORIES.iter().find(|(it, ..)| *it == name).unwrap();
        let mut history: History = text.parse().unwrap();
        for operation in &mut history.operations {
            if let Outcome::Answered { response, .. } = &mut operation.outcome {
                *response = response.clone().without_revisions();
            }
        }
        assert_eq!(is_good(&linearizable(&history)), want, "{name}");
    }
}

#[test]
fn the_story_is_the_shortest_one() {
    let mut text = String::new();
    for number in 0..50 {
        let (from, to) = (number * 10, number * 10 + 5);
        let revision = number + 2;
        text.push_str(&format!("c1 {from}..{to}: put \"k\" \"v{number}\" -> @{revision} put\n"));
    }
    text.push_str("c2 123..128: get \"k\" -> @10 found \"k\" \"v8\" @2/10 v9 ;\n");
    text.push_str("c2 203..208: get \"k\" -> @11 found \"k\" \"v9\" @2/11 v10 ;\n");
    let Verdict::Violated(violation) = linearizable(&text.parse().unwrap()) else { panic!() };
    let told: Vec<_> = violation.operations.iter().map(|it| (it.client, it.invoked_at)).collect();
    assert_eq!(
        told,
        [(1, 90), (2, 123)],
        "the first stale read, and the put that it missed: {violation}"
    );
}

#[test]
fn answers_that_are_none_are_violations() {
    for (text, why) in [
        ("c1 10..20: get \"k\" -> @1 put", "does not fit"),
        ("c1 10..20: get \"k\" -> @1 no found ;", "does not fit"),
        ("c1 10..20: get \"k\" -> @1", "does not fit"),
        ("c1 10..9: get \"k\" -> @1 found ;", "before it was asked"),
        ("c1 10..11: get \"k\" -> @18446744073709551615 found ;", "at most 0 changes"),
    ] {
        let history: History = text.parse().unwrap();
        let Verdict::Violated(violation) = linearizable(&history) else { panic!("{text}") };
        assert!(violation.why.contains(why), "{text}: {violation}");
    }
}
