// SPDX-License-Identifier: MIT OR Apache-2.0
//! Open enumerations: numbers of which some have names, while every value stays representable.

/// Defines a `Copy` newtype over an unsigned number with named constants, `new`, `get`, `name` and `Display`.
macro_rules! open_value {
    (
        $(#[$meta:meta])*
        $type:ident($inner:ty) { $($(#[$value_meta:meta])* $name:ident = $value:literal, $text:literal;)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type($inner);

        impl $type {
            $(
                #[doc = concat!($text, " (", stringify!($value), ").")]
                $(#[$value_meta])*
                pub const $name: Self = Self($value);
            )*

            /// Every value that has a name here.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Wraps the number as it stands on the wire; every value is representable.
            #[must_use]
            pub const fn new(value: $inner) -> Self {
                Self(value)
            }

            /// The number as it stands on the wire.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// The specification's name, if the value has one here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name} ({:02X}h)", self.0),
                    None => write!(f, "{} {:02X}h", stringify!($type), self.0),
                }
            }
        }
    };
}

pub(crate) use open_value;
