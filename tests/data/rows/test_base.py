"""What each kind of row says of itself, and which rows its parts have."""

from collections import defaultdict

import pytest
import torch

from recbole_hllm.data.rows.columns import TARGET_ITEMS
from recbole_hllm.data.rows.dataset import SequenceDataset
from recbole_hllm.data.rows.interaction import InteractionRows
from recbole_hllm.data.rows.labelled import LabelledRows
from recbole_hllm.data.rows.labelled_dataset import LabelledDataset
from recbole_hllm.data.rows.last import LastRows
from recbole_hllm.data.rows.prefix import PrefixRows
from recbole_hllm.data.rows.split import LabelledSplitRows, SplitRows
from recbole_hllm.data.rows.window import WindowRows

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # RecBole's
KINDS = [WindowRows, PrefixRows, LastRows, SplitRows, InteractionRows, LabelledRows, LabelledSplitRows]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_kind_says_of_itself(kind):
    labelled = kind in (LabelledRows, LabelledSplitRows)
    assert kind.labelled is labelled and kind.data_set is (LabelledDataset if labelled else SequenceDataset)
    assert kind.reads_history is (kind is not InteractionRows)
    assert kind.longer_in_evaluation is (kind is WindowRows)
    for weight in (0, 0.5):
        keys = defaultdict(lambda: None, loss_lambda=weight)
        assert kind.draws_of_its_own(keys) is (kind is WindowRows or labelled and weight > 0)
        assert not WindowRows.draws_of_its_own(defaultdict(lambda: None, negatives="catalogue"))


PARTS = {
    "HLLM": (WindowRows, PrefixRows), "SASRec": (PrefixRows, PrefixRows), "E4SRec": (PrefixRows, PrefixRows),
    "LEARN": (SplitRows, PrefixRows), "BPR": (InteractionRows, InteractionRows),
    "LEARNScorer": (SplitRows, LabelledSplitRows), "DIN": (LabelledRows, LabelledRows),
}  # fmt: skip


@pytest.mark.parametrize("model", PARTS)
def test_rows_of_the_parts(write_dataset, built, tmp_path, random_rows, model):
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
    write_dataset(tmp_path, "toy", random_rows(rated=True), header=header)
    keys = {"training_rows": "user"} if model == "E4SRec" else {}
    whole, train, *evaluated = built(model, **keys)
    trained_on, tested_on = PARTS[model]
    assert type(train.rows) is trained_on and [type(part.rows) for part in evaluated] == [tested_on] * 2
    assert (whole.config.spec.rows is LastRows) is (model == "E4SRec")
    assert train.rows.name == ("prefix" if model == "E4SRec" else trained_on.name)
    rows = [*(part[[0]] for part in (train, *evaluated)), whole.latest_rows(whole.latest_sequences()[1])]
    fields = (whole.uid_field, whole.iid_field, TARGET_ITEMS)
    found = {some[field].dtype for some in rows for field in fields if field in some}
    assert found == {torch.int64}  # as RecBole's are, however they are kept
