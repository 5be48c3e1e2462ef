"""MovieLens: 100K, 1M, 10M, 20M, 25M, 32M, latest and latest-small.

usage: recbole-hllm convert movielens FOLDER_OR_ZIP --to=dataset/ml-1m

FOLDER_OR_ZIP is the download, packed or not. Which release it is shows in its files:

  ml-100k                   u.data (user, item, rating, timestamp, separated by tabs), u.item (separated by |, Latin-1,
                            a 0 or 1 for each of the 19 genres of u.genre)
  ml-1m, ml-10m             ratings.dat, movies.dat and, in 10M, tags.dat: cells separated by ::; 1M is Latin-1, 10M
                            UTF-8
  ml-20m and later          ratings.csv, movies.csv, tags.csv: CSV with a header

Written are user_id, item_id, rating and timestamp (Unix seconds), and of a movie its title with the year, its genres
separated by commas and, where the release has tags, all its different tags, the most frequent first. Some tags
are later than the ratings of the test, and leak information to a model that reads them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from recbole_hllm.data.raw.blocks import Block, blocks_of, texts
from recbole_hllm.data.raw.converters import Conversion, Raw, Table
from recbole_hllm.data.raw.delimited import Delimited
from recbole_hllm.data.raw.files import RawFile
from recbole_hllm.data.raw.report import Report
from recbole_hllm.data.raw.tables import delimited_table, is_named

_INTERACTIONS = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
_ITEMS = {"item_id": "token", "title": "token_seq", "genres": "token_seq"}
_CSV = {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "timestamp"}
_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_U_ITEM = ("item_id", "title", "released", "video", "url", *_GENRES)
_NO_GENRE = "(no genres listed)"


def conversion(raw: Raw) -> Conversion:
    """Ratings, and titles, genres and tags."""
    file = raw.interactions(
        "MovieLens' ratings (u.data, ratings.dat or ratings.csv)", is_named(r"u\.data|ratings\.(dat|csv)")
    )
    names = list(_INTERACTIONS)
    if file.stem == "u.data":
        inter = _ratings(raw, file, columns=names, separator="\t", quoted=False)
    elif file.stem.endswith(".dat"):
        inter = _ratings(raw, file, columns=names, separator="::", quoted=False)
    else:
        inter = delimited_table(raw, file, _CSV, _INTERACTIONS)
    return Conversion({"": inter}, _items(raw))


def _ratings(raw: Raw, file: RawFile, **form: object) -> Table:
    return delimited_table(raw, file, {name: name for name in _INTERACTIONS}, _INTERACTIONS, **form)


def _items(raw: Raw) -> Table | None:
    file = raw.items("MovieLens' movies (u.item, movies.dat or movies.csv)", is_named(r"u\.item|movies\.(dat|csv)"))
    if file is None:
        return None
    if file.stem == "u.item":
        return Table(_ITEMS, [file], lambda report: _of_flags(raw, file, report))
    tags = raw.matching(is_named(rf"tags\.{file.stem.rpartition('.')[2]}"))
    kinds = _ITEMS | ({"tags": "token_seq"} if tags else {})
    return Table(kinds, [file, *tags], lambda report: _with_tags(raw, file, tags, report))


def _of_flags(raw: Raw, file: RawFile, report: Report) -> Iterator[Block]:
    """u.item: genres are columns of 0 and 1."""
    cells = Delimited(file, _U_ITEM, "|", "latin-1", quoted=False, progress=raw.progress)
    for block in cells.blocks({name: name for name in _U_ITEM if name not in ("released", "video", "url")}, report):
        flags = zip(*(block.columns[name].to_pylist() for name in _GENRES), strict=True)
        genres = [", ".join(name for name, flag in zip(_GENRES, row, strict=True) if flag == "1") for row in flags]
        yield block.with_column("genres", texts(genres))


def _with_tags(raw: Raw, file: RawFile, tag_files: list[RawFile], report: Report) -> Iterator[Block]:
    tags = _tags(raw, tag_files, report)
    for block in _movies(raw, file, report):
        genres = pc.replace_substring(block.columns["genres"], "|", ", ")
        genres = pc.if_else(pc.equal(genres, _NO_GENRE), pa.scalar(None, pa.string()), genres)
        found = [", ".join(tag for tag, _ in tags[item].most_common()) for item in block.columns["item_id"].to_pylist()]
        yield block.with_column("genres", genres).with_column("tags", texts(found))


def _movies(raw: Raw, file: RawFile, report: Report) -> Iterator[Block]:
    if file.stem.endswith(".csv"):
        wanted = {"movieId": "item_id", "title": "title", "genres": "genres"}
        return Delimited(file, progress=raw.progress).blocks(wanted, report)
    return blocks_of(file.name, list(_ITEMS), _of_dat(raw, file, report))


def _of_dat(raw: Raw, file: RawFile, report: Report) -> Iterator[tuple[int, list[str]]]:
    """movies.dat: a title may hold ::, the cells before and after it do not."""
    for number, text in _texts(raw, file):
        cells = text.split("::")
        if len(cells) < 3:
            report.refuse(file.name, number, f"{len(cells)} columns, expected are 3 (item, title, genres)")
            continue
        report.rows += 1
        yield number, [cells[0], "::".join(cells[1:-1]), cells[-1]]


def _tags(raw: Raw, files: list[RawFile], report: Report) -> defaultdict[str, Counter[str]]:
    """Item -> how often each of its tags was given, in the order in which they were first given."""
    tags: defaultdict[str, Counter[str]] = defaultdict(Counter)
    lines = Report(report.strict)
    for file in files:
        if file.stem.endswith(".csv"):
            blocks = Delimited(file, progress=raw.progress).blocks({"movieId": "item_id", "tag": "tag"}, lines)
            pairs = (
                pair for block in blocks for pair in zip(*(c.to_pylist() for c in block.columns.values()), strict=True)
            )
        else:
            rows = (text.split("::") for _, text in _texts(raw, file))
            pairs = ((row[1], "::".join(row[2:-1])) for row in rows if len(row) > 3)
        for item, tag in pairs:
            if tag and tag.strip():
                tags[item][" ".join(tag.split())] += 1
    report.malformed += lines.malformed
    report.shown += lines.shown
    return tags


def _texts(raw: Raw, file: RawFile) -> Iterator[tuple[int, str]]:
    """Lines of a .dat file that are not blank, of UTF-8 where they can be."""
    for first, data in file.lines(raw.progress):
        for number, line in enumerate(data.split(b"\n")[:-1], first):
            if line.strip():
                try:
                    yield number, line.decode("utf-8").rstrip("\r")
                except UnicodeDecodeError:
                    yield number, line.decode("latin-1").rstrip("\r")
