//! Things by number, where a number is never used twice: one that is stale finds nothing.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

#[derive(Debug)]
pub(super) struct Registry<T> {
    items: BTreeMap<u32, T>,
    next: u32,
}

impl<T> Registry<T> {
    pub(super) const fn new() -> Self {
        Self {
            items: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn insert(&mut self, item: T) -> u32 {
        let number = self.next;
        self.next += 1;
        self.items.insert(number, item);
        number
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        self.items.remove(&number)
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.items.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.items.get_mut(&number)
    }

    /// In the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.items.iter().map(|(number, item)| (*number, item))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.items.values()
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.items.keys().copied().collect()
    }
}

/// Whoever indexes knows that it is there.
impl<T> Index<u32> for Registry<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.items[&number]
    }
}

impl<T> IndexMut<u32> for Registry<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        self.items.get_mut(&number).expect("a known number")
    }
}
