"""The search for guidance: two rounds on tiny models, what counts as the best, and what does not compare."""

import json

import numpy as np
import pytest
from conftest import ROOT, small_params
from reporting_fixtures import result, write

from restok.config import Guidance
from restok.config.load import ConfigError, load_params
from restok.experiments import Tree, load_sheet
from restok.experiments.places import depends_on
from restok.generator import sampling
from restok.metrics.results import ComparisonError
from restok.stages.evaluator import Evaluator
from restok.stages.measure import score_finalist, score_guidance
from restok.stages.search import SearchError, among, cost, drawn, ranked, read_guidance, scored, search_guidance

DEMO = ROOT / "params/demo.yaml"
TWO_ROUNDS = ("guidance_search.samples_per_class=3", "guidance_search.coarse={samples_per_class: 2, finalists: 2}")
PARAMS = small_params(*TWO_ROUNDS, "sampling.batch_size=7")
SETTINGS = [Guidance(schedule="constant", scale=1.0), Guidance(schedule="step", scale=2.0, start=0.25),
            Guidance(schedule="linear", scale=3.0)]


@pytest.fixture(scope="module")
def found(digits, classifier, models, tmp_path_factory):
    """Every candidate of a search in two rounds, the finalists, and what each asked of the noise."""
    folder, evaluator = tmp_path_factory.mktemp("search"), Evaluator.load(PARAMS.evaluation, models / "classifier", 16, 0)
    given = models / "tokenizer", models / "generator", models / "data", folder / "state.safetensors"
    candidates, finalists = [folder / f"{g.schedule}.json" for g in SETTINGS], [folder / f"{rank}.json" for rank in (1, 2)]
    noise, uniforms = {path: [] for path in (*candidates, *finalists)}, sampling.uniforms
    with pytest.MonkeyPatch.context() as patch:
        def listen(path):
            patch.setattr(sampling, "uniforms", lambda *asked: noise[path].append(asked) or uniforms(*asked))
            return path

        for path, guidance in zip(candidates, SETTINGS, strict=True):
            score_guidance(evaluator, PARAMS, guidance, *given, listen(path))
        for rank, path in enumerate(finalists, start=1):
            score_finalist(evaluator, PARAMS, candidates, rank, *given, listen(path))
    assert not (folder / "state.safetensors").exists()
    return candidates, finalists, noise


def test_the_best_are_measured_again_on_more_samples_and_the_best_of_these_is_chosen(found, tmp_path):
    candidates, finalists, _ = found
    best = [row["schedule"] for row in sorted(map(read, candidates), key=lambda row: row["metrics"]["FD-digits"])][:2]
    assert [read(path)["schedule"] for path in finalists] == best
    chosen = search_guidance(candidates, finalists, tmp_path / "chosen.json")
    lowest = min(map(read, finalists), key=lambda row: row["metrics"]["FD-digits"])
    assert chosen["chosen"] == {key: lowest[key] for key in ("schedule", "scale", "start")}
    assert chosen["FD-digits"] == lowest["metrics"]["FD-digits"]
    assert read_guidance(tmp_path / "chosen.json").schedule == lowest["schedule"]
    assert [[row["n"] for row in chosen[name]] for name in ("candidates", "finalists")] == [[20, 20, 20], [30, 30]]
    assert (chosen["samples"], chosen["hill_climb_step"]) == (120, 50_000)


def test_every_setting_of_both_rounds_draws_from_the_same_noise(found):
    candidates, finalists, noise = found

    def drawn_from(path):
        """By image: what each draws from."""
        return np.concatenate([sampling.uniforms(*asked) for asked in noise[path]])

    first = drawn_from(candidates[0])
    assert len(first) == 20 and {read(path)["seed"] for path in noise} == {PARAMS.seed + 1}
    for path in (*candidates[1:], *finalists):
        assert (drawn_from(path)[:20] == first).all()


