"""scripts/bench: builds the measured programs, runs them in turn and writes the results.

figures.py defines the figures and their targets, programs.py builds, machine.py describes the
machine, rounds.py runs, ratios.py calculates, report.py writes; growth.py and profiles.py are
separate measurements. Standard library only.
"""
