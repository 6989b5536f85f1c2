import numpy as np
import pytest
import torch
from conftest import ROOT, small_params

from restok.config import Guidance
from restok.config.load import ConfigError, canonical_json, load_params, load_protocol, schema
from restok.config.text import read_yaml
from restok.training.parallel import step_generator

IMAGENET = ROOT / "params/imagenet256.yaml"


@pytest.mark.parametrize(("override", "message"), [
    ("tokenizer.widht=512", r"tokenizer\.widht: unknown key; did you mean 'width'\?"),
    ("tokenizer.width=wide", r"tokenizer\.width: input should be a valid integer"),
    ("tokenizer.width=3.5", r"tokenizer\.width: "),
    ("tokenizer.latents=96", r"tokenizer\.latents: 96 is not a power of two"),
    ("tokenizer.scales=10", r"tokenizer\.scales: .*does not divide"),
    ("tokenizer.scales=99", r"tokenizer\.scales: 99 scales need"),
    ("tokenizer.image_size=250", r"tokenizer\.image_size: 250"),
    ("tokenizer.keep_minimum=3", r"tokenizer\.keep_minimum: "),
    ("tokenizer.heads=7", r"tokenizer\.heads: "),
    ("tokenizer.cnn.groups=48", r"tokenizer\.cnn\.groups: 48 does not divide"),
    ("tokenizer_training.checkpoints={a: 5, b: 2}", r"tokenizer_training\.checkpoints: .*increasing"),
    ("generator.ntp=3", r"generator\.ntp: "),
    ("generator.codebook_size=4096", r"generator\.codebook_size: 4096 is not tokenizer\.codebook_size"),
    ("guidance_search.starts=[1.5]", r"guidance_search\.starts\.0: "),
    ("evaluation.features=digits", r"classifier: null"),
    ("data.path=null", r"data\.path: "),
    ("seed=abc", r"seed: "),
    ("=3", r"override '=3': expected SECTION\.KEY=VALUE"),
    ("seed=-1", r"seed: "),
    ("seed=8796093022208", r"seed: input should be less than or equal to 8796093022207"),
    (f"seed={10**40}", r"seed: input should be less than"),
    (f"seed={'9' * 5000}", r"seed=9+': line 1, column 1: '9+' is no int that can be read"),
    ("data.workers=5000", r"data\.workers: input should be less than or equal to 256, found 5000"),
    ("data.crop_scale=[0.0001, 1.0]", r"data\.crop_scale: two increasing fractions from 0.01 on"),
    ("codes.scales=[1e9]", r"codes\.scales\.0: input should be less than or equal to 100"),
    ("generator.tokens=1000000000", r"generator\.tokens: input should be less than or equal to 65536"),
    ("tokenizer.codebook_size=131072", r"tokenizer\.codebook_size: input should be less than or equal to 65536"),
    ("sampling.batch_size=10000000", r"sampling\.batch_size: input should be less than or equal to 1048576"),
    ("sampling.guidance={schedule: step, scale: 1e300}", r"guidance\.scale: input should be less than or equal to 1000"),
    ("sampling.temperature=1e-300", r"sampling\.temperature: input should be greater than or equal to 0.000001"),
    ("tokenizer_training.checkpoints={a: 99999999999}", r"checkpoints\.a: .*less than or equal to 1000000000"),
    ("experiments.main_seeds=5000", r"experiments\.main_seeds: input should be less than or equal to 1000"),
    ("tokenizer.merge_factor=true", r"tokenizer\.merge_factor: take a whole number, found True"),
    ("tokenizer_training.clip=.nan", r"tokenizer_training\.clip: input should be a finite number"),
    ("tokenizer_training.checkpoints={a b: 5}", r"checkpoints\.a b.*: take letters, digits and underscores"),
    ("evaluation.reference=my{run}.npz", r"evaluation\.reference: string should match pattern"),
    ("data.flip=yes", r"data\.flip: input should be a valid boolean, found 'yes'"),
    ("codes.scales=[]", r"codes\.scales: "),
    ("tokenizer.cnn.multipliers=[]", r"tokenizer\.cnn\.multipliers: "),
    ("generator_training.optimizer.betas=[0.9,1.0]", r"generator_training\.optimizer\.betas\.1: "),
    ("objective.discriminator.layers=[]", r"objective\.discriminator\.layers: "),
])
def test_faults_are_named_with_their_path(override, message):
    with pytest.raises(ConfigError, match=message):
        load_params(IMAGENET, [override])


