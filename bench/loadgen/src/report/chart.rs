//! Drawing: lines or bars between two axes, as one `<svg>` element.
//!
//! Colours are those of a light page; [`dark_colors`] says what a dark page replaces them with. Text is left to whoever
//! shows the SVG, so no font is needed here. Legends are not part of a picture: the page writes them beside it.

use std::io;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Axis, Scale};
use super::grid::escape;
use super::number;

/// Size of a chart in its own units; the page scales it.
const SIZE: (u32, u32) = (480, 280);
/// Height of text; plotters divides it by 1.24.
const TEXT: u32 = 17;
/// Points of a line beyond which it is thinned out.
const POINTS_MAX: usize = 800;
/// Points of a line up to which each is marked.
const MARKS_MAX: usize = 40;

/// A colour on a light page and on a dark one.
type Pair = (RGBColor, RGBColor);

/// Colours of series, to be told apart with any colour vision in this order.
const SERIES: [Pair; 8] = [
    (RGBColor(0x2A, 0x78, 0xD6), RGBColor(0x39, 0x87, 0xE5)),
    (RGBColor(0xEB, 0x68, 0x34), RGBColor(0xD9, 0x59, 0x26)),
    (RGBColor(0x1B, 0xAF, 0x7A), RGBColor(0x19, 0x9E, 0x70)),
    (RGBColor(0xED, 0xA1, 0x00), RGBColor(0xC9, 0x85, 0x00)),
    (RGBColor(0xE8, 0x7B, 0xA4), RGBColor(0xD5, 0x51, 0x81)),
    (RGBColor(0x00, 0x83, 0x00), RGBColor(0x00, 0x99, 0x22)),
    (RGBColor(0x4A, 0x3A, 0xA7), RGBColor(0x90, 0x85, 0xE9)),
    (RGBColor(0xE3, 0x49, 0x48), RGBColor(0xE6, 0x67, 0x67)),
];
const INK: Pair = (RGBColor(0x52, 0x51, 0x4E), RGBColor(0xC3, 0xC2, 0xB7));
const LINE: Pair = (RGBColor(0xE1, 0xE0, 0xD9), RGBColor(0x3A, 0x3A, 0x38));

/// Series that a chart can hold with a colour for each.
pub(crate) const SERIES_MAX: usize = SERIES.len();

/// Replacements for a dark page, as `#RRGGBB` the way they stand in the SVG.
pub(crate) fn dark_colors() -> impl Iterator<Item = (String, String)> {
    SERIES
        .iter()
        .chain([&INK, &LINE])
        .map(|(light, dark)| (hex(*light), hex(*dark)))
}

fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// A line through points, in the order given; it is broken where a point has no place.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over a common range.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    pub(crate) title: String,
    /// What the horizontal axis shows, with its unit.
    pub(crate) x_name: &'static str,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
    pub(crate) series: Vec<Series>,
}

/// Groups of bars, one bar of a group per name.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) names: Vec<String>,
    /// Label and heights of each group; a bar that is missing leaves its place empty.
    pub(crate) groups: Vec<(String, Vec<Option<f64>>)>,
}

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, position: &f64, (from, to): (i32, i32)) -> i32 {
        let share = (position - self.low) / (self.high - self.low);
        from + (share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The light lines between the ticks are left out.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(position, _)| *position).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, position: &f64) -> String {
        self.label(*position)
    }
}

impl Lines {
    /// The picture, or nothing when no point of any series has a place.
    ///
    /// # Errors
    ///
    /// What plotters fails with; writing into memory does not.
    pub(crate) fn svg(&self) -> io::Result<Option<String>> {
        let lines: Vec<_> = self
            .series
            .iter()
            .map(|series| self.pieces(&series.points))
            .collect();
        let placed = || lines.iter().flatten().flatten();
        if placed().next().is_none() {
            return Ok(None);
        }
        let x = Axis::covering(self.x, placed().map(|point| point.0));
        let y = Axis::covering(self.y, placed().map(|point| point.1));
        picture(&self.title, |root| {
            let mut plane = frame(root, &x, &y, self.x_name)?;
            for (index, pieces) in lines.iter().enumerate() {
                let style = SERIES[index % SERIES.len()].0.stroke_width(2);
                let marked = pieces.iter().map(Vec::len).sum::<usize>() <= MARKS_MAX;
                for piece in pieces {
                    if let [alone] = piece[..] {
                        plane.draw_series([Circle::new(alone, 3, style.filled())])?;
                        continue;
                    }
                    let series = LineSeries::new(piece.iter().copied(), style);
                    plane.draw_series(series)?;
                    if marked {
                        let marks = piece.iter().map(|at| Circle::new(*at, 3, style.filled()));
                        plane.draw_series(marks)?;
                    }
                }
            }
            Ok(())
        })
        .map(Some)
    }