def test_candidates_of_other_models_or_ranks_that_are_not_there_are_refused(found, models, tmp_path):
    candidates, _, _ = found
    evaluator = Evaluator.load(PARAMS.evaluation, models / "classifier", 16, 0)
    given = models / "tokenizer", models / "generator", models / "data", None, tmp_path / "f.json"
    with pytest.raises(SearchError, match="rank 4: there are 3 candidates"):
        score_finalist(evaluator, PARAMS, candidates, 4, *given)
    cooler = small_params(*TWO_ROUNDS, "sampling.temperature=0.5")
    with pytest.raises(SearchError, match=r"\.json: its samples are not those of .*generator with these settings"):
        score_finalist(evaluator, cooler, candidates, 1, *given)
    assert not (tmp_path / "f.json").exists()


def read(path):
    return json.loads(path.read_text())


def of(folder, name, schedule, scale, distance, start=0.0, n=20, **changes):
    """A file of a candidate, or of a finalist, with this distance; None was not measured."""
    metrics, refused = ({"FD-digits": distance}, {}) if distance is not None else ({}, {"FD-digits": "it is one image"})
    write(folder / f"{name}.json", result("generation", {"distance": "FD-digits"}, metrics, refused, n=n, seed=1) | {
        "schedule": schedule, "scale": scale, "start": start, "sampling": {"top_k": 0, "top_p": 0.95}} | changes)
    return folder / f"{name}.json"


def test_of_equal_distances_the_weaker_guidance_is_first_and_what_has_none_is_last(tmp_path):
    paths = [of(tmp_path, "a", "linear", 3.0, 5.0), of(tmp_path, "b", "constant", 1.0, None),
             of(tmp_path, "c", "step", 2.0, 5.0), of(tmp_path, "d", "linear", 2.0, 5.0), of(tmp_path, "e", "linear", 4.0, 4.0)]
    for given in (paths, paths[::-1]):
        assert [row.path.stem for row in ranked(scored(given))] == ["e", "d", "c", "a", "b"]
    assert search_guidance(paths, [], tmp_path / "chosen.json")["chosen"]["scale"] == 4.0


def test_a_search_without_any_distance_is_refused(tmp_path):
    with pytest.raises(SearchError, match=r"a\.json: FD-digits was not measured: it is one image; nor was it of any other"):
        search_guidance([of(tmp_path, "b", "linear", 2.0, None), of(tmp_path, "a", "constant", 1.0, None)], [],
                        tmp_path / "chosen.json")
    assert not (tmp_path / "chosen.json").exists()


def test_a_finalist_without_a_distance_is_kept_and_not_chosen(tmp_path):
    candidates = [of(tmp_path, "a", "constant", 1.0, 3.0), of(tmp_path, "b", "linear", 2.0, 5.0)]
    finals = [of(tmp_path, "1", "constant", 1.0, None, n=50), of(tmp_path, "2", "linear", 2.0, 4.0, n=50)]
    chosen = search_guidance(candidates, finals, tmp_path / "chosen.json")
    assert chosen["chosen"]["schedule"] == "linear" and chosen["finalists"][0]["refused"] == {"FD-digits": "it is one image"}


def test_a_search_with_one_candidate_and_one_finalist_takes_it(tmp_path):
    one = of(tmp_path, "a", "constant", 1.0, 3.0), of(tmp_path, "1", "constant", 1.0, 2.0, n=50)
    assert search_guidance([one[0]], [one[1]], tmp_path / "chosen.json")["FD-digits"] == 2.0


@pytest.mark.parametrize(("name", "changes", "error", "message"), [
    ("b", {"reference": {"digest": "another", "size": [8, 8]}}, ComparisonError, "do not compare: reference digest"),
    ("b", {"sampling": {"top_k": 0, "top_p": 0.5}}, SearchError, "its sampling differ from those of"),
    ("b", {"seed": 2}, SearchError, "its seed differ from those of"),
    ("b", {"n": 30}, SearchError, "its n differ from those of"), ("2", {"n": 70}, SearchError, "its n differ from those of"),
    ("b", {"schedule": "constant", "scale": 1.0}, SearchError, r"of the same setting as .*a\.json; name each setting once"),
    ("1", {"scale": 3.0}, SearchError, "of none of the best candidates, of which there are as many"),
    ("2", {"schedule": "linear", "scale": 2.0}, SearchError, r"of the same setting as .*1\.json; name each setting once"),
    ("1", {"neighbours": 5}, ComparisonError, "do not compare: neighbours differ")])
