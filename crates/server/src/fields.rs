//! Tables of every field that the routes take, and of what becomes of each. The page `docs/API_FIELDS.md` is made of them, and a test sends
//! each field to a server and sees what its table says.

use std::fmt::Write;

/// Fate of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The answer is as it asks.
    Honored,
    /// It is taken and changes no answer, for it asks for nothing that an answer shows.
    Harmless,
    /// A value that asks for something is answered with 400.
    Refused,
}

/// A field of a body.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its path, `[]` for each entry of a list: `messages[].role`.
    pub name: &'static str,
    /// Its fate.
    pub fate: Fate,
    /// JSON of a value that asks for something. `"STORED"` stands for the id of a response that the test has stored.
    pub example: &'static str,
    /// Meaning, or the way to do without it.
    pub note: &'static str,
    /// Path at which the example stands, where that is not the name with the first entry of each list.
    pub at: Option<&'static str>,
    /// JSON object of fields that the example needs beside it.
    pub beside: &'static str,
    /// JSON of values that are taken though others are refused.
    pub taken: &'static [&'static str],
}

impl Field {
    const fn new(name: &'static str, fate: Fate, example: &'static str, note: &'static str) -> Self {
        Self { name, fate, example, note, at: None, beside: "{}", taken: &[] }
    }

    /// A field that is honored.
    pub(crate) const fn honored(name: &'static str, example: &'static str, note: &'static str) -> Self {
        Self::new(name, Fate::Honored, example, note)
    }

    /// A field that is harmless.
    pub(crate) const fn harmless(name: &'static str, example: &'static str, note: &'static str) -> Self {
        Self::new(name, Fate::Harmless, example, note)
    }

    /// A field whose example is refused.
    pub(crate) const fn refused(name: &'static str, example: &'static str, note: &'static str) -> Self {
        Self::new(name, Fate::Refused, example, note)
    }

    /// With its example elsewhere.
    pub(crate) const fn at(self, at: &'static str) -> Self {
        Self { at: Some(at), ..self }
    }

    /// With fields that its example needs.
    pub(crate) const fn beside(self, beside: &'static str) -> Self {
        Self { beside, ..self }
    }

    /// With values that are taken all the same.
    pub(crate) const fn taken(self, taken: &'static [&'static str]) -> Self {
        Self { taken, ..self }
    }

    /// Path at which the example stands.
    pub fn place(&self) -> String {
        self.at.map_or_else(|| self.name.replace("[]", "[0]"), str::to_owned)
    }
}

/// The fields of a route.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Paths of the routes that take the same body, the first of them sent to.
    pub routes: &'static [&'static str],
    /// A body that is answered with 200.
    pub body: &'static str,
    /// The fields, in groups that several routes have.
    pub groups: &'static [&'static [Field]],
}

impl Table {
    /// All fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.groups.iter().flat_map(|group| group.iter())
    }

    /// Holds the table against the fields that are read, each with the path of its object: none is missing, and none is there twice.
    #[cfg(test)]
    pub(crate) fn check(&self, read: &[(&str, &[&str])]) {
        let listed: Vec<&str> = self.fields().map(|field| field.name).collect();
        for name in read.iter().flat_map(|(path, fields)| fields.iter().map(move |field| format!("{path}{field}"))) {
            // An object is there by its fields.
            let there = listed.iter().any(|field| *field == name || field.starts_with(&format!("{name}.")));
            assert!(there, "{}: {name}", self.routes[0]);
        }
        for (i, name) in listed.iter().enumerate() {
            assert!(!listed[..i].contains(name), "{}: {name} is there twice", self.routes[0]);
        }
    }
}

/// Sampling parameters, which all dialects spell alike.
pub(crate) const SAMPLING: &[Field] = &[
    Field::honored("temperature", "0.25", "0 picks the most likely token"),
    Field::honored("top_p", "0.25", "keeps the most likely tokens that together reach this probability"),
    Field::honored("top_k", "3", "keeps this many of the most likely tokens"),
    Field::honored("min_p", "0.25", "keeps tokens with at least this share of the largest probability"),
    Field::honored("repetition_penalty", "1.5", "makes tokens of prompt and answer less likely"),
    Field::honored("presence_penalty", "0.5", "makes tokens of the answer less likely, whatever their count"),
    Field::honored("frequency_penalty", "0.5", "makes tokens of the answer less likely, in proportion to their count"),
    Field::honored("seed", "7", "the same seed and request give the same answer"),
    Field::honored("logit_bias", r#"{"5": -1}"#, "added to the logits of these tokens"),
    Field::refused(
        "repetition_context_size",
        "20",
        "penalties have no window; any integer is taken while `repetition_penalty` is off",
    )
    .beside(r#"{"repetition_penalty": 1.5}"#)
    .taken(&["false"]),
    Field::refused(
        "presence_context_size",
        "20",
        "penalties have no window; any integer is taken while `presence_penalty` is off",
    )
    .beside(r#"{"presence_penalty": 0.5}"#)
    .taken(&["false"]),
    Field::refused(
        "frequency_context_size",
        "20",
        "penalties have no window; any integer is taken while `frequency_penalty` is off",
    )
    .beside(r#"{"frequency_penalty": 0.5}"#)
    .taken(&["false"]),
];

/// The tables of all dialects.
pub fn tables() -> Vec<Table> {
    [crate::openai::TABLES, crate::responses::TABLES, crate::anthropic::TABLES].concat()
}

/// What to do without a field of a route that is not supported: its note, where that names something else to use.
pub(crate) fn advice(route: &str, param: &str) -> Option<&'static str> {
    let tables = tables();
    let table = tables.iter().find(|table| table.routes.contains(&route))?;
    let named = |field: &&Field| field.name == param && field.fate == Fate::Refused;
    table.fields().find(named).map(|field| field.note).filter(|note| note.contains('`'))
}

/// The tables as a part of the page.
pub fn page() -> String {
    let mut page = String::new();
    for table in tables() {
        let routes: Vec<String> = table.routes.iter().map(|route| format!("`POST {route}`")).collect();
        // Writing to memory does not fail.
        let _ = writeln!(page, "## {}\n\n| field | is | notes |\n| --- | --- | --- |", routes.join(", "));
        for field in table.fields() {
            let fate = match field.fate {
                Fate::Honored => "honored",
                Fate::Harmless => "harmless",
                Fate::Refused => "refused",
            };
            let also = match field.taken {
                [] => String::new(),
                taken => {
                    format!("; taken with {}", taken.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "))
                }
            };
            let _ = writeln!(page, "| `{}` | {fate}{also} | {} |", field.name, field.note);
        }
        page.push('\n');
    }
    page
}
