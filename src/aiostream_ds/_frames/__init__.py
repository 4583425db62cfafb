"""Data frames, their columns and config, packets, and the encodings JSON and Arrow."""
