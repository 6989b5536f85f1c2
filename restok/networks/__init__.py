"""Networks that others or earlier steps have trained, frozen here: they judge images, teach, and give the metrics features."""
