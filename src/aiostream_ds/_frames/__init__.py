"""Data frames and their encodings. Looks at the ground (errors, telemetry) only."""
