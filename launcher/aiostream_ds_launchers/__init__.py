"""The programs that Grafana starts in packages of aiostream-ds, built for six platforms."""

from pathlib import Path

__all__ = ["FOLDER"]

FOLDER = Path(__file__).parent / "programs"
"""The folder with the programs `launch_<os>_<arch>`, and `bridge_<os>_<arch>` with TLS."""
