"""Every table and figure of the reports: the one list that the sheet, the workflow, the command and the page read.

A new one is an entry here, and the function that makes it.
"""

from dataclasses import dataclass
from typing import Literal

from restok.config import Params
from restok.experiments.trials import Sheet

MEASURED = ("reconstruction", "generation")
BESIDE = (*MEASURED, "unguided")    # the paper has no value of this one, which says what guidance is good for
RECORDS = "provenance"              # below the reports: the folder of their manifests
SUFFIXES = {"table": ("csv",), "chart": ("png", "csv", "pdf"), "figure": ("png", "csv", "pdf")}


@dataclass(frozen=True)
class Item:
    """A table; a chart, which is a table that is drawn as bars, too; or a figure with its data."""

    name: str
    kind: Literal["table", "chart", "figure"]
    made_by: str                                      # module:function below restok.reporting
    reads: tuple[str, ...]                            # the stages whose results it is made from
    rows: Literal["named", "any", "main"] | None      # of the sheet: a name each, any, the run's own; None: takes none
    title: str
    caption: str
    numbers: str | None = None                        # of a figure, module:function of the table that the page shows below it
    searched: bool = False                            # there only where the guidance is searched, not set
    picture: str = ""                                 # what its picture shows, for those who do not see it

    @property
    def files(self) -> tuple[str, ...]:
        """In the reports' folder."""
        return tuple(f"{self.name}.{suffix}" for suffix in SUFFIXES[self.kind])

    @property
    def records(self) -> tuple[str, ...]:
        """The manifests of these files, beside them."""
        return (f"{RECORDS}/{self.name}.json", *([f"{RECORDS}/{self.name}.chart.json"] if self.kind == "chart" else []))


BARS = ("Bars of the table below, a row a setting: a panel each for the distance of reconstructions, the codebook's entropy "
        "and the distance of samples, with their spread; diamonds where the paper prints a value.")
