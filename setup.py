"""The page on PyPI: README.md with its relative links made absolute. All else is in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
SOURCE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]


def absolute(link: re.Match[str]) -> str:
    picture, text, target = link.groups()
    return f"{picture}[{text}]({SOURCE}/{'raw' if picture else 'blob'}/main/{target})"


page = (ROOT / "README.md").read_text(encoding="utf-8")
page = re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", absolute, page)
setup(long_description=page, long_description_content_type="text/markdown")