def test_a_layer_that_the_classifier_does_not_have_is_refused():
    with pytest.raises(ConfigError, match=r"objective\.discriminator\.layers: \[5\], but classifier\.channels has 3 stages"):
        small_params("objective.discriminator.layers=[5]")


def test_the_file_is_named_and_a_missing_key_too(tmp_path):
    text = IMAGENET.read_text().replace("  width: 1024\n  encoder_layers", "  encoder_layers")
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml: tokenizer\.width: missing"):
        load_params(tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_params(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("seed: [1")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not valid YAML"):
        load_params(tmp_path / "broken.yaml")


def test_overrides_apply_and_bad_ones_are_refused():
    assert load_params(IMAGENET, ["tokenizer.width=512"]).tokenizer.width == 512
    with pytest.raises(ConfigError, match="tokenizr"):
        load_params(IMAGENET, ["tokenizr.width=512"])
    with pytest.raises(ConfigError, match=r"override 'sampling\.guidance=\{scale: 1': not valid YAML"):
        load_params(IMAGENET, ["sampling.guidance={scale: 1"])


def test_what_is_no_tree_of_settings_in_utf_8_is_named(tmp_path):
    for text, message in ((b"seed: \xff", "not valid YAML in UTF-8"), (b"seed: &a [*a]", "[Cc]ircular")):
        (tmp_path / "mine.yaml").write_bytes(text)
        with pytest.raises(ConfigError, match=rf"mine\.yaml: {message}"):
            load_params(tmp_path / "mine.yaml")


@pytest.mark.parametrize(("written", "message"), [
    ("a: 1\nb:\n  c: 2\n  c: 3\n", "line 4, column 3: key 'c' stands twice, first in line 3"),
    ("{a: 1, b: 2, a: 3}", "line 1, column 14: key 'a' stands twice"),
    ("1: a\n'1': b\n", "line 2, column 1: key '1' stands twice"),
    ("a: 1\nb: 2\na: 1\n", "line 3, column 1: key 'a' stands twice"),
    ("day: 2024-01-01", "line 1, column 6: 2024-01-01 is a date; write text in quotes"),
    ("a: &x {b: *x}", "circular: line 1, column 4"),
    ("a: &x [1, {b: [*x]}]", "circular: line 1, column 4"),
    ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3, column 3: a key is a plain name"),
    ("? [a, b]\n: 1\n", "line 1, column 3: a key is a plain name"),
    ("a: !!python/object:os.system x", "line 1, column 4: .*: leave the tag out"),
    ("a: !set {b, c}", "line 1, column 4: !set: leave the tag out"),
    ("a: !!int x1", "line 1, column 4: 'x1' is no int"),
    ("a: [1, 2", "not valid YAML: line 1, column 9: "),
    ("a: 'b", "not valid YAML: line 1, column 6: "),
    ("a: @b", "not valid YAML: line 1, column 4: "),
    ("a:\n\tb: 1", "not valid YAML: line 2, column 1: "),
    ("a: *b", "not valid YAML: line 1, column 4: found undefined alias 'b'"),
    ("a: 1\n---\na: 2\n", "not valid YAML: line 2, column 1: expected a single document"),
    ("a: b\x07", "not valid YAML: unacceptable character"),
    ('a: "\\ud800"', "line 1, column 4: half a character"),
    ('a: "b\\0"', "line 1, column 4: text with a null character"),
    ("a: " + "[" * 100 + "]" * 100, "line 1, column 53: deeper than 50 levels"),
    ("[" * 3000, "nested deeper than 50 levels"),
    ("{a: " * 3000, "nested deeper than 50 levels"),
])
def test_what_yaml_cannot_say_plainly_is_refused_with_its_place(written, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(written)


def test_aliases_that_stand_for_billions_of_values_are_refused_at_once():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]", *(f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]" for i in range(1, 12))]
    with pytest.raises(ConfigError, match=r"with its aliases more than 100,000 values"):
        read_yaml("\n".join(lines))


