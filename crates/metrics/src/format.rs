/// Format in which metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads.
    Prometheus,
}

impl Format {
    /// Format that a request's `Accept` header prefers; the older one where it does not say.
    pub fn accepted(accept: &str) -> Self {
        let ranges: Vec<Range> = accept.split(',').filter_map(Range::parse).collect();
        // The narrowest range that a format is in counts, whatever the wider ones say.
        let quality = |names: &[&str]| {
            let best = |name: &&str| ranges.iter().filter(|r| r.media == *name).map(|r| r.quality).reduce(f32::max);
            names.iter().find_map(best).unwrap_or(0.0)
        };
        let open = quality(&["application/openmetrics-text", "application/*"]);
        if open > 0.0 && open >= quality(&["text/plain", "text/*", "*/*"]) {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        }
    }

    /// Media type of the format.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Media types that a client takes, and how gladly, 0 to 1.
struct Range {
    media: String,
    quality: f32,
}

impl Range {
    /// `None` for a version of OpenMetrics that is not written here.
    fn parse(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut quality = 1.0;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                "version" if media == "application/openmetrics-text" && value.trim_matches('"') != "1.0.0" => {
                    return None;
                }
                _ => {}
            }
        }
        Some(Self { media, quality })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_is_taken_and_the_older_one_otherwise() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("application/json", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("application/openmetrics-text;version=1.0.0;q=0", Format::Prometheus),
            ("application/openmetrics-text;version=1.0.0;q=x", Format::Prometheus),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0.3,text/plain;q=2", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.3,text/plain;q=NaN", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.3,text/plain;q=0.1,*/*", Format::OpenMetrics),
            ("application/openmetrics-text;q=0,application/*", Format::Prometheus),
            ("application/*", Format::OpenMetrics),
            ("application/*,*/*;q=0.1", Format::OpenMetrics),
            // What Prometheus 2 and 3 send.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept}");
        }
    }
}
