"""Glossary files: two columns, and mistakes by line."""

from pathlib import Path

import pytest

from server.glossary_file import read_glossary


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "terms"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "cloud\tWolke\n\nload balancer \t Lastverteiler, groß\n",
        "\ufeffcloud\tWolke\r\nload balancer\tLastverteiler, groß",
        'cloud,Wolke\nload balancer,"Lastverteiler, groß"\ncloud,Wolke\n',
    ],
)
def test_terms_are_parted_by_tabs_or_as_csv(tmp_path: Path, content: str) -> None:
    assert read_glossary(written(tmp_path, content)) == (
        ("cloud", "Wolke"),
        ("load balancer", "Lastverteiler, groß"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tb\nc\n", "terms, line 2: 1 columns; a line is SOURCE<tab>TARGET"),
        ("a,b,c\n", "terms, line 1: 3 columns"),
        ("a\tb\n\nc\t \n", "terms, line 3: a term is empty"),
        ("a\tb\na\tc\n", "terms, line 2: 'a' has another target above"),
        ("Source,Target\n", "terms, line 1: this is a heading; take it out"),
        ('a,b\nc,"d\n', "terms, line 2: unexpected end of data; check its quotes"),
        ("\n \n", "terms holds no terms"),
        (b"a\tb\n\xff\tc\n", "terms, line 2: not UTF-8"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_glossary(written(tmp_path, content))
