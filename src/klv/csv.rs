//! ST 0601 packets enter, lines of comma-separated values leave (RFC 4180), the names of the columns first. Leaves out
//! packets of other sets.

use std::io::{self, Write};

use millrace::wire::klv::Label;

use super::columns::Columns;
use super::{Found, Render};

/// Writes a table.
pub(super) struct Csv {
    columns: Columns,
    headed: bool,
}

impl Csv {
    pub(super) fn new(columns: Columns) -> Self {
        Self { columns, headed: false }
    }

    fn head(&mut self, to: &mut dyn Write) -> io::Result<()> {
        if std::mem::replace(&mut self.headed, true) {
            return Ok(());
        }
        line(self.columns.names(), to)
    }
}

impl Render for Csv {
    fn packet(&mut self, found: &Found<'_>, to: &mut dyn Write) -> io::Result<()> {
        self.head(to)?;
        if found.packet.label != Label::Uas {
            return Ok(());
        }
        line(self.columns.values(found), to)
    }
}

fn line<T: AsRef<str>>(fields: impl Iterator<Item = T>, to: &mut dyn Write) -> io::Result<()> {
    for (at, field) in fields.enumerate() {
        let field = field.as_ref();
        if at > 0 {
            to.write_all(b",")?;
        }
        if field.contains(['"', ',', '\n', '\r']) {
            write!(to, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            to.write_all(field.as_bytes())?;
        }
    }
    to.write_all(b"\n")
}
