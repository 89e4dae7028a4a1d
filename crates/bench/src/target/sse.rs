//! Server-sent events as servers write them, well or badly (WHATWG HTML, section 9.2.6).

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// The longest line and the longest event that are taken, bytes.
const MAX_BYTES: usize = 4 << 20;

/// An event with data.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type, empty if none is told.
    pub kind: String,
    /// Its data; several lines are joined by line breaks.
    pub data: String,
}

/// Events of a body.
pub(crate) struct SseEvents<R: Read> {
    body: BufReader<R>,
    /// No line has been read.
    is_first: bool,
    /// The last line ended in CR: a LF that follows belongs to it.
    after_cr: bool,
}

impl<R: Read> SseEvents<R> {
    pub(crate) fn new(body: R) -> Self {
        Self { body: BufReader::with_capacity(16 << 10, body), is_first: true, after_cr: false }
    }

    /// The next event with data; `None` at the end of the body. An event that the end cuts off between two lines is given too.
    ///
    /// # Errors
    /// The body cannot be read; `InvalidData` if a line or an event is longer than any should be, or is not UTF-8.
    pub(crate) fn next(&mut self) -> io::Result<Option<SseEvent>> {
        let (mut event, mut has_data) = (SseEvent::default(), false);
        while let Some(line) = self.line()? {
            if line.is_empty() {
                if has_data {
                    return Ok(Some(event));
                }
                event.kind.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "data" => {
                    if event.data.len() + value.len() > MAX_BYTES {
                        return Err(too_long("an event"));
                    }
                    if has_data {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                    has_data = true;
                }
                "event" => value.clone_into(&mut event.kind),
                // Comments, `id`, `retry`, and fields that do not exist.
                _ => {}
            }
        }
        Ok(has_data.then_some(event))
    }

    /// The next line without its end, which is LF, CR or both; `None` at the end of the body.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let bytes = match self.body.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if bytes.is_empty() {
                return if line.is_empty() { Ok(None) } else { self.text(line).map(Some) };
            }
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                self.body.consume(1);
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let taken = end.unwrap_or(bytes.len());
            if line.len() + taken > MAX_BYTES {
                return Err(too_long("a line"));
            }
            line.extend_from_slice(&bytes[..taken]);
            self.after_cr = end.is_some_and(|end| bytes[end] == b'\r');
            self.body.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                return self.text(line).map(Some);
            }
        }
    }

    fn text(&mut self, line: Vec<u8>) -> io::Result<String> {
        let text =
            String::from_utf8(line).map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))?;
        let mark = if std::mem::take(&mut self.is_first) { text.strip_prefix('\u{feff}') } else { None };
        Ok(mark.map(str::to_owned).unwrap_or(text))
    }
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{what} of the stream is longer than {MAX_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives at most so many bytes at a time.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    fn read(body: impl Read) -> io::Result<Vec<(String, String)>> {
        let mut events = SseEvents::new(body);
        let mut all = Vec::new();
        while let Some(event) = events.next()? {
            all.push((event.kind, event.data));
        }
        Ok(all)
    }

    fn data(body: &str) -> Vec<String> {
        read(body.as_bytes()).unwrap().into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let body = ": hello\n\ndata: {\"a\":1}\n\nevent: error\nid: 7\ndata:no space\ndata:  two\n\nretry: 5\n\ndata: [DONE]\n\n";
            let events = read(body.replace('\n', end).as_bytes()).unwrap();
            let expected = [("", "{\"a\":1}"), ("error", "no space\n two"), ("", "[DONE]")];
            assert_eq!(events, expected.map(|(kind, data)| (kind.to_owned(), data.to_owned())), "{end:?}");
        }
    }

    #[test]
    fn what_is_odd_but_allowed_is_taken() {
        assert_eq!(
            data("\u{feff}data: a\n\n\n\n\ndata: b\n"),
            ["a", "b"],
            "a byte order mark, empty lines, no last empty line"
        );
        assert_eq!(data("data\n\ndata:\n\n"), ["", ""], "no colon, no value");
        assert_eq!(data("data: cut"), ["cut"], "no end of the line");
        assert_eq!(data("event: ping\n\ndata: x\n\n"), ["x"]);
        assert_eq!(data(""), [""; 0]);
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_takes_memory() {
        let endless = b"data: ".chain(io::repeat(b'x'));
        assert_eq!(read(endless).unwrap_err().kind(), ErrorKind::InvalidData);
        let many = "data: 0123456789\n".repeat(MAX_BYTES / 10 + 1);
        assert!(read(many.as_bytes()).unwrap_err().to_string().contains("an event"));
        assert_eq!(read(&b"data: \xff\n\n"[..]).unwrap_err().kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            lines in prop::collection::vec("(data|event|)(:| :|)[ a-zß]{0,6}|", 0..12), ends in prop::collection::vec(0usize..3, 12), piece in 1usize..9,
        ) {
            let body: String = lines.iter().zip(ends).map(|(line, end)| format!("{line}{}", ["\n", "\r\n", "\r"][end])).collect();
            prop_assert_eq!(read(Pieces(body.as_bytes(), piece)).unwrap(), read(body.as_bytes()).unwrap());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(bytes.as_slice());
        }
    }
}
