"""Check that every relative link in the project's Markdown leads somewhere.

A link is a path from the file it stands in, with or without a heading's anchor. Addresses
of other hosts are not asked for: this check works offline.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

ROOT = Path(__file__).resolve().parent.parent
FOLDERS_NOT_OURS = re.compile(r"^(\.|build$|dist$|data$|node_modules$)")


def markdown_files() -> list[Path]:
    """List the project's own Markdown files."""
    return sorted(
        path
        for path in ROOT.rglob("*.md")
        if not any(FOLDERS_NOT_OURS.match(part) for part in path.relative_to(ROOT).parts[:-1])
    )


def parse(path: Path) -> SyntaxTreeNode:
    """Parse one file."""
    return SyntaxTreeNode(MarkdownIt("commonmark").parse(path.read_text(encoding="utf-8")))


def text_of(node: SyntaxTreeNode) -> str:
    """Return what a reader sees of a node."""
    return "".join(each.content for each in node.walk() if each.type in {"text", "code_inline"})


def anchors(path: Path) -> set[str]:
    """Return the anchors that code hosts make of a file's headings."""
    return {
        re.sub(r"[^\w\- ]", "", text_of(node).lower()).replace(" ", "-")
        for node in parse(path).walk()
        if node.type == "heading"
    }


def links(path: Path) -> list[str]:
    """Return the targets of a file's links and images."""
    attributes = {"link": "href", "image": "src"}
    return [
        str(node.attrs[attributes[node.type]])
        for node in parse(path).walk()
        if node.type in attributes
    ]


def problem_of(path: Path, link: str) -> str | None:
    """Say what is wrong with one link, or nothing."""
    url = urlsplit(link)
    if url.scheme or url.netloc:
        return None
    target = (path.parent / unquote(url.path)).resolve() if url.path else path
    if not target.exists():
        return "no such file"
    if not target.is_relative_to(ROOT):
        return "leads out of the project"
    if url.fragment and target.suffix == ".md" and url.fragment not in anchors(target):
        return f"no heading makes #{url.fragment}"
    return None


def main() -> int:
    """Print every broken link; return how the process should exit."""
    files = markdown_files()
    broken = [
        f"{path.relative_to(ROOT)}: {link}: {problem}"
        for path in files
        for link in links(path)
        if (problem := problem_of(path, link))
    ]
    for line in broken:
        print(line)
    print(f"{len(files)} Markdown files, {len(broken)} broken links")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
