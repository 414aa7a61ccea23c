"""The texts in code blocks of bowline/guide/deploying.md, which the suites use verbatim, apart from ports and times."""

import re

from .paths import WORKSPACE

PAGE = WORKSPACE / "bowline" / "guide" / "deploying.md"


def blocks(heading, language):
    """Returns the blocks of a language in the section with this heading, up to the next heading of any level."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    found = re.findall(rf"^```{language}\n(.*?)^```$", section[1] if section else "", re.MULTILINE | re.DOTALL)
    if not found:
        raise LookupError(f"{PAGE.name} has no block of {language} in the section {heading}")
    return found


def adapt(text, replacements):
    """Replaces each key by its value. A key that does not occur is an error: the page says something else now."""
    for old, new in replacements.items():
        if old not in text:
            raise LookupError(f"{PAGE.name} no longer contains {old!r} where it is expected")
        text = text.replace(old, str(new))
    return text
