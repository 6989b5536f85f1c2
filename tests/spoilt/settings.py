"""Parameter files, the sheet of experiments, and the options of every command."""

import json

from restok.config.load import read_tree
from spoilt.case import Case, Spoil, bytes_of, mishaps, text, written
from spoilt.chain import FEWER, ROOT, RUN, SAMPLES, SHOWN, C, E, G, P, R, T

LAYOUT = f"layout {P} --out out.npz"
TREE = read_tree(ROOT / "params/short.yaml")
KEYS = f"{RUN}: "


def without(section: str) -> Spoil:
    return written(RUN, json.dumps({key: value for key, value in TREE.items() if key != section}))


def setting(old: str, new: str, named: str) -> Case:
    """A line of the parameter file becomes another; the message names the key, or the place."""
    return Case(f"{old.strip()} becomes {new.strip()[:40]!r}", LAYOUT, f"{KEYS}.*{named}", text(RUN, old, new))


def more(what: str, content: str | bytes, named: str) -> Case:
    """Something behind the parameter file's last line."""
    content = content.encode() if isinstance(content, str) else content
    return Case(what, LAYOUT, f"{KEYS}.*{named}", bytes_of(RUN, lambda data: data + content))


def whole(what: str, content: str | bytes, named: str) -> Case:
    return Case(f"a parameter file {what}", LAYOUT, f"{KEYS}.*{named}", written(RUN, content))


BOMB = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10) if i else 'x'}]\n" for i in range(12))
TYPES = {"seed: 10086": ("seed: ten", "seed"), "crop_scale: [0.85, 1.0]": ("crop_scale: 0.85", "data.crop_scale"),
         "channels: [16, 32, 64]": ("channels: {a: 1}", "classifier.channels"),
         "  width: 64": ("  width: '64'", "tokenizer.width"),
         "latent_hierarchy: true": ("latent_hierarchy: yes", "tokenizer.latent_hierarchy"),
         "clip: 10.0": ("clip: [10.0]", "tokenizer_training.clip"), "mse: 1.0": ("mse: null", "objective.mse"),
         "five_crops: false": ("five_crops: 1", "codes.five_crops"), "hidden: 256": ("hidden: 256.5", "generator.hidden"),
         "precision: fp32": ("precision: 32", "tokenizer_training.precision"), "top_k: 0": ("top_k: 0.5", "sampling.top_k"),
         "schedules: [step]": ("schedules: step", "guidance_search.schedules"),
         "distances: [exact]": ("distances: {exact: 1}", "evaluation.distances"),
         "main_seeds: 1": ("main_seeds: true", "experiments.main_seeds")}
RANGES = {"workers: 0": ("workers: 5000", "data.workers"), "seed: 10086": ("seed: -1", "seed"),
          "top_p: 0.95": ("top_p: 1.5", "sampling.top_p"), "temperature: 1.0": ("temperature: .nan", "sampling.temperature"),
          "ema: 0.99": ("ema: 1.01", "ema"), "learning_rate: 3.0e-3": ("learning_rate: -.inf", "classifier.learning_rate"),
          "image_size: 16": ("image_size: 0", "tokenizer.image_size"), "latents: 16": ("latents: 17", "tokenizer.latents"),
          "codebook_size: 256\n  codebook_dim": ("codebook_size: 100000\n  codebook_dim", "codebook_size"),
          "keep_minimum: 4": ("keep_minimum: 99", "tokenizer.keep_minimum"), "heads: 4": ("heads: 7", "tokenizer"),
          "betas: [0.9, 0.95]": ("betas: [0.9, 1.95]", "betas"),
          "crop_scale: [0.85, 1.0]": ("crop_scale: [1.0, 0.85]", "crop_scale"),
          FEWER["{750k: 40, 1M: 80}"]: ("{750k: 6, 1M: 4}", "tokenizer_training.checkpoints"),
          "samples_per_class: 10\n  coarse": ("samples_per_class: 1000000000000\n  coarse", "samples_per_class"),
          "coarse: {samples_per_class: 5": ("coarse: {samples_per_class: 10", "guidance_search.coarse.samples_per_class"),
          "rope_base: 10000": (f"rope_base: {10**400}", "rope_base")}
