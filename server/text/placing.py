"""Placing: where a segment's inline tags go among the words of its target."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from server.text.nesting import pairs
from server.text.segments import Tag

Range = tuple[int, int]

_HALF = 0.5  # a word of the target is an element's if that much of its attention is


@dataclass(slots=True, eq=False)
class Node:
    """An element of the segment, or a tag alone.

    Attributes:
        tags: numbers of the start tag and the end tag, of one tag, or none for the segment itself.
        start, end: characters of the source that it holds.
        is_unpaired: whether it opens or closes what is not closed or opened in the segment.
        is_end: whether it is an end tag alone.
    """

    tags: tuple[int, ...]
    start: int
    end: int
    is_unpaired: bool = False
    is_end: bool = False
    children: list["Node"] = field(default_factory=list)


def tree(tags: Sequence[Tag], length: int) -> Node:
    """Return the segment with what is in it; `length` is its text's, in characters."""
    closes = _pairs(tags)
    root = Node((), 0, length)
    path, ends = [root], [len(tags)]
    for number, tag in enumerate(tags):
        if number == ends[-1]:
            path.pop()
            ends.pop()
            continue
        close = closes.get(number)
        if close is None:
            is_unpaired, is_end = tag.kind != "void", tag.kind == "close"
            node = Node((number,), tag.at, tag.at, is_unpaired, is_end)
            path[-1].children.append(node)
            continue
        node = Node((number, close), tag.at, tags[close].at)
        path[-1].children.append(node)
        path.append(node)
        ends.append(close)
    return root


def _pairs(tags: Sequence[Tag]) -> dict[int, int]:
    return pairs([(tag.kind, tag.name) for tag in tags])


def placed(tags: Sequence[Tag], places: "Places") -> list[tuple[int, Tag]]:
    """Return before which piece of the target each tag goes, in their new order.

    Where start or end tags are without their others, elements must not change their order: they
    could then end where they did not.
    """
    found = places.found(tree(tags, len(places.source)))
    order = [number for number, _ in found]
    closes = {order[start]: order[end] for start, end in _pairs([tags[i] for i in order]).items()}
    if closes != _pairs(tags):
        at = dict(found)
        found = list(enumerate(accumulate((at[number] for number in range(len(tags))), max)))
    return [(place, tags[number]) for number, place in found]


