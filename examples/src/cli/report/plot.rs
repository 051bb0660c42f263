//! Residency over time as an SVG: one stacked area for each memory type.
//!
//! The file names generic fonts only, so neither drawing nor viewing needs particular ones.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::atomic_file::AtomicFile;

const SIZE: (u32, u32) = (1200, 600);

/// More points than pixels show nothing more and make the file large.
const MAX_SAMPLES: usize = 1500;

/// Okabe and Ito's palette, which colour-blind readers tell apart.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

/// What to draw.
#[derive(Clone, Debug, Default)]
pub struct Residency {
    /// The line above the picture.
    pub title: String,
    /// The memory types, from the bottom up.
    pub names: Vec<String>,
    /// Seconds since the run began, rising, and GiB resident in each memory type from then on.
    pub samples: Vec<(f64, Vec<f64>)>,
}

impl Residency {
    /// Draws the picture to `path`.
    ///
    /// # Errors
    /// The file can't be written, and is then as it was.
    pub fn write(&self, path: &Path) -> Result<()> {
        let svg = self.svg()?;
        let mut file = AtomicFile::create(path)?;
        file.write_all(svg.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.commit()
    }

    /// The picture as SVG text.
    fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(SVGBackend::with_string(&mut svg, SIZE))
            .map_err(|error| anyhow!("cannot draw residency: {error}"))?;
        Ok(svg)
    }

    fn draw(&self, backend: SVGBackend<'_>) -> Result<(), Box<dyn std::error::Error + '_>> {
        let area = backend.into_drawing_area();
        area.fill(&WHITE)?;
        let heights = self.stacked();
        let seconds = heights.last().map_or(1.0, |(at, _)| at.max(1e-9));
        let tops = heights.iter().filter_map(|(_, tops)| tops.last());
        let top = tops.fold(0.0f64, |most, top| most.max(*top));
        let top = if top > 0.0 { top * 1.08 } else { 1.0 };

        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, ("sans-serif", 24))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..seconds, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc("time (s)")
            .y_desc("resident (GiB)")
            .axis_desc_style(("sans-serif", 18))
            .label_style(("sans-serif", 14))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(224, 224, 224))
            .draw()?;
        // The highest stack first: each lower one covers its own part.
        for (index, name) in self.names.iter().enumerate().rev() {
            let colour = COLOURS[index % COLOURS.len()];
            let line = heights.iter().map(|(at, tops)| (*at, tops[index]));
            chart
                .draw_series(AreaSeries::new(line, 0.0, light(colour)).border_style(colour))?
                .label(name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 6), (x + 16, y + 6)], colour.filled())
                });
        }
        if !self.names.is_empty() {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperLeft)
                .background_style(WHITE)
                .border_style(RGBColor(160, 160, 160))
                .label_font(("sans-serif", 16))
                .draw()?;
        }
        area.present()?;
        Ok(())
    }

    /// The upper edge of each memory type's area, as steps; thinned to [`MAX_SAMPLES`].
    fn stacked(&self) -> Vec<(f64, Vec<f64>)> {
        let mut steps: Vec<(f64, Vec<f64>)> = Vec::new();
        let every = self.samples.len().div_ceil(MAX_SAMPLES).max(1);
        // The last of each bucket, so that the end of the run is always drawn.
        for bucket in self.samples.chunks(every) {
            let Some((at, values)) = bucket.last() else {
                continue;
            };
            let mut sum = 0.0;
            let value = |index| {
                values
                    .get(index)
                    .copied()
                    .filter(|value: &f64| value.is_finite())
            };
            let tops = (0..self.names.len()).map(|index| {
                sum += value(index).unwrap_or(0.0);
                sum
            });
            let tops: Vec<f64> = tops.collect();
            if let Some((_, before)) = steps.last().cloned() {
                steps.push((*at, before));
            }
            steps.push((*at, tops));
        }
        steps
    }
}

/// A colour mixed with white. Opaque, for areas lie one over the other.
fn light(colour: RGBColor) -> RGBColor {
    let mix = |part: u8| ((u16::from(part) + 255) / 2) as u8;
    RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Folder;

    fn residency(samples: usize) -> Residency {
        let sample = |index: usize| (index as f64 / 100.0, vec![1.0, (index % 7) as f64]);
        Residency {
            title: "Residency of <frames> & more".into(),
            names: vec!["vram".into(), "system".into()],
            samples: (0..samples).map(sample).collect(),
        }
    }

    #[test]
    fn the_picture_has_title_axes_with_units_and_a_legend() {
        let svg = residency(50).svg().unwrap();
        for text in [
            "time (s)",
            "resident (GiB)",
            "vram",
            "system",
            "&lt;frames&gt; &amp; more",
        ] {
            assert!(svg.contains(text), "{text} in {svg}");
        }
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn nothing_one_sample_and_zeros_are_drawn_too() {
        for samples in 0..3 {
            assert!(residency(samples).svg().is_ok());
        }
        assert!(Residency::default().svg().is_ok());
        let flat = Residency {
            samples: vec![(0.0, vec![0.0, f64::NAN]), (0.0, vec![])],
            ..residency(0)
        };
        assert!(flat.svg().is_ok());
    }

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_end() {
        let steps = residency(1_000_000).stacked();
        assert!(steps.len() <= 2 * MAX_SAMPLES, "{}", steps.len());
        assert_eq!(steps.last().unwrap().0, 999_999.0 / 100.0);
    }

    #[test]
    fn memory_types_are_stacked_from_the_bottom_up() {
        let steps = residency(3).stacked();
        assert_eq!(steps.first().unwrap().1, [1.0, 1.0]);
        assert_eq!(steps.last().unwrap().1, [1.0, 3.0]);
    }

    #[test]
    fn the_file_appears_under_its_name() {
        let folder = Folder::new("plot");
        residency(9).write(&folder.file("out.svg")).unwrap();
        assert_eq!(folder.names(), ["out.svg"]);
    }
}
