"""What data costs from raw files to batches and rankings: seconds, rows a second and memory, up to Pixel8M's size.

    PYTHONPATH=. python benchmarks/data_scale.py --size pixel8m --sizes 100k,1m,10m --formats text,parquet
        [--real FOLDER/NAME] [--parts loading,conversion,stock,evaluation,training] [--json out.json] [--key=value ...]

Synthetic data of the named sizes is written once (``synthetic.py``) and then read: for the first time, from the cache,
batch by batch; converted from PixelRec's raw files; ranked by full-sort evaluation. Beside it stands stock RecBole, on
``--real`` or on a small size. Every measurement is a process of its own. The files are read once before, so that they
are in the page cache. Seconds count from after the imports; memory includes them, and they are named. Further keys are
those of property files, for the loads of synthetic data.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scale_report import headline, tables
from synthetic import SIZES, folder_of

HERE = Path(__file__).parent
PROGRAM = HERE.parent / "run_recbole_hllm.py"
TRAINING_KEYS = HERE.parent / "properties" / "benchmark" / "data_scale.yaml"
ROWS = {"window": "HLLM", "prefix": "SASRec"}  # kind of training rows -> a model that trains on them
STOCK_LENGTH = 50  # history beside stock RecBole: its default


class Measurements:
    """What was measured, and why something was not.

    Attributes:
        found: JSON-like results by name.
        notes: reasons by name.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.given = arguments
        self.found: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        self.environment = {
            **os.environ, "OMP_NUM_THREADS": str(arguments.threads),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH")])),
        }  # fmt: skip

    def process(self, name: str, *command: Any) -> tuple[str, dict[str, float]] | None:
        """Output of a process, and its seconds and peak memory; None, and a note, if it failed."""
        print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            words = [sys.executable, *map(str, command)]
            child = subprocess.Popen(words, stdout=output, stderr=errors, env=self.environment)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            cost = {"seconds": time.perf_counter() - start, "peak_gb": used.ru_maxrss * 1024 / 1e9}
            output.seek(0), errors.seek(0)
            if child.returncode == 0:
                return output.read(), cost
            lines = errors.read().strip().splitlines() or [f"exit code {child.returncode}"]
            self.notes[name] = lines[-1]
        return None

    def load(self, name: str, data: Path, dataset: str, model: str, *words: str) -> dict[str, Any] | None:
        """What ``load_data.py`` prints."""
        command = [HERE / "load_data.py", "--data_path", data, "--dataset", dataset, "--model", model]
        done = self.process(name, *command, *words)
        return done and json.loads(done[0].splitlines()[-1])

    def result(self) -> dict[str, Any]:
        """The headline numbers, everything found, and what it was found with."""
        numbers = headline(self.found, self.given.size)
        why = "not measured: see the other notes, or it was not asked for"
        notes = {**self.notes, **{name: why for name, number in numbers.items() if number is None}}
        return {**numbers, **self.found, **about(self.given), "notes": notes}


