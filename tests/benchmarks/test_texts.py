from benchmarks.checkpoints import filled_up
from benchmarks.texts import mixture, of_tokens, sentences


def words(text: str) -> int:
    return len(text.split())


def test_the_mixture_is_distinct_and_has_short_and_long_sentences() -> None:
    found = mixture(sentences(), 300, seed=1)
    assert len(set(found)) == 300
    lengths = sorted(map(words, found))
    assert lengths[30] <= 6
    assert lengths[-30] >= 20
    assert found == mixture(sentences(), 300, seed=1)
    assert all(text.count(".") == 1 for text in found)


def test_a_text_of_so_many_tokens_is_one_sentence_and_never_longer() -> None:
    text = of_tokens(sentences(), 200, 3, words)
    assert 195 <= words(text) <= 200
    assert not set(text) & set(".!?\n")
    assert text != of_tokens(sentences(), 200, 4, words)


def test_a_filled_up_vocabulary_keeps_its_ids_and_ends_with_the_padding() -> None:
    ids = filled_up({"</s>": 0, "\u2581ba": 1, "<pad>": 2}, 3000)
    assert sorted(ids.values()) == list(range(3000))
    assert (ids["</s>"], ids["\u2581ba"], ids["<pad>"]) == (0, 1, 2999)
