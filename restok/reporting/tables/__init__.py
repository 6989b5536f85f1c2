"""Every table: its rows from the results, as its file has them and as a reader sees them."""
