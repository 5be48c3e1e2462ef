"""Writes an export with the items of today: only texts that are new are encoded.

usage: recbole-hllm refresh FOLDER ITEMS NEW_FOLDER [--remove] [--device NAME]

  FOLDER                    that recbole-hllm export wrote; it stays as it is
  ITEMS                     a data set's .item file, or items.jsonl, a line for each:
                            {"id": "7", "fields": {"title": "A title"}}
  NEW_FOLDER                of the new export: a new or empty one
  --remove                  items that are not in the file are recommended no more; without it they stay
  --device cpu              torch's name of where texts are encoded
"""

from recbole_hllm.verbs.options import read_options

_USAGE = "refresh FOLDER ITEMS NEW_FOLDER"


def main(words: list[str]) -> int:
    """One new export, and what was done."""
    (export, items, folder), options = read_options(words, _USAGE, 3, {"remove": False, "device": "cpu"})
    from recbole_hllm.serving.refresh import refresh

    print(refresh(export, items, folder, **options).in_words())
    return 0
