"""Elements of html and xml: where each ends, which part blocks, which are not translated."""

from collections.abc import Sequence
from itertools import accumulate

from server.text.markup_tokens import Token
from server.text.nesting import Nesting
from server.text.rules import TextRules

# What the html standard displays as a block, a list item or a part of a table, and controls.
_BLOCK_NAMES = """
address article aside base blockquote body br button caption center col colgroup dd details dialog
dir div dl dt fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 head header
hgroup hr html legend li link listing main menu meta nav noframes noscript optgroup option p
plaintext pre script search section select style summary table tbody td template textarea tfoot th
thead title tr ul ol xmp
"""
_WORDLESS_NAMES = """
applet audio canvas embed iframe math object script style svg template video
"""
_CODE_NAMES = """
code kbd listing noembed plaintext pre samp textarea var xmp
"""
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_WORDLESS = frozenset(_WORDLESS_NAMES.split())
_UNTOUCHED = _WORDLESS | frozenset(_CODE_NAMES.split())
_TABLE = frozenset({"tbody", "tfoot", "thead"})
_ENDED_BY = {  # elements whose end tag may be left out, and what starts behind them then
    "p": _BLOCKS
    - {"br", "button", "noscript", "option", "optgroup", "script", "style", "template"},
    "li": frozenset({"li"}),
    "dt": frozenset({"dt", "dd"}),
    "dd": frozenset({"dt", "dd"}),
    "option": frozenset({"option", "optgroup"}),
    "td": frozenset({"td", "th", "tr"}) | _TABLE,
    "th": frozenset({"td", "th", "tr"}) | _TABLE,
    "tr": frozenset({"tr"}) | _TABLE,
    "thead": _TABLE,
    "tbody": _TABLE,
}


class Elements:
    """What is known of the elements of one document.

    Attributes:
        stops: {position of a start tag: position behind its element}.
        parting: positions of the tags that part blocks.
    """

    def __init__(self, tokens: Sequence[Token], rules: TextRules) -> None:
        self._tokens, self._is_html = tokens, rules.markup == "html"
        self._ignored = self._names(rules.ignored_tags)
        self._ends: dict[int, int] = {}  # {start: end tag}
        self.stops = self._found()
        self.parting = self._parting(rules)
        wanted = (token.translates is True for token in tokens)
        self._wanted = [0, *accumulate(wanted)]

    def stop(self, position: int) -> int:
        """Return the position behind the element, or the tag, that starts at `position`."""
        return self.stops.get(position, position + 1)

    def is_untouched(self, position: int) -> bool:
        """Whether the element that starts there is not translated, nor what is in it."""
        token = self._tokens[position]
        if token.name in self._ignored:
            return True
        if token.translates is not None:
            return not token.translates
        return self._is_html and token.name in _UNTOUCHED

    def holds_wanted(self, position: int) -> bool:
        """Whether within the element something asks to be translated nevertheless."""
        if self._tokens[position].name in self._ignored:
            return False
        return self._wanted[self.stop(position)] > self._wanted[position + 1]

    def keeps_lines(self, position: int) -> bool:
        """Whether line ends within the element count."""
        return self._is_html and self._tokens[position].name == "pre"

    def stands_for_a_word(self, position: int) -> bool:
        """Whether it is an empty element that stands for something, as clients' placeholders do."""
        if self._is_html:
            return False
        token = self._tokens[position]
        return token.kind == "void" or self._ends.get(position) == position + 1

    def words(self, position: int) -> str:
        """Return the source of the element's text, as far as people read it."""
        if self._is_html and self._tokens[position].name in _WORDLESS:
            return ""
        inner = self._tokens[position : self.stop(position)]
        return "".join(token.raw for token in inner if token.kind == "text")

    def _found(self) -> dict[int, int]:
        nesting, stops = Nesting(), {}
        for position, token in enumerate(self._tokens):
            if self._is_html and token.kind in ("open", "void"):
                while token.name in _ENDED_BY.get(nesting.innermost, ()):
                    stops[nesting.end()] = position
            if token.kind == "open":
                nesting.open(position, token.name)
            elif token.kind == "close" and (ended := nesting.close(token.name)):
                stops |= dict.fromkeys(ended, position)
                stops[ended[-1]] = position + 1
                self._ends[ended[-1]] = position
        while nesting.innermost:
            stops[nesting.end()] = len(self._tokens)
        return stops

    def _names(self, names: frozenset[str]) -> frozenset[str]:
        """Return a rule's names as tokens have them."""
        return frozenset(map(str.lower, names)) if self._is_html else names

    def _parting(self, rules: TextRules) -> set[int]:
        known = _BLOCKS if self._is_html else frozenset[str]()
        names = known | self._names(rules.splitting_tags)
        tags = {i for i, t in enumerate(self._tokens) if t.kind in ("open", "close", "void")}
        found = {i for i in tags if self._tokens[i].name in names}
        if not self._is_html and rules.finds_outline:
            found |= self._outline()
        others = self._names(rules.non_splitting_tags)
        return {i for i in found if self._tokens[i].name not in others}

    def _outline(self) -> set[int]:
        """Return the tags of elements without text of their own, and of their children."""
        has_text, children = self._contents()
        found = set()
        for parent, tags in children.items():
            if not has_text[parent]:
                found |= set(tags)
            if parent >= 0 and not has_text[parent] and tags:
                found |= {parent, self._ends.get(parent, parent)}
        return found

    def _contents(self) -> tuple[dict[int, bool], dict[int, list[int]]]:
        """Return of each element, -1 for all, whether it has text, and its children's tags."""
        has_text, children, path = {-1: False}, {-1: list[int]()}, [-1]
        for position, token in enumerate(self._tokens):
            while len(path) > 1 and position >= self.stops[path[-1]]:
                path.pop()
            if token.kind == "text":
                has_text[path[-1]] |= not token.raw.isspace()
            elif token.kind in ("open", "void"):
                children[path[-1]].append(position)
                if token.kind == "open":
                    if position in self._ends:
                        children[path[-1]].append(self._ends[position])
                    path.append(position)
                    has_text[position], children[position] = False, []
        return has_text, children
