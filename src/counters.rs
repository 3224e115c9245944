//! Counters: structs of plain integers, each with a name that is also its name in reports.
//!
//! Whoever owns such a struct counts without atomics; reports add the structs of all workers up. A counter that is
//! declared is reported: there is no second list that could forget it.

/// Declares a struct of counters, all public and of type `u64`, with `named` and `+=`.
macro_rules! counters {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$counter_attribute:meta])* $counter:ident,)+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[$counter_attribute])* pub $counter: u64,)+
        }

        impl $name {
            /// All counters with their names, in the order of their declaration.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($counter), self.$counter),)+].into_iter()
            }
        }

        impl std::ops::AddAssign for $name {
            fn add_assign(&mut self, other: Self) {
                $(self.$counter += other.$counter;)+
            }
        }
    };
}

pub(crate) use counters;

#[cfg(test)]
mod tests {
    #![expect(unreachable_pub, reason = "counters are declared for others to read")]

    counters! {
        /// Two counters.
        pub struct Fruit {
            /// Red.
            apples,
            /// Green.
            pears,
        }
    }

    #[test]
    fn add_up_and_have_names() {
        let mut fruit = Fruit {
            apples: 1,
            pears: 2,
        };
        fruit += fruit;
        assert!(fruit.named().eq([("apples", 2), ("pears", 4)]));
    }
}