TRAPS = {
    "  flip: false": ("  flip: false\n  flip: true", "line .*key 'flip' stands twice"),
    "codes:\n": ("data: {}\ncodes:\n", "line .*key 'data' stands twice"), "  width: 64": ("\twidth: 64", "line 31"),
    "multipliers: [1, 2, 4]": ("multipliers: [1, 2, 4", "line"),
    "  merge: average": ("  merge: !!python/name:os.system", "line .*tag"),
    "latents: 16": ("latents: 1_6", "tokenizer.latents"), "log_every: 2\n": ("log_every: 1:30\n",
        "tokenizer_training.log_every"),
    "{750k: 4, 1M: 6}": ("{2024-01-01: 4, 1M: 2024-01-01}", "line .*date"), "  heads: 4": ("  <<: {heads: 4}", "line .*merge"),
    "tokenizer:\n": ("tokeniser:\n", "did you mean 'tokenizer'"),
    "weight_decay: 1.0e-4": ("wieght_decay: 1.0e-4", "did you mean 'weight_decay'")}

PARAMETERS = [
    *(Case(f"section {name} missing", LAYOUT, f"{KEYS}{name}: missing", without(name)) for name in TREE),
    *(setting(old, *new) for table in (TYPES, RANGES, TRAPS) for old, new in table.items()),
    *mishaps("a parameter file", RUN, LAYOUT, without=("cut short",)),
    more("aliases by the billion", BOMB, "values"), more("a text that names itself", "a: &a [*a]\n", "circular"),
    more("a deep nest", "a: " + "[" * 4000 + "]" * 4000, "levels"), more("two documents", "---\nseed: 1\n", "document"),
    more("a byte of Latin-1", b"# caf\xe9\n", "byte 0xe9 in line"), more("a null character", 'a: "\\0"\n', "null"),
    more("half a character", 'a: "\\ud800"\n', "line|unknown key"),
    more("a key beside the sections", "more: 1\n", "more: unknown key"),
    whole("that is a list", "- 1\n", "expected keys"), whole("that is a number", "12", "expected keys"),
    whole("in UTF-16", "seed: 1\n".encode("utf-16"), "UTF-16"),
    *(Case(f"a parameter file {what}", LAYOUT, r"out\.npz", bytes_of(RUN, change), read=True) for what, change in (
        ("with a mark", b"\xef\xbb\xbf".__add__), ("with Windows' ends of lines", lambda data: data.replace(b"\n", b"\r\n")),
        ("as JSON", lambda _: json.dumps(TREE).encode()))),
    Case("010 is ten", f"train-generator {P} --codes {R}/codes/main/750k {T} --run new --out out", "generator 10/10",
         text(RUN, "steps: 8\n", "steps: 010\n"), read=True),
    Case("a folder without parameter files", "layout --params nowhere/run.yaml --out out.npz", "nowhere/run.yaml"),
]

SHEET = "params/experiments.tsv"
TABLE = f"table table6 {SHOWN} --out out.csv"


def row(cells: str, named: str) -> Case:
    """One more row of the sheet; commas stand for tabs."""
    line = cells.replace(",", "\t") + "\n"
    return Case(f"a row {cells[:50]!r}", TABLE, f"{SHEET}, line .*{named}", bytes_of(SHEET, lambda data: data + line.encode()))


def sheet(what: str, change, named: str, read: bool = False) -> Case:
    return Case(f"a sheet {what}", TABLE, named, bytes_of(SHEET, change), read)


