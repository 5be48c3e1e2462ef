"""Any CSV files: columns are named by options.

usage: recbole-hllm convert csv FILE... --user=NAME --item=NAME --time=NAME --to=dataset/NAME
           [--rating=NAME] [--keep=NAME[:TYPE],...] [--items=FILE --texts=NAME[:TYPE],...] [--items_id=NAME]
           [--separator=,] [--unquoted] [--encoding=utf-8] [--columns=NAME,...]

  FILE                      plain, .gz or .zst; a folder stands for the .csv files in it. A cell in quotation marks may
                            hold separators and line breaks, and "" for one quotation mark
  --user, --item, --time    columns of the interactions (user_id, item_id, timestamp)
  --rating=stars            a column that becomes rating
  --keep=label:float        columns that are written under their own names, as token, token_seq or float (token)
  --items=FILE              the file with the texts of the items (several: separated by commas)
  --texts=title,brand:token its columns that are written (token_seq)
  --items_id=asin           the column of the ids in it, where it is not that of --item
  --separator=tab           one character or several; tab stands for a tab
  --unquoted                a quotation mark is a character as any other, as in RecBole's atomic files
  --encoding=latin-1        of all files
  --columns=user,item,time  names for the columns of interactions without a header
"""

from collections.abc import Iterator

from recbole_hllm.data.raw import named
from recbole_hllm.data.raw.blocks import Block
from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.delimited import Delimited
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.report import Report
from recbole_hllm.errors import ConfigError

OPTIONS: dict[str, str | bool] = {
    **named.OPTIONS, "separator": ",", "unquoted": False, "encoding": "utf-8", "columns": "",
}  # fmt: skip


def conversion(raw: Raw) -> Conversion:
    """Interactions, and texts where they are named."""
    separator = {"tab": "\t", "\\t": "\t"}.get(raw.text("separator"), raw.text("separator"))
    if not separator or '"' in separator or "\n" in separator:
        raise ConfigError("--separator: must be one character or several, no quotation mark and no line break")

    def read(file: RawFile, wanted: dict[str, str], report: Report) -> Iterator[Block]:
        columns = None if file in raw.item_files else raw.names("columns") or None
        quoted = not raw.options["unquoted"]
        cells = Delimited(file, columns, separator, raw.text("encoding"), quoted, progress=raw.progress)
        return cells.blocks(wanted, report)

    return named.conversion(raw, ".csv", read)
