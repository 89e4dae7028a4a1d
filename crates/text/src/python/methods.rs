//! Methods of texts, lists and dictionaries; minijinja-contrib has those that are not here.

use super::arguments::{afford, bind, integer, invalid, text};
use super::formats::braces;
use super::text::is_space;
use crate::bounds::{self, BYTES_PER_FUEL};
use minijinja::value::{Tuple, ValueKind};
use minijinja::{Error, State, Value};
use std::collections::HashSet;

/// Calls a method that minijinja itself does not have.
pub(super) fn call(state: &mut State, value: &Value, method: &str, arguments: &[Value]) -> Result<Value, Error> {
    // The text itself is paid for by minijinja.
    let bytes: usize = arguments.iter().filter_map(Value::as_str).map(str::len).sum();
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)?;
    let done = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(state, text, method, arguments)?,
        (None, ValueKind::Seq) => of_list(state, value, method, arguments)?,
        (None, ValueKind::Map) if method == "copy" => {
            let [] = bind(method, [], arguments)?;
            let pairs: Result<Vec<_>, Error> =
                value.try_iter()?.map(|key| Ok((key.clone(), value.get_item(&key)?))).collect();
            Some(Value::from_pairs(pairs?))
        }
        _ => None,
    };
    match done {
        Some(value) => Ok(value),
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, arguments),
    }
}

fn of_list(state: &State, list: &Value, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "copy" => {
            let [] = bind(method, [], arguments)?;
            list.clone()
        }
        "count" => {
            let [wanted] = bind(method, ["value"], arguments)?;
            let wanted = wanted.unwrap_or_default();
            bounds::pay_comparison(state, list)?;
            list.try_iter()?.filter(|item| *item == wanted).count().into()
        }
        "index" => {
            let [wanted, start, stop] = bind(method, ["value", "start", "stop"], arguments)?;
            let wanted = wanted.unwrap_or_default();
            bounds::pay_comparison(state, list)?;
            let range = range(method, start.as_ref(), stop.as_ref(), list.len().unwrap_or(0))?;
            let at = list.try_iter()?.enumerate().find(|(at, item)| range.contains(at) && *item == wanted);
            at.ok_or_else(|| invalid("index: the list has no such value".to_owned()))?.0.into()
        }
        _ => return Ok(None),
    }))
}

