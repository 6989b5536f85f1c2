"""The paper's names of its metrics, each with the metric of ours that compares with it."""

PAPERS = {"rfid": ("rFID", "rFID"), "gfid": ("gFID", "FID"), "is": ("IS", "IS")}
