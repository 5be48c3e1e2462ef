"""Any Parquet files: columns are named by options.

usage: recbole-hllm convert parquet FILE_OR_FOLDER... --user=NAME --item=NAME --time=NAME --to=dataset/NAME
           [--rating=NAME] [--keep=NAME[:TYPE],...] [--items=FILE --texts=NAME[:TYPE],...] [--items_id=NAME]

  FILE_OR_FOLDER            a folder stands for the .parquet files in it, in the order of their names
  --user, --item, --time    columns of the interactions (user_id, item_id, timestamp); ids are texts or whole numbers,
                            times numbers, time stamps or dates
  --rating=stars            a column that becomes rating
  --keep=label:float        columns that are written under their own names, as token, token_seq or float (token)
  --items=FILE              the file or folder with the texts of the items
  --texts=title,brand:token its columns that are written (token_seq); texts of a list are joined by blanks
  --items_id=asin           the column of the ids in it, where it is not that of --item
"""

from recbole_hllm.data.raw import named
from recbole_hllm.data.raw.converters import Conversion, Raw
from recbole_hllm.data.raw.parquet_files import parquet_blocks

OPTIONS = named.OPTIONS


def conversion(raw: Raw) -> Conversion:
    """Interactions, and texts where they are named."""
    return named.conversion(
        raw, ".parquet", lambda file, wanted, report: parquet_blocks(file, wanted, report, raw.progress)
    )
