//! Tables with lines of `+`, `-` and `|`, which every terminal and log can show.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};

/// A table of these columns and rows, without an end of line.
pub(crate) fn table<const COLUMNS: usize>(
    columns: [&str; COLUMNS],
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    let line = LineStyle::new('+', '-', '+', '+');
    table.load_style(presets::ASCII_FULL_CONDENSED.header_separator(line));
    // A table that is copied elsewhere should not have taken the width of this terminal.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}
