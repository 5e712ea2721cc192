// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules as text.

use core::fmt;
use core::num::{NonZeroU16, NonZeroU32};

use nvme_core::wire::{ControllerId, QueueId, Status, StatusCode};

use super::action::{DEFAULT_XOR, Delay, FaultAction, FaultKind, Occasion, ReservedSequence};
use super::rule::{DwordMatch, FaultRule, Probability, QueueMatch};

/// Why a text is not a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultRuleProblem {
    /// There is no action.
    NoAction,
    /// No action has this name.
    UnknownAction,
    /// No condition has this name.
    UnknownKey,
    /// The name needs a value, of this form.
    NeedsValue(&'static str),
    /// The name takes no value.
    TakesNoValue,
    /// The value is not of this form.
    Value(&'static str),
    /// The condition was given before.
    Repeated,
    /// Only actions on commands can be limited to queues, opcodes and dwords; this one acts on something else.
    NotAboutCommands(FaultKind),
    /// A rule looks at four dwords at most.
    TooManyDwords,
}

/// A text that is not a rule: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRuleError {
    /// Bytes before what is wrong.
    pub position: usize,
    /// What is wrong.
    pub problem: FaultRuleProblem,
}

impl core::error::Error for FaultRuleError {}

impl fmt::Display for FaultRuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: ", self.position)?;
        match self.problem {
            FaultRuleProblem::NoAction => f.write_str("no action; possible are ").and_then(|()| actions(f)),
            FaultRuleProblem::UnknownAction => {
                f.write_str("no such action; possible are ").and_then(|()| actions(f))
            }
            FaultRuleProblem::UnknownKey => write!(f, "no such condition; possible are {KEYS}"),
            FaultRuleProblem::NeedsValue(form) => write!(f, "a value is missing; write {form}"),
            FaultRuleProblem::TakesNoValue => f.write_str("no value is possible here"),
            FaultRuleProblem::Value(form) => write!(f, "not a value; possible is {form}"),
            FaultRuleProblem::Repeated => f.write_str("this condition was given before; give it once"),
            FaultRuleProblem::NotAboutCommands(kind) => write!(
                f,
                "{kind} does not act on commands; possible are controller, nth, every, times, ppm and seed"
            ),
            FaultRuleProblem::TooManyDwords => {
                f.write_str("more than four dwords; possible are four at most")
            }
        }
    }
}

fn actions(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (index, kind) in FaultKind::ALL.iter().enumerate() {
        write!(f, "{}{kind}", if index == 0 { "" } else { ", " })?;
    }
    Ok(())
}

const KEYS: &str = "controller, queue, opcode, dw0 to dw15, nth, every, times, ppm and seed";
const NUMBER: &str = "a number from 1 to 4294967295";
const IDENTIFIER: &str = "a number from 0 to 65535, or 0x and hexadecimal digits";
const QUEUE: &str = "any, admin, io or a queue number from 0 to 65535";
const OPCODE: &str = "two hexadecimal digits, 00 to ff";
const DWORD: &str = "VALUE or VALUE/MASK, each one to eight hexadecimal digits";
const PPM: &str = "a number from 0 to 1000000, parts per million";
const SEED: &str = "a number from 0 to 18446744073709551615";
const XOR: &str = "hexadecimal digits, 1 to ffff: the bits to invert";
const DELAY: &str = "a number with polls, us, ms or s, as in 5polls or 20ms";
const POLLS: &str = "a number from 1 to 4294967295 with polls, as in 5polls";
const READS: &str = "a number from 1 to 4294967295 with reads, as in 3reads";
const STATUS: &str =
    "SCT/SC in hexadecimal, 0 to 7 and 0 to ff, then +dnr, +more or +crd1 to +crd3 as wanted, as in 2/81+dnr";
const SEQUENCE: &str = "4, 5 or 6";