class Places:
    """Finds each tag's place among the pieces of a target."""

    def __init__(
        self,
        words: Sequence[Range],
        rows: Sequence[Sequence[float] | None],
        source: str,
    ) -> None:
        """Take what is known of both sides.

        Args:
            words: where the source's words are, in characters.
            rows: of each piece of the target, its weights over these words, of sum 1 or 0; None
                for white space.
            source: the source's text.
        """
        self._starts, self._ends = [start for start, _ in words], [end for _, end in words]
        self.source = source
        self._rows = rows
        self._sums = [None if row is None else [0.0, *accumulate(row)] for row in rows]

    def found(self, root: Node) -> list[tuple[int, int]]:
        """Return (number of a tag, piece that it goes before), in their new order."""
        ranges = {id(root): (0, len(self._rows))}
        order: list[tuple[int, int]] = []
        todo: list[tuple[Node, bool]] = [(root, False)]
        while todo:
            node, is_done = todo.pop()
            low, high = ranges[id(node)]
            if is_done:
                order += [(number, high) for number in node.tags[1:]]
                continue
            order += [(number, low) for number in node.tags[:1]]
            places = self._children(node, low, high)
            ranges |= {id(child): place for child, place in zip(node.children, places, strict=True)}
            todo.append((node, True))
            indexed = sorted(range(len(places)), key=lambda i: (*places[i], i), reverse=True)
            todo += [(node.children[i], False) for i in indexed]
        return order

    def _children(self, parent: Node, low: int, high: int) -> list[Range]:
        """Return the range of pieces of each child, within the parent's; they do not overlap."""
        places: list[Range | None] = [None] * len(parent.children)
        taken: list[Range] = []
        held = {i: self._held(child) for i, child in enumerate(parent.children)}
        inner = self._held(parent)
        ranked = sorted(
            (i for i, (first, last) in held.items() if first < last),
            key=lambda i: (-self._best(held[i], low, high)[0], i),
        )
        for i in ranked:
            if held[i] == inner:
                place: Range | None = self._all(low, high)
            else:
                place = self._element(held[i], _gaps(taken, low, high))
            if place is not None:
                places[i] = place = self._with_space(parent.children[i], place, taken, low, high)
                taken.append(place)
        for i, child in enumerate(parent.children):
            if places[i] is None:
                point = self._point(child, parent, taken, low, high)
                places[i] = (point, point)
        return [place for place in places if place is not None]

    def _held(self, node: Node) -> Range:
        """Return which words of the source a node holds; a tag alone holds none."""
        if len(node.tags) == 1:
            return (0, 0)
        first = bisect_right(self._ends, node.start)
        return (first, max(first, bisect_left(self._starts, node.end)))

    def _inside(self, piece: int, held: Range) -> float | None:
        """Return how much of a piece's attention is on `held`; None where it tells nothing."""
        sums = self._sums[piece]
        if sums is None or sums[-1] < _HALF:
            return None
        return sums[held[1]] - sums[held[0]]

    def _best(self, held: Range, low: int, high: int) -> tuple[float, Range]:
        """Return the range of pieces with the most of `held` and the least else."""
        best, best_range = 0.0, (low, low)
        total, start = 0.0, low
        for piece in range(low, high):
            inside = self._inside(piece, held)
            if inside is None:
                continue
            if total <= 0:
                total, start = 0.0, piece
            total += inside - _HALF
            if total > best:
                best, best_range = total, (start, piece + 1)
        return best, best_range

    def _element(self, held: Range, gaps: Sequence[Range]) -> Range | None:
        best, place = max((self._best(held, *gap) for gap in gaps), default=(0.0, (0, 0)))
        if best > 0:
            return place
        inside = ((self._inside(p, held) or 0.0, -p) for gap in gaps for p in range(*gap))
        most, piece = max(inside, default=(0.0, 0))
        return (-piece, 1 - piece) if most > 0 else None

    def _all(self, low: int, high: int) -> Range | None:
        told = [piece for piece in range(low, high) if self._sums[piece] is not None]
        return (told[0], told[-1] + 1) if told else None

    def _with_space(
        self, node: Node, place: Range, taken: Sequence[Range], low: int, high: int
    ) -> Range:
        """Let an element hold the space beside its words if it does in the source."""
        start, end = place
        free = next(gap for gap in _gaps(taken, low, high) if gap[0] <= start and end <= gap[1])
        if self.source[node.start : node.start + 1].isspace() and start > free[0]:
            start -= self._sums[start - 1] is None
        if self.source[node.end - 1 : node.end].isspace() and end < free[1]:
            end += self._sums[end] is None
        return start, end

    def _point(self, node: Node, parent: Node, taken: Sequence[Range], low: int, high: int) -> int:
        """Return where something without words goes: between pieces, not within `taken`."""
        wanted = (
            self._split(node, low, high)
            if node.is_unpaired
            else self._beside(node, parent, low, high)
        )
        gaps = _gaps(taken, low, high)
        allowed = (min(max(wanted, first), last) for first, last in gaps)
        return min(allowed, key=lambda place: abs(place - wanted), default=high)

    def _beside(self, node: Node, parent: Node, low: int, high: int) -> int:
        """Return the place before what the next word became, or behind what it touches."""
        first, last = self._held(parent)
        following = bisect_left(self._starts, node.end)
        touches = following > first and self._ends[following - 1] == node.end
        is_apart = not self.source[node.end : node.end + 1].strip()
        before = self._reader(following - 1, low, high) if following > first else None
        after = self._reader(following, low, high) if following < last else None
        if before is not None and (after is None or (touches and is_apart)):
            return before + 1
        if after is not None:
            return after
        return high if node.start >= parent.end else low

    def _reader(self, word: int, low: int, high: int) -> int | None:
        """Return the piece that attends most to a word of the source."""
        shares = [(self._inside(p, (word, word + 1)) or 0.0, -p) for p in range(low, high)]
        most, piece = max(shares, default=(0.0, 0))
        return -piece if most > 0 else None

    def _split(self, node: Node, low: int, high: int) -> int:
        """Return the place that best parts what is before the tag from what is behind it.

        Of equal ones the first, where the tag stands before its words, as start tags do.
        """
        before = (0, bisect_right(self._ends, node.start))
        if before[1] == len(self._ends):
            return high
        if before[1] == 0:
            return low
        cost = best = 0.0
        place = low
        for piece in range(low, high):
            inside = self._inside(piece, before)
            if inside is None:
                continue
            cost += 1 - 2 * inside
            if cost < best or (cost == best and node.is_end):
                best, place = cost, piece + 1
        is_apart = self.source[node.start - 1].isspace()
        return place + (is_apart and low < place < high and self._rows[place] is None)


def _gaps(taken: Sequence[Range], low: int, high: int) -> list[Range]:
    """Return what is left of a range; between two that touch, an empty one."""
    gaps, start = [], low
    for first, last in sorted(taken):
        if first >= start:
            gaps.append((start, first))
        start = max(start, last)
    gaps.append((start, max(start, high)))
    return gaps
