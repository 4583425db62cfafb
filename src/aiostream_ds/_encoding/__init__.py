"""Rows to packets: schema inference, series, ordering, cursors and the status column."""
