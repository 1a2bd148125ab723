"""The Chinese pages say what the English ones say: same code, same tables, same links, same figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ENGLISH = Path(__file__).parents[2] / "docs"
CHINESE = ENGLISH / "zh"
PAGES = sorted(str(page.relative_to(CHINESE)) for page in CHINESE.rglob("*.md"))
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?:^|\s+)#\s.*$", re.MULTILINE)
SWITCH = re.compile(r"^\[(?:中文|English)\]\(\S+\)\n", re.MULTILINE)


def code(text: str) -> list[tuple[str, str]]:
    """Language and content of each block; comments may be translated."""
    return [(language, COMMENT.sub("", block)) for language, block in FENCE.findall(text)]


def prose(text: str) -> str:
    return SWITCH.sub("", FENCE.sub("", text))


def table_rows(text: str) -> list[int]:
    """Cells of each row, in order."""
    return [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", row))) for row in re.findall(r"^\|.*$", text, re.M)]


def blocks(text: str) -> list[str]:
    """What stands one below another: headings with their level, list items, table rows, pictures, paragraphs."""
    lines = [line for line in text.splitlines() if line.strip()]
    return [mark.group() if (mark := re.match(r"#+ |- |\d+\. |\||!", line)) else "paragraph" for line in lines]


def spans(text: str) -> set[str]:
    """Names in code type; those that a translation has not are stale or mistyped."""
    return set(re.findall(r"`([^`\n]+)`", text))


def figures(text: str) -> list[str]:
    """Numbers with a fraction: what was measured, and settings."""
    return sorted(re.findall(r"\d+\.\d+", text))


def links(page: Path) -> list[str]:
    """Where the links of a page lead, as English pages; a link past a translation that exists is told apart."""
    found = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if target.startswith("http"):
            found.append(target)
            continue
        place, _, _ = target.partition("#")
        path = (page.parent / place).resolve()
        if CHINESE in page.parents:
            if CHINESE in path.parents:
                path = ENGLISH / path.relative_to(CHINESE)
            elif ENGLISH in path.parents and (CHINESE / path.relative_to(ENGLISH)).is_file():
                found.append(f"{path.relative_to(ENGLISH)}, though zh/ has it")
                continue
        found.append(str(path.relative_to(ENGLISH.parent)))
    return sorted(found)


@pytest.mark.parametrize("name", PAGES)
def test_a_translation_keeps_up(name: str) -> None:
    original = ENGLISH / name
    assert original.is_file(), "its English page is gone: remove or rename the translation"
    english, chinese = (path.read_text(encoding="utf-8") for path in (original, CHINESE / name))
    assert code(chinese) == code(english)
    english, chinese = prose(english), prose(chinese)
    assert blocks(chinese) == blocks(english)
    assert table_rows(chinese) == table_rows(english)
    assert spans(chinese) == spans(english)
    assert figures(chinese) == figures(english)
    assert links(CHINESE / name) == links(original)


def test_every_page_to_learn_from_is_translated() -> None:
    """The tutorial and each how-to page; what must not be missing is told by the English pages, not by the Chinese."""
    wanted = {"tutorial.md", "choosing.md", *(f"how-to/{page.name}" for page in (ENGLISH / "how-to").glob("*.md"))}
    assert len(wanted) > 40
    assert sorted(wanted - set(PAGES)) == []


def test_every_translation_is_in_the_menu() -> None:
    menu = (ENGLISH.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert PAGES
    assert not [name for name in PAGES if f": zh/{name}\n" not in menu]


@pytest.mark.parametrize(
    ("english", "chinese", "same"),
    [
        ("```bash\ntunewell run a.csv  # first\n```", "```bash\ntunewell run a.csv  # 第一步\n```", True),
        ("```bash\ntunewell run a.csv\n```", "```bash\ntunewell run b.csv\n```", False),
        ("```yaml\nkeep: 0.98\n```", "```text\nkeep: 0.98\n```", False),
    ],
)
def test_only_comments_may_differ(english: str, chinese: str, same: bool) -> None:
    assert (code(english) == code(chinese)) is same
