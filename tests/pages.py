"""The commands on the pages, README.md and docs/: each line of a block of `sh`. One that cannot be typed just anywhere says so
in a comment, `# needs ImageNet`; a line that is such a comment alone speaks of all below it in its block."""

import re
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKS = "a cluster", "a GPU", "ImageNet", "internet"

# Who runs what check_docs.py does not: a command, with whatever options, or the section of a page. The file named must speak
# of it.
ELSEWHERE = {
    **{f"make {target}": ".ci/run" for target in
       ("lint", "docs", "test", "short", "tracking", "pages", "artifacts", "slurm")},
    "make commands": "tests/check_docs.py",
    "make demo": "tests/test_docs.py",              # held against `make short`
    "make ablations": "tests/test_docs.py",
    "make schema": "tests/test_config.py",
    "docs/tracking.md#Opening it": "tests/check_ui.py",
    "docs/artifacts.md#Making and keeping": "tests/check_artifacts.py",
    "docs/artifacts.md#Elsewhere": "tests/check_artifacts.py",
    "docs/artifacts.md#Throwing away old ones": "tests/check_artifacts.py",
    "docs/artifacts.md#A folder": "tests/dvc_projects.py",
    "docs/artifacts.md#S3": "tests/dvc_projects.py",
    "docs/artifacts.md#SSH": "tests/dvc_projects.py",
    "docs/artifacts.md#A cache that a group shares": "tests/check_remotes.py",
    "docs/artifacts.md#When it fails": "tests/check_remotes.py",
    "docs/artifacts.md#After it was stopped": "tests/check_remotes.py",
}


@dataclass(frozen=True)
class Command:
    page: str                   # README.md, docs/demo.md
    section: str                # the heading above it
    text: str                   # in one line, without its comment
    needs: str | None           # one of MARKS

    @property
    def elsewhere(self) -> str | None:
        """The file of another test that runs it."""
        places = (self.text, " ".join(self.text.split()[:2]), f"{self.page}#{self.section}")
        return next((ELSEWHERE[place] for place in places if place in ELSEWHERE), None)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(text: str) -> list[tuple[str, str]]:
    """The blocks of `sh` of a page, each with the heading above it."""
    found, section = [], ""
    for heading, kind, block in re.findall(r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        section = heading or section
        if kind == "sh":
            found.append((section, block))
    return found


def commands(page: Path) -> list[Command]:
    found = []
    for section, block in blocks(page.read_text()):
        above = None
        for line in re.sub(r"\\\n *|(?<=\bdo)\n *", " ", block).splitlines():
            text, _, comment = f" {line}".partition(" # ")
            said = re.match(r"needs (\w.*?)(?=$|[:;,])", comment)
            needs = said[1] if said else above
            if text.strip():
                found.append(Command(name_of(page), section, re.sub(r" +", " ", text.strip()), needs))
            else:
                above = needs
    return found
