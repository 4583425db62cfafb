"""The plan of a DataSource class: which method handles which path, query and resource."""
