//! Reads tables key by key, so that one bad key does not hide the others.
//!
//! The serde structs stay the only description of the format: the known keys are asked from them, and each key is
//! tried alone. What fails is reported and left at its default, and reading goes on. Every struct read here is
//! therefore `#[serde(default, deny_unknown_fields)]`.

use std::cell::Cell;

use serde::de::value::Error as ProbeError;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, Visitor};
use toml::{Table, Value};

use super::Problems;

/// Characters of a value that a message shows.
const SHOWN_CHARS: usize = 80;

/// A document on its way into typed sections.
#[derive(Debug)]
pub(super) struct Document<'p> {
    table: Table,
    sections: Vec<&'static str>,
    problems: &'p mut Problems,
}

impl<'p> Document<'p> {
    pub(super) fn new(table: Table, problems: &'p mut Problems) -> Self {
        Self {
            table,
            sections: Vec::new(),
            problems,
        }
    }

    /// Takes the table `[name]`.
    pub(super) fn section<T: DeserializeOwned + Default>(&mut self, name: &'static str) -> T {
        self.sections.push(name);
        let Some(value) = self.table.remove(name) else {
            return T::default();
        };
        self.table(name, value, &format!("[{name}]"))
            .unwrap_or_default()
    }

    /// Takes all tables `[[name]]`.
    pub(super) fn sections<T: DeserializeOwned + Default>(&mut self, name: &'static str) -> Vec<T> {
        self.sections.push(name);
        let Some(value) = self.table.remove(name) else {
            return Vec::new();
        };
        let Value::Array(entries) = value else {
            self.problems.key(
                name,
                format!("must be a list of tables, each written [[{name}]]"),
            );
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let path = format!("{name}[{index}]");
            sections.extend(self.table(&path, entry, &format!("[[{name}]]")));
        }
        sections
    }

    fn table<T: DeserializeOwned + Default>(
        &mut self,
        path: &str,
        value: Value,
        written: &str,
    ) -> Option<T> {
        let shown = show(&value);
        if let Value::Table(table) = value {
            return Some(read(path, table, &[], self.problems));
        }
        self.problems
            .value(path, shown, format!("must be a table, written {written}"));
        None
    }

    /// Takes the keys outside all sections; sections that nobody asked for are unknown keys.
    pub(super) fn rest<T: DeserializeOwned + Default>(self) -> T {
        read("", self.table, &self.sections, self.problems)
    }
}

/// A value on one short line.
pub(super) fn show(value: &Value) -> String {
    let text = match value {
        Value::Table(_) => "a table".to_owned(),
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Array(_) => value.to_string(),
    };
    if text.chars().count() > SHOWN_CHARS {
        return text.chars().take(SHOWN_CHARS).chain(['…']).collect();
    }
    text
}

fn read<T: DeserializeOwned + Default>(
    path: &str,
    table: Table,
    others: &[&str],
    problems: &mut Problems,
) -> T {
    let known = field_names::<T>();
    let mut accepted = Table::new();
    for (key, value) in table {
        let full = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        if !known.contains(&key.as_str()) {
            let names = known.iter().chain(others).copied();
            problems.key(
                full,
                match nearest(&key, names) {
                    Some(name) => format!("unknown key, did you mean `{name}`?"),
                    None => format!("unknown key, known are {}", join(known, others)),
                },
            );
            continue;
        }
        let alone = Table::from_iter([(key.clone(), value.clone())]);
        match alone.try_into::<T>() {
            Ok(_) => drop(accepted.insert(key, value)),
            Err(error) if value.is_table() => problems.key(full, error.message()),
            Err(error) => problems.value(full, show(&value), error.message()),
        }
    }
    // Each key was accepted alone and the structs have no rules between keys.
    accepted.try_into().unwrap_or_default()
}

fn join(known: &[&str], others: &[&str]) -> String {
    let mut names: Vec<&str> = known.iter().chain(others).copied().collect();
    names.sort_unstable();
    names.join(", ")
}

/// The fields of a serde struct: what its `Deserialize` tells the deserializer it expects.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Probe<'a>(&'a Cell<&'static [&'static str]>);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = ProbeError;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeError> {
            Err(ProbeError::custom("only structs have field names"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, ProbeError> {
            self.0.set(fields);
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let fields = Cell::new(&[] as &[&str]);
    let probed = <T as Deserialize>::deserialize(Probe(&fields));
    debug_assert!(probed.is_err(), "the probe holds no value");
    fields.get()
}

/// The name that `key` most likely meant: at most a third of it has to change.
fn nearest<'n>(key: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|name| (distance(key, name), name))
        .filter(|(changes, name)| *changes <= name.len().max(key.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Edit distance of Levenshtein, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let above = *cell;
            left = (diagonal + usize::from(from != to))
                .min(above + 1)
                .min(left + 1);
            (diagonal, *cell) = (above, left);
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, changes) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("kitten", "sitting", 3),
            ("key", "key", 0),
        ] {
            assert_eq!(distance(a, b), changes, "{a} {b}");
        }
    }

    #[test]
    fn suggestions() {
        let names = ["address", "certificate", "key"];
        assert_eq!(nearest("adress", names.into_iter()), Some("address"));
        assert_eq!(
            nearest("certificates", names.into_iter()),
            Some("certificate")
        );
        assert_eq!(nearest("colour", names.into_iter()), None);
    }

    #[test]
    fn long_values_are_cut() {
        let shown = show(&Value::String("x".repeat(1000)));
        assert_eq!(shown.chars().count(), SHOWN_CHARS + 1);
    }
}
