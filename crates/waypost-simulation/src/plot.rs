//! The plot of `docs/balancing.md`: latency by load, for each policy.

use crate::Conduct;
use crate::report::{SEEDS, median, policies, quantile, run};
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

/// Parts of what the servers can do, in percent.
const LOADS: [u32; 12] = [10, 20, 30, 40, 50, 60, 65, 70, 75, 80, 85, 90];
/// What ten servers with four workers can do, in calls a second.
const CAPACITY: f64 = 4_000.0;
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x44, 0x77, 0xaa),
    RGBColor(0x88, 0x88, 0x88),
    RGBColor(0xcc, 0xbb, 0x44),
    RGBColor(0x22, 0x88, 0x33),
    RGBColor(0xee, 0x66, 0x77),
    RGBColor(0xaa, 0x33, 0x77),
    RGBColor(0x66, 0xcc, 0xee),
];

/// Writes the plot as SVG: the 99th percentile by load, where all servers are alike, and where one of ten is five times as slow.
///
/// Fails where the file cannot be written.
pub fn plot(file: &Path) -> Result<(), Box<dyn Error + '_>> {
    let root = SVGBackend::new(file, (960, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let halves = root.split_evenly((1, 2));
    for (half, (title, slowness)) in halves
        .iter()
        .zip([("ten servers that are alike", 1.0), ("one of the ten is five times as slow", 5.0)])
    {
        let mut chart = ChartBuilder::on(half)
            .caption(title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(10_u32..90, (10.0..5_000.0).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("load, percent of what the servers can do")
            .y_desc("99th percentile, ms")
            .y_label_formatter(&|value| format!("{value:.0}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (policy, colour) in policies().iter().zip(COLOURS) {
            let points = LOADS.map(|load| {
                let rate = CAPACITY * f64::from(load) / 100.0;
                let figures = SEEDS.map(|seed| {
                    let simulation = run(&**policy, seed, rate, Conduct::Works(slowness), None);
                    quantile(&simulation.ended, 99) * 1e3
                });
                (load, median(figures).clamp(10.0, 5_000.0))
            });
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(policy.name())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    root.present()?;
    Ok(())
}
