// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which steps are taken when something is wrong, in which order, with which waits.

use core::time::Duration;

/// One step. Each is tried when those before it have not helped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// Ask the controller to abort each command that timed out. Costs the other commands nothing.
    Abort {
        /// How long the controller may take to answer the Abort, and then to end the command.
        wait: Duration,
    },
    /// Delete the queue pair of the command and create it again. Costs the pair's other commands, not those of others.
    RecreateQueues {
        /// How long the controller may take for each of the four commands.
        timeout: Duration,
    },
    /// Reset the controller: disable, enable, initialize, create all queue pairs again. Costs all commands. Each such
    /// step is one attempt.
    Reset {
        /// How long to leave the controller alone before.
        pause: Duration,
    },
}

/// What is done about a controller that does not do what it should.
///
/// Time-outs of I/O commands go through the steps one after the other. A controller that broke a rule, failed or stopped
/// answering its admin queue can only be reset, so the other steps are passed over. When no step is left it is disabled
/// and given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The steps, in order; `None` is passed over.
    pub steps: [Option<Escalation>; Policy::STEPS],
    /// A controller that has been in use for so long after a reset counts as recovered: all resets of the policy are
    /// available again.
    pub settled: Duration,
    /// Reset the controller when an admin command is not completed in time, unless it
    /// [waits for others](crate::wire::migration::MigrationSend::waits_for_others), as Suspend does for the guest.
    /// Otherwise its owner, who is told either way, has to [ask](super::Supervisor::reset) for it; the slot stays taken
    /// until then.
    pub reset_on_admin_timeout: bool,
}

impl Policy {
    /// Steps that a policy can have.
    pub const STEPS: usize = 6;

    /// Resets that the policy has.
    #[must_use]
    pub fn resets(&self) -> usize {
        self.steps.iter().flatten().filter(|step| matches!(step, Escalation::Reset { .. })).count()
    }

    /// The pause before reset number `used` (from zero), if there is one more.
    pub(super) fn reset(&self, used: usize) -> Option<Duration> {
        let pauses = self.steps.iter().flatten().filter_map(|step| match step {
            Escalation::Reset { pause } => Some(*pause),
            _ => None,
        });
        { pauses }.nth(used)
    }

    /// The first step from number `from` on, with its number.
    pub(super) fn step(&self, from: usize) -> Option<(usize, Escalation)> {
        let steps = self.steps.iter().enumerate().skip(from);
        { steps }.find_map(|(number, step)| step.map(|step| (number, step)))
    }
}

impl Default for Policy {
    /// Abort, the queue pair again, then three resets.
    ///
    /// A healthy controller answers an Abort at once, and ends the command at the latest when the media does, for which
    /// 5 seconds are long after a time-out; the same holds for the queue commands. The first reset follows at once, because
    /// mostly it helps; the later ones after 1 and 10 seconds, because a controller that restarts its firmware is better
    /// left alone for that long. A minute without trouble shows that the last reset helped.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            steps: [
                Some(Escalation::Abort { wait: seconds(5) }),
                Some(Escalation::RecreateQueues { timeout: seconds(5) }),
                Some(Escalation::Reset { pause: Duration::ZERO }),
                Some(Escalation::Reset { pause: seconds(1) }),
                Some(Escalation::Reset { pause: seconds(10) }),
                None,
            ],
            settled: seconds(60),
            reset_on_admin_timeout: true,
        }
    }
}
