//! JSON objects of the API, declared by their fields.
//!
//! An object is read from a JSON object, never from a list of its values. `null` means that a field is absent. A field stands
//! once. What becomes of a field that is not declared is `neutral`'s.

use super::neutral::{Neutral, Refusal};
use super::whole::whole;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The entries of one JSON object as they are read.
pub(crate) struct Entries<A> {
    map: A,
    /// Declared fields that have come.
    seen: Vec<&'static str>,
}

impl<'de, A: MapAccess<'de>> Entries<A> {
    pub(crate) fn new(map: A) -> Self {
        Self { map, seen: Vec::new() }
    }

    /// The next field's name.
    pub(crate) fn name(&mut self) -> Result<Option<String>, A::Error> {
        self.map.next_key()
    }

    /// The value of a declared field.
    pub(crate) fn value<T: Deserialize<'de>>(&mut self, name: &'static str) -> Result<Option<T>, A::Error> {
        if self.seen.contains(&name) {
            self.map.next_value_seed(Refusal("is given twice"))?;
        }
        self.seen.push(name);
        self.map.next_value()
    }

    /// The value of any other field, which must ask for nothing.
    pub(crate) fn other(&mut self, name: &str) -> Result<(), A::Error> {
        self.map.next_value_seed(Neutral(name))
    }
}

/// Optional fields that several objects have.
pub(crate) trait Fields: Default {
    /// Takes the value of the field `name` if it is one of these.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, entries: &mut Entries<A>) -> Result<bool, A::Error>;
}

/// Declares optional fields that several objects have, as a struct of `Option`s.
macro_rules! fields {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident { $( $(#[$doc:meta])* $field:ident : $type:ty ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        $vis struct $name { $( $(#[$doc])* $vis $field: Option<$type> ),* }

        #[cfg(test)]
        #[allow(dead_code, reason = "not every object is in a table")]
        impl $name {
            /// Its fields, as clients name them.
            pub(crate) const FIELDS: &'static [&'static str] = &[ $( stringify!($field) ),* ];
        }

        impl $crate::request::object::Fields for $name {
            fn take<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                name: &str,
                entries: &mut $crate::request::object::Entries<A>,
            ) -> Result<bool, A::Error> {
                match name {
                    $( stringify!($field) => self.$field = entries.value(stringify!($field))?, )*
                    _ => return Ok(false),
                }
                Ok(true)
            }
        }
    };
}

/// Declares an object: `field as "its JSON name": Type = required`, the name and `= required` where they are needed, and after
/// `with` the [`Fields`] that it shares with others.
macro_rules! object {
    (@type $type:ty) => { Option<$type> };
    (@type $type:ty, required) => { $type };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $json:literal) => { $json };
    (@end $value:ident, $name:expr) => { $value };
    (@end $value:ident, $name:expr, required) => {
        $value.ok_or_else(|| <A::Error as serde::de::Error>::missing_field($name))?
    };
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$doc:meta])* $field:ident $(as $json:literal)? : $type:ty $(= $need:ident)? ),* $(,)?
        }
        $( with $( $shared:ident : $fields:ty ),+ )?
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        $vis struct $name {
            $( $(#[$doc])* $vis $field: $crate::request::object::object!(@type $type $(, $need)?), )*
            $( $( $vis $shared: $fields, )+ )?
        }

        #[cfg(test)]
        #[allow(dead_code, reason = "not every object is in a table")]
        impl $name {
            /// Its own fields, as clients name them.
            pub(crate) const FIELDS: &'static [&'static str] =
                &[ $( $crate::request::object::object!(@name $field $($json)?) ),* ];
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;
                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$name, A::Error> {
                        let mut entries = $crate::request::object::Entries::new(map);
                        $( let mut $field: Option<$type> = None; )*
                        $( $( let mut $shared = <$fields>::default(); )+ )?
                        while let Some(name) = entries.name()? {
                            match name.as_str() {
                                $(
                                    $crate::request::object::object!(@name $field $($json)?) => {
                                        $field = entries.value($crate::request::object::object!(@name $field $($json)?))?;
                                    }
                                )*
                                $( $(
                                    name if $crate::request::object::Fields::take(
                                        &mut $shared, name, &mut entries,
                                    )? => {}
                                )+ )?
                                name => entries.other(name)?,
                            }
                        }
                        Ok($name {
                            $(
                                $field: $crate::request::object::object!(
                                    @end $field, $crate::request::object::object!(@name $field $($json)?) $(, $need)?
                                ),
                            )*
                            $( $( $shared, )+ )?
                        })
                    }
                }
                deserializer.deserialize_map(Object)
            }
        }
    };
}

pub(crate) use {fields, object};

/// Reads a string, and nothing else, as `parse` understands it; its error is what the field "is" or "asks for".
pub(crate) fn word<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Word<T>(&'static str, fn(&str) -> Result<T, String>);
    impl<T> Visitor<'_> for Word<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Word(expected, parse))
}

/// A value that is written as a string or as a list.
pub(crate) trait TextOrList: Sized {
    /// Its kind, for errors.
    const EXPECTED: &'static str;

    fn text(text: &str) -> Self;

    fn list<'de, A: SeqAccess<'de>>(list: A) -> Result<Self, A::Error>;

    /// Some may be a number too.
    fn number<E: Error>(number: i64) -> Result<Self, E> {
        Err(E::invalid_type(Unexpected::Signed(number), &Self::EXPECTED))
    }
}

/// Reads a string or a list.
pub(crate) fn text_or_list<'de, D: Deserializer<'de>, T: TextOrList>(deserializer: D) -> Result<T, D::Error> {
    struct Either<T>(PhantomData<T>);
    impl<'de, T: TextOrList> Visitor<'de> for Either<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(T::EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            Ok(T::text(text))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
            T::list(list)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            let number = i64::try_from(number);
            number.map_or_else(|_| Err(E::invalid_type(Unexpected::Other("a very large number"), &self)), T::number)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            T::number(number)
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
            whole(number).map_err(|_: E| E::invalid_type(Unexpected::Float(number), &self)).and_then(T::number)
        }
    }
    deserializer.deserialize_any(Either(PhantomData))
}

/// Reads the rest of a list of at most `limit` entries behind those that `entries` has.
pub(crate) fn at_most<'de, A: SeqAccess<'de>, T: Deserialize<'de>>(
    limit: usize,
    mut list: A,
    mut entries: Vec<T>,
) -> Result<Vec<T>, A::Error> {
    while let Some(entry) = list.next_element_seed(Limited { full: entries.len() >= limit, of: PhantomData })? {
        let Some(entry) = entry else {
            return Err(A::Error::custom(format!("has more than {limit} entries, which is the limit")));
        };
        entries.push(entry);
    }
    Ok(entries)
}

/// An entry that is not looked at if the list is full: `None`.
struct Limited<T> {
    full: bool,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Limited<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
        if self.full { Ok(None) } else { T::deserialize(deserializer).map(Some) }
    }
}
