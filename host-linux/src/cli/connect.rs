// SPDX-License-Identifier: MIT OR Apache-2.0
//! Options of every command that uses controllers, and how they are opened.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nvme_controller::Quirks;
use nvme_controller::fault::FaultRule;

use super::values;
use crate::backend::{EmbeddedOptions, InterruptMode, OpenOptions};
use crate::memory::Backing;
use crate::quirks::QuirkChoice;
use crate::vfio::{IommuBackend, VfToken};

/// How controllers are reached and how their answers are shown.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectArgs {
    /// Print JSON for machines.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// Give a command up after this long [default: 30s].
    #[arg(long, hide_short_help = true, value_name = "TIME", value_parser = values::command_timeout, help_heading = "Controller")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) reach: ReachArgs,
    /// Which known deviations the controller has: none, list (shows them all), +NAME, -NAME, separated by commas
    /// [default: those of its model].
    #[arg(
        long,
        hide_short_help = true,
        value_name = "LIST",
        allow_hyphen_values = true,
        help_heading = "Controller"
    )]
    pub(crate) quirks: Option<QuirkChoice>,
    /// Send commands that the controller does not announce, and to primary controllers those about a secondary one, whose guest
    /// loses it.
    #[arg(long, hide_short_help = true, help_heading = "Controller")]
    pub(crate) force: bool,
}

/// How controllers are opened.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Controller")]
pub struct ReachArgs {
    /// Look for completions instead of waiting for interrupts.
    #[arg(long, hide_short_help = true)]
    pub(crate) polling: bool,
    /// UUID that a physical function and its virtual functions have in common.
    #[arg(long, hide_short_help = true, value_name = "UUID")]
    pub(crate) vf_token: Option<VfToken>,
    /// How the kernel lets PCI functions reach memory: auto, type1 or iommufd.
    #[arg(long, hide_short_help = true, value_name = "NAME", default_value = "auto")]
    pub(crate) iommu: IommuBackend,
    /// Take huge pages of 2 MiB, which were set aside before, for what controllers reach (not embedded ones).
    #[arg(long, hide_short_help = true)]
    pub(crate) huge_pages: bool,
    /// What embedded:NAME is like: NAME[,size=BYTES][,block=512|4096][,image=FILE][,quirks=NAME+NAME...]
    /// [,fault=RULE;RULE...]; may be repeated. Its controllers imitate the quirks, and have the faults, which come last.
    #[arg(long, hide_short_help = true, value_name = "SPEC", value_parser = embedded)]
    pub(crate) embedded: Vec<EmbeddedOptions>,
}

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(30);

impl ConnectArgs {
    /// How long a command may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// Which quirks controllers are taken to have.
    pub(crate) fn quirks(&self) -> QuirkChoice {
        self.quirks.unwrap_or_default()
    }

    /// The options of a command of a script, whose own options they are added to.
    pub(crate) fn within(&self, script: &Self) -> Self {
        Self {
            json: self.json || script.json,
            timeout: self.timeout.or(script.timeout),
            force: self.force || script.force,
            quirks: self.quirks.or(script.quirks),
            ..script.clone()
        }
    }

    /// Takes from the options of a command of a script what concerns how controllers are opened.
    pub(crate) fn gather(&mut self, line: &Self) -> Result<(), String> {
        self.reach.polling |= line.reach.polling;
        self.reach.huge_pages |= line.reach.huge_pages;
        if line.reach.iommu != IommuBackend::default() {
            if ![IommuBackend::default(), line.reach.iommu].contains(&self.reach.iommu) {
                return Err("another --iommu than before; one holds for the whole script".into());
            }
            self.reach.iommu = line.reach.iommu;
        }
        if let Some(token) = line.reach.vf_token
            && self.reach.vf_token.replace(token).is_some_and(|other| other != token)
        {
            return Err("another --vf-token than before; one holds for the whole script".into());
        }
        for one in &line.reach.embedded {
            match self.reach.embedded.iter().find(|other| other.name == one.name) {
                None => self.reach.embedded.push(one.clone()),
                Some(other) if other == one => {}
                Some(_) => {
                    return Err(format!("another --embedded {} than before; give it once", one.name));
                }
            }
        }
        Ok(())
    }

    /// How controllers are opened.
    pub(crate) fn options(&self) -> OpenOptions {
        self.reach.options()
    }
}

impl ReachArgs {
    /// How controllers are opened.
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions {
            vf_token: self.vf_token,
            iommu: self.iommu,
            backing: if self.huge_pages { Backing::Huge } else { Backing::Ordinary },
            interrupts: if self.polling { InterruptMode::Polling } else { InterruptMode::Auto },
            timeout: None,
            embedded: self.embedded.clone(),
        }
    }
}

