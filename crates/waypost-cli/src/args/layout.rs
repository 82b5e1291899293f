//! Which layouts, and under which prefix.

use std::sync::Arc;

use clap::Args;
use waypost::model::{Layout, parse_layouts};

use super::{Environment, UsageError};

/// How instances are written in etcd.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Layout")]
pub(crate) struct LayoutArgs {
    /// How instances are written in etcd; a comma-separated list reads several [env: WAYPOST_LAYOUT] [default: grpc]
    #[arg(long, value_name = "NAMES")]
    pub(crate) layout: Option<String>,
    /// The part of the keys before the service, where it is not the layout's own (grpc: services) [env: WAYPOST_PREFIX]
    #[arg(long, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
}

// === impl LayoutArgs ===

impl LayoutArgs {
    /// These, and what they do not say from `outer`, which stood before the command, then from the environment.
    pub(crate) fn or(self, outer: &Self, environment: Environment) -> Self {
        Self {
            layout: self.layout.or_else(|| outer.layout.clone()).or_else(|| environment.own("LAYOUT")),
            prefix: self.prefix.or_else(|| outer.prefix.clone()).or_else(|| environment.own("PREFIX")),
        }
    }

    /// The layouts to read.
    pub(crate) fn several(&self) -> Result<Vec<Arc<dyn Layout>>, UsageError> {
        parse_layouts(self.layout.as_deref().unwrap_or("grpc"), self.prefix.as_deref())
            .map_err(|error| UsageError(error.to_string()))
    }

    /// The layout to write.
    pub(crate) fn one(&self) -> Result<Arc<dyn Layout>, UsageError> {
        let mut layouts = self.several()?;
        match (layouts.pop(), layouts.is_empty()) {
            (Some(layout), true) => Ok(layout),
            _ => Err(UsageError("an instance is written in one layout: name one with --layout".to_owned())),
        }
    }

    /// Whether nothing is said.
    pub(crate) fn is_empty(&self) -> bool {
        self.layout.is_none() && self.prefix.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_says_what_holds() {
        let args = |layout: Option<&str>, prefix: Option<&str>| LayoutArgs {
            layout: layout.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
        };
        let environment = Environment::of(|name| (name == "WAYPOST_PREFIX").then(|| "from-env".to_owned()));
        let merged = args(None, Some("inner")).or(&args(Some("grpc"), Some("outer")), environment);
        assert_eq!((merged.layout.as_deref(), merged.prefix.as_deref()), (Some("grpc"), Some("inner")));
        let merged = args(None, None).or(&args(None, None), environment);
        assert_eq!(merged.prefix.as_deref(), Some("from-env"));
        assert_eq!(merged.one().unwrap().prefix(), "from-env");
        assert!(args(Some("nonsense"), None).several().is_err());
    }
}
