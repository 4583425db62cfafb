"""The examples that need a server, with real ones that are killed and started again."""
