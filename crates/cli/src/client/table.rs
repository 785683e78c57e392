//! Tables with lines of `+`, `-` and `|`, which every terminal and log can show.

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, presets};

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
    let rows: Vec<[String; COLUMNS]> = rows.into_iter().collect();
    let mut column = 0;
    table.set_header(columns.map(|name| {
        let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        column += 1;
        // Where a name cannot stand in the middle, etcdctl moves it to the left.
        let is_odd = width.saturating_sub(name.len()) % 2 == 1;
        let name = if is_odd { format!("{name} ") } else { name.to_owned() };
        Cell::new(name).set_alignment(CellAlignment::Center)
    }));
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_drawn_as_etcdctl_draws_them() {
        let row = ["ac7c97ef0ec193b0", "started", "false"].map(str::to_owned);
        let want = "\
+------------------+---------+------------+
|        ID        | STATUS  | IS LEARNER |
+------------------+---------+------------+
| ac7c97ef0ec193b0 | started |      false |
+------------------+---------+------------+";
        assert_eq!(table(["ID", "STATUS", "IS LEARNER"], [row]), want);
    }
}