@pytest.mark.parametrize(("written", "value"), [
    ("0100", 100), ("0o17", 15), ("0x1F", 31), ("1:30", "1:30"), ("1_000", "1_000"), ("0b11", "0b11"), ("1e-4", 1e-4),
    ("yes", "yes"), ("on", "on"), ("true", True), ("~", None), ("", None), ("'2024-01-01'", "2024-01-01"), ("1: 2", {"1": 2}),
    ('"\\ud83d\\ude00"', "\U0001f600"), ('{\n\t"a": [1,\n\t2.5]\n}', {"a": [1, 2.5]}), ("a: =", {"a": "="})])
def test_yaml_is_read_as_its_version_1_2_says(written, value):
    read = read_yaml(written)
    assert read == value and type(read) is type(value)


def test_what_an_alias_names_is_a_value_of_its_own(tmp_path):
    text = IMAGENET.read_text()
    optimizer = text[text.index("  optimizer:\n"):text.index("  clip:")]
    text = text.replace(optimizer, optimizer.replace("optimizer:", "optimizer: &same"), 1)
    second = text.index("  optimizer:\n", text.index("generator_training:"))
    (tmp_path / "mine.yaml").write_text(text[:second] + "  optimizer: *same\n" + text[text.index("  clip: 1.0"):])
    params = load_params(tmp_path / "mine.yaml", ["generator_training.optimizer.warmup_steps=7"])
    assert params.generator_training.optimizer.warmup_steps == 7 and params.tokenizer_training.optimizer.warmup_steps == 5000
    assert params.generator_training.optimizer.weight_decay == params.tokenizer_training.optimizer.weight_decay == 1e-4


@pytest.mark.parametrize(("overrides", "message"), [
    (["seed=1", "seed=2"], "override 'seed=2': undoes another one of seed"),
    (["seed=1", "seed=1"], "override 'seed=1': undoes another one of seed"),
    (["tokenizer.cnn.blocks=1", "tokenizer.cnn={}"], "override 'tokenizer.cnn={}': undoes another one of tokenizer.cnn"),
    (["sampling.guidance={schedule: step, scale: 2, scale: 3.0}"], "line 1, column 28: key 'scale' stands twice"),
    (["data.train=2024-01-01"], "override 'data.train=2024-01-01': line 1, column 1: 2024-01-01 is a date"),
    (["data.train='x"], "override \"data.train='x\": not valid YAML: line 1, column 3"),
])
def test_overrides_that_undo_each_other_or_are_no_values_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_params(IMAGENET, overrides)


def test_an_override_may_change_a_part_of_another_one():
    guidance = load_params(IMAGENET, ["sampling.guidance={schedule: step, scale: 2.0}", "sampling.guidance.scale = 3.0"])
    assert guidance.sampling.guidance == Guidance(schedule="step", scale=3.0)


@pytest.mark.parametrize(("encoding", "message"), [
    ("utf-16", "in UTF-16"), ("utf-16-le", "in UTF-16"), ("latin-1", "byte 0xf6 in line 2 .* Latin-1"),
    ("cp1252", "byte 0xf6 in line 2 .* Windows-1252")])
def test_a_parameter_file_in_another_encoding_is_named_with_it(tmp_path, encoding, message):
    (tmp_path / "mine.yaml").write_bytes(f"# a comment\n# Größe\n{IMAGENET.read_text()}".encode(encoding))
    with pytest.raises(ConfigError, match=rf"mine\.yaml: not valid YAML in UTF-8.*{message}.*save it in UTF-8"):
        load_params(tmp_path / "mine.yaml")


