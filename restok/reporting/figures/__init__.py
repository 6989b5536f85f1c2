"""Every figure: its data from the files that the stages wrote, and its drawing as PNG, PDF and CSV (no torch here)."""
