//! The endpoints that a picker is built for.

use crate::EndpointState;
use std::ops::Deref;
use std::sync::Arc;

/// The endpoints that have a connection, in the order of their addresses: what a [`Policy`](crate::Policy) builds a picker for, which
/// answers indices into it. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<Vec<Arc<EndpointState>>>);

// === impl Roster ===

impl Roster {
    /// The endpoints, if there is no other clone of this: for whoever makes the next roster of a large one, of which a copy takes
    /// longer than a change.
    pub fn into_inner(self) -> Option<Vec<Arc<EndpointState>>> {
        Arc::into_inner(self.0)
    }

    /// Those that are not in `before`, by a look at both in their order, which touches only what differs.
    pub(crate) fn newcomers<'a>(
        &'a self,
        before: &'a [Arc<EndpointState>],
    ) -> impl Iterator<Item = &'a Arc<EndpointState>> {
        let mut before = before.iter().peekable();
        self.iter().filter(move |endpoint| {
            let same = |known: &&Arc<EndpointState>| Arc::ptr_eq(known, endpoint);
            while before.peek().is_some_and(|known| !same(known) && known.endpoint() < endpoint.endpoint()) {
                before.next();
            }
            before.next_if(same).is_none()
        })
    }
}

impl Deref for Roster {
    type Target = [Arc<EndpointState>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<Vec<Arc<EndpointState>>> for Roster {
    fn from(endpoints: Vec<Arc<EndpointState>>) -> Self {
        Self(Arc::new(endpoints))
    }
}

impl From<&[Arc<EndpointState>]> for Roster {
    fn from(endpoints: &[Arc<EndpointState>]) -> Self {
        endpoints.to_vec().into()
    }
}

impl FromIterator<Arc<EndpointState>> for Roster {
    fn from_iter<I: IntoIterator<Item = Arc<EndpointState>>>(endpoints: I) -> Self {
        endpoints.into_iter().collect::<Vec<_>>().into()
    }
}