def test_a_parameter_file_that_opens_with_a_mark_is_read(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(IMAGENET.read_text().replace("\n", "\r\n").encode("utf-8-sig"))
    assert load_params(tmp_path / "mine.yaml") == load_params(IMAGENET)


def test_the_largest_seed_serves_every_random_generator():
    seed = load_params(IMAGENET, [f"seed={2**43 - 1}"]).seed
    assert step_generator(seed, 10**9).initial_seed() == seed * 1_000_003 + 10**9 < 2**63
    torch.manual_seed(seed)
    np.random.default_rng((seed, 0))


def test_labels_are_compared_in_one_form_of_unicode():
    params = load_params(IMAGENET, ["tokenizer_training.checkpoints={e\u0301te\u0301: 5}"])
    assert list(params.tokenizer_training.checkpoints) == ["\u00e9t\u00e9"]
    with pytest.raises(ConfigError, match="take letters, digits and underscores"):
        load_params(IMAGENET, ["tokenizer_training.checkpoints={a\u0301\u0302\u0323: 5}"])


def test_parameters_are_frozen_and_hashable():
    params = small_params()
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 1
    assert hash(params.tokenizer) == hash(small_params().tokenizer)


def test_guidance_above_the_trajectory_is_refused():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        Guidance(schedule="step", scale=2.0, start=1.5)
    with pytest.raises(ValueError, match="only the 'step' schedule"):
        Guidance(schedule="linear", scale=2.0, start=0.5)


def test_candidates_hold_no_guidance_once_and_each_start_for_step_alone():
    search = load_params(IMAGENET, ["guidance_search.schedules=[step,linear]", "guidance_search.starts=[0.0,0.5]",
                                    "guidance_search.scales=[1.0,2.0]"]).guidance_search
    found = [(g.schedule, g.scale, g.start) for g in search.candidates()]
    assert found == [("constant", 1.0, 0.0), ("step", 2.0, 0.0), ("step", 2.0, 0.5), ("linear", 2.0, 0.0)]


def test_the_editors_schema_is_in_step():
    assert (ROOT / "workflow/schemas/params.json").read_text() == schema(), "run `make schema`"


def test_numbers_in_exponent_notation_are_numbers():
    assert load_params(IMAGENET, ["generator_training.clip=1e-3"]).generator_training.clip == 1e-3


def test_facts_leave_out_what_changes_no_result():
    same = load_params(IMAGENET, ["data.workers=1", "tokenizer_training.save_every=7", "generator_training.log_every=7"])
    names = "data", "tokenizer_training", "generator_training"
    assert canonical_json(same, *names) == canonical_json(load_params(IMAGENET), *names)
    other = load_params(IMAGENET, ["tokenizer_training.clip=1.0"])
    assert canonical_json(other, *names) != canonical_json(same, *names)


def test_the_protocol_without_a_parameter_file_is_the_papers():
    written = load_params(IMAGENET).evaluation
    assert load_protocol() == written.model_copy(update={"reference": None, "also": ()})       # FD-DINOv2 is not the paper's
    with pytest.raises(ConfigError, match=r"only evaluation\.KEY can be set"):
        load_protocol(["seed=3"])


@pytest.mark.parametrize("distances", ["[adm-fp16]", "[exact, exact]"])
def test_reports_need_exact_distances(distances):
    with pytest.raises(ConfigError, match=r"evaluation\.distances: 'exact', which the reports show"):
        small_params(f"evaluation.distances={distances}")


def test_a_schedule_ends_with_the_last_checkpoint_or_later():
    path = ROOT / "params/demo.yaml"
    assert load_params(path).tokenizer_training.total == 1300
    assert load_params(path, ["tokenizer_training.schedule_steps=2000"]).tokenizer_training.total == 2000
    with pytest.raises(ConfigError, match="schedule_steps: 1000 ends before the last checkpoint, at 1300"):
        load_params(path, ["tokenizer_training.schedule_steps=1000"])


def test_the_class_cache_fault_belongs_to_one_next_token_prediction():
    with pytest.raises(ConfigError, match=r"class_cache: the fault belongs to generator\.ntp 1, not 4"):
        load_params(ROOT / "params/demo.yaml", ["sampling.class_cache=overwritten"])
