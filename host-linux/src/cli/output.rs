// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables and the progress bar.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nvme_controller::fault::FaultKind;

use crate::faults::CONDITIONS;
use crate::migrate::{Observer, Status};
use crate::report::{FaultReport, Report, Verdict};

/// A progress bar on standard error, if it is a terminal, and whoever interrupts.
pub(crate) struct Progress {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    pub(crate) fn new(shown: bool, interrupted: Arc<AtomicBool>) -> Self {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1), target);
        let style =
            ProgressStyle::with_template("{msg:28!} {wide_bar} {bytes:>10}/{total_bytes:10} {elapsed:>4}");
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), interrupted }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn update(&mut self, status: &Status) {
        // A bar of length zero would look full.
        self.bar.set_length(status.total_bytes.max(status.moved_bytes).max(1));
        self.bar.set_position(status.moved_bytes);
        self.bar.set_message(status.step.clone());
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| super::warn(text));
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

fn show_enabled(enabled: Option<bool>) -> String {
    match enabled {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
    .into()
}

pub(crate) fn show_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

fn show_time(microseconds: u64) -> String {
    format!("{:.3} ms", Duration::from_micros(microseconds).as_secs_f64() * 1e3)
}

pub(crate) fn table(
    title: &str,
    header: &[&str],
    rows: &[Vec<String>],
    out: &mut impl Write,
) -> io::Result<()> {
    let heading = Style::new().bold();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    // Figures line up at their right ends; in a table without header the first column holds names.
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 1));
        if !header.is_empty() || index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(out, "{heading}{title}{heading:#}")?;
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out)
}

fn pairs<const N: usize>(values: [(&str, String); N]) -> Vec<Vec<String>> {
    values.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect()
}

/// Lists what a fault rule can say.
pub(crate) fn faults(out: &mut impl Write) -> io::Result<()> {
    let (heading, name) = (Style::new().bold(), AnsiColor::Cyan.on_default());
    writeln!(out, "{heading}[source:|destination:]ACTION[=VALUE][,CONDITION=VALUE]...{heading:#}\n")?;
    writeln!(out, "{heading}Actions{heading:#}")?;
    for kind in FaultKind::ALL {
        writeln!(out, "  {name}{}{name:#}{}", kind.name(), kind.value())?;
        writeln!(out, "      {}", kind.summary())?;
    }
    writeln!(out, "\n{heading}Conditions{heading:#}")?;
    for (form, meaning) in CONDITIONS {
        writeln!(out, "  {name}{form}{name:#}\n      {meaning}")?;
    }
    Ok(())
}

/// Prints the report for people.
pub(crate) fn tables(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let rounds: Vec<Vec<String>> = report
        .rounds
        .iter()
        .map(|round| {
            let rate = round.bytes as f64 / (round.duration_us.max(1) as f64 / 1e6);
            let rate = if round.bytes == 0 { "-".into() } else { format!("{}/s", show_bytes(rate as u64)) };
            vec![
                round.round.to_string(),
                round.entries.to_string(),
                round.blocks.to_string(),
                show_bytes(round.bytes),
                show_time(round.duration_us),
                rate,
                if round.cut_short { "cut short by an overflow".into() } else { String::new() },
            ]
        })
        .collect();
    table("Rounds", &["round", "entries", "blocks", "bytes", "duration", "rate", ""], &rounds, out)?;

    let cdq = &report.cdq;
    let rows = pairs([
        ("slots", cdq.capacity.to_string()),
        ("PRP list entries", cdq.list_entries.to_string()),
        ("entries", cdq.entries.to_string()),
        ("head updates", cdq.head_updates.to_string()),
        ("events", cdq.events.to_string()),
        ("highest fill", cdq.highest_fill.to_string()),
        ("overflows", cdq.overflows.to_string()),
    ]);
    table("Controller Data Queue", &[], &rows, out)?;

    let guest = &report.guest;
    let rows = pairs([
        ("commands before", guest.commands_before.to_string()),
        ("commands after", guest.commands_after.to_string()),
        ("in flight at the switch", guest.in_flight.to_string()),
        ("reads", guest.reads.to_string()),
        ("writes", guest.writes.to_string()),
        ("admin commands", guest.admin.to_string()),
        ("controller resets", guest.resets.to_string()),
        ("blocks verified before", guest.verified_before.to_string()),
        ("blocks verified after", guest.verified_after.to_string()),
    ]);
    table("Guest", &[], &rows, out)?;

    if let Some(comparison) = &report.comparison {
        let rows = pairs([
            ("blocks", comparison.blocks.to_string()),
            ("equal", comparison.equal.to_string()),
            ("compared before an overwrite", comparison.before_change.to_string()),
            ("different", comparison.wrong.to_string()),
        ]);
        table("Source and destination at the switch", &[], &rows, out)?;
    }

    let rows = pairs([
        ("bytes moved", show_bytes(report.total_bytes)),
        ("duration", show_time(report.duration_us)),
        ("stop time", report.stop_time_us.map_or("none".into(), show_time)),
        ("guest runs on", report.guest_runs_on.to_string()),
        ("source enabled", show_enabled(report.enabled.source)),
        ("destination enabled", show_enabled(report.enabled.destination)),
    ]);
    table("Migration", &[], &rows, out)?;

    if !report.faults.is_empty() {
        let row = |fault: &FaultReport| {
            let side = format!("{:?}", fault.subsystem).to_lowercase();
            vec![fault.rule.clone(), side, fault.matched.to_string(), fault.fired.to_string()]
        };
        let rows: Vec<Vec<String>> = report.faults.iter().map(row).collect();
        table("Faults", &["rule", "subsystem", "matched", "happened"], &rows, out)?;
    }

    for note in &report.notes {
        writeln!(out, "Note: {note}")?;
    }
    writeln!(out, "Convergence: {}", report.convergence.statement)?;
    let color = match report.verdict {
        Verdict::Verified | Verdict::Migrated => AnsiColor::Green,
        Verdict::Cancelled | Verdict::NotConverged | Verdict::Interrupted => AnsiColor::Yellow,
        Verdict::VerificationFailed | Verdict::MigrationFailed => AnsiColor::Red,
    };
    let style = Style::new().bold().fg_color(Some(color.into()));
    writeln!(out, "Verdict: {style}{}{style:#}", report.statement)
}
