"""Sphinx's configuration of the documentation site. scripts/site builds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import api_reference
import pages

import aiostream_ds

HERE = Path(__file__).parent

project = "aiostream_ds"
author = "The aiostream_ds authors"
copyright = "the aiostream_ds authors. Apache License 2.0"
release = version = pages.version()

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns: list[str] = []
suppress_warnings = ["misc.highlighting_failure"]  # JSX, and diagrams in docstrings
default_role = "literal"  # docstrings have Markdown's single backticks

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "aiostream_ds"
html_static_path = [str(HERE / "static")]
html_css_files = ["site.css"]
html_js_files = [("error-messages.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {
        "color-brand-primary": "#c2410c",
        "color-brand-content": "#b23c0a",
        "color-brand-visited": "#7c3a8a",
    },
    "dark_css_variables": {
        "color-brand-primary": "#fb923c",
        "color-brand-content": "#fb923c",
        "color-brand-visited": "#d8a6e6",
    },
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"

copybutton_selector = "div.highlight-sh pre, div.highlight-python pre, div.highlight-py pre, div.highlight-ini pre, div.highlight-yaml pre, div.highlight-json pre"  # noqa: E501


def setup(app):
    """Called by Sphinx."""
    api_reference.setup(app)
    assert aiostream_ds is not None  # its import fails here, and not in each page
