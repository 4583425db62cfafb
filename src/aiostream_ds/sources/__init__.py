"""The sources of the built-in plugin.

`builtin_plugin` names them by strings, so that the packages that a source needs are imported only
when a data source uses it.
"""
