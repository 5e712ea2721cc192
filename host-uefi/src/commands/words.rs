// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of the program.

use core::fmt;
use core::time::Duration;

use nvme_core::wire::log::LogPageId;
use nvme_core::wire::{ControllerId, NamespaceId};

use super::{Migration, Watch};

/// What `--help` prints.
pub const HELP: &str = "\
usage: nvme-lm.efi COMMAND [OPTION]...

  list                  NVMe controllers of this machine, each with its number
  identify              what a controller is, and its namespaces
  registers             its registers, as the firmware's driver left them
  read LBA COUNT        blocks, byte by byte
  log [PAGE]            a log page: 1 errors, 2 health (if none is named), 3 firmware, others byte by byte
  cdq watch --tracked ID [--entries N] [--seconds N]
                        changes of a controller that this one manages, as they come, for N seconds or 10
  migrate --source-manager C --source C --source-id ID
          --dest-manager C --dest C --dest-id ID
                        a controller with a namespace, through both managing controllers

Options
  --controller C        by number or as segment:bus:device.function; needed if there are several
  --namespace N         1 if none is named
  --help                this text

Time is counted by waits, so that time-outs and the stop time of migrate are lower bounds; cdq watch
ends by a timer of the firmware where there is one.

A controller, also to read its registers, is taken from the firmware's driver and handed back at the end: file systems on
it get new handles, which map -r in the shell shows.
";

/// How a controller is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By its number in the list.
    Number(usize),
    /// By segment, bus, device and function.
    Location([usize; 4]),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Print [`HELP`].
    Help,
    /// List the controllers.
    List,
    /// Print what a controller is.
    Identify,
    /// Print its registers.
    Registers,
    /// Print blocks.
    Read {
        /// First block.
        start: u64,
        /// Number of blocks.
        count: u64,
    },
    /// Print a log page.
    Log(LogPageId),
    /// Print changes.
    Watch(Watch),
    /// Migrate a controller.
    Migrate {
        /// Managing controllers of source and destination.
        managers: [Choice; 2],
        /// Functions of the controllers that are migrated.
        functions: [Choice; 2],
        /// Their identifiers, and the namespace.
        migration: Migration,
    },
}

/// A command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// What is to be done.
    pub request: Request,
    /// With which controller.
    pub controller: Option<Choice>,
    /// With which namespace.
    pub namespace: NamespaceId,
}

/// A command line that says nothing sensible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordError<'a> {
    /// No command of this name.
    Command(&'a str),
    /// No option of this name, or a word too many.
    Word(&'a str),
    /// An option of another command.
    Foreign(&'a str),
    /// An option that is given twice.
    Twice(&'a str),
    /// A value that is none.
    Value(&'static str, &'a str),
    /// Something is missing.
    Missing(&'static str),
}

impl fmt::Display for WordError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(word) => write!(f, "{word} is no command; --help lists them"),
            Self::Word(word) => write!(f, "{word} is not understood; --help lists what there is"),
            Self::Foreign(word) => {
                write!(f, "{word} is no option of this command; --help shows where it belongs")
            }
            Self::Twice(word) => write!(f, "{word} is given twice: give it once"),
            Self::Value(name, word) => write!(f, "{word} is no {name}; --help shows how it is written"),
            Self::Missing(name) => write!(f, "{name} is missing; --help shows where it belongs"),
        }
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn choice(word: &str) -> Option<Choice> {
    if let Some(number) = number(word) {
        return usize::try_from(number).ok().map(Choice::Number);
    }
    let mut parts = word.split([':', '.']);
    let mut part = || usize::from_str_radix(parts.next()?, 16).ok();
    let location = [part()?, part()?, part()?, part()?];
    parts.next().is_none().then_some(Choice::Location(location))
}

/// Everything that options can say.
#[derive(Default)]
struct Options {
    controller: Option<Choice>,
    namespace: Option<u32>,
    tracked: Option<u16>,
    entries: Option<u32>,
    seconds: Option<u32>,
    managers: [Option<Choice>; 2],
    functions: [Option<Choice>; 2],
    ids: [Option<u16>; 2],
}

impl Options {
    /// Takes `--NAME VALUE`.
    fn take<'a>(&mut self, name: &'a str, value: Option<&'a str>) -> Result<(), WordError<'a>> {
        fn set<'a, T>(
            place: &mut Option<T>,
            what: &'static str,
            value: Option<&'a str>,
            parse: impl Fn(&str) -> Option<T>,
        ) -> Result<(), WordError<'a>> {
            let value = value.ok_or(WordError::Missing(what))?;
            *place = Some(parse(value).ok_or(WordError::Value(what, value))?);
            Ok(())
        }
        fn small<T: TryFrom<u64>>(word: &str) -> Option<T> {
            T::try_from(number(word)?).ok()
        }
        let [source_manager, dest_manager] = &mut self.managers;
        let [source, dest] = &mut self.functions;
        let [source_id, dest_id] = &mut self.ids;
        match name {
            "--controller" => set(&mut self.controller, "controller", value, choice),
            "--namespace" => set(&mut self.namespace, "namespace", value, small),
            "--tracked" => set(&mut self.tracked, "controller identifier", value, small),
            "--entries" => set(&mut self.entries, "number of entries", value, small),
            "--seconds" => set(&mut self.seconds, "number of seconds", value, small),
            "--source-manager" => set(source_manager, "controller", value, choice),
            "--dest-manager" => set(dest_manager, "controller", value, choice),
            "--source" => set(source, "controller", value, choice),
            "--dest" => set(dest, "controller", value, choice),
            "--source-id" => set(source_id, "controller identifier", value, small),
            "--dest-id" => set(dest_id, "controller identifier", value, small),
            _ => Err(WordError::Word(name)),
        }
    }
}

/// Number of options that there are.
const OPTIONS: usize = 11;

/// Options that a command has; `None` if there is no such command.
fn options_of(command: Option<&str>) -> Option<&'static [&'static str]> {
    Some(match command {
        None | Some("list") => &[],
        Some("identify" | "registers" | "log") => &["--controller"],
        Some("read") => &["--controller", "--namespace"],
        Some("cdq") => &["--controller", "--tracked", "--entries", "--seconds"],
        Some("migrate") => &[
            "--source-manager",
            "--source",
            "--source-id",
            "--dest-manager",
            "--dest",
            "--dest-id",
            "--namespace",
        ],
        Some(_) => return None,
    })
}

