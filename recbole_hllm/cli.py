"""Command line: a table of verbs.

A verb is a module with ``main(words) -> exit code``, words being those after the verb; its docstring is the page that
``help VERB`` prints, the first line a summary. A module with ``page(words)`` makes the page itself, from the words
after the verb.
"""

import os
import sys
from importlib import import_module
from typing import Any

from recbole_hllm.allocator import keep_freed_memory
from recbole_hllm.doors import Door
from recbole_hllm.errors import ConfigError, UserError, did_you_mean
from recbole_hllm.pipes import outlive_readers

VERBS = Door(
    "verb",
    {
        "run": "recbole_hllm.verbs.run",
        "compare": "recbole_hllm.verbs.compare",
        "search": "recbole_hllm.verbs.search",
        "stages": "recbole_hllm.verbs.stages",
        "plan": "recbole_hllm.verbs.plan",
        "describe": "recbole_hllm.verbs.describe",
        "evaluate": "recbole_hllm.verbs.evaluate",
        "report": "recbole_hllm.verbs.report",
        "reproduce": "recbole_hllm.verbs.reproduce",
        "export": "recbole_hllm.verbs.export",
        "index": "recbole_hllm.verbs.index",
        "recommend": "recbole_hllm.verbs.recommend",
        "refresh": "recbole_hllm.verbs.refresh",
        "serve": "recbole_hllm.verbs.serve",
        "convert": "recbole_hllm.verbs.convert",
        "help": "recbole_hllm.verbs.help",
    },
    group="recbole_hllm.verbs",
)
# What a line without a verb asks for.
_BY_KEYS = "recbole_hllm.verbs.by_keys"
# What several processes, which torchrun or deepspeed starts, do together.
_OF_SEVERAL = ("run", "evaluate", "stages", "help")
_HELP = ("--help", "-h")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv: arguments, ``sys.argv[1:]`` by default.

    Returns:
        Exit code: 0; 1 if a row of a table failed; 2 for an error that is the user's to fix.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if _is_one_of_several():  # torch warns of a process that is gone, by its own stack, and of weights without gradient
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    of_launcher = f"--local_rank={os.environ.get('LOCAL_RANK')}"  # deepspeed adds it, and it is no key
    words = [word for word in (sys.argv[1:] if argv is None else argv) if word != of_launcher]
    outlive_readers()
    try:
        keep_freed_memory()
        if not words or any(word in _HELP for word in words):
            words = ["help", *(word for word in words if word not in _HELP)]
        if words[0].startswith("-"):
            return import_module(_BY_KEYS).main(words)
        return _verb(words.pop(0)).main(words)
    except (UserError, KeyboardInterrupt) as error:
        ended = _processes().tell(error) if _is_one_of_several() else None
        if ended is None:
            print("stopped" if isinstance(error, KeyboardInterrupt) else f"error: {error}", file=sys.stderr)
        return ended.code if ended else 130 if isinstance(error, KeyboardInterrupt) else 2
    finally:
        if _is_one_of_several():
            _processes().end()


def _is_one_of_several() -> bool:
    """Whether torchrun or deepspeed has started others, too; torch is not loaded to know it."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "1")


def _processes() -> Any:
    return import_module("recbole_hllm.processes")


def _verb(word: str) -> Any:
    if word not in VERBS:
        raise ConfigError(
            f"'{word}' is not a verb ({', '.join(VERBS)}) and belongs to no key: write --key=value (several words in "
            f"quotes){did_you_mean(word, VERBS)}"
        )
    if word not in _OF_SEVERAL and _is_one_of_several():
        _processes().refuse_several(word, f"{', '.join(_OF_SEVERAL[:-1])} may have several processes")
    return VERBS.load(word)


if __name__ == "__main__":
    raise SystemExit(main())
