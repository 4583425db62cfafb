"""The same rows in the stores of several servers: by one log, in which every server writes."""
