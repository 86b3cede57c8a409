"""A detokenizer's text is certain when it is given out, and given out when it is certain."""

import random

import pytest

from model import Detokenizer
from model.detokenizer import ByteJoiner, MetaspaceJoiner, SentencePieceJoiner

CLEANED = (
    *((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't")),
    *((" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re")),
)


def cleaned(text: str) -> str:
    for before, after in CLEANED:
        text = text.replace(before, after)
    return text


class Spoken:
    """A joiner whose tokens are given as text."""

    def __init__(self, parts: list[str]) -> None:
        self._parts = parts

    def push(self, token: int) -> str:
        return self._parts[token]

    def finish(self) -> str:
        return ""


def streamed(detokenizer: Detokenizer, count: int) -> list[str]:
    return [*map(detokenizer.push, range(count)), detokenizer.finish()]


@pytest.mark.parametrize(
    "letters", [" '.nt", " 'nvresm", " .?!,'x", " '", " n't", " 'vex", "ab .,'ntsmvre?!"]
)
def test_streams_clean_up_as_whole_texts_do(letters: str) -> None:
    rng = random.Random(letters)
    for _ in range(4000):
        text = "".join(rng.choices(letters, k=rng.randint(0, 14)))
        cuts = sorted(rng.choices(range(len(text) + 1), k=rng.randint(0, 6)))
        bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
        parts = [text[start:end] for start, end in bounds]

        deltas = streamed(Detokenizer(Spoken(parts), cleans=True), len(parts))

        assert "".join(deltas) == cleaned(text), parts


def test_cleaning_up_holds_back_only_what_may_change() -> None:
    parts = ["Do", " n", "'t", " go", " ,", " she", " '", "s", " there", " .", " .", " end"]

    deltas = streamed(Detokenizer(Spoken(parts), cleans=True), len(parts))

    assert deltas == ["Do", "", "n't", " go", ",", " she", "", "'s", " there", ".", ".", " end", ""]


def test_cleaning_up_comes_after_stripping() -> None:
    parts = ["  ", " .", " a", " ", " "]

    deltas = streamed(Detokenizer(Spoken(parts), strips=True, cleans=True), len(parts))

    assert deltas == ["", ".", " a", "", "", ""]


def test_the_first_token_with_text_loses_its_spaces() -> None:
    pieces = ["<pad>", "\u2581\u2581a\u2581", "\u2581b"]
    joiner = MetaspaceJoiner(dict(enumerate(pieces)).get, frozenset({0}), trims=True)

    assert [joiner.push(token) for token in (0, 9, 1, 2, 0, 2)] == ["", "", "a", " b", "", " b"]


def bytes_of(token: int) -> bytes:
    return bytes([token])


@pytest.mark.parametrize(
    ("errors", "text"),
    [("replace", "é\ufffd🙂\ufffd"), ("ignore", "é🙂")],
    ids=["replace", "ignore"],
)
def test_bytes_come_as_whole_characters(errors: str, text: str) -> None:
    joiner = ByteJoiner(bytes_of, frozenset(), errors=errors)

    parts = [joiner.push(byte) for byte in "é".encode() + b"\xff" + "🙂".encode() + b"\xe2\x82"]

    assert "".join(parts) + joiner.finish() == text
    assert parts[:2] == ["", "é"]
    assert parts[-3] == "🙂"


@pytest.mark.parametrize("errors", ["replace", "ignore"])
def test_any_bytes_read_as_they_do_at_once(errors: str) -> None:
    rng = random.Random(0)
    for _ in range(3000):
        kinds = [rng.randrange(256), rng.choice(b"\xf0\x9f\x99\x82\xed\xa0\x80\xc3\xa9\xe2")]
        data = bytes(rng.choice(kinds) for _ in range(rng.randint(0, 12)))
        joiner = ByteJoiner(bytes_of, frozenset(), errors=errors)

        assert "".join([*map(joiner.push, data), joiner.finish()]) == data.decode(errors=errors)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([0, 0, 1], "b"),  # the first piece with text has no space
        ([3, 4, 1], "é b"),
        ([3, 1, 4], "\ufffd b\ufffd"),
        ([1, 9, 1, 2, 1], "b<unk>b b"),
    ],
)
def test_pieces_join_as_sentencepiece_joins_them(tokens: list[int], text: str) -> None:
    joiner = SentencePieceJoiner([" ", " b", None, 0xC3, 0xA9], "<unk>")

    assert "".join([*map(joiner.push, tokens), joiner.finish()]) == text


def test_a_long_target_costs_no_more_per_token_than_a_short_one() -> None:
    asked: list[int] = []

    def piece(token: int) -> str:
        asked.append(token)
        return "\u2581word"

    detokenizer = Detokenizer(MetaspaceJoiner(piece, frozenset(), trims=True), cleans=True)
    deltas = [detokenizer.push(token) for token in range(1000)]

    assert asked == list(range(1000))
    assert deltas[1:] == [" word"] * 999
