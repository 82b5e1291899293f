//! Environment variables as a source of options: our own name first, then etcdctl's.

/// The environment. Variables that are empty count as not set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment {
    lookup: fn(&str) -> Option<String>,
}

// === impl Environment ===

impl Environment {
    /// That of this process.
    pub(crate) fn of_process() -> Self {
        Self { lookup: |name| std::env::var(name).ok() }
    }

    #[cfg(test)]
    pub(crate) fn of(lookup: fn(&str) -> Option<String>) -> Self {
        Self { lookup }
    }

    /// `WAYPOST_{name}`.
    pub(crate) fn own(self, name: &str) -> Option<String> {
        self.get(&format!("WAYPOST_{name}"))
    }

    /// `WAYPOST_{name}`, then `ETCDCTL_{name}`.
    pub(crate) fn own_or_etcdctl(self, name: &str) -> Option<String> {
        self.own(name).or_else(|| self.get(&format!("ETCDCTL_{name}")))
    }

    fn get(self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.is_empty())
    }
}
