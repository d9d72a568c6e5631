"""How Sphinx makes the site: ``nox -s docs``."""

from importlib.metadata import version as version_of

project = "trio_streamrpc"
author = "the trio_streamrpc developers"
project_copyright = author
release = version_of("trio-streamrpc")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
# Links to a heading (`limits.md#windows`) work as they do where the files are read as they are.
myst_heading_anchors = 3

html_theme = "furo"
html_title = "trio_streamrpc"
copybutton_exclude = ".linenos, .gp, .go"
# A part of a file is shown without the blank lines between it and the next.
highlight_options = {"python": {"stripnl": True}}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
