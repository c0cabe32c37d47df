//! `DrainNode`: a node watches nothing more, and goes on voting. Who watches instead is the shard
//! controller's to say.

use crate::{
    applied::{Answer, Refusal, Reply},
    command::{Drain, DrainNode},
    state::State,
};

pub(super) fn apply(state: &mut State, command: &DrainNode) -> Answer {
    let DrainNode { node, drain } = command;
    let others_stay =
        state.nodes.iter().any(|(id, other)| id != node && other.live && other.stays());
    let known = state
        .nodes
        .get_mut(node)
        .ok_or_else(|| Refusal::NotFound(format!("{node}: it has not registered")))?;
    let (now, wanted) = match drain {
        Drain::Begin => {
            if !known.drained && !others_stay {
                let text = format!(
                    "no live node but {node} may watch: bring another back, or undo its drain, first"
                );
                return Err(Refusal::IllegalState(text));
            }
            (&mut known.drained, true)
        }
        Drain::End => (&mut known.drained, false),
        Drain::Leave(boot) => {
            if *boot != known.boot {
                let text = format!("{node} has started again since: it is {} now", known.boot);
                return Err(Refusal::IllegalState(text));
            }
            (&mut known.leaving, true)
        }
    };
    if std::mem::replace(now, wanted) == wanted {
        return Ok(Reply::Noted("already so".to_owned()));
    }
    Ok(Reply::Done)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        codec,
        command::{Command, MarkNode, NODE_WEIGHT_DEFAULT, NODE_WEIGHT_MAX, RegisterNode},
        ids::{BootId, NodeId},
        law::tests::lab::*,
    };

    fn drain(node: u64, drain: Drain) -> Command {
        Command::DrainNode(DrainNode { node: NodeId(node), drain })
    }

    fn register(node: u64, boot: u64, weight: Option<u32>) -> Command {
        Command::RegisterNode(RegisterNode {
            node: NodeId(node),
            region: "eu".into(),
            api_addr: String::new(),
            boot: BootId(boot),
            version: "x".into(),
            understands: Some(crate::CLUSTER_VERSION),
            weight,
        })
    }

    fn of(lab: &Lab, node: u64) -> (bool, bool, u32) {
        let known = &lab.state.nodes[&NodeId(node)];
        (known.drained, known.leaving, known.weight)
    }

    #[test]
    fn a_drain_outlives_a_restart_and_ends_when_it_is_taken_back() {
        let mut lab = Lab::new();
        lab.root(drain(2, Drain::Begin)).unwrap();
        assert!(of(&lab, 2).0 && !lab.state.nodes[&NodeId(2)].stays());
        assert_eq!(lab.root(drain(2, Drain::Begin)), Ok(Reply::Noted("already so".into())));
        lab.node(2, register(2, 9, None)).unwrap();
        assert!(of(&lab, 2).0, "an operator's word outlives a restart");
        lab.root(drain(2, Drain::End)).unwrap();
        assert_eq!(lab.root(drain(2, Drain::End)), Ok(Reply::Noted("already so".into())));
        assert!(lab.state.nodes[&NodeId(2)].stays());
    }

    #[test]
    fn somebody_is_left_to_watch() {
        let mut lab = Lab::new();
        lab.root(drain(1, Drain::Begin)).unwrap();
        let last = lab.root(drain(2, Drain::Begin));
        assert!(matches!(&last, Err(Refusal::IllegalState(why)) if why.contains("node-2")));
        lab.root(drain(1, Drain::End)).unwrap();
        lab.node(1, Command::MarkNode(MarkNode { node: NodeId(1), live: false })).unwrap();
        assert!(lab.root(drain(2, Drain::Begin)).is_err(), "the other one is away");
        assert!(matches!(lab.root(drain(9, Drain::Begin)), Err(Refusal::NotFound(_))));
    }

    #[test]
    fn a_node_leaves_for_itself_and_until_it_starts_again() {
        let mut lab = Lab::new();
        let leave = |boot| drain(2, Drain::Leave(BootId(boot)));
        assert!(matches!(lab.node(1, leave(2)), Err(Refusal::Denied { .. })));
        assert!(matches!(lab.root(leave(2)), Err(Refusal::Denied { .. })));
        lab.node(2, leave(2)).unwrap();
        assert_eq!(of(&lab, 2), (false, true, NODE_WEIGHT_DEFAULT));
        lab.node(2, register(2, 3, None)).unwrap();
        assert!(!of(&lab, 2).1);
        let late = lab.node(2, leave(2));
        assert!(matches!(&late, Err(Refusal::IllegalState(why)) if why.contains("started again")));
    }

    #[test]
    fn only_who_has_the_cluster_permission_drains() {
        let mut lab = Lab::new();
        for who in [Drain::Begin, Drain::End] {
            assert!(matches!(lab.node(1, drain(2, who)), Err(Refusal::Denied { .. })));
            assert!(matches!(lab.user("mallory", drain(2, who)), Err(Refusal::Denied { .. })));
        }
    }

    #[test]
    fn a_weight_is_kept_where_none_is_said_and_bounded() {
        let mut lab = Lab::new();
        assert_eq!(of(&lab, 2).2, NODE_WEIGHT_DEFAULT);
        lab.node(2, register(2, 3, Some(250))).unwrap();
        lab.node(2, register(2, 4, None)).unwrap();
        assert_eq!(of(&lab, 2).2, 250);
        lab.node(2, register(2, 5, Some(u32::MAX))).unwrap();
        assert_eq!(of(&lab, 2).2, NODE_WEIGHT_MAX);
        lab.node(2, register(2, 5, Some(0))).unwrap();
        assert_eq!(of(&lab, 2).2, 0);
    }

    #[test]
    fn below_command_set_8_nothing_is_drained_and_no_weight_is_said() {
        let mut lab = Lab::new();
        lab.state.cluster_version = 7;
        let early = lab.root(drain(2, Drain::Begin));
        assert!(matches!(&early, Err(Refusal::IllegalState(why)) if why.contains("version 8")));
        let early = lab.node(2, register(2, 3, Some(50)));
        assert!(matches!(&early, Err(Refusal::IllegalState(why)) if why.contains("version 8")));
        lab.node(2, register(2, 3, None)).unwrap();
    }

    #[test]
    fn a_weight_is_one_field_more_and_without_it_nothing_is() {
        let (said, none) = (register(2, 3, Some(250)), register(2, 3, None));
        assert_eq!((said.since(), none.since()), (8, 1));
        let (Command::RegisterNode(said), Command::RegisterNode(none)) = (said, none) else {
            panic!("they register");
        };
        let (with, without) = (codec::encode(&said), codec::encode(&none));
        assert_eq!((without[0], with[0]), (0x86, 0x87), "fields");
        assert_eq!(with[1..], [&without[1..], &[0x18, 0xfa]].concat());
        assert_eq!(codec::decode::<RegisterNode>(&with).unwrap(), said);
    }
}
