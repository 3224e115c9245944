//! A slab whose names carry a generation, so that an answer which comes too late meets nobody else's tunnel.

use slab::Slab;

/// Names one tunnel of a worker; a stale name finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId {
    index: u32,
    generation: u32,
}

impl TunnelId {
    /// The name as one integer that fits beside a two-bit tag: 31 bits of slot, 31 bits of generation.
    pub fn to_bits(self) -> u64 {
        u64::from(self.generation) << 31 | u64::from(self.index)
    }

    /// The reverse of [`TunnelId::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self {
            index: (bits & 0x7fff_ffff) as u32,
            generation: (bits >> 31 & 0x7fff_ffff) as u32,
        }
    }
}

/// The tunnels of one worker.
#[derive(Debug)]
pub struct Table<T> {
    slots: Slab<(u32, T)>,
    generation: u32,
    /// A bit of every generation, which tells the names of two tables apart.
    mark: u32,
}

/// Set in the generations of a table of others.
const OTHERS: u32 = 1 << 30;

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            slots: Slab::new(),
            generation: 0,
            mark: 0,
        }
    }
}

impl<T> Table<T> {
    /// A table of things whose names never meet one of a tunnel.
    pub fn of_others() -> Self {
        Self {
            mark: OTHERS,
            ..Self::default()
        }
    }

    /// Adds a tunnel.
    pub fn insert(&mut self, tunnel: T) -> TunnelId {
        self.generation = (self.generation + 1) & (OTHERS - 1) | self.mark;
        let index = self.slots.insert((self.generation, tunnel)) as u32;
        TunnelId {
            index,
            generation: self.generation,
        }
    }

    /// The tunnel of that name.
    pub fn get(&self, id: TunnelId) -> Option<&T> {
        let (generation, tunnel) = self.slots.get(id.index as usize)?;
        (*generation == id.generation).then_some(tunnel)
    }

    /// The tunnel of that name.
    pub fn get_mut(&mut self, id: TunnelId) -> Option<&mut T> {
        let (generation, tunnel) = self.slots.get_mut(id.index as usize)?;
        (*generation == id.generation).then_some(tunnel)
    }

    /// Takes a tunnel out.
    pub fn remove(&mut self, id: TunnelId) -> Option<T> {
        self.get(id)?;
        Some(self.slots.remove(id.index as usize).1)
    }

    /// How many tunnels there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All tunnels, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (TunnelId, &T)> {
        self.slots.iter().map(|(index, (generation, tunnel))| {
            (
                TunnelId {
                    index: index as u32,
                    generation: *generation,
                },
                tunnel,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_name_finds_nothing() {
        let mut table = Table::default();
        let first = table.insert("first");
        assert_eq!(table.remove(first), Some("first"));
        let second = table.insert("second");
        assert_ne!(first, second);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get(second), Some(&"second"));
        assert_eq!(TunnelId::from_bits(second.to_bits()), second);
        assert!(second.to_bits() >> 62 == 0);
    }

    #[test]
    fn names_of_two_tables_never_meet() {
        let (mut tunnels, mut others) = (Table::default(), Table::of_others());
        for _ in 0..3 {
            let (tunnel, other) = (tunnels.insert("tunnel"), others.insert("other"));
            assert_eq!((tunnels.get(other), others.get(tunnel)), (None, None));
            assert_eq!(TunnelId::from_bits(other.to_bits()), other);
            assert!(other.to_bits() >> 62 == 0);
        }
        tunnels.generation = OTHERS - 1;
        others.generation = 2 * OTHERS - 1;
        let (tunnel, other) = (tunnels.insert("tunnel"), others.insert("other"));
        assert_eq!((tunnels.get(other), others.get(tunnel)), (None, None));
    }
}
