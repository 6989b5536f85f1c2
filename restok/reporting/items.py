"""Every table and figure: its files in the reports' folder, its title, its caption."""

TABLE, CHART, PICTURE = ("csv",), ("png", "csv", "pdf"), ("png", "csv", "pdf")

ITEMS = {   # by name, in the order of the page
    "table1": (TABLE, "Table 1. Systems compared",
               "The paper's Table 1, its rows as printed (Inception features, ImageNet 256x256; blank: not published), and "
               "this run's best checkpoint below them. Rows whose features differ do not compare."),
    "fig7": (CHART, "Fig. 7. Reconstruction and generation over the tokenizer's training",
             "The paper's Fig. 7: both distances against tokenizer iterations. There, reconstruction improves throughout and "
             "generation is best at 750k (rFID 1.28, gFID 2.34)."),
    "table2": (CHART, "Table 2. Design of the network",
               "The paper's Table 2: hierarchies and residuals of latents and image tokens, one added after the other; "
               "S image scales as in each row."),
    "table3": (CHART, "Table 3. Pooling factor",
               "The paper's Table 3: how many image tokens each merge makes one, at S image scales. 1 is no pooling."),
    "table4": (CHART, "Table 4. Alignment",
               "The paper's Table 4: where the tokenizer's features are aligned with the vision model's."),
    "table5": (CHART, "Table 5. Hierarchical autoregression",
               "The paper's Table 5: token by token, or level by level after some next-token predictions (NTP)."),
    "table6": (TABLE, "Table 6. Guidance",
               "The paper's Table 6: the guidance chosen for each tokenizer checkpoint by the lowest distance among the "
               "candidates. The start ratio belongs to the step schedule; 0 turns top-k or top-p off."),
    "guidance": (CHART, "The search for guidance",
                 "Distance against the largest scale, by schedule, for each tokenizer checkpoint: what Table 6 chose from."),
    "table10": (TABLE, "Table 10. Vanilla autoregression",
                "The paper's Table 10: hierarchical and vanilla generation on the same tokenizer."),
    "release_switches": (TABLE, "The release's choices",
                         "What the authors' published code does otherwise than the paper says, or than its other reading, each "
                         "switched on alone and measured."),
    "fig5": (PICTURE, "Fig. 5. Prefixes and attention",
             "The paper's Fig. 5: reconstructions from the first tokens, and the share of attention that each latent level "
             "gives to each image scale, S1 the coarsest. There, the first 16 tokens attend to S1 and S2, later ones to S3 "
             "and S4."),
    "fig6": (PICTURE, "Fig. 6. Samples",
             "The paper's Fig. 6: class-conditional samples, here the first ones of each class, not chosen."),
    "codebook": (CHART, "Codebook by level",
                 "Use and entropy (Eq. 5-6) of the codebook by latent level, at the best checkpoint. The paper reports that "
                 "all of its ablations use 100 % of the codebook, over all levels together."),
    "fig8": (PICTURE, "Fig. 8. Masks",
             "The paper's Fig. 8: what may attend to what, in the tokenizer's encoder and in the generator, from the tensors "
             "that the models use."),
    "fig9": (PICTURE, "Fig. 9. Positions",
             "The paper's Fig. 9: the row and column of every token in the rotary embedding of encoder and decoder."),
    "table7": (TABLE, "Table 7. Training of the tokenizer",
               "The settings that the paper states for the tokenizer, beside this run's."),
    "table8": (TABLE, "Table 8. Training of the generator",
               "The settings that the paper states for the generator, beside this run's."),
    "table9": (TABLE, "Table 9. Nested dropout",
               "The paper's Table 9: how often nested dropout keeps how many tokens, exactly, from the parameters."),
}
