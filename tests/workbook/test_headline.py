"""The README's results are what the committed records say."""

from pathlib import Path

import pytest
from tsns_workbook import headline

ROOT = Path(__file__).parents[2]


def test_every_figure_of_the_readme_comes_from_the_records():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    written = text.split(headline.BEGIN)[1].split(headline.END)[0].strip("\n")
    assert written == headline.headline(ROOT / "outputs/local")


def test_the_headline_is_written_between_its_marks(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{headline.BEGIN}\nold\n{headline.END}\nafter\n", encoding="utf-8")
    headline.write(readme, ROOT / "outputs/local")
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{headline.BEGIN}\nOf the paper's") and text.endswith(f"{headline.END}\nafter\n")
    assert "old" not in text


def test_without_records_there_is_no_headline(tmp_path):
    with pytest.raises(ValueError, match="no notebook with a ladder"):
        headline.headline(tmp_path)
