// SPDX-License-Identifier: MIT OR Apache-2.0
//! Enabling a controller. NVMe Base 2.1 §3.5.1, Memory-based Controller Initialization.

use core::fmt;
use core::time::Duration;

use super::{Core, Disabled, Disabling, Fault, POLL_INTERVAL, Ready, SHORTEST_TIMEOUT};
use crate::admin::{AdminQueue, AdminSlot};
use crate::dma::{DmaArena, DmaError};
use crate::register::RegisterIo;
use crate::time::{Instant, Step};
use crate::wire::register::{
    self, AdminQueueAttributes, Arbitration, Capabilities, CommandSetSelection, ControllerConfiguration,
    ControllerReadyTimeouts,
};

/// How a controller is to be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnableOptions {
    /// Memory page size in bytes (CC.MPS); if `None`, the smallest the controller supports, which may be
    /// [`page_limit`](Self::page_limit) at most.
    pub page_size: Option<u32>,
    /// Largest page size in bytes to take over from the controller, which otherwise would decide how much memory the
    /// queues take: a queue is aligned to a page, and each slot may have pages for PRP lists.
    pub page_limit: u32,
    /// I/O command sets (CC.CSS); if `None`, the NVM Command Set where it is supported, otherwise all, otherwise none.
    pub command_sets: Option<CommandSetSelection>,
    /// Entries of the admin submission queue, 2 to 4,096. With 2 no event request is kept.
    pub submission_entries: u16,
    /// Entries of the admin completion queue, 2 to 4,096.
    pub completion_entries: u16,
    /// Most Asynchronous Event Requests to keep outstanding; each takes one slot for good.
    pub events: u16,
    /// Longest data transfer of an admin command in bytes; decides how much memory for PRP lists each slot gets.
    pub max_transfer: usize,
    /// Longest time to wait for the controller to become ready, whatever it states (CRTO may state 9 hours).
    pub ready_limit: Duration,
    /// Become ready before the media is (CC.CRIME), if the controller supports both modes.
    pub ready_independent_of_media: bool,
}

impl Default for EnableOptions {
    /// Queues of 32 entries, 4 event requests, transfers of up to 2 MiB, pages of up to 64 KiB, 5 minutes to become ready:
    /// twice what a controller can state without CRTO.
    fn default() -> Self {
        Self {
            page_size: None,
            page_limit: 64 << 10,
            command_sets: None,
            submission_entries: 32,
            completion_entries: 32,
            events: 4,
            max_transfer: 2 << 20,
            ready_limit: Duration::from_secs(300),
            ready_independent_of_media: false,
        }
    }
}

/// Why a controller cannot be enabled as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableError {
    /// The page size is not a power of two in the range the controller supports.
    PageSize {
        /// Bytes asked for.
        bytes: u32,
        /// Smallest supported (CAP.MPSMIN).
        min: u32,
        /// Largest supported (CAP.MPSMAX).
        max: u32,
    },
    /// The controller supports no page size that is small enough.
    PageLimit {
        /// Largest size allowed, in bytes.
        limit: u32,
        /// Smallest supported (CAP.MPSMIN).
        min: u32,
    },
    /// The controller does not support the selection of I/O command sets.
    CommandSets(CommandSetSelection),
    /// An admin queue has 2 to 4,096 entries.
    Entries(u16),
    /// No slot is left for commands besides the event requests.
    Slots {
        /// Slots lent.
        lent: usize,
        /// Slots needed at least.
        needed: usize,
    },
    /// Commands without data only would be of no use.
    MaxTransfer,
    /// Memory for the queues could not be had.
    Dma(DmaError),
}

impl core::error::Error for EnableError {}

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PageSize { bytes, min, max } => {
                write!(f, "page size {bytes} is not a power of two from {min} to {max}; choose one")
            }
            Self::PageLimit { limit, min } => write!(
                f,
                "the controller's smallest page is {min} bytes, more than {limit}; raise the limit, or choose the size"
            ),
            Self::CommandSets(selection) => {
                write!(f, "the controller does not support {selection}; choose other command sets")
            }
            Self::Entries(entries) => {
                write!(f, "an admin queue of {entries} entries is not possible; choose 2 to 4096")
            }
            Self::Slots { lent, needed } => {
                write!(f, "{lent} admin slots are too few; lend at least {needed}")
            }
            Self::MaxTransfer => f.write_str("the longest transfer is zero bytes; choose at least 4096"),
            Self::Dma(error) => write!(f, "no memory for the admin queue: {error}"),
        }
    }
}

/// A controller that was not enabled, with what was lent.
pub struct EnableRejected<'d, 's, R: ?Sized, A: DmaArena> {
    /// The reason.
    pub error: EnableError,
    /// The controller, unchanged.
    pub disabled: Disabled<'d, 's, R, A>,
    /// The slots.
    pub slots: &'s mut [AdminSlot],
}

