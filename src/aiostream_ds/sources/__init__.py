"""The built-in plugin's sources, one file each: named in `plugin.py` by strings, so that the
packages a source needs are imported only when somebody configures it."""
