//! Whether one device reaches the memory of another, and how far that is.
//!
//! ```text
//!        host bridge
//!         │       │                 provider and client     hops
//!       port     port               the same function         0
//!        │         │                functions of a device     2   by the bridge above both
//!      switch     card C            two cards at a switch     4   down port, up port, down port
//!      │     │                      under different ports     through the host, if that is known
//!    card A  card B                                           to pass it on
//! ```
//!
//! Nothing is read here: who makes a [`PciTree`] has looked.

#[cfg(test)]
mod tests;

use core::fmt;

/// Why a device does not reach the memory of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum NoPeerPath {
    /// A bridge between the two sends requests up to the host (ACS), which does not pass them on.
    Acs,
    /// Only the host is between the two, and nobody knows that it passes requests on.
    NotListed,
    /// One of them is not on the bus.
    NotPci,
    /// The memory has no addresses on the bus, or nobody said how to get there.
    NoProvider,
}

impl fmt::Display for NoPeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acs => "a bridge sends its requests to the host, which does not pass them on",
            Self::NotListed => "the host between them is not known to pass requests on",
            Self::NotPci => "one of them is not on the bus",
            Self::NoProvider => "the memory is not known on the bus",
        })
    }
}

/// How a device reaches the memory of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PeerPath {
    /// It is its own.
    SameFunction,
    /// By bridges, at addresses of the bus, which nobody translates.
    BusAddress {
        /// Bridges and devices on the way.
        hops: u32,
    },
    /// By the host, which translates where it does for the device.
    ThroughHost {
        /// Bridges and devices on the way.
        hops: u32,
    },
    /// It does not.
    NotSupported {
        /// Why.
        reason: NoPeerPath,
    },
}

impl PeerPath {
    /// How far it is; none where nothing gets.
    #[must_use]
    pub const fn hops(self) -> Option<u32> {
        match self {
            Self::SameFunction => Some(0),
            Self::BusAddress { hops } | Self::ThroughHost { hops } => Some(hops),
            Self::NotSupported { .. } => None,
        }
    }

    /// Whether it gets there.
    #[must_use]
    pub const fn is_supported(self) -> bool {
        self.hops().is_some()
    }
}

impl fmt::Display for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameFunction => f.write_str("the same function"),
            Self::BusAddress { hops } => write!(f, "{hops} hops on the bus"),
            Self::ThroughHost { hops } => write!(f, "{hops} hops, through the host"),
            Self::NotSupported { reason } => write!(f, "no way: {reason}"),
        }
    }
}

/// Whether a host bridge is on the list of those that pass requests of one device on to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Listed {
    /// It is not.
    No,
    /// Between its own devices only.
    Own,
    /// Also to and from other bridges that are on the list.
    Any,
}

/// A host bridge of a [`PciTree`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PciHost(usize);

/// A bridge or a function of a [`PciTree`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PciNode(usize);

#[derive(Clone, Copy, Debug)]
struct Node {
    parent: Option<usize>,
    host: usize,
    redirects: bool,
}

/// The bridges and functions of a machine.
///
/// ```
/// use ttm::dma::{Listed, NoPeerPath, PciTree, PeerPath};
///
/// let mut tree = PciTree::new(false);
/// let host = tree.host(Listed::No);
/// let port = tree.bridge(host, false);
/// let switch = tree.below(port, false);
/// let cards: Vec<_> = (0..2)
///     .map(|_| {
///         let down = tree.below(switch, false);
///         tree.below(down, false)
///     })
///     .collect();
/// assert_eq!(tree.path(Some(cards[0]), Some(cards[1])), PeerPath::BusAddress { hops: 4 });
///
/// // A card at another port of a host that nobody vouches for.
/// let port = tree.bridge(host, false);
/// let far = tree.below(port, false);
/// let reason = NoPeerPath::NotListed;
/// assert_eq!(tree.path(Some(cards[0]), Some(far)), PeerPath::NotSupported { reason });
/// ```
#[derive(Clone, Debug)]
pub struct PciTree {
    /// Every host bridge of such a processor passes requests on.
    zen: bool,
    hosts: Vec<Listed>,
    nodes: Vec<Node>,
}

