"""Links that lead out of ``docs/``, as they are on GitHub, made to work in the site.

README.md and the like become pages below ``reference/generated/project/``, notebooks pages beside them; a
folder of ``conf/`` is its page of the reference; any other file can be downloaded.
"""

import os
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = DOCS / "reference" / "generated"

_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|<)([^)\s\"#]+)(?=[)#\s])|(?<=\bsrc=\")(?!\w+:)([^\"]+)(?=\")")


def project_pages() -> dict[Path, Path]:
    """Return the page of the site for each file beside ``docs/`` that is shown there."""
    pages = {path: GENERATED / "project" / path.name.lower() for path in ROOT.glob("*.md")}
    notebooks = {path: GENERATED / "notebooks" / path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    return pages | notebooks


def moved(text: str, source: Path, page: Path) -> str:
    """Return a page's text with its links as they must be where it stands in the site.

    Args:
        text: Markdown, or a notebook's JSON.
        source: The file that the links are relative to.
        page: Where the text stands.
    """
    pages = project_pages()

    def relative(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / match[0]))
        target = pages.get(path, path)
        if target == path and path.is_relative_to(ROOT / "conf"):
            folder = path if path.is_dir() else path.parent
            name = "_".join(folder.relative_to(ROOT / "conf").parts)
            target = GENERATED / "config" / f"{name or 'index'}.md"
        if target == path and source == page and path.is_relative_to(DOCS):
            return match[0]
        return os.path.relpath(target, page.parent)

    return _LINK.sub(relative, text)


def write_project_pages() -> None:
    """Copy the files beside ``docs/`` that the site shows, with their links changed."""
    for path, page in project_pages().items():
        page.parent.mkdir(parents=True, exist_ok=True)
        text = moved(path.read_text(encoding="utf-8"), path, page)
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    page = Path(str(app.env.doc2path(docname)))
    if page.suffix in (".md", ".ipynb") and not page.is_relative_to(GENERATED):
        content[0] = moved(content[0], page, page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Change the links of each page as it is read."""
    app.connect("builder-inited", lambda app: write_project_pages())
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