/// The word that names the program itself, where there is one: the UEFI shell gives it first, a boot entry does not.
fn is_program(word: &str) -> bool {
    let name = word.rsplit(['\\', '/', ':']).next().unwrap_or(word);
    let ends = |tail: &str| {
        name.len()
            .checked_sub(tail.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|end| end.eq_ignore_ascii_case(tail))
    };
    ends(".efi") || name.eq_ignore_ascii_case("nvme-lm")
}

/// Reads a command line, with or without the program's name in front.
///
/// # Errors
/// [`WordError`] with the word that is wrong.
pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Words, WordError<'a>> {
    let mut options = Options::default();
    let mut plain: [Option<&'a str>; 3] = [None; 3];
    let mut given: [Option<&'a str>; OPTIONS] = [None; OPTIONS];
    let mut words = words.filter(|word| !word.is_empty()).enumerate();
    while let Some((at, word)) = words.next() {
        if at == 0 && is_program(word) {
            continue;
        }
        if matches!(word, "--help" | "-h" | "-?") {
            return Ok(Words { request: Request::Help, controller: None, namespace: NamespaceId::new(1) });
        }
        if word.starts_with("--") {
            if given.contains(&Some(word)) {
                return Err(WordError::Twice(word));
            }
            options.take(word, words.next().map(|(_, value)| value))?;
            // There is room for each of them once.
            if let Some(place) = given.iter_mut().find(|place| place.is_none()) {
                *place = Some(word);
            }
        } else {
            let place = plain.iter_mut().find(|place| place.is_none());
            *place.ok_or(WordError::Word(word))? = Some(word);
        }
    }
    let namespace = NamespaceId::new(options.namespace.unwrap_or(1));
    let [command, ..] = plain;
    let own = options_of(command).ok_or(WordError::Command(command.unwrap_or_default()))?;
    if let Some(foreign) = given.into_iter().flatten().find(|word| !own.contains(word)) {
        return Err(WordError::Foreign(foreign));
    }
    let request = request(plain, &options, namespace)?;
    Ok(Words { request, controller: options.controller, namespace })
}

fn request<'a>(
    plain: [Option<&'a str>; 3],
    options: &Options,
    namespace: NamespaceId,
) -> Result<Request, WordError<'a>> {
    let [command, first, second] = plain;
    let none_more = |request| match first.or(second) {
        None => Ok(request),
        Some(word) => Err(WordError::Word(word)),
    };
    let value = |name: &'static str, word: Option<&'a str>| {
        let word = word.ok_or(WordError::Missing(name))?;
        number(word).ok_or(WordError::Value(name, word))
    };
    match command {
        None => Ok(Request::Help),
        Some("list") => none_more(Request::List),
        Some("identify") => none_more(Request::Identify),
        Some("registers") => none_more(Request::Registers),
        Some("read") => Ok(Request::Read { start: value("LBA", first)?, count: value("COUNT", second)? }),
        Some("log") => match (first, second) {
            (None, _) => Ok(Request::Log(LogPageId::SMART_HEALTH_INFORMATION)),
            (Some(word), None) => {
                let page = number(word).and_then(|page| u8::try_from(page).ok());
                Ok(Request::Log(LogPageId::new(page.ok_or(WordError::Value("PAGE", word))?)))
            }
            (_, Some(word)) => Err(WordError::Word(word)),
        },
        Some("cdq") => match (first, second) {
            (Some("watch"), None) => Ok(Request::Watch(Watch {
                controller: options.tracked.ok_or(WordError::Missing("--tracked ID"))?,
                entries: options.entries.unwrap_or(4096),
                time: Duration::from_secs(u64::from(options.seconds.unwrap_or(10))),
            })),
            (Some("watch"), Some(word)) | (Some(word), _) => Err(WordError::Word(word)),
            (None, _) => Err(WordError::Missing("watch")),
        },
        Some("migrate") => {
            let ([source_manager, dest_manager], [source, dest]) = (options.managers, options.functions);
            let [source_id, dest_id] = options.ids;
            none_more(Request::Migrate {
                managers: [
                    source_manager.ok_or(WordError::Missing("--source-manager C"))?,
                    dest_manager.ok_or(WordError::Missing("--dest-manager C"))?,
                ],
                functions: [
                    source.ok_or(WordError::Missing("--source C"))?,
                    dest.ok_or(WordError::Missing("--dest C"))?,
                ],
                migration: Migration {
                    source: ControllerId::new(source_id.ok_or(WordError::Missing("--source-id ID"))?),
                    destination: ControllerId::new(dest_id.ok_or(WordError::Missing("--dest-id ID"))?),
                    namespace,
                },
            })
        }
        Some(word) => Err(WordError::Command(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Words, WordError<'_>> {
        parse(line.split(' '))
    }

    #[test]
    fn command_lines() {
        let read = Request::Read { start: 16, count: 2 };
        let rows: [(&str, Request, Option<Choice>, u32); 12] = [
            ("", Request::Help, None, 1),
            ("identify --help", Request::Help, None, 1),
            ("nvme-lm.efi list", Request::List, None, 1),
            ("FS0:\\tools\\NVME-LM.EFI list", Request::List, None, 1),
            ("nvme-lm list", Request::List, None, 1),
            ("identify --controller 2", Request::Identify, Some(Choice::Number(2)), 1),
            (
                "registers --controller 0:1:1f.7",
                Request::Registers,
                Some(Choice::Location([0, 1, 0x1F, 7])),
                1,
            ),
            ("read 0x10 2 --namespace 3", read, None, 3),
            ("--namespace 3 read 0x10  2", read, None, 3),
            ("log", Request::Log(LogPageId::SMART_HEALTH_INFORMATION), None, 1),
            ("log 1", Request::Log(LogPageId::ERROR_INFORMATION), None, 1),
            (
                "cdq watch --tracked 2 --seconds 3",
                Request::Watch(Watch { controller: 2, entries: 4096, time: Duration::from_secs(3) }),
                None,
                1,
            ),
        ];
        for (line, request, controller, namespace) in rows {
            let namespace = NamespaceId::new(namespace);
            assert_eq!(parsed(line), Ok(Words { request, controller, namespace }), "{line}");
        }
        let line =
            "migrate --source-manager 0 --source 1 --source-id 2 --dest-manager 2 --dest 3 --dest-id 7";
        let Ok(Words { request: Request::Migrate { managers, functions, migration }, .. }) = parsed(line)
        else {
            panic!("{line}");
        };
        assert_eq!(managers, [Choice::Number(0), Choice::Number(2)]);
        assert_eq!(functions, [Choice::Number(1), Choice::Number(3)]);
        assert_eq!((migration.source.get(), migration.destination.get()), (2, 7));
    }

    #[test]
    fn lines_that_say_nothing_sensible() {
        let rows = [
            ("format", WordError::Command("format")),
            ("list all", WordError::Word("all")),
            ("identify --raw 1", WordError::Word("--raw")),
            ("read", WordError::Missing("LBA")),
            ("read 1", WordError::Missing("COUNT")),
            ("read one 1", WordError::Value("LBA", "one")),
            ("read 1 2 3", WordError::Word("3")),
            ("log 256", WordError::Value("PAGE", "256")),
            ("cdq", WordError::Missing("watch")),
            ("cdq create", WordError::Word("create")),
            ("cdq watch", WordError::Missing("--tracked ID")),
            ("cdq watch --tracked 65536", WordError::Value("controller identifier", "65536")),
            ("identify --controller", WordError::Missing("controller")),
            ("identify --controller 0:1.2", WordError::Value("controller", "0:1.2")),
            ("migrate --source 1", WordError::Missing("--source-manager C")),
            ("--controller 1", WordError::Foreign("--controller")),
            ("list --controller 1", WordError::Foreign("--controller")),
            ("identify --namespace 2", WordError::Foreign("--namespace")),
            ("registers --seconds 1", WordError::Foreign("--seconds")),
            ("read 0 1 --entries 5", WordError::Foreign("--entries")),
            ("log --namespace 1", WordError::Foreign("--namespace")),
            ("cdq watch --tracked 2 --namespace 1", WordError::Foreign("--namespace")),
            ("migrate --controller 3 --source 1", WordError::Foreign("--controller")),
            ("migrate --source 1 --tracked 2", WordError::Foreign("--tracked")),
            ("read 0 1 --controller 0 --controller 1", WordError::Twice("--controller")),
            ("read 0 1 --namespace 1 --namespace 1", WordError::Twice("--namespace")),
        ];
        for (line, expected) in rows {
            assert_eq!(parsed(line), Err(expected), "{line}");
        }
    }
}
