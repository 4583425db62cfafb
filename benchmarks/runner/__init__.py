"""scripts/bench: builds the measured programs, runs them in turn and writes what came out.

figures.py says what is measured and what must be reached, programs.py builds, machine.py describes
the machine, rounds.py runs, ratios.py reckons, report.py writes; growth.py and profiles.py are two
measurements of their own. Standard library only.
"""
