//! Cards of the board and verdicts enter, the text of the live table leaves; the terminal shows it in place.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use millrace::control::{Board, InputCard};
use millrace::store::OutputId;
use millrace::telemetry::Status;

/// Everything the table shows, as it was at one moment.
#[derive(Debug)]
pub(super) struct Table {
    /// Where the API listens.
    pub(super) api: String,
    /// What to type to see more, one line each, and what it is for.
    pub(super) hints: Vec<(&'static str, String)>,
    pub(super) input: Option<InputLine>,
    pub(super) outputs: Vec<OutputLine>,
}

/// The input.
#[derive(Debug)]
pub(super) struct InputLine {
    line: Line,
    /// The streams in it.
    content: String,
    packets: u64,
    /// Gaps in its continuity counters; `None` before the first report.
    continuity_errors: Option<u64>,
}

/// An output.
#[derive(Debug)]
pub(super) struct OutputLine {
    pub(super) id: OutputId,
    line: Line,
    packets: u64,
    drops: u64,
    /// What is said below it, and how it looks.
    pub(super) note: (Tone, String),
}

/// What inputs and outputs have in common.
#[derive(Debug)]
struct Line {
    name: String,
    url: String,
    state: String,
    reason: String,
    bits_per_second: u64,
    up: String,
}

/// How a text looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Odd,
    Faint,
}

impl Table {
    /// The first input of the board and its outputs, with what `note` says about each.
    pub(super) fn read(
        board: &Board,
        now: SystemTime,
        api: String,
        hints: Vec<(&'static str, String)>,
        note: impl Fn(OutputId) -> (Tone, String),
    ) -> Self {
        let card = board.inputs(0, 1).pop();
        let outputs = card.iter().flat_map(|card| card.outputs()).map(|output| {
            let (spec, stats) = (output.spec(), output.stats());
            OutputLine {
                id: spec.id,
                line: Line::new(&spec.name, &spec.raw_url, &output.status(), &stats.bitrate_bps, now),
                packets: stats.packets(),
                drops: stats.skipped.load(Relaxed) + stats.send_errors.load(Relaxed),
                note: note(spec.id),
            }
        });
        Self {
            api,
            hints,
            outputs: outputs.collect(),
            input: card.as_deref().map(|card| InputLine::new(card, now)),
        }
    }

    /// The table as text.
    pub(super) fn render(&self, colour: bool) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut text, colour);
        text
    }

    fn write(&self, out: &mut String, colour: bool) -> fmt::Result {
        let paint = |tone: Tone, text: &str| {
            if colour { format!("\x1b[{}m{text}\x1b[0m", tone.code()) } else { text.to_owned() }
        };
        if let Some(input) = &self.input {
            let Line { name, url, state, reason, bits_per_second, up } = &input.line;
            writeln!(out, "INPUT   {name}   {}   {}", paint(Tone::Faint, url), input.content)?;
            write!(out, "        {state}")?;
            if !reason.is_empty() {
                write!(out, ", {reason}")?;
            }
            let packets = plural(input.packets as usize, "packet");
            write!(out, "   {} Mb/s   {packets}   ", megabits(*bits_per_second))?;
            match input.continuity_errors {
                Some(0) => write!(out, "no continuity error")?,
                Some(errors) => {
                    write!(out, "{}", paint(Tone::Bad, &plural(errors as usize, "continuity error")))?;
                }
                None => write!(out, "continuity not known yet")?,
            }
            writeln!(out, "   up {up}\n")?;
        }
        writeln!(
            out,
            "{:<16}{:<9}{:>6}{:>10}{:>7}{:>8}  URL",
            "OUTPUT", "STATE", "Mb/s", "PACKETS", "DROPS", "UP"
        )?;
        for OutputLine { line, packets, drops, note: (tone, note), .. } in &self.outputs {
            let Line { name, url, state, reason, bits_per_second, up } = line;
            let (rate, packets) = (megabits(*bits_per_second), grouped(*packets));
            writeln!(
                out,
                "{name:<16}{state:<9}{rate:>6}{packets:>10}{drops:>7}{up:>8}  {}",
                paint(Tone::Faint, url)
            )?;
            let reason =
                if reason.is_empty() { String::new() } else { format!("{}; ", paint(Tone::Odd, reason)) };
            writeln!(out, "                {reason}{}", paint(*tone, note))?;
        }
        writeln!(out, "\nAPI     {}   (Ctrl-C ends the demo)", self.api)?;
        for (purpose, command) in &self.hints {
            writeln!(out, "{purpose:<8}{command}")?;
        }
        Ok(())
    }
}

impl InputLine {
    fn new(card: &InputCard, now: SystemTime) -> Self {
        let (spec, stats) = (card.card.spec(), card.card.stats());
        let report = card.health().latest();
        let streams = report.iter().flat_map(|report| &report.programs).flat_map(|program| &program.streams);
        Self {
            line: Line::new(&spec.name, &spec.raw_url, &card.card.status(), &stats.bitrate_bps, now),
            content: streams.map(|stream| stream.codec).collect::<Vec<_>>().join(", "),
            packets: stats.packets.load(Relaxed),
            continuity_errors: report.as_ref().map(|report| report.continuity_errors),
        }
    }
}

