"""What the log of a training says, and what it warns of."""

import json
import logging

import pytest
import torch
from conftest import small_params
from test_distributed import together

from restok.config import Optimizer
from restok.distributed import own_share
from restok.metrics.codebook import code_counts, codebook_metrics
from restok.training.log import KEPT, LASTING, LONG, CodebookUse, Tally, Watch
from restok.training.optim import Updater
from restok.training.tokenizer import train_tokenizer

CPU = torch.device("cpu")
SCHEDULE = Optimizer(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=4, betas=(0.9, 0.95), weight_decay=0.1)
LOSSES = {"mse", "perceptual", "codebook", "commitment", "vf_encoder", "vf_decoder", "gan", "discriminator"}
OF_THE_MACHINE = {"time", "steps_per_second", "images_per_second", "data_seconds", "memory_gb"}


def updater(clip=1.0, precision="fp32"):
    layer = torch.nn.Linear(1, 1, bias=False)
    return layer, Updater([layer], SCHEDULE, clip, precision, total=14)


# What a row says.

@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_the_norm_is_that_of_the_gradients_before_they_are_clipped(clip):
    layer, update = updater(clip)
    for step, factor in enumerate((3.0, 5.0)):
        update.backward(factor * layer.weight.sum())
        update.step(step)
    assert update.measured("_x") == pytest.approx({"learning_rate_x": 0.5, "gradient_norm_x": 4.0})    # the last, the mean
    assert update.measured() == {}                                      # no step since


def test_steps_that_the_loss_scaler_skips_are_counted_and_have_no_norm():
    layer, update = updater(precision="fp16")
    for step, factor in enumerate((3.0, float("inf"), 5.0, float("nan"))):
        before = layer.weight.item()
        update.backward(factor * layer.weight.sum())
        update.step(step)
        assert (layer.weight.item() == before) == (step % 2 == 1)
    assert update.measured() == pytest.approx({"learning_rate": 1.0, "gradient_norm": 4.0, "loss_scale": 2.0**14,
                                               "skipped_share": 0.5})
    update.backward(float("inf") * layer.weight.sum())
    update.step(4)
    assert "gradient_norm" not in update.measured()                     # rather than one that is not finite


def test_use_of_the_codebook_is_that_of_equation_5_and_starts_anew_with_each_row():
    levels, rng = (1, 1, 2), torch.Generator().manual_seed(0)
    batches, use = torch.randint(8, (3, 5, 4), generator=rng), CodebookUse(8, levels, CPU)
    for codes in batches[:2]:
        use.add(codes)
    expected = codebook_metrics(code_counts(batches[:2].flatten(0, 1), 8, levels), levels)
    row = use.measured()
    assert row["codebook_tokens"] == 40 and row["codebook_dead"] == expected["dead"]
    for name, of in (("use", "usage"), ("entropy", "entropy")):
        assert [row[f"codebook_{name}{at}"] for at in ("", "_1", "_2", "_3")] == [
            expected[of], *(level[of] for level in expected["levels"])]
    use.add(batches[2])
    assert use.measured()["codebook_tokens"] == 20


def test_several_processes_count_together():
    codes = torch.arange(8).view(4, 2)

    def work():
        use, tally = CodebookUse(8, (1, 1), CPU), Tally(CPU, 0, 4)
        use.add(codes[slice(*own_share().bounds(4))])
        tally.add({"mse": torch.tensor(float(own_share().part))})
        tally.waited = 0.5 - own_share().part
        return tally.row(1, use.measured)

    for row in together(work):
        assert (row["codebook_tokens"], row["codebook_use"], row["codebook_use_1"]) == (8, 1.0, 0.5)
        assert (row["mse"], row["data_seconds"]) == (0.5, 0.5)          # the mean, and the most


def test_a_loss_that_starts_between_two_rows_is_a_mean_over_its_own_steps():
    tally = Tally(CPU, 10, 4)
    for losses in ({"mse": 1.0}, {"mse": 2.0, "gan": 5.0}):
        tally.add({name: torch.tensor(value) for name, value in losses.items()})
    row = tally.row(12, dict)
    assert (row["step"], row["mse"], row["gan"]) == (12, 1.5, 5.0)
    assert row["images_per_second"] == pytest.approx(4 * row["steps_per_second"], rel=0.01) and row["memory_gb"] > 0


def test_rows_are_few_flat_and_finite(digits, classifier, tmp_path):
    """The discriminator's begin with it. Every row has its own, those that a save gives cause to included."""
    params = small_params("objective.discriminator.start=4", "objective.gan=0.1", "tokenizer_training.batch_size=4",
                          "tokenizer_training.checkpoints={only: 8}", "tokenizer_training.save_every=3",
                          "tokenizer_training.log_every=4", "tokenizer_training.optimizer.warmup_steps=2")
    train_tokenizer(params, "only", digits, classifier, None, tmp_path / "run", tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 4, 6, 8]
    update = {"learning_rate", "gradient_norm"}
    levels = {f"codebook_{name}_{level}" for name in ("use", "entropy") for level in range(1, 6)}
    codebook = {"codebook_tokens", "codebook_dead", "codebook_use", "codebook_entropy"} | levels
    adversary = {"gan", "discriminator"} | {f"{key}_discriminator" for key in update}
    always = {"step"} | (LOSSES - adversary) | update | codebook | OF_THE_MACHINE
    assert rows[0].keys() == rows[1].keys() == always and rows[2].keys() == rows[3].keys() == always | adversary
    assert [row["codebook_tokens"] for row in rows] == [steps * 4 * 16 for steps in (3, 1, 2, 2)]
    assert all(isinstance(value, int | float) and abs(value) < float("inf") for row in rows for value in row.values())
    assert json.loads((tmp_path / "out/metrics.json").read_text())["last"] == rows[-1]


