"""The page itself: templates of this package, filled with the contents."""

import html
import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

SCRIPTS = ("elements.js", "charts.js", "measures.js", "images.js", "page.js")


def write_report(path: str | os.PathLike, contents: dict[str, Any]) -> None:
    """Write the page, one HTML file that needs nothing else.

    Names of classes and files go into it as data: the scripts set them as texts, never as HTML.

    Args:
        path: the file to write.
        contents: see `build_report`.
    """
    templates = files(__package__) / "templates"
    page = Template((templates / "report.html").read_text("utf-8")).substitute(
        title=html.escape(contents["title"] or "Report"),
        style=(templates / "report.css").read_text("utf-8"),
        data=_as_json(contents),
        script="\n".join((templates / name).read_text("utf-8") for name in SCRIPTS),
    )
    Path(path).write_text(page, encoding="utf-8")


def _as_json(contents: dict[str, Any]) -> str:
    """Return JSON that can't end the element it stands in, whatever the texts are."""
    text = json.dumps(contents, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