impl Line {
    fn new(
        name: &str,
        url: &impl fmt::Display,
        status: &Status,
        bitrate: &std::sync::atomic::AtomicU64,
        now: SystemTime,
    ) -> Self {
        let up = status.started_at.and_then(|since| now.duration_since(since).ok());
        Self {
            name: name.into(),
            url: url.to_string(),
            state: format!("{:?}", status.state),
            reason: status.reason.clone(),
            bits_per_second: bitrate.load(Relaxed),
            up: up.map_or_else(|| "-".into(), |up| clock(up.as_secs())),
        }
    }
}

impl Tone {
    /// Select Graphic Rendition (ECMA-48, 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "1;31",
            Self::Odd => "33",
            Self::Faint => "2",
        }
    }
}

/// Where tables are shown: in place on a terminal, one below the other anywhere else.
pub(super) struct Screen {
    terminal: bool,
}

impl Screen {
    /// On a terminal, takes a screen of its own, with lines cut off at the edge and without a cursor, until it is
    /// dropped.
    pub(super) fn open() -> io::Result<Self> {
        let screen = Self { terminal: io::stdout().is_terminal() };
        if screen.terminal {
            print("\x1b[?1049h\x1b[?7l\x1b[?25l")?;
        }
        Ok(screen)
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows a table; on a terminal in place of the one before.
    pub(super) fn show(&self, table: &Table) -> io::Result<()> {
        let text = table.render(self.terminal);
        if self.terminal {
            print(&format!("\x1b[H{}\x1b[K\x1b[J", text.trim_end().replace('\n', "\x1b[K\n")))
        } else {
            print(&format!("{text}\n"))
        }
    }

    /// Gives the terminal back and leaves the last table on it.
    pub(super) fn close(self, table: &Table, verdict: (Tone, &str)) -> io::Result<()> {
        let terminal = self.terminal;
        drop(self);
        let (tone, verdict) = verdict;
        let verdict =
            if terminal { format!("\x1b[{}m{verdict}\x1b[0m", tone.code()) } else { verdict.into() };
        print(&format!("{}\n{verdict}\n", table.render(terminal)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            // A terminal that went away needs nothing back.
            let _ = print("\x1b[?25h\x1b[?7h\x1b[?1049l");
        }
    }
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 packet`, `2 packets`, `2 passes`
pub(super) fn plural(number: usize, noun: &str) -> String {
    let end = match number {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{} {noun}{end}", grouped(number as u64))
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn megabits(bits_per_second: u64) -> String {
    format!("{:.2}", bits_per_second as f64 / 1e6)
}

/// `0:07`, `59:59`, `1:00:00`
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(note: (Tone, &str), reason: &str) -> Table {
        let line = |name: &str| Line {
            name: name.into(),
            url: "udp://127.0.0.1:5000".into(),
            state: "Sending".into(),
            reason: reason.into(),
            bits_per_second: 634_000,
            up: clock(3_661),
        };
        Table {
            api: "http://127.0.0.1:8080".into(),
            hints: vec![("Try", "curl".into())],
            input: Some(InputLine {
                line: line("sample"),
                packets: 1_234_567,
                continuity_errors: Some(1),
                content: "KLV".into(),
            }),
            outputs: vec![OutputLine {
                id: 1,
                line: line("plain"),
                packets: 1_234,
                drops: 5,
                note: (note.0, note.1.into()),
            }],
        }
    }

    #[test]
    fn everything_there_is_to_know_stands_in_the_table() {
        let text = table((Tone::Good, "verified"), "peer refuses (ICMP)").render(false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].contains("0.63 Mb/s   1,234,567 packets   1 continuity error   up 1:01:01"),
            "{text}"
        );
        let row = "plain           Sending    0.63     1,234      5 1:01:01  udp://127.0.0.1:5000";
        assert_eq!(lines[4], row, "{text}");
        assert_eq!(lines[5].trim(), "peer refuses (ICMP); verified");
        assert!(!text.contains('\x1b'), "no colours outside a terminal");
    }

    #[test]
    fn a_mismatch_is_red_on_a_terminal() {
        let text = table((Tone::Bad, "MISMATCH"), "").render(true);
        assert!(text.contains("\x1b[1;31mMISMATCH\x1b[0m"), "{text}");
    }

    #[test]
    fn numbers_are_written_for_people() {
        let numbers = [0, 999, 1_000, 123_456, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "123,456", "1,234,567"]);
        assert_eq!(
            [plural(1, "pass"), plural(2, "pass"), plural(0, "packet")],
            ["1 pass", "2 passes", "0 packets"]
        );
        assert_eq!([clock(7), clock(3_599), clock(3_600)], ["0:07", "59:59", "1:00:00"]);
    }
}
