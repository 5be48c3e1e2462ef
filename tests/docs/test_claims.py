"""What README and manual name exists: commands, keys, models, files, make targets, extras, Python names."""

import ast
import configparser
import importlib
import re
import shlex
from pathlib import Path

import pytest

from recbole_hllm.cli import VERBS
from recbole_hllm.config.parsing import listed_keys
from recbole_hllm.data.raw.conversion import options_of
from recbole_hllm.errors import UserError
from recbole_hllm.registry import get_spec

ROOT = Path(__file__).parents[2]


def read(*patterns):
    """Text of files of the repository, by path."""
    files = [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


PAGES = read("README.md", "docs/**/*.md")
WITH_COMMANDS = PAGES | read("benchmarks/**/*.md", "dataset/*/README.md", "properties/**/*.yaml")

# Of the command line alone, beside the keys of a config.
OF_THE_CALL = {"help", "run_dir", "plan", "config_file", "config_files", "imports", "to", "processes",
               "against", "examples", "plots", "histories", "dtype", "vectors", "onnx", "licence", "llm_licence",
               "data_licence", "in", "out", "k", "unknown", "kind", "min_recall", "host", "port", "journal",
               "token-file", "index", "max-history", "max-texts", "max-text", "max-k", "max-ids", "max-items",
               "max-body", "queue", "batch"} | set(
    options_of("amazon2014")
)
# What the examples of docs/extending add; test_doors.py runs them.
EXAMPLE_MODELS = {"LastItems", "mypackage.mymodule:LastItems", "GRUNCE"}
EXAMPLE_NAMES = {"last_items", "embedding_size"}
EXAMPLE_VERBS = {"count"}
EXAMPLE_FORMATS = {"lastfm1k"}
EXAMPLE_PATHS = {
    path for text in read("docs/extending/*.md").values() for path in re.findall(r"(?m)^`([\w./]+)`[^\n]*:$", text)
}
# Files and folders that a reader has, or makes from what a page shows.
EXAMPLES = {"common.yaml", "mine.yaml", "paper.yaml", "THIS", "FILE"}
EXAMPLE_FOLDERS = ("dataset/shop", "dataset/films", "dataset/NAME", "dataset/ml-32m", "dataset/lastfm1k", "runs/")
# Options of the official HLLM code, in the table of their names.
OFFICIAL = {
    "text_path", "optim_args", "lr_mult_prefix", "lr_mult_rate", "scheduler_args", "use_ft_flash_attn", "load_pretrain",
    "val_only", "checkpoint_dir", "auto_resume", "use_text", "freeze_prefix", "freeze_ad", "loss",
}  # fmt: skip
# Written like keys: an item's text, a part of eval_args, a key of Hugging Face, a placeholder, an environment variable,
# a header of HTTP.
LIKE_KEYS = {"title", "mode", "attn_type", "key", "HLLM_GOLDENS", "Authorization"}
# Numbers of the service as Prometheus's client writes them, which puts an end to names.
METRICS = {
    "recbole_hllm_requests_total", "recbole_hllm_item_changes_total", "recbole_hllm_reloads_total",
    "recbole_hllm_export_info", "process_resident_memory_bytes",
}  # fmt: skip
# A verb, what some are of (a data set, a folder), and keys.
OF_ONE = "|".join(f"(?<={verb} )" for verb in ("describe", "report", "reproduce", "recommend", "index", "serve"))
OF = rf"(?:(?:{OF_ONE})\w[\w/-]* |(?<=export )\w[\w/-]* \w[\w/-]* )?"
WORDS = rf"(?:([a-z]+) {OF})?(-.*)"
PROGRAM = rf"(?m)^[ #]*(?:\w+=\S+ )*(?:python run_recbole_hllm\.py|recbole-hllm) {WORDS}$"
IN_REPOSITORY = re.compile(r"(?<![\w./-])(?:properties|dataset|benchmarks|docs|tests|recbole_hllm)/[\w./*<>@-]*")


def is_key(key):
    """Whether a key exists: on its own, of a model or a variant, or of a stage."""
    prefix, _, name = key.rpartition(".")
    known = listed_keys() | OF_THE_CALL | EXAMPLE_NAMES
    return name in known and (re.fullmatch(r"(stage\d)?", prefix) or is_model(prefix))


def is_model(name):
    if name in EXAMPLE_MODELS:
        return True
    try:
        return bool(get_spec(name.partition("@")[0]))
    except UserError:
        return False


def arguments():
    """Page, key and value of every argument of every command line."""
    for page, text in WITH_COMMANDS.items():
        text = re.sub(r"\s*\\\n[#\s]*", " ", text)
        for verb, line in re.findall(PROGRAM, text):
            assert verb in {"", *VERBS, *EXAMPLE_VERBS}, (page, verb)
            for word in shlex.split(line, comments=True):
                assert word.startswith("--"), (page, word)
                yield page, *word[2:].partition("=")[::2]


def code_spans():
    """Page and text of everything in backticks outside of blocks."""
    for page, text in PAGES.items():
        yield from ((page, span) for span in re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", text)))


def test_command_lines_are_found():
    assert len(list(arguments())) > 150


def test_every_key_of_a_command_line_is_known():
    keys = [(page, key) for page, key, _ in arguments()]
    for page, key, value in arguments():
        if key.endswith((".search", "learn_keys", "teacher_keys")):
            keys += [(page, name) for name in ast.literal_eval(value) or {}]
    assert [(page, key) for page, key in keys if not is_key(key)] == []


def test_every_conversion_has_a_format_and_its_options():
    found = [
        (page, *line.split(maxsplit=1)) for page, text in WITH_COMMANDS.items()
        for line in re.findall(r"(?m)^(?:python run_recbole_hllm\.py|recbole-hllm) convert (.*)$", text)
    ]  # fmt: skip
    assert len(found) > 8
    for page, form, words in found:
        known = options_of(form) if form not in EXAMPLE_FORMATS else {"to": ""}
        given = [word[2:].partition("=")[0] for word in shlex.split(words) if word.startswith("--")]
        assert "to" in given and set(given) <= set(known), (page, words)


def test_every_model_of_a_command_line_runs():
    named = [(page, model) for page, key, value in arguments() if key == "model" for model in value.split(",")]
    assert [(page, model) for page, model in named if not is_model(model)] == []


def test_every_property_file_of_a_command_line_exists():
    values = [(page, value) for page, key, value in arguments() if key in ("config_file", "config_files")]
    files = [(page, file) for page, value in values for file in value.split()]
    ours = [(page, file) for page, file in files if file not in EXAMPLES and not file.startswith("runs/")]
    assert len(ours) > 10
    assert [(page, file) for page, file in ours if not (ROOT / file).is_file()] == []


def test_every_path_of_the_repository_exists():
    named = [(page, path.rstrip("./")) for page, text in PAGES.items() for path in IN_REPOSITORY.findall(text)]
    ours = [(page, path) for page, path in named if not path.startswith(EXAMPLE_FOLDERS) and "<" not in path]
    ours = [(page, path) for page, path in ours if path not in EXAMPLE_PATHS]
    assert len(ours) > 10
    assert [(page, path) for page, path in ours if not list(ROOT.glob(path))] == []


def test_every_key_in_a_sentence_is_known():
    found = [(page, re.match(r"(?:--)?([\w@.-]+)(?:: |=)", span)) for page, span in code_spans()]
    keys = [(page, match[1]) for page, match in found if match and match[1] not in LIKE_KEYS | OFFICIAL]
    assert len(keys) > 50
    assert [(page, key) for page, key in keys if not is_key(key)] == []


def test_every_name_in_a_sentence_is_one_of_the_program():
    program = {word for text in read("recbole_hllm/**/*.py").values() for word in re.findall(r"\w+", text)}
    known = program | listed_keys() | OF_THE_CALL | OFFICIAL | METRICS | {"token_seq"}
    names = [(page, span) for page, span in code_spans() if re.fullmatch(r"[A-Za-z]+(_[A-Za-z0-9]+)+", span)]
    assert [(page, name) for page, name in names if name not in known] == []


def test_every_make_target_and_extra_exists():
    targets = re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for text in PAGES.values():
        assert set(re.findall(r"(?m)(?:^|`)make ([a-z-]+)", text)) <= set(targets)
        named = [extra for extras in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in extras.split(",")]
        assert set(named) <= set(setup["options.extras_require"])


def test_every_python_name_can_be_imported():
    text = "\n".join(PAGES.values())
    lines = re.findall(r"from (recbole_hllm[\w.]*) import ([\w, ]+)", text)
    pairs = [(module, name.strip()) for module, names in lines for name in names.split(",")]
    pairs += [span.rsplit(".", 1) for _, span in code_spans() if re.fullmatch(r"recbole_hllm(\.\w+)+", span)]
    for module, name in pairs:
        assert hasattr(importlib.import_module(module), name) or importlib.import_module(f"{module}.{name}")


@pytest.mark.slow
def test_the_python_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"(?ms)^```python\n(.*?)^```", PAGES["docs/python.md"])
    exec(compile(block, "python.md", "exec"), {"__name__": "page"})
    assert "ndcg@10" in capsys.readouterr().out


def test_every_step_of_the_walk_is_in_its_file():
    rows = re.findall(r"(?m)^\| `([\w/]+\.py)` \| `([\w.]+)` \|", PAGES["docs/extending/walk.md"])
    assert len(rows) > 15
    assert [(file, name) for file, name in rows if name not in names_in(ROOT / file)] == []


def names_in(file):
    """Classes, functions and `Class.method` that a file defines."""
    definitions = (ast.ClassDef, ast.FunctionDef)
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, definitions):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, definitions))
