"""Chinese or English, by locale; and output that a GBK terminal can show.

`HAZARDGATE_LANG` (zh or en) wins over the locale.
"""

from __future__ import annotations

import os
import sys
from typing import Final

Language = str
LANGUAGES: Final = ("zh", "en")


def language() -> Language:
    """Return zh or en."""
    for name in ("HAZARDGATE_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        wanted = os.environ.get(name, "")
        if wanted:
            return "zh" if wanted.lower().startswith("zh") else "en"
    return "en"


def say(zh: str, en: str) -> str:
    """Return the sentence in the user's language."""
    return zh if language() == "zh" else en


def make_output_safe() -> None:
    """Let a character that the terminal's encoding lacks become `?` instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
