"""Where the public data sets come from, for the error about a missing one.

``dataset/NAME/README.md`` of the repository says more; an installed wheel has only this.
"""

_PIXELREC = "its interaction file and the item information, linked by westlake-repl/PixelRec on GitHub"
_CONVERT = {"amazon_books": "amazon2014 FOLDER --filter=hllm_books"}
_SOURCES = {
    "pixel200k": ("Pixel200K (200,000 users, 96,282 items, 3,965,656 interactions)", _PIXELREC),
    "pixel1m": ("Pixel1M (1,001,822 users, 100,541 items, 19,886,579 interactions)", _PIXELREC),
    "pixel8m": ("Pixel8M (8,886,078 users, 407,082 items, 158,488,652 interactions)", _PIXELREC),
    "amazon_books": (
        "Amazon Books (694,898 users, 686,624 items, 10,053,086 interactions)",
        "ratings_Books.csv and meta_Books.json.gz of the Amazon product data of 2014, from "
        "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
    ),
}
_ML_100K = (
    "MovieLens-100k (943 users, 1,682 items, 100,000 interactions) comes with RecBole: "
    "install recbole again to get it back."
)


def where_to_get(dataset: str) -> str | None:
    """What a user without the files of a public data set should do, in a few lines.

    Args:
        dataset: its name, in any case.

    Returns:
        The text, or None for a data set of the user's own.
    """
    name = dataset.lower()
    if name == "ml-100k":
        return _ML_100K
    if name not in _SOURCES:
        return None
    title, files = _SOURCES[name]
    return (
        f"{title}: download {files}.\n"
        f"Then write {name}/{name}.inter and {name}/{name}.item under data_path from the folder with these files:\n"
        f"python run_recbole_hllm.py convert {_CONVERT.get(name, 'pixelrec FOLDER')} --to=dataset/{name}\n"
        f"dataset/{name}/README.md of the repository says more."
    )