def test_nothing_that_is_measured_is_read_before_there_is_a_row(monkeypatch):
    """On a GPU, reading waits for it."""
    layer, update = updater()
    tally, use, read = Tally(CPU, 0, 4), CodebookUse(8, (1, 1), CPU), []
    for name in ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__"):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda *a, original=original, **b: (read.append(1), original(*a, **b))[1])
    use.add(torch.tensor([[1, 2]]))
    update.backward(layer.weight.sum())
    update.measure(update.clipped())
    tally.add({"mse": torch.ones(())})
    assert read == []
    tally.row(1, lambda: update.measured() | use.measured())
    assert read != []


# What it warns of.

def rows(*changes, **everywhere):
    """One row every 10 steps, all well but for the changes."""
    well = {"images_per_second": 100.0, "steps_per_second": 10.0, "data_seconds": 0.01, "discriminator": 1.5, "gan": 0.1,
            "codebook_use": 0.9, "codebook_dead": 100, "codebook_tokens": 10_000, "loss_scale": 65536.0}
    return [well | {"step": 10 * number} | everywhere | change for number, change in enumerate(changes, 1)]


def warnings(given, warmup=20):
    """How often it warned of something after each row, and the words."""
    watch = Watch(warmup)
    seen = [watch.see(row) for row in given]
    return [len(new) for new in seen], " ".join(text for new in seen for text in new)


WELL, SLOW, LATE = {}, {"images_per_second": 49.0, "steps_per_second": 4.9}, {"data_seconds": 0.06}
DEAD = {"codebook_use": 0.09, "codebook_dead": 910}
WINS = [{"discriminator": 0.05, "gan": 0.1 * number} for number in range(LONG)]


@pytest.mark.parametrize(("given", "expected", "words"), [
    (rows(DEAD, DEAD, DEAD, DEAD, WELL, DEAD), [0, 0, 1, 0, 0, 1], "tokenizer.revive_after"),
    (rows(*WINS, WELL, *WINS), [0] * (LONG - 1) + [1] + [0] * LONG + [1], "objective.discriminator"),
    (rows(WELL, {"loss_scale": 1.0}, {"loss_scale": 0.5}, WELL), [0, 1, 0, 0], "precision bf16"),
    (rows(WELL, {"loss_scale_discriminator": 0.25}), [0, 1], "lower learning rate"),
    (rows(*[WELL] * 5, *[SLOW] * 4), [0] * (4 + LASTING) + [1, 0], "halved"),
    (rows(WELL, *[LATE] * 4, WELL, *[LATE] * 3), [0] * LASTING + [1, 0, 0, 0, 0, 1], "data.workers")])
def test_each_warning_names_its_cure_once_until_it_is_well_again(given, expected, words):
    assert warnings(given)[0] == expected and words in warnings(given)[1]


@pytest.mark.parametrize("given", [
    rows(*[WELL] * 20),
    rows(*[WELL] * 20, discriminator=0.05),                                    # gan does not grow
    rows(*WINS[:-1], WELL, *WINS[:-1]),                                        # not for long
    rows(*({"gan": 0.1 * number} for number in range(20))),                    # it grows, but nobody wins
    rows(*[DEAD] * 5, codebook_tokens=50),                                     # too few tokens to use more
    rows(*[WELL] * 5, SLOW, SLOW, WELL, SLOW, SLOW),                           # now and then
    rows(*[WELL] * 5, *[SLOW | {"another_loss": 1.0}] * 5),                    # steps that do more
    rows(*[SLOW] * 9),
    rows(WELL, LATE, LATE, WELL, LATE, LATE),
    [{key: row[key] for key in row if "codebook" not in key} for row in rows(*[WELL] * 9)]])                  # a generator's
def test_what_is_well_or_short_is_no_cause_to_warn(given):
    assert sum(warnings(given)[0]) == 0, warnings(given)[1]


def test_a_watch_does_not_keep_all_rows():
    watch = Watch(0)
    for row in rows(*[WELL] * (KEPT + 50)):
        watch.see(row)
    assert len(watch.rows) == KEPT


def test_a_training_says_what_is_wrong(digits, classifier, tmp_path, monkeypatch, caplog):
    add = CodebookUse.add
    monkeypatch.setattr(CodebookUse, "add", lambda self, codes: add(self, codes * 0))
    params = small_params("tokenizer_training.batch_size=8", "tokenizer_training.checkpoints={only: 8}",
                          "tokenizer_training.log_every=2", "tokenizer_training.optimizer.warmup_steps=3")
    with caplog.at_level(logging.WARNING, "restok"):
        train_tokenizer(params, "only", digits, classifier, None, tmp_path / "run", tmp_path / "out")
    assert caplog.text.count("tokenizer only 4/8: the codebook collapses") == caplog.text.count("collapses") == 1