/// Reads what an embedded subsystem is like.
pub(super) fn embedded(text: &str) -> Result<EmbeddedOptions, String> {
    // Rules have commas of their own.
    let (text, rules) = text.split_once(",fault=").map_or((text, None), |(text, rules)| (text, Some(rules)));
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("{name:?} is no name; it has letters, digits, '-', '_' and '.'"));
    }
    let (mut options, mut size) = (EmbeddedOptions::new(name), None);
    let mut given: Vec<&str> = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').ok_or_else(|| {
            format!(
                "{part:?} is no setting; write size=BYTES, block=512, block=4096, image=FILE or quirks=NAME"
            )
        })?;
        if given.contains(&key) {
            return Err(format!("{key} is given twice; leave one of them out"));
        }
        given.push(key);
        match key {
            "size" => size = Some(values::size(value).map_err(|error| format!("size: {error}"))?),
            "block" => {
                options.block_size = values::block_size(value).map_err(|error| format!("block: {error}"))?
            }
            "image" if value.is_empty() => return Err("image: the name of a file is missing".into()),
            "image" => options.image = Some(PathBuf::from(value)),
            "quirks" => {
                for name in value.split('+') {
                    options.quirks |= imitated(name)?;
                }
            }
            _ => {
                return Err(format!(
                    "there is no setting {key:?}; there are size, block, image, quirks and fault"
                ));
            }
        }
    }
    match (size, &options.image) {
        (Some(_), Some(_)) => {
            return Err("size: the namespace is as long as its image; leave size out".into());
        }
        (Some(size), None) => options.size = size,
        (None, _) => {}
    }
    for rule in rules.iter().flat_map(|rules| rules.split(';')) {
        let rule = FaultRule::parse(rule)
            .map_err(|error| format!("fault {rule:?}: {error}; nvme-lm faults lists them"))?;
        options.faults.push(rule);
    }
    Ok(options)
}

/// The deviation called `name` that an embedded subsystem can imitate.
fn imitated(name: &str) -> Result<Quirks, String> {
    let known = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let found = Quirks::all().iter_names().find(|(other, _)| known(other) == name);
    found.map(|(_, quirk)| quirk).ok_or_else(|| {
        let names: Vec<String> = Quirks::all().iter_names().map(|(name, _)| known(name)).collect();
        format!("quirks: there is no {name:?} to imitate; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_subsystems_are_described_in_one_word() {
        use nvme_controller::fault::FaultAction;
        let plain = EmbeddedOptions::new("a");
        let rows = [
            ("a", Ok(plain.clone())),
            ("a,size=2M", Ok(EmbeddedOptions { size: 2 << 20, ..plain.clone() })),
            (
                "a,block=512,image=x y",
                Ok(EmbeddedOptions { block_size: 512, image: Some("x y".into()), ..plain.clone() }),
            ),
            (
                "a,quirks=limits-read-zero+copy-not-logged,block=512",
                Ok(EmbeddedOptions {
                    quirks: Quirks::LIMITS_READ_ZERO | Quirks::COPY_NOT_LOGGED,
                    block_size: 512,
                    ..plain.clone()
                }),
            ),
            (
                "a,fault=drop,opcode=06;fatal,nth=2",
                Ok(EmbeddedOptions {
                    faults: vec![
                        FaultRule::new(FaultAction::Drop).opcode(6),
                        FaultRule::new(FaultAction::Fatal).nth(2),
                    ],
                    ..plain.clone()
                }),
            ),
            ("a,quirks=", Err("there is no \"\" to imitate; there are dataset-length-one-based, ")),
            ("a,quirks=events-once", Err("there is no \"events-once\" to imitate")),
            ("a,fault=", Err("fault \"\": at byte 0: no action; possible are drop")),
            ("a,fault=drop;lunch", Err("fault \"lunch\": at byte 0: no such action")),
            ("a,size=2M,image=x", Err("leave size out")),
            ("", Err("is no name")),
            ("a b", Err("is no name")),
            ("a,", Err("is no setting")),
            ("a,size", Err("is no setting")),
            ("a,size=1", Err("size: ")),
            ("a,block=1024", Err("block: ")),
            ("a,image=", Err("file is missing")),
            ("a,size=1G,size=2G", Err("size is given twice")),
            ("a,block=512,size=2M,block=512", Err("block is given twice")),
            ("a,speed=9", Err("no setting \"speed\"")),
        ];
        for (text, expected) in rows {
            match (embedded(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(error), Err(words)) => assert!(error.contains(words), "{text}: {error}"),
                (found, expected) => panic!("{text}: {found:?} where {expected:?} should be"),
            }
        }
    }
}
