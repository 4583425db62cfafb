"""The tests: one folder per kind, packages so that two folders may have files of one name."""