/// A piece of the text and where it begins.
#[derive(Clone, Copy)]
struct Piece<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Piece<'t> {
    fn trimmed(self) -> Self {
        let text = self.text.trim_start_matches(' ');
        let skipped = self.text.len().saturating_sub(text.len());
        Self { text: text.trim_end_matches(' '), at: self.at.saturating_add(skipped) }
    }

    /// The parts before and after the first `separator`, an ASCII character. Searched byte by byte: a search by the
    /// standard library has a panic that no optimiser takes out.
    fn split(self, separator: char) -> (Self, Option<Self>) {
        let parts = self.text.bytes().position(|byte| char::from(byte) == separator).and_then(|end| {
            let next = end.saturating_add(1);
            let at = self.at.saturating_add(next);
            Some((self.text.get(..end)?, Self { text: self.text.get(next..)?, at }))
        });
        match parts {
            Some((before, after)) => (Self { text: before, at: self.at }, Some(after)),
            None => (self, None),
        }
    }

    const fn end(self) -> usize {
        self.at.saturating_add(self.text.len())
    }

    const fn error(self, problem: FaultRuleProblem) -> FaultRuleError {
        FaultRuleError { position: self.at, problem }
    }

    const fn bad(self, form: &'static str) -> FaultRuleError {
        self.error(FaultRuleProblem::Value(form))
    }

    fn decimal(self, max: u64, form: &'static str) -> Result<u64, FaultRuleError> {
        let digits = !self.text.is_empty() && self.text.bytes().all(|byte| byte.is_ascii_digit());
        match self.text.parse() {
            Ok(value) if digits && value <= max => Ok(value),
            _ => Err(self.bad(form)),
        }
    }

    fn hexadecimal(self, max: u64, form: &'static str) -> Result<u64, FaultRuleError> {
        let digits = self.text.strip_prefix("0x").unwrap_or(self.text);
        let good = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(digits, 16) {
            Ok(value) if good && value <= max => Ok(value),
            _ => Err(self.bad(form)),
        }
    }

    fn positive(self, form: &'static str) -> Result<NonZeroU32, FaultRuleError> {
        let value = self.decimal(u64::from(u32::MAX), form)?;
        u32::try_from(value).ok().and_then(NonZeroU32::new).ok_or(self.bad(form))
    }

    /// A positive number with `unit` behind it.
    fn counted(self, unit: &str, form: &'static str) -> Result<NonZeroU32, FaultRuleError> {
        let number = self.text.strip_suffix(unit).ok_or(self.bad(form))?;
        Piece { text: number, at: self.at }.positive(form).map_err(|_| self.bad(form))
    }

    fn identifier(self, form: &'static str) -> Result<u16, FaultRuleError> {
        let max = u64::from(u16::MAX);
        let value =
            if self.text.starts_with("0x") { self.hexadecimal(max, form)? } else { self.decimal(max, form)? };
        u16::try_from(value).map_err(|_| self.bad(form))
    }
}

fn delay(value: Piece<'_>) -> Result<Delay, FaultRuleError> {
    for (unit, micros) in [("polls", 0), ("us", 1), ("ms", 1_000), ("s", 1_000_000)] {
        let Some(number) = value.text.strip_suffix(unit) else { continue };
        let number = Piece { text: number, at: value.at };
        if micros == 0 {
            let polls = number.decimal(u64::from(u32::MAX), DELAY)?;
            return u32::try_from(polls).map(Delay::Polls).map_err(|_| value.bad(DELAY));
        }
        let count = number.decimal(u64::MAX, DELAY)?;
        return count.checked_mul(micros).map(Delay::Micros).ok_or(value.bad(DELAY));
    }
    Err(value.bad(DELAY))
}

fn status(value: Piece<'_>) -> Result<Status, FaultRuleError> {
    let (code, mut flags) = value.split('+');
    let (kind, Some(code)) = code.split('/') else { return Err(value.bad(STATUS)) };
    let byte = |piece: Piece<'_>, max| {
        piece.hexadecimal(max, STATUS).and_then(|value| u8::try_from(value).map_err(|_| piece.bad(STATUS)))
    };
    let mut status = StatusCode::new(byte(kind, 7)?, byte(code, 0xFF)?).status();
    while let Some(rest) = flags {
        let (flag, more) = rest.split('+');
        status = match flag.text {
            "dnr" => status.with_do_not_retry(),
            "more" => status.with_more(),
            "crd1" => status.with_retry_delay(1),
            "crd2" => status.with_retry_delay(2),
            "crd3" => status.with_retry_delay(3),
            _ => return Err(flag.bad(STATUS)),
        };
        flags = more;
    }
    Ok(status)
}

fn xor(value: Option<Piece<'_>>) -> Result<NonZeroU16, FaultRuleError> {
    let Some(value) = value else { return Ok(DEFAULT_XOR) };
    let bits = value.hexadecimal(u64::from(u16::MAX), XOR)?;
    u16::try_from(bits).ok().and_then(NonZeroU16::new).ok_or(value.bad(XOR))
}

