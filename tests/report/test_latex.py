"""LaTeX that compiles."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbole_hllm.report.latex import escaped, to_latex
from recbole_hllm.report.sections import Cell, Table


def test_specials(hostile):
    assert escaped('a_b & 5% of $x #1 {z} ~^ <> | "q" ± – ×\\') == (
        r"a\_b \& 5\% of \$x \#1 \{z\} \textasciitilde{}\textasciicircum{} \textless{}\textgreater{} \textbar{} "
        r"\textquotedbl{}q\textquotedbl{} $\pm$ -- $\times$\textbackslash{}"
    )
    assert escaped("[10pt]\nmore") == "{[}10pt] more" and escaped("") == ""


@given(st.text(st.sampled_from('ab \\{}$&%#_^~<>|"±\n[]'), max_size=20))
def test_nothing_of_the_text_is_left_to_latex(text):
    plain = escaped(text)
    for command in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}", r"\textgreater{}",
                    r"\textbar{}", r"\textquotedbl{}", r"$\pm$"):  # fmt: skip
        plain = plain.replace(command, "")
    plain = re.sub(r"\\[&%$#_{}]", "", plain).removeprefix("{[}")
    assert not re.search(r"[\\{}$&%#_^~]", plain)


def test_a_table_has_as_many_cells_as_columns_and_the_best_bold():
    rows = ((Cell("A&B"), Cell("0.1", 0.1, best=True), Cell("1_0")), (Cell("C"), Cell("0.0", 0.0), Cell("–")))
    text = to_latex([Table("A 5% table", ("model", "ndcg@10", "x"), rows)])
    lines = text.splitlines()
    assert r"\begin{tabular}{lrr}" in lines and r"\caption{A 5\% table}" in lines
    assert [line for line in lines if line.endswith(r"\\")] == [
        r"model & ndcg@10 & x \\", r"A\&B & \textbf{0.1} & 1\_0 \\", r"C & 0.0 & -- \\",
    ]  # fmt: skip
    assert [lines.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert text.count(r"\begin{") == text.count(r"\end{") == 2 and text.count("{") == text.count("}")
    assert "booktabs" in lines[0] and lines[0].startswith("%")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_takes_it_and_a_wide_table_fits_on_the_page(tmp_path):
    wide = Table("Wide [1] 5%", tuple(f"a_{place}" for place in range(40)), (tuple(Cell("0.1234") for _ in range(40)),))
    narrow = Table('Narrow "x" ± <|>', ("model", "ndcg@10"), ((Cell("[10pt] A&B"), Cell("0.1", 0.1, best=True)),))
    tables = to_latex([wide, narrow])
    packages = tables.splitlines()[0].removeprefix("% ")
    text = f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{tables}\\end{{document}}\n"
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").is_file(), done.stdout
    assert "Overfull" not in done.stdout
