"""Sphinx's configuration: ``nox -s docs`` builds the site."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "pgtls"
copyright = "the pgtls authors"
version = release = version_of("pgtls")

extensions = ["sphinx.ext.autodoc", "pgtls_reference"]
exclude_patterns = ["_ext"]
html_theme = "furo"
html_title = f"pgtls {version}"

# "default" roles and quotes stay as they are written: they are code in these pages.
smartquotes = False
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 90
autodoc_default_options = {"members": True}

# Pygments' SQL does not know $$.
suppress_warnings = ["misc.highlighting_failure"]