fn page_size(options: &EnableOptions, capabilities: Capabilities) -> Result<u32, EnableError> {
    let (min, max) = (capabilities.min_page_size(), capabilities.max_page_size());
    let bytes = match options.page_size {
        Some(bytes) => bytes,
        None if min > options.page_limit => {
            return Err(EnableError::PageLimit { limit: options.page_limit, min });
        }
        None => min,
    };
    if bytes.is_power_of_two() && (min..=max).contains(&bytes) {
        Ok(bytes)
    } else {
        Err(EnableError::PageSize { bytes, min, max })
    }
}

fn command_sets(
    options: &EnableOptions,
    capabilities: Capabilities,
) -> Result<CommandSetSelection, EnableError> {
    let supported = |selection| match selection {
        CommandSetSelection::NVM => capabilities.nvm_command_set_supported(),
        CommandSetSelection::ALL_SUPPORTED => capabilities.all_command_sets_supported(),
        CommandSetSelection::ADMIN_ONLY => capabilities.no_command_set_supported(),
        _ => false,
    };
    match options.command_sets {
        Some(selection) if supported(selection) => Ok(selection),
        Some(selection) => Err(EnableError::CommandSets(selection)),
        None => [CommandSetSelection::NVM, CommandSetSelection::ALL_SUPPORTED]
            .into_iter()
            .find(|selection| supported(*selection))
            .map_or(Ok(CommandSetSelection::ADMIN_ONLY), Ok),
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Configure,
    Await(Instant),
    Done,
    Failed(Fault),
}

/// A controller on its way to ready. Poll it until it is [`Step::Done`], then [`finish`](Self::finish).
#[must_use = "poll it to the end, or the controller stays as it is"]
pub struct Enabling<'d, 's, R: ?Sized, A: DmaArena> {
    core: Core<'d, R, A>,
    queue: AdminQueue<'d, 's, R, A>,
    configuration: ControllerConfiguration,
    limit: Duration,
    stage: Stage,
}

impl<'d, 's, R: RegisterIo + ?Sized, A: DmaArena> Enabling<'d, 's, R, A> {
    pub(super) fn new(
        core: Core<'d, R, A>,
        options: &EnableOptions,
        slots: &'s mut [AdminSlot],
    ) -> Result<Self, (EnableError, &'s mut [AdminSlot])> {
        let needed = usize::from(options.events).saturating_add(1);
        let check = || {
            for entries in [options.submission_entries, options.completion_entries] {
                if !(2..=4096).contains(&entries) {
                    return Err(EnableError::Entries(entries));
                }
            }
            if slots.len() < needed {
                return Err(EnableError::Slots { lent: slots.len(), needed });
            }
            if options.max_transfer == 0 {
                return Err(EnableError::MaxTransfer);
            }
            Ok((page_size(options, core.capabilities)?, command_sets(options, core.capabilities)?))
        };
        let (page, sets) = match check() {
            Ok(found) => found,
            Err(error) => return Err((error, slots)),
        };
        let early = options.ready_independent_of_media
            && core.capabilities.ready_independent_of_media_supported()
            && core.capabilities.ready_with_media_supported();
        let configuration = ControllerConfiguration::from_bits(0)
            .with_page_size(page)
            .with_command_sets(sets)
            .with_arbitration(Arbitration::ROUND_ROBIN)
            .with_submission_entry_exponent(6)
            .with_completion_entry_exponent(4)
            .with_ready_independent_of_media(early);
        let queue = AdminQueue::new(core, options, page as usize, slots)
            .map_err(|(error, slots)| (EnableError::Dma(error), slots))?;
        Ok(Self { core, queue, configuration, limit: options.ready_limit, stage: Stage::Configure })
    }

    fn timeout(&self) -> Result<Duration, Fault> {
        let capabilities = self.core.capabilities;
        let stated = if capabilities.ready_with_media_supported()
            || capabilities.ready_independent_of_media_supported()
        {
            let timeouts = ControllerReadyTimeouts::from_bits(self.core.read32(register::CRTO)?);
            if self.configuration.ready_independent_of_media() {
                timeouts.ready_independent_of_media()
            } else {
                timeouts.ready_with_media()
            }
        } else {
            Duration::ZERO
        };
        let stated = if stated.is_zero() { capabilities.timeout() } else { stated };
        Ok(stated.max(SHORTEST_TIMEOUT).min(self.limit))
    }

    /// Goes on. Waits no longer than the controller itself states (CRTO, or CAP.TO where CRTO is not implemented), and
    /// than [`EnableOptions::ready_limit`].
    ///
    /// # Errors
    /// [`Fault::FatalStatus`], [`Fault::NotReadyInTime`], [`Fault::Removed`], [`Fault::RegisterAccess`]; the only way on is
    /// [`abort`](Self::abort).
    pub fn poll(&mut self, now: Instant) -> Result<Step, Fault> {
        match self.advance(now) {
            Ok(step) => Ok(step),
            Err(fault) => {
                let fault = self.queue.fail(fault);
                self.stage = Stage::Failed(fault);
                Err(fault)
            }
        }
    }

    fn advance(&mut self, now: Instant) -> Result<Step, Fault> {
        match self.stage {
            Stage::Configure => {
                let attributes = AdminQueueAttributes::from_bits(0)
                    .with_submission_entries(self.queue.submission_entries())
                    .with_completion_entries(self.queue.completion_entries());
                self.core.write32(register::AQA, attributes.bits())?;
                self.core.write64(register::ASQ, self.queue.submission_base().get())?;
                self.core.write64(register::ACQ, self.queue.completion_base().get())?;
                let timeout = self.timeout()?;
                // Everything but EN first: some fields may change only while EN is 0.
                self.core.configure(self.configuration)?;
                self.core.configure(self.configuration.with_enabled(true))?;
                self.stage = Stage::Await(now.after(timeout));
                Ok(Step::Again)
            }
            Stage::Await(deadline) => {
                let status = self.core.status()?;
                if status.fatal() {
                    return Err(Fault::FatalStatus);
                }
                if status.ready() {
                    self.stage = Stage::Done;
                    return Ok(Step::Done);
                }
                if now.has_reached(deadline) {
                    return Err(Fault::NotReadyInTime);
                }
                Ok(Step::Wait(now.after(POLL_INTERVAL).min(deadline)))
            }
            Stage::Done => Ok(Step::Done),
            Stage::Failed(fault) => Err(fault),
        }
    }

    /// The controller ready for commands, once [`poll`](Self::poll) has said [`Step::Done`].
    ///
    /// # Errors
    /// The machine itself, if it is not done.
    pub fn finish(self) -> Result<Ready<'d, 's, R, A>, Self> {
        match self.stage {
            Stage::Done => Ok(Ready::new(self.core, self.queue)),
            _ => Err(self),
        }
    }

    /// Gives up, however far it came.
    pub fn abort(self) -> Disabling<'d, 's, R, A> {
        Disabling::new(self.core, Some(self.queue))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Link;
    use crate::testing::TestArena;
    use crate::testing::device::Device;
    use crate::testing::life::{disabled, slots};

    #[test]
    fn the_controller_does_not_decide_alone_how_long_it_takes() {
        let second = Duration::from_secs(1);
        for (name, media, limit, expected) in [
            ("states 9 hours", 0xFFFF, EnableOptions::default().ready_limit, 300 * second),
            ("states a second", 2, EnableOptions::default().ready_limit, second),
            ("the host has half a second", 2, second / 2, second / 2),
            ("the host waits as long as it takes", 0xFFFF, Duration::MAX, 0xFFFF * second / 2),
        ] {
            let (arena, link) = (TestArena::new(), Link::new());
            let device = Device::new(&arena);
            {
                let mut state = device.state.borrow_mut();
                state.capabilities = state.capabilities.with_ready_with_media_supported(true);
                state.timeouts = media;
                state.manners.ready_after = u32::MAX;
            }
            let mut memory = slots(8);
            let options = EnableOptions { ready_limit: limit, ..EnableOptions::default() };
            let made = disabled(&device, &arena, &link).enable(&options, &mut memory);
            let mut machine = made.map_err(|rejected| rejected.error).unwrap();
            assert_eq!(machine.poll(Instant::ZERO), Ok(Step::Again), "{name}");
            let end = Instant::ZERO.after(expected);
            let before = Instant::ZERO.after(expected - Duration::from_millis(1));
            assert_eq!(machine.poll(before), Ok(Step::Wait(end)), "{name}");
            assert_eq!(machine.poll(end), Err(Fault::NotReadyInTime), "{name}");
        }
    }

    #[test]
    fn the_controller_does_not_decide_how_much_memory_it_gets() {
        for (page, page_limit, max_transfer, expected) in [
            (4096, 65_536, 2 << 20, Ok(8 * 4096)),
            (65_536, 65_536, 2 << 20, Ok(8 * 65_536)),
            (65_536, 65_536, 65_536, Ok(8)),
            (131_072, 65_536, 4096, Err(EnableError::PageLimit { limit: 65_536, min: 131_072 })),
            (1 << 27, 1 << 27, 2 << 20, Ok(8)),
        ] {
            let (arena, link) = (TestArena::new(), Link::new());
            let device = Device::new(&arena);
            {
                let mut state = device.state.borrow_mut();
                state.capabilities = state.capabilities.with_max_page_size(1 << 27).with_min_page_size(page);
            }
            let mut memory = slots(8);
            let options = EnableOptions { page_limit, max_transfer, ..EnableOptions::default() };
            let made = disabled(&device, &arena, &link).enable(&options, &mut memory);
            let asked = made.map(|_| arena.take_asked()).map_err(|rejected| rejected.error);
            assert_eq!(
                asked,
                expected.map(|lists| std::vec![32 * 64, 32 * 16, lists]),
                "pages of {page}, transfers of {max_transfer}"
            );
        }
    }
}