EXPERIMENTS = [
    row("a,ablation,tokenizer.codebook_siz=128,table2 #9", "column overrides.*did you mean 'codebook_size'"),
    row("a,ablation,tokenizer.codebook_size=128,table2 #9", "column overrides.*generator.codebook_size"),
    row("a,ablation,tokeniser.width=8,table2 #9", "column overrides.*'tokeniser.width=8'"),
    row("a,ablation,tokenizer.scales=99,table2 #9", "column overrides.*scales"), row("a,other,,table2 #9", "column base"),
    row("a,ablation,,", "column feeds: blank"), row("a,ablation,,tabel2 #9", "column feeds.*did you mean 'table2'"),
    row("a,ablation,,table2", "column feeds.*a row has a name"), row("a,ablation,,codebook", "column feeds.*codebook"),
    row("a,ablation,,table2 #9@900k", "column feeds.*no checkpoint '900k'"),
    row("a,ablation,seed=5,table2 #9", "column overrides.*seed=5"),
    row("a,ablation,data.train=other,table2 #9", "column overrides.*data.train is shared"),
    row("a,ablation,codes.flip=true; codes.flip=false,table2 #9", "column overrides.*undoes another"),
    row("a,ablation,sampling.guidance={schedule: linear,table2 #9", "column overrides.*not valid YAML"),
    row("a,ablation,,table2 #9,dmeo", "column params: 'dmeo'"),
    row("a,main,,table1,,my weights,", "column tokenizer: 'my weights'"),
    row("a,main,,table1,,{weights},", "column tokenizer"), row("a b,ablation,,table2 #9", "column id: 'a b'"),
    row("a;b,ablation,,table2 #9", "column id: 'a;b'"), row("main,ablation,,table2 #9", "row 'main', column id"),
    row("../a,ablation,,table2 #9", "column id"), row("a,ablation,,table2 #9,,,folder", "column tokenizer: blank"),
    row("a,ablation,,table2 #9,,,,more", "8 cells for 7 columns"), row('a,ablation,"open,table2 #9', "quote"),
    *mishaps("a sheet", SHEET, TABLE, without=("cut short",)),
    sheet("in Latin-1", lambda data: data + b"# caf\xe9\n", f"{SHEET}.*byte 0xe9 in line"),
    sheet("in UTF-16", lambda data: data.decode().encode("utf-16"), f"{SHEET}.*UTF-16"),
    sheet("with commas", lambda data: data.replace(b"\t", b","), f"{SHEET}: columns"),
    sheet("without a column", lambda data: data.replace(b"id\tbase", b"id"), f"{SHEET}: columns"),
    sheet("with a column twice", lambda data: data.replace(b"id\tbase", b"id\tid"), f"{SHEET}: columns"),
    sheet("with a mark", b"\xef\xbb\xbf".__add__, r"out\.csv", read=True),
    sheet("as a spreadsheet saves it", lambda data: b"\xef\xbb\xbf" + b"\r\n".join(
        b"\t".join(b'"' + cell.replace(b'"', b'""') + b'"' for cell in line.split(b"\t"))
        for line in data.splitlines() if not line.startswith(b"#")), r"out\.csv", read=True),
]

LAY, SAMPLE = LAYOUT, f"sample {T} {G} --out s.npz --per-class 1"
MEASURED = f"{R}/evaluation/main/750k/generation.json"
MEASURE = f"evaluate {P} {E} {SAMPLES} --out out.json"
SCORE = f"score-guidance {P} {E} {T} {G} --out out.json"
FETCH = f"fetch {P} --set evaluation.lpips=true --set evaluation.lpips_weights=alex.pth"
GENERATE = f"train-generator {P} --codes {R}/codes/main/750k {T} --run new --out out"


def option(words: str, named: str) -> Case:
    return Case(words if len(words) < 120 else f"...{words[-110:]}", words, named)


