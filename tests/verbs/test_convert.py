"""The words of convert, and its pages."""

import pytest

from recbole_hllm.cli import main
from recbole_hllm.data.raw.converters import CONVERTERS


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "my log.csv"
    path.write_text("user_id,item_id,timestamp\nu1,i1,1000000000\nu1,i2,never\n")
    return path


def test_a_conversion_prints_what_it_counted(raw, tmp_path, capsys):
    assert main(["convert", "csv", str(raw), "--to", str(tmp_path / "shop")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 interactions of 1 users with 1 items",
        f"times of {raw}: seconds",
        "malformed lines of interactions left out: 1",
        f"  {raw}, line 3: timestamp 'never' is neither a number nor an ISO 8601 date",
        f"written: {tmp_path / 'shop' / 'shop.inter'}",
        f"written: {tmp_path / 'shop' / 'shop.json'}",
    ]


def test_a_flag_takes_no_word(raw, tmp_path, capsys):
    assert main(["convert", "csv", "--strict", str(raw), f"--to={tmp_path / 'shop'}"]) == 2
    assert f"error: {raw}, line 3: timestamp 'never'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "convert needs a format as its first word: pixelrec, amazon2014"),
        (["--to=x", "csv"], "convert needs a format as its first word"),
        (["pixlrec", "x"], "there is no format 'pixlrec' (pixelrec, amazon2014"),
        (["csv"], "convert csv: which files?"),
        (["csv", "x", "--to"], "--to needs a value: --to=VALUE"),
        (["csv", "x", "--to=a", "--to=b"], "--to is given twice"),
        (["csv", "x", "--too=a"], "there is no option --too; did you mean 'to'?"),
        (["csv", "gone.csv", "--to=a"], "gone.csv: there is no such file or folder"),
    ],
)
def test_wrong_words(words, message, capsys):
    assert main(["convert", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_page_lists_the_formats(capsys):
    assert main(["convert", "--help"]) == 0
    page = capsys.readouterr().out
    assert page.startswith("Converts raw files") and all(f"\n  {form} " in page for form in CONVERTERS)


@pytest.mark.parametrize("form", list(CONVERTERS))
def test_every_format_has_a_page(form, capsys):
    assert main(["convert", form, "--help"]) == 0
    page = capsys.readouterr().out
    assert f"usage: recbole-hllm convert {form} " in page and "--to=dataset/" in page
    options = getattr(CONVERTERS.load(form), "OPTIONS", {})
    assert [name for name in options if f"--{name}" not in page] == []
