"""Tables, figures and the page: they read the files that the other stages wrote, and nothing else (no torch here)."""