fn of_text(state: &State, this: &str, method: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let list = |items: Vec<&str>| Value::from(items.into_iter().map(Value::from).collect::<Vec<_>>());
    let triple = |a: &str, b: &str, c: &str| Value::from(Tuple::from([Value::from(a), Value::from(b), Value::from(c)]));
    Ok(Some(match method {
        "split" | "rsplit" => {
            let [separator, limit] = bind(method, ["sep", "maxsplit"], arguments)?;
            let separator = separator.filter(|separator| !separator.is_none());
            let separator = separator.as_ref().map(|separator| text(method, Some(separator))).transpose()?;
            let limit = usize::try_from(integer(method, limit.as_ref(), -1)?).unwrap_or(usize::MAX);
            list(split(this, separator, limit, method == "rsplit")?)
        }
        "splitlines" => {
            let [keep] = bind(method, ["keepends"], arguments)?;
            list(lines(this, keep.is_some_and(|keep| keep.is_true())))
        }
        "partition" | "rpartition" => {
            let [separator] = bind(method, ["sep"], arguments)?;
            let separator = separate(method, text(method, separator.as_ref())?)?;
            let halves = if method == "partition" { this.split_once(separator) } else { this.rsplit_once(separator) };
            match halves {
                Some((before, after)) => triple(before, separator, after),
                None if method == "partition" => triple(this, "", ""),
                None => triple("", "", this),
            }
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [wanted, start, end] = bind(method, ["sub", "start", "end"], arguments)?;
            let wanted = text(method, wanted.as_ref())?;
            let (skipped, this) = part(method, this, start.as_ref(), end.as_ref())?;
            let Some(this) = this else {
                return if method.ends_with("index") {
                    Err(not_found(method, wanted))
                } else {
                    Ok(Some(nowhere(method)))
                };
            };
            if method == "count" {
                return Ok(Some(this.matches(wanted).count().into()));
            }
            let at = if method.starts_with('r') { this.rfind(wanted) } else { this.find(wanted) };
            match at {
                Some(at) => (skipped + this[..at].chars().count()).into(),
                None if method.ends_with("index") => return Err(not_found(method, wanted)),
                None => nowhere(method),
            }
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = bind(method, ["prefix", "start", "end"], arguments)?;
            let affix = affix.unwrap_or_default();
            let (_, this) = part(method, this, start.as_ref(), end.as_ref())?;
            let fits = |affix: &Value| {
                let affix = text(method, Some(affix))?;
                let fits =
                    |this: &str| if method == "startswith" { this.starts_with(affix) } else { this.ends_with(affix) };
                Ok::<_, Error>(this.is_some_and(fits))
            };
            if affix.kind() != ValueKind::Seq {
                return Ok(Some(fits(&affix)?.into()));
            }
            for affix in affix.try_iter()? {
                state.consume_fuel(1)?;
                if fits(&affix)? {
                    return Ok(Some(true.into()));
                }
            }
            false.into()
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(method, ["chars"], arguments)?;
            let chars = chars.filter(|chars| !chars.is_none());
            let chars = chars.as_ref().map(|chars| text(method, Some(chars))).transpose()?;
            let chars: Option<HashSet<char>> = chars.map(|chars| chars.chars().collect());
            strip(this, method, |c| chars.as_ref().map_or_else(|| is_space(c), |chars| chars.contains(&c))).into()
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(method, ["affix"], arguments)?;
            let affix = text(method, affix.as_ref())?;
            let rest = if method == "removeprefix" { this.strip_prefix(affix) } else { this.strip_suffix(affix) };
            rest.unwrap_or(this).into()
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = bind(method, ["width", "fillchar"], arguments)?;
            let fill = fill.as_ref().map_or(Ok(" "), |fill| text(method, Some(fill)))?;
            let mut chars = fill.chars();
            let (Some(fill), None) = (chars.next(), chars.next()) else {
                return Err(invalid(format!("{method} fills with one character, found {fill:?}")));
            };
            let room = room(state, method, this, width.as_ref(), fill.len_utf8())?;
            let before = match method {
                "ljust" => 0,
                "rjust" => room,
                // Where the sides cannot be equal, an odd width has more on the left.
                _ => room / 2 + (room & integer(method, width.as_ref(), 0)? as usize & 1),
            };
            let fill = |count| std::iter::repeat_n(fill, count);
            fill(before).chain(this.chars()).chain(fill(room - before)).collect::<String>().into()
        }
        "zfill" => {
            let [width] = bind(method, ["width"], arguments)?;
            let zeros = "0".repeat(room(state, method, this, width.as_ref(), 1)?);
            let sign = if this.starts_with(['+', '-']) { 1 } else { 0 };
            format!("{}{zeros}{}", &this[..sign], &this[sign..]).into()
        }
        "expandtabs" => {
            let [size] = bind(method, ["tabsize"], arguments)?;
            let size = usize::try_from(integer(method, size.as_ref(), 8)?).unwrap_or(0);
            afford(state, this.matches('\t').count().saturating_mul(size).saturating_add(this.len()))?;
            expand_tabs(this, size).into()
        }
        "swapcase" => {
            let [] = bind(method, [], arguments)?;
            let swap =
                |c: char| if c.is_uppercase() { c.to_lowercase().to_string() } else { c.to_uppercase().to_string() };
            this.chars().map(swap).collect::<String>().into()
        }
        "title" => {
            let [] = bind(method, [], arguments)?;
            title(this).into()
        }
        "casefold" => {
            let [] = bind(method, [], arguments)?;
            this.to_lowercase().replace('ß', "ss").into()
        }
        "join" => {
            let [items] = bind(method, ["iterable"], arguments)?;
            let mut joined = String::new();
            for (i, item) in items.unwrap_or_default().try_iter()?.enumerate() {
                let item = text(method, Some(&item))?;
                state.consume_fuel(1)?;
                afford(state, joined.len() + this.len() + item.len())?;
                if i > 0 {
                    joined.push_str(this);
                }
                joined.push_str(item);
            }
            joined.into()
        }
        "format" => braces(state, this, arguments.to_vec())?,
        _ => return Ok(None),
    }))
}

fn separate<'a>(method: &str, separator: &'a str) -> Result<&'a str, Error> {
    if separator.is_empty() { Err(invalid(format!("{method}: the separator is empty"))) } else { Ok(separator) }
}

