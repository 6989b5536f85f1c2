"""What the jobs of a run need from outside the clone."""

from conftest import ROOT
from small_sheet import rows

from restok.config.load import load_params
from restok.experiments import load_sheet
from restok.experiments.demand import brought, self_contained, wanted


def needs(name, *overrides):
    params = load_params(ROOT / f"params/{name}.yaml", overrides)
    return params, load_sheet(ROOT / f"params/{name}.yaml", overrides)


def test_a_run_needs_the_networks_of_its_settings_and_of_its_rows(tmp_path):
    assert [each.network for each in wanted(*needs("imagenet256"))] == [
        "vit_large_patch16_dinov3.lvd1689m", "vgg", "vit_small_patch16_224.dino", "inception", "dinov2", "alex"]
    assert wanted(*needs("demo")) == [] and self_contained(*needs("demo")) and self_contained(*needs("short"))
    assert not self_contained(*needs("imagenet256"))
    off = "objective.vf=0", "objective.perceptual=0", "objective.gan=0", "evaluation.lpips=false"
    assert [each.network for each in wanted(*needs("imagenet256", *off))] == ["inception", "dinov2"]
    both = "evaluation.also=[dinov2,dinov2-bicubic]"
    assert [each.network for each in wanted(*needs("imagenet256", *off, both))] == ["inception", "dinov2"]        # one file
    sheet = rows(tmp_path, "judged\tablation\tobjective.perceptual_network.network=lpips-vgg\ttable2 #1", "finished\tmain\t"
                 "objective.perceptual_network.network=lpips-alex\ttable1\t\ttheirs/tokenizer\ttheirs/generator")
    params = load_params(tmp_path / "demo.yaml")
    assert [each.network for each in wanted(params, sheet)] == ["vgg"]             # what is finished is not trained
    assert [str(path) for path in brought(params, sheet)] == ["theirs/tokenizer", "theirs/generator"]
    assert not self_contained(params, sheet)
