"""Raw images to training batches, and the packed store of codes."""
