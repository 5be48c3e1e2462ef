"""Figures as files."""

import sys

import pytest

from recbole_hllm.errors import ConfigError, MissingExtra
from recbole_hllm.report.content import read_content
from recbole_hllm.report.figures import figures_of
from recbole_hllm.report.plots import check_plots, write_plots


def test_a_figure_in_each_format(write_table, tmp_path):
    pytest.importorskip("matplotlib")
    figures = figures_of(read_content(write_table(names=("_A $x^{", "SASRec", "Pop"))))
    figures = [figure for figure in figures if figure.name in ("quality-seconds-to-best", "loss")]
    made = write_plots(tmp_path, figures, ["svg", "png"])
    assert {path.name for path in made} == {f"{one.name}.{kind}" for one in figures for kind in ("svg", "png")}
    assert all(path.stat().st_size > 1000 for path in made)
    assert (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    first = (tmp_path / "loss.svg").read_bytes()
    write_plots(tmp_path, figures, ["svg"])
    assert (tmp_path / "loss.svg").read_bytes() == first, "the same numbers make the same file"


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"matplotlib.*recbole-hllm\[plots\]"):
        check_plots(["svg"])
    check_plots([])
    assert write_plots(tmp_path, [], []) == []


def test_an_unknown_format():
    with pytest.raises(ConfigError, match="plots: 'gif' is not one of svg, png, pdf"):
        check_plots(["gif"])
