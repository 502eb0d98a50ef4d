"""mkdocs: what the documents refer to and what lies outside docs/ is part of the site, under the links they have."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "CHANGELOG.md", "SECURITY.md": "SECURITY.md"}
FILES = ("config.example.yaml", "LICENSE")
FOLDER = "examples"
LINK = re.compile(r"(\]\(|\]: )(?P<goal>(?!https?:|#)[^)\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and files that are not below docs/."""
    for source, name in PAGES.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for source in FILES:
        files.append(File.generated(config, source, abs_src_path=str(ROOT / source)))
    for path in sorted((ROOT / FOLDER).rglob("*")):
        if path.is_file() and not {"__pycache__", "node_modules"} & set(path.parts):
            files.append(File.generated(config, str(path.relative_to(ROOT)), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as they are in the repository -> as they are in the site."""
    at = page.file.src_uri

    def moved(found: re.Match[str]) -> str:
        goal, _, anchor = found["goal"].partition("#")
        if at in PAGES.values():
            goal = goal.removeprefix("docs/")
        elif "/" not in at:
            goal = goal.removeprefix("../")
        else:  # an example's own page; it may point at documents
            goal = re.sub(r"^((?:\.\./)+)docs/", r"\1", goal)
        if goal.startswith("examples/") and goal.endswith("/"):
            goal += "README.md"
        return found[1] + (f"{goal}#{anchor}" if anchor else goal)

    return LINK.sub(moved, markdown)
