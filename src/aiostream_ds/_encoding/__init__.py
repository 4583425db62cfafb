"""Rows to packets: columns found or declared, ordering, cursors, the status column."""
