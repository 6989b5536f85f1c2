"""The finished chain that bad inputs are made from: the short run with fewer steps, every stage of it, in one folder."""

import json
import shlex
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from click.testing import Result

ROOT = Path(__file__).parent.parent.parent
FEWER = {"steps: 100\n": "steps: 20\n", "{750k: 40, 1M: 80}": "{750k: 4, 1M: 6}", "start: 40": "start: 2",
         "steps: 80\n": "steps: 8\n", "save_every: 30": "save_every: 2", "log_every: 5": "log_every: 2",
         "warmup_steps: 10": "warmup_steps: 2"}
RUN, R = "params/run.yaml", "results/run"
P = f"--params {RUN}"
SHOWN = f"{P} --results {R}"
C = f"--classifier {R}/classifier"
T, G = f"--tokenizer {R}/tokenizer/main/750k", f"--generator {R}/generator/main/750k"
SAMPLES = f"--samples {R}/samples/main/750k.npz"
E = f"{C} --reference {R}/reference/validation.safetensors"
TABLES = ("table1", "table6", "table7", "table8", "table9")
FIGURES = ("fig5", "fig6", "fig7", "fig8", "fig9", "codebook", "guidance")


def commands() -> list[str]:
    """In their order, what makes the chain."""
    made = [f"prepare {P} --out {R}/data", f"train-classifier {P} --data {R}/data --out {R}/classifier",
            f"statistics {R}/data {P} {C} --out {R}/reference/validation.safetensors", f"layout {P} --out {R}/layout.npz"]
    for label, previous in (("750k", ""), ("1M", f"--previous {R}/tokenizer/main/750k")):
        row = f"main/{label}"
        tokenizer, codes, generator = (f"{R}/{stage}/{row}" for stage in ("tokenizer", "codes", "generator"))
        models, guide = f"--tokenizer {tokenizer} --generator {generator}", f"{R}/guidance/{row}"
        made += [
            f"train-tokenizer {P} --data {R}/data {C} --checkpoint {label} {previous} --run runs/tokenizer/{label} "
            f"--out {tokenizer}",
            f"encode {P} --data {R}/data --tokenizer {tokenizer} --out {codes}",
            *(f"encode {P} --data {R}/data --tokenizer {tokenizer} --part {part}/3 --out parts/{label}/{part}"
              for part in range(3)),
            f"train-generator {P} --codes {codes} --tokenizer {tokenizer} --run runs/generator/{label} "
            f"--out {generator}",
            f"score-guidance {P} {models} {E} --schedule constant --scale 1 --out {guide}/constant_1.0_0.0.json",
            f"score-guidance {P} {models} {E} --schedule step --scale 2 --start 0.25 --out {guide}/step_2.0_0.25.json",
            f"search-guidance {guide}/constant_1.0_0.0.json {guide}/step_2.0_0.25.json --out {guide}.json",
            f"evaluate {P} {models} --guidance {guide}.json {E} --out {R}/evaluation/{row}/generation.json",
            f"evaluate {P} {models} --unguided {E} --out {R}/evaluation/{row}/unguided.json",
            f"evaluate {P} --tokenizer {tokenizer} --originals {R}/data {E} "
            f"--out {R}/evaluation/{row}/reconstruction.json",
            f"panel --data {R}/data --tokenizer {tokenizer} --out {R}/panel/{row}.npz",
            f"sample {P} {models} --guidance {guide}.json --per-class 2 --out {R}/samples/{row}.npz"]
    made += [f"table {name} {SHOWN} --out reports/run/{name}.csv" for name in TABLES]
    made += [f"figure {name} {SHOWN} --out reports/run/{name}.png" for name in FIGURES]
    return made


def lay_out(home: Path) -> None:
    """The settings of the chain, which its commands read, and the workflow."""
    for name in ("params", "workflow"):
        shutil.copytree(ROOT / name, home / name)
    for name in ("Snakefile", "run.yaml"):
        shutil.copy(ROOT / name, home)
    text = (ROOT / "params/short.yaml").read_text()
    for old, new in FEWER.items():
        assert old in text, old
        text = text.replace(old, new)
    (home / RUN).write_text(text)


def made(home: Path, command: Callable[..., Result], wanted: Callable[[str], bool]) -> Path:
    """The chain's wanted results, in `home`."""
    lay_out(home)
    with chdir(home):
        for words in filter(wanted, commands()):
            result = command(*shlex.split(words))
            assert result.exit_code == 0, (words, result.output)
    return home


def build(home: Path, run: Callable[[str], None]) -> None:
    """`run` runs each command in `home`, and raises where one fails."""
    lay_out(home)
    for words in commands():
        run(words)
    kill_generators()
    run(f"train-generator {P} --codes {R}/codes/main/750k {T} --run unfinished --out out")
    release(home / "theirs")


def kill_generators() -> None:
    """From here on in this process a generator's training ends in its last step, after the states of steps 4 and 6."""
    from restok.training.generator import GeneratorJob
    step = GeneratorJob.step

    def last(self, batch, number):
        if number == 7:
            raise SystemExit(0)
        return step(self, batch, number)

    GeneratorJob.step = last


def release(folder: Path) -> None:
    """Weights as the authors release them: a tokenizer, each tensor one value written once, and a generator."""
    import torch
    from safetensors.torch import save_file

    from restok import compat
    from restok.generator.model import HAR
    from restok.tokenizer.model import ResTok
    folder.mkdir()
    shaped = {"codebook_size": 64, "token_size": 8, "vit_enc_model_size": "small", "vit_dec_model_size": "small",
              "merge_tokens": True, "hierarchy_stages": 2, "num_latent_tokens": 128, "latent_hierarchy": True}
    named = {"quantize.embedding.weight": torch.empty(64, 8), "encoder.ln_pre.weight": torch.empty(512)}
    settings, _ = compat.complete_tokenizer_settings(named, shaped)
    with torch.device("meta"):
        tensors = compat.released_tensors(ResTok(compat.tokenizer_config(settings)))
    torch.save({name: torch.full((1,), 0.01).expand(tensor.shape) for name, tensor in tensors.items()}, folder / "tokenizer.pt")
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    settings = {"n_layer": 2, "n_head": 2, "dim": 128, "vocab_size": 64, "block_size": 128, "num_classes": 10,
                "cls_token_num": 1, "model_type": "c2i", "resid_dropout_p": 0.1, "ffn_dropout_p": 0.1,
                "token_dropout_p": 0.1, "class_dropout_prob": 0.1, "ar_token_num": 1, "spe_token_num": 127}
    save_file(compat.released_tensors(HAR(compat.generator_config(settings))), folder / "generator.safetensors")
    (folder / "generator.json").write_text(json.dumps(settings))