def test_what_does_not_compare_is_named(tmp_path, name, changes, error, message):
    of(tmp_path, "a", "constant", 1.0, 3.0), of(tmp_path, "b", "linear", 2.0, 5.0), of(tmp_path, "c", "linear", 8.0, 9.0)
    of(tmp_path, "1", "linear", 2.0, 4.0, n=50), of(tmp_path, "2", "constant", 1.0, 2.0, n=50)
    write(tmp_path / f"{name}.json", read(tmp_path / f"{name}.json") | changes)
    candidates, finals = ([tmp_path / f"{stem}.json" for stem in stems] for stems in ("abc", "12"))
    with pytest.raises(error, match=rf"{name}\.json.*{message}"):
        search_guidance(candidates, finals, tmp_path / "chosen.json")
    assert not (tmp_path / "chosen.json").exists()


def test_the_cost_is_said_beside_the_releases():
    once = {"candidates": 17 * [{"n": 50_000}]}                               # as earlier versions wrote it
    twice = {"candidates": 17 * [{"n": 10_000}], "finalists": 3 * [{"n": 50_000}]}
    assert [drawn(once), drawn(twice)] == [850_000, 320_000]
    assert cost(drawn(twice)) == ("320,000 samples in all; the release's hill-climb takes 50,000 a step, so as many as 6.4 of "
                                  "its steps")
    assert among(once) == "17 candidates over 50,000 samples each"
    assert among(twice) == "3 finalists over 50,000 samples each, the best of 17 candidates over 10,000 samples each"


def search_of(*overrides):
    return load_params(ROOT / "params/imagenet256.yaml", overrides).guidance_search


def test_imagenets_search_has_two_rounds_and_one_setting_makes_it_exhaustive():
    search = search_of()
    assert (len(search.candidates()), search.candidate_samples, search.finalists, search.samples_per_class) == (17, 10, 3, 50)
    exhaustive = search_of("guidance_search.coarse=null")
    assert (len(exhaustive.candidates()), exhaustive.candidate_samples, exhaustive.finalists) == (17, 50, 0)


@pytest.mark.parametrize(("scales", "count"), [("[]", 1), ("[1.0]", 1), ("[2.0]", 2), ("[2.0, 3.0]", 3), ("[2, 3, 4]", 3)])
def test_there_are_no_more_finalists_than_candidates(scales, count):
    sheet = load_sheet(DEMO, [f"guidance_search.scales={scales}", "guidance_search.schedules=[linear]",
                              "guidance_search.coarse={samples_per_class: 5, finalists: 3}"])
    files = [path.as_posix() for path in Tree("results/demo", sheet).finalists(sheet.trials[0], "1M")]
    assert files == [f"results/demo/guidance/main/1M/finalists/{rank}.json" for rank in range(1, count + 1)]


@pytest.mark.parametrize(("coarse", "message"), [
    ("{samples_per_class: 50, finalists: 3}", "guidance_search.coarse.samples_per_class: 50 is not below samples_per_class"),
    ("{samples_per_class: 5}", "guidance_search.coarse.finalists: missing"),
    ("{samples_per_class: 5, finalists: 0}", "guidance_search.coarse.finalists: "),
    ("5", "guidance_search.coarse: ")])
def test_a_first_round_that_makes_no_sense_is_refused(coarse, message):
    with pytest.raises(ConfigError, match=message):
        search_of(f"guidance_search.coarse={coarse}")


def test_a_round_depends_on_its_own_number_of_samples():
    def depends(stage, *overrides):
        return depends_on(stage, load_params(ROOT / "params/imagenet256.yaml", overrides))

    more, again = "guidance_search.samples_per_class=60", "guidance_search.coarse.finalists=4"
    fewer, exhaustive = "guidance_search.coarse.samples_per_class=9", "guidance_search.coarse=null"
    assert depends("candidate") == depends("candidate", more) == depends("candidate", again)
    assert depends("candidate") != depends("candidate", fewer) and depends("candidate") != depends("candidate", exhaustive)
    assert depends("candidate", exhaustive) != depends("candidate", exhaustive, more)
    assert depends("finalist") == depends("finalist", again) != depends("finalist", more)
    assert depends("guidance") != depends("guidance", again)
