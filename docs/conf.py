"""How Sphinx makes the site: ``nox -s docs``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from docs import inventories  # noqa: E402  # it stands beside this file

project = "trio_streamrpc"
author = "the trio_streamrpc developers"
project_copyright = author
release = version_of("trio-streamrpc")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
    "docs.directives",
]
exclude_patterns = ["_build"]
intersphinx_mapping = inventories.write(DOCS / "_build" / "inventories")
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
# Links to a heading (`limits.md#windows`) work as they do where the files are read as they are.
myst_heading_anchors = 3

html_theme = "furo"
html_title = "trio_streamrpc"
html_extra_path = ["llms.txt"]
copybutton_exclude = ".linenos, .gp, .go"
# A part of a file is shown without the blank lines between it and the next.
highlight_options = {"python": {"stripnl": True}}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# What signatures name by the full name that it has inside is nothing to refer to; what docstrings
# name has to be there.
_PUBLIC = r"trio_streamrpc\.(?:interceptors|dialects|transports\.base|testing(?:\.strategies)?)"
nitpick_ignore_regex = [
    ("py:class", rf"(?!{_PUBLIC}\.\w+$)trio_streamrpc\.[\w.]+\.\w+"),
    ("py:class", r"(?:Encoding|PlainFrame|SearchStrategy|P|T|T_co)"),
]