    /// Names of the series that have something to draw, with the index of their colour.
    pub(crate) fn drawn(&self) -> impl Iterator<Item = (usize, &str)> {
        let series = self.series.iter().enumerate();
        series
            .filter(|(_, series)| !self.pieces(&series.points).is_empty())
            .map(|(index, series)| (index, series.name.as_str()))
    }

    /// The line cut where a point has no place, thinned out.
    fn pieces(&self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let placed: Vec<_> = points
            .iter()
            .map(|(x, y)| Some((self.x.position(*x)?, self.y.position(*y)?)))
            .collect();
        let step = points.len().div_ceil(POINTS_MAX / 2);
        placed
            .split(Option::is_none)
            .map(|piece| thin(piece.iter().flatten().copied().collect(), step))
            .filter(|piece| !piece.is_empty())
            .collect()
    }
}

/// The lowest and the highest of every `step` points: a stall of one second stays visible in a day.
fn thin(points: Vec<(f64, f64)>, step: usize) -> Vec<(f64, f64)> {
    if step <= 2 {
        return points;
    }
    let mut kept = Vec::new();
    for chunk in points.chunks(step) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [
            chunk.iter().min_by(by_height),
            chunk.iter().max_by(by_height),
        ];
        let mut ends: Vec<_> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        kept.extend(ends);
    }
    kept
}

impl Bars {
    /// The picture, or nothing when there is no bar.
    ///
    /// # Errors
    ///
    /// What plotters fails with; writing into memory does not.
    pub(crate) fn svg(&self) -> io::Result<Option<String>> {
        let heights = || {
            self.groups
                .iter()
                .flat_map(|(_, heights)| heights.iter().flatten())
                .filter_map(|height| Scale::Linear.position(*height))
        };
        if heights().next().is_none() {
            return Ok(None);
        }
        let y = Axis::covering(Scale::Linear, heights());
        let x = Axis {
            low: 0.0,
            high: self.groups.len() as f64,
            ticks: (0_u32..)
                .zip(&self.groups)
                .map(|(index, (label, _))| (f64::from(index) + 0.5, label.clone()))
                .collect(),
        };
        let slot = 1.0 / (self.names.len() as f64 + 1.0);
        let value_style = text_style().pos(Pos::new(HPos::Center, VPos::Bottom));
        picture(&self.title, |root| {
            let mut plane = frame(root, &x, &y, "")?;
            for (group, (_, heights)) in (0_u32..).zip(&self.groups) {
                for (index, height) in heights.iter().enumerate() {
                    let Some(height) = height.and_then(|height| Scale::Linear.position(height))
                    else {
                        continue;
                    };
                    let left = f64::from(group) + slot * (index as f64 + 0.5);
                    let fill = SERIES[index % SERIES.len()].0.filled();
                    let (inset, middle) = (slot * 0.06, left + slot / 2.0);
                    let corners = [(left + inset, 0.0), (left + slot - inset, height)];
                    plane.draw_series([Rectangle::new(corners, fill)])?;
                    let value = Text::new(number::measure(height), (middle, height), &value_style);
                    plane.draw_series([value])?;
                }
            }
            Ok(())
        })
        .map(Some)
    }
}

fn text_style() -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&INK.0)
}

/// Draws into memory.
fn picture(
    title: &str,
    draw: impl FnOnce(
        &DrawingArea<SVGBackend<'_>, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<io::Error>>,
) -> io::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&root)
            .and_then(|()| root.present())
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    let named = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(title));
    Ok(svg.replacen("<svg ", &named, 1))
}

/// Axes, their labels and a quiet grid.
fn frame<'a, 'b>(
    root: &'a DrawingArea<SVGBackend<'b>, Shift>,
    x: &Axis,
    y: &Axis,
    x_name: &str,
) -> Result<Plane<'a, 'b>, DrawingAreaErrorKind<io::Error>> {
    // The last label of the horizontal axis is centred below the edge, the value of the highest bar stands above it.
    let mut plane = ChartBuilder::on(root)
        .margin_top(22)
        .margin_right(30)
        .x_label_area_size(if x_name.is_empty() { 26 } else { 48 })
        .y_label_area_size(62)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let mut mesh = plane.configure_mesh();
    if x_name.is_empty() {
        mesh.disable_x_mesh();
    }
    mesh.bold_line_style(LINE.0)
        .light_line_style(TRANSPARENT)
        .axis_style(INK.0)
        .label_style(text_style())
        .axis_desc_style(text_style())
        .x_desc(x_name)
        .draw()?;
    Ok(plane)
}