def main() -> None:
    arguments = parse()
    arguments.data.mkdir(parents=True, exist_ok=True)
    measured = Measurements(arguments)
    for part in arguments.parts:
        measured.found[part] = PARTS[part](measured)
        result = measured.result()
        if arguments.json:  # after each part: the last ones are long
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(tables(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    listed = lambda text: [word for word in text.split(",") if word]  # noqa: E731
    parser.add_argument("--size", choices=SIZES, default="10m", help="the size that the headline numbers are of")
    parser.add_argument("--sizes", type=listed, default=["100k", "1m"], help="others, for the growth")
    parser.add_argument("--formats", type=listed, default=["text", "parquet"])
    parser.add_argument("--order", choices=("shuffled", "users"), default="shuffled", help="of the lines of files")
    parser.add_argument("--data", type=Path, default=Path("build/data_scale"), help="folder of synthetic data, kept")
    parser.add_argument("--real", type=Path, help="FOLDER/NAME of data to read beside stock RecBole; by default 1m")
    parser.add_argument("--length", type=int, default=10, help="of histories")
    parser.add_argument("--batch", type=int, default=512, help="rows of a training batch")
    parser.add_argument("--epoch", type=float, default=10, help="seconds of batches")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=listed, default=[*PARTS][:-1], help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    arguments, arguments.keys = parser.parse_known_args()
    known = {"sizes": SIZES, "formats": ("text", "parquet"), "parts": PARTS}
    for name, there in known.items():
        if unknown := [word for word in getattr(arguments, name) if word not in there]:
            parser.error(f"--{name}: {', '.join(unknown)} unknown; there are {', '.join(there)}")
    return arguments


# ---- loading ----


def loading(measured: Measurements) -> list[dict[str, Any]]:
    """Loads of all sizes, the smallest first."""
    given = measured.given
    sizes = sorted({*given.sizes, given.size}, key=lambda size: SIZES[size].interactions)
    return [load for size in sizes for load in loads(measured, size)]


def loads(measured: Measurements, size: str) -> list[dict[str, Any]]:
    """The first load and the cached ones of a size, in each format."""
    arguments, found = measured.given, []
    for format in arguments.formats:
        if not make(measured, size, format):
            continue
        folder = folder_of(arguments.data, size, format, arguments.order)
        with tempfile.TemporaryDirectory(dir=arguments.data, prefix="cache-") as cache:
            words = [f"--MAX_ITEM_LIST_LENGTH={arguments.length}", f"--train_batch_size={arguments.batch}"]
            words += arguments.keys
            for first, rows in ((True, "window"), (False, "window"), (False, "prefix")):
                warm(folder)
                name = f"{size}, {format}: {'first' if first else 'cached'} load, {rows} rows"
                if not first and not any(Path(cache).iterdir()):
                    measured.notes[name] = "nothing was kept in cache_dir, as of small files: it was a first load again"
                epoch = 0 if first else arguments.epoch
                more = f"--cache_dir={cache}", f"--epoch={epoch}"
                load = measured.load(name, folder.parent, folder.name, ROWS[rows], *words, *more)
                if load:
                    about = {"size": size, "format": format, "first": first or name in measured.notes}
                    found.append({**about, "row_kind": rows, "interactions": SIZES[size].interactions, **load})
    return found


def make(measured: Measurements, size: str, format: str) -> bool:
    """Writes the data if it is not there."""
    given = measured.given
    words = ["--size", size, "--formats", format, "--order", given.order, "--threads", given.threads]
    return bool(measured.process(f"{size}, {format}: data", HERE / "synthetic.py", *words, "--data", given.data))


def warm(folder: Path) -> None:
    """Reads files once, so that they are in the page cache as far as it reaches."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            with file.open("rb", buffering=0) as opened:
                while opened.read(2**24):
                    pass


# ---- conversion ----


def conversion(measured: Measurements) -> dict[str, float] | None:
    """From PixelRec's raw files to atomic ones."""
    given = measured.given
    size = given.size
    if not make(measured, size, "raw"):
        return None
    source = folder_of(given.data, size, "raw", given.order)
    warm(source)
    with tempfile.TemporaryDirectory(dir=given.data, prefix="converted-") as folder:
        words = ["convert", "pixelrec", source / "interaction.csv", source / "item_info.csv"]
        done = measured.process("conversion", PROGRAM, *words, f"--to={folder}/{SIZES[size].name}")
    lines = SIZES[size].interactions + SIZES[size].items
    return done and {**done[1], "lines": lines, "lines_per_second": lines / done[1]["seconds"]}


# ---- stock RecBole ----


def beside_stock(measured: Measurements) -> dict[str, Any] | None:
    """Both sides on the same files: the first load and an epoch of prefix rows."""
    given = measured.given
    with tempfile.TemporaryDirectory(dir=given.data, prefix="stock-") as folder:
        if given.real:
            data, dataset = unpacked(given.real, Path(folder)), given.real.name
        else:
            size = min("1m", given.size, key=lambda name: SIZES[name].interactions)
            if not make(measured, size, "text"):
                return None
            text = folder_of(given.data, size, "text", given.order)
            data, dataset = text.parent, text.name
        words = [f"--MAX_ITEM_LIST_LENGTH={STOCK_LENGTH}", "--train_batch_size=2048", "--epoch=600"]
        warm(data / dataset)
        stock = measured.load("stock RecBole", data, dataset, "SASRec", *words, "--stock")
        here = measured.load("beside stock", data, dataset, "SASRec", *words, f"--cache_dir={folder}/cache")
    return {"dataset": dataset, "stock": stock, "here": here} if stock and here else None


def unpacked(real: Path, folder: Path) -> Path:
    """A data_path with the plain interactions of ``real``, as RecBole reads them."""
    target = folder / "data" / real.name
    target.mkdir(parents=True)
    source = real / f"{real.name}.inter"
    if source.is_file():
        shutil.copy(source, target)
    else:
        import gzip

        with gzip.open(f"{source}.gz") as packed, (target / source.name).open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    return target.parent


# ---- evaluation and training ----


def evaluation(measured: Measurements) -> dict[str, Any] | None:
    """Full-sort evaluation of given vectors beside RecBole's, a batch of users against all items (``full_sort.py``)."""
    items = SIZES[measured.given.size].items + 1
    given = {"users": 64, "items": items, "width": 64, "k": min(200, items // 2), "history": 18}
    code = f"import json, full_sort; print(json.dumps(full_sort.measure(**{given})))"
    done = measured.process("evaluation", "-c", code)
    return done and {**given, **json.loads(done[0].splitlines()[-1])}


def training(measured: Measurements) -> list[dict[str, Any] | None]:
    return [trained(measured, model) for model in ROWS.values()]


def trained(measured: Measurements, model: str) -> dict[str, Any] | None:
    """A run of a few steps as a user starts it; its folder is kept beside the data."""
    given = measured.given
    folder = folder_of(given.data, given.size, given.formats[0], given.order)
    run = given.data / "runs" / f"{given.size}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    words = [f"--model={model}", f"--dataset={folder.name}", f"--data_path={folder.parent}", f"--run_dir={run}"]
    done = measured.process(f"training {model}", PROGRAM, *words, f"--config_files={TRAINING_KEYS}")
    if not done:
        return None
    kept = {name: json.loads((run / f"{name}.json").read_text()) for name in ("metrics", "costs")}
    return {"model": model, "run_dir": str(run), **done[1], **kept}


PARTS = {
    "loading": loading,
    "conversion": conversion,
    "stock": beside_stock,
    "evaluation": evaluation,
    "training": training,
}


def about(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was run, where, and with which versions."""
    names = ("recbole-hllm", "recbole", "numpy", "pandas", "pyarrow", "torch", "transformers")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "machine": {"processor": processor, "cores": os.cpu_count(), "threads": arguments.threads, "memory_gb": memory},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }


if __name__ == "__main__":
    main()
