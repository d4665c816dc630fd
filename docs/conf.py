"""The site: ``make docs``, or ``sphinx-build docs docs/_build/html``. Nothing is fetched from anywhere."""

import hashlib
import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(ROOT / "src")]
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")])
)  # of the kernels that run the lessons
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # which shows their figures

import cxrlab  # noqa: E402


def of_the_code() -> str:
    """Return what changes with the code: what a lesson printed before a change of it is of no use after."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


project = "cxrlab"
author = "The cxrlab developers"
copyright = "The cxrlab developers. For research only"
version = release = cxrlab.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "links",
    "mathml",
    "reference",
]
exclude_patterns = ["_build", "_ext", "_static", "**/.ipynb_checkpoints"]
suppress_warnings = ["mystnb.unknown_mime_type"]
highlight_language = "none"  # where a block names none
default_role = "code"  # what stands in single backticks in a docstring

# Pages in Markdown; anchors of headings as on GitHub.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_dmath_allow_digits = False
myst_dmath_allow_space = False

# Lessons are kept without outputs, and run when the site is built: an error in one fails the build.
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / "lessons" / of_the_code())  # the code runs them
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_excludepatterns = ["*/reference/generated/notebooks/*"]  # those need a run of one's own
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # which would come from elsewhere
nb_merge_streams = True

# The API, from docstrings in Google's style.
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_admonition_for_examples = False
add_module_names = False
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "cxrlab"
html_favicon = str(ROOT / "src" / "cxrlab" / "deploy" / "service" / "page" / "icon.svg")
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "navigation_with_keys": True,
    "light_css_variables": {"color-brand-primary": "#0b5a7a", "color-brand-content": "#0b5a7a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4e4", "color-brand-content": "#7cc4e4"},
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