impl PciTree {
    /// An empty one. `zen` says whether the processor is an AMD Zen or later.
    #[must_use]
    pub const fn new(zen: bool) -> Self {
        Self {
            zen,
            hosts: Vec::new(),
            nodes: Vec::new(),
        }
    }

    /// Adds a host bridge.
    pub fn host(&mut self, listed: Listed) -> PciHost {
        self.hosts.push(listed);
        PciHost(self.hosts.len() - 1)
    }

    /// Adds a bridge, or a function, right below a host bridge of this tree. `redirects` says whether
    /// it sends requests between those below it up to the host.
    ///
    /// # Panics
    /// If the host is another tree's, and this one has fewer.
    pub fn bridge(&mut self, host: PciHost, redirects: bool) -> PciNode {
        assert!(host.0 < self.hosts.len(), "{host:?} is of another tree");
        self.add(Node {
            parent: None,
            host: host.0,
            redirects,
        })
    }

    /// Adds a bridge, or a function, below a bridge of this tree.
    ///
    /// # Panics
    /// If the bridge is another tree's, and this one has fewer.
    pub fn below(&mut self, bridge: PciNode, redirects: bool) -> PciNode {
        let above = self.nodes.get(bridge.0);
        let host = above.expect("a bridge of this tree").host;
        self.add(Node {
            parent: Some(bridge.0),
            host,
            redirects,
        })
    }

    fn add(&mut self, node: Node) -> PciNode {
        self.nodes.push(node);
        PciNode(self.nodes.len() - 1)
    }

    /// How `client` reaches the memory of `provider`; none is a device that is not on the bus.
    #[must_use]
    pub fn path(&self, provider: Option<PciNode>, client: Option<PciNode>) -> PeerPath {
        let known = |node: Option<PciNode>| node.filter(|node| node.0 < self.nodes.len());
        let (Some(provider), Some(client)) = (known(provider), known(client)) else {
            let reason = NoPeerPath::NotPci;
            return PeerPath::NotSupported { reason };
        };
        if provider == client {
            return PeerPath::SameFunction;
        }
        let (from, to) = (self.up(provider), self.up(client));
        let meet = from
            .iter()
            .enumerate()
            .find_map(|(n, node)| Some((n, to.iter().position(|other| other == node)?)));
        let (mut hops, mut reason) = (from.len() + to.len(), NoPeerPath::NotListed);
        if let Some((up, down)) = meet {
            hops = up + down;
            let redirects = |node: &usize| self.nodes[*node].redirects;
            let common = core::iter::once(&from[up]);
            let mut between = from[..up].iter().chain(&to[..down]).chain(common);
            if !between.any(redirects) {
                let hops = count(hops);
                return PeerPath::BusAddress { hops };
            }
            reason = NoPeerPath::Acs;
        }
        let hops = count(hops);
        match self.passes_on(self.nodes[provider.0].host, self.nodes[client.0].host) {
            true => PeerPath::ThroughHost { hops },
            false => PeerPath::NotSupported { reason },
        }
    }

    /// The node, the bridge above it, and so on.
    fn up(&self, node: PciNode) -> Vec<usize> {
        let above = |node: &usize| self.nodes[*node].parent;
        core::iter::successors(Some(node.0), above).collect()
    }

    fn passes_on(&self, one: usize, other: usize) -> bool {
        match (self.hosts[one], self.hosts[other]) {
            _ if self.zen => true,
            (Listed::No, _) | (_, Listed::No) => false,
            (Listed::Any, Listed::Any) => true,
            _ => one == other,
        }
    }
}

fn count(hops: usize) -> u32 {
    u32::try_from(hops).unwrap_or(u32::MAX)
}
