//! How an instance is shown in JSON: its own fields, and the layout that it was found in.

use std::sync::Arc;

use serde::Serialize;
use waypost::model::{Instance, InstanceKey, Layout};

/// An instance and the name of its layout.
#[derive(Serialize)]
pub(super) struct ShownInstance<'a> {
    pub(super) layout: &'static str,
    #[serde(flatten)]
    pub(super) instance: &'a Instance,
}

// === impl ShownInstance ===

impl<'a> ShownInstance<'a> {
    pub(super) fn new(key: &InstanceKey, instance: &'a Instance, layouts: &[Arc<dyn Layout>]) -> Self {
        // A snapshot names layouts by their place in the list that it was read with.
        let layout = layouts.get(usize::from(key.layout)).map_or("", |layout| layout.name());
        Self { layout, instance }
    }
}