/// Pieces in order; without a separator, those between white space.
fn split<'a>(this: &'a str, separator: Option<&str>, limit: usize, from_end: bool) -> Result<Vec<&'a str>, Error> {
    let limit = limit.saturating_add(1);
    let Some(separator) = separator else { return Ok(words(this, limit, from_end)) };
    let separator = separate("split", separator)?;
    if !from_end {
        return Ok(this.splitn(limit, separator).collect());
    }
    let mut pieces: Vec<_> = this.rsplitn(limit, separator).collect();
    pieces.reverse();
    Ok(pieces)
}

/// At most `limit` words; the last one, or the first from the end, is all the rest.
fn words(this: &str, limit: usize, from_end: bool) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = if from_end { this.trim_end_matches(is_space) } else { this.trim_start_matches(is_space) };
    while !rest.is_empty() {
        let at = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = at.filter(|_| words.len() + 1 < limit) else {
            words.push(rest);
            break;
        };
        let (before, after) = rest.split_at(at);
        let word = if from_end { after.trim_start_matches(is_space) } else { before };
        words.push(word);
        rest = if from_end { before.trim_end_matches(is_space) } else { after.trim_start_matches(is_space) };
    }
    if from_end {
        words.reverse();
    }
    words
}

fn lines(this: &str, keep_ends: bool) -> Vec<&str> {
    const ENDS: &[char] = &['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = this;
    while let Some(at) = rest.find(ENDS) {
        let end = match rest[at..].starts_with("\r\n") {
            true => 2,
            false => rest[at..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(if keep_ends { &rest[..at + end] } else { &rest[..at] });
        rest = &rest[at + end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn strip<'a>(this: &'a str, method: &str, drop: impl Fn(char) -> bool) -> &'a str {
    let this = if method == "rstrip" { this } else { this.trim_start_matches(&drop) };
    if method == "lstrip" { this } else { this.trim_end_matches(&drop) }
}

/// Characters that are missing to a width, which are affordable.
fn room(state: &State, method: &str, this: &str, width: Option<&Value>, bytes: usize) -> Result<usize, Error> {
    if width.is_none() {
        return Err(invalid(format!("{method} needs a width")));
    }
    let width = usize::try_from(integer(method, width, 0)?).unwrap_or(0);
    let room = width.saturating_sub(this.chars().count());
    afford(state, room.saturating_mul(bytes).saturating_add(this.len()))?;
    Ok(room)
}

/// The first of letters in a row in upper case, the others in lower case.
fn title(this: &str) -> String {
    let mut out = String::with_capacity(this.len());
    let mut inside = false;
    for c in this.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    out
}

fn expand_tabs(this: &str, size: usize) -> String {
    let mut out = String::new();
    let mut column = 0;
    for c in this.chars() {
        match c {
            '\t' => {
                let spaces = size.checked_rem(size).map_or(0, |_| size - column % size);
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\n' | '\r' => {
                out.push(c);
                column = 0;
            }
            c => {
                out.push(c);
                column += 1;
            }
        }
    }
    out
}

/// The part of a text from one character to another, and the number of characters before it; none if it begins behind the end.
fn part<'a>(
    method: &str,
    this: &'a str,
    start: Option<&Value>,
    end: Option<&Value>,
) -> Result<(usize, Option<&'a str>), Error> {
    if start.is_none() && end.is_none() {
        return Ok((0, Some(this)));
    }
    let length = this.chars().count();
    let range = range(method, start, end, length)?;
    if range.start > length || range.start > range.end {
        return Ok((0, None));
    }
    let at = |n: usize| this.char_indices().nth(n).map_or(this.len(), |(at, _)| at);
    Ok((range.start, Some(&this[at(range.start)..at(range.end)])))
}

/// Places from `start` to `end`, which count from the end if they are negative.
fn range(
    method: &str,
    start: Option<&Value>,
    end: Option<&Value>,
    length: usize,
) -> Result<std::ops::Range<usize>, Error> {
    let place = |value: Option<&Value>, default: usize| {
        let value = value.filter(|value| !value.is_none());
        let place = integer(method, value, default as i64)?;
        Ok::<_, Error>(if place < 0 { (length as i64).saturating_add(place).max(0) } else { place } as usize)
    };
    Ok(place(start, 0)?..place(end, length)?.min(length))
}

fn nowhere(method: &str) -> Value {
    if method == "count" { 0.into() } else { (-1).into() }
}

fn not_found(method: &str, wanted: &str) -> Error {
    invalid(format!("{method}: {wanted:.40?} is not in the text"))
}
