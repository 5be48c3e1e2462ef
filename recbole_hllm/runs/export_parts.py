"""What an export has beside what recommends: the user model as ONNX, what rounded vectors cost, and the model card."""

from pathlib import Path
from typing import Any

from recbole_hllm.runs.card_facts import Exported, Licences
from recbole_hllm.runs.model_card import model_card
from recbole_hllm.runs.quality import quality_as_written
from recbole_hllm.runs.run import Run
from recbole_hllm.serving import folder as files
from recbole_hllm.serving.onnx_model import ONNX, check_onnx, write_onnx
from recbole_hllm.serving.saving import CARD
from recbole_hllm.serving.served import UNBOUNDED, Served, ServedVectors
from recbole_hllm.storage.files import write_text

# Items of the examples of a card.
_EXAMPLES = 2


def complete(
    run: Run, served: Served, folder: Path, manifest: dict[str, Any], *, onnx: bool, licences: Licences
) -> None:
    """Adds them to a folder in which all else is written but the manifest.

    Args:
        run: from ``load_run``.
        served: what recommends, before it was written.
        folder: of the export.
        manifest: that it will have; ``quality`` is added where the vectors are rounded.
        onnx: write the user model as ONNX.
        licences: for the card.

    Raises:
        ModelError: the model is not written as ONNX, or the file computes something else.
    """
    described = manifest["served"]
    written, dtype = files.read_served(folder, described), files.dtype_of(described)
    assert not isinstance(written, files.ServedPairs | files.ServedTable), "a part alone is not exported"
    if onnx:
        check_onnx(written, manifest["model"])
        assert isinstance(written, ServedVectors), "check_onnx lets no other through"
        write_onnx(written, folder / ONNX)
    if dtype != "float32":
        metrics = quality_as_written(run, served, written)
        size = sum(path.stat().st_size for path in folder.rglob(files.VECTORS))
        manifest["quality"] = None if metrics is None else {"dtype": dtype, "bytes": size, **metrics}
    template = manifest["template"]
    exported = Exported(
        ids=files.read_items(folder)[0][:_EXAMPLES],
        reads_times=written.reads_times,
        reads_all=written.longest == UNBOUNDED,
        text_keys=template["text_keys"] if template else None,
        has_histories=(folder / files.HISTORIES).is_file(),
        quality=manifest.get("quality"),
    )
    write_text(folder / CARD, model_card(run.config, run.run_dir, exported, licences))
