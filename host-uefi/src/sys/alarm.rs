// SPDX-License-Identifier: MIT OR Apache-2.0
//! Timers of the firmware.

use core::time::Duration;

use uefi::boot::{self, EventType, TimerTrigger, Tpl};
use uefi::{Event, Status};

/// A timer, which goes on while output is written, too.
#[derive(Debug)]
pub(crate) struct Alarm(Option<Event>);

impl Alarm {
    /// One that goes off after this time.
    ///
    /// # Errors
    /// The status of the firmware.
    pub(crate) fn after(time: Duration) -> Result<Self, Status> {
        // SAFETY: nobody is to be notified, so no function and no context have to live on.
        let event = unsafe { boot::create_event(EventType::TIMER, Tpl::APPLICATION, None, None) }
            .map_err(|error| error.status())?;
        let alarm = Self(Some(event));
        let set =
            alarm.0.as_ref().map_or(Ok(()), |event| boot::set_timer(event, TimerTrigger::Relative(time)));
        set.map(|()| alarm).map_err(|error| error.status())
    }

    /// Whether it has gone off since it was asked last.
    pub(crate) fn has_rung(&self) -> bool {
        self.0.as_ref().is_some_and(|event| boot::check_event(event) == Ok(true))
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Some(event) = self.0.take() {
            // One that stays with the firmware notifies nobody.
            let _ = boot::close_event(event);
        }
    }
}
