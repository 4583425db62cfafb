"""Redis servers: which one has a key, connections with one owner, and errors in words."""
