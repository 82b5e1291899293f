//! Prometheus' text format 0.0.4, which etcd serves, out of `OpenMetrics`, which is all that the library writes.
//!
//! They differ in what stands above the values of a counter (there its family, here the name of its series), and in the last
//! line. <https://prometheus.io/docs/instrumenting/exposition_formats/>

/// Rewrites a page.
pub(super) fn from_open_metrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut write = |parts: &[&str]| {
        out.extend(parts.iter().copied().chain(["\n"]));
    };
    let mut help = None;
    for line in page.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            write(&[line]);
            continue;
        };
        if let Some(of_family) = comment.strip_prefix("HELP ") {
            help = of_family.split_once(' ');
        } else if let Some((family, kind)) =
            comment.strip_prefix("TYPE ").and_then(|family| family.split_once(' '))
        {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take().filter(|(of, _)| *of == family) {
                write(&["# HELP ", family, suffix, " ", text]);
            }
            write(&["# TYPE ", family, suffix, " ", kind]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_counter_is_told_of_its_series() {
        let open = "# HELP puts Keys that were put.\n# TYPE puts counter\n# UNIT puts keys\nputs_total{of=\"a\"} 3\n\
                    # HELP size Bytes.\n# TYPE size gauge\nsize 1.5\n# TYPE nothing counter\n# EOF\n";
        let classic = "# HELP puts_total Keys that were put.\n# TYPE puts_total counter\nputs_total{of=\"a\"} 3\n\
                       # HELP size Bytes.\n# TYPE size gauge\nsize 1.5\n# TYPE nothing_total counter\n";
        assert_eq!(from_open_metrics(open), classic);
    }
}
