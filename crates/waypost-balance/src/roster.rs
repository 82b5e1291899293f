//! The endpoints that a picker is built for.

use crate::EndpointState;
use crate::vitals::Vitals;
use std::ops::Deref;
use std::sync::Arc;

/// The endpoints that have a connection, in the order of their addresses: what a [`Policy`](crate::Policy) builds a picker for, which
/// answers indices into it. Cheap to clone; clones share it, until one of them is changed.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<Lists>);

/// The same endpoint has the same place in both.
#[derive(Debug, Clone, Default)]
struct Lists {
    endpoints: Vec<Arc<EndpointState>>,
    /// Those of the endpoints, which keep them theirs.
    vitals: Vec<&'static Vitals>,
}

// === impl Roster ===

impl Roster {
    /// Whether there is another clone of this, so that a change would have to copy it: of a large one a copy takes longer than a change.
    pub fn is_shared(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_none()
    }

    /// Puts one before that at `at`, or at the end.
    ///
    /// # Panics
    /// If `at` is more than there are, as that of [`Vec::insert`].
    pub fn insert(&mut self, at: usize, endpoint: Arc<EndpointState>) {
        let lists = Arc::make_mut(&mut self.0);
        lists.vitals.insert(at, endpoint.vitals());
        lists.endpoints.insert(at, endpoint);
    }

    /// Puts one in the place of that at `at`, which is returned.
    ///
    /// # Panics
    /// If there is none.
    pub fn replace(&mut self, at: usize, endpoint: Arc<EndpointState>) -> Arc<EndpointState> {
        let lists = Arc::make_mut(&mut self.0);
        lists.vitals[at] = endpoint.vitals();
        std::mem::replace(&mut lists.endpoints[at], endpoint)
    }

    /// Takes that at `at` out.
    ///
    /// # Panics
    /// If there is none.
    pub fn remove(&mut self, at: usize) -> Arc<EndpointState> {
        let lists = Arc::make_mut(&mut self.0);
        lists.vitals.remove(at);
        lists.endpoints.remove(at)
    }

    /// What a pick reads of each.
    pub(crate) fn vitals(&self) -> &[&'static Vitals] {
        &self.0.vitals
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
        &self.0.endpoints
    }
}

impl From<Vec<Arc<EndpointState>>> for Roster {
    fn from(endpoints: Vec<Arc<EndpointState>>) -> Self {
        let vitals = endpoints.iter().map(|endpoint| endpoint.vitals()).collect();
        Self(Arc::new(Lists { endpoints, vitals }))
    }
}

/// Without a copy, if there is no other clone.
impl From<Roster> for Vec<Arc<EndpointState>> {
    fn from(roster: Roster) -> Self {
        Arc::unwrap_or_clone(roster.0).endpoints
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