ITEMS = {item.name: item for item in (      # in the order of the page
    Item("table1", "table", "tables.systems:table1", BESIDE, "any", "Table 1. Systems compared",
         "The paper's Table 1, its rows as printed (Inception features, ImageNet 256x256; blank: not published), and this "
         "run's best checkpoint below them, measured without guidance, too. Rows whose features differ do not compare."),
    Item("fig7", "figure", "figures.curves:fig7", BESIDE, "any",
         "Fig. 7. Reconstruction and generation over the tokenizer's training",
         "The paper's Fig. 7: both distances against tokenizer iterations. There, reconstruction improves throughout and "
         "generation is best at 750k (rFID 1.28, gFID 2.34). Here also without guidance.", numbers="figures.curves:fig7_table",
         picture="Three curves over the checkpoints of the tokenizer's training, of the numbers below: the distance of "
         "reconstructions on the left axis, those of samples, with guidance and dotted without, on the right, with a ring "
         "around the chosen checkpoint."),
    Item("table2", "chart", "tables.ablations:table2", MEASURED, "named", "Table 2. Design of the network",
         "The paper's Table 2: hierarchies and residuals of latents and image tokens, one added after the other; S image "
         "scales as in each row.", picture=BARS),
    Item("table3", "chart", "tables.ablations:table3", MEASURED, "named", "Table 3. Pooling factor",
         "The paper's Table 3: how many image tokens each merge makes one, at S image scales. 1 is no pooling.", picture=BARS),
    Item("table4", "chart", "tables.ablations:table4", MEASURED, "named", "Table 4. Alignment",
         "The paper's Table 4: where the tokenizer's features are aligned with the vision model's.", picture=BARS),
    Item("table5", "chart", "tables.ablations:table5", MEASURED, "named", "Table 5. Hierarchical autoregression",
         "The paper's Table 5: token by token, or level by level after some next-token predictions (NTP).", picture=BARS),
    Item("table6", "table", "tables.systems:table6", ("guidance",), "any", "Table 6. Guidance",
         "The paper's Table 6: the guidance chosen for each tokenizer checkpoint by the lowest distance among what was tried. "
         "The start ratio belongs to the step schedule; 0 turns top-k or top-p off."),
    Item("guidance", "figure", "figures.curves:guidance_search", ("guidance",), "main", "The search for guidance",
         "Distance against the largest scale, by schedule, for each tokenizer checkpoint: what Table 6 chose from. Where the "
         "search has two rounds, every candidate is measured on fewer samples first, and the best of them, the finalists, on "
         "more: the two do not compare, since a distance falls with the number of samples.",
         searched=True, picture="A panel a checkpoint: the distance of samples against the largest guidance scale, a line a "
         "schedule, with 95 % intervals; a dashed line without guidance, diamonds for finalists, a ring around the choice."),
    Item("table10", "table", "tables.systems:table10", (*BESIDE, "guidance"), "named", "Table 10. Vanilla autoregression",
         "The paper's Table 10: hierarchical and vanilla generation on the same tokenizer. Here also without guidance."),
    Item("release_switches", "table", "tables.switches:release_switches", MEASURED, "any", "The release's choices",
         "What the authors' published code does otherwise than the paper says, or than its other reading, each switched on "
         "alone and measured."),
    Item("fig5", "figure", "figures.pictures:fig5", (*MEASURED, "panel"), "main", "Fig. 5. Prefixes and attention",
         "The paper's Fig. 5: reconstructions from the first tokens, and the share of attention that each latent level gives "
         "to each image scale, S1 the coarsest. There, the first 16 tokens attend to S1 and S2, later ones to S3 and S4. Here: "
         "the first validation image of each class, of at most eight classes.",
         picture="Above, a row an image: the original, then its reconstructions from more and more tokens, with the mean PSNR "
         "of each column. Below, maps of the share of attention from latent levels to image scales: the mean over layers, then "
         "layer by layer."),
    Item("fig6", "figure", "figures.pictures:fig6", (*MEASURED, "samples", "data"), "main", "Fig. 6. Samples",
         "The paper's Fig. 6: class-conditional samples, here the first ones of each class, not chosen.",
         picture="Generated images, a row a class, whose name stands on the left."),
    Item("codebook", "figure", "figures.bars:codebook", MEASURED, "main", "Codebook by level",
         "Use and entropy (Eq. 5-6) of the codebook by latent level, at the best checkpoint. The paper reports that all of "
         "its ablations use 100 % of the codebook, over all levels together.", numbers="figures.bars:codebook_table",
         picture="Two bar charts of the numbers below, a bar a latent level: the share of codes used, and the entropy in bits, "
         "each with a line at the most that the number of images allows."),
    Item("fig8", "figure", "figures.masks:fig8", ("layout",), None, "Fig. 8. Masks",
         "The paper's Fig. 8: what may attend to what, in the tokenizer's encoder and in the generator, from the tensors that "
         "the models use.",
         picture="Two square maps of tokens against tokens: the mask of the tokenizer's encoder, where latent levels see image "
         "tokens and earlier levels, and the generator's, where each step sees the steps before it."),
    Item("fig9", "figure", "figures.positions:fig9", ("layout",), None, "Fig. 9. Positions",
         "The paper's Fig. 9: the row and column of every token in the rotary embedding of encoder and decoder.",
         picture="The row and column ids of every token, image scales and latent levels beside each other, for the encoder and "
         "for the decoder."),
    Item("table7", "table", "tables.settings:settings", (), None, "Table 7. Training of the tokenizer",
         "The settings that the paper states for the tokenizer, beside this run's."),
    Item("table8", "table", "tables.settings:settings", (), None, "Table 8. Training of the generator",
         "The settings that the paper states for the generator, beside this run's."),
    Item("table9", "table", "tables.settings:table9", (), None, "Table 9. Nested dropout",
         "The paper's Table 9: how often nested dropout keeps how many tokens, exactly, from the parameters."),
)}


def items(params: Params, sheet: Sheet, *kinds: str) -> list[Item]:
    """Those of some kinds (none: all) that a run has: rows feed them, where they take some."""
    return [item for item in ITEMS.values()
            if (not kinds or item.kind in kinds) and not (item.searched and params.sampling.guidance)
            and (not item.rows or any(sheet.feeding(item.name)))]
