"""Character references of html and xml: read, and written where they must be."""

import html

_NO_BREAK_SPACE = "\u00a0"


def read(raw: str) -> str:
    """Return the characters that text of a document stands for."""
    return html.unescape(raw)


def written(text: str) -> str:
    """Return text as a document holds it; a no-break space so that it can be seen there."""
    return html.escape(text, quote=False).replace(_NO_BREAK_SPACE, "&#160;")
