"""Path patterns and the compiled plan of a DataSource class."""
