"""Options of verbs."""

import pytest

from recbole_hllm.errors import ConfigError
from recbole_hllm.verbs.options import read_options

DEFAULTS = {"k": 10, "share": 0.5, "name": "a", "all": False, "most": int, "to": str}


def read(*words, places=1):
    return read_options(list(words), "verb FOLDER --k=3", places, DEFAULTS)


def test_values_have_the_types_of_their_defaults():
    words = ["here", "--k=3", "--share", "1", "--name=7", "--all", "--most=5"]
    assert read(*words) == (["here"], {"k": 3, "share": 1.0, "name": "7", "all": True, "most": 5, "to": None})
    assert read(places=0) == ([], {"k": 10, "share": 0.5, "name": "a", "all": False, "most": None, "to": None})
    assert read("--all=False", places=0)[1]["all"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "verb: write recbole-hllm verb FOLDER --k=3"),
        (["--k=3", "here"], "verb: write recbole-hllm verb FOLDER --k=3"),
        (["here", "there"], "'there' belongs to no key"),
        (["here", "--nam=b"], "verb: there is no --nam; did you mean 'name'"),
        (["here", "--k=b"], "verb: --k: 'b' is no whole number"),
        (["here", "--most=1.5"], "verb: --most: '1.5' is no whole number"),
        (["here", "--name"], "verb: --name needs a value"),
        (["here", "--share=x"], "verb: --share: 'x' is no number"),
        (["here", "--all=yes"], "verb: --all: 'yes' is neither True nor False"),
    ],
)
def test_what_is_wrong_is_said(words, message):
    with pytest.raises(ConfigError, match=message):
        read(*words)
