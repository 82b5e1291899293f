//! What is read and how: a scope, the layouts in the order of preference, and the spans of keys that follow from them.

use std::fmt;
use std::sync::Arc;

use waypost_model::{Instance, InstanceKey, KeySpan, Layout, PartKey, Scope, ServiceName};

/// The layouts of one reader, and the spans that it reads for its scope.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) scope: Scope,
    pub(crate) layouts: Vec<Arc<dyn Layout>>,
    pub(crate) spans: Vec<Span>,
    /// By layout: how keys spell the service of the scope. Empty for the catalog.
    spelled: Vec<ServiceName>,
}

/// One range of keys, written in one layout.
#[derive(Debug)]
pub(crate) struct Span {
    /// Index in the reader's layouts.
    pub(crate) layout: u8,
    pub(crate) keys: KeySpan,
}

/// The catalog was asked for, and a layout has no prefix that bounds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "layout {layout} with prefix {prefix:?} has no catalog: its services are not under a prefix of their own"
)]
#[non_exhaustive]
pub struct NoCatalog {
    /// The layout that cannot.
    pub layout: &'static str,
    /// The prefix that it was given.
    pub prefix: String,
}

// === impl Reader ===

impl Reader {
    /// More layouts than this are not read.
    const MAX_LAYOUTS: usize = 256;

    pub(crate) fn service(service: ServiceName, layouts: &[Arc<dyn Layout>]) -> Self {
        let spans = numbered(layouts)
            .flat_map(|(index, layout)| {
                layout.service_spans(&service).into_iter().map(move |keys| Span { layout: index, keys })
            })
            .collect();
        let spelled = used(layouts).iter().map(|layout| layout.service_in_key(&service)).collect();
        Self { scope: Scope::Service(service), layouts: used(layouts), spans, spelled }
    }

    pub(crate) fn catalog(layouts: &[Arc<dyn Layout>]) -> Result<Self, NoCatalog> {
        let spans = numbered(layouts)
            .map(|(index, layout)| match layout.catalog_span() {
                Some(keys) => Ok(Span { layout: index, keys }),
                None => Err(NoCatalog { layout: layout.name(), prefix: layout.prefix().to_owned() }),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { scope: Scope::Catalog, layouts: used(layouts), spans, spelled: Vec::new() })
    }

    /// The layout of a span.
    pub(crate) fn layout(&self, span: usize) -> Option<(u8, &Arc<dyn Layout>)> {
        let index = self.spans.get(span)?.layout;
        Some((index, self.layouts.get(usize::from(index))?))
    }

    /// The identity of the instance whose key says `part`; `None` when it is of a service outside the scope: a
    /// prefix such as `services/hello/` also covers the service `hello/world`.
    ///
    /// Shares the name with the scope: an allocation less per instance.
    pub(crate) fn instance_key(&self, layout: u8, part: PartKey) -> Option<InstanceKey> {
        let service = match &self.scope {
            Scope::Catalog => part.service,
            Scope::Service(service) => {
                let spelled = self.spelled.get(usize::from(layout))?;
                (*spelled == part.service).then(|| service.clone())?
            }
        };
        Some(InstanceKey { service, id: part.id, layout })
    }

    /// Whether an instance belongs to the scope: its value may name another service than its key.
    pub(crate) fn wants(&self, instance: &Instance) -> bool {
        match &self.scope {
            Scope::Service(service) => instance.service == *service,
            Scope::Catalog => true,
        }
    }
}

/// `layout grpc, prefix services` or `layouts grpc (prefix services), kratos (prefix /microservices)`.
pub(crate) fn describe(layouts: &[Arc<dyn Layout>]) -> String {
    match layouts {
        [] => "no layout".to_owned(),
        [one] => format!("layout {}, prefix {}", one.name(), Shown(one.prefix())),
        many => {
            let each: Vec<String> = many
                .iter()
                .map(|layout| format!("{} (prefix {})", layout.name(), Shown(layout.prefix())))
                .collect();
            format!("layouts {}", each.join(", "))
        }
    }
}

fn numbered(layouts: &[Arc<dyn Layout>]) -> impl Iterator<Item = (u8, &Arc<dyn Layout>)> {
    (0..=u8::MAX).zip(layouts)
}

fn used(layouts: &[Arc<dyn Layout>]) -> Vec<Arc<dyn Layout>> {
    layouts.iter().take(Reader::MAX_LAYOUTS).cloned().collect()
}

/// An empty prefix is said, not shown as nothing.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("(none)") } else { f.write_str(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use waypost_model::{layout, parse_layouts};

    use super::*;

    #[test]
    fn a_layout_without_catalog_is_named() {
        let layouts = parse_layouts("grpc,fields", None).unwrap();
        let error = Reader::catalog(&layouts).unwrap_err();
        assert_eq!(error.layout, "fields");
        assert!(error.to_string().starts_with("layout fields with prefix \"\" has no catalog"), "{error}");
        let bare = layout("grpc", Some("")).unwrap();
        assert!(Reader::catalog(&[bare]).is_err());
        assert_eq!(Reader::catalog(&layouts[..1]).unwrap().spans.len(), 1);
    }

    #[test]
    fn what_is_read_is_described() {
        assert_eq!(describe(&parse_layouts("grpc", None).unwrap()), "layout grpc, prefix services");
        assert_eq!(
            describe(&parse_layouts("kratos,fields", None).unwrap()),
            "layouts kratos (prefix /microservices), fields (prefix (none))"
        );
    }

    #[test]
    fn a_service_is_known_by_how_its_layout_spells_it() {
        let layouts = [layout("go-micro", None).unwrap()];
        let reader = Reader::service("a/b".parse().unwrap(), &layouts);
        let part = layouts[0].identify(b"/micro/registry/a-b/node").unwrap();
        let key = reader.instance_key(0, part).unwrap();
        assert_eq!(key.service.as_str(), "a/b");
        let other = layouts[0].identify(b"/micro/registry/a-c/node").unwrap();
        assert_eq!(reader.instance_key(0, other), None);
    }
}
