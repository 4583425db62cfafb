"""From a class to a folder and a zip that Grafana loads, and what may be wrong with such a folder.

`build.py` lays a package, `check.py` looks for what would be refused, `doctor.py` explains a start
that failed. May import every room below; nothing of it is imported by a plugin that runs.
"""
