"""params/experiments.tsv: one row a run, checked when it is read, its shared stages made once."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from restok.compat import generate_with_lost_class
from restok.config.load import ConfigError, load_params
from restok.data.transforms import to_uint8
from restok.experiments import COLUMNS, ITEMS, Tree, load_sheet, load_trial, work
from restok.experiments.places import depends_on
from restok.generator.model import HAR
from restok.generator.sampling import generate
from restok.training.tokenizer import TokenizerJob

FILES = ("demo", "short", "imagenet256")
TWO_SEEDS = ["experiments.ablation_seeds=2"]
DEMO = load_sheet(ROOT / "params/demo.yaml", TWO_SEEDS)
FIRST = [trial for trial in DEMO.trials if trial.seed == DEMO.trials[0].seed]     # every row once


def read(tmp_path: Path, *rows: str, run: str = "demo"):
    """A sheet of one's own, beside the repository's parameters."""
    sheet = tmp_path / "experiments.tsv"
    sheet.write_text("\n".join(["\t".join(COLUMNS), *rows]) + "\n")
    return load_sheet(ROOT / f"params/{run}.yaml", TWO_SEEDS, sheet)


@pytest.mark.parametrize("run", FILES)
def test_the_papers_ablations_are_rows_of_every_parameter_file(run):
    sheet = load_sheet(ROOT / f"params/{run}.yaml")
    named = {n: list(dict.fromkeys(entry.name for entry in sheet.feeding(f"table{n}"))) for n in (2, 3, 4, 5, 10)}
    assert named == {2: [f"#{i}" for i in range(1, 9)], 3: ["1", "2", "4"], 4: ["none", "encoder", "decoder", "both"],
                     5: ["vanilla", "HAR, 1 NTP", "HAR, 4 NTP"], 10: ["HAR", "vanilla"]}
    assert [entry.label for entry in sheet.feeding("fig7")] == list(sheet.trials[0].params.tokenizer_training.checkpoints)


def test_table_2_changes_what_the_paper_says():
    sheet = load_sheet(ROOT / "params/imagenet256.yaml")
    settings = [(t.latent_init, len(t.levels), t.scales, t.merge_residual) for t in
             (entry.trial.params.tokenizer for entry in sheet.feeding("table2"))]
    assert settings == [("learnable", 1, 1, False), ("pooled", 8, 1, False), ("pooled", 8, 2, False), ("pooled", 8, 3, False),
                     ("pooled", 8, 4, False), ("pooled", 8, 4, True), ("residual", 8, 4, False), ("residual", 8, 4, True)]


def test_ablations_train_vanilla_autoregression_for_their_own_steps_without_guidance():
    for trial in load_sheet(ROOT / "params/imagenet256.yaml").trials:
        if trial.params.tokenizer_training.checkpoints == {"150k": 150_000}:
            assert trial.params.generator_training.steps == 250_000
            assert trial.params.tokenizer_training.total == 150_000                # annealed to its end
        if {feed.item for feed in trial.feeds} & {"table2", "table3", "table4"}:
            assert trial.labels == ["150k"] and trial.params.generator.ntp == "all"
            assert trial.params.sampling.guidance.scale == 1


def test_samples_without_guidance_are_measured_where_a_table_shows_them_and_of_no_guidance():
    tree, path = Tree("results/demo", DEMO), ROOT / "params/demo.yaml"
    made = {str(file) for file in work.results(tree, load_params(path), DEMO.trials) if file.name == "unguided.json"}
    shown = *(f"main/{label}" for label in ("250k", "500k", "750k", "1M")), "vanilla_searched.10086/750k"
    assert made == {f"results/demo/evaluation/{row}/unguided.json" for row in shown}
    assert made == {str(file) for name in ("table1", "fig7", "table10") for file in tree.inputs(ITEMS[name])
                    if file.name == "unguided.json"}
    plain = depends_on("unguided", load_params(path))
    for other in ("sampling.guidance={schedule: linear, scale: 2.0}", "guidance_search.scales=[1.5]"):
        assert depends_on("unguided", load_params(path, [other])) == plain
    for other in ("sampling.top_p=0.9", "evaluation.samples_per_class=7", "evaluation.neighbours=5", "seed=7"):
        assert depends_on("unguided", load_params(path, [other])) != plain
    guided = DEMO.by_name["guided_by_tokens.10086"]                # differs from another row by its guidance alone
    assert tree.home("unguided", guided, "150k").id == "har_ntp_4" and tree.home("generation", guided, "150k") is guided


def test_the_run_of_four_tables_is_trained_once():
    restok = DEMO.by_name["restok.10087"]
    assert {feed.item for feed in restok.feeds} >= {"table2", "table3", "table4", "table5"}
    home = Tree("results/demo", DEMO).home
    for name, stage in (("har_ntp_4", "tokenizer"), ("har_ntp_4", "reconstruction"), ("truncated", "generator"),
                        ("class_lost", "codes")):
        assert home(stage, DEMO.by_name[f"{name}.10087"], "150k") is restok
    truncated = DEMO.by_name["truncated.10087"]
    assert home("reconstruction", truncated, "150k") is restok and home("generation", truncated, "150k") is truncated
    trained = {home("tokenizer", trial, label).name for trial in DEMO.trials for label in trial.labels}
    assert len(trained) == 1 + 2 * 16                                              # the main run, 16 settings of two seeds
    assert home("tokenizer", DEMO.by_name["vanilla_searched.10086"], "750k").name == "main"


@pytest.mark.parametrize(("row", "message"), [
    ("a\tablation\ttokenizer.codebook_siz=128\ttable2 #9", "line 2, row 'a', column overrides: .*did you mean 'codebook_size'"),
    ("a\tablation\ttokenizer.codebook_size=128\ttable2 #9", "generator.codebook_size: 256 is not tokenizer.codebook_size"),
    ("a\tablation\ttokeniser.width=8\ttable2 #9", "column overrides: override 'tokeniser.width=8': expected SECTION.KEY"),
    ("a\tablation\ttokenizer.scales=5; tokenizer.latents=48; generator.tokens=48\ttable2 #9", "48 is not a power of two"),
    ("a\tablation\ttokenizer.scales=5\ttable2 #9", "5 scales need at least as many encoder layers, not 4"),
    ("a\tablation\ttokenizer.image_size=32\ttable2 #9", "tokenizer.image_size is shared by every row"),
    ("a\tablation\tevaluation.features=inception\ttable2 #9", "evaluation.features is shared by every row"),
    ("a\tother\t\ttable2 #9", "column base: 'other'; choose main or ablation"),
    ("a\tablation\t\t", "column feeds: blank"),
    ("a\tablation\t\ttabel2 #9", "column feeds: 'tabel2' takes no rows; did you mean 'table2'"),
    ("a\tablation\t\ttable7", "column feeds: 'table7' takes no rows"),
    ("a\tablation\t\ttable2 @150k", "column feeds: .*a row has a name in table2"),
    ("a\tmain\ttokenizer.scales=2\tfig5", "column feeds: fig5 shows the parameter file's own run"),
    ("a\tablation\t\tcodebook", "column feeds: codebook shows the parameter file's own run"),
    ("a\tmain\t\tfig6\t\tweights\tweights", "column feeds: fig6 shows the parameter file's own run"),
    ("a\tablation\tcodes.flip=true; codes.flip=false\ttable2 #9", "override 'codes.flip=false': undoes another one"),
    ("a\tablation\tsampling.guidance={schedule: linear, scale: 2.0\ttable2 #9",
     "line 2, row 'a', column overrides: override 'sampling.guidance={.*': not valid YAML: line 1, column 30"),
    ("a\tablation\tobjective.alignment.margin=@0.75\ttable2 #9", "row 'a', column overrides: .*: not valid YAML: line 1"),
    ("a\tablation\tobjective.alignment.margin=2024-01-01\ttable2 #9", "row 'a', column overrides: .*2024-01-01 is a date"),
    ("a\tablation\tsampling.guidance={schedule: step, schedule: linear, scale: 2.0}\ttable2 #9", "key 'schedule' stands twice"),
    ("a\tablation\tdata.workers=5000\ttable2 #9", "row 'a', column overrides: .*data.workers: .*less than or equal to 256"),
    ("a\tablation\tseed=5\ttable2 #9", "'seed=5'; seeds come from"),
    ("a\tablation\texperiments.main_seeds=5\ttable2 #9", "seeds come from"),
    ("a\tablation\t\ttable2 #9\tdmeo", "column params: 'dmeo' is no parameter file"),
    ("a\tmain\t\ttable1\t\tmy weights\t", "column tokenizer: 'my weights' has white space"),
    ("a\tmain\t\ttable1\t\tmy{weights}\t", r"column tokenizer: 'my\{weights\}' has white space or braces"),
    ("a\tmain\t\ttable10 HAR@900k", "no checkpoint '900k'; choose one of 250k"),
    ("a b\tablation\t\ttable2 #9", "column id: 'a b'"),
    ("a   ablation   seed=5   table2 #9", "line 2: 'a   ablation .*' has no tab; tabs separate the columns, not spaces"),
    ("a\tablation\t\ttable2 #9\t\t\tfolder", "column tokenizer: blank, but a generator is named"),
    ("a\tablation\t\ttable2 #9\t\t\t\tmore", "line 2: 8 cells for 7 columns"),
])
def test_a_row_that_cannot_run_names_its_place_and_the_remedy(tmp_path, row, message):
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, row)


def test_an_id_is_taken_once(tmp_path):
    with pytest.raises(ConfigError, match="line 3, row 'a', column id"):
        read(tmp_path, "a\tablation\t\ttable2 #9", "a\tablation\t\ttable2 #10")


def test_s_5_with_32_more_tokens_is_refused_at_the_papers_size(tmp_path):
    with pytest.raises(ConfigError, match="160 is not a power of two"):
        read(tmp_path, "more\tablation\ttokenizer.scales=5; tokenizer.latents=160; generator.tokens=160\ttable2 #9",
             run="imagenet256")


def test_an_ablation_of_ones_own_is_one_row(tmp_path):
    sheet = read(tmp_path, "half_codebook\tablation\ttokenizer.codebook_size=128; generator.codebook_size=128\ttable2 #9")
    assert [(entry.name, entry.trial.name, entry.label) for entry in sheet.feeding("table2")] == [
        ("#9", f"half_codebook.{seed}", "150k") for seed in (10086, 10087)]


def test_a_row_may_belong_to_one_parameter_file(tmp_path):
    row = "a\tablation\ttokenizer.codebook_size=128\ttable2 #9\timagenet256"
    assert read(tmp_path, row).trials == []
    with pytest.raises(ConfigError):
        read(tmp_path, row, run="imagenet256")


def test_a_row_may_belong_to_all_but_one_parameter_file(tmp_path):
    row = "a\tablation\t\ttable2 #9\t!imagenet256"
    assert len(read(tmp_path, row).trials) == 2 and read(tmp_path, row, run="imagenet256").trials == []


def test_a_fault_in_what_ablations_share_is_the_parameter_files():
    with pytest.raises(ConfigError, match=r"demo\.yaml: experiments\.ablation: .*did you mean 'steps'"):
        load_sheet(ROOT / "params/demo.yaml", ["experiments.ablation={generator_training.stepz: 3}"])


def test_finished_weights_are_a_row(tmp_path):
    (trial,) = read(tmp_path, "released\tmain\t\ttable1 released\t\tweights/tokenizer\tweights/generator").trials
    assert (trial.labels, trial.tokenizer, trial.generator) == (["released"], "weights/tokenizer", "weights/generator")
    assert trial.name == "released.10086"                         # not the main run, whose settings it has


def test_a_verb_finds_the_settings_of_a_row():
    assert load_trial(ROOT / "params/demo.yaml", "scales_2.10087", TWO_SEEDS).tokenizer.scales == 2
    with pytest.raises(ConfigError, match=r"'scales_2\.7': not a row"):
        load_trial(ROOT / "params/demo.yaml", "scales_2.7")


def test_a_sheet_saved_by_a_spreadsheet_is_read_and_one_in_another_encoding_named(tmp_path):
    text = "\t".join(COLUMNS) + "\r\nm\tmain\t\ttable2 ü\r\n"
    (tmp_path / "experiments.tsv").write_bytes(text.encode("utf-8-sig"))
    sheet = load_sheet(ROOT / "params/demo.yaml", sheet=tmp_path / "experiments.tsv")
    assert [entry.name for entry in sheet.feeding("table2")] == 4 * ["ü"]
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "experiments.tsv").write_bytes(text.encode(encoding))
        with pytest.raises(ConfigError, match=r"experiments\.tsv: not text in UTF-8"):
            load_sheet(ROOT / "params/demo.yaml", sheet=tmp_path / "experiments.tsv")


def as_excel_saves(text: str, end: str = "\r\n") -> str:
    """Rows filled up to one width; cells with a comma or a quote in quotes."""
    rows = [line.split("\t") for line in text.splitlines()]
    quoted = [['"' + cell.replace('"', '""') + '"' if set(cell) & set(',"') else cell for cell in row] for row in rows]
    return end.join("\t".join(row + [""] * (max(map(len, rows)) - len(row))) for row in quoted) + end


@pytest.mark.parametrize("saved", [
    lambda text: text.encode("utf-8-sig"), lambda text: as_excel_saves(text).encode(),
    lambda text: as_excel_saves(text, "\n").encode("utf-8-sig"), lambda text: text.replace("\n", "\t\t\n").encode(),
    lambda text: text.replace("\n", "\r").encode(), lambda text: text.replace("\n", " \n").replace("\t", " \t ").encode()])
@pytest.mark.parametrize("comments", [True, False])
def test_the_sheet_is_read_as_spreadsheets_save_it(tmp_path, saved, comments):
    text = (ROOT / "params/experiments.tsv").read_text()
    if not comments:
        text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    (tmp_path / "experiments.tsv").write_bytes(saved(text))
    again = load_sheet(ROOT / "params/demo.yaml", TWO_SEEDS, tmp_path / "experiments.tsv")
    assert again == DEMO


@pytest.mark.parametrize(("encoding", "message"), [
    ("utf-16", "in UTF-16 .*'Unicode text'.*save it in UTF-8"), ("utf-16-le", "in UTF-16"),
    ("cp1252", "byte 0x96 in line 2 is of another encoding, such as Windows-1252"), ("mac-roman", "byte 0xd0 in line 2")])
def test_a_sheet_in_another_encoding_is_named_with_it(tmp_path, encoding, message):
    text = "\t".join(COLUMNS) + "\nm\tmain\t\ttable2 a\u2013b\n"
    (tmp_path / "experiments.tsv").write_bytes(text.encode(encoding))
    with pytest.raises(ConfigError, match=rf"experiments\.tsv: not text in UTF-8.*{message}"):
        load_sheet(ROOT / "params/demo.yaml", sheet=tmp_path / "experiments.tsv")


def test_a_quote_that_does_not_end_is_named_with_its_line(tmp_path):
    for row in ('a\tmain\t\t"table2 #9', 'a\tmain\t\t"table2" #9'):
        with pytest.raises(ConfigError, match=r"experiments\.tsv, line 2: .*a cell that opens with a quote ends with one"):
            read(tmp_path, row)


def test_names_are_compared_in_one_form_of_unicode(tmp_path):
    row = "e\u0301te\u0301\tmain\t\ttable10 x@1\u0065\u0301\tgro\u0308sse\n"
    params = (ROOT / "params/demo.yaml").read_text().replace("1M: 1300", "1\u00e9: 1300")
    (tmp_path / "gr\u00f6sse.yaml").write_text(params)
    (tmp_path / "experiments.tsv").write_text("\t".join(COLUMNS) + f"\n{row}")
    (trial,) = load_sheet(tmp_path / "gr\u00f6sse.yaml").trials
    assert (trial.id, trial.feeds[0].label) == ("\u00e9t\u00e9", "1\u00e9")
    assert load_trial(tmp_path / "gr\u00f6sse.yaml", "e\u0301te\u0301.10086") == trial.params


@pytest.mark.parametrize("override", ["seed=7", "seed = 7", "experiments.main_seeds=3", "experiments={}"])
def test_what_the_sheet_refuses_is_refused_in_what_ablations_share(tmp_path, override):
    with pytest.raises(ConfigError, match=r"line 2, row 'a', column overrides: .*; seeds come from"):
        read(tmp_path, f"a\tablation\t{override}\ttable2 #9")
    key, value = override.split("=")
    with pytest.raises(ConfigError, match=r"demo\.yaml: experiments\.ablation: .*; seeds come from"):
        load_sheet(ROOT / "params/demo.yaml", [f'experiments.ablation={{"{key}": {value}}}'])


def test_seeds_of_a_row_are_within_the_range():
    with pytest.raises(ConfigError, match=r"row 'baseline', column overrides: .*seed: input should be less than"):
        load_sheet(ROOT / "params/demo.yaml", [f"seed={2**43 - 1}", *TWO_SEEDS])


def test_a_sheet_of_other_columns_is_refused(tmp_path):
    (tmp_path / "experiments.tsv").write_text("id,base\n")
    with pytest.raises(ConfigError, match="expected id, base, overrides"):
        load_sheet(ROOT / "params/demo.yaml", sheet=tmp_path / "experiments.tsv")


@pytest.mark.parametrize("trial", FIRST, ids=lambda trial: trial.id)
def test_every_row_runs(trial, classifier):
    """A step of both updates, and images to codes and back; a batch is drawn from the classes."""
    params = trial.params
    job = TokenizerJob(params, classifier, torch.device("cpu"))
    images = torch.rand(4, 3, 16, 16)
    losses = job.step((images, None), params.objective.discriminator.start)
    assert all(loss.isfinite() for loss in losses.values())
    aligned = {"vf_encoder": params.objective.alignment.encoder, "vf_decoder": params.objective.alignment.decoder}
    assert {name for name in losses if name.startswith("vf")} == {name for name, weight in aligned.items() if weight}
    codes = job.tokenizer.eval().encode(images)
    assert job.tokenizer.decode(codes).shape == images.shape
    generator = HAR(params.generator)
    assert generator.loss(codes, torch.arange(4)).isfinite()
    draw = generate if params.sampling.class_cache == "kept" else generate_with_lost_class
    drawn = draw(generator, torch.arange(4), guidance=params.sampling.guidance, top_p=params.sampling.top_p)
    assert drawn.shape == codes.shape
    assert to_uint8(job.tokenizer.decode(drawn), params.sampling.rounding).shape == (4, 16, 16, 3)
