"""Every figure: its data from the files that the stages wrote, and its drawing as PNG, PDF and CSV (no torch here)."""

from restok.reporting.figures.bars import ablation, codebook, codebook_data
from restok.reporting.figures.curves import fig7, fig7_data, fig7_rows, guidance_curves, guidance_data
from restok.reporting.figures.masks import fig8, fig8_data
from restok.reporting.figures.pictures import fig5, fig5_data, fig6, fig6_data
from restok.reporting.figures.positions import fig9, fig9_data

__all__ = ["ablation", "codebook", "codebook_data", "fig5", "fig5_data", "fig6", "fig6_data", "fig7", "fig7_data", "fig7_rows",
           "fig8", "fig8_data", "fig9", "fig9_data", "guidance_curves", "guidance_data"]
