use super::super::dice::Dice;
use super::*;

/// A host bridge with a port, a switch behind it, and two cards at that.
fn switched(tree: &mut PciTree, host: PciHost, redirects: bool) -> [PciNode; 2] {
    let port = tree.bridge(host, false);
    let switch = tree.below(port, false);
    [(); 2].map(|()| {
        let down = tree.below(switch, redirects);
        tree.below(down, false)
    })
}

#[test]
fn a_function_reaches_itself_at_no_distance() {
    let mut tree = PciTree::new(false);
    let host = tree.host(Listed::No);
    let card = tree.bridge(host, false);
    assert_eq!(tree.path(Some(card), Some(card)), PeerPath::SameFunction);
    assert_eq!(PeerPath::SameFunction.hops(), Some(0));
}

#[test]
fn functions_of_a_device_are_two_hops_apart() {
    let mut tree = PciTree::new(false);
    let host = tree.host(Listed::No);
    let port = tree.bridge(host, false);
    let functions = [tree.below(port, false), tree.below(port, false)];
    let path = tree.path(Some(functions[0]), Some(functions[1]));
    assert_eq!(path, PeerPath::BusAddress { hops: 2 });
}

#[test]
fn cards_at_a_switch_are_four_hops_apart() {
    let mut tree = PciTree::new(false);
    let host = tree.host(Listed::No);
    let [a, b] = switched(&mut tree, host, false);
    assert_eq!(
        tree.path(Some(a), Some(b)),
        PeerPath::BusAddress { hops: 4 }
    );
}

#[test]
fn redirected_requests_go_through_the_host_or_nowhere() {
    for (zen, listed, passes) in [
        (false, Listed::No, false),
        (false, Listed::Own, true),
        (false, Listed::Any, true),
        (true, Listed::No, true),
    ] {
        let mut tree = PciTree::new(zen);
        let host = tree.host(listed);
        let [a, b] = switched(&mut tree, host, true);
        let expected = match passes {
            true => PeerPath::ThroughHost { hops: 4 },
            false => PeerPath::NotSupported {
                reason: NoPeerPath::Acs,
            },
        };
        assert_eq!(tree.path(Some(a), Some(b)), expected);
    }
}

#[test]
fn without_a_common_bridge_both_hosts_have_to_be_known() {
    let all = [Listed::No, Listed::Own, Listed::Any];
    for (one, other) in all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))) {
        let mut tree = PciTree::new(false);
        let hosts = [tree.host(one), tree.host(other)];
        let cards = hosts.map(|host| {
            let port = tree.bridge(host, false);
            tree.below(port, false)
        });
        let path = tree.path(Some(cards[0]), Some(cards[1]));
        let expected = match (one, other) {
            (Listed::Any, Listed::Any) => PeerPath::ThroughHost { hops: 4 },
            _ => PeerPath::NotSupported {
                reason: NoPeerPath::NotListed,
            },
        };
        assert_eq!(path, expected, "{one:?} {other:?}");
    }
}

#[test]
fn two_ports_of_one_listed_host_are_joined_by_it() {
    let mut tree = PciTree::new(false);
    let host = tree.host(Listed::Own);
    let cards = [(); 2].map(|()| {
        let port = tree.bridge(host, false);
        tree.below(port, false)
    });
    let path = tree.path(Some(cards[0]), Some(cards[1]));
    assert_eq!(path, PeerPath::ThroughHost { hops: 4 });
}

#[test]
fn what_is_not_on_the_bus_is_reached_by_nobody() {
    let mut tree = PciTree::new(true);
    let host = tree.host(Listed::Any);
    let card = tree.bridge(host, false);
    let reason = NoPeerPath::NotPci;
    for (a, b) in [
        (None, Some(card)),
        (Some(card), None),
        (Some(PciNode(9)), Some(card)),
    ] {
        assert_eq!(tree.path(a, b), PeerPath::NotSupported { reason });
    }
}

/// In random trees: both ways are the same, and a redirecting bridge more never opens a way or
/// makes one shorter.
#[test]
fn paths_are_symmetric_and_redirection_only_narrows() {
    let mut dice = Dice::new(7);
    for _ in 0..300 {
        let mut tree = PciTree::new(dice.below(4) == 0);
        let listed = [Listed::No, Listed::Own, Listed::Any];
        let hosts: Vec<_> = (0..=dice.below(2))
            .map(|_| tree.host(listed[dice.below(3) as usize]))
            .collect();
        let mut nodes = Vec::new();
        for n in 0..2 + dice.below(10) {
            let top = n == 0 || dice.below(3) == 0;
            let node = match top {
                true => tree.bridge(hosts[dice.below(hosts.len() as u64) as usize], false),
                false => tree.below(nodes[dice.below(n) as usize], false),
            };
            nodes.push(node);
        }
        let mut redirected = tree.clone();
        redirected.nodes[dice.below(nodes.len() as u64) as usize].redirects = true;
        for a in &nodes {
            for b in &nodes {
                let (path, back) = (tree.path(Some(*a), Some(*b)), tree.path(Some(*b), Some(*a)));
                assert_eq!(path, back);
                let narrowed = redirected.path(Some(*a), Some(*b));
                assert!(path.is_supported() || !narrowed.is_supported());
                if let PeerPath::BusAddress { .. } = narrowed {
                    assert_eq!(narrowed, path);
                }
            }
        }
    }
}