fn action(part: Piece<'_>) -> Result<FaultAction, FaultRuleError> {
    let (name, value) = part.split('=');
    if name.text.is_empty() {
        return Err(name.error(FaultRuleProblem::NoAction));
    }
    let kind = FaultKind::ALL
        .iter()
        .copied()
        .find(|kind| kind.name() == name.text)
        .ok_or(name.error(FaultRuleProblem::UnknownAction))?;
    let needed = |form| {
        let missing = FaultRuleError { position: name.end(), problem: FaultRuleProblem::NeedsValue(form) };
        value.ok_or(missing)
    };
    if let (Some(value), "") = (value, kind.value()) {
        return Err(value.error(FaultRuleProblem::TakesNoValue));
    }
    Ok(match kind {
        FaultKind::Delay => FaultAction::Delay(delay(needed(DELAY)?)?),
        FaultKind::WrongCommandId => FaultAction::WrongCommandId(xor(value)?),
        FaultKind::WrongQueueId => FaultAction::WrongQueueId(xor(value)?),
        FaultKind::WrongSqHead => FaultAction::WrongSqHead(xor(value)?),
        FaultKind::CdqEventUnknown => FaultAction::CdqEventUnknown(xor(value)?),
        FaultKind::Status => FaultAction::Status(status(needed(STATUS)?)?),
        FaultKind::AllOnes => {
            FaultAction::AllOnes(value.map(|value| value.counted("reads", READS)).transpose()?)
        }
        FaultKind::LateReady => FaultAction::LateReady(needed(POLLS)?.counted("polls", POLLS)?),
        FaultKind::CdqTornEntry => {
            FaultAction::CdqTornEntry(value.map(|value| value.counted("polls", POLLS)).transpose()?)
        }
        FaultKind::CdqWriteAfterDelete => {
            let polls = value.map(|value| value.counted("polls", POLLS)).transpose()?;
            FaultAction::CdqWriteAfterDelete(polls.unwrap_or(NonZeroU32::MIN))
        }
        FaultKind::CdqReservedSequence => FaultAction::CdqReservedSequence(match value {
            None => ReservedSequence::Four,
            Some(value) => match value.text {
                "4" => ReservedSequence::Four,
                "5" => ReservedSequence::Five,
                "6" => ReservedSequence::Six,
                _ => return Err(value.bad(SEQUENCE)),
            },
        }),
        // The others have no value; seed 0 gives them as they are.
        _ => kind.action(0),
    })
}

/// Takes a value that may be given once.
fn once<T>(slot: &mut Option<T>, key: Piece<'_>, value: T) -> Result<(), FaultRuleError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(key.error(FaultRuleProblem::Repeated)),
    }
}

fn dword(number: &str, value: Piece<'_>) -> Option<Result<DwordMatch, FaultRuleError>> {
    let index = (0..16_u8).find(|index| {
        let digits = number.as_bytes();
        match index.checked_sub(10) {
            None => digits == [b'0'.saturating_add(*index)],
            Some(low) => digits == [b'1', b'0'.saturating_add(low)],
        }
    })?;
    let (wanted, mask) = value.split('/');
    let bits = |piece: Piece<'_>| {
        let bits = piece.hexadecimal(u64::from(u32::MAX), DWORD)?;
        u32::try_from(bits).map_err(|_| piece.bad(DWORD))
    };
    Some((|| {
        let mask = mask.map_or(Ok(u32::MAX), bits)?;
        DwordMatch::new(index, bits(wanted)?, mask).ok_or(value.bad(DWORD))
    })())
}

impl FaultRule {
    /// Reads a rule: an action, then conditions, separated by commas, as described on the page of this
    /// [module](super). Bounded by the length of the text.
    ///
    /// # Errors
    /// [`FaultRuleError`] with the byte position of what is wrong, and what is possible there.
    pub fn parse(text: &str) -> Result<Self, FaultRuleError> {
        let (first, mut rest) = Piece { text, at: 0 }.split(',');
        let mut rule = Self::new(action(first.trimmed())?);
        let about_commands =
            matches!(rule.action.kind().occasion(), Occasion::Command | Occasion::RegisterRead);
        let (mut queue, mut probability, mut seed) = (None, None, None);
        while let Some(piece) = rest {
            let (part, more) = piece.split(',');
            rest = more;
            let (key, value) = part.trimmed().split('=');
            let about_command = matches!(key.text, "queue" | "opcode") || key.text.starts_with("dw");
            let form = match key.text {
                "controller" => IDENTIFIER,
                "queue" => QUEUE,
                "opcode" => OPCODE,
                "nth" | "every" | "times" => NUMBER,
                "ppm" => PPM,
                "seed" => SEED,
                name if name.starts_with("dw") => DWORD,
                _ => return Err(key.error(FaultRuleProblem::UnknownKey)),
            };
            if about_command && !about_commands {
                return Err(key.error(FaultRuleProblem::NotAboutCommands(rule.action.kind())));
            }
            let Some(value) = value else {
                let problem = FaultRuleProblem::NeedsValue(form);
                return Err(FaultRuleError { position: key.end(), problem });
            };
            match key.text {
                "controller" => {
                    once(&mut rule.controller, key, ControllerId::new(value.identifier(form)?))?;
                }
                "queue" => {
                    let wanted = match value.text {
                        "any" => QueueMatch::Any,
                        "admin" => QueueMatch::Admin,
                        "io" => QueueMatch::Io,
                        _ => QueueMatch::Id(QueueId::new(value.identifier(form)?)),
                    };
                    once(&mut queue, key, wanted)?;
                }
                "opcode" => {
                    let digits = value.text.strip_prefix("0x").unwrap_or(value.text);
                    let opcode = value.hexadecimal(0xFF, form).ok().filter(|_| digits.len() == 2);
                    let opcode = opcode.ok_or(value.bad(form))?;
                    once(&mut rule.opcode, key, u8::try_from(opcode).map_err(|_| value.bad(form))?)?;
                }
                "nth" => once(&mut rule.nth, key, value.positive(form)?)?,
                "every" => once(&mut rule.every, key, value.positive(form)?)?,
                "times" => once(&mut rule.times, key, value.positive(form)?)?,
                "ppm" => {
                    let ppm = u32::try_from(value.decimal(1_000_000, form)?).map_err(|_| value.bad(form))?;
                    once(&mut probability, key, Probability::new(ppm))?;
                }
                "seed" => once(&mut seed, key, value.decimal(u64::MAX, form)?)?,
                name => {
                    let number = name.strip_prefix("dw").unwrap_or_default();
                    let found = dword(number, value).ok_or(key.error(FaultRuleProblem::UnknownKey))??;
                    if rule.dwords.iter().flatten().any(|other| other.index() == found.index()) {
                        return Err(key.error(FaultRuleProblem::Repeated));
                    }
                    rule = rule.dword(found).ok_or(key.error(FaultRuleProblem::TooManyDwords))?;
                }
            }
        }
        rule.queue = queue.unwrap_or_default();
        rule.probability = probability.unwrap_or(Probability::ALWAYS);
        rule.seed = seed.unwrap_or(0);
        Ok(rule)
    }
}

