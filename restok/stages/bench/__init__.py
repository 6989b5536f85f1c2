"""How long things take on the device at hand: the steps of the chain, and the metrics beside the field's usual way."""
