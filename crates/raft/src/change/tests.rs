use super::*;

fn single(change_type: ConfChangeType, id: u64) -> ConfChangeSingle {
    ConfChangeSingle::new(change_type, id)
}

#[test]
fn notation_reads_and_writes_the_same() {
    use ConfChangeType::*;
    for (text, changes) in [
        ("", vec![]),
        ("v1", vec![single(AddNode, 1)]),
        (
            "v1 l2 r3 u4",
            vec![
                single(AddNode, 1),
                single(AddLearnerNode, 2),
                single(RemoveNode, 3),
                single(UpdateNode, 4),
            ],
        ),
        ("r18446744073709551615", vec![single(RemoveNode, u64::MAX)]),
    ] {
        assert_eq!(conf_changes_from_string(text).as_ref(), Ok(&changes), "{text:?}");
        assert_eq!(conf_changes_to_string(&changes), text);
    }
    assert_eq!(conf_changes_from_string(" \n v1 \t"), Ok(vec![single(AddNode, 1)]));
}

#[test]
fn notation_refuses_with_the_texts_of_etcd() {
    for (text, error) in [
        ("v", "unknown token v"),
        ("v1  v2", "unknown token "),
        ("x1", "unknown input: x1"),
        ("é", "unknown input: é"),
        ("v1 vx", "strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("v+1", "strconv.ParseUint: parsing \"+1\": invalid syntax"),
        ("v-1", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
        (
            "l18446744073709551616",
            "strconv.ParseUint: parsing \"18446744073709551616\": value out of range",
        ),
    ] {
        let got = conf_changes_from_string(text).expect_err(text);
        assert_eq!(got.to_string(), error);
    }
}

#[test]
fn changes_are_described_by_type() {
    use ConfChangeType::*;
    let changes = [
        single(AddNode, 1),
        single(RemoveNode, 26),
        single(UpdateNode, 3),
        single(AddLearnerNode, 4),
    ];
    assert_eq!(
        describe_conf_changes(&changes),
        "ConfChangeAddNode(1) ConfChangeRemoveNode(26) ConfChangeUpdateNode(3) \
         ConfChangeAddLearnerNode(4)"
    );
    assert_eq!(describe_conf_changes(&[]), "");
}

#[test]
fn transition_and_count_decide_how_a_change_is_made() {
    use ConfChangeTransition::*;
    let one = vec![single(ConfChangeType::AddNode, 1)];
    let two = vec![single(ConfChangeType::AddNode, 1), single(ConfChangeType::AddNode, 2)];
    for (transition, changes, context, enter, leave) in [
        (None, &vec![], "", None, true),
        (Some(Auto), &vec![], "", None, true),
        (Some(Auto), &vec![], "word", None, true),
        (Some(JointImplicit), &vec![], "", Some(true), false),
        (Some(JointExplicit), &vec![], "", Some(false), false),
        (None, &one, "", None, false),
        (Some(Auto), &one, "word", None, false),
        (Some(JointImplicit), &one, "", Some(true), false),
        (Some(JointExplicit), &one, "", Some(false), false),
        (None, &two, "", Some(true), false),
        (Some(Auto), &two, "", Some(true), false),
        (Some(JointImplicit), &two, "", Some(true), false),
        (Some(JointExplicit), &two, "", Some(false), false),
    ] {
        let change = ConfChangeV2 {
            transition,
            changes: changes.clone(),
            context: Bytes::copy_from_slice(context.as_bytes()),
        };
        assert_eq!(change.enter_joint(), enter, "{change:?}");
        assert_eq!(change.leave_joint(), leave, "{change:?}");
    }
}

#[test]
fn first_form_reads_as_the_second() {
    let first = ConfChange {
        id: 7,
        change_type: ConfChangeType::AddLearnerNode,
        node_id: NodeId(2),
        context: Bytes::from_static(b"x"),
    };
    let second = ConfChangeV2 {
        transition: None,
        changes: vec![single(ConfChangeType::AddLearnerNode, 2)],
        context: Bytes::from_static(b"x"),
    };
    let any = AnyConfChange::from(first.clone());
    assert_eq!(any.as_v1(), Some(&first));
    assert_eq!(any.as_v2(), second);
    let any = AnyConfChange::from(second.clone());
    assert_eq!(any.as_v1(), None);
    assert_eq!(any.as_v2(), second);
}