impl core::str::FromStr for FaultRule {
    type Err = FaultRuleError;

    fn from_str(text: &str) -> Result<Self, FaultRuleError> {
        Self::parse(text)
    }
}

impl fmt::Display for FaultAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
        match self {
            Self::Delay(Delay::Polls(polls)) => write!(f, "={polls}polls"),
            Self::Delay(Delay::Micros(micros)) => {
                match (micros.checked_rem(1_000_000), micros.checked_rem(1_000)) {
                    (Some(0), _) => write!(f, "={}s", micros / 1_000_000),
                    (_, Some(0)) => write!(f, "={}ms", micros / 1_000),
                    _ => write!(f, "={micros}us"),
                }
            }
            Self::WrongCommandId(xor)
            | Self::WrongQueueId(xor)
            | Self::WrongSqHead(xor)
            | Self::CdqEventUnknown(xor) => write!(f, "={xor:04x}"),
            Self::Status(status) => {
                write!(f, "={:x}/{:02x}", status.code().kind(), status.code().code())?;
                if status.do_not_retry() {
                    f.write_str("+dnr")?;
                }
                if status.more() {
                    f.write_str("+more")?;
                }
                match status.retry_delay() {
                    0 => Ok(()),
                    delay => write!(f, "+crd{delay}"),
                }
            }
            Self::AllOnes(Some(reads)) => write!(f, "={reads}reads"),
            Self::LateReady(polls) | Self::CdqTornEntry(Some(polls)) | Self::CdqWriteAfterDelete(polls) => {
                write!(f, "={polls}polls")
            }
            Self::CdqReservedSequence(sequence) => write!(f, "={}", sequence.bits()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for FaultRule {
    /// The rule as [`parse`](FaultRule::parse) reads it, every condition that limits it once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.action.fmt(f)?;
        if let Some(controller) = self.controller {
            write!(f, ",controller={}", controller.get())?;
        }
        match self.queue {
            QueueMatch::Any => {}
            QueueMatch::Admin => f.write_str(",queue=admin")?,
            QueueMatch::Io => f.write_str(",queue=io")?,
            QueueMatch::Id(id) => write!(f, ",queue={id}")?,
        }
        if let Some(opcode) = self.opcode {
            write!(f, ",opcode={opcode:02x}")?;
        }
        for dword in self.dwords.iter().flatten() {
            write!(f, ",dw{}={:x}", dword.index(), dword.value())?;
            if dword.mask() != u32::MAX {
                write!(f, "/{:x}", dword.mask())?;
            }
        }
        for (key, value) in [("nth", self.nth), ("every", self.every), ("times", self.times)] {
            if let Some(value) = value {
                write!(f, ",{key}={value}")?;
            }
        }
        if self.probability != Probability::ALWAYS {
            write!(f, ",ppm={}", self.probability.ppm())?;
        }
        if self.seed != 0 {
            write!(f, ",seed={}", self.seed)?;
        }
        Ok(())
    }
}
