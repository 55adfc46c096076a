//! The picture: calls per instance over time, and what happened when.

use std::{fmt::Write as _, time::Duration};

use crate::{
    books::{BUCKET, Happening, Mark, Pages, Way, name_of},
    options::Mode,
};

const WIDTH: f64 = 1_100.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 70.0;
const LANE: f64 = 110.0;
const GAP: f64 = 34.0;

/// By [`Way`]; told apart without colour too, by lightness.
const FILLS: [(&str, &str); 3] = [
    ("#1b6ca8", "HTTP/1"),
    ("#56b4e9", "HTTP/2"),
    ("#b8dff5", "gRPC"),
];
const FAILED: &str = "#c8102e";

/// Where things lie.
struct Sheet {
    svg: String,
    seconds: f64,
    /// Calls in a bucket that fill a lane.
    most: f64,
}

/// An SVG document: a lane for each provider, answers of each 100 ms in it by the way they came,
/// a line for each thing that happened to it, and below what failed.
pub(crate) fn draw(pages: &Pages, mode: Mode) -> String {
    let providers = pages.answers.len();
    let end = pages
        .calls
        .iter()
        .map(|call| call.ended)
        .max()
        .unwrap_or(BUCKET);
    let in_buckets = pages
        .answers
        .iter()
        .flatten()
        .map(|ways| ways.iter().sum::<u32>());
    let mut sheet = Sheet {
        svg: String::new(),
        seconds: (end + BUCKET).as_secs_f64(),
        most: f64::from(in_buckets.max().unwrap_or(1).max(1)),
    };
    let height = TOP + (LANE + GAP) * providers as f64 + 100.0;
    sheet.open(height, pages, mode);
    for (provider, buckets) in pages.answers.iter().enumerate() {
        let bottom = TOP + (LANE + GAP) * provider as f64 + LANE;
        sheet.lane(provider, bottom, buckets);
        for mark in pages.marks.iter().filter(|mark| mark.provider == provider) {
            sheet.mark(mark, bottom);
        }
    }
    sheet.failures(
        TOP + (LANE + GAP) * providers as f64 + 40.0,
        &pages.failures,
    );
    sheet.axis(height - 22.0);
    sheet.svg.push_str("</svg>\n");
    sheet.svg
}

impl Sheet {
    fn x(&self, at: Duration) -> f64 {
        LEFT + at.as_secs_f64() / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn open(&mut self, height: f64, pages: &Pages, mode: Mode) {
        let how = match mode {
            Mode::Graceful => "told to go: deregister, mark, linger, drain, exit",
            Mode::Kill => "kill -9",
        };
        let _ = write!(
            self.svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        let title = format!(
            "Rolling restart ({how}): {} calls, {} failed",
            pages.calls.len(),
            pages.failed
        );
        self.text(LEFT, 24.0, "font-size=\"16\" font-weight=\"bold\"", &title);
        let mut x = LEFT;
        for (fill, name) in FILLS {
            let _ = writeln!(
                self.svg,
                "<rect x=\"{x}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{fill}\"/>"
            );
            self.text(x + 17.0, 46.0, "", name);
            x += 80.0;
        }
        let per = format!(
            "answers of each instance, in each {} ms",
            BUCKET.as_millis()
        );
        self.text(x, 46.0, "fill=\"#666\"", &per);
    }

    fn lane(&mut self, provider: usize, bottom: f64, buckets: &[[u32; 3]]) {
        let name = name_of(provider).to_string();
        self.text(
            20.0,
            bottom - LANE / 2.0,
            "font-size=\"16\" font-weight=\"bold\"",
            &name,
        );
        let end = self.x(Duration::from_secs_f64(self.seconds));
        let _ = writeln!(
            self.svg,
            "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{end:.1}\" y2=\"{bottom}\" stroke=\"#999\"/>"
        );
        let width = self.x(BUCKET) - LEFT;
        for way in [Way::Http1, Way::Http2, Way::Grpc] {
            // One path for all bars of a way: small, and drawn at once.
            let mut path = String::new();
            for (at, ways) in buckets.iter().enumerate() {
                let below: u32 = ways[..way as usize].iter().sum();
                let scale = |calls: u32| f64::from(calls) / self.most * LANE;
                let (x, y) = (self.x(BUCKET * at as u32), bottom - scale(below));
                let _ = match ways[way as usize] {
                    0 => Ok(()),
                    n => write!(
                        path,
                        "M{x:.1} {y:.1}h{width:.2}v{:.1}h-{width:.2}z",
                        -scale(n)
                    ),
                };
            }
            let _ = writeln!(
                self.svg,
                "<path d=\"{path}\" fill=\"{}\"/>",
                FILLS[way as usize].0
            );
        }
    }

    fn mark(&mut self, mark: &Mark, bottom: f64) {
        let (stroke, dash, row) = match mark.what {
            Happening::Offline => ("#e08a00", "4 3", 0.0),
            Happening::Killed => (FAILED, "", 0.0),
            Happening::Evicted => ("#222", "", 1.0),
            Happening::Marked => ("#7b2d8b", "", 1.0),
            Happening::LastCall => ("#1b6ca8", "1 3", 2.0),
            Happening::Exited => ("#888", "2 3", 3.0),
            Happening::Returned => ("#2a8f3c", "4 3", 0.0),
        };
        let x = self.x(mark.at);
        let (top, label) = (bottom - LANE - 4.0, bottom - LANE + 8.0 + 14.0 * row);
        let _ = writeln!(
            self.svg,
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"{stroke}\" \
             stroke-width=\"1.5\" stroke-dasharray=\"{dash}\"/>"
        );
        // A seam around the letters, as they may lie on bars and lines.
        let style = format!(
            "fill=\"{stroke}\" font-size=\"11\" paint-order=\"stroke\" stroke=\"#fff\" \
             stroke-width=\"3\""
        );
        self.text(x + 3.0, label, &style, mark.what.text());
    }

    fn failures(&mut self, bottom: f64, failures: &[u32]) {
        self.text(8.0, bottom, &format!("fill=\"{FAILED}\""), "failed");
        for (at, n) in failures.iter().enumerate().filter(|(_, n)| **n > 0) {
            let x = self.x(BUCKET * at as u32);
            let height = f64::from(*n).sqrt() * 8.0;
            let _ = writeln!(
                self.svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"3\" height=\"{height:.1}\" fill=\"{FAILED}\"/>",
                bottom - height
            );
            self.text(
                x + 5.0,
                bottom,
                &format!("fill=\"{FAILED}\""),
                &n.to_string(),
            );
        }
        if failures.is_empty() {
            self.text(LEFT, bottom, "", "none");
        }
    }

    fn axis(&mut self, y: f64) {
        let step = if self.seconds > 20.0 { 5 } else { 1 };
        for second in (0..=self.seconds as u64).step_by(step) {
            let x = self.x(Duration::from_secs(second));
            if x > WIDTH - 30.0 {
                break;
            }
            self.text(x, y, "fill=\"#666\"", &format!("{second} s"));
        }
    }

    fn text(&mut self, x: f64, y: f64, style: &str, text: &str) {
        let _ = writeln!(
            self.svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{text}</text>"
        );
    }
}
