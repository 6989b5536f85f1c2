"""doctor: what a run needs, held against what is there, before anything long begins."""
