"""Converts raw files of a public data set, or of your own, to the tables that a run reads.

usage: recbole-hllm convert FORMAT SOURCE... --to=dataset/NAME [--option=value ...]

  SOURCE                    downloaded files (also .gz, .zst, .zip, .tar), or a folder that holds them
  --to=dataset/NAME         the folder of the data set; writes NAME.inter, NAME.item and NAME.json: files and checksums,
                            counts, units of times, malformed lines
  --as=parquet              writes NAME.inter.parquet and NAME.item.parquet (atomic)
  --interactions=FILE, --items=FILE
                            which of several files; by default names and headers decide
  --all_items               writes items without interactions, too
  --filter=hllm_books       leaves out users and items with few interactions as HSTU and HLLM do (see amazon2014)
  --time_unit=ms            the unit of times: s, ms, us or ns (found from the values)
  --strict                  stops at the first malformed line; without it they are counted and left out
  --overwrite               replaces the files of NAME

Ids stay texts as they are. Times become Unix seconds. In a text, tabs, line breaks and runs of blanks become one blank.
All files appear under their names at the end, or none does.

convert FORMAT --help prints the page of a format:

"""

from recbole_hllm.data.raw.converters import CONVERTERS
from recbole_hllm.doors import package_of
from recbole_hllm.errors import ConfigError, did_you_mean


def main(words: list[str]) -> int:
    """One conversion, and what it counted."""
    from recbole_hllm.data.raw.conversion import convert, options_of
    from recbole_hllm.data.raw.summary import summary

    form = _format(words)
    sources, options = _split(words[1:], options_of(form))
    if not sources:
        raise ConfigError(f"convert {form}: which files? convert {form} SOURCE... --to=dataset/NAME")
    print(summary(convert(form, sources, **options)))
    return 0


def page(words: list[str]) -> str:
    """The page of the verb with the list of formats, or that of the format named."""
    if words:
        return str(CONVERTERS.load(_format(words)).__doc__)
    return f"{__doc__}" + "\n".join(f"  {form:<12} {_summary(form)}" for form in CONVERTERS) + "\n"


def _summary(form: str) -> str:
    """The first line of a converter's page; one that an installed package adds is not imported for it."""
    if form in CONVERTERS.rows:
        return str(CONVERTERS.load(form).__doc__).partition("\n")[0]
    return f"of the package {package_of(CONVERTERS.installed()[form])}"


def _format(words: list[str]) -> str:
    """The first word.

    Raises:
        ConfigError: it is no format.
    """
    if not words or words[0].startswith("-"):
        raise ConfigError(f"convert needs a format as its first word: {', '.join(CONVERTERS)}")
    if words[0] not in CONVERTERS:
        hint = did_you_mean(words[0], CONVERTERS)
        raise ConfigError(f"convert: there is no format '{words[0]}' ({', '.join(CONVERTERS)}){hint}")
    return words[0]


def _split(words: list[str], known: dict[str, str | bool]) -> tuple[list[str], dict[str, str | bool]]:
    """Sources and options: ``--name=value``, ``--name value``, and ``--name`` of a flag.

    Raises:
        ConfigError: an option without a value, or given twice.
    """
    words, sources, options = list(words), list[str](), dict[str, str | bool]()
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            sources.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name in options:
            raise ConfigError(f"--{name} is given twice")
        if isinstance(known.get(name), bool) and value in ("", "True", "False"):
            options[name] = value != "False"
        elif equals or (words and not words[0].startswith("--")):
            options[name] = value if equals else words.pop(0)
        else:
            raise ConfigError(f"--{name} needs a value: --{name}=VALUE")
    return sources, options
