"""Any files of JSON lines: names are given by options.

usage: recbole-hllm convert jsonl FILE... --user=NAME --item=NAME --time=NAME --to=dataset/NAME
           [--rating=NAME] [--keep=NAME[:TYPE],...] [--items=FILE --texts=NAME[:TYPE],...] [--items_id=NAME]

  FILE                      plain, .gz or .zst, one JSON object per line; a folder stands for the .jsonl files in it
  --user, --item, --time    names of the interactions (user_id, item_id, timestamp); ids are texts or whole numbers
  --rating=stars            a name that becomes rating
  --keep=label:float        what is written under its own name, as token, token_seq or float (token)
  --items=FILE              the file with the texts of the items (several: separated by commas)
  --texts=title,brand:token what of it is written (token_seq); texts of a list are joined by blanks
  --items_id=asin           the name of the ids in it, where it is not that of --item
"""

from collections.abc import Iterator

from recbole_hllm.data.raw import named
from recbole_hllm.data.raw.blocks import Block, blocks_of
from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.records import id_of, number_of, records, text_of
from recbole_hllm.data.raw.report import Report

OPTIONS = named.OPTIONS
_READ = {"user_id": id_of, "item_id": id_of, "rating": number_of, "timestamp": number_of}


def conversion(raw: Raw) -> Conversion:
    """Interactions, and texts where they are named."""

    def read(file: RawFile, wanted: dict[str, str], report: Report) -> Iterator[Block]:
        readers = [(name, _READ.get(column, text_of)) for name, column in wanted.items()]
        rows = (
            (line, [reader(record.get(name)) for name, reader in readers])
            for line, record in records(file, report, raw.progress)
        )
        return blocks_of(file.name, list(wanted.values()), rows)

    return named.conversion(raw, ".jsonl", read)
