// SPDX-License-Identifier: MIT OR Apache-2.0
//! The version data of VERSION: what each side can take, as JSON. vfio-user protocol, VFIO_USER_VERSION.

use serde_json::{Value, json};

use super::socket::MOST_DESCRIPTORS;

/// Bytes of one data transfer that this implementation takes.
pub(crate) const MOST_TRANSFER: u32 = 64 << 10;

/// What one side can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Descriptors in one message.
    pub(crate) descriptors: usize,
    /// Bytes of one access of a region or of memory.
    pub(crate) transfer: u32,
    /// Windows of memory at once.
    pub(crate) maps: usize,
}

impl Default for Capabilities {
    /// What holds for a side that says nothing.
    fn default() -> Self {
        Self { descriptors: 1, transfer: 1 << 20, maps: 65_535 }
    }
}

impl Capabilities {
    /// What this implementation takes, with `maps` windows of memory.
    pub(crate) const fn ours(maps: usize) -> Self {
        Self { descriptors: MOST_DESCRIPTORS, transfer: MOST_TRANSFER, maps }
    }

    /// Reads the data after the version numbers.
    ///
    /// # Errors
    /// Names what is wrong.
    pub(crate) fn parse(data: &[u8]) -> Result<Self, &'static str> {
        let mut capabilities = Self::default();
        if data.is_empty() {
            return Ok(capabilities);
        }
        let Some((0, text)) = data.split_last() else { return Err("the data does not end with a zero byte") };
        if text.contains(&0) {
            return Err("there is more after the zero byte");
        }
        let value: Value = serde_json::from_slice(text).map_err(|_| "the data is not JSON")?;
        let Value::Object(root) = value else { return Err("the data is no JSON object") };
        let Some(stated) = root.get("capabilities") else { return Ok(capabilities) };
        let Value::Object(stated) = stated else { return Err("capabilities is no JSON object") };
        let number = |name: &'static str, least: u64| match stated.get(name) {
            None => Ok(None),
            Some(value) => value.as_u64().filter(|number| *number >= least).map(Some).ok_or(name),
        };
        if let Some(count) = number("max_msg_fds", 0)? {
            capabilities.descriptors = usize::try_from(count).unwrap_or(usize::MAX);
        }
        if let Some(bytes) = number("max_data_xfer_size", 8)? {
            capabilities.transfer = u32::try_from(bytes).unwrap_or(u32::MAX);
        }
        if let Some(count) = number("max_dma_maps", 1)? {
            capabilities.maps = usize::try_from(count).unwrap_or(usize::MAX);
        }
        Ok(capabilities)
    }

    /// The data to send.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let capabilities = json!({
            "max_msg_fds": self.descriptors,
            "max_data_xfer_size": self.transfer,
            "max_dma_maps": self.maps,
        });
        let mut bytes = json!({ "capabilities": capabilities }).to_string().into_bytes();
        bytes.push(0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_as_they_are_written() {
        let ours = Capabilities::ours(64);
        assert_eq!(Capabilities::parse(&ours.bytes()), Ok(ours));
    }

    #[test]
    fn what_is_not_stated_has_its_default_and_what_is_wrong_is_named() {
        let default = Capabilities::default();
        let deep = format!("{}1{}\0", "[".repeat(5000), "]".repeat(5000));
        let rows: [(&str, Result<Capabilities, &str>); 13] = [
            ("", Ok(default)),
            ("{}\0", Ok(default)),
            ("{\"capabilities\":{}}\0", Ok(default)),
            ("{\"capabilities\":{\"migration\":{\"pgsize\":4096},\"x\":[1]}}\0", Ok(default)),
            ("{\"capabilities\":{\"max_msg_fds\":0}}\0", Ok(Capabilities { descriptors: 0, ..default })),
            (
                "{\"capabilities\":{\"max_data_xfer_size\":18446744073709551615}}\0",
                Ok(Capabilities { transfer: u32::MAX, ..default }),
            ),
            ("{\"capabilities\":{\"max_data_xfer_size\":7}}\0", Err("max_data_xfer_size")),
            ("{\"capabilities\":{\"max_msg_fds\":\"8\"}}\0", Err("max_msg_fds")),
            ("{\"capabilities\":{\"max_dma_maps\":-1}}\0", Err("max_dma_maps")),
            ("{\"capabilities\":7}\0", Err("capabilities is no JSON object")),
            ("[]\0", Err("the data is no JSON object")),
            ("{}", Err("the data does not end with a zero byte")),
            ("{}\0\0", Err("there is more after the zero byte")),
        ];
        for (data, expected) in rows {
            assert_eq!(Capabilities::parse(data.as_bytes()), expected, "{data:?}");
        }
        assert_eq!(Capabilities::parse(deep.as_bytes()), Err("the data is not JSON"));
    }
}
