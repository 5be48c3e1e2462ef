"""A line without a verb: its keys say which it is, run where they say nothing."""

from recbole_hllm.cli import VERBS
from recbole_hllm.verbs.line import CommandLine


def main(words: list[str]) -> int:
    """What the verb does."""
    return VERBS.load(CommandLine(words).asked).main(words)
