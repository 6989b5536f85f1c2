"""What lies on disk, as MLflow shows it. The logs are the record: a store of MLflow can be rebuilt from them at any time."""
