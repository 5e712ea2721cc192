// SPDX-License-Identifier: MIT OR Apache-2.0
//! A [`Topology`] as text, for the process that is to make it. Structures are taken apart field by field, so that a new
//! one cannot go by unnoticed.

use nvme_controller::{ControllerConfig, ManagerConfig, Quirks, Role, SecondaryConfig, SubsystemConfig};
use nvme_core::wire::ControllerId;
use serde_json::Value;

use crate::conformance::backend::{NamespaceShape, Topology};

/// Something that can be written as text and read again. Reading fails with a panic that shows the text: it was written
/// by the same build of the same program.
pub(super) trait Described: Sized {
    fn put(&self) -> Value;
    fn get(value: &Value) -> Self;
}

macro_rules! numbers {
    ($($type:ty),+) => {
        $(impl Described for $type {
            fn put(&self) -> Value {
                Value::from(*self)
            }

            fn get(value: &Value) -> Self {
                let number = value.as_u64().and_then(|number| number.try_into().ok());
                number.unwrap_or_else(|| panic!("not a {}: {value}", stringify!($type)))
            }
        })+
    };
}

numbers!(u8, u16, u32, u64, usize);

impl Described for bool {
    fn put(&self) -> Value {
        Value::from(*self)
    }

    fn get(value: &Value) -> Self {
        value.as_bool().unwrap_or_else(|| panic!("neither true nor false: {value}"))
    }
}

impl Described for &'static str {
    fn put(&self) -> Value {
        Value::from(*self)
    }

    fn get(value: &Value) -> Self {
        // Names and numbers of a subsystem live as long as the process, which is short.
        value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned().leak()
    }
}

impl Described for ControllerId {
    fn put(&self) -> Value {
        self.get().put()
    }

    fn get(value: &Value) -> Self {
        Self::new(u16::get(value))
    }
}

impl Described for Quirks {
    fn put(&self) -> Value {
        self.bits().put()
    }

    fn get(value: &Value) -> Self {
        Self::from_bits_retain(u32::get(value))
    }
}

impl<T: Described> Described for Option<T> {
    fn put(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::put)
    }

    fn get(value: &Value) -> Self {
        if value.is_null() { None } else { Some(T::get(value)) }
    }
}

impl<T: Described> Described for Vec<T> {
    fn put(&self) -> Value {
        self.iter().map(T::put).collect()
    }

    fn get(value: &Value) -> Self {
        value.as_array().unwrap_or_else(|| panic!("no list: {value}")).iter().map(T::get).collect()
    }
}

impl Described for Role {
    fn put(&self) -> Value {
        match self {
            Self::Migratable => Value::Null,
            Self::Managing(limits) => limits.put(),
        }
    }

    fn get(value: &Value) -> Self {
        Option::get(value).map_or(Self::Migratable, Self::Managing)
    }
}

macro_rules! structures {
    ($($type:ident { $($field:ident),+ $(,)? } $(without $other:ident = $value:expr)?;)+) => {
        $(impl Described for structures!(@type $type) {
            fn put(&self) -> Value {
                let $type { $($field,)+ $($other: _,)? } = self;
                Value::Object([$((stringify!($field).to_owned(), $field.put()),)+].into_iter().collect())
            }

            fn get(value: &Value) -> Self {
                $(let $field = Described::get(&value[stringify!($field)]);)+
                $type { $($field,)+ $($other: $value,)? }
            }
        })+
    };
    (@type SubsystemConfig) => { SubsystemConfig<'static> };
    (@type $type:ident) => { $type };
}

structures! {
    Topology {
        config, controllers, namespaces, data_queues, queue_pairs, commands, event_requests, state_bytes,
        tracked_ranges, tracked_words,
    } without memories = Vec::new();
    SubsystemConfig {
        name, serial_number, model_number, firmware_revision, vendor, max_queue_entries, min_page_shift,
        max_page_shift, contiguous_queues_required, ready_timeout, max_transfer_shift, max_verify_shift,
        max_write_zeroes_shift, max_write_uncorrectable_shift, max_dataset_ranges, max_dataset_bytes,
        max_copy_bytes, turn_bytes, abort_limit, volatile_write_cache, subsystem_reset, keep_alive_granularity,
        vendor_state_format, max_migration_queues, max_queue_memory_ranges, max_tracked_ranges,
        marker_after_completion, quirks,
    };
    ControllerConfig { id, role, interrupt_vectors, secondary };
    ManagerConfig {
        max_migration_queues, max_queue_memory_ranges, max_queue_prps, track_user_data, track_host_memory,
        tracked_length_power_of_two, max_tracked_ranges, min_tracking_shift, max_tracking_shift,
    };
    SecondaryConfig { primary, virtual_function, online };
    NamespaceShape { id, block_shift, blocks };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_is_read_as_it_was_written() {
        let manager = ManagerConfig { max_queue_prps: 77, ..ManagerConfig::default() };
        let secondary = SecondaryConfig { primary: ControllerId::new(7), virtual_function: 2, online: true };
        let guest = ControllerConfig {
            secondary: Some(secondary),
            ..ControllerConfig::migratable(ControllerId::new(9))
        };
        let managing = ControllerConfig {
            role: Role::Managing(manager),
            ..ControllerConfig::managing(ControllerId::new(7))
        };
        let config = SubsystemConfig {
            name: "a \"name\"",
            max_dataset_bytes: u64::MAX,
            quirks: Quirks::HEAD_NOT_CHECKED | Quirks::FORMATS_FOUR_BYTES,
            ..SubsystemConfig::default()
        };
        let topology = Topology {
            config,
            controllers: vec![managing, guest],
            memories: Vec::new(),
            namespaces: vec![NamespaceShape { id: 3, block_shift: 12, blocks: 1 << 40 }],
            data_queues: 1,
            queue_pairs: 2,
            commands: 3,
            event_requests: 4,
            state_bytes: 5,
            tracked_ranges: 6,
            tracked_words: 7,
        };
        let text = topology.put().to_string();
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let read = Topology::get(&value);
        assert_eq!(read.put(), value);
        assert_eq!(format!("{:?}", read.config), format!("{config:?}"));
        assert_eq!(format!("{:?}", read.controllers), format!("{:?}", topology.controllers));
        assert_eq!(read.tracked_words, 7);
    }
}
