// SPDX-License-Identifier: MIT OR Apache-2.0
//! The texts of migrations.

use super::*;

#[test]
fn commands_of_a_migration_have_names() {
    use MigrationCommand as Command;
    let rows = [
        (Command::Identify, "Identify Controller"),
        (Command::StateFormats, "Identify Supported Controller State Formats"),
        (Command::CreateQueue, "create Controller Data Queue"),
        (Command::DeleteQueue, "delete Controller Data Queue"),
        (Command::StartLog, "start logging user data changes"),
        (Command::StopLog, "stop logging user data changes"),
        (Command::NotifySuspend, "suspend notification"),
        (Command::Suspend, "suspend"),
        (Command::GetState, "Get Controller State"),
        (Command::SetState, "Set Controller State"),
        (Command::Resume, "resume"),
    ];
    for (command, name) in rows {
        assert_eq!(command.name(), name);
        let failed = CommandFailed { command, error: CallError::Status(StatusCode::INVALID_FIELD.status()) };
        let text = format!("{name}: completed with status Invalid Field in Command (0/02h)");
        assert_eq!(failed.to_string(), text, "{command:?}");
    }
}

#[test]
fn of_managing_controllers_and_the_destination() {
    let id = ControllerId::new(5);
    let manager = ManagerError::NotAManager(id);
    check(&[
        (
            "command",
            &ManagerError::Command(FAILED),
            "suspend: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "Identify",
            &ManagerError::Identify(IdentifyError::NotAscending { previous: 2, found: 1 }),
            "Identify data is wrong: 0x1 follows 0x2 in a list that must ascend",
        ),
        ("manager", &manager, "controller 0x0005 does not manage migrations: give a managing controller"),
        (
            "tracking",
            &ManagerError::NoUserDataTracking(id),
            "controller 0x0005 cannot track changes of user data: give a managing controller that can",
        ),
        (
            "format",
            &ManagerError::LogFormat(0x81),
            "the log's entries have format 0x81: only Entry Type 0 can be read",
        ),
        (
            "target",
            &ManagerError::TargetIsManager(TargetIsManager(id)),
            "controller 0x0005 is the managing controller, which cannot be migrated: name the guest's controller",
        ),
        (
            "memory",
            &ManagerError::Memory(NO_MEMORY),
            "no memory for command data: the pool Data cannot give 8192 bytes: lend the arena more memory",
        ),
    ]);
    check(&[
        ("manager", &DestinationFailure::Manager(manager), &manager.to_string()),
        (
            "command",
            &DestinationFailure::Command(FAILED),
            "suspend: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "version",
            &DestinationFailure::ProtocolVersion(9),
            "messages of version 9 are not understood: both sides must speak version 1",
        ),
        ("turn", &DestinationFailure::OutOfTurn, "a message came out of turn: migrate again"),
        (
            "too long",
            &DestinationFailure::StateTooLong { bytes: 5000, limit: 4096 },
            "a controller state of 5000 bytes, where 4096 can be taken: lend more memory",
        ),
        (
            "piece",
            &DestinationFailure::Piece { offset: 8, expected: 4 },
            "a piece of controller state at byte 8, expected at 4: send them in order",
        ),
        (
            "state",
            &DestinationFailure::State(StateError::HeaderVersion(1)),
            "controller state refused: controller state version 1 is unknown: only 0 is supported",
        ),
        (
            "one command",
            &DestinationFailure::NotInOne { bytes: 8192, limit: 4096 },
            "controller state of 8192 bytes has to go in one command of at most 4096: allow longer transfers",
        ),
        (
            "memory",
            &DestinationFailure::Memory(NO_MEMORY),
            "no memory for command data: the pool Data cannot give 8192 bytes: lend the arena more memory",
        ),
        ("platform", &DestinationFailure::Platform, "its platform failed: see what it reported"),
    ]);
}

#[test]
fn of_migrations() {
    type Failed = Failure<u8, &'static str>;
    let unknown = MarkError::UnknownNamespace(NamespaceId::new(2));
    check(&[
        ("cancelled", &Failed::Cancelled, "cancelled"),
        (
            "manager",
            &Failed::Manager(ManagerError::NotAManager(ControllerId::new(1))),
            "source: controller 0x0001 does not manage migrations: give a managing controller",
        ),
        (
            "command",
            &Failed::Command(FAILED),
            "source: suspend: completed with status Invalid Field in Command (0/02h)",
        ),
        (
            "queue memory",
            &Failed::Memory(CdqMemoryError::Entries { entries: 0, limit: 4 }),
            "source: a queue of 0 entries is not possible: choose 2 to 4",
        ),
        (
            "command data",
            &Failed::Data(NO_MEMORY),
            "source: no memory for command data: the pool Data cannot give 8192 bytes: lend the arena more memory",
        ),
        (
            "head",
            &Failed::Head(HeadUpdateFailed {
                head: 7,
                error: CallError::Status(StatusCode::INVALID_CDQ.status()),
            }),
            "source: setting head 7 of a Controller Data Queue: \
             completed with status Invalid Controller Data Queue (1/37h)",
        ),
        (
            "queue gone",
            &Failed::QueueGone,
            "source: the managing controller was reset, which ended the log of changes; migrate again",
        ),
        (
            "suspension gone",
            &Failed::SuspensionGone,
            "source: the managing controller was reset, which ended the suspension; migrate again",
        ),
        (
            "unknown blocks",
            &Failed::UnknownBlocks(unknown),
            "source: the log reports a change in namespace 0x2, for which no dirty map is kept: lend one",
        ),
        (
            "formats",
            &Failed::Formats(NoCommonFormat),
            "source and destination have no known version of the NVMe Controller State in common: \
             migrate to a controller that shares one",
        ),
        (
            "not converged",
            &Failed::NotConverged { dirty_blocks: 12 },
            "not converged within the limits, 12 blocks left to copy: slow the guest down or allow more",
        ),
        (
            "recovery",
            &Failed::NoRecovery,
            "source: the log did not restart after an overflow: give it a larger queue",
        ),
        (
            "marker",
            &Failed::NoSuspendMarker,
            "source: suspended, but the log was not closed in time: allow more time",
        ),
        (
            "not suspended",
            &Failed::NotSuspended,
            "source: the controller was not suspended while its state was read: migrate again",
        ),
        (
            "state",
            &Failed::State(StateError::HeaderVersion(1)),
            "source: controller state: controller state version 1 is unknown: only 0 is supported",
        ),
        (
            "destination",
            &Failed::Destination(DestinationFailure::Platform),
            "destination: its platform failed: see what it reported",
        ),
        (
            "resume unknown",
            &Failed::ResumeUnknown(CallError::TimedOut),
            "destination: resume: no completion in time, so its effect is unknown: reset the controller",
        ),
        ("turn", &Failed::OutOfTurn, "destination: answered something else than it was asked: migrate again"),
        ("no answer", &Failed::NoAnswer, "destination: no answer in time: see whether it can be reached"),
        ("mover", &Failed::Mover(5), "moving data: 5"),
        ("platform", &Failed::Platform("no fence"), "source platform: \"no fence\""),
    ]);
}
