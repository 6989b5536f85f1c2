import pytest
from conftest import ROOT, small_params

from restok.config import Guidance
from restok.config.load import ConfigError, canonical_json, load_params, load_protocol, schema

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
    ("seed=-1", r"seed: "),
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
    assert load_protocol() == written.model_copy(update={"reference": None})
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