OPTIONS = [
    *(option(f'{LAY} --set "{given}"', named) for given, named in {
        "tokenizer.width": "override 'tokenizer.width'", "width=3": "width", "=3": "override '=3'", "tokenizer=3": "tokenizer",
        "tokenizer.width=": "tokenizer.width", "tokenizer.width=[1": "override 'tokenizer.width=.1'.*line 1",
        "tokenizer.cnn.more.deep=1": "tokenizer.cnn.more.deep", "tokenizer.width=1e400": "tokenizer.width",
        "tokenizer..width=3": "tokenizer..width", "tokenizer.widht=64": "did you mean 'width'",
        "seed=99999999999999999999": "seed", "tokenizer.latents=0": "tokenizer.latents",
        "tokenizer_training.checkpoints={}": "tokenizer_training.checkpoints"}.items()),
    option(f"{LAY} --set tokenizer.width=8 --set tokenizer.width=16", "tokenizer.width=16.*undoes"),
    option(f"{LAY} --set tokenizer.width=8 --set tokenizer={{}}", "tokenizer=.*undoes"),
    option("layout --out out.npz", "--params"), option(f"layout {P}", "--out"), option(f"{LAY} --nosuch 1", "--nosuch"),
    option(f"{LAY} more", "more"), option("layuot", "layuot"),
    option(f"{SAMPLE} --class 10", "class 10|10"), option(f"{SAMPLE} --class -1", "-1"),
    option(f"{SAMPLE} --class one", "--class"),
    option(f"{SAMPLE} --class 1 --classes 2", "--class"), option(f"{SAMPLE} --classes 50", "50"),
    option(f"{SAMPLE} --per-class 0", "--per-class"), option(f"{SAMPLE} --per-class 10000000", "--per-class"),
    option(f"{SAMPLE} --temperature 0", "temperature"), option(f"{SAMPLE} --temperature nan", "temperature"),
    option(f"{SAMPLE} --top-p 1.5", "top_p"), option(f"{SAMPLE} --top-k -1", "top_k"),
    option(f"{SAMPLE} --schedule step", "--schedule and --scale"), option(f"{SAMPLE} --schedule stairs --scale 2", "schedule"),
    option(f"{SAMPLE} --schedule step --scale nan", "scale"),
    option(f"{SAMPLE} --schedule step --scale 2 --start 1.5", "start"),
    option(f"{SAMPLE} --seed 99999999999999999999999", "seed"), option(f"{SAMPLE} --seed -1", "--seed"),
    option(f"{SAMPLE} --set seed=1", "--set"), option(f"sample {P} {T} {G} --out s.npz", "sampling.guidance"),
    option(f"sample {T} {G} --out s.gif", "s.gif"), option(f"sample {T} {G} --out s.png --per-class 99999", "s.png"),
    option(f"{SCORE} --schedule step --scale inf", "scale"), option(f"{SCORE} --schedule none --scale 1", "schedule"),
    option(f"{MEASURE} --count 3", "not the 3 asked for"), option(f"{MEASURE} --crop -5", "--crop"),
    option(f"evaluate {P} {C} --samples {R}/data --reference {R}/data --crop 99999 --out out.json", "crop 99999"),
    option(f"{MEASURE} --workers -1", "--workers"), option(f"{MEASURE} --seed -1", "--seed"),
    option(f"{MEASURE} --features vgg", "features"),
    option(f"{MEASURE} --experiment nosuch.1", "nosuch.1"), option(f"{MEASURE} --samples {R}/data", "several --samples"),
    option(f"{MEASURE} {T}", "--samples"), option(f"evaluate {P} {E} --out out.json", "--samples"),
    option(f"evaluate {P} {E} {T} --out out.json", "--originals"),
    option(f"{MEASURE} --guidance {R}/guidance/main/750k.json", "--guidance"),
    option(f"evaluate {P} {C} {SAMPLES} --out out.json", "--reference"),
    option(f"evaluate {P} --reference {R}/data {SAMPLES} --out out.json", "--classifier|train-classifier"),
    *(option(f"prepare {P} --out out --part {part}", "part") for part in ("4/4", "0/0", "-1/2", "a/b", "1")),
    option(f"prepare {P} --out out --part 0/2 --run run", "--run"),
    option(f"prepare {R}/data {P} --out out --part 0/2", "--part"),
    option(f"prepare nowhere {P} --out out", "nowhere"), option(f"prepare {R}/data {P} --out out", "data.*manifest.json"),
    option(f"prepare {P} --set data.classes=list.txt --out out", "data.classes"),
    *(option(f"prepare {P} --set data.source={source} --out out", "data.path") for source in ("webdataset", "parquet")),
    *(option(f"prepare {P} --set data.source={source} --set data.path={path} --out out", path)
      for source in ("webdataset", "parquet") for path in ("nowhere", "params")),
    *(option(f"statistics {R}/data {P} {C} --out s.safetensors --part {part}", "part")
      for part in ("4/4", "0/0", "-1/2", "a/b", "1")),
    *(option(f"encode {P} --data {R}/data {T} --out out --part {part}", "part") for part in ("4/4", "0/0", "-1/2", "a/b", "1")),
    option(f"statistics {R}/data {P} {C} {T} --out s.safetensors", f"{R}/data"),
    option(f"average {MEASURED} --out out.json", "two results"),
    option(f"average {MEASURED} {MEASURED} --out out.json", "seeds"),
    option(f"reconstruct {R}/data {T} --out r.npz --keep 0", "keep"),
    option(f"reconstruct {R}/data {T} --out r.npz --keep 17", "17"),
    option(f"reconstruct {R}/data {T} --out r.npz --batch-size 0", "--batch-size"),
    option(f"reconstruct {T} --out r.npz", "images"),
    option(f"train-tokenizer {P} --data {R}/data {C} --checkpoint 2M --run new --out out", "checkpoint '2M'"),
    option(f"train-tokenizer {P} --data {R}/data {C} --checkpoint 1M --run new --out out", "checkpoint 1M"),
    option(f"train-tokenizer {P} --data {R}/data {C} --checkpoint 750k --previous {R}/tokenizer/main/750k --run new --out out",
           "750k"),
    option(f"train-tokenizer {P} --data {R}/data --checkpoint 750k --run new --out out", "--classifier|train-classifier"),
    option(f"{GENERATE} --set generator.classes=9", "generator.classes"),
    option(f"{GENERATE} --experiment restok.1", "restok.1"),
    option(f"train-classifier {P} --data {R}/data --out out --set classifier=null", "classifier"),
    option(f"table table99 {SHOWN} --out out.csv", "table99"), option(f"figure fig5 {P} --out out.png", "--results"),
    option("figure table2 --out out.png", "--table"), option(f"figure fig7 {SHOWN} --out out.gif", "out.gif"),
    option("convert a b out", "--from"), option("convert --from release --to release a b out", "--from"),
    option("bench nosuch --out out.json", "nosuch"),
    option("fetch --params nowhere.yaml", r"nowhere\.yaml"), option("fetch --set seed=1", "evaluation.KEY"),
    option("doctor", "--params"), option("doctor --params nowhere.yaml", r"nowhere\.yaml"),
    option(f"doctor {P} --out {R}/generator/main/750k/metrics.json", r"metrics\.json"),
    option(f"fetch {P} --set objective.alignment.network=vit_smal_patch16_224.dino", "did you mean 'vit_small_patch16_224"),
    *mishaps("a file of AlexNet", "alex.pth", FETCH, without=("cut short",)),
    option("bench metrics --out out.json --repeats 0", "repeats"),
    option("bench metrics --out out.json --samples 0", "samples"),
    option("bench codes --out out.json --samples 0", "images"),
    option(f"bench chain {P} --out out.json --batch-size 0", "batch"),
]
