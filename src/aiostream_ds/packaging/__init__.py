"""Makes packages that Grafana loads, checks them, and diagnoses failed starts.

`build.py` makes a package, `package_check.py` and `contract_check.py` check one, `diagnosis.py`
explains a failed start. A running plugin imports nothing of this package.
"""
