//! The endpoints that a picker is built for.

use crate::EndpointState;
use crate::vitals::Vitals;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The endpoints that have a connection, in the order of their addresses: what a [`Policy`](crate::Policy) builds a picker for, which
/// answers indices into it. Cheap to clone; clones share it, until one of them is changed.
#[derive(Clone, Default)]
pub struct Roster(Arc<Lists>);

/// The same endpoint has the same place in both.
#[derive(Clone, Default)]
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

    /// Puts one before that at `at`, or at the end: where the order of addresses has it.
    ///
    /// # Panics
    /// If `at` is more than there are, as that of [`Vec::insert`].
    pub fn insert(&mut self, at: usize, endpoint: Arc<EndpointState>) {
        let lists = Arc::make_mut(&mut self.0);
        lists.vitals.insert(at, endpoint.vitals());
        lists.endpoints.insert(at, endpoint);
    }

    /// Puts one in the place of that at `at`, which is returned. It is to have the same address, or one in the same place of the order.
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

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.endpoints.fmt(f)
    }
}

/// Without a copy, if there is no other clone.
impl From<Roster> for Vec<Arc<EndpointState>> {
    fn from(roster: Roster) -> Self {
        match Arc::try_unwrap(roster.0) {
            Ok(lists) => lists.endpoints,
            Err(shared) => shared.endpoints.clone(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::fleet;
    use proptest::prelude::*;
    use std::time::Instant;

    /// Of the same endpoints, in the same order.
    fn agree(roster: &Roster) -> bool {
        let places = |(one, other): (&&Vitals, &Arc<EndpointState>)| std::ptr::eq(*one, other.vitals());
        roster.len() == roster.vitals().len() && roster.vitals().iter().zip(&**roster).all(places)
    }

    proptest! {
        /// Each a change, the place that it is made at, and whether a clone is kept of what was before.
        #[test]
        fn what_picks_read_is_that_of_the_endpoints_whatever_is_changed(
            changes in prop::collection::vec((0..3, any::<prop::sample::Index>(), any::<bool>()), 1..40),
        ) {
            let mut fresh = fleet(40, Instant::now()).into_iter();
            let mut roster: Roster = fresh.by_ref().take(3).collect();
            let mut model: Vec<_> = roster.to_vec();
            let mut kept = Vec::new();
            for (change, at, keeps) in changes {
                if keeps {
                    kept.push((roster.clone(), model.clone()));
                }
                match (change, fresh.next()) {
                    (0, Some(newcomer)) => {
                        let at = at.index(model.len() + 1);
                        model.insert(at, Arc::clone(&newcomer));
                        roster.insert(at, newcomer);
                    }
                    (1, Some(newcomer)) if !model.is_empty() => {
                        let at = at.index(model.len());
                        let before = std::mem::replace(&mut model[at], Arc::clone(&newcomer));
                        prop_assert!(Arc::ptr_eq(&roster.replace(at, newcomer), &before));
                    }
                    (2, _) if !model.is_empty() => {
                        let at = at.index(model.len());
                        prop_assert!(Arc::ptr_eq(&roster.remove(at), &model.remove(at)));
                    }
                    _ => {}
                }
                let now = (&roster, &model);
                for (roster, model) in kept.iter().map(|(roster, model)| (roster, model)).chain([now]) {
                    prop_assert!(agree(roster));
                    prop_assert!(roster.iter().map(Arc::as_ptr).eq(model.iter().map(Arc::as_ptr)));
                }
                let shared = kept.iter().any(|(before, _)| Arc::ptr_eq(&before.0, &roster.0));
                prop_assert_eq!(roster.is_shared(), shared);
            }
            let model: Vec<_> = model.iter().map(Arc::as_ptr).collect();
            let endpoints: Vec<_> = roster.into();
            prop_assert!(endpoints.iter().map(Arc::as_ptr).eq(model));
        }
    }
}
