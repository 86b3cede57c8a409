"""Placeholders: characters of a text that mean the same in every language, such as `%s` and URLs.

Every expression reads hostile text in linear time: what may repeat does not match what it starts
with, or its length is bounded, or it does not give back.
"""

import re
from collections.abc import Iterator

_NOT_CJK = r"\u2000-\u206f\u3000-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_URL_CHARACTER = rf"[^\s<>\"`|\\^«»{_NOT_CJK}]"
_HOST = r"(?:[A-Za-z0-9-]{1,63}\.)+"
_ARGUMENT = r"[!-z|~\u00a1-\u024f]"  # but for braces, as short as scripts' variables are written
_ICU = r"(?:plural|select|selectordinal|number|date|time|spellout|ordinal|duration|choice)"
_VALUE = r"(?:\"[^\"<>]*+\"|'[^'<>]*+'|[^\s\"'<>=`]++)"

_PRINTF = r"""
    %% | %\{[^{}\n]*+\}                                           # %{name}
    | %\([\w.-]{1,64}+\)[-+0\#]*+\d{0,4}+(?:\.\d{1,4}+)?[a-zA-Z]       # %(name)s
    | %<\w{1,64}+>[-+0\#]*+\d{0,4}+(?:\.\d{1,4}+)?[a-zA-Z]?             # %<name>s
    | %[A-Za-z_]\w{1,63}+%(?![\w%])                               # %name%
    | (?<!\d)(?!(?<=\d[ \u00a0\u202f])%[a-z][a-z])  # not of 100 %ige
      %(?:\d{1,2}\$)?[-+0\#]*+(?:\d{1,4}+|\*)?(?:\.(?:\d{1,4}+|\*))?
      (?:hh|ll|[hlLqjzt])?[diouxXeEfFgGaAcspn@]                   # %-10.2f, %1$s
"""
_BRACES = rf"""
    \{{\{{\{{?[^{{}}\n]*+\}}\}}\}}?                               # {{{{ name }}}}
    | \{{%[^{{}}%\n]*+%\}}                                        # {{% block %}}
    | \{{[ ]?{_ARGUMENT}*+[ ]?\}}                                 # {{name}}, {{0:.2f}}
"""
_DOLLARS = r"\$\{[^{}\n]*+\} | \$t\([^()\n]*+\) | (?<![\w$])\$[A-Za-z_]\w++"
_SHARPS = r"\#\{[^{}\n]*+\} | (?<![\w&\#/])\#(?=\d{0,20}[^\W\d])\w++"
_ANGLES = rf"""
    </?[A-Za-z][\w:.-]*+(?:\s++[\w:@.-]++\s*+=\s*+{_VALUE})*+\s*+/?>
    | <!--(?:[^<\n-]|-(?!->))*+--> | <%[^<%\n]*+%>
"""
_ADDRESSES = rf"""
    (?<![\w.%+-])(?:mailto:)?[A-Za-z0-9._%+-]{{1,64}}+@[A-Za-z0-9-]++(?:\.[A-Za-z0-9-]++)++
    | (?<![\w@./])@[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?(?:@{_HOST}[A-Za-z]++)?
"""
_URLS = rf"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{{0,19}}+://{_URL_CHARACTER}++"
_WEB = rf"(?<![\w.-])www\.{_URL_CHARACTER}++"
_DOMAINS = rf"""
    (?<![\w.@-]){_HOST}(?:com|org|net|edu|gov)(?![\w-])(?:(?::\d{{1,5}})?/{_URL_CHARACTER}*+)?
"""
_CODE = r"(?<!`)(?:```[^`\n]++``` | ``(?:[^`\n]|`(?!`))++`` | `[^`\n]++`)(?!`) | ^```\w*+$"
_EMOJI_CODES = r"(?<![\w:]):(?=[\d_+-]*+[a-z])[a-z0-9_+-]++:(?![\w:])"
_REFERENCES = r"&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
_FLAGS = r"(?<![^\s\"'(\[])--[a-z][a-z0-9]*+(?:-[a-z0-9]++)*+(?:=[^\s\"'`,;)]++)?"
_PATHS = r"(?<![^\s\"'(\[])(?:~|\.\.?)?(?:/[A-Za-z0-9_.+@-]++){2,}+/?"
_BACKSLASHES = r"""
    (?<![A-Za-z])[A-Za-z]:\\[^\s"'<>|*?:]*+ | (?<!\S)\\\\[\w.-]++\\[^\s"'<>|*?:]++
    | \\[nrt](?![a-z])                                            # a line end, as programs write it
"""
_UNDERSCORES = r"(?<!\w)__[A-Z0-9][A-Z0-9_]*__(?!\w)"
_EMOJI = re.compile(
    r"(?:[0-9#*]\ufe0f?\u20e3"
    r"|[\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u2600-\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c"
    r"\u2b50\u2b55\U0001f000-\U0001faff]"
    r"[\u200d\ufe0e\ufe0f\U000e0020-\U000e007f]*+)++"
)
_ICU_HEAD = re.compile(rf"\{{\s{{0,9}}+[\w.-]{{1,64}}+\s{{0,9}}+,\s{{0,9}}+{_ICU}\b")

# What an expression can match holds one of these: most texts need none of the expressions.
_KINDS = tuple(
    (signs, re.compile(expression, re.VERBOSE | re.MULTILINE), ends_loosely)
    for signs, expression, ends_loosely in (
        (("%",), _PRINTF, False),
        (("{",), _BRACES, False),
        (("$",), _DOLLARS, False),
        (("#",), _SHARPS, False),
        (("<",), _ANGLES, False),
        (("@",), _ADDRESSES, False),
        (("://",), _URLS, True),
        (("www.",), _WEB, True),
        ((".com", ".org", ".net", ".edu", ".gov"), _DOMAINS, True),
        (("`",), _CODE, False),
        ((":",), _EMOJI_CODES, False),
        (("&",), _REFERENCES, False),
        (("--",), _FLAGS, False),
        (("/",), _PATHS, True),
        (("\\",), _BACKSLASHES, True),
        (("__",), _UNDERSCORES, False),
    )
)


def find_placeholders(text: str) -> Iterator[tuple[int, int]]:
    """Yield where placeholders start and end; those of different kinds may overlap.

    They are: what programs fill in (`%s`, `%(name)s`, `{0}`, `{{name}}`, `${x}`, `%name%`, `$x`,
    `<%= x %>`, ICU's plurals whole), URLs, e-mail addresses, @names, #tags, `:emoji_codes:`, emoji,
    tags and references that are there as text, code in backticks, paths, --flags, `__X__`.
    """
    for signs, expression, ends_loosely in _KINDS:
        for sign in signs:
            if sign in text:
                for found in expression.finditer(text):
                    start, end = found.span()
                    yield start, _before_punctuation(text, start, end) if ends_loosely else end
                break
    if not text.isascii():
        for found in _EMOJI.finditer(text):
            yield found.span()
    if "{" in text and _ICU_HEAD.search(text):
        yield from _messages(text)


def _before_punctuation(text: str, start: int, end: int) -> int:
    """Return where a URL ends if the punctuation of the sentence around it is not its own."""
    depths = {
        close: text.count(opening, start, end) - text.count(close, start, end)
        for opening, close in ("()", "[]", "{}")
    }
    while end > start + 1:
        last = text[end - 1]
        if last in depths and depths[last] < 0:
            depths[last] += 1
        elif last not in ".,;:!?'*_~’”…":
            break
        end -= 1
    return end


def _messages(text: str) -> Iterator[tuple[int, int]]:
    """Yield ICU's messages, from a brace to the one that closes it."""
    opened = list[int]()
    for brace in re.finditer(r"[{}]", text):
        if brace.group() == "{":
            opened.append(brace.start())
        elif opened:
            start = opened.pop()
            if _ICU_HEAD.match(text, start):
                yield start, brace.end()
